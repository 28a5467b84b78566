//! What people should look at: work that will not go on well by itself. Derived from the views at a
//! moment; nothing is stored, nothing is decided.

use std::collections::{BTreeMap, HashMap};

use crate::agent::event::Status;
use crate::agent::selection::fits;
use crate::operation::definition::{Requirements, StepDefinition};
use crate::operation::step::{Run, StepStatus};
use crate::views::Views;
use crate::views::operation_board::Row;
use crate::{AgentId, OperationId, Timestamp};

/// Operations that one look examines, in the order of their ids.
pub const EXAMINED_MAX: usize = 10_000;
/// Steps of one operation which wait for an agent that one look examines.
const READY_MAX: usize = 100;
/// Leases of one step that were lost, from which on it is a concern.
const LOSSES: u32 = 2;
/// Share of an operation's time, in percent, before which nothing is concluded from its progress.
const EARLY_PERCENT: u64 = 20;
/// Attempts that failed within [`STORM_MINUTES`], from which on they are a storm …
const STORM_RETRIES: u64 = 20;
/// … if they are also more than the steps that completed.
const STORM_MINUTES: i64 = 5;

/// Why something should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// More attempts fail than steps complete.
    RetryStorm,
    /// Nobody knows what became of a step; a person must say.
    NeedsAttention,
    /// A step waits for a person's answer, and less than a fifth of the time is left.
    ApprovalExpiring,
    /// A step waits for a person's answer.
    ApprovalWaiting,
    /// No registered agent can take a step that waits for one.
    NoCapableAgent,
    /// Every agent that can take a step which waits for one is silent, drained or quarantined.
    AgentsUnavailable,
    /// A step was lost more than once.
    LeaseLostTwice,
    /// At this pace the operation does not make its deadline.
    DeadlineAtRisk,
}

impl Kind {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeedsAttention => "needs_attention",
            Self::ApprovalExpiring => "approval_expiring",
            Self::ApprovalWaiting => "approval_waiting",
            Self::NoCapableAgent => "no_capable_agent",
            Self::AgentsUnavailable => "agents_unavailable",
            Self::LeaseLostTwice => "lease_lost_twice",
            Self::DeadlineAtRisk => "deadline_at_risk",
            Self::RetryStorm => "retry_storm",
        }
    }
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Why.
    pub kind: Kind,
    /// Which operation, unless it is about all.
    pub operation: Option<OperationId>,
    /// Which step, if it is about one.
    pub step: Option<u32>,
    /// A sentence that says what to do.
    pub detail: String,
}

/// At most `max` concerns of this moment, what waits for a person first: every such step, and of each other
/// kind one step per operation.
#[must_use]
pub fn concerns(views: &Views, now: Timestamp, max: usize) -> Vec<Concern> {
    let mut look = Look { views, now, takers: HashMap::new() };
    let mut found: BTreeMap<Kind, Vec<Concern>> = BTreeMap::new();
    for id in views.operations.open().iter().take(EXAMINED_MAX) {
        if let Some(row) = views.operations.get(id)
            && let Some(run) = row.open_run()
        {
            for concern in look.at(id, row, run) {
                let of_kind = found.entry(concern.kind).or_default();
                if of_kind.len() < max {
                    of_kind.push(concern);
                }
            }
        }
    }
    found.entry(Kind::RetryStorm).or_default().extend(retry_storm(views, now));
    found.into_values().flatten().take(max).collect()
}

fn retry_storm(views: &Views, now: Timestamp) -> Option<Concern> {
    let minutes = || views.dashboard.last_minutes(now, STORM_MINUTES);
    let retries: u64 = minutes().map(|minute| minute.retries).sum();
    let steps: u64 = minutes().map(|minute| minute.steps).sum();
    let detail = format!(
        "{retries} attempts were scheduled again in {STORM_MINUTES} minutes and {steps} steps completed: \
         look at what they fail with."
    );
    let storm = retries >= STORM_RETRIES && retries > steps;
    storm.then_some(Concern { kind: Kind::RetryStorm, operation: None, step: None, detail })
}

/// A kind of concern, the step that it is about, and what to do.
type Found = (Kind, Option<u32>, String);

/// Who could take what a step asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takers {
    /// No registered agent.
    Nobody,
    /// Only agents that get no work: silent, drained or quarantined.
    Unavailable,
    /// An active agent.
    Active,
}

struct Look<'v> {
    views: &'v Views,
    now: Timestamp,
    /// Who could take what such a step asks for.
    takers: HashMap<(&'v [AgentId], Option<&'v AgentId>, &'v Requirements), Takers>,
}

