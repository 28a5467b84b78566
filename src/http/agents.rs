//! The routes of agents: registry, heartbeat, claim, availability.

use std::time::Duration;

use actix_web::{HttpRequest, web};
use actors::aggregate_actor::DispatchError;
use actors::gateway::Order;
use actors::matching::Appetite;
use domain::agent::{Agent, Command, Rejection};
use domain::operation::definition::Location;
use domain::shortened_id::ShortAgentId;
use domain::views::Views;
use domain::views::agent_directory::Row;
use domain::{ActionName, AgentId};

use super::Api;
use super::agent_request::{ClaimWork, RegisterAgent, UpdateAgent};
use super::agent_view::{AgentView, AvailabilityView, ClaimView, Presence, RegisteredView};
use super::body::{Body, OptionalBody};
use super::envelope::{Precondition, Reply, Tag};
use super::error::{ApiError, FieldError};
use super::front::Reach;
use super::intent::{Intent, metadata};
use super::operation_request::invalid_fields;
use super::operations::Answer;
use super::page::Page;
use super::past::{self, Look};
use super::query::Parameters;
use super::reading;

/// Longest wait of a claim.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(55);
/// Wait of a claim that names none.
const CLAIM_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Most leases of one claim.
pub const CLAIM_MAX: u32 = 100;

/// Lists agents by id.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents",
    params(("id" = Option<String>, Query,
            description = "the beginning or the end of an id, at least 4 characters; a page has 2 rows at \
                most; an agent with exactly this id is the only one"),
        ("status" = Option<String>, Query), ("capability" = Option<String>, Query),
        ("location" = Option<String>, Query), ("model" = Option<String>, Query),
        ("label.KEY" = Option<String>, Query), ("limit" = Option<u64>, Query),
        ("cursor" = Option<String>, Query), ("count" = Option<bool>, Query),
        ("minPosition" = Option<u64>, Query), ("at" = Option<String>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<AgentView>>),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<AgentView>> {
    const NAMES: &[&str] =
        &["id", "status", "capability", "location", "model", "limit", "cursor", "count", "minPosition", "at"];
    let parameters = Parameters::of(&request, NAMES, &["label."])?;
    let wanted = Wanted::of(&parameters)?;
    let paging = reading::Paging::of(&parameters, &api.cursors)?.of_shortened_id(wanted.id.is_some());
    let views = past::look(&api, &parameters).await?;
    let admits = |id: &AgentId, row: &Row| wanted.admits(&views, id, row);
    let after = match paging.after.as_deref().map(|after| after.strip_prefix("agent/")) {
        None => "",
        Some(Some(after)) => after,
        Some(None) => {
            return Err(ApiError::invalid_parameter("cursor", "the cursor belongs to another list"));
        }
    };
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let rows = views.agents.iter().filter(|(id, row)| id.as_str() > after && admits(id, row));
    let mut found: Vec<(&AgentId, &Row)> = rows.take(limit.saturating_add(1)).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor =
        found.last().filter(|_| more).map(|(id, _)| paging.cursor(&api.cursors, &format!("agent/{id}")));
    let mut page = Page::new(paging.limit, cursor);
    if paging.count {
        page = page.total(views.agents.iter().filter(|(id, row)| admits(id, row)).count() as u64);
    }
    let found = found.into_iter().map(|(id, row)| seen(&api, &views, id, row)).collect();
    Ok(views.mark(Reply::ok(found).page(page)))
}

/// Which agents are asked for.
struct Wanted<'p> {
    id: Option<ShortAgentId>,
    status: Option<&'static str>,
    location: Option<&'static str>,
    capability: Option<&'p str>,
    model: Option<&'p str>,
    labels: Vec<(&'p str, &'p str)>,
}

impl<'p> Wanted<'p> {
    fn of(parameters: &'p Parameters) -> Result<Self, ApiError> {
        let places = Location::ALL.map(Location::name);
        let id = parameters.get("id").map(ShortAgentId::parse).transpose();
        Ok(Self {
            id: id.map_err(|fault| reading::bad_shortened_id(&fault))?,
            status: parameters.get_choice("status", &["active", "busy", "inactive", "error"])?,
            location: parameters.get_choice("location", &places)?,
            capability: parameters.get("capability"),
            model: parameters.get("model"),
            labels: parameters.family("label.").collect(),
        })
    }

    fn admits(&self, views: &Views, id: &AgentId, row: &Row) -> bool {
        let profile = &row.agent.profile;
        let of_id = |part: &ShortAgentId| match views.agents.get(part.whole()) {
            Some(_) => part.whole() == id,
            None => part.fits(id),
        };
        self.id.as_ref().is_none_or(of_id)
            && self.status.is_none_or(|status| views.shown_status(id, &row.agent) == status)
            && self.capability.is_none_or(|needed| profile.capabilities.iter().any(|own| own == needed))
            && self.location.is_none_or(|location| profile.location.name() == location)
            && self.model.is_none_or(|model| profile.model == model)
            && self
                .labels
                .iter()
                .all(|(key, value)| profile.config.labels.get(*key).is_some_and(|own| own == value))
    }
}

