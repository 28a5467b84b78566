//! Looks at the past: what `at` means, the routes of a replay and of an operation's transitions. Shows what
//! the log says and nothing else.

use std::ops::Deref;
use std::sync::Arc;

use actix_web::{HttpRequest, web};
use actors::codec::Stored;
use actors::gateway::stream_of;
use actors::past::{Cut, Past, PastError, STATE_FORM, Seen};
use actors::recovery::RecoveryError;
use domain::operation::Operation;
use domain::operation::step::Status;
use domain::views::Views;
use domain::{Aggregate, OperationId, Timestamp};
use events::{Position, Since};
use futures_util::StreamExt;
use parking_lot::RwLockReadGuard;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::envelope::Reply;
use super::error::{ApiError, Code};
use super::events::OLDEST;
use super::front::Reach;
use super::operations::{Answer, unknown};
use super::page::Page;
use super::query::Parameters;
use super::reading::{self, Paging, wait_for_position};

/// Reads `at`: a position of the log, or a time.
///
/// # Errors
/// 400 when it is neither, or a position that the log has not reached.
pub fn cut(api: &Api, parameters: &Parameters, name: &str) -> Result<Option<Cut>, ApiError> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    if let Ok(position) = text.parse() {
        let (position, now) = (Position::new(position), api.core.projected.position());
        if position > now {
            let detail = format!("{name} is position {position}, but the log ends at {now}");
            return Err(ApiError::invalid_parameter(name, detail));
        }
        return Ok(Some(Cut::Position(position)));
    }
    let detail = format!("{name} must be a position of the log or a time such as 2026-11-23T01:40:00Z");
    let time = Timestamp::parse(text).ok_or_else(|| ApiError::invalid_parameter(name, detail))?;
    Ok(Some(Cut::Time(time)))
}

/// Refuses a look at a time of which streams were removed as a whole.
fn check_floor(api: &Api, cut: Cut) -> Result<(), ApiError> {
    let floor = api.core.around.log.marks().floor;
    let below = match cut {
        Cut::Position(position) => position < floor.position,
        Cut::Time(time) => time < Timestamp::from_micros(floor.time_us),
    };
    if !below {
        return Ok(());
    }
    let (position, time) = (floor.position, Timestamp::from_micros(floor.time_us));
    let detail = format!(
        "What ended before {time} is no longer kept as a whole: look at sequence {position} or later, or \
         into the archive."
    );
    Err(ApiError::new(Code::PositionCompacted, detail).header(OLDEST, position))
}

/// The views, as they are or as they were.
pub enum Look<'v> {
    /// As they are, at this position.
    Now(RwLockReadGuard<'v, Views>, Position),
    /// As they were at this moment.
    Then(Arc<Past>, Timestamp),
}

impl Deref for Look<'_> {
    type Target = Views;

    fn deref(&self) -> &Views {
        match self {
            Self::Now(views, _) => views,
            Self::Then(past, _) => &past.views,
        }
    }
}

impl Look<'_> {
    /// The moment that is looked at.
    #[must_use]
    pub fn time(&self, api: &Api) -> Timestamp {
        match self {
            Self::Now(..) => api.core.around.clock.now(),
            Self::Then(_, time) => *time,
        }
    }

    /// Whether it is the past: presence and other memory of this moment say nothing about it.
    #[must_use]
    pub fn is_past(&self) -> bool {
        matches!(self, Self::Then(..))
    }

    /// The position that it reflects.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Now(_, position) => *position,
            Self::Then(past, _) => past.position,
        }
    }

    /// Marks an answer with it.
    #[must_use]
    pub fn mark<T: Serialize>(&self, reply: Reply<T>) -> Reply<T> {
        reply.position(self.position())
    }
}

