//! An agent: who it is, whether it takes work, and which slots are taken. Knows no clock, and of
//! operations only the leases they granted.

pub mod event;
pub mod health;
pub mod profile;
pub mod selection;

use std::collections::BTreeMap;

pub use event::{Event, Profile};

use crate::agent::event::{
    Assigned, Outcome, Patch, Registered, Released, ReportedMetrics, Seen, Status, StatusChanged, TimedOut,
};
use crate::{AgentId, Aggregate, Given, LeaseId, OperationId, Timestamp};

/// Weight of the newest sample in a running average.
const NEWEST: f64 = 0.2;

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
    /// Change what it says of itself, and its status if one is given.
    Update {
        /// What changes.
        patch: Box<Patch>,
        /// The status to have.
        status: Option<Status>,
    },
    /// Take work, or no more.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug)]
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
    /// Taken slots by lease.
    pub assignments: BTreeMap<LeaseId, Assignment>,
    /// Steps completed.
    pub completed: u64,
    /// Steps that failed or were lost.
    pub failed: u64,
    /// Running average of completed steps' durations, in milliseconds.
    response_ms: f64,
    /// Running average of success, 0 to 1.
    success: f64,
    /// What the last sample said.
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
            Ok(vec![Event::Reregistered(Box::new(registered))])
        }
    }
}

impl Agent {
    fn registered(registered: &Registered, at: Timestamp) -> Self {
        Self {
            profile: registered.profile.clone(),
            incarnation: registered.incarnation,
            status: Status::Active,
            status_reason: "registered".into(),
            registered: true,
            assignments: BTreeMap::new(),
            completed: 0,
            failed: 0,
            response_ms: 0.0,
            success: 0.0,
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

    /// Average duration of its completed steps in milliseconds; none before the first.
    #[must_use]
    pub fn response_ms(&self) -> Option<f64> {
        (self.completed > 0).then_some(self.response_ms)
    }

    /// Share of its steps that succeeded, 0 to 1, newer ones weighing more; none before the first.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        (self.completed + self.failed > 0).then_some(self.success)
    }

    /// Why an assignment can no longer be carried out by this agent.
    #[must_use]
    pub fn loss(&self, assignment: &Assignment) -> Option<&'static str> {
        if !self.registered {
            Some("agent_unregistered")
        } else if assignment.incarnation != self.incarnation {
            Some("new_incarnation")
        } else if self.status == Status::Inactive && self.status_reason == TIMED_OUT {
            Some("agent_timeout")
        } else {
            None
        }
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
                events.extend(status.map(|status| self.set_status(status, "updated")).unwrap_or_default());
                events
            }
            Command::SetStatus { status, reason } => self.set_status(*status, reason),
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

    fn set_status(&self, to: Status, reason: &str) -> Vec<Event> {
        if self.status == to {
            return Vec::new();
        }
        vec![Event::StatusChanged(StatusChanged { from: self.status, to, reason: reason.to_owned() })]
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
        vec![Event::Released(Released { lease_id: lease.clone(), outcome, duration_ms })]
    }

    fn time_out(&self, silent_ms: u64) -> Vec<Event> {
        // One that was drained takes no work, but what it still has is lost with it.
        let drained = self.status == Status::Inactive;
        if drained && (self.status_reason == TIMED_OUT || self.assignments.is_empty()) {
            return Vec::new();
        }
        let changed = StatusChanged { from: self.status, to: Status::Inactive, reason: TIMED_OUT.into() };
        vec![Event::TimedOut(TimedOut { silent_ms }), Event::StatusChanged(changed)]
    }

    fn fold(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Registered(registered) | Event::Reregistered(registered) => {
                self.profile = registered.profile.clone();
                self.incarnation = registered.incarnation;
                self.registered = true;
                self.stand(Status::Active, "registered");
                self.last_seen = at;
            }
            Event::Updated(patch) => self.profile.apply(patch),
            Event::StatusChanged(changed) => self.stand(changed.to, &changed.reason),
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
            Event::TimedOut(_) => {}
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
        self.status = status;
        reason.clone_into(&mut self.status_reason);
    }

    fn fold_release(&mut self, released: &Released, at: Timestamp) {
        self.assignments.remove(&released.lease_id);
        self.idle_since = at;
        let first = self.completed + self.failed == 0;
        let succeeded = match released.outcome {
            Outcome::Completed => true,
            Outcome::Failed | Outcome::Lost => false,
            Outcome::Returned | Outcome::Cancelled => return,
        };
        if succeeded {
            let duration = released.duration_ms as f64;
            self.response_ms = averaged(self.response_ms, duration, self.completed == 0);
            self.completed += 1;
        } else {
            self.failed += 1;
        }
        self.success =
            averaged(if first { 0.5 } else { self.success }, f64::from(u8::from(succeeded)), false);
    }
}

/// Reason of an agent's inactivity after too long a silence.
pub const TIMED_OUT: &str = "timeout";

fn averaged(before: f64, sample: f64, first: bool) -> f64 {
    if first { sample } else { before + NEWEST * (sample - before) }
}

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
