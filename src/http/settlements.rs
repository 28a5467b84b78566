//! The routes by which an agent ends its attempt: complete, fail, release. They do not wait for the views
//! unless they look at them.

use actix_web::{HttpRequest, web};
use actors::aggregate_actor::DispatchError;
use actors::limiting::RATE_LIMITED;
use actors::matching::Appetite;
use actors::reclaiming::ClaimRefusal;
use actors::settling::{Aftermath, Settled};
use domain::json::{lossless, lossless_option};
use domain::operation::event::StepError;
use domain::operation::{Event, Operation, StepWish};
use domain::{Json, LeaseId, Timestamp, lane, texts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::agent_view::{ClaimView, LeaseGrant};
use super::agents::{CLAIM_MAX, action_names};
use super::body::{Body, OptionalBody, hash_for_key};
use super::envelope::Reply;
use super::error::ApiError;
use super::front::ReachAtOnce;
use super::guard::Phase;
use super::intent::{Intent, metadata};
use super::leases::lease;
use super::operations::Answer;
use super::query::Parameters;
use super::refused_result;

/// Longest time a step is kept from who gave it back, in milliseconds: a day.
const HOLD_MAX_MS: u64 = 86_400_000;

/// More work, asked for with a report: what is there now, without waiting.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMore {
    /// Most leases, from 1 to 100.
    pub max: u32,
    /// Only these actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
}

impl Default for ClaimMore {
    fn default() -> Self {
        Self { max: 1, actions: None }
    }
}

impl ClaimMore {
    /// What is asked for, unless it is out of bounds.
    fn appetite(claim: Option<Self>) -> Result<Option<Appetite>, ApiError> {
        let Some(Self { max, actions }) = claim else { return Ok(None) };
        if !(1..=CLAIM_MAX).contains(&max) {
            let detail = format!("max must be from 1 to {CLAIM_MAX}");
            return Err(ApiError::invalid_field("/claim/max", detail));
        }
        let actions = actions.map(|actions| action_names(&actions, "/claim/actions")).transpose()?;
        Ok(Some(Appetite::of(max, actions)))
    }
}

/// What came of a claim that was made with a report. Both are absent when none was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimedView {
    /// The work; empty when there is none now, or the claim is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases: Option<Vec<LeaseGrant>>,
    /// Why the claim is refused, though the report was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_refused: Option<ClaimRefusedView>,
}

/// Why a claim is refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRefusedView {
    /// `drained`, `quarantined`, `rate_limited`, `draining`, `overloaded`, `stale_incarnation`,
    /// `lease_lost` or `not_found`.
    pub code: String,
    /// Milliseconds after which another claim may be served, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl From<ClaimRefusal> for ClaimRefusedView {
    fn from(refusal: ClaimRefusal) -> Self {
        let (code, retry_after_ms) = match refusal {
            ClaimRefusal::UnknownAgent => ("not_found", None),
            ClaimRefusal::LeaseLost => ("lease_lost", None),
            ClaimRefusal::StaleIncarnation => ("stale_incarnation", None),
            ClaimRefusal::Drained => ("drained", None),
            ClaimRefusal::Quarantined => ("quarantined", None),
            ClaimRefusal::RateLimited(ms) => ("rate_limited", Some(ms)),
            ClaimRefusal::Draining => ("draining", None),
            ClaimRefusal::Overloaded => ("overloaded", None),
        };
        Self { code: code.into(), retry_after_ms }
    }
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
    /// More work for the same agent. It is no part of the body that is compared when the report is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimMore>,
}

/// An attempt failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailLease {
    /// A slug, which retry policies can name. It is kept in lower case, with `_` for other characters than
    /// `[a-z0-9._-]`, and cut at 64 characters: `HTTP 500` is `http_500`.
    pub code: String,
    /// What happened, for people; it may have lines. It is cut at 4 096 characters, and other control
    /// characters become spaces.
    pub message: String,
    /// Whether another attempt may help; true when absent.
    #[serde(default = "yes")]
    pub retryable: bool,
    /// Earliest next attempt, in milliseconds from now; at most one day counts. Of this and `resetsAt` the
    /// longer wait counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With the code `rate_limited`: when the provider takes calls again, RFC 3339. Until then nobody who
    /// works with the same account is given a step, and no attempt is spent; one minute when neither this
    /// nor `retryAfterMs` says more, and 31 days at most: a longer window is told again at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
    /// More work for the same agent. It is no part of the body that is compared when the report is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimMore>,
}

