//! The words for where an operation and its steps stand. Says what each means and nothing of how it is
//! reached.

use serde::{Deserialize, Serialize};

use crate::operation::event::SkipReason;
use crate::{AgentId, Timestamp};

/// Whether an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Not started.
    Pending,
    /// Under way.
    InProgress,
    /// Every step is settled, none failed for good.
    Completed,
    /// Ended without success.
    Failed,
    /// Ended by a wish.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::InProgress, Self::Completed, Self::Failed, Self::Cancelled];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Who has a step, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The agent.
    pub agent: AgentId,
    /// The incarnation of it that claimed the step.
    pub incarnation: u64,
    /// The attempt it is, or will be.
    pub attempt: u32,
    /// When it was offered (reserved) or begun (running).
    pub since: Timestamp,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepStatus {
    /// Waits for other steps, or for the operation to start.
    Pending,
    /// Waits for an agent.
    Ready,
    /// Offered; waits for a sign of life.
    Reserved(Holder),
    /// Performed.
    Running(Holder),
    /// Waits for its next attempt.
    BackingOff {
        /// Not before then.
        at: Timestamp,
        /// The whole wait.
        delay_ms: u64,
    },
    /// Waits for a person's yes or no.
    AwaitingApproval {
        /// Without an answer by then it has expired.
        until: Timestamp,
        /// The whole wait.
        timeout_ms: u64,
    },
    /// Waits for a person, since nobody knows whether the last attempt took effect.
    NeedsAttention,
    /// Done.
    Completed,
    /// Failed for good.
    Failed,
    /// Not performed.
    Skipped(SkipReason),
    /// Ended with its operation.
    Cancelled,
}

impl StepStatus {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Reserved(_) => "reserved",
            Self::Running(_) => "running",
            Self::BackingOff { .. } => "backing_off",
            Self::AwaitingApproval { .. } => "awaiting_approval",
            Self::NeedsAttention => "needs_attention",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped(_) => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it never changes again.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped(_) | Self::Cancelled)
    }

    /// Who has it now.
    #[must_use]
    pub const fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Reserved(holder) | Self::Running(holder) => Some(holder),
            _ => None,
        }
    }
}
