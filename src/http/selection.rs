//! Who would be given a step, and why, without giving it to anybody.

use actix_web::HttpRequest;
use domain::agent::selection::{Candidates, Need};
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Priority, Requirements, StepDefinition,
};
use domain::operation::workflow;
use domain::{AgentId, Given, Json, Limits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{OptionalBody, object};
use super::envelope::Reply;
use super::error::ApiError;
use super::front::Reach;
use super::operation_request::{CreateOperation, CreateStep};
use super::operations::Answer;
use super::query::Parameters;
use super::refusal;

/// What a step would ask for; all of it as in a workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SelectAgent {
    /// Exactly this agent; `auto` or absent lets Photon choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Only these agents; empty means any.
    pub agents: Vec<String>,
    /// What the agent must have.
    #[serde(deserialize_with = "object")]
    #[schema(value_type = Object)]
    pub requires: Requirements,
    /// What is performed; no agent is excluded by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Where it is performed; `worker` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Who would be chosen now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectionView {
    /// The best; null when nobody fits.
    pub chosen: Option<String>,
    /// The table that `step.reserved` would record: the best ten with the four parts of their scores, how
    /// many agents each filter excluded, and the weights. Nobody is excluded for not waiting.
    #[schema(value_type = Object)]
    pub candidates: Candidates,
    /// Those of the ranked that wait for work now; another one would have to ask for it first.
    pub waiting: Vec<String>,
}

impl SelectAgent {
    /// An operation of one such step, so that it is judged by the rules of every other.
    fn definition(self, limits: &Limits) -> Result<Definition, ApiError> {
        let step = CreateStep {
            step: 1,
            agent: self.agent,
            platform: self.platform.unwrap_or_else(|| actors::ready::WORKER.into()),
            action: self.action.unwrap_or_else(|| "any".into()),
            title: None,
            inputs: Json::object(),
            dependencies: Vec::new(),
            timeout: None,
            retry_policy: domain::operation::retry::RetryPolicy::default(),
            requires: self.requires,
            when: None,
            continue_on_error: false,
            effect: EffectClass::default(),
        };
        let operation = CreateOperation {
            name: "select".into(),
            description: None,
            priority: Priority::Medium,
            agents: self.agents,
            platforms: Vec::new(),
            workflow: vec![step],
            deadline: None,
            metadata: Json::object(),
            failure_policy: FailurePolicy::default(),
            max_parallel: None,
            auto_start: true,
        };
        operation.definition(limits).map_err(of_the_body)
    }
}

/// A refusal of that operation as one of the body that stood for it.
fn of_the_body(mut refusal: ApiError) -> ApiError {
    for error in &mut refusal.errors {
        let pointer = error.pointer.as_deref().and_then(|pointer| pointer.strip_prefix("/workflow/0"));
        if let Some(pointer) = pointer.map(str::to_owned) {
            error.pointer = Some(pointer);
        }
    }
    let platform_alone = refusal.code == super::error::Code::PlatformUnavailable;
    let mut fields = super::operation_request::invalid_fields(refusal.errors);
    if platform_alone {
        fields.code = refusal.code;
    }
    fields
}

/// Says which agent would be chosen, and why. Appends nothing and gives nothing away.
#[utoipa::path(post, path = "/api/v1/agents/select", tag = "agents", request_body = SelectAgent,
    responses((status = 200, body = super::envelope::ApiResponse<SelectionView>), (status = 422)))]
pub async fn select(
    api: Reach,
    request: HttpRequest,
    body: OptionalBody<SelectAgent>,
) -> Answer<SelectionView> {
    Parameters::of(&request, &[], &[])?;
    let world = &api.core.around.world;
    let definition = body.value.definition(&world.limits)?;
    let faults = workflow::faults(&definition, &Given { now: api.core.around.clock.now(), world });
    if !faults.is_empty() {
        return Err(of_the_body(refusal::invalid(&faults)));
    }
    if definition.workflow[0].asks_a_person() {
        let detail = "a step of this platform is for people, and no agent is chosen for it";
        return Err(ApiError::invalid_field("/platform", detail));
    }
    Ok(Reply::ok(selection(&api, &definition.agents, &definition.workflow[0])))
}

/// Who would be given this step of an operation for these agents now.
pub(super) fn selection(api: &Api, among: &[AgentId], step: &StepDefinition) -> SelectionView {
    let (agent, requires) = (step.agent.as_ref(), &step.requires);
    let candidates = api.core.rank(&Need { agent, among, requires, held_from: &[], avoids: None });
    let waiting = candidates.ranked.iter().filter(|scored| api.core.presence.is_waiting(&scored.agent));
    SelectionView {
        chosen: candidates.best().map(ToString::to_string),
        waiting: waiting.map(|scored| scored.agent.to_string()).collect(),
        candidates,
    }
}
