//! What is owed, derived from the views: timers to set and commands to send. The same after a restart
//! as in normal running, since nothing here remembers what was sent before.

use domain::agent::event::Outcome;
use domain::agent::{Agent, Effect as AgentEffect, health};
use domain::operation::pending::Effect;
use domain::views::Views;
use domain::views::operation_board::LeaseState;
use domain::{AgentId, Aggregate, LaneId, LeaseId, OperationId, Timestamp};

/// A moment to wake at, and what for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wake {
    /// Take an offer back that nobody took.
    Offer(LeaseId),
    /// End a lease that was not renewed.
    Lease(LeaseId),
    /// End an attempt at its timeout.
    Timeout(LeaseId),
    /// End the wait for a person's answer.
    Answer(OperationId, u32),
    /// End an operation at its deadline.
    Deadline(OperationId),
    /// Notice that an agent is silent.
    Silence(AgentId),
    /// Free the slot of an agent whose operation ended under it.
    Grace(AgentId, LeaseId),
    /// Answer a claim that found nothing.
    Claim(AgentId),
    /// Offer steps again to those who work in a lane that opens.
    Lane(LaneId),
}

impl Wake {
    /// The lease that it is about.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseId> {
        match self {
            Self::Offer(lease) | Self::Lease(lease) | Self::Timeout(lease) => Some(lease),
            Self::Answer(..)
            | Self::Deadline(_)
            | Self::Silence(_)
            | Self::Grace(..)
            | Self::Claim(_)
            | Self::Lane(_) => None,
        }
    }
}

/// Durations that the shell keeps, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// A lease without renewal.
    pub lease_ms: u64,
    /// An offer without a sign of life.
    pub offer_ms: u64,
    /// A slot after its operation was cut short.
    pub grace_ms: u64,
    /// Between two recorded samples of an agent's heartbeats.
    pub sample_ms: u64,
    /// An actor that nobody uses.
    pub idle_ms: u64,
    /// A ready step that nobody took, until it rises one class.
    pub starvation_ms: u64,
    /// The longest wait of a request for the views.
    pub views_wait_ms: u64,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            lease_ms: 60_000,
            offer_ms: 10_000,
            grace_ms: 30_000,
            sample_ms: 60_000,
            idle_ms: 10_000,
            starvation_ms: 300_000,
            views_wait_ms: 2_000,
        }
    }
}

/// When a wake is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Then, whatever was set before.
    At(Timestamp),
    /// A full period from the moment it is first owed.
    In(u64),
}

/// A command that is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Free the slot of an agent.
    Release(AgentId, LeaseId, Outcome),
    /// Tell an operation that a lease is lost.
    Lose(LeaseId, &'static str),
}

/// The wakes that one operation is owed.
#[must_use]
pub fn wakes_of_operation(views: &Views, id: &OperationId, periods: &Periods) -> Vec<(Wake, Due)> {
    let Some(row) = views.operations.get(id) else { return Vec::new() };
    let Some(run) = row.run.as_ref().filter(|run| !run.status.is_terminal()) else { return Vec::new() };
    let mut wakes = Vec::new();
    if let Some(deadline) = row.deadline {
        wakes.push((Wake::Deadline(id.clone()), Due::At(deadline)));
    }
    let lease = |step: u32, grant: u64| LeaseId { operation: id.clone(), step, grant };
    for effect in run.watches() {
        match effect {
            Effect::AwaitTaker { step, grant, .. } => {
                wakes.push((Wake::Offer(lease(step, grant)), Due::In(periods.offer_ms)));
            }
            Effect::Watch { step, grant, since, timeout_ms, .. } => {
                wakes.push((Wake::Lease(lease(step, grant)), Due::In(periods.lease_ms)));
                wakes.push((Wake::Timeout(lease(step, grant)), Due::At(since.plus_ms(timeout_ms))));
            }
            Effect::AwaitAnswer { step, until, .. } => {
                wakes.push((Wake::Answer(id.clone(), step), Due::At(until)));
            }
            // What is or will be offered is kept by the index of ready steps.
            Effect::Retry { .. } | Effect::Offer { .. } => {}
        }
    }
    wakes
}

/// The wakes and commands that one agent is owed.
#[must_use]
pub fn of_agent(views: &Views, id: &AgentId, periods: &Periods) -> (Vec<(Wake, Due)>, Vec<Owed>) {
    let Some(row) = views.agents.ever(id) else { return (Vec::new(), Vec::new()) };
    let (mut wakes, mut owed) = (Vec::new(), Vec::new());
    if let Some(limit) = silence_limit(&row.agent) {
        wakes.push((Wake::Silence(id.clone()), Due::In(limit)));
    }
    for effect in row.agent.pending() {
        let (lease, loss) = match effect {
            AgentEffect::Settle { lease } => (lease, None),
            AgentEffect::Lose { lease, reason } => (lease, Some(reason)),
        };
        match (views.operations.lease_of(id, &lease), loss) {
            (LeaseState::Held, Some(reason)) => owed.push(Owed::Lose(lease, reason)),
            // A lost agent needs no grace: nobody is there to use it.
            (LeaseState::Cut(_), Some(_)) => owed.push(Owed::Release(id.clone(), lease, Outcome::Cancelled)),
            (state, _) => settle(state, id, lease, periods, &mut wakes, &mut owed),
        }
    }
    (wakes, owed)
}

/// The wakes and commands that are owed to the agents that work for one operation.
#[must_use]
pub fn of_workers(
    views: &Views,
    operation: &OperationId,
    periods: &Periods,
) -> (Vec<(Wake, Due)>, Vec<Owed>) {
    let (mut wakes, mut owed) = (Vec::new(), Vec::new());
    for (agent, lease) in views.agents.working_for(operation) {
        let state = views.operations.lease_of(agent, lease);
        settle(state, agent, lease.clone(), periods, &mut wakes, &mut owed);
    }
    (wakes, owed)
}

fn settle(
    state: LeaseState,
    agent: &AgentId,
    lease: LeaseId,
    periods: &Periods,
    wakes: &mut Vec<(Wake, Due)>,
    owed: &mut Vec<Owed>,
) {
    match state {
        LeaseState::Held => {}
        LeaseState::Over(outcome) => owed.push(Owed::Release(agent.clone(), lease, outcome)),
        LeaseState::Cut(_) => wakes.push((Wake::Grace(agent.clone(), lease), Due::In(periods.grace_ms))),
    }
}

/// Silence after which an agent counts as gone; none when that changes nothing.
#[must_use]
pub fn silence_limit(agent: &Agent) -> Option<u64> {
    if agent.is_listened_for() { health::silence_limit_ms(&agent.profile.config) } else { None }
}
