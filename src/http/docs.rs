//! The OpenAPI document, generated from the routes, and a page that shows it without any outside asset.

use std::sync::OnceLock;

use actix_web::dev::HttpServiceFactory;
use actix_web::{HttpResponse, web};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

pub mod asyncapi;

use super::error::{ApiError, Code};
use super::routing::resource;
use super::{
    agents, events, health, heartbeats, interventions, lanes, leases, metrics, operations, past, platforms,
    pools, selection, settlements, snapshots, steps,
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Photon",
        description = "Coordinates AI agents over a durable event log.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        health::health,
        health::detailed,
        health::live,
        health::ready,
        health::startup,
        metrics::metrics,
        metrics::dashboard,
        operations::list,
        operations::create,
        operations::get,
        operations::update,
        operations::cancel,
        operations::start,
        operations::pause,
        operations::resume,
        events::of_operation,
        steps::list,
        steps::get,
        interventions::approve,
        interventions::reject,
        interventions::retry,
        interventions::skip,
        interventions::resolve,
        agents::list,
        agents::register,
        agents::get,
        agents::update,
        agents::unregister,
        heartbeats::heartbeat,
        agents::claim,
        agents::availability,
        selection::select,
        leases::list,
        leases::revoke,
        leases::ack,
        leases::progress,
        settlements::complete,
        settlements::fail,
        settlements::release,
        lanes::list,
        lanes::open,
        pools::list,
        platforms::list,
        platforms::get,
        events::list,
        events::sse::stream,
        past::transitions,
        past::replay,
        snapshots::list,
        snapshots::take,
    )
)]
pub struct Document;

/// The document as JSON.
pub async fn openapi() -> HttpResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| Document::openapi().to_json().unwrap_or_default());
    HttpResponse::Ok().content_type("application/json").body(text.as_str())
}

/// The page and its assets, all from the program itself; `/docs` leads to it. Beside it one page for each
/// kind of problem, whose `type` is its address.
pub fn pages() -> impl HttpServiceFactory {
    let config = Config::from("/openapi.json");
    let problem = resource("/docs/errors/{code}").get(problem);
    (web::redirect("/docs", "/docs/"), problem, SwaggerUi::new("/docs/{_:.*}").config(config))
}

async fn problem(code: web::Path<String>) -> Result<String, ApiError> {
    let code = Code::ALL.iter().find(|known| known.slug() == code.as_str());
    let code = code.ok_or_else(|| ApiError::of(Code::NotFound))?;
    Ok(format!("{} {}: {}\n\n{}\n", code.status().as_u16(), code.slug(), code.title(), code.advice()))
}
