//! Owns what is counted of recorded choices that are weighed anew, and how that is told.

use domain::agent::reweighing::{Difference, Reweighed};
use domain::agent::selection::Weights;
use domain::operation::event::StepReserved;
use serde::Serialize;

use super::super::table::Table;
use super::history::Choice;

/// One choice that would have been another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    operation_id: String,
    step: u32,
    attempt: u32,
    /// Whom the recorded weights chose.
    chosen: String,
    /// Its score as it was recorded.
    recorded_score: f64,
    /// Its score by the new weights.
    score: f64,
    /// Whom the new weights would have chosen.
    instead: String,
    /// Its score by the new weights.
    instead_score: f64,
}

impl Change {
    fn of(choice: &StepReserved, difference: &Difference<'_>) -> Self {
        Self {
            operation_id: choice.lease_id.operation.to_string(),
            step: choice.step,
            attempt: choice.attempt,
            chosen: difference.then.agent.to_string(),
            recorded_score: difference.then.score,
            score: difference.then_score,
            instead: difference.now.agent.to_string(),
            instead_score: difference.now_score,
        }
    }
}

/// All choices by the new weights.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tally {
    weights: Weights,
    /// Choices that were read.
    decisions: u64,
    /// Another agent would have been chosen.
    changed: u64,
    /// The same agent would have been chosen.
    unchanged: u64,
    /// There was only one agent to choose.
    alone: u64,
    /// Only the best ten were recorded, and one beyond them may have been chosen.
    truncated: u64,
    /// The table does not hold the chosen agent, or cannot be read.
    unexplained: u64,
    /// The first changed choices.
    changes: Vec<Change>,
    #[serde(skip)]
    kept_max: usize,
}

impl Tally {
    /// One that lists at most so many changes.
    pub(super) fn new(weights: Weights, kept_max: usize) -> Self {
        Self {
            weights,
            decisions: 0,
            changed: 0,
            unchanged: 0,
            alone: 0,
            truncated: 0,
            unexplained: 0,
            changes: Vec::new(),
            kept_max,
        }
    }

    /// Counts one choice, and says what would have changed, if anything would.
    pub(super) fn take(&mut self, choice: Choice) -> Option<Change> {
        self.decisions += 1;
        let Some(choice) = choice else {
            self.unexplained += 1;
            return None;
        };
        let mut change = None;
        let counter = match choice.candidates.reweighed(&choice.agent, self.weights) {
            Reweighed::Other(difference) => {
                change = Some(Change::of(&choice, &difference));
                &mut self.changed
            }
            Reweighed::Same => &mut self.unchanged,
            Reweighed::Alone => &mut self.alone,
            Reweighed::Truncated => &mut self.truncated,
            Reweighed::Unexplained => &mut self.unexplained,
        };
        *counter += 1;
        self.changes.extend(change.clone().filter(|_| self.changes.len() < self.kept_max));
        change
    }

    /// For people: the changes as a table, then the totals.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(&["OPERATION", "STEP", "ATTEMPT", "CHOSEN", "SCORE", "INSTEAD", "SCORE"]);
        for change in &self.changes {
            table.row([
                change.operation_id.clone(),
                change.step.to_string(),
                change.attempt.to_string(),
                change.chosen.clone(),
                format!("{:.3}", change.score),
                change.instead.clone(),
                format!("{:.3}", change.instead_score),
            ]);
        }
        let drawn = (!self.changes.is_empty()).then(|| table.drawn());
        let hidden = self.changed.saturating_sub(self.changes.len() as u64);
        let more = (hidden > 0).then(|| format!("… and {hidden} more; --limit lists more of them."));
        let lines = drawn.into_iter().chain(more);
        lines.chain([self.totals()]).collect::<Vec<_>>().join("\n")
    }

    fn totals(&self) -> String {
        let Self { decisions, changed, unchanged, alone, truncated, unexplained, .. } = self;
        let known = [
            (alone, "with only one agent to choose"),
            (truncated, "undecidable, since only the best ten were recorded"),
            (unexplained, "without an explanation"),
        ];
        let known = known.iter().filter(|(count, _)| **count > 0);
        let rest: String = known.map(|(count, what)| format!(", {count} {what}")).collect();
        format!("{decisions} decisions: {changed} changed, {unchanged} unchanged{rest}.")
    }
}
