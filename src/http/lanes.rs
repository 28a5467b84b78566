//! The routes of lanes: which accounts take no calls for now, and until when.

use actix_web::{HttpRequest, web};
use actors::gateway::Order;
use domain::lane::{Command, Lane};
use domain::{LaneId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::Reply;
use super::front::Reach;
use super::intent::{ANONYMOUS, metadata};
use super::lease_names::LeaseNames;
use super::operations::Answer;
use super::page::Page;
use super::query::Parameters;
use super::reading::{Paging, wait_for_position};

/// A lane that is parked, or was until now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneView {
    /// Its name: `worker.AGENT`, or `account.NAME` for agents that share the label `account`.
    pub lane: String,
    /// When its provider takes calls again.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Since when it is parked.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Milliseconds until it opens.
    pub remaining_ms: u64,
    /// Under which lease the provider said so.
    pub lease_id: String,
}

impl LaneView {
    fn of(id: &LaneId, lane: &Lane, names: &LeaseNames, now: Timestamp) -> Self {
        Self {
            lane: id.to_string(),
            until: lane.until,
            since: lane.since,
            remaining_ms: lane.until.ms_since(now),
            lease_id: names.name(&lane.lease),
        }
    }
}

/// Lists the lanes that are parked.
#[utoipa::path(get, path = "/api/v1/lanes", tag = "agents",
    params(("limit" = Option<u64>, Query), ("cursor" = Option<String>, Query),
        ("count" = Option<bool>, Query), ("minPosition" = Option<u64>, Query)),
    responses((status = 200, body = super::envelope::ApiResponse<Vec<LaneView>>)))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<LaneView>> {
    let parameters = Parameters::of(&request, &["limit", "cursor", "count", "minPosition"], &[])?;
    let paging = Paging::of(&parameters, &api.cursors)?;
    let seen = wait_for_position(&api, &parameters).await?;
    let now = api.core.around.clock.now();
    let views = api.core.projected.views.read();
    let after = paging.after.as_deref();
    let later = views.lanes.parked(now).filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let view = |(id, lane)| LaneView::of(id, lane, &api.lease_names, now);
    let mut found: Vec<LaneView> = later.take(limit.saturating_add(1)).map(view).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more).map(|last| paging.cursor(&api.cursors, &last.lane));
    let page = Page::new(paging.limit, cursor);
    let page = if paging.count { page.total(views.lanes.parked(now).count() as u64) } else { page };
    Ok(Reply::ok(found).page(page).position(seen))
}

/// Opens a lane, whatever its provider said.
#[utoipa::path(delete, path = "/api/v1/lanes/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<LaneView>), (status = 404)))]
pub async fn open(api: Reach, request: HttpRequest, id: web::Path<String>) -> Answer<LaneView> {
    Parameters::of(&request, &[], &[])?;
    let id: LaneId = id.parse()?;
    let order = Order::<Lane>::of(Command::Open { by: ANONYMOUS.into() }, metadata()).with_state();
    let receipt = api.core.gateway.execute::<Lane>(&id, order).await?;
    let lane = receipt.state.ok_or(domain::lane::Rejection::Unknown);
    let lane = lane.map_err(actors::aggregate_actor::DispatchError::<Lane>::Rejected)?;
    let reply = Reply::ok(LaneView::of(&id, &lane, &api.lease_names, api.core.around.clock.now()));
    Ok(reply.position(receipt.position))
}
