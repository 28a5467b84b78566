//! The routes of leases: what an agent reports about the step it was given.

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use actors::aggregate_actor::{DispatchError, Receipt};
use actors::codec::Metadata;
use actors::limiting::RATE_LIMITED;
use domain::json::{lossless, lossless_option};
use domain::operation::event::{StepError, StepLeaseLost};
use domain::operation::step::{Run, StepStatus};
use domain::operation::{Event, Operation, Rejection, StepWish};
use domain::{Json, LeaseId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::agent_request::{NOTE_MAX, report_faults};
use super::body::{Body, OptionalBody};
use super::envelope::Reply;
use super::error::{ApiError, FieldError};
use super::front::Reach;
use super::intent::Intent;
use super::operation_request::invalid_fields;
use super::operations::Answer;
use super::query::Parameters;
use super::reading::{Nothing, Paging, wait_for_position};
use super::refused_result;

/// Longest code of a failure, in bytes.
const CODE_MAX: usize = 64;
/// Longest message of a failure, in characters.
const MESSAGE_MAX: usize = 4_096;

/// Longest time a step is kept from who gave it back, in milliseconds: a day.
const HOLD_MAX_MS: u64 = 86_400_000;
/// How long a lane is parked when a provider names no time, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// How far a step is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgressLease {
    /// Whole percent.
    pub progress: u8,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Kept for the next attempt, at most 64 KiB; durable before the answer.
    #[serde(default, deserialize_with = "lossless_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub checkpoint: Option<Json>,
    /// What it cost so far, in the agent's own terms; recorded with the progress.
    #[serde(default, deserialize_with = "lossless_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub usage: Option<Json>,
}

/// A step is done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteLease {
    /// What it yielded: any JSON, at most 256 KiB.
    #[serde(default = "Json::null", deserialize_with = "lossless")]
    #[schema(value_type = Object)]
    pub result: Json,
    /// What it cost, in the agent's own terms.
    #[serde(default, deserialize_with = "lossless_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub usage: Option<Json>,
}

/// An attempt failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailLease {
    /// A slug, which retry policies can name.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// Whether another attempt may help; true when absent.
    #[serde(default = "yes")]
    pub retryable: bool,
    /// Not before so many milliseconds, of which at most a day counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With the code `rate_limited`: when the provider takes calls again, RFC 3339. Until then nobody who
    /// works with the same account is given a step, and no attempt is spent; one minute when neither this
    /// nor `retryAfterMs` says more, and 31 days at most: a longer window is told again at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
}

/// A step is given back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReleaseLease {
    /// Why.
    pub reason: String,
    /// How long the step is kept from this agent, at most a day; as configured when absent. 0 from one that
    /// stops and will be back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
}

impl Default for ReleaseLease {
    fn default() -> Self {
        Self { reason: "released".into(), hold_ms: None }
    }
}

/// The answer to a sign of life.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRenewedView {
    /// Milliseconds until the lease is lost.
    pub remaining_ms: u64,
    /// Whether to stop.
    pub cancel_requested: bool,
}

/// The answer to a failure.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFailedView {
    /// Whether another attempt follows.
    pub will_retry: bool,
    /// When, if one follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
}

/// The answer to a completion.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSettledView {
    /// Status of the operation after it.
    pub operation_status: String,
}

/// A lease as an operator sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    /// Its id.
    pub lease_id: String,
    /// The operation.
    pub operation_id: String,
    /// The step.
    pub step: u32,
    /// The fencing token.
    pub fencing_token: u64,
    /// Who holds it.
    pub agent: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// `offered` or `running`.
    pub status: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Milliseconds until it is lost unless it is renewed.
    pub remaining_ms: u64,
}

fn yes() -> bool {
    true
}

/// A lease id that cannot be read was never given out.
fn lease(text: &str) -> Result<LeaseId, ApiError> {
    Ok(text.parse::<LeaseId>()?)
}

pub(super) async fn report(
    api: &Api,
    lease: &LeaseId,
    wish: StepWish,
    metadata: Metadata,
) -> Result<Receipt<Operation>, DispatchError<Operation>> {
    api.core.report(lease, wish, metadata).await
}