/// Presence is of this moment: the past knows only what was recorded.
fn seen(api: &Api, views: &Look<'_>, id: &AgentId, row: &Row) -> AgentView {
    let seen = if views.is_past() { None } else { api.core.presence.seen(id) };
    AgentView::of(views, id, row, seen)
}

fn tag(row: &Row) -> Tag {
    Tag::shown_since(row.revision, row.position)
}

/// An agent in a state that is known for certain, with everything else as it is shown now.
fn with_state(views: &Views, id: &AgentId, agent: &Agent, revision: u64) -> Row {
    let shown = views.agents.ever(id).cloned();
    let row = shown.unwrap_or_else(|| Row::of(agent.clone(), agent.registered_at));
    Row { agent: agent.clone(), revision, ..row }
}

fn unknown(id: &AgentId) -> ApiError {
    ApiError::not_found(format!("There is no agent {id}; register it with POST /api/v1/agents."))
}

/// Registers an agent; the same id again starts its next incarnation.
#[utoipa::path(post, path = "/api/v1/agents", tag = "agents", request_body = RegisterAgent,
    responses((status = 201, body = super::envelope::ApiResponse<RegisteredView>),
        (status = 200, description = "registered again"), (status = 409)))]
pub async fn register(api: Reach, request: HttpRequest, body: Body<RegisterAgent>) -> Answer<RegisteredView> {
    Parameters::of(&request, &[], &[])?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    let (id, profile, incarnation) = body.value.profile()?;
    let command = Command::Register { profile: Box::new(profile), incarnation };
    intent.carry_out(|intent| async move { admit(&api, &id, command, &intent).await }).await
}

/// Registers an agent once per key.
async fn admit(api: &Api, id: &AgentId, command: Command, intent: &Intent) -> Answer<RegisteredView> {
    if let Some(used) = intent.used(api)? {
        let agent = recorded(api, id, used.version).await?;
        let reply = registered(api, id, &agent, used.version).replayed();
        return Ok(reply);
    }
    let (known, agents) = {
        let views = api.core.projected.views.read();
        (views.agents.get(id).is_some(), views.agents.iter().count())
    };
    if !known && agents >= api.max_agents {
        let message =
            format!("There are {agents} agents already, which is the maximum; unregister some first.");
        return Err(ApiError::conflict(message));
    }
    let order = Order::<Agent>::of(command, intent.metadata.clone()).with_state();
    let receipt = api.core.gateway.execute(id, order).await?;
    let agent = receipt.state.ok_or_else(|| unknown(id))?;
    let now = api.core.around.clock.now();
    api.core.presence.heard(id, None, now, u64::MAX);
    Ok(registered(api, id, &agent, receipt.version.get()).position(receipt.position))
}

/// 201 for the first incarnation, 200 for a later one.
fn registered(api: &Api, id: &AgentId, agent: &Agent, revision: u64) -> Reply<RegisteredView> {
    let seen = api.core.presence.seen(id);
    let views = api.core.projected.views.read();
    let row = with_state(&views, id, agent, revision);
    let view = RegisteredView {
        agent: AgentView::of(&views, id, &row, seen),
        heartbeat_interval_ms: agent.profile.config.heartbeat_interval_ms,
        lease_ms: api.core.periods.lease_ms,
    };
    let reply = if agent.incarnation == 1 {
        Reply::created(view, format!("/api/v1/agents/{id}"))
    } else {
        Reply::ok(view)
    };
    reply.etag(tag(&row))
}

/// An agent as it stood at a revision.
async fn recorded(api: &Api, id: &AgentId, revision: u64) -> Result<Agent, ApiError> {
    let stream = actors::gateway::stream_of::<Agent>(id);
    let log = &*api.core.around.log;
    let nothing = actors::recovery::Recovered::default();
    let recovered = actors::recovery::recover::<Agent>(log, &stream, nothing, &|recorded| {
        recorded.version.get() <= revision
    })
    .await?;
    recovered.state.ok_or_else(|| unknown(id))
}

/// Shows an agent.
#[utoipa::path(get, path = "/api/v1/agents/{id}", tag = "agents",
    params(("id" = String, Path), ("minPosition" = Option<u64>, Query), ("at" = Option<String>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<AgentView>), (status = 404),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn get(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<AgentView> {
    let parameters = Parameters::of(&request, &["minPosition", "at"], &[])?;
    let id: AgentId = id.parse()?;
    let views = past::look(&api, &parameters).await?;
    let row = views.agents.get(&id).ok_or_else(|| unknown(&id))?;
    Ok(views.mark(Reply::ok(seen(&api, &views, &id, row)).etag(tag(row))))
}

/// Changes what an agent says of itself.
#[utoipa::path(put, path = "/api/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    request_body = UpdateAgent,
    responses((status = 200, body = super::envelope::ApiResponse<AgentView>), (status = 412)))]
pub async fn update(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<UpdateAgent>,
) -> Answer<AgentView> {
    Parameters::of(&request, &[], &[])?;
    let id: AgentId = id.parse()?;
    let UpdateAgent { status, .. } = body.value;
    let patch = body.value.patch()?;
    execute(&api, &request, &id, Command::Update { patch: Box::new(patch), status }).await
}

