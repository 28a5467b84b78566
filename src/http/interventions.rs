//! The routes by which a person speaks about one step: yes, no, again, without it, what became of it.

use actix_web::{HttpRequest, web};
use actors::gateway::Order;
use domain::json::lossless_option;
use domain::operation::{Command, Intervention, Operation};
use domain::texts::NOTE_MAX;
use domain::{Json, OperationId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, OptionalBody};
use super::envelope::Reply;
use super::error::ApiError;
use super::front::Reach;
use super::intent::Intent;
use super::operation_view::{self, StepView};
use super::operations::{Answer, refused, unknown};
use super::query::Parameters;
use super::reading;

/// Why a person does something.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reason {
    /// A sentence, recorded with the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Reason {
    /// The sentence itself.
    ///
    /// # Errors
    /// 422 when it is too long: a person can say it in fewer words. Control characters become spaces.
    pub fn checked(self) -> Result<Option<String>, ApiError> {
        let fits = |text: &String| text.chars().count() <= NOTE_MAX;
        if self.reason.as_ref().is_none_or(fits) {
            return Ok(self.reason);
        }
        let detail = format!("reason must have at most {NOTE_MAX} characters");
        Err(ApiError::invalid_field("/reason", detail))
    }
}

/// What became of a step whose outcome nobody knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedOutcome {
    /// Perform it again.
    Retry,
    /// It has happened.
    Completed,
    /// It has not happened and shall not.
    Failed,
}

/// A person has found out what became of a step.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveStep {
    /// What became of it.
    pub outcome: ResolvedOutcome,
    /// What it yielded, when it has happened; null when absent.
    #[serde(default, deserialize_with = "lossless_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Json>,
    /// A sentence, recorded with the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ResolveStep {
    fn intervention(&self) -> Result<Intervention, ApiError> {
        match (self.outcome, &self.result) {
            (ResolvedOutcome::Completed, result) => {
                Ok(Intervention::Complete(result.clone().unwrap_or_else(Json::null)))
            }
            (_, Some(_)) => {
                Err(ApiError::invalid_field("/result", "a result belongs to the outcome completed only"))
            }
            (ResolvedOutcome::Retry, None) => Ok(Intervention::Retry),
            (ResolvedOutcome::Failed, None) => Ok(Intervention::Fail),
        }
    }
}

/// Declares the routes whose only body is a reason.
macro_rules! with_a_reason {
    ($($(#[$doc:meta])* $name:ident, $path:literal => $intervention:expr;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "operations",
            params(("id" = String, Path), ("step" = u32, Path)), request_body = Reason,
            responses((status = 200, body = super::envelope::ApiResponse<StepView>), (status = 409)))]
        pub async fn $name(
            api: Reach,
            request: HttpRequest,
            path: web::Path<(String, String)>,
            body: OptionalBody<Reason>,
        ) -> Answer<StepView> {
            let intent = Intent::of(&request, body.hash, &api).await?;
            let reason = body.value.checked()?;
            Parameters::of(&request, &[], &[])?;
            let path = path.into_inner();
            let intervening =
                |intent| async move { intervene(&api, path, $intervention, reason, &intent).await };
            intent.carry_out(intervening).await
        }
    )*};
}

with_a_reason! {
    /// Says yes to a step of platform `human`.
    approve, "/api/v1/operations/{id}/steps/{step}/approve" => Intervention::Approve;
    /// Says no to it: the step fails with the code `rejected`.
    reject, "/api/v1/operations/{id}/steps/{step}/reject" => Intervention::Reject;
    /// Performs a step again that waits for its next attempt, or for attention.
    retry, "/api/v1/operations/{id}/steps/{step}/retry" => Intervention::Retry;
    /// Does without a step that nobody has; its dependents go on, and see null as its result.
    skip, "/api/v1/operations/{id}/steps/{step}/skip" => Intervention::Skip;
}

/// Says what became of a step that needs attention.
#[utoipa::path(post, path = "/api/v1/operations/{id}/steps/{step}/resolve", tag = "operations",
    params(("id" = String, Path), ("step" = u32, Path)), request_body = ResolveStep,
    responses((status = 200, body = super::envelope::ApiResponse<StepView>), (status = 409)))]
pub async fn resolve(
    api: Reach,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: Body<ResolveStep>,
) -> Answer<StepView> {
    let intent = Intent::of(&request, body.hash, &api).await?;
    let intervention = body.value.intervention()?;
    let reason = Reason { reason: body.value.reason }.checked()?;
    Parameters::of(&request, &[], &[])?;
    let path = path.into_inner();
    let intervening = |intent| async move { intervene(&api, path, intervention, reason, &intent).await };
    intent.carry_out(intervening).await
}

async fn intervene(
    api: &Api,
    (id, step): (String, String),
    intervention: Intervention,
    reason: Option<String>,
    intent: &Intent,
) -> Answer<StepView> {
    let id: OperationId = id.parse()?;
    let absent = || ApiError::not_found(format!("Operation {id} has no such step; see its /steps."));
    let step: u32 = step.parse().map_err(|_| absent())?;
    let view = |operation: &Operation, revision: u64, at: Timestamp| -> Answer<StepView> {
        let position = operation.run.skeleton.position(step).ok_or_else(absent)?;
        let tag = operation_view::tag(revision, &operation.run, at);
        Ok(Reply::ok(StepView::of(operation, position, at)).etag(tag))
    };
    if let Some(used) = intent.used(api)? {
        let operation = api.core.reader.at(&id, used.version).await?.ok_or_else(|| unknown(&id))?;
        let then = reading::time_of(&api.core, &id, used.version).await?;
        return Ok(view(&operation, used.version, then)?.replayed());
    }
    let by = intent.metadata.actor.clone();
    let command = Command::Intervene { step, by, reason, intervention };
    let order = Order::<Operation>::of(command, intent.metadata.clone()).with_state();
    let done = api.core.gateway.execute::<Operation>(&id, order).await;
    let receipt = done.map_err(|fault| refused(fault, &id))?;
    let operation = receipt.state.ok_or_else(|| unknown(&id))?;
    let reply = view(&operation, receipt.version.get(), api.core.around.clock.now())?;
    Ok(reply.position(receipt.position))
}
