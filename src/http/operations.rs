//! The routes of operations and their steps.

use std::time::Duration;

use actix_web::{Either, HttpRequest, web};
use actors::aggregate_actor::DispatchError;
use actors::gateway::{Order, stream_of};
use actors::keys::is_remembered;
use actors::past::Seen;
use actors::projections::Watch;
use chrono::TimeDelta;
use domain::operation::definition::{Definition, Priority};
use domain::operation::pending::Cause;
use domain::operation::step::Status;
use domain::operation::{Command, Operation, Rejection};
use domain::shortened_id::ShortOperationId;
use domain::views::filter::Filter;
use domain::views::listing::{Begun, Listing, Order as Sorted, Search};
use domain::views::operation_board::{METADATA_TEXT_MAX, Place};
use domain::{OperationId, Timestamp};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Api;
use super::body::{Body, OptionalBody};
use super::envelope::{Precondition, Reply};
use super::error::ApiError;
use super::front::{Reach, ReachAtOnce};
use super::intent::{ANONYMOUS, Intent, first_half, metadata, same_body};
use super::interventions::Reason;
use super::operation_request::{CreateOperation, UpdateOperation, not_passed};
use super::operation_view::{self, Detail, OperationSummary, OperationView};
use super::page::Page;
use super::past;
use super::planning::{self, PlanView};
use super::query::{self, Parameters};
use super::reading::{self, Nothing};

/// Packed operations that a request reads on its own thread.
const READ_HERE_MAX: usize = 10_000;
/// Longest wait of a long poll.
const WAIT_MAX: Duration = Duration::from_secs(55);

/// A day of UTC.
const DAY_US: i64 = 24 * 3_600_000_000;

/// What a handler answers.
pub type Answer<T> = Result<Reply<T>, ApiError>;

/// Lists operations, newest first. With `q` or `metadata.KEY` one request reads at most 50000 operations that
/// have ended: then a page may be short although `hasMore` says that there is another one.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations",
    params(
        ("id" = Option<String>, Query,
            description = "the beginning or the end of an id, at least 4 digits; a page has 2 rows at most"),
        ("status" = Option<String>, Query, description = "one or several, such as failed,cancelled"),
        ("priority" = Option<String>, Query),
        ("agent" = Option<String>, Query), ("platform" = Option<String>, Query),
        ("q" = Option<String>, Query, description = "text within the name"),
        ("createdAfter" = Option<String>, Query), ("createdBefore" = Option<String>, Query),
        ("deadlineBefore" = Option<String>, Query),
        ("blockedOn" = Option<String>, Query, description = "a cause that a step of it waits for"),
        ("metadata.KEY" = Option<String>, Query, 
            description = "the text, number or truth of a metadata entry, at most 256 bytes"),
        ("sort" = Option<String>, Query, description = "-createdAt (default) or createdAt"),
        ("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("count" = Option<bool>, Query,
            description = "adds the total; not with q or metadata.KEY among more than 50000 that have ended"),
        ("minPosition" = Option<u64>, Query),
        ("at" = Option<String>, Query, description = "as it was: a position or a time")),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<OperationSummary>>),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<OperationSummary>> {
    const NAMES: &[&str] = &[
        "id",
        "status",
        "priority",
        "agent",
        "platform",
        "q",
        "createdAfter",
        "createdBefore",
        "deadlineBefore",
        "blockedOn",
        "sort",
        "limit",
        "cursor",
        "count",
        "minPosition",
        "at",
    ];
    let parameters = Parameters::of(&request, NAMES, &["metadata."])?;
    let filter = filter(&parameters)?;
    let by_id = filter.id.is_some();
    let newest_first = parameters.get_choice("sort", &["-createdAt", "createdAt"])? != Some("createdAt");
    let paging = reading::Paging::of(&parameters, &api.cursors)?.of_shortened_id(by_id);
    let search = Search {
        filter,
        order: if newest_first { Sorted::NewestFirst } else { Sorted::OldestFirst },
        after: paging.after.as_deref().map(place).transpose()?,
        limit: usize::try_from(paging.limit).unwrap_or(usize::MAX),
        count: paging.count,
    };
    let views = past::look(&api, &parameters).await?;
    let begun = views.operations.search(search, views.time(&api), OperationSummary::of);
    let position = views.position();
    // What is packed never changes: from here on nobody waits.
    drop(views);
    let listing = finish(&api, begun).await?;
    let cursor =
        listing.next.map(|(at, id)| paging.cursor(&api.cursors, &format!("{}/{id}", at.as_micros())));
    let mut page = Page::new(paging.limit, cursor);
    page.total = listing.total;
    Ok(Reply::ok(listing.shown).page(page).position(position))
}

