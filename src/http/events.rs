//! The routes of history: all events, and those of one operation, in pages.

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use actors::gateway::stream_of;
use actors::recovery::RecoveryError;
use domain::agent::Agent;
use domain::operation::Operation;
use domain::{AgentId, OperationId};
use events::{EventLog, EventStream, Position, Recorded, Since, StreamId, Version};
use futures_util::StreamExt;

use super::Api;
use super::envelope::Reply;
use super::error::ApiError;
use super::event_view::EventView;
use super::operations::{Answer, unknown};
use super::page::Page;
use super::query::Parameters;
use super::reading::{self, Paging};

/// Events looked at for one page; a filter that finds fewer gets a cursor to go on from.
const LOOKED_AT_MAX: usize = 20_000;

/// Bytes of bodies on one page, beyond its first event.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Which events are asked for.
struct Filter {
    kinds: Vec<String>,
    stream: Option<StreamId>,
}

impl Filter {
    fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        let kinds = parameters.get_list("types")?.into_iter().map(str::to_owned).collect();
        let operation = parameters.get("operation").map(str::parse::<OperationId>).transpose();
        let operation =
            operation.map_err(|fault| ApiError::invalid_parameter("operation", fault.to_string()))?;
        let agent = parameters.get("agent").map(str::parse::<AgentId>).transpose();
        let agent = agent.map_err(|fault| ApiError::invalid_parameter("agent", fault.to_string()))?;
        let stream = match (operation, agent) {
            (Some(_), Some(_)) => {
                let detail = "name an operation or an agent, not both: they filter by the event's own stream";
                return Err(ApiError::invalid_parameter("agent", detail));
            }
            (Some(operation), None) => Some(stream_of::<Operation>(&operation)),
            (None, Some(agent)) => Some(stream_of::<Agent>(&agent)),
            (None, None) => None,
        };
        Ok(Self { kinds, stream })
    }

    fn admits(&self, recorded: &Recorded) -> bool {
        let wanted = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => recorded.name.starts_with(prefix),
            None => *recorded.name == **pattern,
        };
        self.stream.as_ref().is_none_or(|stream| *stream == recorded.stream)
            && (self.kinds.is_empty() || self.kinds.iter().any(wanted))
    }
}

/// One page of history, and where the next one begins.
struct Found {
    events: Vec<Arc<Recorded>>,
    /// The last event that was looked at, if more may follow.
    resume: Option<u64>,
}

/// Pages through the history of everything.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("types" = Option<String>, Query, description = "such as operation.*,agent.timeout"),
        ("operation" = Option<String>, Query), ("agent" = Option<String>, Query),
        ("after" = Option<u64>, Query, description = "sequence, exclusive"),
        ("order" = Option<String>, Query, description = "asc (default) or desc"),
        ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<EventView>>)))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Answer<Vec<EventView>> {
    const NAMES: &[&str] =
        &["types", "operation", "agent", "after", "order", "limit", "cursor", "minPosition"];
    let parameters = Parameters::of(&request, NAMES, &[])?;
    let filter = Filter::of(&parameters)?;
    let descending = parameters.get_choice("order", &["asc", "desc"])? == Some("desc");
    let after = parameters.get_u64("after", 0..=u64::MAX)?.unwrap_or(0);
    let paging = Paging::of(&parameters, &api.cursors)?;
    reading::wait_for_position(&api, &parameters).await?;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let kind = if descending { "before" } else { "after" };
    let from = paging.after.is_some().then(|| paging.after_number(kind)).transpose()?.map(|at| at as u64);
    let head = api.core.projected.position().get();
    let found = if descending {
        backwards(&api, &filter, after, from.unwrap_or(head.saturating_add(1)), limit).await?
    } else {
        let start = from.unwrap_or(after);
        forwards(&api, &filter, start, head, limit).await?
    };
    Ok(page(&api, &found, kind, paging.limit))
}

fn page(api: &Api, found: &Found, kind: &str, limit: u64) -> Reply<Vec<EventView>> {
    let cursor = found.resume.map(|at| api.cursors.encode(&format!("{kind}/{at}")));
    let shown = found.events.iter().map(|recorded| EventView::of(recorded)).collect();
    Reply::ok(shown).page(Page::new(limit, cursor))
}