/// A step is given back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReleaseLease {
    /// Why: one line. It is cut at 256 characters, and control characters become spaces.
    pub reason: String,
    /// Milliseconds for which the step is kept from this agent, at most one day; as configured when absent.
    /// Send 0 when the worker restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// More work for the same agent. It is no part of the body that is compared when the report is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimMore>,
}

impl Default for ReleaseLease {
    fn default() -> Self {
        Self { reason: "released".into(), hold_ms: None, claim: None }
    }
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
    /// What came of the claim.
    #[serde(flatten)]
    pub claimed: ClaimedView,
}

/// The answer to a completion.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSettledView {
    /// Status of the operation after it.
    pub operation_status: String,
    /// What came of the claim.
    #[serde(flatten)]
    pub claimed: ClaimedView,
}

/// The answer to a release.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReleasedView {
    /// Always 0: the lease is over.
    pub remaining_ms: u64,
    /// Always false.
    pub cancel_requested: bool,
    /// What came of the claim.
    #[serde(flatten)]
    pub claimed: ClaimedView,
}

impl LeaseSettledView {
    fn of(after: &Aftermath, claimed: ClaimedView) -> Self {
        Self { operation_status: after.status.name().into(), claimed }
    }
}

/// Serves the claim that came with a report, after that was taken.
async fn claimed(api: &Api, claim: Option<Appetite>, after: &Aftermath, intent: &Intent) -> ClaimedView {
    let Some(appetite) = claim else { return ClaimedView::default() };
    let outcome = if api.state.phase() == Phase::Draining {
        Err(ClaimRefusal::Draining)
    } else {
        api.core.claim_after(after, appetite, intent.metadata.clone()).await
    };
    let granted = outcome.as_deref().unwrap_or_default();
    let remaining_ms = |lease: &LeaseId| api.core.remaining_of_grant(lease);
    let traceparent = intent.metadata.traceparent.as_deref();
    let leases = Some(ClaimView::of(granted, remaining_ms, traceparent, &api.lease_names).leases);
    ClaimedView { leases, claim_refused: outcome.err().map(ClaimRefusedView::from) }
}

fn yes() -> bool {
    true
}

/// How the operation stood when a key was used, if this key was.
async fn before(api: &Api, lease: &LeaseId, intent: &Intent) -> Result<Option<Aftermath>, ApiError> {
    let Some(used) = intent.used(api)? else { return Ok(None) };
    let operation = api.core.reader.at(&lease.operation, used.version).await?;
    Ok(operation.map(|operation| Aftermath::of(&operation, lease)))
}

/// Says that the step is done. A result that cannot be stored is refused and fails the attempt, with the code
/// `too_large` or `invalid_result`.
#[utoipa::path(post, path = "/api/v1/leases/{id}/complete", tag = "leases", params(("id" = String, Path)),
    request_body = CompleteLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseSettledView>),
        (status = 409), (status = 410),
        (status = 422, description = "the result cannot be stored; the attempt has failed")))]
pub async fn complete(
    api: ReachAtOnce,
    request: HttpRequest,
    id: web::Path<String>,
    body: Result<Body<CompleteLease>, ApiError>,
) -> Answer<LeaseSettledView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&api, &id)?;
    let mut body = match body {
        Ok(body) => body,
        Err(refusal) => match refused_result::code_of(&refusal) {
            Some(code) => {
                return Err(refused_result::fail_attempt(&api, &lease, code, refusal, metadata()).await);
            }
            None => return Err(refusal),
        },
    };
    let claim = ClaimMore::appetite(body.value.claim.take())?;
    let intent = Intent::of(&request, hash_for_key(&request, &body.value), &api).await?;
    intent
        .carry_out(|intent| async move {
            if let Some(after) = before(&api, &lease, &intent).await? {
                let claimed = claimed(&api, claim, &after, &intent).await;
                return Ok(Reply::ok(LeaseSettledView::of(&after, claimed)).replayed());
            }
            let CompleteLease { result, usage, .. } = body.value;
            let wish = StepWish::Complete { result, usage };
            let Settled { receipt, after } =
                match api.core.settle(&lease, wish, intent.metadata.clone()).await {
                    Ok(settled) => settled,
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
            let claimed = claimed(&api, claim, &after, &intent).await;
            Ok(Reply::ok(LeaseSettledView::of(&after, claimed)).position(receipt.position))
        })
        .await
}

