//! Makes an operation's actor panic, and the views lag, for the tests that nothing else suffers from it.
//! Only in builds with the feature `testing`, which no shipped build has: there this path is unknown, like
//! any other.

use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, web};
use domain::OperationId;

use super::error::ApiError;
use super::front::ReachAtOnce;
use super::routing::resource;

/// The routes, apart from the route table since they are no part of the interface.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/testing/operations/{id}/panic").post(panic_inside));
    config.service(resource("/testing/views").post(hold).delete(let_go));
}

/// From now on the views follow the log no further.
async fn hold(api: ReachAtOnce) -> HttpResponse {
    api.core.projected.hold(true);
    HttpResponse::Accepted().finish()
}

/// The views follow the log again.
async fn let_go(api: ReachAtOnce) -> HttpResponse {
    api.core.projected.hold(false);
    HttpResponse::Accepted().finish()
}

/// The actor panics at its next message; whoever asked looks at `photon_actor_deaths_total`.
async fn panic_inside(api: ReachAtOnce, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let id: OperationId = id.parse()?;
    api.core.gateway.sabotage(&id);
    Ok(HttpResponse::Accepted().finish())
}
