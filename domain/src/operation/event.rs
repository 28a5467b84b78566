//! Facts of an operation. What is stored is a promise: a changed body gets a new schema number.

mod lease;

use serde::{Deserialize, Serialize};

pub use lease::{CloseReason, LeaseClosed, LeaseEnd, StepLeaseLost, StepOfferExpired};

use crate::agent::selection::Candidates;
use crate::operation::definition::{Definition, Priority};
use crate::{AgentId, Json, LeaseId, Timestamp, bounds, texts};

/// What can have happened to an operation. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Event {
    /// `operation.created`
    Created(Box<Definition>),
    /// `operation.started`
    Started,
    /// `operation.updated`
    Updated(Box<Patch>),
    /// `operation.cancelled`
    Cancelled(Cancelled),
    /// `operation.progressed`
    Progressed(Progressed),
    /// `operation.completed`
    Completed,
    /// `operation.failed`
    Failed(Failed),
    /// `step.reserved`
    StepReserved(Box<StepReserved>),
    /// `step.offer_expired`
    StepOfferExpired(StepOfferExpired),
    /// `step.released`
    StepReleased(StepReleased),
    /// `step.started`
    StepStarted(StepStarted),
    /// `step.progressed`
    StepProgressed(StepProgressed),
    /// `step.checkpointed`
    StepCheckpointed(StepCheckpointed),
    /// `step.completed`
    StepCompleted(StepCompleted),
    /// `step.failed`
    StepFailed(StepFailed),
    /// `step.retry_scheduled`
    StepRetryScheduled(StepRetryScheduled),
    /// `step.lease_lost`
    StepLeaseLost(StepLeaseLost),
    /// `steps.skipped`
    StepsSkipped(StepsSkipped),
    /// `steps.cancelled`
    StepsCancelled(StepsCancelled),
    /// `operation.paused`
    Paused(Paused),
    /// `operation.resumed`
    Resumed(Resumed),
    /// `step.approval_requested`
    StepApprovalRequested(StepApprovalRequested),
    /// `step.approved`
    StepApproved(Judged),
    /// `step.rejected`
    StepRejected(Judged),
    /// `step.needs_attention`
    StepNeedsAttention(StepNeedsAttention),
    /// `step.resolved`
    StepResolved(StepResolved),
    /// `step.limited`
    StepLimited(StepLimited),
    /// `lease.closed`: the only event that may follow an operation's end.
    LeaseClosed(LeaseClosed),
}

impl Event {
    /// The one step that the event is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<u32> {
        Some(match self {
            Self::StepReserved(event) => event.step,
            Self::StepOfferExpired(event) => event.step,
            Self::StepReleased(event) => event.step,
            Self::StepStarted(event) => event.step,
            Self::StepProgressed(event) => event.step,
            Self::StepCheckpointed(event) => event.step,
            Self::StepCompleted(event) => event.step,
            Self::StepFailed(event) => event.step,
            Self::StepRetryScheduled(event) => event.step,
            Self::StepLeaseLost(event) => event.step,
            Self::StepApprovalRequested(event) => event.step,
            Self::StepApproved(event) | Self::StepRejected(event) => event.step,
            Self::StepNeedsAttention(event) => event.step,
            Self::StepResolved(event) => event.step,
            Self::StepLimited(event) => event.step,
            Self::LeaseClosed(event) => event.lease_id.step,
            _ => return None,
        })
    }
}

/// What an update changes; a field that is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    /// For people.
    pub name: Option<String>,
    /// For people; the inner none removes it.
    pub description: Option<Option<String>>,
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// When it must have ended; the inner none removes it.
    pub deadline: Option<Option<Timestamp>>,
    /// The caller's data, as a whole.
    pub metadata: Option<Json>,
    /// Only these agents may be chosen from now on.
    pub agents: Option<Vec<AgentId>>,
}

impl Patch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Body of `operation.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Who asked.
    pub by: String,
}

/// Body of `operation.progressed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progressed {
    /// Whole percent of the work.
    pub progress: u8,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// A step failed for good and was not excused.
    StepFailed,
    /// It had not ended at its deadline.
    DeadlineExceeded,
}

impl FailureReason {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StepFailed => "step_failed",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// Body of `operation.failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub reason: FailureReason,
    /// One sentence for each step that failed.
    pub errors: Vec<String>,
}

/// Body of `step.reserved`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReserved {
    /// The step.
    pub step: u32,
    /// Fencing token: rises with every reservation of this step.
    pub grant: u64,
    /// Names operation, step and grant.
    pub lease_id: LeaseId,
    /// The agent that holds the lease from now on.
    pub agent: AgentId,
    /// The incarnation of it that claimed the step; a later one has lost the lease.
    pub incarnation: u64,
    /// The attempt that it will be, from 1.
    pub attempt: u32,
    /// Inputs with every mark replaced by what it yields.
    pub inputs: Json,
    /// Why this agent.
    pub candidates: Candidates,
    /// The step's title, resolved as far as it can be; none when it has none.
    pub title: Option<String>,
}

/// Body of `step.released`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReleased {
    /// The step.
    pub step: u32,
    /// The grant that was given back.
    pub grant: u64,
    /// Who gave it back.
    pub agent: AgentId,
    /// Why, in the agent's words.
    pub reason: String,
    /// Until then the step is kept from that agent.
    pub held_until: Timestamp,
}

