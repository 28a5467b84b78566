//! The routes of leases: what an agent reports about the step it was given.

use actix_web::{HttpRequest, web};
use actors::aggregate_actor::{DispatchError, Receipt};
use actors::codec::Metadata;
use actors::protocol::execute_step;
use domain::json::lossless_option;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::{Operation, Rejection, StepWish};
use domain::{Json, LeaseId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::agent_request::progress_fault;
use super::body::{Body, OptionalBody};
use super::envelope::Reply;
use super::error::ApiError;
use super::front::Reach;
use super::intent::Intent;
use super::lease_names::LeaseNames;
use super::operation_request::invalid_fields;
use super::operations::Answer;
use super::query::Parameters;
use super::reading::{Nothing, Paging, wait_for_position};

/// How far a step is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgressLease {
    /// Whole percent.
    pub progress: u8,
    /// For people: one line. It is cut at 1 024 characters, and control characters become spaces.
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

/// The answer to a sign of life.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRenewedView {
    /// Milliseconds until the lease is lost.
    pub remaining_ms: u64,
    /// Whether to stop.
    pub cancel_requested: bool,
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

/// A lease id that cannot be read was never given out, and one of another history is over.
pub(super) fn lease(api: &Api, text: &str) -> Result<LeaseId, ApiError> {
    Ok(api.lease_names.read(text)?)
}

fn renewed(api: &Api, lease: &LeaseId) -> LeaseRenewedView {
    let remaining_ms = api.core.remaining_of(lease).unwrap_or(0);
    LeaseRenewedView { remaining_ms, cancel_requested: api.core.is_closing(lease) }
}

/// Answers a sign of life. One for work whose operation has ended is no mistake of the agent's: it is
/// told to stop.
fn sign_of_life(
    api: &Api,
    lease: &LeaseId,
    outcome: Result<Receipt<Operation>, DispatchError<Operation>>,
) -> Answer<LeaseRenewedView> {
    match outcome {
        // It was the holder's, and renewed the lease; the views may not show that yet.
        Ok(receipt) => {
            let view = LeaseRenewedView { remaining_ms: api.core.periods.lease_ms, cancel_requested: false };
            Ok(Reply::ok(view).position(receipt.position))
        }
        Err(DispatchError::Rejected(Rejection::AlreadyTerminal { .. })) if api.core.is_closing(lease) => {
            Ok(Reply::ok(renewed(api, lease)))
        }
        Err(fault) => Err(fault.into()),
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
    let lease = lease(&api, &id)?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    intent
        .carry_out(|intent| async move {
            if intent.used(&api)?.is_some() {
                return Ok(Reply::ok(renewed(&api, &lease)).replayed());
            }
            let outcome = api.core.report(&lease, StepWish::Acknowledge, intent.metadata.clone()).await;
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
    body: Result<Body<ProgressLease>, ApiError>,
) -> Answer<LeaseRenewedView> {
    Parameters::of(&request, &[], &[])?;
    let lease = lease(&api, &id)?;
    // Before anything is refused: whoever reports is alive.
    api.core.note_report(&lease);
    let body = body?;
    let ProgressLease { progress, note, checkpoint, usage } = body.value;
    if let Some(fault) = progress_fault(progress) {
        return Err(invalid_fields(vec![fault]));
    }
    let intent = Intent::of(&request, body.hash, &api).await?;
    intent
        .carry_out(|intent| async move {
            if intent.used(&api)?.is_some() {
                return Ok(Reply::ok(renewed(&api, &lease)).replayed());
            }
            // The checkpoint first, and without the key: a progress that is remembered has kept it.
            if let Some(checkpoint) = checkpoint {
                let metadata = Metadata { key: None, ..intent.metadata.clone() };
                if let Err(fault) = api.core.report(&lease, StepWish::Checkpoint(checkpoint), metadata).await
                {
                    return sign_of_life(&api, &lease, Err(fault));
                }
            }
            let wish = StepWish::Progress { progress, note, usage };
            let outcome = api.core.report(&lease, wish, intent.metadata.clone()).await;
            sign_of_life(&api, &lease, outcome)
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
    let cursor =
        found.last().filter(|_| more).map(|info| paging.cursor(&api.cursors, &info.lease.to_string()));
    let mut page = super::page::Page::new(paging.limit, cursor);
    if paging.count {
        page = page.total(total);
    }
    Ok(Reply::ok(found.iter().map(|info| view(info, &api.lease_names)).collect()).page(page).position(seen))
}

fn view(info: &actors::protocol::LeaseInfo, names: &LeaseNames) -> LeaseView {
    LeaseView {
        lease_id: names.name(&info.lease),
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
    let lease = lease(&api, &id)?;
    // The operation may have ended while the agent still works: then the slot is all there is to take.
    let wish = match api.core.is_closing(&lease) {
        true => StepWish::CloseLease { why: CloseReason::Revoked },
        false => StepWish::LoseLease { reason: LeaseEnd::Revoked },
    };
    let receipt = execute_step(&api.core.gateway, &lease, wish, super::intent::metadata()).await?;
    let view = LeaseRenewedView { remaining_ms: 0, cancel_requested: true };
    Ok(Reply::ok(view).position(receipt.position))
}
