//! Makes an operation's actor panic, for the test that nothing else suffers from it. Only in builds with the
//! feature `testing`, which no shipped build has: there this path is unknown, like any other.

use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, web};
use domain::OperationId;

use super::error::ApiError;
use super::front::Reach;
use super::routing::resource;

/// The one route, apart from the route table since it is no part of the interface.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/testing/operations/{id}/panic").post(panic_inside));
}

/// The actor panics at its next message; whoever asked looks at `photon_actor_deaths_total`.
async fn panic_inside(api: Reach, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let id: OperationId = id.parse()?;
    api.core.gateway.sabotage(&id);
    Ok(HttpResponse::Accepted().finish())
}