/// Body of `step.started`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStarted {
    /// The step.
    pub step: u32,
    /// The grant under which it runs.
    pub grant: u64,
    /// The attempt that is spent by it.
    pub attempt: u32,
    /// When the attempt began: at its first sign of life, or, when its report is the first one, when the
    /// step was reserved.
    pub started_at: Timestamp,
}

/// Body of `step.progressed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgressed {
    /// The step.
    pub step: u32,
    /// The grant under which it runs.
    pub grant: u64,
    /// Whole percent of this step.
    pub progress: u8,
    /// The agent's words.
    pub note: Option<String>,
    /// What it cost so far, in the agent's terms.
    pub usage: Option<Json>,
}

/// Body of `step.checkpointed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCheckpointed {
    /// The step.
    pub step: u32,
    /// The grant under which it runs.
    pub grant: u64,
    /// What the next attempt is handed.
    pub checkpoint: Json,
}

/// Body of `step.completed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepCompleted {
    /// The step.
    pub step: u32,
    /// The grant under which it ran; 0 when it was never granted.
    pub grant: u64,
    /// The attempt that succeeded; 0 when none was made.
    pub attempt: u32,
    /// Who performed it; none when a person answered instead.
    pub agent: Option<AgentId>,
    /// What it yielded.
    pub result: Json,
    /// What it cost, in the agent's terms.
    pub usage: Option<Json>,
    /// From its start to this report.
    pub duration_ms: u64,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// A slug, which retry policies name.
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl StepError {
    /// The same, cut and cleaned: what is kept of it.
    #[must_use]
    pub(crate) fn kept(&self) -> Self {
        Self { code: texts::code(&self.code), message: texts::message(&self.message) }
    }

    /// What dependents of an excused step see as its result.
    pub(crate) fn as_result(&self) -> Json {
        Json::from(serde_json::json!({"error": {"code": self.code, "message": self.message}}))
    }

    /// One sentence for the operation's errors.
    pub(crate) fn sentence(&self, step: u32) -> String {
        format!("step {step}: {}: {}", self.code, bounds::cut(&self.message, 512))
    }
}

/// Body of `step.failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// The step.
    pub step: u32,
    /// The grant under which it ran; 0 when it was never granted.
    pub grant: u64,
    /// The attempt that failed; 0 when none was made.
    pub attempt: u32,
    /// Why.
    pub error: StepError,
    /// Whether no further attempt follows.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// Body of `step.retry_scheduled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRetryScheduled {
    /// The step.
    pub step: u32,
    /// The attempt to come.
    pub attempt: u32,
    /// Not before then.
    pub at: Timestamp,
    /// The whole wait; what remains of it after a restart is never more.
    pub delay_ms: u64,
    /// Code of the failure before.
    pub reason: String,
}

/// Why a step was not performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its condition was false; dependents go on.
    Condition,
    /// A step before it failed; dependents are skipped too.
    UpstreamFailed,
    /// A person wished so; dependents go on.
    Requested,
}

impl SkipReason {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::UpstreamFailed => "upstream_failed",
            Self::Requested => "requested",
        }
    }

    /// Whether dependents go on.
    #[must_use]
    pub const fn satisfies(self) -> bool {
        matches!(self, Self::Condition | Self::Requested)
    }
}

/// Body of `steps.skipped`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsSkipped {
    /// The steps.
    pub steps: Vec<u32>,
    /// Why.
    pub reason: SkipReason,
}

/// Body of `steps.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsCancelled {
    /// The steps.
    pub steps: Vec<u32>,
    /// Leases of them that an agent held. Each keeps its slot until `lease.closed`.
    pub closing: Vec<LeaseId>,
}

/// Body of `operation.paused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Body of `operation.resumed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Who asked.
    pub by: String,
}

/// Body of `step.approval_requested`: what a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepApprovalRequested {
    /// The step.
    pub step: u32,
    /// Inputs with every mark replaced by what it yields: what the person is shown.
    pub inputs: Json,
    /// Without an answer by then it has expired.
    pub until: Timestamp,
    /// The whole wait; what remains of it after a restart is never more.
    pub timeout_ms: u64,
    /// The step's title, resolved as far as it can be; none when it has none.
    pub title: Option<String>,
}

/// Body of `step.approved` and `step.rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The step.
    pub step: u32,
    /// Who judged.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Body of `step.needs_attention`: nobody knows whether the attempt took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepNeedsAttention {
    /// The step.
    pub step: u32,
    /// The grant under which it ran.
    pub grant: u64,
    /// The attempt whose outcome is unknown.
    pub attempt: u32,
    /// What became of the attempt.
    pub error: StepError,
}

/// What a person decided about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Another attempt, at once.
    Retry,
    /// It is not needed; dependents go on.
    Skip,
    /// It has happened, with this result.
    Completed,
    /// It has not happened and shall not.
    Failed,
}

/// Body of `step.resolved`: what follows from it is said by the next event of the same append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResolved {
    /// The step.
    pub step: u32,
    /// What was decided.
    pub resolution: Resolution,
    /// Who decided.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Body of `step.limited`: it was given back, since the provider of its agent's account takes no calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLimited {
    /// The step.
    pub step: u32,
    /// The grant that was given back.
    pub grant: u64,
    /// Who gave it back.
    pub agent: AgentId,
    /// What the provider said.
    pub error: StepError,
    /// When it takes calls again.
    pub until: Timestamp,
}
