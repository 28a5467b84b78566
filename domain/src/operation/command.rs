//! Wishes put to an operation, and the ways in which it says no.

use crate::agent::selection::Candidates;
use crate::json::Unstorable;
use crate::operation::definition::Definition;
use crate::operation::event::{CloseReason, LeaseEnd, Patch, StepError};
use crate::operation::workflow::Fault;
use crate::{AgentId, Json, Timestamp};

/// What can be asked of an operation.
#[derive(Clone, Debug)]
pub enum Command {
    /// Accept this definition; starts at once unless it says otherwise.
    Create(Box<Definition>),
    /// Begin with the first steps.
    Start,
    /// Change what may be changed.
    Update(Box<Patch>),
    /// End it now.
    Cancel {
        /// Who asks.
        by: String,
    },
    /// End it because its deadline has passed.
    ExpireDeadline,
    /// Start no step until it is resumed.
    Pause {
        /// Who asks.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Start steps again.
    Resume {
        /// Who asks.
        by: String,
    },
    /// A person's word about one step.
    Intervene {
        /// The step's number.
        step: u32,
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
        /// What.
        intervention: Intervention,
    },
    /// Settle a step that waits for a person, because the time for an answer is over.
    ExpireApproval {
        /// The step's number.
        step: u32,
    },
    /// Something about one step.
    Step {
        /// The step's number.
        step: u32,
        /// The grant it is about; for a reservation the one to come.
        grant: u64,
        /// What.
        wish: StepWish,
    },
}

/// What a person can say about one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// Yes to a step that asks for approval.
    Approve,
    /// No to it.
    Reject,
    /// Perform it again, without waiting.
    Retry,
    /// Do without it.
    Skip,
    /// It has happened, with this result.
    Complete(Json),
    /// It has not happened and shall not.
    Fail,
}

impl Intervention {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Complete(_) | Self::Fail => "resolve",
        }
    }
}

/// What can be asked about one step under one grant.
#[derive(Clone, Debug)]
pub enum StepWish {
    /// Offer it to this agent.
    Reserve {
        /// To whom.
        agent: AgentId,
        /// The incarnation of it that claimed.
        incarnation: u64,
        /// Why.
        candidates: Candidates,
    },
    /// The offer was not taken in time, or is taken back.
    ExpireOffer {
        /// Why.
        reason: LeaseEnd,
    },
    /// The agent has it: the attempt begins.
    Acknowledge,
    /// How far it is.
    Progress {
        /// Whole percent.
        progress: u8,
        /// The agent's words.
        note: Option<String>,
        /// What it cost so far.
        usage: Option<Json>,
    },
    /// Keep this for the next attempt.
    Checkpoint(Json),
    /// It is done.
    Complete {
        /// What it yielded.
        result: Json,
        /// What it cost.
        usage: Option<Json>,
    },
    /// The attempt failed.
    Fail {
        /// Why.
        error: StepError,
        /// Whether the agent thinks that another attempt may help.
        retryable: bool,
        /// Not before so many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The agent gives it back unperformed.
    Release {
        /// Why.
        reason: String,
        /// How long the step is kept from the agent, in milliseconds; none means as the limits say.
        hold_ms: Option<u64>,
    },
    /// The provider of the agent's account takes no calls before then.
    Limit {
        /// When it does again; further than a month counts as a month.
        until: Timestamp,
        /// What it said.
        error: StepError,
        /// Whether the agent thinks that another attempt may help.
        retryable: bool,
    },
    /// The lease is over without a report.
    LoseLease {
        /// Why.
        reason: LeaseEnd,
    },
    /// Free the slot of a lease whose step was cancelled.
    CloseLease {
        /// Why.
        why: CloseReason,
    },
    /// The attempt took longer than its timeout.
    TimeOut,
}

/// Why an operation refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such operation.
    #[error("there is no such operation")]
    Unknown,
    /// Another definition has this id.
    #[error("an operation with this id exists already")]
    Taken,
    /// The definition has faults; each is listed.
    #[error("the workflow is not valid")]
    Invalid(Vec<Fault>),
    /// It has started already, or ended.
    #[error("the operation is {status}, only a pending one can be started")]
    NotPending {
        /// Its status.
        status: &'static str,
    },
    /// It has ended.
    #[error("the operation is {status} and changes no more")]
    Terminal {
        /// Its status.
        status: &'static str,
    },
    /// There is no such step.
    #[error("the operation has no step {0}")]
    UnknownStep(u32),
    /// The step cannot be reserved as it stands.
    #[error("step {step} is {status} and cannot be reserved now")]
    NotReady {
        /// The step.
        step: u32,
        /// Its status.
        status: &'static str,
    },
    /// A person cannot do that with a step in this status.
    #[error("step {step} is {status}: {wish} is not possible now")]
    NotPossible {
        /// The step.
        step: u32,
        /// Its status.
        status: &'static str,
        /// What was wished.
        wish: &'static str,
    },
    /// The grant is not the newest, or no longer holds the step.
    #[error("the lease is over: claim again")]
    LeaseLost,
    /// The step was settled otherwise.
    #[error("the step is {status} already")]
    AlreadyTerminal {
        /// Its status.
        status: &'static str,
    },
    /// The time for this has not come.
    #[error("it is too early for that")]
    Early,
    /// A value exceeds its maximum.
    #[error("{what} has {bytes} bytes, at most {max} are allowed: store it elsewhere and give a reference")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The maximum.
        max: usize,
    },
    /// A value could not be stored or not be read again.
    #[error("{what} {why}")]
    Unstorable {
        /// What.
        what: &'static str,
        /// Why.
        why: Unstorable,
    },
}

impl Rejection {
    /// What a step yielded, in the words of a rejection.
    pub const RESULT: &'static str = "the result";
    /// What its next attempt is handed.
    pub const CHECKPOINT: &'static str = "the checkpoint";
    /// What it cost.
    pub const USAGE: &'static str = "usage";
    /// Codes of failures of attempts whose results could not be stored.
    pub const UNSTORABLE_CODES: [&'static str; 2] = ["invalid_result", "too_large"];

    /// With which code an attempt fails whose report is refused like this; none when a later report may be
    /// taken.
    #[must_use]
    pub const fn fails_attempt(&self) -> Option<&'static str> {
        match self {
            Self::Unstorable { .. } => Some(Self::UNSTORABLE_CODES[0]),
            Self::TooLarge { .. } => Some(Self::UNSTORABLE_CODES[1]),
            _ => None,
        }
    }
}
