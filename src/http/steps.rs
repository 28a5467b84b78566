//! The routes of an operation's steps, with every attempt and why each agent was chosen.

use actix_web::{HttpRequest, web};
use actors::codec::Stored;
use actors::gateway::stream_of;
use actors::past::Seen;
use actors::recovery::RecoveryError;
use domain::agent::selection::Candidates;
use domain::operation::event::StepError;
use domain::operation::{Event, Operation};
use domain::{OperationId, Timestamp};
use events::Since;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::envelope::Reply;
use super::error::ApiError;
use super::front::Reach;
use super::operation_view::{self, StepView};
use super::operations::Answer;
use super::page::Page;
use super::past;
use super::query::Parameters;
use super::reading::Paging;

/// Attempts that are shown; the newest ones when there were more.
const ATTEMPTS_MAX: usize = 100;

/// A step with its history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepDetail {
    /// The step as it stands.
    #[serde(flatten)]
    pub step: StepView,
    /// Every time it was offered, oldest first; at most the newest 100.
    pub attempts: Vec<AttemptView>,
}

/// One offer of a step, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// The fencing token.
    pub grant: u64,
    /// The attempt it was, or would have been.
    pub attempt: u32,
    /// To whom it was offered.
    pub agent: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub offered_at: Timestamp,
    /// When the agent began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// `completed`, `failed`, `lease_lost`, `needs_attention`, `offer_expired`, `released`,
    /// `limited` or `cancelled`;
    /// absent while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub error: Option<StepError>,
    /// Why this agent was chosen.
    #[schema(value_type = Object)]
    pub candidates: Candidates,
}

/// Lists the steps of an operation.
#[utoipa::path(get, path = "/api/v1/operations/{id}/steps", tag = "operations",
    params(("id" = String, Path), ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("count" = Option<bool>, Query), ("minPosition" = Option<u64>, Query),
        ("at" = Option<String>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<StepView>>), (status = 404),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn list(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<Vec<StepView>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "count", "minPosition", "at"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let id: OperationId = id.parse()?;
    let Seen { state: operation, revision, position, time } = past::operation(&api, &parameters, &id).await?;
    let first = paging.after_number("steps")?;
    let total = operation.run.steps.len();
    let end = total.min(first.saturating_add(usize::try_from(paging.limit).unwrap_or(usize::MAX)));
    let cursor = (end < total).then(|| paging.cursor(&api.cursors, &format!("steps/{end}")));
    let shown = (first.min(end)..end).map(|position| StepView::of(&operation, position, time)).collect();
    let page = Page::new(paging.limit, cursor);
    let page = if paging.count { page.total(total as u64) } else { page };
    let tag = operation_view::tag(revision, &operation.run, time);
    Ok(Reply::ok(shown).etag(tag).position(position).page(page))
}

/// Shows a step with every attempt.
#[utoipa::path(get, path = "/api/v1/operations/{id}/steps/{step}", tag = "operations",
    params(("id" = String, Path), ("step" = u32, Path), ("minPosition" = Option<u64>, Query),
        ("at" = Option<String>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<StepDetail>), (status = 404),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn get(api: Reach, request: HttpRequest, path: web::Path<(String, String)>) -> Answer<StepDetail> {
    let parameters = Parameters::of(&request, &["minPosition", "at"], &[])?;
    let (id, number) = path.into_inner();
    let id: OperationId = id.parse()?;
    let seen = past::operation(&api, &parameters, &id).await?;
    let Seen { state: operation, revision, time, .. } = seen;
    let position = number.parse().ok().and_then(|number| operation.run.skeleton.position(number));
    let position = position
        .ok_or_else(|| ApiError::not_found(format!("Operation {id} has no such step; see its /steps.")))?;
    let step = operation.run.skeleton.steps[position].step;
    let attempts = attempts(&api, &id, step, revision).await?;
    let detail = StepDetail { step: StepView::of(&operation, position, time), attempts };
    let tag = operation_view::tag(revision, &operation.run, time);
    Ok(Reply::ok(detail).etag(tag).position(seen.position))
}

/// Folds the attempts of one step from the operation's history.
async fn attempts(
    api: &Api,
    id: &OperationId,
    step: u32,
    revision: u64,
) -> Result<Vec<AttemptView>, ApiError> {
    let mut history = api.core.around.log.read(&stream_of::<Operation>(id), Since::BEGINNING);
    let mut attempts: Vec<AttemptView> = Vec::new();
    while let Some(recorded) = history.next().await {
        let recorded = recorded.map_err(RecoveryError::from)?;
        if recorded.version.get() > revision {
            break;
        }
        let event = Operation::decode(&recorded.name, recorded.schema, &recorded.body);
        let event = event.map_err(RecoveryError::from)?;
        let cancels = matches!(&event, Event::StepsCancelled(cancelled) if cancelled.steps.contains(&step));
        if event.step() == Some(step) || cancels {
            fold(&mut attempts, &event, Timestamp::from_micros(recorded.time_us));
            if attempts.len() > ATTEMPTS_MAX {
                attempts.remove(0);
            }
        }
    }
    Ok(attempts)
}

fn fold(attempts: &mut Vec<AttemptView>, event: &Event, at: Timestamp) {
    if let Event::StepReserved(reserved) = event {
        attempts.push(AttemptView {
            grant: reserved.grant,
            attempt: reserved.attempt,
            agent: reserved.agent.to_string(),
            offered_at: at,
            started_at: None,
            ended_at: None,
            outcome: None,
            error: None,
            candidates: reserved.candidates.clone(),
        });
    }
    let Some(last) = attempts.last_mut() else { return };
    let outcome = match event {
        Event::StepStarted(_) => {
            last.started_at = Some(at);
            return;
        }
        // A late completion overrules what was thought of the attempt before.
        Event::StepCompleted(_) => "completed",
        _ if last.outcome.is_some() => return,
        Event::StepFailed(failed) => {
            last.error = Some(failed.error.clone());
            "failed"
        }
        Event::StepLeaseLost(_) => "lease_lost",
        Event::StepNeedsAttention(unknown) => {
            last.error = Some(unknown.error.clone());
            "needs_attention"
        }
        Event::StepOfferExpired(_) => "offer_expired",
        Event::StepReleased(_) => "released",
        Event::StepLimited(limited) => {
            last.error = Some(limited.error.clone());
            "limited"
        }
        Event::StepsCancelled(_) => "cancelled",
        _ => return,
    };
    last.outcome = Some(outcome.into());
    last.ended_at = Some(at);
}