/// Says that the attempt failed.
#[utoipa::path(post, path = "/api/v1/leases/{id}/fail", tag = "leases", params(("id" = String, Path)),
    request_body = FailLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseFailedView>),
        (status = 409), (status = 410)))]
pub async fn fail(
    api: ReachAtOnce,
    request: HttpRequest,
    id: web::Path<String>,
    mut body: Body<FailLease>,
) -> Answer<LeaseFailedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&api, &id)?;
    let claim = ClaimMore::appetite(body.value.claim.take())?;
    body.value.code = texts::code(&body.value.code);
    if body.value.resets_at.is_some() && body.value.code != RATE_LIMITED {
        let detail = format!("resetsAt belongs to the code {RATE_LIMITED} only; use retryAfterMs");
        return Err(ApiError::invalid_field("/resetsAt", detail));
    }
    // In which lane the agent works is what the views show.
    let api = if body.value.code == RATE_LIMITED { api.shown().await? } else { api.unseen() };
    let intent = Intent::of(&request, hash_for_key(&request, &body.value), &api).await?;
    intent
        .carry_out(|intent| async move {
            if let Some(after) = before(&api, &lease, &intent).await? {
                let claimed = claimed(&api, claim, &after, &intent).await;
                return Ok(Reply::ok(failed(after.next_attempt, claimed)).replayed());
            }
            let FailLease { code, message, retryable, retry_after_ms, resets_at, .. } = body.value;
            let error = StepError { code, message };
            let Settled { receipt, after } = if error.code == RATE_LIMITED {
                let until = lane::parked_until(resets_at, retry_after_ms, api.core.around.clock.now());
                api.core.report_limit(&lease, until, error, retryable, intent.metadata.clone()).await?
            } else {
                let wish = StepWish::Fail { error, retryable, retry_after_ms };
                api.core.settle(&lease, wish, intent.metadata.clone()).await?
            };
            let retry = receipt.events.iter().find_map(|event| match &**event {
                Event::StepRetryScheduled(retry) => Some(retry.at),
                Event::StepLimited(limited) => Some(limited.until),
                _ => None,
            });
            // A repeated report changes nothing: the step itself says whether it will be tried again.
            let retry = retry.or(after.next_attempt);
            let claimed = claimed(&api, claim, &after, &intent).await;
            Ok(Reply::ok(failed(retry, claimed)).position(receipt.position))
        })
        .await
}

fn failed(retry: Option<Timestamp>, claimed: ClaimedView) -> LeaseFailedView {
    LeaseFailedView { will_retry: retry.is_some(), next_attempt_at: retry, claimed }
}

/// Gives the step back; no attempt is spent.
#[utoipa::path(post, path = "/api/v1/leases/{id}/release", tag = "leases", params(("id" = String, Path)),
    request_body = ReleaseLease,
    responses((status = 200, body = super::envelope::ApiResponse<LeaseReleasedView>), (status = 410)))]
pub async fn release(
    api: ReachAtOnce,
    request: HttpRequest,
    id: web::Path<String>,
    mut body: OptionalBody<ReleaseLease>,
) -> Answer<LeaseReleasedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&api, &id)?;
    let claim = ClaimMore::appetite(body.value.claim.take())?;
    let hash = hash_for_key(&request, &body.value);
    let ReleaseLease { reason, hold_ms, .. } = body.value;
    if hold_ms.is_some_and(|hold_ms| hold_ms > HOLD_MAX_MS) {
        return Err(ApiError::invalid_field("/holdMs", format!("holdMs must be at most {HOLD_MAX_MS}")));
    }
    let intent = Intent::of(&request, hash, &api).await?;
    intent
        .carry_out(|intent| async move {
            let view = |claimed| LeaseReleasedView { remaining_ms: 0, cancel_requested: false, claimed };
            if let Some(after) = before(&api, &lease, &intent).await? {
                let claimed = claimed(&api, claim, &after, &intent).await;
                return Ok(Reply::ok(view(claimed)).replayed());
            }
            let wish = StepWish::Release { reason, hold_ms };
            let Settled { receipt, after } = api.core.settle(&lease, wish, intent.metadata.clone()).await?;
            let claimed = claimed(&api, claim, &after, &intent).await;
            Ok(Reply::ok(view(claimed)).position(receipt.position))
        })
        .await
}
