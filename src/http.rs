//! HTTP: the route table, and what every route can reach. The only room that knows JSON bodies.

pub mod agent_request;
pub mod agent_view;
pub mod agents;
pub mod answers;
pub mod body;
pub mod compression;
pub mod context;
pub mod dashboard;
pub mod docs;
pub mod envelope;
pub mod error;
pub mod event_view;
pub mod events;
pub mod front;
pub mod guard;
pub mod health;
pub mod heartbeats;
pub mod intent;
pub mod interventions;
pub mod lanes;
pub mod latencies;
pub mod lease_names;
pub mod leases;
pub mod metrics;
pub mod operation_request;
pub mod operation_view;
pub mod operations;
pub mod page;
pub mod past;
pub mod planning;
pub mod platforms;
pub mod pools;
pub mod query;
pub mod reading;
pub mod refusal;
mod refused_result;
pub mod routing;
#[cfg(feature = "testing")]
mod sabotage;
pub mod selection;
pub mod settlements;
pub mod snapshots;
pub mod socket;
pub mod steps;

use std::sync::Arc;
use std::time::Instant;

use ::events::Damage;
use ::platforms::Registry;
use actix_web::web::ServiceConfig;
use actors::Core;
use actors::keeper::Keeper;

use crate::monitor::Watched;
use crate::pools::Board;
use guard::ServiceState;
use intent::Turns;
use metrics::Metrics;
use page::CursorKey;
use routing::resource;

/// What every route can reach.
pub struct Api {
    /// The core.
    pub core: Arc<Core>,
    /// The live end of every stream.
    pub feed: Arc<events::EventFeed>,
    /// How leases are named outside.
    pub lease_names: lease_names::LeaseNames,
    /// Platforms that are available.
    pub platforms: Registry,
    /// Signs cursors.
    pub cursors: CursorKey,
    /// Turns of idempotency keys.
    pub turns: Turns,
    /// Plans that may be made at once: they take a thread each.
    pub plans: Arc<tokio::sync::Semaphore>,
    /// Turns of reads that take long.
    pub long_reads: reading::LongReads,
    /// Whether requests are taken.
    pub state: Arc<ServiceState>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// What the monitor saw last.
    pub watched: Watched,
    /// How the pools of workers stand.
    pub pools: Arc<Board>,
    /// When the process began.
    pub started: Instant,
    /// Where the start began.
    pub began: health::Began,
    /// Where snapshots are; none when there are none.
    pub keeper: Option<Arc<Keeper>>,
    /// Agents at most.
    pub max_agents: usize,
    /// How sockets find out that their clients are gone.
    pub websocket: socket::KeepAlive,
    /// Idempotency keys that are remembered at most.
    pub max_idempotency_keys: usize,
    /// Where the log is damaged, if it is.
    pub damage: Box<dyn Fn() -> Option<Damage> + Send + Sync>,
    /// Where the log lies, for the disk's free space.
    pub disk: health::Disk,
}

/// The route table. Routes are tried in this order, so what is asked for the most stands first.
#[rustfmt::skip]
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/api/v1/agents/{id}/claim").post(agents::claim))
        .service(resource("/api/v1/leases/{id}/complete").post(settlements::complete))
        .service(resource("/api/v1/operations").get(operations::list).post(operations::create))
        .service(resource("/api/v1/operations/{id}")
            .get(operations::get).put(operations::update).delete(operations::cancel))
        .service(resource("/api/v1/agents/{id}/heartbeat").post(heartbeats::heartbeat))
        .service(resource("/api/v1/leases/{id}/ack").post(leases::ack))
        .service(resource("/api/v1/leases/{id}/progress").post(leases::progress))
        .service(resource("/api/v1/leases").get(leases::list))
        .service(resource("/api/v1/leases/{id}").delete(leases::revoke))
        .service(resource("/api/v1/leases/{id}/fail").post(settlements::fail))
        .service(resource("/api/v1/leases/{id}/release").post(settlements::release))
        .service(resource("/health").get(health::health))
        .service(resource("/health/detailed").get(health::detailed))
        .service(resource("/health/live").get(health::live))
        .service(resource("/health/ready").get(health::ready))
        .service(resource("/health/startup").get(health::startup))
        .service(resource("/metrics").get(metrics::metrics))
        .service(resource("/metrics/dashboard").get(metrics::dashboard))
        .service(resource("/api/v1/operations/{id}/start").post(operations::start))
        .service(resource("/api/v1/operations/{id}/pause").post(operations::pause))
        .service(resource("/api/v1/operations/{id}/resume").post(operations::resume))
        .service(resource("/api/v1/operations/{id}/events").get(events::of_operation))
        .service(resource("/api/v1/operations/{id}/transitions").get(past::transitions))
        .service(resource("/api/v1/operations/{id}/steps").get(steps::list))
        .service(resource("/api/v1/operations/{id}/steps/{step}").get(steps::get))
        .service(resource("/api/v1/operations/{id}/steps/{step}/approve").post(interventions::approve))
        .service(resource("/api/v1/operations/{id}/steps/{step}/reject").post(interventions::reject))
        .service(resource("/api/v1/operations/{id}/steps/{step}/retry").post(interventions::retry))
        .service(resource("/api/v1/operations/{id}/steps/{step}/skip").post(interventions::skip))
        .service(resource("/api/v1/operations/{id}/steps/{step}/resolve").post(interventions::resolve))
        .service(resource("/api/v1/agents").get(agents::list).post(agents::register))
        .service(resource("/api/v1/agents/select").post(selection::select))
        .service(resource("/api/v1/agents/{id}")
            .get(agents::get).put(agents::update).delete(agents::unregister))
        .service(resource("/api/v1/agents/{id}/availability").get(agents::availability))
        .service(resource("/api/v1/lanes").get(lanes::list))
        .service(resource("/api/v1/lanes/{id}").delete(lanes::open))
        .service(resource("/api/v1/pools").get(pools::list))
        .service(resource("/api/v1/platforms").get(platforms::list))
        .service(resource("/api/v1/platforms/{name}").get(platforms::get))
        .service(resource("/api/v1/events").get(events::list))
        .service(resource("/api/v1/events/stream").get(events::sse::stream))
        .service(resource("/api/v1/replay").get(past::replay))
        .service(resource("/api/v1/snapshots").get(snapshots::list).post(snapshots::take))
        .service(resource("/openapi.json").get(docs::openapi))
        .service(resource("/asyncapi.json").get(docs::asyncapi::asyncapi))
        .service(docs::pages());
    #[cfg(feature = "testing")]
    config.configure(sabotage::routes);
}

/// Requests that wait for something on purpose and have a deadline of their own.
#[must_use]
pub fn waits(path: &str, query: &str) -> bool {
    path.ends_with("/claim") || query.split('&').any(|parameter| parameter.starts_with("wait="))
}

/// Whether a path is asked for by an `EventSource`, which gives up for good at any status but 200.
#[must_use]
pub fn is_event_source(path: &str) -> bool {
    path == events::sse::PATH
}
