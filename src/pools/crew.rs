//! Owns one pool: its workers, how many there should be, and what is told of it. It must never keep more
//! processes than the pool may have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use actors::Core;
use actors::codec::Metadata;
use actors::gateway::Order;
use domain::agent::event::{Status, StatusReason};
use domain::agent::{Agent, Command};
use domain::lane::ACCOUNT_LABEL;
use domain::pool::{Backoff, Policy, Scaler, Seen, sentence};
use domain::system::{Event, PoolScaled, ScalingReason};
use domain::views::Views;
use domain::{AgentId, LaneId, Timestamp};
use futures_util::future::join_all;
use rustix::process::Pid;
use tokio::time::timeout;

use super::PoolStatus;
use super::queue::{Asking, Queue, outside, service_ms};
use super::worker::{Launch, Stage, Worker};
use crate::settings::Pool;

/// Workers of one pool that start at one look: a machine is not helped by a hundred at once.
const STARTS_MAX: u32 = 16;
/// The last words of those that ended are waited for so long.
const LAST_WORDS_MAX: Duration = Duration::from_millis(200);

/// One pool.
pub(super) struct Crew {
    pool: Pool,
    policy: Policy,
    scaler: Scaler,
    backoff: Backoff,
    workers: BTreeMap<u32, Worker>,
    seen: Seen,
    /// Workers and wanted workers as they were last told.
    told: (u32, u32),
    pub(super) status: PoolStatus,
}

impl Crew {
    pub(super) fn new(pool: Pool) -> Self {
        let status = PoolStatus::of(&pool);
        Self {
            policy: pool.policy(),
            pool,
            scaler: Scaler::default(),
            backoff: Backoff::default(),
            workers: BTreeMap::new(),
            seen: Seen::default(),
            told: (0, 0),
            status,
        }
    }

    fn agent(&self, number: u32) -> Option<AgentId> {
        format!("{}-{number}", self.pool.name).parse().ok()
    }

    /// Its processes, whose ends it looks for itself.
    pub(super) fn processes(&self) -> impl Iterator<Item = Pid> {
        self.workers.values().filter_map(Worker::process)
    }

    /// Takes note of workers that ended, and how the others stand; says who asks for steps.
    pub(super) async fn muster(&mut self, core: &Core, now: Timestamp) -> Asking {
        let ended = self.reap(now).await;
        let mut crew = Vec::new();
        {
            let views = core.projected.views.read();
            if self.pool.is_managed() {
                self.look_at_workers(&views, now);
                let working = self.workers.values().filter(|worker| worker.stage == Stage::Working);
                crew.extend(working.map(|worker| worker.agent.clone()));
            } else {
                (self.seen, crew) = outside(&views, &self.pool.profile());
            }
        }
        if self.pool.is_managed() {
            let workers = self.taking();
            let back = workers > self.told.0;
            let reason = if back { ScalingReason::WorkerReplaced } else { ScalingReason::WorkerEnded };
            let detail = ended.unwrap_or_else(|| sentence(reason, &self.policy, &self.seen));
            if workers != self.told.0 {
                self.tell(core, (workers, self.told.1), reason, detail, now);
            }
        }
        let profile = self.pool.profile();
        let lane = profile.config.labels.get(ACCOUNT_LABEL).and_then(|account| LaneId::of_account(account));
        let lanes = |lane: LaneId| core.projected.views.read().lanes.parked_until(&lane, now);
        Asking { parked: lane.and_then(lanes).is_some(), profile, crew }
    }

    /// Decides with what the queue is, and starts or dismisses workers.
    pub(super) fn follow(&mut self, core: &Arc<Core>, launch: &Launch, queue: Queue, now: Timestamp) {
        self.seen = Seen { ready: queue.ready, oldest_wait_ms: queue.oldest_wait_ms, ..self.seen };
        let reason = self.scaler.look(&self.policy, &self.seen, now);
        let wanted = self.scaler.wanted();
        let before = self.seen;
        if self.pool.is_managed() {
            self.start_missing(core, launch, now);
            self.dismiss_surplus(core);
        }
        let workers = if self.pool.is_managed() { self.taking() } else { self.seen.workers() };
        if reason.is_some() || (self.pool.is_managed() && workers != self.told.0) {
            let reason = reason.or(self.status.reason).unwrap_or(ScalingReason::Queue);
            let detail = sentence(reason, &self.policy, &before);
            if !self.pool.is_managed() {
                self.told.0 = workers;
            }
            self.tell(core, (workers, wanted), reason, detail, now);
        }
        self.publish(workers, wanted);
    }

