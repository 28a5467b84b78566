//! The routes of snapshots: which there are, and one more. A cache: nothing that they say is load-bearing.

use std::sync::Arc;

use actix_web::HttpRequest;
use actors::keeper::{Keeper, TakeError, Taken};
use domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::OptionalBody;
use super::envelope::Reply;
use super::error::{ApiError, Code};
use super::front::Reach;
use super::operations::Answer;
use super::query::Parameters;
use super::reading::Nothing;

/// Most that are listed.
const LISTED_MAX: usize = 500;

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotView {
    /// `views` for everything that lists show, `stream` for one aggregate.
    pub kind: String,
    /// Which stream, such as `operation/op_…`; none for one of the views.
    pub stream: Option<String>,
    /// Revision of that stream; none for one of the views.
    pub revision: Option<u64>,
    /// Position of the event that it ends with.
    pub position: String,
    /// How many events were folded into it.
    pub events: u64,
    /// Form of the state; a server reads only its own.
    pub state_form: u32,
    /// BLAKE3 hash of the state.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    pub taken_at: Timestamp,
}

impl From<Taken> for SnapshotView {
    fn from(taken: Taken) -> Self {
        Self {
            kind: if taken.stream.is_some() { "stream" } else { "views" }.into(),
            stream: taken.stream,
            revision: taken.version,
            position: taken.position.to_string(),
            events: taken.events,
            state_form: taken.form,
            hash: taken.hash,
            bytes: taken.bytes,
            taken_at: taken.taken_at,
        }
    }
}

fn keeper(api: &Api) -> Result<&Arc<Keeper>, ApiError> {
    let off = || ApiError::conflict("This server keeps no snapshots: snapshots.enabled is off.");
    api.keeper.as_ref().ok_or_else(off)
}

fn refusal(fault: TakeError) -> ApiError {
    match fault {
        TakeError::Busy => {
            ApiError::new(Code::Overloaded, "A snapshot is being taken; try again when it is done.")
        }
        TakeError::NoRoom => ApiError::of(Code::StorageFull),
        TakeError::Io(fault) if ::events::is_full(&fault) => ApiError::of(Code::StorageFull),
        TakeError::Empty => ApiError::conflict("The log holds no event yet: there is nothing to take."),
        TakeError::Stopping => ApiError::of(Code::Draining),
        TakeError::Read(_) | TakeError::Io(_) | TakeError::Ended(_) => ApiError::internal(fault),
    }
}

/// Lists the snapshots that are whole: those of the views first, the newest of them first. At most 500.
#[utoipa::path(get, path = "/api/v1/snapshots", tag = "events",
    responses((status = 200, body = super::envelope::ApiResponse<Vec<SnapshotView>>)))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<SnapshotView>> {
    Parameters::of(&request, &[], &[])?;
    let Some(keeper) = &api.keeper else { return Ok(Reply::ok(Vec::new())) };
    let found = keeper.list().await.map_err(refusal)?;
    Ok(Reply::ok(found.into_iter().take(LISTED_MAX).map(SnapshotView::from).collect()))
}

/// Takes a snapshot of everything that lists show, now. Nothing waits for it but the answer.
#[utoipa::path(post, path = "/api/v1/snapshots", tag = "events",
    responses((status = 201, body = super::envelope::ApiResponse<SnapshotView>), (status = 409),
        (status = 503), (status = 507)))]
pub async fn take(api: Reach, request: HttpRequest, _body: OptionalBody<Nothing>) -> Answer<SnapshotView> {
    Parameters::of(&request, &[], &[])?;
    let core = &api.core;
    let taken = keeper(&api)?.take(&core.around.log, core.projected.blocks(), core.around.clock.now()).await;
    let view = SnapshotView::from(taken.map_err(refusal)?);
    Ok(Reply::created(view, "/api/v1/snapshots"))
}
