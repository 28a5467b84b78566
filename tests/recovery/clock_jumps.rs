//! A wall clock that jumps, races or stands still moves no timer: nothing ends early, nothing hangs, and the
//! times of events never fall. The clock is faked from outside, by libfaketime; monotonic time is left alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use support::called::call;
use support::workers::Caller;
use support::{Photon, checker, step};
use tempfile::TempDir;

const PERIOD: Duration = Duration::from_millis(3_000);
/// A lease lasts longer than the attempt that is ended by its timeout.
const LEASE: Duration = Duration::from_millis(4_000);
const CONFIG: &str =
    "[agents]\nlease_ms = 4000\noffer_ms = 3000\ncancel_grace_ms = 3000\nrelease_hold_ms = 0\n";
/// A second is promised; the rest is for a machine that does other things too.
const LATE: Duration = Duration::from_secs(5);

/// What the wall clock does, as libfaketime writes it.
const CLOCKS: [(&str, &str); 6] = [
    ("a day ahead", "+1d"),
    ("a day back", "-1d"),
    ("ten years ahead", "+10y"),
    ("ten years back", "-10y"),
    ("five times as fast", "+0 x5"),
    ("standing still", "2020-02-29 23:59:59"),
];

/// The library that fakes a wall clock; none where it is not installed.
fn faker() -> Option<String> {
    // Its program names what it shares by its process and leaves it behind: a number may be taken.
    let found = || Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output().ok();
    let found = std::iter::repeat_with(found).take(20).flatten().find(|found| found.status.success())?;
    String::from_utf8(found.stdout).ok().map(|library| library.trim().to_owned())
}

/// The environment of a server whose wall clock is read from a file.
fn faking(library: &str, clock: &Path) -> Vec<(String, String)> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        set("LD_PRELOAD", library),
        set("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy()),
        set("FAKETIME_NO_CACHE", "1"),
        // The one name is of newer versions, the other of older ones.
        set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        set("DONT_FAKE_MONOTONIC", "1"),
    ]
}

/// Something that must happen after a while and not before.
struct Timer {
    name: &'static str,
    subject: String,
    kind: &'static str,
    /// The how-manieth such event it is.
    nth: usize,
    period: Duration,
    /// Before it could begin.
    begun: Instant,
    /// Whether a restart gives it its full period again.
    fresh: bool,
}

impl Timer {
    fn has_fired(&self, log: &[Value]) -> bool {
        let is = |event: &&Value| event["subject"] == self.subject.as_str() && event["type"] == self.kind;
        log.iter().filter(is).count() >= self.nth
    }
}

/// One server under one clock.
struct Stage {
    name: String,
    photon: Photon,
    clock: TempDir,
    timers: Vec<Timer>,
    /// A lease that is renewed all the time.
    kept: Value,
}

fn file(clock: &TempDir) -> std::path::PathBuf {
    clock.path().join("clock")
}

/// At once, so that no reader sees a half.
fn set(clock: &TempDir, time: &str) {
    let fresh = clock.path().join("fresh");
    std::fs::write(&fresh, format!("{time}\n")).unwrap();
    std::fs::rename(fresh, file(clock)).unwrap();
}

/// One step for one agent and nobody else.
fn one_for(agent: &str) -> Value {
    let mut one = step(1, "work", &[], json!({}));
    one["agent"] = json!(agent);
    one["retryPolicy"] = json!({"initialDelayMs": 3_000, "jitter": 0.0});
    one
}

impl Stage {
    async fn of(name: String, library: &str) -> Self {
        let clock = TempDir::new().unwrap();
        set(&clock, "+0");
        let photon = Photon::surrounded(CONFIG, faking(library, &file(&clock))).await;
        Self { name, photon, clock, timers: Vec::new(), kept: Value::Null }
    }

    /// An agent with an operation of one step that it has been given.
    async fn offered(&self, agent: &str, one: Value) -> (String, Value) {
        self.photon.agent(agent, &[]).await;
        let id = self.photon.operation(json!([one])).await;
        (id, self.photon.claim(agent).await)
    }

    async fn begun(&self, agent: &str, one: Value) -> (String, Value) {
        let (id, lease) = self.offered(agent, one).await;
        self.photon.report(&lease, "ack", json!({})).await.expect(200);
        (id, lease)
    }