/// Matching events after `start` up to and including `head`, oldest first.
async fn forwards(
    api: &Api,
    filter: &Filter,
    start: u64,
    head: u64,
    limit: usize,
) -> Result<Found, ApiError> {
    let log = &api.core.around.log;
    let mut events = Vec::new();
    let (mut looked_at, mut bytes) = (0, 0);
    let mut history = match &filter.stream {
        Some(stream) => log.read(stream, Since::BEGINNING),
        None => tail(log, start, head),
    };
    while start < head
        && let Some(recorded) = history.next().await
    {
        let recorded = recorded.map_err(RecoveryError::from)?;
        let position = recorded.position.get();
        if position > head {
            break;
        }
        if position > start && filter.admits(&recorded) {
            bytes += recorded.body.len();
            if events.len() == limit || (bytes > PAGE_BYTES_MAX && !events.is_empty()) {
                let resume = events.last().map(|last: &Arc<Recorded>| last.position.get());
                return Ok(Found { events, resume });
            }
            events.push(recorded);
        }
        looked_at += usize::from(position > start);
        if looked_at == LOOKED_AT_MAX && position < head {
            return Ok(Found { events, resume: Some(position) });
        }
        if position == head {
            break;
        }
    }
    Ok(Found { events, resume: None })
}

/// The log from `start`; ends at once when there is nothing up to `head`, instead of waiting for more.
fn tail(log: &Arc<dyn EventLog>, start: u64, head: u64) -> EventStream {
    if start >= head { futures_util::stream::empty().boxed() } else { log.tail(Position::new(start)) }
}

/// Matching events before `end` and after `floor`, newest first. Reads growing windows backwards, since
/// positions may skip.
async fn backwards(
    api: &Api,
    filter: &Filter,
    floor: u64,
    end: u64,
    limit: usize,
) -> Result<Found, ApiError> {
    let mut events: Vec<Arc<Recorded>> = Vec::new();
    let (mut end, mut window, mut looked_at, mut bytes) = (end, limit as u64 * 2, 0, 0);
    while end > floor.saturating_add(1) {
        let start = end.saturating_sub(window).max(floor.saturating_add(1)) - 1;
        let found = forwards(api, filter, start, end - 1, usize::MAX).await?;
        if found.resume.is_some() && window > 1 {
            // Too much for one look: a smaller one is enough, and one event always fits.
            window /= 2;
            continue;
        }
        for recorded in found.events.into_iter().rev() {
            bytes += recorded.body.len();
            if events.len() == limit || (bytes > PAGE_BYTES_MAX && !events.is_empty()) {
                let resume = events.last().map(|last| last.position.get());
                return Ok(Found { events, resume });
            }
            events.push(recorded);
        }
        looked_at += window;
        end = start + 1;
        if looked_at >= LOOKED_AT_MAX as u64 && end > floor.saturating_add(1) {
            return Ok(Found { events, resume: Some(end) });
        }
        window = (window * 2).min(LOOKED_AT_MAX as u64);
    }
    Ok(Found { events, resume: None })
}

/// Pages through the history of one operation.
#[utoipa::path(get, path = "/api/v1/operations/{id}/events", tag = "operations",
    params(("id" = String, Path), ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<EventView>>), (status = 404)))]
pub async fn of_operation(
    api: web::Data<Api>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer<Vec<EventView>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "minPosition"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let id: OperationId = id.parse()?;
    reading::wait_for_position(&api, &parameters).await?;
    let revision = api.core.projected.views.read().operations.get(&id).map(|row| row.revision);
    let revision = revision.ok_or_else(|| unknown(&id))?;
    let after = paging.after_number("version")? as u64;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let mut history =
        api.core.around.log.read(&stream_of::<Operation>(&id), Since::Version(Version::new(after)));
    let mut events: Vec<Arc<Recorded>> = Vec::new();
    let mut bytes = 0;
    while events.len() < limit
        && bytes < PAGE_BYTES_MAX
        && let Some(recorded) = history.next().await
    {
        let recorded = recorded.map_err(RecoveryError::from)?;
        bytes += recorded.body.len();
        // The views have not seen it: a reader must not either.
        if recorded.version.get() > revision {
            break;
        }
        events.push(recorded);
    }
    let last = events.last().map(|last| last.version.get()).filter(|last| *last < revision);
    let found = Found { events, resume: last };
    Ok(page(&api, &found, "version", paging.limit).etag(revision))
}