    /// Asks every worker to end, waits for that, and makes those end that do not. No look comes after it.
    pub(super) async fn stop(&mut self, core: &Core, deadline: tokio::time::Instant) {
        for worker in self.workers.values_mut() {
            worker.asked = true;
            worker.terminate();
        }
        let all_ended = join_all(self.workers.values_mut().map(Worker::wait));
        if tokio::time::timeout_at(deadline, all_ended).await.is_err() {
            tracing::warn!(pool = %self.pool.name, "workers do not end and are killed");
            self.workers.values_mut().for_each(Worker::kill);
            join_all(self.workers.values_mut().map(Worker::wait)).await;
        }
        self.workers.clear();
        if self.told.0 > 0 && self.pool.is_managed() {
            let reason = ScalingReason::Stopping;
            let now = core.around.clock.now();
            self.tell(core, (0, 0), reason, sentence(reason, &self.policy, &self.seen), now);
        }
    }

    /// Forgets workers that ended; a sentence about one that was not asked to.
    async fn reap(&mut self, now: Timestamp) -> Option<String> {
        let ended = |(number, worker): (&u32, &mut Worker)| Some((*number, worker.ended()?));
        let ended: Vec<_> = self.workers.iter_mut().filter_map(ended).collect();
        let mut gone = Vec::new();
        for (number, status) in ended {
            gone.extend(self.workers.remove(&number).map(|worker| (worker, status)));
        }
        let last_words = join_all(gone.iter_mut().map(|(worker, _)| worker.silent()));
        // Whatever holds the pipe of one that has gone, nobody waits for it.
        let _ = timeout(LAST_WORDS_MAX, last_words).await;
        for (worker, status) in &gone {
            if worker.asked && worker.worked && status.success() {
                self.backoff.ended_well(worker.started_at);
            }
        }
        let unasked: Vec<String> = gone
            .iter()
            .filter(|(worker, _)| !worker.asked)
            .map(|(worker, status)| worker.obituary(*status))
            .collect();
        self.status.ended += unasked.len() as u64;
        unasked.last().map(|words| self.fail(words, now))
    }

    /// Waits longer before the next start; the sentence with when that is.
    fn fail(&mut self, words: &str, now: Timestamp) -> String {
        self.backoff.failed(now);
        let (failures, pool) = (self.backoff.failures(), &self.pool.name);
        let wait_ms = self.backoff.until().ms_since(now);
        tracing::warn!(pool, failures, wait_ms, reason = words, "a worker ended by itself");
        self.status.last_failure = Some(words.to_owned());
        format!("{words} The next one starts in {}.{} s.", wait_ms / 1_000, wait_ms % 1_000 / 100)
    }

    fn look_at_workers(&mut self, views: &Views, now: Timestamp) {
        for worker in self.workers.values_mut() {
            let agent = views.agents.get(&worker.agent).map(|row| &row.agent);
            // Somebody else asked it to: that is no failure.
            worker.asked |= agent.is_some_and(Agent::is_drained);
            worker.look(agent, views.leases.of_agent(&worker.agent).count() as u64);
            worker.hurry();
            if worker.stage == Stage::Working {
                self.backoff.lives(worker.started_at, now);
            }
        }
        let numbers = 1..=self.pool.max;
        let agents = numbers.filter_map(|number| views.agents.get(&self.agent(number)?));
        let service_ms = service_ms(agents.map(|row| &row.work.record));
        let working = || self.workers.values().filter(|worker| worker.stage == Stage::Working);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let busy = count(working().filter(|worker| worker.held > 0).count());
        self.seen = Seen {
            held: working().map(|worker| worker.held).sum(),
            busy,
            idle: count(working().count()) - busy,
            starting: self.at(Stage::Starting),
            service_ms,
            ..self.seen
        };
    }