    fn expect(&mut self, name: &'static str, subject: String, kind: &'static str, begun: Instant) {
        let fresh = !matches!(name, "retry" | "timeout" | "deadline");
        let period = if name == "lease" { LEASE } else { PERIOD };
        let nth = if name == "retry" { 2 } else { 1 };
        self.timers.push(Timer { name, subject, kind, nth, period, begun, fresh });
    }

    /// Begins one of everything that waits for a moment.
    async fn set_up(&mut self) {
        self.photon.agent("idle", &[]).await;
        let begun = Instant::now();
        let deadline = DateTime::<Utc>::from(std::time::SystemTime::now()) + PERIOD;
        let body = json!({"name": "late", "workflow": [one_for("idle")],
            "deadline": deadline.to_rfc3339_opts(SecondsFormat::Millis, true)});
        let late = self.photon.post("/api/v1/operations", body).await.expect(201);
        let late = late.data()["id"].as_str().unwrap().to_owned();
        self.expect("deadline", format!("operation/{late}"), "operation.failed", begun);
        let begun = Instant::now();
        let silent = json!({"id": "silent", "config": {"heartbeatIntervalMs": 1_000}});
        self.photon.post("/api/v1/agents", silent).await.expect(201);
        self.expect("silence", "agent/silent".into(), "agent.timeout", begun);
        let begun = Instant::now();
        let (id, _) = self.offered("offered", one_for("offered")).await;
        self.expect("offer", format!("operation/{id}"), "step.offer_expired", begun);
        let begun = Instant::now();
        let (id, _) = self.begun("leased", one_for("leased")).await;
        self.expect("lease", format!("operation/{id}"), "step.lease_lost", begun);
        let mut short = one_for("timed");
        short["timeout"] = json!(3_000);
        let begun = Instant::now();
        let (id, _) = self.begun("timed", short).await;
        self.expect("timeout", format!("operation/{id}"), "step.failed", begun);
        let (id, lease) = self.begun("retrier", one_for("retrier")).await;
        let begun = Instant::now();
        let body = json!({"code": "flaky", "message": "not this time"});
        self.photon.report(&lease, "fail", body).await.expect(200);
        self.expect("retry", format!("operation/{id}"), "step.reserved", begun);
        let (id, _) = self.begun("cut", one_for("cut")).await;
        let begun = Instant::now();
        self.photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
        self.expect("grace", format!("operation/{id}"), "lease.closed", begun);
        self.kept = self.begun("keeper", one_for("keeper")).await.1;
    }

    async fn log(&self) -> Vec<Value> {
        checker::read(&self.photon, "limit=500").await
    }

    /// Waits for every timer, and says how late the latest of them was.
    async fn watch(&mut self, restarted: Option<Instant>) -> (Duration, &'static str) {
        let (began, mut worst) = (Instant::now(), (Duration::ZERO, "none"));
        let caller = Caller::of(&self.photon);
        while !self.timers.is_empty() {
            // Renews one lease, and asks for the step that is to be retried.
            let named = json!({"leases": [{"leaseId": self.kept["leaseId"]}]});
            self.photon.post("/api/v1/agents/keeper/heartbeat", named).await.expect(200);
            caller.claim("retrier", 1).await;
            let log = self.log().await;
            let (fired, waiting) = self.timers.drain(..).partition(|timer| timer.has_fired(&log));
            self.timers = waiting;
            for timer in fired {
                let Timer { name, period, begun, .. } = timer;
                let least = if timer.fresh { restarted.unwrap_or(begun) } else { begun };
                let early = (timer.fresh || restarted.is_none()) && least.elapsed() < period;
                assert!(!early, "{}: {name} after {:?}", self.name, least.elapsed());
                let late = restarted.map_or(begun, |_| began).elapsed().saturating_sub(period);
                worst = worst.max((late, name));
            }
            let latest = worst.0.max(began.elapsed().saturating_sub(LEASE));
            let waiting: Vec<&str> = self.timers.iter().map(|timer| timer.name).collect();
            assert!(latest < LATE, "{}: {worst:?}, {waiting:?} still wait", self.name);
        }
        worst
    }

