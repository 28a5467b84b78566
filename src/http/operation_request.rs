//! What a client sends about operations, and how it becomes the domain's wish.

use domain::Limits;
use domain::json::lossless;
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, HUMAN, Priority, Requirements, StepDefinition,
};
use domain::operation::event::Patch;
use domain::operation::retry::RetryPolicy;
use domain::{AgentId, IdError, Json, Timestamp, bounds};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::body::{lossless_present, object, present};
use super::error::{ApiError, FieldError};

/// Asks Photon to choose the agent.
const AUTO: &str = "auto";

/// A new operation: the specification's `CreateOperationRequest`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateOperation {
    /// For people, 1 to 256 characters.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// How urgent it is; `medium` when absent.
    #[serde(default = "medium")]
    #[schema(value_type = String, example = "medium")]
    pub priority: Priority,
    /// Only these agents may be chosen; empty means any.
    #[serde(default)]
    pub agents: Vec<String>,
    /// Platforms that the steps use; empty means whatever they name.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// The steps.
    pub workflow: Vec<CreateStep>,
    /// When it must have ended, RFC 3339.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// Free data: an object.
    #[serde(default = "Json::object", deserialize_with = "lossless")]
    #[schema(value_type = Object)]
    pub metadata: Json,
    /// `fail_fast` (the first final failure ends it) or `continue` (independent branches finish first).
    #[serde(default)]
    #[schema(value_type = String, example = "fail_fast")]
    pub failure_policy: FailurePolicy,
    /// Most steps that are under way at once.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// Whether it starts at once.
    #[serde(default = "yes")]
    pub auto_start: bool,
}

impl CreateOperation {
    /// Whether it names an agent, so that it must be known which agents are registered.
    #[must_use]
    pub fn names_an_agent(&self) -> bool {
        let named = |step: &CreateStep| step.agent.as_deref().is_some_and(|agent| agent != AUTO);
        !self.agents.is_empty() || self.workflow.iter().any(named)
    }
}

/// One step of a new operation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateStep {
    /// Its number, each once.
    pub step: u32,
    /// The agent that must perform it; `auto` or absent lets Photon choose.
    #[serde(default)]
    pub agent: Option<String>,
    /// Where it is performed; `worker` means by the agent's own process.
    pub platform: String,
    /// What is performed.
    pub action: String,
    /// For people, 1 to 1 024 characters: a template such as `Review {{ steps[1].result.path }}`. It is shown
    /// as it stands until the step is reserved, then resolved and cut to 120 characters.
    #[serde(default)]
    pub title: Option<String>,
    /// Parameters: data. `{"$expr": "steps[1].result.files"}` stands for the value of an expression,
    /// `{"$template": "Review {{ steps[1].result.path }}"}` for a text with expressions in it, and
    /// `{"$literal": …}` for its content, whatever its keys are.
    #[serde(default = "Json::object", deserialize_with = "lossless")]
    #[schema(value_type = Object)]
    pub inputs: Json,
    /// Steps that come before.
    #[serde(default)]
    pub dependencies: Vec<u32>,
    /// Hard stop for one attempt, or for a person's answer, in milliseconds.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// What happens after a failed attempt.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = Object)]
    pub retry_policy: RetryPolicy,
    /// What the agent must have.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = Object)]
    pub requires: Requirements,
    /// An expression without braces, such as `steps[1].result.score > 80`; false skips the step.
    #[serde(default)]
    pub when: Option<String>,
    /// Dependents run although this step failed, and see the error as its result.
    #[serde(default)]
    pub continue_on_error: bool,
    /// What performing it does to the world: `read`, `idempotent` (the default) or `write`. When nobody
    /// knows whether a write took effect, it waits for a person instead of being performed again.
    #[serde(default)]
    #[schema(value_type = String, example = "idempotent")]
    pub effect: EffectClass,
}

/// A change of an operation; what is absent stays, and null is refused where it removes nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpdateOperation {
    /// For people.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people; null removes it.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// How urgent it is.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
    /// When it must have ended; null removes it.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Option<Timestamp>>,
    /// Free data, as a whole.
    #[serde(deserialize_with = "lossless_present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Json>,
    /// Only these agents may be chosen from now on; an empty list means any.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
}

fn medium() -> Priority {
    Priority::Medium
}

fn yes() -> bool {
    true
}

