//! Everything that shows events: pages of history, sockets, server-sent events. One filter, one reader and
//! the same bytes under all of them.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use actors::recovery::RecoveryError;
use domain::OperationId;
use domain::operation::Operation;
use events::{Epoch, Position, Since, Version};
use futures_util::StreamExt;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Api;
use super::envelope::Reply;
use super::error::{ApiError, Code, FieldError};
use super::event_view::EventView;
use super::front::Reach;
use super::operations::{Answer, unknown};
use super::page::Page;
use super::query::Parameters;
use super::reading::{self, Paging};
use super::socket;
use filter::Filter;
use history::Found;
use shown::Shown;

pub use conversation::PROTOCOL;
pub use feed::EventFeed;

mod conversation;
pub mod feed;
pub mod filter;
mod history;
pub mod reader;
pub mod shown;
pub mod sse;
mod telling;

/// Events that pass by and are not in the log. They are sent only to those who name them in full.
pub const LIVE_ONLY: &[&str] = &[AGENT_HEARTBEAT, SYSTEM_METRICS];
/// An agent has sent a sign of life.
pub const AGENT_HEARTBEAT: &str = "agent.heartbeat";
/// A sample of the system's load.
pub const SYSTEM_METRICS: &str = "system.metrics";

/// An answer may name an event some moments before streams show it; a longer wait is for none that exists.
const BEYOND_MAX: Duration = Duration::from_secs(2);

/// With 410: the sequence behind which everything is kept.
pub(super) const OLDEST: HeaderName = HeaderName::from_static("photon-oldest-sequence");

/// Which history of the log is shown.
const EPOCH: HeaderName = HeaderName::from_static("photon-epoch");

/// An event in a list: the very bytes that a stream shows.
pub struct Listed(Arc<Shown>);

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = self.0.json();
        let raw: &RawValue = serde_json::from_slice(&json).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Where a reader begins: after a position that the log has, or with the next event.
async fn begin(feed: &EventFeed, filter: &Filter, after: Option<u64>) -> Result<Position, ApiError> {
    let Some(after) = after.map(Position::new) else { return Ok(feed.end()) };
    check_floor(feed, filter, after).await?;
    if feed.reached(after, BEYOND_MAX).await {
        return Ok(after);
    }
    let end = feed.end();
    let detail = format!(
        "after is {after}, but the newest event has sequence {end}: this server, or this log, is another \
         one. Begin again with after={}.",
        feed.log.marks().floor.position
    );
    Err(ApiError::invalid_parameter("after", detail))
}

/// Whether the history that a client knows, if it names one, is the one that is shown.
fn check_epoch(feed: &EventFeed, named: Option<&str>) -> Result<(), ApiError> {
    let (Some(named), Some(epoch)) = (named, feed.log.marks().epoch) else { return Ok(()) };
    let named: Epoch =
        named.parse().map_err(|fault| ApiError::invalid_parameter("epoch", format!("{fault}")))?;
    if named == epoch {
        return Ok(());
    }
    let detail = format!(
        "The log was restored since: its history is now {epoch}, in which sequences that you know may be \
         other events. Begin again with after={}.",
        feed.log.marks().floor.position
    );
    let refusal = ApiError::new(Code::EpochChanged, detail.clone());
    Err(refusal.with(FieldError::parameter("epoch", detail)).header(EPOCH, epoch))
}

/// Whether everything that is wanted after a position is kept. A stream is kept as a whole or not at all.
async fn check_floor(feed: &EventFeed, filter: &Filter, after: Position) -> Result<(), ApiError> {
    let floor = feed.log.marks().floor.position;
    if after >= floor {
        return Ok(());
    }
    if let Some(stream) = filter.stream() {
        let first = feed.log.read(stream, Since::BEGINNING).next().await;
        if first.transpose().map_err(RecoveryError::from)?.is_some() {
            return Ok(());
        }
    }
    let detail = format!(
        "Up to sequence {floor} what ended long ago is no longer kept; begin again with after={floor}."
    );
    let refusal = ApiError::new(Code::PositionCompacted, detail.clone());
    Err(refusal.with(FieldError::parameter("after", detail)).header(OLDEST, floor))
}