    fn at(&self, stage: Stage) -> u32 {
        let count = self.workers.values().filter(|worker| worker.stage == stage).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Workers that take steps, or will: when some have just failed to, a start proves nothing.
    fn taking(&self) -> u32 {
        let starting = if self.backoff.failures() == 0 { self.at(Stage::Starting) } else { 0 };
        self.at(Stage::Working) + starting
    }

    fn start_missing(&mut self, core: &Core, launch: &Launch, now: Timestamp) {
        let there = self.at(Stage::Working) + self.at(Stage::Starting);
        // Those that leave are processes too.
        let room = self.pool.max.saturating_sub(there + self.at(Stage::Leaving));
        let missing = self.scaler.wanted().saturating_sub(there).min(room).min(STARTS_MAX);
        for _ in 0..self.backoff.allows(missing, self.at(Stage::Starting), now) {
            let Some(number) = (1..=self.pool.max).find(|number| self.is_vacant(core, *number)) else {
                return;
            };
            let Some(agent) = self.agent(number) else { return };
            let before =
                core.projected.views.read().agents.ever(&agent).map_or(0, |row| row.agent.incarnation);
            match launch.start(&self.pool, agent, before, now) {
                Ok(worker) => _ = self.workers.insert(number, worker),
                Err(cause) => {
                    self.fail(&format!("No process can be started: {cause}."), now);
                    return;
                }
            }
        }
    }

    /// Whether a worker may be started with this number: who was drained stays away until that is ended.
    fn is_vacant(&self, core: &Core, number: u32) -> bool {
        let drained = |agent: AgentId| {
            let views = core.projected.views.read();
            views.agents.ever(&agent).is_some_and(|row| row.agent.is_drained())
        };
        !self.workers.contains_key(&number) && !self.agent(number).is_some_and(drained)
    }

    /// Who has nothing to do leaves first, then who has not begun; who is at work stays.
    fn dismiss_surplus(&mut self, core: &Arc<Core>) {
        let there = self.at(Stage::Working) + self.at(Stage::Starting);
        let surplus = there.saturating_sub(self.scaler.wanted());
        let idle = |worker: &&mut Worker| worker.stage == Stage::Working && worker.held == 0;
        // The highest numbers first, so that the same agents come back.
        let leaving: Vec<AgentId> = self
            .workers
            .values_mut()
            .rev()
            .filter(idle)
            .take(surplus as usize)
            .map(|worker| {
                worker.ask_to_leave();
                worker.agent.clone()
            })
            .collect();
        let starting = |worker: &&mut Worker| worker.stage == Stage::Starting;
        let rest = (surplus as usize).saturating_sub(leaving.len());
        for worker in self.workers.values_mut().rev().filter(starting).take(rest) {
            worker.ask_to_leave();
            worker.terminate();
        }
        leaving.into_iter().for_each(|agent| drain(core, agent));
    }

    fn tell(
        &mut self,
        core: &Core,
        (workers, wanted): (u32, u32),
        reason: ScalingReason,
        detail: String,
        now: Timestamp,
    ) {
        let (from, pool) = (self.told.0, &self.pool.name);
        tracing::info!(pool, from, to = workers, wanted, reason = reason.name(), detail, "pool scaled");
        let scaled = PoolScaled {
            pool: pool.clone(),
            from,
            to: workers,
            wanted,
            reason,
            detail: detail.clone(),
            ready_steps: self.seen.ready,
            oldest_wait_ms: self.seen.oldest_wait_ms,
            service_ms: self.seen.service_ms,
            queue_ms: self.seen.queue_ms(&self.policy),
        };
        core.system.note(&Event::PoolScaled(scaled));
        self.told = (workers, wanted);
        let status = &mut self.status;
        (status.reason, status.detail, status.scaled_at) = (Some(reason), detail, Some(now));
    }

    fn publish(&mut self, workers: u32, wanted: u32) {
        let holds_back = self.backoff.failures() > 0;
        let leaving = self.at(Stage::Leaving);
        // Of a pool that somebody else keeps nobody is seen to start.
        let starting = self.at(Stage::Starting);
        let status = &mut self.status;
        (status.workers, status.wanted) = (workers, wanted);
        status.seen = Seen { starting, ..self.seen };
        status.queue_ms = self.seen.queue_ms(&self.policy);
        status.leaving = leaving;
        status.failures = self.backoff.failures();
        status.retry_at = holds_back.then(|| self.backoff.until());
    }
}

/// The worker hears of it with its next heartbeat, finishes what it has, and ends.
fn drain(core: &Arc<Core>, agent: AgentId) {
    let core = Arc::clone(core);
    rt::spawn(async move {
        let command = Command::SetStatus { status: Status::Inactive, reason: StatusReason::PoolShrinks };
        let order = Order::<Agent>::of(command, Metadata::of_photon());
        if let Err(fault) = core.gateway.execute::<Agent>(&agent, order).await {
            // One that hears of nothing is asked with a signal later.
            tracing::warn!(worker = %agent, fault = ?fault, "a worker could not be told to leave");
        }
    });
}
