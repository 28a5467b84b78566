//! What reads have in common: pages, waiting for a position, finding what a key wrote.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actors::Core;
use actors::codec::{KeyUse, Metadata};
use domain::AgentId;
use events::{Position, Since, StreamId, Version};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::envelope::check_if_match;
use super::error::{ApiError, Code, FieldError};
use super::operation_request::invalid_fields;
use super::page::CursorKey;
use super::query::Parameters;

/// Items on a page when the request names no number.
const LIMIT_DEFAULT: u64 = 50;
/// Most items on a page.
const LIMIT_MAX: u64 = 500;
/// Longest wait for a position.
const POSITION_WAIT: Duration = Duration::from_secs(2);

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
}

impl Paging {
    /// Reads `limit`, `cursor` and `count`.
    ///
    /// # Errors
    /// 400 for a bad value.
    pub fn of(parameters: &Parameters, cursors: &CursorKey) -> Result<Self, ApiError> {
        Ok(Self {
            limit: parameters.get_u64("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
            after: parameters.get("cursor").map(|cursor| cursors.decode(cursor)).transpose()?,
            count: parameters.get_bool("count")?.unwrap_or(false),
        })
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

/// Waits until the views show `minPosition`, and says where they stand: what is read from now on shows at
/// least what happened up to there.
///
/// # Errors
/// 503 when they do not within two seconds.
pub async fn wait_for_position(api: &Api, parameters: &Parameters) -> Result<Position, ApiError> {
    let position = parameters.get_u64("minPosition", 0..=u64::MAX)?.unwrap_or(0);
    if api.core.projected.reached(Position::new(position), POSITION_WAIT).await {
        return Ok(api.core.projected.position());
    }
    let message = format!("The server has not reached position {position} yet; try again in a moment.");
    Err(ApiError::new(Code::Overloaded, message))
}

/// The version that a change must find, if `If-Match` names one.
///
/// # Errors
/// 412 when the present revision is another.
pub fn if_match(request: &HttpRequest, present: u64) -> Result<Option<Version>, ApiError> {
    check_if_match(request, present)?;
    // The aggregate checks again: between this look and its turn the revision may change.
    let any = request.headers().get(header::IF_MATCH).is_none_or(|value| value == "*");
    Ok((!any).then(|| Version::new(present)))
}

/// The use of a key that began a stream, and the stream's version after the last event written with it.
///
/// # Errors
/// 503 when the stream cannot be read.
pub async fn written_with(
    core: &Core,
    stream: &StreamId,
    key: [u8; 16],
) -> Result<Option<(KeyUse, u64)>, ApiError> {
    let mut history = core.around.log.read(stream, Since::BEGINNING);
    let mut found = None;
    while let Some(recorded) = history.next().await {
        let recorded = recorded.map_err(actors::recovery::RecoveryError::from)?;
        match Metadata::decode(&recorded.metadata).key.filter(|used| used.key == key) {
            Some(used) => found = Some((used, recorded.version.get())),
            None => break,
        }
    }
    Ok(found)
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
