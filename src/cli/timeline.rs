//! Owns how the steps of an operation are drawn side by side over time. It draws what the server said; it
//! must never foretell how long a step will take.

use domain::Timestamp;

use super::terminal::{Style, between, plain, span};
use crate::http::operation_view::{OperationView, StepView};

/// Columns of the time axis.
const AXIS: usize = 28;
/// More rows than this would push each other off a small terminal.
const ROWS_MAX: usize = 18;
const NAME_MAX: usize = 18;

/// One line for each step, and one for the whole.
pub(super) fn rows(operation: &OperationView, at: Timestamp, style: Style) -> Vec<String> {
    let begin = operation.started_at.unwrap_or(operation.created_at);
    let end = operation.completed_at.unwrap_or(at).max(begin);
    let axis = Axis { begin, end };
    let (shown, left_out) = chosen(&operation.workflow);
    let mut rows: Vec<String> = shown.into_iter().map(|step| row(step, &axis, style)).collect();
    if left_out > 0 {
        rows.push(style.faint(&format!("  … and {left_out} more steps that wait or are settled")));
    }
    rows.push(whole(operation, &axis, style));
    rows
}

/// All steps of a small operation; of a large one first those under way.
fn chosen(steps: &[StepView]) -> (Vec<&StepView>, usize) {
    if steps.len() <= ROWS_MAX {
        return (steps.iter().collect(), 0);
    }
    let under_way = |step: &&StepView| matches!(step.status.as_str(), "running" | "reserved" | "backing_off");
    let shown: Vec<&StepView> = steps.iter().filter(under_way).take(ROWS_MAX - 1).collect();
    let left_out = steps.len() - shown.len();
    (shown, left_out)
}

struct Axis {
    begin: Timestamp,
    end: Timestamp,
}

impl Axis {
    /// The column of a moment, 0 to `AXIS`.
    fn column(&self, moment: Timestamp) -> usize {
        let whole = self.end.ms_since(self.begin).max(1);
        let part = moment.ms_since(self.begin).min(whole);
        usize::try_from(part * AXIS as u64 / whole).unwrap_or(AXIS)
    }

    /// A bar between two moments; at least one column wide, so that a quick step is seen.
    fn bar(&self, from: Timestamp, to: Timestamp, style: Style) -> String {
        let (full, empty) = if style.blocks { ('█', '·') } else { ('#', '.') };
        let start = self.column(from).min(AXIS - 1);
        let end = self.column(to).clamp(start + 1, AXIS);
        let column = |at: usize| if (start..end).contains(&at) { full } else { empty };
        (0..AXIS).map(column).collect()
    }
}

fn row(step: &StepView, axis: &Axis, style: Style) -> String {
    let bar = match step.started_at {
        Some(from) => axis.bar(from, step.completed_at.unwrap_or(axis.end), style),
        None => " ".repeat(AXIS),
    };
    let lasted = match (step.started_at, step.status.as_str()) {
        (Some(from), "running" | "completed" | "failed") => {
            span(between(from, step.completed_at.unwrap_or(axis.end)))
        }
        _ => String::new(),
    };
    let again = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
    let agent = step.assigned_agent.as_deref().unwrap_or("");
    let left = format!(
        "{:>4} {:<NAME_MAX$} {:<NAME_MAX$}",
        step.step,
        short(step.title.as_ref().unwrap_or(&step.action)),
        short(agent)
    );
    let state = style.status(&step.status, &step.status.replace('_', " "));
    format!("{left} {} {lasted:>8} {state}{again}", style.status(&step.status, &bar))
}

fn whole(operation: &OperationView, axis: &Axis, style: Style) -> String {
    let (full, empty) = if style.blocks { ("█", "░") } else { ("=", "-") };
    let filled = usize::from(operation.progress).min(100) * AXIS / 100;
    let bar = format!("{}{}", full.repeat(filled), empty.repeat(AXIS - filled));
    let settled = operation.workflow.iter().filter(|step| is_settled(&step.status)).count();
    let counts = format!("{settled} of {} steps settled", operation.workflow.len());
    let lasted = span(between(axis.begin, axis.end));
    let left = format!("{:>4} {counts:<width$}", "", width = NAME_MAX * 2 + 1);
    format!("{left} {} {lasted:>8} {} %", style.status(&operation.status, &bar), operation.progress)
}

pub(super) fn is_settled(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "skipped" | "cancelled")
}

fn short(text: &str) -> String {
    plain(text).chars().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    #[test]
    fn a_bar_stands_where_its_step_ran_and_is_never_empty() {
        let axis = Axis { begin: at(0), end: at(2_800) };
        let bar = |from, to| axis.bar(at(from), at(to), Style::PLAIN);
        assert_eq!(bar(0, 2_800), "#".repeat(AXIS));
        assert_eq!(bar(100, 300), format!(".##{}", ".".repeat(AXIS - 3)));
        assert_eq!(bar(2_800, 2_800), format!("{}#", ".".repeat(AXIS - 1)));
        let nothing = Axis { begin: at(5), end: at(5) };
        assert_eq!(nothing.bar(at(5), at(5), Style::PLAIN).matches('#').count(), 1);
    }
}