fn renewed(api: &Api, lease: &LeaseId) -> LeaseRenewedView {
    let remaining_ms = api.core.remaining_of(lease).unwrap_or(0);
    LeaseRenewedView { remaining_ms, cancel_requested: api.core.is_cut(lease) }
}

/// Answers a sign of life. One for work whose operation has ended is no mistake of the agent's: it is
/// told to stop.
fn sign_of_life(
    api: &Api,
    lease: &LeaseId,
    outcome: Result<Receipt<Operation>, DispatchError<Operation>>,
) -> Answer<LeaseRenewedView> {
    match outcome {
        Ok(receipt) => Ok(Reply::ok(renewed(api, lease)).position(receipt.position)),
        Err(DispatchError::Rejected(Rejection::AlreadyTerminal { .. })) if api.core.is_cut(lease) => {
            Ok(Reply::ok(renewed(api, lease)))
        }
        Err(fault) => Err(fault.into()),
    }
}

/// The operation as it stood when a key was used, if this key was.
async fn before(api: &Api, lease: &LeaseId, intent: &Intent) -> Result<Option<Arc<Operation>>, ApiError> {
    match intent.used(&api.core.projected)? {
        Some(used) => Ok(api.core.reader.at(&lease.operation, used.version).await?),
        None => Ok(None),
    }
}

/// Says that the work has begun.
#[utoipa::path(post, path = "/api/v1/leases/{id}/ack", tag = "leases", params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<LeaseRenewedView>), (status = 410)))]
pub async fn ack(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<Nothing>,
) -> Answer<LeaseRenewedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let intent = Intent::of(&request, body.hash, &api.turns).await?;
    intent
        .carry_out(|intent| async move {
            if intent.used(&api.core.projected)?.is_some() {
                return Ok(Reply::ok(renewed(&api, &lease)).replayed());
            }
            let outcome = report(&api, &lease, StepWish::Acknowledge, intent.metadata.clone()).await;
            sign_of_life(&api, &lease, outcome)
        })
        .await
}

/// Says how far the work is.
#[utoipa::path(post, path = "/api/v1/leases/{id}/progress", tag = "leases", params(("id" = String, Path)),
    request_body = ProgressLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseRenewedView>), (status = 410)))]
pub async fn progress(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<ProgressLease>,
) -> Answer<LeaseRenewedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let ProgressLease { progress, note, checkpoint, usage } = body.value;
    let faults = report_faults(Some(progress), note.as_deref(), "");
    if !faults.is_empty() {
        return Err(invalid_fields(faults));
    }
    let intent = Intent::of(&request, body.hash, &api.turns).await?;
    intent
        .carry_out(|intent| async move {
            if intent.used(&api.core.projected)?.is_some() {
                return Ok(Reply::ok(renewed(&api, &lease)).replayed());
            }
            // The checkpoint first, and without the key: a progress that is remembered has kept it.
            if let Some(checkpoint) = checkpoint {
                let metadata = Metadata { key: None, ..intent.metadata.clone() };
                if let Err(fault) = report(&api, &lease, StepWish::Checkpoint(checkpoint), metadata).await {
                    return sign_of_life(&api, &lease, Err(fault));
                }
            }
            let wish = StepWish::Progress { progress, note, usage };
            let outcome = report(&api, &lease, wish, intent.metadata.clone()).await;
            sign_of_life(&api, &lease, outcome)
        })
        .await
}

/// Says that the step is done. A result that cannot be stored is refused and fails the attempt, with the code
/// `too_large` or `invalid_result`.
#[utoipa::path(post, path = "/api/v1/leases/{id}/complete", tag = "leases", params(("id" = String, Path)),
    request_body = CompleteLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseSettledView>),
        (status = 409), (status = 410),
        (status = 422, description = "the result cannot be stored; the attempt has failed")))]
