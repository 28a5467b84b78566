//! An agent: who it is, whether it takes work, and which slots are taken. Knows no clock, and of
//! operations only the leases they granted.

pub mod event;
pub mod health;
pub mod profile;
pub mod quarantine;
pub mod record;
pub mod reweighing;
pub mod selection;

use std::collections::BTreeMap;

pub use event::{Event, Profile};

use serde::{Deserialize, Serialize};

use crate::agent::event::{
    Assigned, Outcome, Patch, Registered, Released, ReportedMetrics, Seen, Status, StatusChanged, TimedOut,
};
use crate::agent::quarantine::Streaks;
use crate::agent::record::Record;
use crate::{AgentId, Aggregate, Given, LeaseId, OperationId, Timestamp};

/// What can be asked of an agent.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take part from now on.
    Register {
        /// What it says of itself.
        profile: Box<Profile>,
        /// The incarnation that the caller believes to be; a lower one than the current is stale.
        incarnation: Option<u64>,
    },
    /// Change what it says of itself, and its status if one is given. To be inactive is then a drain: only
    /// another update ends it.
    Update {
        /// What changes.
        patch: Box<Patch>,
        /// The status to have.
        status: Option<Status>,
    },
    /// Take work, or no more, by the agent's own wish. Does not end a drain.
    SetStatus {
        /// The status to have.
        status: Status,
        /// Why.
        reason: String,
    },
    /// Take a slot for this step.
    Reserve {
        /// Names operation, step and grant.
        lease: LeaseId,
    },
    /// Free the slot again.
    Release {
        /// Names operation, step and grant.
        lease: LeaseId,
        /// How it ended.
        outcome: Outcome,
    },
    /// It has been silent for too long.
    TimeOut {
        /// How long.
        silent_ms: u64,
    },
    /// Remember that it was seen.
    RecordSeen {
        /// What it reported.
        metrics: ReportedMetrics,
    },
    /// Take part no more.
    Unregister,
}

/// Why an agent refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such agent.
    #[error("there is no such agent: register it first")]
    Unknown,
    /// A newer incarnation has registered since.
    #[error("incarnation {given} is over, the current one is {current}")]
    StaleIncarnation {
        /// The caller's.
        given: u64,
        /// The newest.
        current: u64,
    },
    /// It takes no work now.
    #[error("the agent is {status} and takes no work")]
    NotActive {
        /// Its status.
        status: &'static str,
    },
    /// Every slot is taken.
    #[error("all {slots} slots of the agent are taken")]
    AtCapacity {
        /// How many it has.
        slots: u32,
    },
}

/// A slot that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The operation.
    pub operation: OperationId,
    /// The step.
    pub step: u32,
    /// The incarnation that took it; a later one has lost it.
    pub incarnation: u64,
    /// When.
    pub since: Timestamp,
}

/// An agent's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// What it says of itself.
    pub profile: Profile,
    /// Rises with every registration.
    pub incarnation: u64,
    /// Whether it takes work.
    pub status: Status,
    /// Why it has that status.
    pub status_reason: String,
    /// Whether it takes part at all.
    pub registered: bool,
    /// Whether it was silent for too long, and has not been active since.
    pub silent: bool,
    /// How often in a row it lost its work, or did not take it.
    pub streaks: Streaks,
    /// Taken slots by lease.
    pub assignments: BTreeMap<LeaseId, Assignment>,
    /// How it did, as the server measured it.
    pub record: Record,
    /// What the last sample said, as it reported itself.
    pub reported: ReportedMetrics,
    /// The last durable trace of it.
    pub last_seen: Timestamp,
    /// When it first registered.
    pub registered_at: Timestamp,
    /// When its last slot became free.
    pub idle_since: Timestamp,
}

/// What the shell owes an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the operation whether this lease still holds, and free the slot if not.
    Settle {
        /// The lease.
        lease: LeaseId,
    },
    /// Tell the operation that this lease is lost: its agent is gone or has started anew.
    Lose {
        /// The lease.
        lease: LeaseId,
        /// See [`crate::operation::event::StepLeaseLost`].
        reason: &'static str,
    },
}

impl Aggregate for Agent {
    const CATEGORY: &'static str = "agent";
    type Id = AgentId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    type Effect = Effect;

    fn decide(
        state: Option<&Self>,
        _id: &AgentId,
        command: &Command,
        given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        match (state, command) {
            (state, Command::Register { profile, incarnation }) => register(state, profile, *incarnation),
            (Some(agent), _) if !agent.registered => agent.decide_unregistered(command, given),
            (Some(agent), command) => agent.decide_registered(command, given),
            (None, _) => Err(Rejection::Unknown),
        }
    }

    fn evolve(state: Option<Self>, event: &Event, at: Timestamp) -> Option<Self> {
        match (state, event) {
            (None, Event::Registered(registered)) => Some(Self::registered(registered, at)),
            (None, _) => None,
            (Some(mut agent), event) => {
                agent.fold(event, at);
                Some(agent)
            }
        }
    }