impl<'v> Look<'v> {
    fn at(&mut self, id: &OperationId, row: &'v Row, run: &'v Run) -> impl Iterator<Item = Concern> {
        let mut found: Vec<Found> = self.with_people(run).collect();
        found.extend(self.without_agents(row, run));
        found.extend([lost_twice(run), self.deadline_at_risk(row)].into_iter().flatten());
        let id = id.clone();
        found.into_iter().map(move |(kind, step, detail)| Concern {
            kind,
            operation: Some(id.clone()),
            step,
            detail,
        })
    }

    /// Every step that waits for a person.
    fn with_people(&self, run: &Run) -> impl Iterator<Item = Found> {
        let now = self.now;
        run.with_people.iter().filter_map(move |position| {
            let step = run.skeleton.steps[*position].step;
            let (kind, detail) = match &run.steps[*position].status {
                StepStatus::NeedsAttention => {
                    (Kind::NeedsAttention, format!("Find out what became of step {step} and resolve it."))
                }
                StepStatus::AwaitingApproval { until, timeout_ms } => {
                    let expires_soon = until.ms_since(now) < timeout_ms / 5;
                    let kind = if expires_soon { Kind::ApprovalExpiring } else { Kind::ApprovalWaiting };
                    (kind, format!("Approve or reject step {step} before {until}."))
                }
                _ => return None,
            };
            Some((kind, Some(step), detail))
        })
    }

    /// The first step that no agent could take, and the first one that could only be taken by agents which
    /// get no work.
    fn without_agents(&mut self, row: &'v Row, run: &'v Run) -> impl Iterator<Item = Found> {
        let (mut nobody, mut unavailable) = (None, None);
        for position in run.awaiting_agents(self.now).take(READY_MAX) {
            let step = &run.skeleton.steps[position];
            match self.takers(row, step) {
                Takers::Nobody => _ = nobody.get_or_insert(step.step),
                Takers::Unavailable => _ = unavailable.get_or_insert(step.step),
                Takers::Active => {}
            }
        }
        let nobody = nobody.map(|step| {
            let detail = format!("No registered agent can take step {step}: register one that can.");
            (Kind::NoCapableAgent, Some(step), detail)
        });
        let unavailable = unavailable.map(|step| {
            let detail = format!(
                "Every agent that can take step {step} is silent, drained or quarantined: \
                 start or reactivate one."
            );
            (Kind::AgentsUnavailable, Some(step), detail)
        });
        nobody.into_iter().chain(unavailable)
    }

    fn takers(&mut self, row: &'v Row, step: &'v StepDefinition) -> Takers {
        let (agent, among, requires) = (step.agent.as_ref(), row.agents.as_slice(), &step.requires);
        let look = || {
            let mut capable = self
                .views
                .agents
                .iter()
                .filter(|(id, row)| fits(agent, among, requires, id, &row.agent.profile));
            match capable.next() {
                None => Takers::Nobody,
                Some((_, first)) if first.agent.status == Status::Active => Takers::Active,
                Some(_) if capable.any(|(_, row)| row.agent.status == Status::Active) => Takers::Active,
                Some(_) => Takers::Unavailable,
            }
        };
        *self.takers.entry((among, agent, requires)).or_insert_with(look)
    }

    /// Its progress so far, carried on at the same pace, ends after the deadline.
    fn deadline_at_risk(&self, row: &Row) -> Option<Found> {
        let (began, deadline) = (row.started_at?, row.deadline?);
        let (whole, gone) = (deadline.ms_since(began), self.now.ms_since(began));
        let late = u128::from(gone) * 100 > u128::from(whole) * u128::from(row.progress);
        let early = u128::from(gone) * 100 < u128::from(whole) * u128::from(EARLY_PERCENT);
        let detail = format!("At {} % it will hardly make its deadline, {deadline}.", row.progress);
        (late && !early).then_some((Kind::DeadlineAtRisk, None, detail))
    }
}

fn lost_twice(run: &Run) -> Option<Found> {
    let open = run.ready.iter().chain(&run.held).chain(&run.backing_off);
    let position = *open.into_iter().find(|at| run.steps[**at].losses >= LOSSES)?;
    let (step, losses) = (run.skeleton.steps[position].step, run.steps[position].losses);
    let detail = format!("Step {step} was lost {losses} times: see its attempts.");
    Some((Kind::LeaseLostTwice, Some(step), detail))
}