/// The views that `at` or `minPosition` ask for.
///
/// # Errors
/// 400 for a bad value; 503 when the views have not reached it, or another look at the past is under way.
pub async fn look<'v>(api: &'v Api, parameters: &Parameters) -> Result<Look<'v>, ApiError> {
    wait_for_position(api, parameters).await?;
    match cut(api, parameters, "at")? {
        None => {
            let views = api.core.projected.views.read();
            // While they are held it stands still.
            let position = api.core.projected.position();
            Ok(Look::Now(views, position))
        }
        Some(cut) => {
            check_floor(api, cut)?;
            let past = api.core.past(cut).await?;
            let time = match cut {
                Cut::Position(_) => past.time,
                Cut::Time(time) => time.min(api.core.around.clock.now()),
            };
            Ok(Look::Then(past, time))
        }
    }
}

/// The operation that `at` or `minPosition` ask for.
///
/// # Errors
/// 404 when there is, or was, none; 400 for a bad value; 503 when its stream cannot be read.
pub async fn operation(
    api: &Api,
    parameters: &Parameters,
    id: &OperationId,
) -> Result<Seen<Operation>, ApiError> {
    wait_for_position(api, parameters).await?;
    let found = match cut(api, parameters, "at")? {
        None => api.core.operation(id).await?,
        Some(cut) => {
            let then = api.core.aggregate_at::<Operation>(id, cut).await?;
            if then.is_none() {
                check_floor(api, cut)?;
            }
            then
        }
    };
    found.ok_or_else(|| unknown(id))
}

impl From<PastError> for ApiError {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Busy => {
                let message = "Another look at the past is under way; try again in a moment.";
                Self::new(Code::Overloaded, message).retry_after(std::time::Duration::from_secs(2))
            }
            PastError::Read(fault) => RecoveryError::from(fault).into(),
            PastError::Ended(fault) => Self::internal(fault),
        }
    }
}

/// What a replay of the log came to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayView {
    /// Position of the last event that counts.
    pub position: String,
    /// Its time.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// How many events count.
    pub events: u64,
    /// Operations by status.
    pub operations: std::collections::BTreeMap<String, usize>,
    /// Agents that were registered.
    pub agents: usize,
    /// BLAKE3 of the canonical JSON of all that stands: equal for equal histories, on any machine.
    pub hash: String,
    /// Form of the state that it is of; hashes of different forms cannot be compared.
    pub state_form: u32,
    /// How it compares with what the server shows now, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckView>,
}

/// How a replay compares with what the server shows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckView {
    /// Whether nothing differs.
    pub equal: bool,
    /// Aggregates that have not moved on since, which were compared.
    pub compared: u64,
    /// Aggregates that have moved on during the replay, and were not.
    pub moved_on: u64,
    /// Streams, and anything else, that differ, at most 100.
    pub differing: Vec<String>,
}

/// Folds the log from its beginning; with `check=true` also compares with what the server shows now.
#[utoipa::path(get, path = "/api/v1/replay", tag = "events",
    params(("to" = Option<String>, Query, description = "a position or a time; the end when absent"),
        ("check" = Option<bool>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<ReplayView>), (status = 503),
        (status = 410, description = "what is asked for is no longer kept")))]
pub async fn replay(api: Reach, request: HttpRequest) -> Answer<ReplayView> {
    let parameters = Parameters::of(&request, &["to", "check"], &[])?;
    let to = cut(&api, &parameters, "to")?;
    let check = parameters.get_bool("check")?.unwrap_or(false);
    if check && to.is_some() {
        let detail = "the present is compared with the whole log: leave `to` out";
        return Err(ApiError::invalid_parameter("check", detail));
    }
    let cut = to.unwrap_or_else(|| Cut::Position(api.core.projected.position()));
    check_floor(&api, cut)?;
    let past = if check { api.core.past_anew(cut).await? } else { api.core.past(cut).await? };
    let counted = Arc::clone(&past);
    let core = Arc::clone(&api.core);
    let sum = move || (counted.hash(), check.then(|| core.compare(&counted)));
    let (hash, check) = reading::aside(&api.long_reads, sum).await?;
    let board = &past.views.operations;
    let by_status = Status::ALL.map(|status| {
        let all = domain::operation::definition::Priority::ALL.into_iter();
        (status.name().to_owned(), all.map(|priority| board.count(status, priority)).sum())
    });
    let view = ReplayView {
        position: past.position.to_string(),
        time: past.time,
        events: past.events,
        operations: by_status.into(),
        agents: past.views.agents.iter().count(),
        hash,
        state_form: STATE_FORM,
        check: check.map(|found| CheckView {
            equal: found.differing.is_empty(),
            compared: found.compared,
            moved_on: found.moved_on,
            differing: found.differing,
        }),
    };
    Ok(Reply::ok(view).position(past.position))
}