/// Pages through the history of everything; with an upgrade to a WebSocket, streams it.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("types" = Option<String>, Query, description = "such as operation.*,agent.timeout"),
        ("operation" = Option<String>, Query), ("agent" = Option<String>, Query),
        ("after" = Option<u64>, Query, description = "sequence, exclusive"),
        ("epoch" = Option<String>, Query, description = "the history that `after` is of"),
        ("order" = Option<String>, Query, description = "asc (default) or desc"),
        ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<EventView>>),
        (status = 410, description = "after is no longer kept, or the log was restored"),
        (status = 101, description = "a WebSocket; see /asyncapi.json")))]
pub async fn list(api: Reach, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    if socket::is_asked_for(&request) {
        return conversation::open(api, request, payload).await;
    }
    Ok(page(&api, &request).await?.respond_to(&request).map_into_boxed_body())
}

async fn page(api: &Api, request: &HttpRequest) -> Answer<Vec<Listed>> {
    const NAMES: &[&str] =
        &["types", "operation", "agent", "after", "epoch", "order", "limit", "cursor", "minPosition"];
    let parameters = Parameters::of(request, NAMES, &[])?;
    let filter = Filter::of(&parameters)?;
    let descending = parameters.get_choice("order", &["asc", "desc"])? == Some("desc");
    let after = parameters.get_u64("after", 0..=u64::MAX)?;
    check_epoch(&api.feed, parameters.get("epoch"))?;
    let after = match after {
        Some(_) => begin(&api.feed, &filter, after).await?,
        // Whatever is kept, from the oldest on.
        None => Position::START,
    };
    let paging = Paging::of(&parameters, &api.cursors)?;
    reading::wait_for_position(api, &parameters).await?;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let kind = if descending { "before" } else { "after" };
    let from = paging.after.is_some().then(|| paging.after_number(kind)).transpose()?.map(|at| at as u64);
    let head = api.core.projected.position();
    let found = if descending {
        let end = from.map_or(head, |before| Position::new(before.saturating_sub(1)).min(head));
        history::backwards(&api.feed, &filter, after, end, limit).await?
    } else {
        let start = from.map_or(after, Position::new);
        history::forwards(&api.feed, &filter, start, head, limit).await?
    };
    Ok(reply(api, found, kind, &paging).position(head))
}

fn reply(api: &Api, found: Found, kind: &str, paging: &Paging) -> Reply<Vec<Listed>> {
    let cursor = found.resume.map(|at| paging.cursor(&api.cursors, &format!("{kind}/{at}")));
    let reply =
        Reply::ok(found.events.into_iter().map(Listed).collect()).page(Page::new(paging.limit, cursor));
    match api.feed.log.marks().epoch {
        Some(epoch) => reply.header(EPOCH, epoch),
        None => reply,
    }
}

/// Pages through the history of one operation.
#[utoipa::path(get, path = "/api/v1/operations/{id}/events", tag = "operations",
    params(("id" = String, Path), ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<EventView>>), (status = 404)))]
pub async fn of_operation(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<Vec<Listed>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "minPosition"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let id: OperationId = id.parse()?;
    let seen = reading::wait_for_position(&api, &parameters).await?;
    let revision = api.core.projected.views.read().operations.find(&id).map(|row| row.revision);
    let revision = revision.ok_or_else(|| unknown(&id))?;
    let after = Since::Version(Version::new(paging.after_number("version")? as u64));
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let mut history = api.core.around.log.read(&actors::gateway::stream_of::<Operation>(&id), after);
    let mut found = Found::default();
    let (mut bytes, mut last) = (0, revision);
    while found.events.len() < limit
        && bytes < history::PAGE_BYTES_MAX
        && let Some(recorded) = history.next().await
    {
        let recorded = recorded.map_err(RecoveryError::from)?;
        // The views have not seen it: a reader must not either.
        if recorded.version.get() > revision {
            break;
        }
        bytes += recorded.body.len();
        last = recorded.version.get();
        found.events.push(Arc::new(Shown::of(&recorded, &api.lease_names)));
    }
    found.resume = (last < revision).then_some(last);
    Ok(reply(&api, found, "version", &paging).etag(revision).position(seen))
}