    fn pending(&self) -> Vec<Effect> {
        let owed = self.assignments.iter().map(|(lease, assignment)| match self.loss(assignment) {
            Some(reason) => Effect::Lose { lease: lease.clone(), reason },
            None => Effect::Settle { lease: lease.clone() },
        });
        owed.collect()
    }
}

fn register(
    state: Option<&Agent>,
    profile: &Profile,
    incarnation: Option<u64>,
) -> Result<Vec<Event>, Rejection> {
    let Some(agent) = state else {
        let registered = Registered { profile: profile.clone(), incarnation: 1 };
        return Ok(vec![Event::Registered(Box::new(registered))]);
    };
    let current = agent.incarnation;
    match incarnation {
        Some(given) if given < current => Err(Rejection::StaleIncarnation { given, current }),
        _ => {
            let registered = Registered { profile: profile.clone(), incarnation: current + 1 };
            let mut events = vec![Event::Reregistered(Box::new(registered))];
            // Whoever drained it did not mean one process of it.
            events.extend(agent.is_drained().then(|| changed(Status::Active, Status::Inactive, DRAINED)));
            Ok(events)
        }
    }
}

fn changed(from: Status, to: Status, reason: &str) -> Event {
    Event::StatusChanged(StatusChanged { from, to, reason: reason.to_owned() })
}

impl Agent {
    fn registered(registered: &Registered, at: Timestamp) -> Self {
        Self {
            profile: registered.profile.clone(),
            incarnation: registered.incarnation,
            status: Status::Active,
            status_reason: "registered".into(),
            registered: true,
            silent: false,
            streaks: Streaks::default(),
            assignments: BTreeMap::new(),
            record: Record::default(),
            reported: ReportedMetrics::default(),
            last_seen: at,
            registered_at: at,
            idle_since: at,
        }
    }

