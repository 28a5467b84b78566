//! An agent: who it is and whether it takes work. Knows no clock and no lease: what an agent holds and how
//! it did are views of the operations' events.

pub mod event;
pub mod health;
pub mod profile;
pub mod quarantine;
pub mod record;
pub mod reweighing;
pub mod selection;

pub use event::{Event, Profile};

use serde::{Deserialize, Serialize};

use crate::agent::event::{Patch, Registered, Status, StatusChanged, StatusReason, TimedOut};
use crate::operation::event::LeaseEnd;
use crate::{AgentId, Aggregate, Given, Timestamp};

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
        reason: StatusReason,
    },
    /// It has been silent for too long.
    TimeOut {
        /// How long.
        silent_ms: u64,
    },
    /// Take it out of service: its work came to nothing too often in a row.
    Quarantine {
        /// Which kind of row it was.
        reason: StatusReason,
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
    pub status_reason: StatusReason,
    /// Whether it takes part at all.
    pub registered: bool,
    /// Whether it was silent for too long, and has not been active since.
    pub silent: bool,
    /// When it first registered.
    pub registered_at: Timestamp,
}

impl Aggregate for Agent {
    const CATEGORY: &'static str = "agent";
    type Id = AgentId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    type Effect = std::convert::Infallible;

    fn decide(
        state: Option<&Self>,
        _id: &AgentId,
        command: &Command,
        _given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        match (state, command) {
            (state, Command::Register { profile, incarnation }) => register(state, profile, *incarnation),
            (Some(agent), Command::Unregister) if !agent.registered => Ok(Vec::new()),
            (Some(agent), command) if agent.registered => Ok(agent.decide_registered(command)),
            _ => Err(Rejection::Unknown),
        }
    }

    fn evolve(state: Option<Self>, event: &Event, at: Timestamp) -> Option<Self> {
        match (state, event) {
            (None, Event::Registered(registered)) => Some(Self::registered(registered, at)),
            (None, _) => None,
            (Some(mut agent), event) => {
                agent.fold(event);
                Some(agent)
            }
        }
    }

    fn pending(&self) -> Vec<std::convert::Infallible> {
        Vec::new()
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
            events.extend(
                agent.is_drained().then(|| changed(Status::Active, Status::Inactive, StatusReason::Drained)),
            );
            Ok(events)
        }
    }
}

fn changed(from: Status, to: Status, reason: StatusReason) -> Event {
    Event::StatusChanged(StatusChanged { from, to, reason })
}

impl Agent {
    fn registered(registered: &Registered, at: Timestamp) -> Self {
        Self {
            profile: registered.profile.clone(),
            incarnation: registered.incarnation,
            status: Status::Active,
            status_reason: StatusReason::Registered,
            registered: true,
            silent: false,
            registered_at: at,
        }
    }

    /// Steps that it may have at once.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.profile.config.max_concurrent_steps
    }

    /// Why it can no longer carry out what was reserved for an incarnation of it; none while it can.
    #[must_use]
    pub fn loss(&self, incarnation: u64) -> Option<LeaseEnd> {
        if !self.registered {
            Some(LeaseEnd::AgentUnregistered)
        } else if incarnation != self.incarnation {
            Some(LeaseEnd::NewIncarnation)
        } else {
            self.silent.then_some(LeaseEnd::AgentTimeout)
        }
    }

    /// Whether it was drained by somebody else than itself.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.registered && self.status == Status::Inactive && self.status_reason == StatusReason::Drained
    }

    /// Whether only its silence keeps it from work.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.status == Status::Inactive && self.status_reason == StatusReason::Timeout
    }

    /// Whether it is out of service because its work came to nothing too often in a row.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.status == Status::Error && self.status_reason.is_quarantine()
    }

    /// Whether it may be quarantined: a drained agent is out of service already, and that shall last.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.registered && (self.status == Status::Active || self.is_timed_out())
    }

    fn decide_registered(&self, command: &Command) -> Vec<Event> {
        match command {
            Command::Update { patch, status } => {
                let mut events = self.update(patch);
                events.extend(status.and_then(|status| self.have_status(status)));
                events
            }
            Command::SetStatus { status, reason } => self.set_status(*status, *reason).into_iter().collect(),
            Command::TimeOut { silent_ms } => self.time_out(*silent_ms),
            Command::Quarantine { reason } if self.is_in_service() => {
                vec![changed(self.status, Status::Error, *reason)]
            }
            Command::Unregister => vec![Event::Unregistered],
            Command::Quarantine { .. } | Command::Register { .. } => Vec::new(),
        }
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
        let drains = to == Status::Inactive;
        let reason = if drains { StatusReason::Drained } else { StatusReason::Updated };
        let as_before = self.status == to && (!drains || self.is_drained());
        (!as_before).then(|| changed(self.status, to, reason))
    }

    /// The status that it wants to have.
    fn set_status(&self, to: Status, reason: StatusReason) -> Option<Event> {
        // What was heard may be older than what has happened to the agent since.
        let is_late = reason == StatusReason::HeardAgain && !self.is_timed_out();
        (self.status != to && !self.is_drained() && !is_late).then(|| changed(self.status, to, reason))
    }

    fn time_out(&self, silent_ms: u64) -> Vec<Event> {
        if self.silent {
            return Vec::new();
        }
        let mut events = vec![Event::TimedOut(TimedOut { silent_ms })];
        // Another status outlasts the silence; what the agent still has is lost all the same.
        if self.status == Status::Active {
            events.push(changed(Status::Active, Status::Inactive, StatusReason::Timeout));
        }
        events
    }

    fn fold(&mut self, event: &Event) {
        match event {
            Event::Registered(registered) | Event::Reregistered(registered) => {
                self.profile = registered.profile.clone();
                self.incarnation = registered.incarnation;
                self.registered = true;
                self.stand(Status::Active, StatusReason::Registered);
            }
            Event::Updated(patch) => self.profile.apply(patch),
            Event::StatusChanged(changed) => self.stand(changed.to, changed.reason),
            Event::TimedOut(_) => self.silent = true,
            Event::Unregistered => {
                self.registered = false;
                self.stand(Status::Inactive, StatusReason::Unregistered);
            }
        }
    }

    fn stand(&mut self, status: Status, reason: StatusReason) {
        self.silent &= status != Status::Active;
        (self.status, self.status_reason) = (status, reason);
    }
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