    /// Ends the renewed lease, and looks at the whole history.
    async fn end(&self) {
        self.photon.report(&self.kept, "complete", json!({"result": 1})).await.expect(200);
        checker::check_log(&self.photon).await.must_be_clean();
    }

    /// Fails unless the server's wall clock is another than ours: else nothing is tested.
    async fn must_be_faked(&self) {
        let answer = self.photon.get("/health").await.expect(200);
        let told = DateTime::parse_from_rfc2822(answer.header("date")).unwrap();
        let apart = (Utc::now() - told.to_utc()).abs();
        assert!(apart.num_seconds() > 5, "{}: the server says {told}", self.name);
    }

    fn told(&self, worst: (Duration, &str)) {
        println!("{}: at most {} ms late ({})", self.name, worst.0.as_millis(), worst.1);
    }
}

fn moment(event: &Value) -> DateTime<Utc> {
    event["time"].as_str().unwrap().parse().unwrap()
}

/// The clock changes under a server that runs.
async fn running(library: &str, name: &str, clock: &str) {
    let mut stage = Stage::of(format!("running, {name}"), library).await;
    let outer = Instant::now();
    stage.set_up().await;
    let inner = Instant::now();
    set(&stage.clock, clock);
    let worst = stage.watch(None).await;
    let inner = inner.elapsed();
    stage.must_be_faked().await;
    stage.end().await;
    let outer = outer.elapsed();
    let log = stage.log().await;
    let about = |kind: &str| log.iter().rev().find(|event| event["type"] == kind).unwrap();
    // From the first event to the last as much time went by for the server as for the test.
    let passed = moment(about("step.completed")) - moment(&log[0]);
    let passed = passed.to_std().unwrap();
    let slack = Duration::from_millis(50);
    assert!(inner <= passed + slack && passed <= outer + slack, "{}: {passed:?}, not {outer:?}", stage.name);
    stage.told(worst);
}

/// Where the log of a server ends that is dead: while it lived, a timer could fire after any look at it.
fn last_event(photon: &Photon) -> u64 {
    let call = call(["event", "verify", "-o", "json", "--data-dir", "data"]);
    let audit = call.in_folder(photon.folder()).ends_with(0).json();
    audit["last"].as_str().unwrap().parse().unwrap()
}

/// The clock changes while the server is away, and is right again in its life after the next.
async fn restarted(library: &str, name: &str, clock: &str) {
    let mut stage = Stage::of(format!("restarted, {name}"), library).await;
    stage.set_up().await;
    stage.photon.kill();
    let last = last_event(&stage.photon);
    set(&stage.clock, clock);
    let before = Instant::now();
    stage.photon.restart().await;
    let mut log = stage.log().await;
    log.retain(|event| event["sequence"].as_str().unwrap().parse::<u64>().unwrap() <= last);
    stage.timers.retain(|timer| !timer.has_fired(&log));
    if clock.starts_with('+') && !clock.contains('x') {
        // By the only clock that goes on while a server is away, the attempt has taken too long as well.
        let lease = stage.timers.iter_mut().find(|timer| timer.name == "lease");
        lease.into_iter().for_each(|lease| (lease.kind, lease.fresh) = ("step.failed", false));
    }
    let worst = stage.watch(Some(before)).await;
    stage.must_be_faked().await;
    stage.photon.kill();
    set(&stage.clock, "+0");
    stage.photon.restart().await;
    stage.end().await;
    stage.told(worst);
}

#[tokio::test]
async fn no_timer_minds_what_the_wall_clock_does() {
    let _alone = support::alone();
    let Some(library) = faker() else {
        // Past the capture of the test harness: what is not tested must be seen.
        std::io::stderr()
            .write_all(b"skipped: jumps of the wall clock, faketime is not installed\n")
            .unwrap();
        return;
    };
    // Side by side: they mostly wait.
    let running = CLOCKS.map(|(name, clock)| running(&library, name, clock));
    let restarted = CLOCKS.map(|(name, clock)| restarted(&library, name, clock));
    let all = futures_util::future::join_all(running);
    tokio::join!(all, futures_util::future::join_all(restarted));
}