/// Reads what is packed; a lot of it not on a thread of the requests.
async fn finish(api: &Api, begun: Begun<OperationSummary>) -> Result<Listing<OperationSummary>, ApiError> {
    if begun.packed() <= READ_HERE_MAX {
        return Ok(begun.finish());
    }
    reading::aside(&api.long_reads, move || begun.finish()).await
}

/// The place in the list that a cursor names.
fn place(cursor: &str) -> Result<Place, ApiError> {
    let read = |text: &str| {
        let (at, id) = text.split_once('/')?;
        Some((Timestamp::from_micros(at.parse().ok()?), id.parse().ok()?))
    };
    read(cursor).ok_or_else(|| ApiError::invalid_parameter("cursor", "the cursor belongs to another list"))
}

/// Reads which operations are asked for.
fn filter(parameters: &Parameters) -> Result<Filter, ApiError> {
    let statuses = Status::ALL.map(Status::name);
    let priorities = Priority::ALL.map(Priority::name);
    let causes = Cause::ALL.map(Cause::name);
    let wanted = parameters.get_choices("status", &statuses)?;
    let cause = parameters.get_choice("blockedOn", &causes)?;
    let priority = parameters.get_choice("priority", &priorities)?;
    let after = |name: &str| -> Result<Option<Timestamp>, ApiError> {
        Ok(parameters.get_time(name)?.map(|time| Timestamp::from_micros(time.timestamp_micros())))
    };
    // What happened in the millisecond that the time lies in happened before it.
    let before = |name: &str| -> Result<Option<Timestamp>, ApiError> {
        let time = parameters.get_time(name)?.map(|time| time + TimeDelta::nanoseconds(999_999));
        Ok(time.map(|time| Timestamp::from_micros(time.timestamp_micros())))
    };
    let entries: Vec<(&str, &str)> = parameters.family("metadata.").collect();
    for (key, value) in &entries {
        if key.len() > METADATA_TEXT_MAX || value.len() > METADATA_TEXT_MAX {
            let detail = format!(
                "Keys and values of metadata can be looked for when they have at most {METADATA_TEXT_MAX} \
                 bytes; this parameter has more."
            );
            return Err(ApiError::invalid_parameter(&shown_name(key), detail));
        }
    }
    let id = parameters.get("id").map(ShortOperationId::parse).transpose();
    Ok(Filter {
        id: id.map_err(|fault| reading::bad_shortened_id(&fault))?,
        statuses: Status::ALL.into_iter().filter(|known| wanted.contains(&known.name())).collect(),
        priority: Priority::ALL.into_iter().find(|known| Some(known.name()) == priority),
        agent: parameters.get("agent").map(str::to_owned),
        platform: parameters.get("platform").map(str::to_owned),
        text: parameters.get("q").map(str::to_lowercase),
        created_after: after("createdAfter")?,
        created_before: before("createdBefore")?,
        deadline_before: before("deadlineBefore")?,
        blocked_on: Cause::ALL.into_iter().find(|known| Some(known.name()) == cause),
        metadata: entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    })
}

/// A parameter of metadata as a message may show it.
fn shown_name(key: &str) -> String {
    format!("metadata.{}", query::shown(key))
}

/// Accepts a new operation; with `dryRun` only says how it would run.
#[utoipa::path(post, path = "/api/v1/operations", tag = "operations", request_body = CreateOperation,
    params(("dryRun" = Option<bool>, Query, description = "checks it as a creation would, and plans it")),
    responses((status = 201, body = super::envelope::ApiResponse<OperationView>),
        (status = 200, description = "the plan", body = super::envelope::ApiResponse<PlanView>),
        (status = 422)))]
pub async fn create(
    api: ReachAtOnce,
    request: HttpRequest,
    body: Body<CreateOperation>,
) -> Result<Either<Reply<OperationView>, Reply<PlanView>>, ApiError> {
    let parameters = Parameters::of(&request, &["dryRun"], &[])?;
    if parameters.get_bool("dryRun")?.unwrap_or(false) {
        return planning::plan(api.shown().await?, body.value).await.map(Either::Right);
    }
    // Whether an agent is registered is what the views show.
    let api = if body.value.names_an_agent() { api.shown().await? } else { api.unseen() };
    let intent = Intent::of(&request, body.hash, &api).await?;
    let accepted = intent.carry_out(|intent| async move { accept(&api, intent, body.value).await });
    accepted.await.map(Either::Left)
}

async fn accept(api: &Api, intent: Intent, new: CreateOperation) -> Answer<OperationView> {
    let now = api.core.around.clock.now();
    if let Some(reply) = first_answer(api, &intent, now).await? {
        return Ok(reply);
    }
    let id = operation_id(&intent, now);
    let definition = new.definition(&api.core.around.world.limits)?;
    not_passed(definition.deadline, now)?;
    create_new(api, id, definition, intent).await
}