/// Tells a field that is null from one that is absent.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl CreateOperation {
    /// The domain's definition. Lists every field that is no id or name.
    ///
    /// # Errors
    /// 422 with each faulty field.
    pub fn definition(self, limits: &Limits) -> Result<Definition, ApiError> {
        let mut faults = Vec::new();
        let agents = ids(&self.agents, "/agents", &mut faults);
        let platforms = ids(&self.platforms, "/platforms", &mut faults);
        let steps = self.workflow.into_iter().enumerate();
        let workflow = steps.filter_map(|(index, step)| step.definition(index, limits, &mut faults));
        let workflow = workflow.collect();
        if self.max_parallel == Some(0) {
            faults
                .push(FieldError::at("/maxParallel", "maxParallel must be at least 1").code("out_of_bounds"));
        }
        if !faults.is_empty() {
            return Err(ApiError::invalid_workflow(faults));
        }
        Ok(Definition {
            name: self.name,
            description: self.description,
            priority: self.priority,
            agents,
            platforms,
            workflow,
            deadline: self.deadline,
            metadata: self.metadata,
            failure_policy: self.failure_policy,
            max_parallel: self.max_parallel,
            auto_start: self.auto_start,
        })
    }
}

impl CreateStep {
    fn definition(
        self,
        index: usize,
        limits: &Limits,
        faults: &mut Vec<FieldError>,
    ) -> Option<StepDefinition> {
        let at = |field: &str| format!("/workflow/{index}/{field}");
        let agent = self.agent.filter(|agent| agent != AUTO);
        let agent = agent.map(|agent| id::<AgentId>(&agent, at("agent"), faults));
        let usual_ms =
            if self.platform == HUMAN { limits.approval_timeout_ms } else { limits.step_timeout_ms };
        let platform = id(&self.platform, at("platform"), faults);
        let action = id(&self.action, at("action"), faults);
        Some(StepDefinition {
            step: self.step,
            agent: match agent {
                Some(agent) => Some(agent?),
                None => None,
            },
            platform: platform?,
            action: action?,
            title: self.title,
            inputs: self.inputs,
            dependencies: self.dependencies,
            timeout_ms: self.timeout.unwrap_or(usual_ms),
            retry: self.retry_policy,
            requires: self.requires,
            when: self.when,
            continue_on_error: self.continue_on_error,
            effect: self.effect,
        })
    }
}

impl UpdateOperation {
    /// The domain's patch.
    ///
    /// # Errors
    /// 422 with each faulty field.
    pub fn patch(self) -> Result<Patch, ApiError> {
        let mut faults = Vec::new();
        let agents = self.agents.map(|agents| ids(&agents, "/agents", &mut faults));
        let Self { name, description, priority, deadline, metadata, .. } = self;
        let patch = Patch { name, description, priority, deadline, metadata, agents };
        faults.extend(patch.faults().into_iter().map(|(pointer, detail)| FieldError::at(pointer, detail)));
        if faults.is_empty() { Ok(patch) } else { Err(invalid_fields(faults)) }
    }
}

/// Refuses a deadline that has passed: the operation would fail before any of its steps is offered.
///
/// # Errors
/// 422 `invalid_field`.
pub fn not_passed(deadline: Option<Timestamp>, now: Timestamp) -> Result<(), ApiError> {
    match deadline.and_then(|deadline| bounds::deadline(deadline, now)) {
        Some(detail) => Err(ApiError::invalid_field("/deadline", detail)),
        None => Ok(()),
    }
}

/// 422 for fields that break a rule of their own.
#[must_use]
pub fn invalid_fields(faults: Vec<FieldError>) -> ApiError {
    let first = faults.first().map(|fault| fault.detail.clone()).unwrap_or_default();
    let pointer = faults.first().and_then(|fault| fault.pointer.clone()).unwrap_or_default();
    let mut refusal = ApiError::invalid_field(pointer, first);
    refusal.errors = faults;
    refusal
}

fn id<I: std::str::FromStr<Err = IdError>>(
    text: &str,
    pointer: String,
    faults: &mut Vec<FieldError>,
) -> Option<I> {
    match text.parse() {
        Ok(id) => Some(id),
        Err(fault) => {
            faults.push(FieldError::at(pointer, fault.to_string()).code("invalid_id"));
            None
        }
    }
}

fn ids<I: std::str::FromStr<Err = IdError>>(
    texts: &[String],
    pointer: &str,
    faults: &mut Vec<FieldError>,
) -> Vec<I> {
    let parsed =
        texts.iter().enumerate().filter_map(|(at, text)| id(text, format!("{pointer}/{at}"), faults));
    parsed.collect()
}
