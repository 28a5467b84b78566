//! Operations as clients see them. Everything here comes from the log alone, never from presence.

use std::collections::{BTreeMap, BTreeSet};

use domain::operation::Operation;
use domain::operation::definition::{EffectClass, FailurePolicy, Priority, Requirements};
use domain::operation::pending::{BlockedOn, Cause};
use domain::operation::retry::RetryPolicy;
use domain::operation::step::{Run, StepStatus};
use domain::views::operation_board::Row;
use domain::{Json, OperationId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::Tag;

/// An operation in full: the specification's `Operation`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How urgent it is.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// `pending`, `in_progress`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// Why it ended without success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Only these agents may be chosen.
    pub agents: Vec<String>,
    /// Platforms that it named.
    pub platforms: Vec<String>,
    /// The steps, each with its run; absent with `view=summary` and `view=results`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflow: Vec<StepView>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// When it must have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// Whole percent.
    pub progress: u8,
    /// Version of its history; also the `ETag`.
    pub revision: u64,
    /// Results by step number; absent with `view=summary` and `view=steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub results: Option<BTreeMap<u32, Json>>,
    /// One sentence for each step that failed.
    pub errors: Vec<String>,
    /// Free data of the caller.
    #[schema(value_type = Object)]
    pub metadata: Json,
    /// What a final failure does.
    #[schema(value_type = String)]
    pub failure_policy: FailurePolicy,
    /// Most steps that are under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// While it is true no step starts; what runs goes on.
    pub paused: bool,
    /// What its steps wait for, each kind once; see the steps.
    pub blocked_on: Vec<String>,
}

/// A step and its run: the specification's `WorkflowStep`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Its number.
    pub step: u32,
    /// What was asked for: an agent, or `auto`.
    pub agent: String,
    /// Where it is performed.
    pub platform: String,
    /// What is performed.
    pub action: String,
    /// For people: as it was asked for until the step is reserved, then resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Parameters as they were asked for.
    #[schema(value_type = Object)]
    pub inputs: Json,
    /// The same with every mark replaced by what it yields, while somebody has the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub resolved_inputs: Option<Json>,
    /// Steps that come before.
    pub dependencies: Vec<u32>,
    /// Hard stop for one attempt, in milliseconds.
    pub timeout: u64,
    /// What happens after a failed attempt.
    #[schema(value_type = Object)]
    pub retry_policy: RetryPolicy,
    /// What the agent must have.
    #[schema(value_type = Object)]
    pub requires: Requirements,
    /// Its condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Dependents run although this step failed.
    pub continue_on_error: bool,
    /// What performing it does to the world: `read`, `idempotent` or `write`.
    #[schema(value_type = String)]
    pub effect: EffectClass,
    /// `pending`, `ready`, `reserved`, `running`, `backing_off`, `awaiting_approval` or `needs_attention`;
    /// at its end `completed`, `failed`, `skipped` or `cancelled`.
    pub status: String,
    /// Attempts begun.
    pub attempt: u32,
    /// Who has it, or had it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_agent: Option<String>,
    /// What it waits for; absent once it is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_on: Option<BlockedOnView>,
    /// Whole percent.
    pub progress: u8,
    /// What it yielded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Json>,
    /// Why its last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The slug of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// When its last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it was settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedOnView {
    /// `start`, `resume`, `dependencies`, `agent`, `room` (see `maxParallel`), `window`, `acknowledgement`,
    /// `report`, `retry`, `approval` or `attention`.
    pub kind: String,
    /// The steps, when it waits for steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u32>,
    /// The agent, when it waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The moment, when it waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

/// An operation as lists show it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSummary {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// How urgent it is.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// Whether it runs.
    pub status: String,
    /// Why it ended without success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Agents that were given a step or are asked for.
    pub agents: Vec<String>,
    /// Platforms of its steps.
    pub platforms: Vec<String>,
    /// Steps in all.
    pub steps: usize,
    /// Steps settled.
    pub settled: usize,
    /// Whole percent.
    pub progress: u8,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// When it must have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// Whether it is paused.
    pub paused: bool,
    /// What its steps wait for, each kind once.
    pub blocked_on: Vec<String>,
    /// Version of its history.
    pub revision: u64,
}

impl OperationView {
    /// Shows an operation at a revision and a moment.
    #[must_use]
    pub fn of(id: &OperationId, operation: &Operation, revision: u64, now: Timestamp) -> Self {
        let definition = &operation.definition;
        let all_steps = 0..operation.run.steps.len();
        Self {
            id: id.to_string(),
            name: definition.name.clone(),
            description: definition.description.clone(),
            priority: definition.priority,
            status: operation.status().name().into(),
            status_reason: operation.status_reason.clone(),
            agents: definition.agents.iter().map(ToString::to_string).collect(),
            platforms: definition.platforms.iter().map(ToString::to_string).collect(),
            workflow: all_steps.map(|at| StepView::of(operation, at, now)).collect(),
            created_at: operation.created_at,
            started_at: operation.started_at,
            completed_at: operation.completed_at,
            deadline: definition.deadline,
            progress: operation.run.progress(),
            revision,
            results: Some(operation.results.clone()),
            errors: operation.errors.clone(),
            metadata: definition.metadata.clone(),
            failure_policy: definition.failure_policy,
            max_parallel: definition.max_parallel,
            paused: operation.run.paused,
            blocked_on: names(&operation.run.causes(now)),
        }
    }
}