/// Unregisters an agent; what it was working on is given to others.
#[utoipa::path(delete, path = "/api/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<AgentView>), (status = 404)))]
pub async fn unregister(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<AgentView> {
    Parameters::of(&request, &[], &[])?;
    let id: AgentId = id.parse()?;
    let reply = execute(&api, &request, &id, Command::Unregister).await?;
    // As long as the views show it, a heartbeat would be remembered again.
    let projected = &api.core.projected;
    projected.shows(projected.answered()).await;
    api.core.presence.forget_agent(&id);
    Ok(reply)
}

async fn execute(api: &Api, request: &HttpRequest, id: &AgentId, command: Command) -> Answer<AgentView> {
    let precondition = Precondition::of(request)?;
    let if_version = precondition.versions();
    let order = Order { if_version, ..Order::<Agent>::of(command, metadata()).with_state() };
    let receipt = api.core.gateway.execute(id, order).await.map_err(|fault| match fault {
        DispatchError::Rejected(Rejection::Unknown) => unknown(id),
        fault => precondition.explained(fault.into()),
    })?;
    let agent = receipt.state.ok_or_else(|| unknown(id))?;
    let views = api.core.projected.views.read();
    let row = with_state(&views, id, &agent, receipt.version.get());
    let view = AgentView::of(&views, id, &row, api.core.presence.seen(id));
    Ok(Reply::ok(view).etag(tag(&row)).position(receipt.position))
}

/// Asks for work and waits for it.
#[utoipa::path(post, path = "/api/v1/agents/{id}/claim", tag = "agents", params(("id" = String, Path)),
    request_body = ClaimWork,
    responses((status = 200, body = super::envelope::ApiResponse<ClaimView>),
        (status = 404), (status = 503)))]
pub async fn claim(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
    body: OptionalBody<ClaimWork>,
) -> Answer<ClaimView> {
    Parameters::of(&request, &[], &[])?;
    let id: AgentId = id.parse()?;
    let ClaimWork { wait, max, actions, incarnation } = body.value;
    let wait = match wait.as_deref().map(|text| (text, super::query::parse_duration(text))) {
        None => CLAIM_WAIT_DEFAULT,
        Some((_, Some(wait))) if wait <= CLAIM_WAIT_MAX => wait,
        Some((text, _)) => {
            let detail =
                format!("wait must be such as 30s or 500ms, at most 55s, not {}", super::query::shown(text));
            return Err(ApiError::invalid_field("/wait", detail));
        }
    };
    if !(1..=CLAIM_MAX).contains(&max) {
        return Err(ApiError::invalid_field("/max", format!("max must be from 1 to {CLAIM_MAX}")));
    }
    let actions = actions.as_deref().map(|actions| action_names(actions, "/actions")).transpose()?;
    let intent = Intent::of(&request, body.hash, &api).await?;
    if let (Some(key), Some(used)) = (intent.metadata.key, intent.used(&api)?) {
        super::intent::same_body(key.body, used.body)?;
    }
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let appetite = Appetite::of(max, actions);
    let granted = api.core.claim(&id, incarnation, appetite, wait_ms, intent.metadata.clone()).await?;
    let remaining_ms = |lease: &domain::LeaseId| api.core.remaining_of_grant(lease);
    let traceparent = intent.metadata.traceparent.as_deref();
    Ok(Reply::ok(ClaimView::of(&granted, remaining_ms, traceparent, &api.lease_names)))
}

/// Reads names of actions, which stand at `pointer`.
pub(super) fn action_names(actions: &[String], pointer: &str) -> Result<Vec<ActionName>, ApiError> {
    if actions.is_empty() {
        let detail = "actions must name at least one action: leave it out to take any";
        return Err(ApiError::invalid_field(pointer, detail));
    }
    let mut faults = Vec::new();
    let mut names = Vec::new();
    for (at, action) in actions.iter().enumerate() {
        match action.parse::<ActionName>() {
            Ok(name) => names.push(name),
            Err(fault) => faults.push(FieldError::at(format!("{pointer}/{at}"), fault.to_string())),
        }
    }
    if faults.is_empty() { Ok(names) } else { Err(invalid_fields(faults)) }
}

/// Says whether an agent can take work now: slots, leases, presence.
#[utoipa::path(get, path = "/api/v1/agents/{id}/availability", tag = "agents",
    params(("id" = String, Path), ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<AvailabilityView>), (status = 404)))]
pub async fn availability(
    api: Reach,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer<AvailabilityView> {
    let parameters = Parameters::of(&request, &["minPosition"], &[])?;
    let id: AgentId = id.parse()?;
    let position = reading::wait_for_position(&api, &parameters).await?;
    let views = api.core.projected.views.read();
    let row = views.agents.get(&id).ok_or_else(|| unknown(&id))?;
    let (seen, waiting) = (api.core.presence.seen(&id), api.core.presence.is_waiting(&id));
    let presence = Presence { seen, waiting, now: api.core.around.clock.now() };
    Ok(Reply::ok(AvailabilityView::of(&views, &id, row, &presence, &api.lease_names)).position(position))
}
