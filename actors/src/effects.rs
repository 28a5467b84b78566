//! What is owed, derived from the views: timers to set and commands to send. The same after a restart
//! as in normal running, since nothing here remembers what was sent before.

use domain::agent::event::StatusReason;
use domain::agent::health;
use domain::agent::quarantine::Thresholds;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::pending::Effect;
use domain::views::Views;
use domain::views::agent_directory::Row as AgentRow;
use domain::views::leases::{Lease, State};
use domain::{AgentId, LaneId, LeaseId, OperationId, Timestamp};

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
    Grace(LeaseId),
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
            Self::Offer(lease) | Self::Lease(lease) | Self::Timeout(lease) | Self::Grace(lease) => {
                Some(lease)
            }
            Self::Answer(..) | Self::Deadline(_) | Self::Silence(_) | Self::Claim(_) | Self::Lane(_) => None,
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
    /// A due retry is kept from the agent that failed it, while another one could take it.
    pub retry_elsewhere_ms: u64,
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
            retry_elsewhere_ms: 30_000,
            views_wait_ms: 2_000,
        }
    }
}

/// When a wake is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this moment.
    At(Timestamp),
    /// After so many milliseconds, counted from when it is first owed.
    In(u64),
}

/// A command that is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owed {
    /// The agent can no longer carry out what it has.
    Lose(LeaseId, LeaseEnd),
    /// The agent needs no time to stop.
    Close(LeaseId, CloseReason),
    /// The agent's work came to nothing too often in a row.
    Quarantine {
        /// Which agent.
        agent: AgentId,
        /// Which kind of row it was.
        reason: StatusReason,
        /// The revision of the agent that this was seen at.
        revision: u64,
    },
}

/// Wakes and commands that are owed.
#[derive(Debug, Default)]
pub struct Debts {
    /// The wakes.
    pub wakes: Vec<(Wake, Due)>,
    /// The commands.
    pub owed: Vec<Owed>,
}

/// What one operation is owed, and what the agents are that hold its leases.
#[must_use]
pub fn of_operation(views: &Views, id: &OperationId, periods: &Periods) -> Debts {
    let mut debts = Debts::default();
    let Some(row) = views.operations.get(id) else { return debts };
    let Some(run) = row.run.as_ref() else { return debts };
    for (lease, held) in views.leases.of_operation(id) {
        debts.add_lease(views, lease, held, periods);
    }
    if run.status.is_terminal() {
        return debts;
    }
    if let Some(deadline) = row.deadline {
        debts.wakes.push((Wake::Deadline(id.clone()), Due::At(deadline)));
    }
    let lease = |step: u32, grant: u64| LeaseId { operation: id.clone(), step, grant };
    for effect in run.watches() {
        match effect {
            Effect::AwaitTaker { step, grant, .. } => {
                debts.wakes.push((Wake::Offer(lease(step, grant)), Due::In(periods.offer_ms)));
            }
            Effect::Watch { step, grant, since, timeout_ms, .. } => {
                debts.wakes.push((Wake::Lease(lease(step, grant)), Due::In(periods.lease_ms)));
                let timeout = Due::At(since.plus_ms(timeout_ms));
                debts.wakes.push((Wake::Timeout(lease(step, grant)), timeout));
            }
            Effect::AwaitAnswer { step, until, .. } => {
                debts.wakes.push((Wake::Answer(id.clone(), step), Due::At(until)));
            }
            // What is or will be offered is kept by the index of ready steps.
            Effect::Retry { .. } | Effect::Offer { .. } => {}
        }
    }
    debts
}

/// What one agent is owed.
#[must_use]
pub fn of_agent(views: &Views, id: &AgentId, periods: &Periods, thresholds: &Thresholds) -> Debts {
    let mut debts = Debts::default();
    let Some(row) = views.agents.ever(id) else { return debts };
    if let Some(limit) = silence_limit(views, id, row) {
        debts.wakes.push((Wake::Silence(id.clone()), Due::In(limit)));
    }
    for (lease, held) in views.leases.of_agent(id) {
        debts.add_lease(views, lease, held, periods);
    }
    let verdict = row.work.streaks.verdict(&row.agent.profile.config, thresholds);
    if let Some(reason) = verdict.filter(|_| row.agent.is_in_service()) {
        debts.owed.push(Owed::Quarantine { agent: id.clone(), reason, revision: row.revision });
    }
    debts
}

/// What one lease is owed.
#[must_use]
pub fn of_lease(views: &Views, id: &LeaseId, periods: &Periods) -> Debts {
    let mut debts = Debts::default();
    if let Some(lease) = views.leases.get(id) {
        debts.add_lease(views, id.clone(), lease, periods);
    }
    debts
}

impl Debts {
    fn add_lease(&mut self, views: &Views, id: LeaseId, lease: &Lease, periods: &Periods) {
        let row = views.agents.ever(&lease.agent);
        match (lease.state, row.and_then(|row| row.agent.loss(lease.incarnation))) {
            (State::Held, None) => {}
            (State::Held, Some(end)) => self.owed.push(Owed::Lose(id, end)),
            (State::Closing(_), None) => self.wakes.push((Wake::Grace(id), Due::In(periods.grace_ms))),
            // A lost agent needs no grace: nobody is there to use it.
            (State::Closing(_), Some(end)) => self.owed.push(Owed::Close(id, close_reason(end))),
        }
    }
}

fn close_reason(end: LeaseEnd) -> CloseReason {
    match end {
        LeaseEnd::AgentUnregistered => CloseReason::AgentUnregistered,
        LeaseEnd::NewIncarnation => CloseReason::NewIncarnation,
        LeaseEnd::Revoked => CloseReason::Revoked,
        LeaseEnd::AgentTimeout | LeaseEnd::NoSignOfLife | LeaseEnd::LeaseExpired | LeaseEnd::NotHeard => {
            CloseReason::AgentTimeout
        }
    }
}

/// Silence after which an agent counts as gone; none when that changes nothing.
#[must_use]
pub fn silence_limit(views: &Views, id: &AgentId, row: &AgentRow) -> Option<u64> {
    let agent = &row.agent;
    let works = agent.status == domain::agent::event::Status::Active;
    let listened_for =
        agent.registered && !agent.silent && (works || views.leases.of_agent(id).next().is_some());
    if listened_for { health::silence_limit_ms(&agent.profile.config) } else { None }
}
