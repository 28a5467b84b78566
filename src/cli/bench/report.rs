//! Owns the report: what was measured, on which machine, and how it compares with what was wanted. It must
//! never leave a fault out.

use std::fs;

use serde::Serialize;

use super::Plan;
use super::creates::Creates;
use super::heartbeats::Heartbeats;
use super::load::Answered;
use super::log::Commits;
use super::memory::Held;
use super::restart::Restart;
use super::steps::Steps;

/// Durable creations in relation to bare actix-web, by processor time, and microseconds of the server's for
/// one; before one booking: 0.24 and 149.
const CREATES_RATIO: f64 = 0.4;
const CREATE_US: f64 = 80.0;
/// Operations of three steps per second, and microseconds of the server's for one; before: 1 072 and 1 306.
const OPERATIONS_PER_SECOND: f64 = 3_000.0;
const OPERATION_US: f64 = 450.0;
/// Milliseconds that all but one in a hundred creations take at a fixed rate.
const OPEN_LOOP_P99_MS: f64 = 10.0;
/// Events per second of the log at 256 per commit.
const EVENTS_PER_SECOND: f64 = 100_000.0;
/// Events of the log whose restart is judged; fewer would be no proof.
const RESTART_EVENTS: u64 = 1_000_000;
/// Seconds of that restart.
const RESTART_SECONDS: f64 = 3.0;
/// Peak memory of that restart, in MiB.
const RESTART_MIB: f64 = 512.0;
/// Operations that wait for work, and the memory of a server that has them, in MiB; fewer would be no proof.
const OPEN: (u64, f64) = (200_000, 512.0);
/// The same of operations that are over.
const ENDED: (u64, f64) = (1_000_000, 256.0);

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    version: &'static str,
    machine: Machine,
    plan: Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) creates: Option<Creates>,
    /// Creations at a fixed rate; latencies count from the moment at which a request was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) open_loop: Option<Answered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<Steps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heartbeats: Option<Heartbeats>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) log: Vec<Commits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restart: Option<Restart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Held>,
    goals: Vec<Goal>,
    pub(super) faults: Vec<String>,
}

/// What the figures hold for. Client and server share it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    /// Of one minute, before the first measurement and after the last: others may work here too.
    load_before: f64,
    load_after: f64,
    debug_build: bool,
}

/// What was wanted, and what was reached.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Goal {
    what: &'static str,
    wanted: f64,
    reached: f64,
    met: bool,
}

impl Report {
    /// An empty one.
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::look(),
            plan,
            creates: None,
            open_loop: None,
            steps: None,
            heartbeats: None,
            log: Vec::new(),
            restart: None,
            memory: None,
            goals: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Whether the figures mean nothing.
    pub(super) fn is_debug(&self) -> bool {
        self.machine.debug_build
    }

    /// Compares with the goals, as far as they were measured.
    pub(super) fn judge(&mut self) {
        self.machine.look_again();
        let at_least = |what, wanted, reached| Goal { what, wanted, reached, met: reached >= wanted };
        let ratio = self.creates.as_ref().and_then(|creates| creates.cpu_ratio);
        let mut goals = Vec::new();
        goals.extend(ratio.map(|ratio| {
            at_least("creates: ratio to bare actix-web by processor time", CREATES_RATIO, ratio)
        }));
        let create = self.creates.as_ref().and_then(|creates| creates.photon.as_ref()?.server_cpu_us);
        goals.extend(create.map(|us| Goal::less("creates: processor time in microseconds", CREATE_US, us)));
        let open_loop = self.open_loop.as_ref().map(|answered| answered.latency.p99_ms);
        goals.extend(open_loop.map(|ms| Goal::less("open loop: p99 in milliseconds", OPEN_LOOP_P99_MS, ms)));
        if let Some(operations) = self.steps.as_ref().map(|steps| &steps.operations) {
            goals.push(at_least(
                "three-step operations per second",
                OPERATIONS_PER_SECOND,
                operations.per_second,
            ));
            let spent = operations.server_cpu_us;
            goals.extend(spent.map(|us| {
                Goal::less("three-step operations: processor time in microseconds", OPERATION_US, us)
            }));
        }
        let most = self.log.last().and_then(|commits| commits.appends_of);
        goals.extend(most.map(|rate| at_least("log: events per second at 256", EVENTS_PER_SECOND, rate)));
        let restart = self.restart.as_ref().filter(|restart| restart.events >= RESTART_EVENTS);
        for (what, start) in restart.into_iter().flat_map(|restart| {
            [
                ("restart: seconds, clean", restart.clean),
                ("restart: seconds, unclean", restart.unclean),
                ("restart: seconds, with a snapshot", restart.snapshot),
            ]
        }) {
            goals.push(Goal::less(what, RESTART_SECONDS, start.ready_seconds));
            let peak = start.settled.map(|memory| memory.peak_mib);
            goals.extend(peak.map(|peak| Goal::less("restart: peak memory in MiB", RESTART_MIB, peak)));
        }
        for (what, (least, wanted), share) in self.memory.iter().flat_map(|held| {
            [
                ("memory: MiB with open operations", OPEN, &held.open),
                ("memory: MiB with ended operations", ENDED, &held.ended),
            ]
        }) {
            let judged = share.memory.filter(|_| share.operations >= least);
            goals.extend(judged.map(|memory| Goal::less(what, wanted, memory.rss_mib)));
        }
        self.goals = goals;
    }
}

impl Goal {
    /// Something that must stay below.
    pub(super) fn less(what: &'static str, wanted: f64, reached: f64) -> Self {
        Self { what, wanted, reached, met: reached < wanted }
    }
}

impl Machine {
    /// Before the first measurement.
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load(),
            load_after: 0.0,
            debug_build: cfg!(debug_assertions),
        }
    }

    /// After the last one.
    pub(super) fn look_again(&mut self) {
        self.load_after = load();
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}
