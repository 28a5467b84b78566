//! What the dispatcher has others do, and what it is told of it. Plain values.

use domain::agent::event::StatusReason;
use domain::agent::selection::Candidates;
use domain::operation::StepWish;
use domain::operation::definition::EffectClass;
use domain::operation::event::StepReserved;
use domain::{ActionName, AgentId, Json, LeaseId, OperationId};
use events::Position;

use super::claims::ClaimId;
use crate::codec::Metadata;
use crate::effects::Wake;

/// A step that an agent was given.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What was recorded of it.
    pub reserved: Box<StepReserved>,
    /// What is performed.
    pub action: ActionName,
    /// Hard stop of the attempt, in milliseconds from its start.
    pub timeout_ms: u64,
    /// What performing it does to the world: before a write, the agent must acknowledge.
    pub effect: EffectClass,
    /// What an earlier attempt left.
    pub checkpoint: Option<Json>,
}

/// A step that is to be reserved for an agent.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The lease that it would have.
    pub lease: LeaseId,
    /// The agent.
    pub agent: AgentId,
    /// The incarnation of it that claimed.
    pub incarnation: u64,
    /// Why this agent.
    pub candidates: Candidates,
    /// What is performed.
    pub action: ActionName,
    /// Hard stop of the attempt, in milliseconds from its start.
    pub timeout_ms: u64,
    /// What performing it does to the world.
    pub effect: EffectClass,
    /// Whether an earlier attempt left a checkpoint.
    pub has_checkpoint: bool,
    /// On whose behalf, and with which idempotency key.
    pub metadata: Metadata,
}

/// A command to an aggregate.
#[derive(Clone, Debug)]
pub enum Task {
    /// Reserve a step.
    Grant(Box<Grant>),
    /// Tell an operation something about one lease.
    Lease(LeaseId, StepWish),
    /// The time for a person's answer is over.
    ExpireApproval(OperationId, u32),
    /// The operation's deadline has passed.
    ExpireDeadline(OperationId),
    /// The agent was silent for so many milliseconds.
    TimeOut(AgentId, u64),
    /// The agent's work came to nothing too often in a row.
    Quarantine {
        /// Which agent.
        agent: AgentId,
        /// Which kind of row it was.
        reason: StatusReason,
        /// Nothing is done when the agent has another revision.
        revision: u64,
    },
}

/// What a task is about. There is at most one task for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A lease.
    Lease(LeaseId),
    /// The time for a person's answer.
    Approval(OperationId, u32),
    /// An operation's deadline.
    Deadline(OperationId),
    /// An agent's silence.
    Silence(AgentId),
    /// An agent's quarantine.
    Quarantine(AgentId),
}

impl Task {
    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Grant(grant) => Subject::Lease(grant.lease.clone()),
            Self::Lease(lease, _) => Subject::Lease(lease.clone()),
            Self::ExpireApproval(operation, step) => Subject::Approval(operation.clone(), *step),
            Self::ExpireDeadline(operation) => Subject::Deadline(operation.clone()),
            Self::TimeOut(agent, _) => Subject::Silence(agent.clone()),
            Self::Quarantine { agent, .. } => Subject::Quarantine(agent.clone()),
        }
    }
}

/// Where a task came from, which says what follows from its answer.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A match with this claim, of this agent.
    Grant(ClaimId, AgentId),
    /// A reservation of which nobody heard, for this agent.
    Withdrawal(AgentId),
    /// A moment that had come.
    Wake(Wake),
    /// A debt, found in the views.
    Debt,
}

/// What became of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The aggregate refused it, and will again.
    Refused,
    /// It was certainly not carried out, and may be sent again.
    NotTaken,
    /// It was perhaps carried out.
    Unknown,
}

/// The answer to a task.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What it was about.
    pub subject: Subject,
    /// What became of it.
    pub outcome: Outcome,
    /// The position of the last event that the answer rests on.
    pub rests_on: Position,
    /// The step, when it was to be reserved and was.
    pub granted: Option<Granted>,
}