async fn create_new(
    api: &Api,
    id: OperationId,
    definition: Definition,
    intent: Intent,
) -> Answer<OperationView> {
    let new = intent.metadata.key.is_none();
    let command = Command::Create(Box::new(definition));
    let order = Order { new, ..Order::of(command, intent.metadata.clone()).with_state() };
    let receipt = api.core.gateway.execute::<Operation>(&id, order).await?;
    let operation = receipt.state.ok_or_else(|| ApiError::internal("a receipt without its state"))?;
    let revision = receipt.version.get();
    let view = OperationView::of(&id, &operation, revision, api.core.around.clock.now());
    let reply = Reply::created(view, location(&id)).etag(revision);
    Ok(reply.position(receipt.position))
}

/// With a key the id derives from caller, route, key and day, so that two racing creations make one
/// operation, and the same key a day later another one.
fn operation_id(intent: &Intent, now: Timestamp) -> OperationId {
    let uuid = match intent.metadata.key {
        Some(key) => return keyed_id(key.key, day_of(now)),
        None => Uuid::now_v7(),
    };
    OperationId::from_bits(uuid.as_u128())
}

/// The id of what a key created on a day.
fn keyed_id(key: [u8; 16], day: i64) -> OperationId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key).update(&day.to_le_bytes());
    OperationId::from_bits(Uuid::new_v8(first_half(&hasher.finalize())).as_u128())
}

/// The days of UTC since 1970.
fn day_of(now: Timestamp) -> i64 {
    now.as_micros().div_euclid(DAY_US)
}

/// The answer that the same key got before. A key is remembered for a day, so what it created is of today or
/// of yesterday.
async fn first_answer(
    api: &Api,
    intent: &Intent,
    now: Timestamp,
) -> Result<Option<Reply<OperationView>>, ApiError> {
    let Some(key) = intent.metadata.key else { return Ok(None) };
    let today = day_of(now);
    for id in [today, today - 1].map(|day| keyed_id(key.key, day)) {
        let stream = stream_of::<Operation>(&id);
        let Some(written) = reading::written_with(&api.core, &stream, key.key).await? else { continue };
        if !is_remembered(written.at, now) {
            continue;
        }
        same_body(key.body, written.first.body)?;
        let revision = written.revision;
        let operation = api.core.reader.at(&id, revision).await?.ok_or_else(|| unknown(&id))?;
        // Nothing of a new operation waits for a moment.
        let view = OperationView::of(&id, &operation, revision, operation.created_at);
        return Ok(Some(Reply::created(view, location(&id)).etag(revision).replayed()));
    }
    Ok(None)
}

fn location(id: &OperationId) -> String {
    format!("/api/v1/operations/{id}")
}

pub(super) fn unknown(id: &OperationId) -> ApiError {
    ApiError::not_found(format!("There is no operation {id}; GET /api/v1/operations lists them."))
}

/// Why an operation did not take a command; one that is not there is named.
pub(super) fn refused(fault: DispatchError<Operation>, id: &OperationId) -> ApiError {
    match fault {
        DispatchError::Rejected(Rejection::Unknown) => unknown(id),
        fault => fault.into(),
    }
}

/// Shows an operation; with `wait` not before it has ended or reached a revision.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path), ("wait" = Option<String>, Query, description = "such as 30s, at most 55s"),
        ("minRevision" = Option<u64>, Query), ("minPosition" = Option<u64>, Query),
        ("view" = Option<String>, Query,
            description = "full (default), summary (neither steps nor results), steps (no results), results"),
        ("at" = Option<String>, Query, description = "as it was: a position or a time")),
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 404),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn get(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<OperationView> {
    let parameters = Parameters::of(&request, &["wait", "minRevision", "minPosition", "at", "view"], &[])?;
    let detail = parameters.get_choice("view", &Detail::NAMES)?.map_or(Detail::Full, Detail::of);
    let wait = parameters.get_duration("wait", WAIT_MAX)?;
    let min_revision = parameters.get_u64("minRevision", 1..=u64::MAX)?;
    let id: OperationId = id.parse()?;
    reading::wait_for_position(&api, &parameters).await?;
    if let Some(wait) = wait {
        if parameters.get("at").is_some() {
            let detail = "The parameters 'at' and 'wait' exclude each other: the past does not change.";
            return Err(ApiError::invalid_parameter("wait", detail));
        }
        let deadline = Instant::now() + wait;
        tokio::select! {
            () = wait_until(&api, &id, min_revision, deadline) => {}
            () = api.state.draining() => {}
        }
    }
    let Seen { state, revision, position, time } = past::operation(&api, &parameters, &id).await?;
    let view = OperationView::of(&id, &state, revision, time).with(detail);
    Ok(Reply::ok(view).etag(operation_view::tag(revision, &state.run, time)).position(position))
}

/// Waits until the operation has ended or reached a revision, or until the deadline.
async fn wait_until(api: &Api, id: &OperationId, min_revision: Option<u64>, deadline: Instant) {
    let watch: Watch = api.core.projected.watch(id);
    loop {
        let changed = watch.changed();
        let done = {
            let views = api.core.projected.views.read();
            // What does not exist is answered at once, with 404.
            views.operations.find(id).is_none_or(|row| {
                row.status.is_terminal() || min_revision.is_some_and(|least| row.revision >= least)
            })
        };
        if done || timeout_at(deadline, changed).await.is_err() {
            return;
        }
    }
}

/// Changes what may be changed.
#[utoipa::path(put, path = "/api/v1/operations/{id}", tag = "operations", params(("id" = String, Path)),
    request_body = UpdateOperation,
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 412)))]
pub async fn update(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<UpdateOperation>,
) -> Answer<OperationView> {
    Parameters::of(&request, &[], &[])?;
    let id: OperationId = id.parse()?;
    let patch = body.value.patch()?;
    not_passed(patch.deadline.flatten(), api.core.around.clock.now())?;
    reading::known_agents(&api, patch.agents.as_deref().unwrap_or_default())?;
    execute(&api, &request, &id, Command::Update(Box::new(patch))).await
}