/// How much of an operation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything; a result stands in its step and in `results`.
    Full,
    /// Neither steps nor results.
    Summary,
    /// The steps without their results.
    Steps,
    /// The results without the steps.
    Results,
}

impl Detail {
    /// What `view` may be.
    pub const NAMES: [&'static str; 4] = ["full", "summary", "steps", "results"];

    /// Of one of those names.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "summary" => Self::Summary,
            "steps" => Self::Steps,
            "results" => Self::Results,
            _ => Self::Full,
        }
    }
}

impl OperationView {
    /// Leaves out what is not asked for.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        if matches!(detail, Detail::Summary | Detail::Results) {
            self.workflow.clear();
        }
        if matches!(detail, Detail::Summary | Detail::Steps) {
            self.results = None;
            self.workflow.iter_mut().for_each(|step| step.result = None);
        }
        self
    }
}

impl StepView {
    /// Shows the step at a position, at a moment.
    #[must_use]
    pub fn of(operation: &Operation, position: usize, now: Timestamp) -> Self {
        let (step, run) = (&operation.run.skeleton.steps[position], &operation.run.steps[position]);
        Self {
            step: step.step,
            agent: step.agent.as_ref().map_or_else(|| "auto".into(), ToString::to_string),
            platform: step.platform.to_string(),
            action: step.action.to_string(),
            title: operation.title(position).map(str::to_owned),
            inputs: step.inputs.clone(),
            resolved_inputs: operation.inputs.get(&step.step).filter(|now| **now != step.inputs).cloned(),
            dependencies: step.dependencies.clone(),
            timeout: step.timeout_ms,
            retry_policy: step.retry.clone(),
            requires: step.requires.clone(),
            when: step.when.clone(),
            continue_on_error: step.continue_on_error,
            effect: step.effect,
            status: run.status.name().into(),
            attempt: run.attempts,
            assigned_agent: run.agent.as_ref().map(ToString::to_string),
            blocked_on: operation.run.blocked_on(position, now).map(BlockedOnView::from),
            progress: run.progress,
            result: operation.results.get(&step.step).cloned(),
            error: run.error.as_ref().map(|error| error.message.clone()),
            error_code: match (&run.error, &run.status) {
                (Some(error), _) => Some(error.code.clone()),
                (None, StepStatus::Skipped(reason)) => Some(reason.name().into()),
                (None, _) => None,
            },
            started_at: run.started_at,
            completed_at: run.completed_at,
        }
    }
}

/// The entity tag of an operation, or a step of it, at a moment. Once a moment that it waited for has passed,
/// something else is shown at the same revision: then it is `"revision.milliseconds"`.
#[must_use]
pub fn tag(revision: u64, run: &Run, now: Timestamp) -> Tag {
    match run.last_passed(now) {
        Some(at) => Tag::shown_since(revision, at.as_micros().unsigned_abs() / 1_000),
        None => revision.into(),
    }
}

fn names(causes: &BTreeSet<Cause>) -> Vec<String> {
    causes.iter().map(|cause| cause.name().to_owned()).collect()
}

impl From<BlockedOn> for BlockedOnView {
    fn from(blocked: BlockedOn) -> Self {
        let mut view =
            Self { kind: blocked.cause().name().into(), steps: Vec::new(), agent: None, until: None };
        match blocked {
            BlockedOn::Dependencies(steps) => view.steps = steps,
            BlockedOn::Acknowledgement(agent) | BlockedOn::Report(agent) => {
                view.agent = Some(agent.to_string());
            }
            BlockedOn::Retry(at) | BlockedOn::Window(at) | BlockedOn::Approval(at) => view.until = Some(at),
            BlockedOn::Start
            | BlockedOn::Resume
            | BlockedOn::Agent
            | BlockedOn::Room
            | BlockedOn::Attention => {}
        }
        view
    }
}

impl OperationSummary {
    /// Shows a row at a moment.
    #[must_use]
    pub fn of(id: &OperationId, row: &Row, now: Timestamp) -> Self {
        Self {
            id: id.to_string(),
            name: row.name.clone(),
            priority: row.priority,
            status: row.status.name().into(),
            status_reason: row.status_reason.clone(),
            agents: row.agents_used.iter().map(ToString::to_string).collect(),
            platforms: row.platforms.iter().map(ToString::to_string).collect(),
            steps: row.steps,
            settled: row.settled,
            progress: row.progress,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            deadline: row.deadline,
            paused: row.open_run().is_some_and(|run| run.paused),
            blocked_on: names(&row.causes(now)),
            revision: row.revision,
        }
    }
}