/// One change of state, for players: of the operation, or of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransitionView {
    /// Position of the event that made it.
    pub sequence: String,
    /// Revision of the operation after it.
    pub revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The step; absent when it is about the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Status before.
    pub from: String,
    /// Status after.
    pub to: String,
    /// Who has the step, if somebody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Whole percent of the operation.
    pub progress: u8,
}

/// Lists every change of status of an operation and its steps, oldest first.
#[utoipa::path(get, path = "/api/v1/operations/{id}/transitions", tag = "operations",
    params(("id" = String, Path), ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<TransitionView>>), (status = 404)))]
pub async fn transitions(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer<Vec<TransitionView>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "minPosition"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let id: OperationId = id.parse()?;
    let seen = wait_for_position(&api, &parameters).await?;
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let skipped = paging.after_number("transitions")?;
    let mut player = Player { skip: skipped, ..Player::default() };
    let mut history = api.core.around.log.read(&stream_of::<Operation>(&id), Since::BEGINNING);
    while player.found.len() <= limit
        && let Some(recorded) = history.next().await
    {
        let recorded = recorded.map_err(RecoveryError::from)?;
        // The log may be further than the views.
        api.core.projected.raise_answered(recorded.position);
        player.play(&recorded)?;
    }
    if player.state.is_none() {
        return Err(unknown(&id));
    }
    let more = player.found.len() > limit;
    player.found.truncate(limit);
    let cursor = more.then(|| paging.cursor(&api.cursors, &format!("transitions/{}", skipped + limit)));
    Ok(Reply::ok(player.found).page(Page::new(paging.limit, cursor)).position(seen))
}

/// Folds an operation and notes what moves.
#[derive(Default)]
struct Player {
    found: Vec<TransitionView>,
    skip: usize,
    state: Option<Operation>,
    /// Status of the operation as it was shown last, and of each step.
    status: &'static str,
    steps: Vec<&'static str>,
}

impl Player {
    fn play(&mut self, recorded: &events::Recorded) -> Result<(), ApiError> {
        let event = Operation::decode(&recorded.name, recorded.schema, &recorded.body);
        let event = event.map_err(RecoveryError::from)?;
        let time = Timestamp::from_micros(recorded.time_us);
        self.state = Operation::evolve(self.state.take(), &event, time);
        let Some(operation) = &self.state else { return Ok(()) };
        let run = &operation.run;
        let row = |step, from: &str, to: &str, agent| TransitionView {
            sequence: recorded.position.to_string(),
            revision: recorded.version.get(),
            time,
            step,
            from: from.into(),
            to: to.into(),
            agent,
            progress: run.progress(),
        };
        self.steps.resize(run.steps.len(), "pending");
        let mut rows = Vec::new();
        let was = std::mem::replace(&mut self.status, operation.status().name());
        if !was.is_empty() && was != self.status {
            rows.push(row(None, was, self.status, None));
        }
        for position in run.moved() {
            let (step, now) = (run.skeleton.steps[*position].step, &run.steps[*position].status);
            let was = std::mem::replace(&mut self.steps[*position], now.name());
            if was != now.name() {
                rows.push(row(
                    Some(step),
                    was,
                    now.name(),
                    now.holder().map(|holder| holder.agent.to_string()),
                ));
            }
        }
        for row in rows {
            if self.skip > 0 {
                self.skip -= 1;
            } else {
                self.found.push(row);
            }
        }
        Ok(())
    }
}