pub async fn complete(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: Result<Body<CompleteLease>, ApiError>,
) -> Answer<LeaseSettledView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let body = match body {
        Ok(body) => body,
        Err(refusal) => match refused_result::code_of(&refusal) {
            Some(code) => {
                return Err(refused_result::fail_attempt(
                    &api,
                    &lease,
                    code,
                    refusal,
                    super::intent::metadata(),
                )
                .await);
            }
            None => return Err(refusal),
        },
    };
    let intent = Intent::of(&request, body.hash, &api.turns).await?;
    intent
        .carry_out(|intent| async move {
            if let Some(operation) = before(&api, &lease, &intent).await? {
                let view = LeaseSettledView { operation_status: operation.status().name().into() };
                return Ok(Reply::ok(view).replayed());
            }
            let CompleteLease { result, usage } = body.value;
            let wish = StepWish::Complete { result, usage };
            let receipt = match report(&api, &lease, wish, intent.metadata.clone()).await {
                Ok(receipt) => receipt,
                Err(DispatchError::Rejected(rejection)) => {
                    let (code, metadata) = (rejection.fails_attempt(), intent.metadata.clone());
                    let refusal = DispatchError::<Operation>::Rejected(rejection).into();
                    return Err(match code {
                        Some(code) => {
                            refused_result::fail_attempt(&api, &lease, code, refusal, metadata).await
                        }
                        None => refusal,
                    });
                }
                Err(fault) => return Err(fault.into()),
            };
            let status =
                api.core.projected.views.read().operations.get(&lease.operation).map(|row| row.status.name());
            let view = LeaseSettledView { operation_status: status.unwrap_or_default().into() };
            Ok(Reply::ok(view).position(receipt.position))
        })
        .await
}

/// Says that the attempt failed.
#[utoipa::path(post, path = "/api/v1/leases/{id}/fail", tag = "leases", params(("id" = String, Path)),
    request_body = FailLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseFailedView>),
        (status = 409), (status = 410)))]
pub async fn fail(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<FailLease>,
) -> Answer<LeaseFailedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let faults = failure_faults(&body.value);
    if !faults.is_empty() {
        return Err(invalid_fields(faults));
    }
    let intent = Intent::of(&request, body.hash, &api.turns).await?;
    intent
        .carry_out(|intent| async move {
            if let Some(operation) = before(&api, &lease, &intent).await? {
                return Ok(Reply::ok(failed(scheduled(&operation.run, &lease))).replayed());
            }
            let FailLease { code, message, retryable, retry_after_ms, resets_at } = body.value;
            let receipt = if code == RATE_LIMITED {
                let usual = || api.core.around.clock.now().plus_ms(retry_after_ms.unwrap_or(WINDOW_MS));
                let (until, error) = (resets_at.unwrap_or_else(usual), StepError { code, message });
                api.core.report_limit(&lease, until, error, retryable, intent.metadata.clone()).await?
            } else {
                let wish = StepWish::Fail { error: StepError { code, message }, retryable, retry_after_ms };
                report(&api, &lease, wish, intent.metadata.clone()).await?
            };
            let retry = receipt.events.iter().find_map(|event| match &**event {
                Event::StepRetryScheduled(retry) => Some(retry.at),
                Event::StepLimited(limited) => Some(limited.until),
                _ => None,
            });
            // A repeated report changes nothing: the step itself says whether it will be tried again.
            let retry = retry.or_else(|| {
                let views = api.core.projected.views.read();
                scheduled(views.operations.get(&lease.operation)?.run.as_ref()?, &lease)
            });
            Ok(Reply::ok(failed(retry)).position(receipt.position))
        })
        .await
}

fn failed(retry: Option<Timestamp>) -> LeaseFailedView {
    LeaseFailedView { will_retry: retry.is_some(), next_attempt_at: retry }
}

fn scheduled(run: &Run, lease: &LeaseId) -> Option<Timestamp> {
    let step = &run.steps[run.skeleton.position(lease.step)?];
    match &step.status {
        StepStatus::BackingOff { at, .. } => Some(*at),
        StepStatus::Ready => step.limited_until.or(step.ready_at),
        _ => None,
    }
}