    /// Slots that are not taken.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        let taken = u32::try_from(self.assignments.len()).unwrap_or(u32::MAX);
        self.profile.config.max_concurrent_steps.saturating_sub(taken)
    }

    /// Its status as others see it: `busy` when active without a free slot.
    #[must_use]
    pub fn shown_status(&self) -> &'static str {
        match self.status {
            Status::Active if self.free_slots() == 0 => "busy",
            status => status.name(),
        }
    }

    /// Why an assignment can no longer be carried out by this agent.
    #[must_use]
    pub fn loss(&self, assignment: &Assignment) -> Option<&'static str> {
        if !self.registered {
            Some("agent_unregistered")
        } else if assignment.incarnation != self.incarnation {
            Some("new_incarnation")
        } else {
            self.silent.then_some(AGENT_TIMEOUT)
        }
    }

    /// Whether somebody else than itself lets it take no more work.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.registered && self.status == Status::Inactive && self.status_reason == DRAINED
    }

    /// Whether only its silence keeps it from work.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.status == Status::Inactive && self.status_reason == TIMED_OUT
    }

    /// Whether it is out of service, because its leases or offers came to nothing again and again.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.status == Status::Error && quarantine::is_reason(&self.status_reason)
    }

    /// Whether its silence would change anything.
    #[must_use]
    pub fn is_listened_for(&self) -> bool {
        self.registered && !self.silent && (self.status == Status::Active || !self.assignments.is_empty())
    }

    fn decide_unregistered(&self, command: &Command, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Unregister => Ok(Vec::new()),
            Command::Release { lease, outcome } => Ok(self.release(lease, *outcome, given)),
            _ => Err(Rejection::Unknown),
        }
    }

    fn decide_registered(&self, command: &Command, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        Ok(match command {
            Command::Update { patch, status } => {
                let mut events = self.update(patch);
                events.extend(status.and_then(|status| self.have_status(status)));
                events
            }
            Command::SetStatus { status, reason } => self.set_status(*status, reason).into_iter().collect(),
            Command::Reserve { lease } => return self.reserve(lease),
            Command::Release { lease, outcome } => self.release(lease, *outcome, given),
            Command::TimeOut { silent_ms } => self.time_out(*silent_ms),
            Command::RecordSeen { metrics } => vec![Event::Seen(Seen { metrics: *metrics })],
            Command::Unregister => vec![Event::Unregistered],
            Command::Register { .. } => Vec::new(),
        })
    }

    fn update(&self, patch: &Patch) -> Vec<Event> {
        let mut patch = patch.clone();
        let current = &self.profile;
        patch.name = patch.name.filter(|name| *name != current.name);
        patch.model = patch.model.filter(|model| *model != current.model);
        patch.capabilities = patch.capabilities.filter(|capabilities| *capabilities != current.capabilities);
        patch.location = patch.location.filter(|location| *location != current.location);
        patch.config = patch.config.filter(|config| *config != current.config);
        patch.metadata = patch.metadata.filter(|metadata| *metadata != current.metadata);
        if patch == Patch::default() { Vec::new() } else { vec![Event::Updated(Box::new(patch))] }
    }

    /// The status that somebody else wants it to have.
    fn have_status(&self, to: Status) -> Option<Event> {
        let reason = if to == Status::Inactive { DRAINED } else { "updated" };
        let as_before = self.status == to && (to != Status::Inactive || self.is_drained());
        (!as_before).then(|| changed(self.status, to, reason))
    }

    /// The status that it wants to have.
    fn set_status(&self, to: Status, reason: &str) -> Option<Event> {
        (self.status != to && !self.is_drained()).then(|| changed(self.status, to, reason))
    }

    fn reserve(&self, lease: &LeaseId) -> Result<Vec<Event>, Rejection> {
        if self.assignments.contains_key(lease) {
            return Ok(Vec::new());
        }
        if self.status != Status::Active {
            return Err(Rejection::NotActive { status: self.status.name() });
        }
        if self.free_slots() == 0 {
            return Err(Rejection::AtCapacity { slots: self.profile.config.max_concurrent_steps });
        }
        let (operation, step) = (lease.operation.clone(), lease.step);
        Ok(vec![Event::Assigned(Assigned { lease_id: lease.clone(), operation, step })])
    }

    fn release(&self, lease: &LeaseId, outcome: Outcome, given: &Given<'_>) -> Vec<Event> {
        let Some(assignment) = self.assignments.get(lease) else { return Vec::new() };
        let duration_ms = given.now.ms_since(assignment.since);
        let mut events = vec![Event::Released(Released { lease_id: lease.clone(), outcome, duration_ms })];
        // One that was drained is out of service already, and that shall outlast this.
        if self.status == Status::Active || self.is_timed_out() {
            let after = self.streaks_after(assignment, outcome, given.now);
            let verdict = after.verdict().filter(|_| after != self.streaks);
            events.extend(verdict.map(|reason| changed(self.status, Status::Error, reason)));
        }
        events
    }

    /// What an earlier incarnation had is lost with it, which says nothing of this one.
    fn streaks_after(&self, assignment: &Assignment, outcome: Outcome, at: Timestamp) -> Streaks {
        if assignment.incarnation == self.incarnation {
            self.streaks.after(outcome, assignment.since, at)
        } else {
            self.streaks
        }
    }

    fn time_out(&self, silent_ms: u64) -> Vec<Event> {
        if !self.is_listened_for() {
            return Vec::new();
        }
        let mut events = vec![Event::TimedOut(TimedOut { silent_ms })];
        // Another status outlasts the silence; what the agent still has is lost all the same.
        if self.status == Status::Active {
            events.push(changed(Status::Active, Status::Inactive, TIMED_OUT));
        }
        events
    }

    fn fold(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Registered(registered) | Event::Reregistered(registered) => {
                self.profile = registered.profile.clone();
                self.incarnation = registered.incarnation;
                self.registered = true;
                self.streaks = Streaks::default();
                self.stand(Status::Active, "registered");
                self.last_seen = at;
            }
            Event::Updated(patch) => self.profile.apply(patch),
            Event::StatusChanged(changed) => {
                // To be heard again is no proof of work.
                if changed.to == Status::Active && !self.is_timed_out() {
                    self.streaks = Streaks::default();
                }
                self.stand(changed.to, &changed.reason);
            }
            Event::Assigned(assigned) => {
                let assignment = Assignment {
                    operation: assigned.operation.clone(),
                    step: assigned.step,
                    incarnation: self.incarnation,
                    since: at,
                };
                self.assignments.insert(assigned.lease_id.clone(), assignment);
            }
            Event::Released(released) => self.fold_release(released, at),
            Event::TimedOut(_) => self.silent = true,
            Event::Unregistered => {
                self.registered = false;
                self.stand(Status::Inactive, "unregistered");
            }
            Event::Seen(seen) => {
                self.reported = seen.metrics;
                self.last_seen = at;
            }
        }
    }

    fn stand(&mut self, status: Status, reason: &str) {
        self.silent &= status != Status::Active;
        self.status = status;
        reason.clone_into(&mut self.status_reason);
    }

    fn fold_release(&mut self, released: &Released, at: Timestamp) {
        if let Some(assignment) = self.assignments.remove(&released.lease_id) {
            self.streaks = self.streaks_after(&assignment, released.outcome, at);
        }
        self.idle_since = at;
        self.record.add(released, at);
    }
}

/// Reason of an agent's inactivity after too long a silence.
pub const TIMED_OUT: &str = "timeout";
/// Reason of an agent's inactivity when somebody else wants it to take no more work.
pub const DRAINED: &str = "drained";
/// Why a silent agent's leases and offers are lost.
pub const AGENT_TIMEOUT: &str = "agent_timeout";

impl Profile {
    /// Takes over what a patch changes.
    pub fn apply(&mut self, patch: &Patch) {
        let Patch { name, model, capabilities, location, config, metadata } = patch.clone();
        self.name = name.unwrap_or_else(|| std::mem::take(&mut self.name));
        self.model = model.unwrap_or_else(|| std::mem::take(&mut self.model));
        self.capabilities = capabilities.unwrap_or_else(|| std::mem::take(&mut self.capabilities));
        self.location = location.unwrap_or(self.location);
        self.config = config.unwrap_or_else(|| self.config.clone());
        self.metadata = metadata.unwrap_or_else(|| self.metadata.clone());
    }
}
