//! Two thousand steps, workers that do everything wrong that workers do, a person who answers, a pause, and
//! two kills of the server in the middle: the operation ends, nothing that was answered is lost, and its
//! whole history is in order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::dice::Dice;
use support::history;
use support::workers::{Caller, Heard};
use support::{Photon, checker, step};

const QUICK: &str = "[agents]\nlease_ms = 1000\noffer_ms = 400\nrelease_hold_ms = 200\n";
const WORKERS: usize = 12;
const STEPS: u32 = 2_000;
const APPROVAL: u32 = STEPS - 3;
const MERGE: u32 = STEPS - 2;
/// Three of these without a word, and an agent counts as gone.
const HEARTBEAT_MS: u64 = 300;
/// No machine is so busy that it takes longer; an idle one needs a tenth of it.
const LONGEST: Duration = Duration::from_secs(180);

/// One step, 1 995 beside each other, a person's yes to all of them, one that joins them, two after it. Some
/// of the many are skipped by their condition, some may fail for good, and some must not happen twice.
fn workflow() -> Value {
    let many: Vec<u32> = (2..APPROVAL).collect();
    let mut steps = vec![step(1, "first", &[], json!({}))];
    for number in &many {
        let mut one =
            step(*number, "many", &[1], json!({"n": number, "by": {"$expr": "steps[1].result.by"}}));
        match number % 50 {
            7 => one["when"] = json!("steps[1].result.step == 99"),
            1 | 2 => {
                one["action"] = json!("excused");
                one["continueOnError"] = json!(true);
            }
            10..25 => (one["action"], one["effect"]) = (json!("write"), json!("write")),
            _ => {}
        }
        steps.push(one);
    }
    let mut approval = step(APPROVAL, "approve", &many, json!({"text": "join them?"}));
    approval["platform"] = json!("human");
    steps.push(approval);
    steps.push(step(MERGE, "merge", &[APPROVAL, 3], json!({"from": {"$expr": "steps[3].result.step"}})));
    steps.push(step(MERGE + 1, "last", &[MERGE], json!({})));
    steps.push(step(MERGE + 2, "last", &[MERGE, 1], json!({})));
    for step in &mut steps {
        let most = if step["action"] == "excused" { 2 } else { 50 };
        step["retryPolicy"] = json!({"initialDelayMs": 10, "maxDelayMs": 100, "maxAttempts": most});
    }
    Value::Array(steps)
}

