//! Counters, gauges and the dashboard. Names follow Prometheus' conventions; no id is ever a label.

use std::sync::atomic::Ordering;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, Responder, web};
use actors::system::NOTES_LOST_TOTAL;
use domain::operation::definition::Priority;
use domain::operation::step::Status;
use domain::system::{Metric, Offence};
use domain::views::gauges::StepCounts;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use serde_json::{Map, Value, json};

use super::Api;
use super::context::accepts;
use super::dashboard::DashboardView;
use super::envelope::Reply;
use super::error::ApiError;
use super::front::Front;
use super::front::{Reach, ReachAtOnce};
use super::guard::Phase;
use super::guard::offences::OFFENCES_TOTAL;
use super::latencies::Latencies;
use super::operations::Answer;
use super::past;
use super::pools::PoolGauges;
use super::query::Parameters;
use crate::monitor::{ALERT_RAISED, HEALTH_STATE};

/// Bounds of the request duration histogram, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Everything that is counted. Registered once per process.
pub struct Metrics {
    /// How long requests took since the monitor's last sample.
    pub latencies: Latencies,
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    panics: IntCounter,
    offences: IntCounterVec,
    operations: IntGaugeVec,
    agents: IntGaugeVec,
    steps: IntGaugeVec,
    actors: IntGauge,
    commands: IntGauge,
    claims: IntGauge,
    deaths: IntCounter,
    quarantined: IntGauge,
    position: IntGauge,
    read_only: IntGauge,
    disk_free: IntGauge,
    disk_used: IntGauge,
    uptime: IntGauge,
    health: IntGauge,
    alerts: IntGaugeVec,
    lost_notes: IntCounter,
    streams: IntGauge,
    told: IntCounter,
    pools: PoolGauges,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a name is used twice, which is a bug.
    pub fn register() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let gauges =
            |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let durations = HistogramOpts::new("photon_http_request_duration_seconds", "Time to the answer.");
        let metrics = Self {
            latencies: Latencies::default(),
            requests: IntCounterVec::new(
                Opts::new("photon_http_requests_total", "Requests answered."),
                &["method", "route", "status"],
            )?,
            durations: HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["method", "route"])?,
            panics: IntCounter::new("photon_handler_panics_total", "Handlers that failed with a bug.")?,
            offences: IntCounterVec::new(Opts::new(OFFENCES_TOTAL, "Callers turned away."), &["kind"])?,
            operations: gauges("photon_operations", "Operations.", &["status", "priority"])?,
            agents: gauges("photon_agents", "Registered agents.", &["status"])?,
            steps: gauges("photon_steps", "Steps by what they wait for: ready for an agent.", &["status"])?,
            actors: gauge("photon_actors", "Actors that live.")?,
            commands: gauge("photon_commands_under_way", "Commands under way.")?,
            claims: gauge("photon_claims_waiting", "Agents that wait for work.")?,
            deaths: IntCounter::new("photon_actor_deaths_total", "Actors that failed.")?,
            quarantined: gauge("photon_quarantined_streams", "Streams out of service.")?,
            position: gauge("photon_log_position", "Position of the last event shown.")?,
            read_only: gauge(
                "photon_log_read_only",
                "Whether only what is whole of a damaged log is shown.",
            )?,
            disk_free: gauge("photon_disk_free_bytes", "Free space on the log's disk.")?,
            disk_used: gauge("photon_disk_used_bytes", "What the data folder occupies.")?,
            uptime: gauge("photon_uptime_seconds", "Since the process began.")?,
            health: gauge(HEALTH_STATE, "The worst check at the last look: 0 pass, 1 warn, 2 fail.")?,
            alerts: gauges(ALERT_RAISED, "Whether the alert is raised.", &["metric"])?,
            lost_notes: IntCounter::new(NOTES_LOST_TOTAL, "Facts about the system not recorded.")?,
            streams: gauge("photon_streams_open", "Streams of events that are open.")?,
            told: IntCounter::new("photon_stream_events_total", "Events told over streams.")?,
            pools: PoolGauges::new()?,
            registry,
        };
        Offence::ALL.iter().for_each(|kind| metrics.offences.with_label_values(&[kind.name()]).reset());
        for collector in metrics.collectors() {
            metrics.registry.register(collector)?;
        }
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.registry.register(Box::new(process))?;
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(self.requests.clone()),
            Box::new(self.durations.clone()),
            Box::new(self.panics.clone()),
            Box::new(self.operations.clone()),
            Box::new(self.agents.clone()),
            Box::new(self.steps.clone()),
            Box::new(self.actors.clone()),
            Box::new(self.commands.clone()),
            Box::new(self.claims.clone()),
            Box::new(self.deaths.clone()),
            Box::new(self.quarantined.clone()),
            Box::new(self.position.clone()),
            Box::new(self.read_only.clone()),
            Box::new(self.disk_free.clone()),
            Box::new(self.disk_used.clone()),
            Box::new(self.uptime.clone()),
            Box::new(self.offences.clone()),
            Box::new(self.health.clone()),
            Box::new(self.alerts.clone()),
            Box::new(self.lost_notes.clone()),
            Box::new(self.streams.clone()),
            Box::new(self.told.clone()),
        ];
        collectors.extend(self.pools.collectors());
        collectors
    }

    /// A handler failed with a bug.
    pub fn count_panic(&self) {
        self.panics.inc();
    }

    /// A caller was turned away.
    pub fn count_offence(&self, kind: Offence) {
        self.offences.with_label_values(&[kind.name()]).inc();
    }

    /// Brings the gauges up to date.
    fn look(&self, api: &Api) {
        let views = api.core.projected.views.read();
        for status in Status::ALL {
            for priority in Priority::ALL {
                let count = views.operations.count(status, priority);
                self.operations.with_label_values(&[status.name(), priority.name()]).set(whole(count));
            }
        }
        for (status, count) in views.agent_counts() {
            self.agents.with_label_values(&[status]).set(whole(count));
        }
        let StepCounts { ready, held, backing_off } = views.step_counts(api.core.around.clock.now());
        for (status, count) in [("ready", ready), ("held", held), ("backing_off", backing_off)] {
            self.steps.with_label_values(&[status]).set(whole(count));
        }
        drop(views);
        self.actors.set(whole(api.core.gateway.actors()));
        self.commands.set(whole(api.core.gateway.under_way()));
        self.claims.set(whole(api.core.waiting.load(Ordering::Relaxed)));
        self.deaths.inc_by(api.core.supervisor.deaths().saturating_sub(self.deaths.get()));
        self.quarantined.set(whole(api.core.supervisor.quarantined().len()));
        self.position.set(i64::try_from(api.core.projected.position().get()).unwrap_or(i64::MAX));
        self.read_only.set(i64::from(api.state.phase() == Phase::ReadOnly));
        let disk = |measure: fn(&super::health::Disk) -> Option<u64>| {
            i64::try_from(measure(&api.disk).unwrap_or(0)).unwrap_or(i64::MAX)
        };
        self.disk_free.set(disk(super::health::Disk::free_bytes));
        self.disk_used.set(disk(super::health::Disk::used_bytes));
        self.uptime.set(i64::try_from(api.started.elapsed().as_secs()).unwrap_or(i64::MAX));
        self.health.set(api.watched.health() as i64);
        let raised = api.watched.alerts();
        for metric in Metric::ALL {
            let is_raised = raised.iter().any(|alert| alert.metric == metric);
            self.alerts.with_label_values(&[metric.name()]).set(i64::from(is_raised));
        }
        self.lost_notes.inc_by(api.core.system.lost().saturating_sub(self.lost_notes.get()));
        self.pools.look(&api.pools);
        self.streams.set(whole(api.feed.open()));
        self.told.inc_by(api.feed.told().saturating_sub(self.told.get()));
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The middleware that counts and times requests, by route pattern.
///
/// # Errors
/// Passes on what the inner service failed with.
pub async fn measure(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let begun = std::time::Instant::now();
    let method = known_method(request.method().as_str());
    let front = request.app_data::<web::Data<Front>>().cloned();
    let response = next.call(request).await?;
    if let Some(api) = front.as_ref().and_then(|front| front.api()) {
        let route = response.request().match_pattern().unwrap_or_else(|| "none".into());
        let status = response.status();
        api.metrics.requests.with_label_values(&[method, &route, status.as_str()]).inc();
        let took = begun.elapsed();
        api.metrics.durations.with_label_values(&[method, &route]).observe(took.as_secs_f64());
        api.metrics.latencies.add((!waits(&response)).then_some(took));
    }
    Ok(response)
}

/// Whether the answer took long, or will go on, on purpose: a long poll or a stream.
fn waits(response: &ServiceResponse<impl MessageBody>) -> bool {
    let (request, kind) = (response.request(), response.headers().get(header::CONTENT_TYPE));
    super::waits(request.path(), request.query_string())
        || response.status() == StatusCode::SWITCHING_PROTOCOLS
        || kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// A client may invent methods; labels must not grow by them.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// The counters and gauges, as Prometheus text or as JSON in the envelope.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text, or JSON when asked for")))]
pub async fn metrics(api: ReachAtOnce, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Parameters::of(&request, &[], &[])?;
    api.metrics.look(&api);
    let families = api.metrics.registry.gather();
    if accepts(request.headers(), "application/json") {
        return Ok(Reply::ok(as_json(&families)).respond_to(&request).map_into_boxed_body());
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text))
}

/// Each family as a list of samples: `{labels, value}` or `{labels, count, sum}`.
fn as_json(families: &[prometheus::proto::MetricFamily]) -> Value {
    let mut shown = Map::new();
    for family in families {
        let samples = family.get_metric().iter().map(|metric| {
            let labels: Map<String, Value> =
                metric.get_label().iter().map(|pair| (pair.name().into(), pair.value().into())).collect();
            let histogram = metric.get_histogram();
            if histogram.get_sample_count() > 0 {
                let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
                return json!({"labels": labels, "count": count, "sum": sum});
            }
            let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
            json!({"labels": labels, "value": value})
        });
        shown.insert(family.name().into(), samples.collect());
    }
    Value::Object(shown)
}

/// The figures of a dashboard.
#[utoipa::path(get, path = "/metrics/dashboard", tag = "health",
    params(("at" = Option<String>, Query, description = "as it was: a position or a time")),
    responses((status = 200, body = super::envelope::ApiResponse<DashboardView>),
        (status = 410, description = "what is asked for is no longer kept"),
        (status = 503, description = "another look is under way, or the log cannot be read")))]
pub async fn dashboard(api: Reach, request: HttpRequest) -> Answer<DashboardView> {
    let parameters = Parameters::of(&request, &["at"], &[])?;
    let views = past::look(&api, &parameters).await?;
    Ok(views.mark(Reply::ok(DashboardView::of(&api, &views))))
}