/// Cancels an operation.
#[utoipa::path(delete, path = "/api/v1/operations/{id}", tag = "operations", params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 409)))]
pub async fn cancel(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<OperationView> {
    Parameters::of(&request, &[], &[])?;
    let id: OperationId = id.parse()?;
    execute(&api, &request, &id, Command::Cancel { by: ANONYMOUS.into() }).await
}

/// Carries out a PUT or DELETE, on the revision that `If-Match` names.
async fn execute(
    api: &Api,
    request: &HttpRequest,
    id: &OperationId,
    command: Command,
) -> Answer<OperationView> {
    let precondition = Precondition::of(request)?;
    let if_version = precondition.versions();
    let order = Order { if_version, ..Order::<Operation>::of(command, metadata()).with_state() };
    shown(api, id, order).await.map_err(|refusal| precondition.explained(refusal))
}

async fn shown(api: &Api, id: &OperationId, order: Order<Operation>) -> Answer<OperationView> {
    let done = api.core.gateway.execute::<Operation>(id, order).await;
    let receipt = done.map_err(|fault| refused(fault, id))?;
    let operation = receipt.state.ok_or_else(|| unknown(id))?;
    let revision = receipt.version.get();
    api.core.reader.remember(id, revision, &operation);
    let now = api.core.around.clock.now();
    let view = OperationView::of(id, &operation, revision, now);
    Ok(Reply::ok(view).etag(operation_view::tag(revision, &operation.run, now)).position(receipt.position))
}

/// Starts an operation that was created with `autoStart: false`.
#[utoipa::path(post, path = "/api/v1/operations/{id}/start", tag = "operations",
    params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 409)))]
pub async fn start(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<Nothing>,
) -> Answer<OperationView> {
    Parameters::of(&request, &[], &[])?;
    let id: OperationId = id.parse()?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    act(api, id, Command::Start, intent).await
}

/// Lets no step start until the operation is resumed; what runs goes on.
#[utoipa::path(post, path = "/api/v1/operations/{id}/pause", tag = "operations",
    params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 409)))]
pub async fn pause(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<Reason>,
) -> Answer<OperationView> {
    Parameters::of(&request, &[], &[])?;
    let id: OperationId = id.parse()?;
    let reason = body.value.checked()?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    let by = intent.metadata.actor.clone();
    act(api, id, Command::Pause { by, reason }, intent).await
}

/// Lets steps start again.
#[utoipa::path(post, path = "/api/v1/operations/{id}/resume", tag = "operations",
    params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<OperationView>), (status = 409)))]
pub async fn resume(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<Nothing>,
) -> Answer<OperationView> {
    Parameters::of(&request, &[], &[])?;
    let id: OperationId = id.parse()?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    let by = intent.metadata.actor.clone();
    act(api, id, Command::Resume { by }, intent).await
}

/// Carries out a POST about the whole operation, once per key.
async fn act(api: Reach, id: OperationId, command: Command, intent: Intent) -> Answer<OperationView> {
    let acting = |intent: Intent| async move {
        if let Some(used) = intent.used(&api)? {
            let operation = api.core.reader.at(&id, used.version).await?.ok_or_else(|| unknown(&id))?;
            let then = reading::time_of(&api.core, &id, used.version).await?;
            let view = OperationView::of(&id, &operation, used.version, then);
            return Ok(Reply::ok(view)
                .etag(operation_view::tag(used.version, &operation.run, then))
                .replayed());
        }
        shown(&api, &id, Order::<Operation>::of(command, intent.metadata.clone()).with_state()).await
    };
    intent.carry_out(acting).await
}