/// An agent's process that cannot be relied on.
struct Worker {
    caller: Caller,
    agent: String,
    dice: Dice,
    /// Leases that it keeps silent about, to come back to them late.
    old: Vec<Value>,
    /// Leases whose completion was answered with success: the facts that must be in the log.
    completed: BTreeSet<String>,
    /// How often each call got each status.
    answers: BTreeMap<(&'static str, u16), usize>,
}

impl Worker {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            if self.dice.below(150) == 0 {
                self.be_lost().await;
            }
            let slots = 1 + self.dice.index(3);
            let leases = self.caller.claim(&self.agent, slots).await;
            if leases.is_empty() {
                self.heartbeat().await;
            }
            for lease in leases {
                self.perform(lease).await;
            }
            if self.dice.below(3) == 0 && !self.old.is_empty() {
                let late = self.old.remove(0);
                self.complete(&late, "late").await;
            }
        }
        self
    }

    async fn register(&mut self) {
        let config = json!({"maxConcurrentSteps": 3, "heartbeatIntervalMs": HEARTBEAT_MS});
        self.caller.post("/api/v1/agents", json!({"id": self.agent, "config": config})).await;
    }

    async fn heartbeat(&mut self) {
        let path = format!("/api/v1/agents/{}/heartbeat", self.agent);
        let heard = self.caller.post(&path, json!({"status": "active"})).await;
        self.note("heartbeat", heard);
    }

    /// Says nothing until it counts as gone, then comes back, as itself or as a new incarnation.
    async fn be_lost(&mut self) {
        tokio::time::sleep(Duration::from_millis(4 * HEARTBEAT_MS)).await;
        if self.dice.below(2) == 0 {
            self.register().await;
        } else {
            self.heartbeat().await;
        }
    }

    fn note(&mut self, call: &'static str, heard: Option<Heard>) -> Option<Heard> {
        let (status, body) = heard?;
        // A server that is on its way up or down says so; everything else is an answer of the protocol.
        assert!(matches!(status, 200 | 409 | 410 | 503), "{call} got {status}: {body}");
        *self.answers.entry((call, status)).or_default() += 1;
        Some((status, body))
    }

    async fn say(&mut self, lease: &Value, what: &'static str, body: Value) -> Option<Heard> {
        let heard = self.caller.report(lease, what, body).await;
        self.note(what, heard)
    }

    async fn complete(&mut self, lease: &Value, call: &'static str) -> Option<u16> {
        let body = json!({"result": {"by": self.agent, "step": lease["step"]}});
        let heard = self.caller.report(lease, "complete", body).await;
        let (status, _) = self.note(call, heard)?;
        if status == 200 {
            self.completed.insert(lease["leaseId"].as_str().unwrap().to_owned());
        }
        Some(status)
    }

    async fn perform(&mut self, lease: Value) {
        if lease["action"] == "excused" && self.dice.below(3) == 0 {
            let body = json!({"code": "broken", "message": "it broke", "retryable": false});
            self.say(&lease, "fail", body).await;
            return;
        }
        // Its provider takes no calls for a second, so that it has to be rare.
        if self.dice.below(60) == 0 {
            let body = json!({"code": "rate_limited", "message": "429", "retryAfterMs": 1_000});
            self.say(&lease, "fail", body).await;
            return;
        }
        if lease["action"] == "write" && self.dice.below(15) == 0 {
            let body = json!({"code": "unknown_outcome", "message": "no answer came"});
            self.say(&lease, "fail", body).await;
            return;
        }
        match self.dice.below(100) {
            // Never acknowledged.
            0..4 => self.old.push(lease),
            4..8 => {
                self.say(&lease, "ack", json!({})).await;
                self.old.push(lease);
            }
            8..14 => {
                let body = json!({"code": "flaky", "message": "not this time"});
                self.say(&lease, "fail", body).await;
            }
            14..18 => _ = self.say(&lease, "release", json!({"reason": "not now"})).await,
            18..24 => {
                let body = json!({"progress": 40, "checkpoint": {"at": lease["attempt"]}});
                self.say(&lease, "progress", body).await;
                self.complete(&lease, "complete").await;
            }
            24..32 => self.complete_twice(&lease).await,
            32..60 => {
                self.say(&lease, "ack", json!({})).await;
                self.complete(&lease, "complete").await;
            }
            _ => _ = self.complete(&lease, "complete").await,
        }
    }

    async fn complete_twice(&mut self, lease: &Value) {
        if self.complete(lease, "complete").await != Some(200) {
            return;
        }
        let again = self.complete(lease, "again").await;
        assert!(matches!(again, Some(200 | 503) | None), "the identical body got {again:?}");
        let other = self.say(lease, "complete", json!({"result": "another"})).await;
        if let Some((status, body)) = other.filter(|(status, _)| *status != 503) {
            assert_eq!((status, &body["code"]), (409, &json!("already_terminal")), "{body}");
        }
    }
}

async fn started(photon: &Photon, dice: &mut Dice, stop: &Arc<AtomicBool>) -> Vec<Handle> {
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let mut worker = Worker {
            caller: Caller::of(photon),
            agent: format!("agent-{number}"),
            dice: Dice(dice.roll()),
            old: Vec::new(),
            completed: BTreeSet::new(),
            answers: BTreeMap::new(),
        };
        worker.register().await;
        workers.push(tokio::spawn(worker.run(Arc::clone(stop))));
    }
    workers
}

/// Somebody who finds out what became of writes, says yes, and resumes what was paused.
struct Person {
    caller: Caller,
    dice: Dice,
    operation: String,
    /// How often each word was taken.
    taken: BTreeMap<&'static str, usize>,
}

impl Person {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            // All steps are looked at only when one of them waits for somebody.
            if self.is_blocked_on("attention").await || self.is_blocked_on("approval").await {
                self.look().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self
    }

    async fn is_blocked_on(&self, cause: &str) -> bool {
        let found = self.caller.get(&format!("/api/v1/operations?blockedOn={cause}")).await;
        found.is_some_and(|found| found["data"].as_array().is_some_and(|rows| !rows.is_empty()))
    }

    async fn look(&mut self) {
        let path = format!("/api/v1/operations/{}", self.operation);
        let shown = self.caller.get(&path).await.unwrap_or_default();
        for step in shown["data"]["workflow"].as_array().into_iter().flatten() {
            let (what, body) = match step["status"].as_str() {
                Some("needs_attention") => ("resolve", self.found_out()),
                Some("awaiting_approval") => ("approve", json!({"reason": "all of them are there"})),
                _ => continue,
            };
            self.say(&format!("{path}/steps/{}/{what}", step["step"]), what, body).await;
        }
    }

    fn found_out(&mut self) -> Value {
        match self.dice.below(3) {
            0 => json!({"outcome": "completed", "result": {"by": "a person"}}),
            _ => json!({"outcome": "retry", "reason": "it has not happened"}),
        }
    }

