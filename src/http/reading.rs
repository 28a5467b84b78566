//! What reads have in common: pages, waiting for a position, finding what a key wrote.

use std::sync::Arc;

use actors::Core;
use actors::codec::{KeyUse, Metadata};
use actors::gateway::stream_of;
use domain::operation::Operation;
use domain::{AgentId, OperationId, Timestamp};
use events::{Position, Since, StreamId};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, FieldError};
use super::front::lagging;
use super::operation_request::invalid_fields;
use super::page::CursorKey;
use super::query::Parameters;

/// Items on a page when the request names no number.
const LIMIT_DEFAULT: u64 = 50;
/// Most items on a page.
const LIMIT_MAX: u64 = 500;

/// Rows on a page when the request names the beginning or the end of an id: enough to see whether it is
/// the only one.
const OF_SHORTENED_ID_MAX: u64 = 2;

/// Long reads that are under way at once.
const LONG_READS_MAX: usize = 2;

/// A body that says nothing: absent or `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Which page is asked for.
pub struct Paging {
    /// Most items.
    pub limit: u64,
    /// What the cursor says.
    pub after: Option<String>,
    /// Whether the total is asked for.
    pub count: bool,
    /// Which list it is of; see [`Parameters::list`].
    list: String,
}

impl Paging {
    /// Reads `limit`, `cursor` and `count`.
    ///
    /// # Errors
    /// 400 for a bad value.
    pub fn of(parameters: &Parameters, cursors: &CursorKey) -> Result<Self, ApiError> {
        let list = parameters.list();
        Ok(Self {
            limit: parameters.get_u64("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
            after: parameters.get("cursor").map(|cursor| after(cursors, cursor, &list)).transpose()?,
            count: parameters.get_bool("count")?.unwrap_or(false),
            list,
        })
    }

    /// The cursor of a place in this list, which is of no use in another one.
    #[must_use]
    pub fn cursor(&self, cursors: &CursorKey, place: &str) -> String {
        cursors.encode(&format!("{} {place}", self.list))
    }

    /// With the fewer rows that a page has when the request names the beginning or the end of an id.
    #[must_use]
    pub fn of_shortened_id(self, is: bool) -> Self {
        let limit = if is { self.limit.min(OF_SHORTENED_ID_MAX) } else { self.limit };
        Self { limit, ..self }
    }

    /// The number that a cursor of this kind holds; 0 without a cursor.
    ///
    /// # Errors
    /// 400 when it is a cursor of another list.
    pub fn after_number(&self, kind: &str) -> Result<usize, ApiError> {
        let Some(cursor) = &self.after else { return Ok(0) };
        let number = cursor.split_once('/').filter(|(of, _)| *of == kind);
        let number = number.and_then(|(_, number)| number.parse().ok());
        number.ok_or_else(|| ApiError::invalid_parameter("cursor", "the cursor belongs to another list"))
    }
}

/// The place that a cursor of this list names.
fn after(cursors: &CursorKey, cursor: &str, list: &str) -> Result<String, ApiError> {
    let text = cursors.decode(cursor)?;
    let place = text.split_once(' ').filter(|(of, _)| *of == list).map(|(_, place)| place.to_owned());
    place.ok_or_else(|| {
        let detail = "The cursor belongs to another list, filter or order; begin again without a cursor.";
        ApiError::invalid_parameter("cursor", detail)
    })
}

/// Refuses what is no beginning and no end of an id.
pub fn bad_shortened_id(fault: &domain::IdError) -> ApiError {
    ApiError::invalid_parameter("id", format!("The parameter 'id' must be {} ({}).", fault.what, fault.form))
}

/// Waits until the views show `minPosition`, and says where they stand: what is read from now on shows at
/// least what happened up to there.
///
/// # Errors
/// 503 when they do not in time.
pub async fn wait_for_position(api: &Api, parameters: &Parameters) -> Result<Position, ApiError> {
    let position = parameters.get_u64("minPosition", 0..=u64::MAX)?.unwrap_or(0);
    let position = Position::new(position);
    if api.core.projected.shows(position).await {
        return Ok(api.core.projected.position());
    }
    Err(lagging(position))
}

/// Work that takes long, aside from the threads of the requests.
pub struct LongReads(Arc<Semaphore>);

impl Default for LongReads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LONG_READS_MAX)))
    }
}

/// Does such work when it has its turn, which is waited for without a thread.
///
/// # Errors
/// 500 when it panics.
pub async fn aside<T: Send + 'static>(
    reads: &LongReads,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    // It is never closed.
    let turn = Arc::clone(&reads.0).acquire_owned().await;
    let working = tokio::task::spawn_blocking(move || {
        // Kept until the work is done, even if nobody waits for it any more.
        let _turn = turn;
        work()
    });
    working.await.map_err(ApiError::internal)
}

/// What was written to a stream with the key that began it.
pub struct Written {
    /// The use of the key.
    pub first: KeyUse,
    /// When.
    pub at: Timestamp,
    /// The stream's version after the last event written with it.
    pub revision: u64,
}

/// What a key began a stream with, if it did.
///
/// # Errors
/// 503 when the stream cannot be read.
pub async fn written_with(
    core: &Core,
    stream: &StreamId,
    key: [u8; 16],
) -> Result<Option<Written>, ApiError> {
    let mut history = core.around.log.read(stream, Since::BEGINNING);
    let mut found: Option<Written> = None;
    while let Some(recorded) = history.next().await {
        let recorded = recorded.map_err(actors::recovery::RecoveryError::from)?;
        match Metadata::decode(&recorded.metadata).key.filter(|used| used.key == key) {
            Some(first) => {
                let (at, revision) = (Timestamp::from_micros(recorded.time_us), recorded.version.get());
                found = Some(Written { first, at: found.map_or(at, |found| found.at), revision });
            }
            None => break,
        }
        // The log may be further than the views, and what is found is about to be shown.
        core.projected.raise_answered(recorded.position);
    }
    Ok(found)
}

/// When a fact of an operation happened: what was answered then is shown as of that moment.
///
/// # Errors
/// 503 when its stream cannot be read.
pub async fn time_of(core: &Core, id: &OperationId, revision: u64) -> Result<Timestamp, ApiError> {
    Ok(core.time_of(&stream_of::<Operation>(id), revision).await?.unwrap_or_default())
}

/// Refuses agents that are not registered.
///
/// # Errors
/// 422 that names each.
pub fn known_agents(api: &Api, agents: &[AgentId]) -> Result<(), ApiError> {
    let views = api.core.projected.views.read();
    let unknown = agents.iter().enumerate().filter(|(_, agent)| views.agents.get(agent).is_none());
    let faults: Vec<FieldError> = unknown
        .map(|(at, agent)| {
            FieldError::at(format!("/agents/{at}"), format!("agent {agent} is not registered"))
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(invalid_fields(faults)) }
}
