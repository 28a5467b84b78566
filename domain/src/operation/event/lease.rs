//! The bodies of events that end a lease without a report of its agent. Says why; what follows is decided
//! elsewhere.

use serde::{Deserialize, Serialize};

use super::StepError;
use crate::{AgentId, LeaseId};

/// Why a lease ended without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseEnd {
    /// The offer got no sign of life in time.
    NoSignOfLife,
    /// The lease was not renewed in time.
    LeaseExpired,
    /// The agent was silent for too long.
    AgentTimeout,
    /// The agent unregistered.
    AgentUnregistered,
    /// The agent registered again.
    NewIncarnation,
    /// An operator took it away.
    Revoked,
    /// Nobody heard whether the step was reserved, so it was taken back.
    NotHeard,
}

impl LeaseEnd {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSignOfLife => "no_sign_of_life",
            Self::LeaseExpired => "lease_expired",
            Self::AgentTimeout => "agent_timeout",
            Self::AgentUnregistered => "agent_unregistered",
            Self::NewIncarnation => "new_incarnation",
            Self::Revoked => "revoked",
            Self::NotHeard => "not_heard",
        }
    }

    /// Whether an offer that ended so was left untaken, rather than taken back.
    #[must_use]
    pub const fn is_silence(self) -> bool {
        matches!(self, Self::NoSignOfLife | Self::AgentTimeout)
    }
}

/// Body of `step.offer_expired`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepOfferExpired {
    /// The step.
    pub step: u32,
    /// The grant that was not taken.
    pub grant: u64,
    /// The agent that did not take it.
    pub agent: AgentId,
    /// Why it expired.
    pub reason: LeaseEnd,
}

/// Body of `step.lease_lost`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLeaseLost {
    /// The step.
    pub step: u32,
    /// The grant that is over.
    pub grant: u64,
    /// The attempt that was lost.
    pub attempt: u32,
    /// The agent that held it.
    pub agent: AgentId,
    /// Why it was lost.
    pub reason: LeaseEnd,
}

impl StepLeaseLost {
    /// The code of every lost lease.
    pub const CODE: &'static str = "lease_lost";

    /// The failure that it is.
    #[must_use]
    pub fn error(&self) -> StepError {
        let message = format!("the lease of {} was lost: {}", self.agent, self.reason.name());
        StepError { code: Self::CODE.into(), message }
    }
}

/// Why a lease of a cancelled step was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The agent reported that it is done with the step.
    Reported,
    /// The time that the agent had for stopping is over.
    GraceExpired,
    /// The agent was silent for too long.
    AgentTimeout,
    /// The agent unregistered.
    AgentUnregistered,
    /// The agent registered again.
    NewIncarnation,
    /// An operator took it away.
    Revoked,
}

impl CloseReason {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::GraceExpired => "grace_expired",
            Self::AgentTimeout => "agent_timeout",
            Self::AgentUnregistered => "agent_unregistered",
            Self::NewIncarnation => "new_incarnation",
            Self::Revoked => "revoked",
        }
    }
}

/// Body of `lease.closed`: the agent's slot is free again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseClosed {
    /// The lease.
    pub lease_id: LeaseId,
    /// Why.
    pub why: CloseReason,
}