    /// What was seen may have changed since.
    async fn say(&mut self, path: &str, what: &'static str, body: Value) {
        let Some((status, body)) = self.caller.post(path, body).await else { return };
        assert!(matches!(status, 200 | 409 | 503), "{what} got {status}: {body}");
        *self.taken.entry(what).or_default() += usize::from(status == 200);
    }
}

type Handle = tokio::task::JoinHandle<Worker>;

/// Waits until the operation is so far, or over.
async fn until_progress(photon: &Photon, percent: u64, begun: Instant) -> Value {
    loop {
        let list = photon.get("/api/v1/operations").await.expect(200);
        let row = list.data()[0].clone();
        let over = !matches!(row["status"].as_str(), Some("pending" | "in_progress"));
        if over || row["progress"].as_u64() >= Some(percent) && percent <= 100 {
            return row;
        }
        assert!(begun.elapsed() < LONGEST, "still at {} % after {LONGEST:?}", row["progress"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Nothing is given out while it is paused; what was given out is finished.
async fn pause_and_resume(photon: &Photon, id: &str) {
    photon.post(&format!("/api/v1/operations/{id}/pause"), json!({"reason": "too hot"})).await.expect(200);
    let path = format!("/api/v1/operations/{id}");
    let held = |shown: &Value| {
        let mut steps = shown["workflow"].as_array().unwrap().iter();
        steps.any(|step| matches!(step["status"].as_str(), Some("reserved" | "running")))
    };
    photon.until(&path, |shown| !held(shown)).await;
    assert_eq!(photon.shown(id).await["paused"], json!(true));
    photon.post(&format!("{path}/resume"), json!({})).await.expect(200);
}

#[tokio::test]
async fn two_thousand_steps_survive_bad_workers_and_two_kills() {
    let _alone = support::alone();
    let (mut dice, begun) = (history::thrown(), Instant::now());
    let mut photon = Photon::configured(QUICK).await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers = started(&photon, &mut dice, &stop).await;
    let id = photon.operation(workflow()).await;
    let person = Person {
        caller: Caller::of(&photon),
        dice: Dice(dice.roll()),
        operation: id.clone(),
        taken: BTreeMap::new(),
    };
    let person = tokio::spawn(person.run(Arc::clone(&stop)));
    for base in [15, 55] {
        let percent = base + dice.below(25);
        let row = until_progress(&photon, percent, begun).await;
        assert_eq!(row["status"], json!("in_progress"));
        photon.kill();
        photon.restart().await;
        println!("killed at {} % after {:?}", row["progress"], begun.elapsed());
        if base == 15 {
            pause_and_resume(&photon, &id).await;
            println!("resumed after {:?}", begun.elapsed());
        }
    }
    let row = until_progress(&photon, u64::MAX, begun).await;
    println!("{} after {:?}", row["status"], begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    let person = person.await.unwrap();
    println!("a person was heard: {:?}", person.taken);
    let mut completed = BTreeSet::new();
    for worker in workers {
        let worker = worker.await.unwrap();
        println!("{} {:?}", worker.agent, worker.answers);
        completed.extend(worker.completed);
    }
    photon
        .until("/api/v1/agents?limit=100", |agents| {
            agents.as_array().unwrap().iter().all(|agent| agent["currentOperations"] == json!([]))
        })
        .await;
    assert_eq!((&row["status"], &row["progress"]), (&json!("completed"), &json!(100)));
    let findings = checker::check_log(&photon).await;
    println!("{:?} after {:?}", findings.counts, begun.elapsed());
    findings.must_be_over();
    let disturbed = ["step.failed", "step.lease_lost", "step.offer_expired", "step.released"];
    let also = ["step.checkpointed", "steps.skipped", "agent.timeout", "lane.parked", "operation.resumed"];
    let people = ["step.needs_attention", "step.resolved", "step.approved"];
    for kind in disturbed.iter().chain(&also).chain(&people) {
        assert!(findings.count(kind) > 0, "there was no {kind}");
    }
    let told = checker::read(&photon, "limit=500&types=step.completed").await;
    let lease = |event: &Value| {
        let operation = event["subject"].as_str().unwrap().trim_start_matches("operation/op_").to_owned();
        format!("ls_{operation}_{}_{}", event["data"]["step"], event["data"]["grant"])
    };
    let told: BTreeSet<String> = told.iter().map(lease).collect();
    let completed: BTreeSet<String> = completed.iter().map(|lease| untagged(lease)).collect();
    let lost: Vec<&String> = completed.difference(&told).collect();
    assert!(lost.is_empty(), "answered with success and not in the log: {lost:?}");
}

/// The name of a lease without the tag of the log's history.
fn untagged(lease: &str) -> String {
    let (_, rest) = lease.trim_start_matches("ls_").split_once('_').unwrap();
    format!("ls_{rest}")
}