fn failure_faults(failure: &FailLease) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let slug = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=CODE_MAX).contains(&failure.code.len()) || !failure.code.bytes().all(slug) {
        faults.push(FieldError::at("/code", format!("code must match [A-Za-z0-9._-]{{1,{CODE_MAX}}}")));
    }
    if failure.resets_at.is_some() && failure.code != RATE_LIMITED {
        let detail = format!("resetsAt belongs to the code {RATE_LIMITED} only");
        faults.push(FieldError::at("/resetsAt", detail));
    }
    if failure.message.chars().count() > MESSAGE_MAX {
        faults
            .push(FieldError::at("/message", format!("message must have at most {MESSAGE_MAX} characters")));
    }
    faults
}

/// Gives the step back; no attempt is spent.
#[utoipa::path(post, path = "/api/v1/leases/{id}/release", tag = "leases", params(("id" = String, Path)),
    request_body = ReleaseLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseRenewedView>), (status = 410)))]
pub async fn release(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<ReleaseLease>,
) -> Answer<LeaseRenewedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let ReleaseLease { reason, hold_ms } = body.value;
    let faults = report_faults(None, Some(&reason), "");
    if !faults.is_empty() {
        let detail = format!("reason must have at most {NOTE_MAX} characters and no control characters");
        return Err(ApiError::invalid_field("/reason", detail));
    }
    if hold_ms.is_some_and(|hold_ms| hold_ms > HOLD_MAX_MS) {
        return Err(ApiError::invalid_field("/holdMs", format!("holdMs must be at most {HOLD_MAX_MS}")));
    }
    let intent = Intent::of(&request, body.hash, &api.turns).await?;
    intent
        .carry_out(|intent| async move {
            let view = LeaseRenewedView { remaining_ms: 0, cancel_requested: false };
            if intent.used(&api.core.projected)?.is_some() {
                return Ok(Reply::ok(view).replayed());
            }
            let receipt =
                report(&api, &lease, StepWish::Release { reason, hold_ms }, intent.metadata.clone()).await?;
            Ok(Reply::ok(view).position(receipt.position))
        })
        .await
}

/// Lists the leases of this moment.
#[utoipa::path(get, path = "/api/v1/leases", tag = "leases",
    params(("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("count" = Option<bool>, Query), ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<LeaseView>>)))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<LeaseView>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "count", "minPosition"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let seen = wait_for_position(&api, &parameters).await?;
    let mut leases = api.core.leases();
    leases.sort_by(|one, other| one.lease.cmp(&other.lease));
    let after: Option<LeaseId> = match &paging.after {
        Some(text) => Some(
            text.parse()
                .map_err(|_| ApiError::invalid_parameter("cursor", "the cursor belongs to another list"))?,
        ),
        None => None,
    };
    let total = leases.len() as u64;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let rest = leases.into_iter().filter(|info| after.as_ref().is_none_or(|after| info.lease > *after));
    let mut found: Vec<_> = rest.take(limit.saturating_add(1)).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|info| api.cursors.encode(&info.lease.to_string()));
    let mut page = super::page::Page::new(paging.limit, cursor);
    if paging.count {
        page = page.total(total);
    }
    Ok(Reply::ok(found.iter().map(view).collect()).page(page).position(seen))
}

fn view(info: &actors::protocol::LeaseInfo) -> LeaseView {
    LeaseView {
        lease_id: info.lease.to_string(),
        operation_id: info.lease.operation.to_string(),
        step: info.lease.step,
        fencing_token: info.lease.grant,
        agent: info.agent.to_string(),
        attempt: info.attempt,
        status: if info.started { "running" } else { "offered" }.into(),
        since: info.since,
        remaining_ms: info.remaining_ms,
    }
}

/// Takes a lease away; the step is given to another agent by its retry policy.
#[utoipa::path(delete, path = "/api/v1/leases/{id}", tag = "leases", params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<LeaseRenewedView>), (status = 410)))]
pub async fn revoke(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<LeaseRenewedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&id)?;
    let wish = StepWish::LoseLease { reason: StepLeaseLost::REVOKED.into() };
    let receipt =
        actors::granting::execute_step(&api.core.gateway, &lease, wish, super::intent::metadata()).await?;
    let view = LeaseRenewedView { remaining_ms: 0, cancel_requested: true };
    Ok(Reply::ok(view).position(receipt.position))
}
