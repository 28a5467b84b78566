//! The route of pools, and their gauges. It must never show a pool's command: arguments can hold secrets.

use actix_web::HttpRequest;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::Reply;
use super::front::Reach;
use super::operations::Answer;
use super::query::Parameters;
use crate::pools::{Board, PoolStatus};

/// Workers that a pool should have, by `pool`: what an external autoscaler follows.
const WANTED: &str = "photon_pool_wanted";
/// Workers that a pool has, by `pool` and `state`.
const WORKERS: &str = "photon_pool_workers";
/// Steps that wait and that a worker of the pool could take, by `pool`.
const READY_STEPS: &str = "photon_pool_ready_steps";
/// Counts workers that ended though nobody asked them to, by `pool`.
const ENDED_TOTAL: &str = "photon_pool_workers_ended_total";

/// A pool as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Its name; its workers are the agents `<name>-1`, `<name>-2` and so on.
    pub name: String,
    /// What its workers can do.
    pub capability: String,
    /// Whether this server starts its workers; otherwise it only says how many there should be.
    pub managed: bool,
    /// Never fewer workers.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Longest queue time that is accepted.
    pub target_queue_ms: u64,
    /// Workers that there should be.
    pub wanted: u32,
    /// Workers that take steps, or will.
    pub actual: u32,
    /// The same by what they do, and those that leave.
    pub workers: PoolWorkersView,
    /// What waits for them.
    pub queue: PoolQueueView,
    /// Why it was scaled last, as in `pool.scaled`; none before the first time since the server started.
    pub reason: Option<String>,
    /// The same as a sentence.
    pub detail: Option<String>,
    /// When it was scaled last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scaled_at: Option<domain::Timestamp>,
    /// What keeps workers from living, when something does.
    pub trouble: Option<PoolTroubleView>,
}

/// Workers of a pool.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolWorkersView {
    /// Not registered yet.
    pub starting: u32,
    /// Without a step.
    pub idle: u32,
    /// With a step.
    pub busy: u32,
    /// They take no more and end after what they have.
    pub leaving: u32,
}

impl PoolWorkersView {
    fn of(status: &PoolStatus) -> Self {
        let seen = &status.seen;
        Self { starting: seen.starting, idle: seen.idle, busy: seen.busy, leaving: status.leaving }
    }

    fn by_state(self) -> [(&'static str, u32); 4] {
        [("starting", self.starting), ("idle", self.idle), ("busy", self.busy), ("leaving", self.leaving)]
    }
}

/// What waits for the workers of a pool.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolQueueView {
    /// Steps that a worker of this pool could take.
    pub ready_steps: u64,
    /// How long the oldest of them has waited.
    pub oldest_wait_ms: u64,
    /// Mean time that a step takes; none before the first.
    pub service_ms: Option<u64>,
    /// Ready steps × mean time ÷ slots; none without workers.
    pub queue_ms: Option<u64>,
}

/// Workers that end though nobody asks them to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolTroubleView {
    /// How many did, one after the other.
    pub failures: u32,
    /// How the last one did.
    pub last_failure: Option<String>,
    /// When the next one may start.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<domain::Timestamp>,
}

impl PoolView {
    fn of(status: PoolStatus) -> Self {
        let queue = PoolQueueView {
            ready_steps: status.seen.ready,
            oldest_wait_ms: status.seen.oldest_wait_ms,
            service_ms: status.seen.service_ms,
            queue_ms: status.queue_ms,
        };
        let trouble = (status.failures > 0).then(|| PoolTroubleView {
            failures: status.failures,
            last_failure: status.last_failure.clone(),
            retry_at: status.retry_at,
        });
        Self {
            managed: status.pool.is_managed(),
            target_queue_ms: status.pool.policy().target_ms,
            min: status.pool.min,
            max: status.pool.max,
            wanted: status.wanted,
            actual: status.workers,
            workers: PoolWorkersView::of(&status),
            queue,
            reason: status.reason.map(|reason| reason.name().to_owned()),
            detail: Some(status.detail).filter(|detail| !detail.is_empty()),
            scaled_at: status.scaled_at,
            trouble,
            name: status.pool.name,
            capability: status.pool.capability,
        }
    }
}

/// Lists pools, in the order of the configuration. At most 32, so that there are no pages.
#[utoipa::path(get, path = "/api/v1/pools", tag = "agents",
    responses((status = 200, body = super::envelope::ApiResponse<Vec<PoolView>>)))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<PoolView>> {
    Parameters::of(&request, &[], &[])?;
    Ok(Reply::ok(api.pools.pools().into_iter().map(PoolView::of).collect()))
}

/// The gauges of pools.
pub struct PoolGauges {
    wanted: IntGaugeVec,
    workers: IntGaugeVec,
    ready: IntGaugeVec,
    ended: IntCounterVec,
}

impl PoolGauges {
    /// All of them, not registered yet.
    ///
    /// # Errors
    /// When a name is malformed, which is a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let gauges =
            |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            wanted: gauges(WANTED, "Workers that a pool should have.", &["pool"])?,
            workers: gauges(WORKERS, "Workers that a pool has.", &["pool", "state"])?,
            ready: gauges(READY_STEPS, "Ready steps that a pool could take.", &["pool"])?,
            ended: IntCounterVec::new(Opts::new(ENDED_TOTAL, "Workers that ended unasked."), &["pool"])?,
        })
    }

    /// What a registry wants of them.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.wanted.clone()),
            Box::new(self.workers.clone()),
            Box::new(self.ready.clone()),
            Box::new(self.ended.clone()),
        ]
    }

    /// Brings them up to date.
    pub fn look(&self, board: &Board) {
        for status in board.pools() {
            let pool = status.pool.name.as_str();
            self.wanted.with_label_values(&[pool]).set(status.wanted.into());
            for (state, count) in PoolWorkersView::of(&status).by_state() {
                self.workers.with_label_values(&[pool, state]).set(count.into());
            }
            let ready = i64::try_from(status.seen.ready).unwrap_or(i64::MAX);
            self.ready.with_label_values(&[pool]).set(ready);
            let ended = self.ended.with_label_values(&[pool]);
            ended.inc_by(status.ended.saturating_sub(ended.get()));
        }
    }
}
