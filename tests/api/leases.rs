//! What leases survive: lost answers, heartbeats about good and bad ones, a busy history.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, PATIENCE, Photon, checker, step};

const QUICK: &str = "[agents]\nlease_ms = 1000\noffer_ms = 300\n";

fn one_step() -> Value {
    json!([step(1, "work", &[], json!({"n": 1}))])
}

/// Begins a claim with a key; dropping it hangs up.
fn claiming(photon: &Photon, key: &str) -> impl Future<Output = Answer> {
    let request = photon.request("POST", "/api/v1/agents/a/claim").header("idempotency-key", key);
    photon.send(request.json(&json!({"wait": "20s"})))
}

async fn types_of(photon: &Photon, query: &str) -> Vec<String> {
    let events = photon.get(&format!("/api/v1/events?limit=500&{query}")).await.expect(200);
    let events = events.data().as_array().unwrap().clone();
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_chain_of_resends_ends_in_one_lease() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for _ in 0..3 {
        // Each waits at the server when its client hangs up.
        tokio::select! {
            answer = claiming(&photon, "c1") => panic!("there was no work yet: {}", answer.body),
            () = photon.claims_waiting(1) => {}
        }
    }
    let (first, id) = tokio::join!(claiming(&photon, "c1"), async {
        photon.claims_waiting(1).await;
        photon.operation(one_step()).await
    });
    let lease = first.expect(200).data()["leases"][0].clone();
    assert_eq!(lease["operationId"], json!(id));
    // However often it is made again, before and after the first sign of life.
    for round in 0..4 {
        let again = claiming(&photon, "c1").await.expect(200);
        let leases = again.data()["leases"].as_array().unwrap().clone();
        assert_eq!(leases.len(), 1);
        for name in ["leaseId", "fencingToken", "operationId", "step", "attempt", "action", "inputs"] {
            assert_eq!(leases[0][name], lease[name], "{name}");
        }
        if round == 1 {
            photon.report(&lease, "ack", json!({})).await.expect(200);
        }
    }
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    let history = photon.history(&id).await;
    assert_eq!(history.iter().filter(|name| *name == "step.reserved").count(), 1, "{history:?}");
    assert_eq!(types_of(&photon, "types=step.reserved").await.len(), 1);
    assert_eq!(types_of(&photon, "agent=a").await, ["agent.registered"], "who works is told by operations");
    // The lease is over, so the claim is one for new work.
    let (next, other) = tokio::join!(claiming(&photon, "c1"), async {
        photon.claims_waiting(1).await;
        photon.operation(one_step()).await
    });
    assert_eq!(next.expect(200).data()["leases"][0]["operationId"], json!(other));
}

#[tokio::test]
async fn a_claim_made_again_the_moment_its_client_hung_up_gets_the_lease() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for round in 0..10 {
        let key = format!("c{round}");
        // Somewhere between the claim's arrival and its answer the client hangs up: where differs each time.
        let lost = tokio::time::timeout(Duration::from_millis(round), claiming(&photon, &key));
        let (id, _) = tokio::join!(photon.operation(one_step()), lost);
        let again = claiming(&photon, &key).await.expect(200);
        let lease = again.data()["leases"][0].clone();
        assert_eq!((&lease["operationId"], &lease["fencingToken"]), (&json!(id), &json!(1)), "{round}");
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
}

#[tokio::test]
async fn a_heartbeat_renews_what_is_good_and_names_what_is_lost() {
    let photon = Photon::configured(QUICK).await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 3});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    photon.agent("b", &[]).await;
    let kept = photon.operation(one_step()).await;
    let good = photon.claim("a").await;
    photon.operation(one_step()).await;
    let revoked = photon.claim("a").await;
    photon.report(&revoked, "ack", json!({})).await.expect(200);
    photon.operation(one_step()).await;
    let foreign = photon.claim("b").await;
    photon.report(&foreign, "ack", json!({})).await.expect(200);
    let lease = revoked["leaseId"].as_str().unwrap();
    photon.delete(&format!("/api/v1/leases/{lease}")).await.expect(200);
    // It never was: no such grant.
    let invented = good["leaseId"].as_str().unwrap().replace("_1_1", "_1_9");
    assert_ne!(json!(invented), good["leaseId"]);
    let bad = [revoked["leaseId"].clone(), foreign["leaseId"].clone(), json!(invented)];
    let mut named: Vec<Value> = bad.iter().map(|lease| json!({"leaseId": lease, "progress": 7})).collect();
    named.insert(1, json!({"leaseId": good["leaseId"], "progress": 40, "checkpoint": {"at": 40}}));
    // Longer than two lease periods.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_200) {
        let told = photon.post("/api/v1/agents/a/heartbeat", json!({"leases": named})).await.expect(200);
        let renewed = told.data()["renewed"].as_array().unwrap();
        assert_eq!((renewed.len(), &renewed[0]["leaseId"]), (1, &good["leaseId"]), "{}", told.body);
        let lost = |lease: &Value| json!({"type": "lost", "leaseId": lease});
        let directives = told.data()["directives"].as_array().unwrap();
        for (directive, lease) in directives.iter().zip(&bad) {
            let (kind, of) = (&directive["type"], &directive["leaseId"]);
            assert_eq!(json!({"type": kind, "leaseId": of}), lost(lease));
        }
        assert_eq!(directives.len(), bad.len(), "{}", told.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = photon.shown(&kept).await;
    assert_eq!((&shown["workflow"][0]["status"], &shown["progress"]), (&json!("running"), &json!(40)));
    photon.report(&good, "complete", json!({"result": 1})).await.expect(200);
    // What another agent said of it kept nothing alive.
    photon.report(&foreign, "progress", json!({"progress": 1})).await.refused(410, "lease_lost");
}

#[tokio::test]
async fn an_offer_and_a_lease_end_in_time_however_busy_their_operation_is() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let mut lease = photon.claim("a").await;
    for (ends_with, within_ms) in [("step.offer_expired", 300), ("step.lease_lost", 1_000)] {
        let (begun, mut count) = (Instant::now(), 0);
        while !photon.history(&id).await.contains(&ends_with.to_owned()) {
            assert!(begun.elapsed() < PATIENCE, "no {ends_with} after {count} changes");
            photon.put(&format!("/api/v1/operations/{id}"), json!({"name": format!("n{count}")})).await;
            count += 1;
        }
        assert!(begun.elapsed() >= Duration::from_millis(within_ms / 2), "{ends_with} came too early");
        assert!(count > 5, "the operation was not busy");
        if ends_with == "step.offer_expired" {
            lease = photon.claim("a").await;
            photon.report(&lease, "ack", json!({})).await.expect(200);
        }
    }
    photon.report(&lease, "progress", json!({"progress": 1})).await.refused(410, "lease_lost");
}

/// One write, which is tried twice.
fn a_write() -> Value {
    let mut workflow = one_step();
    workflow[0]["effect"] = json!("write");
    workflow[0]["retryPolicy"] = json!({"initialDelayMs": 1, "maxAttempts": 2});
    workflow
}

#[tokio::test]
async fn an_offer_of_a_write_that_expires_proves_that_nothing_was_done() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(a_write()).await;
    let first = photon.claim("a").await;
    assert_eq!(first["effect"], json!("write"), "an agent acknowledges before it begins such a step");
    let second = photon.claim("a").await;
    assert_eq!((&second["attempt"], &second["fencingToken"]), (&json!(1), &json!(2)));
    let kinds = ["step.offer_expired", "step.needs_attention", "step.lease_lost"];
    let history = photon.history(&id).await;
    assert_eq!(kinds.map(|kind| history.iter().filter(|name| *name == kind).count()), [1, 0, 0]);
    // Whoever begins without saying so has lost the lease before.
    photon.report(&first, "ack", json!({})).await.refused(410, "lease_lost");
    photon.report(&second, "ack", json!({})).await.expect(200);
    // What was begun is another matter: nobody knows.
    let path = format!("/api/v1/operations/{id}/steps/1");
    photon.until(&path, |step| step["status"] == "needs_attention").await;
    let plain = photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    assert_eq!((&lease["operationId"], &lease["effect"]), (&json!(plain), &json!("idempotent")));
    checker::check_log(&photon).await.must_be_clean();
}

#[tokio::test]
async fn the_fifth_offer_in_a_row_that_nobody_takes_spends_the_attempt() {
    let photon = Photon::configured(&format!("{QUICK}untaken_in_a_row = 1000\n")).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(a_write()).await;
    for grant in 1..=10 {
        let lease = photon.claim("a").await;
        let attempt = if grant <= 5 { 1 } else { 2 };
        assert_eq!((&lease["fencingToken"], &lease["attempt"]), (&json!(grant), &json!(attempt)));
    }
    let ended = photon.get(&format!("/api/v1/operations/{id}?wait=10s")).await.expect(200);
    let step = &ended.data()["workflow"][0];
    assert_eq!((&step["status"], &step["errorCode"]), (&json!("failed"), &json!("lease_lost")));
    let history = photon.history(&id).await;
    let count = |kind: &str| history.iter().filter(|name| *name == kind).count();
    let kinds = ["step.offer_expired", "step.lease_lost", "step.retry_scheduled", "step.needs_attention"];
    assert_eq!(kinds.map(count), [10, 2, 1, 0], "{history:?}");
    // A sign of life between them begins the row again.
    let other = photon.operation(one_step()).await;
    for _ in 0..4 {
        photon.claim("a").await;
    }
    let taken = photon.claim("a").await;
    photon.report(&taken, "release", json!({"holdMs": 0})).await.expect(200);
    for _ in 0..4 {
        photon.claim("a").await;
    }
    let last = photon.claim("a").await;
    assert_eq!((&last["attempt"], &last["operationId"]), (&json!(1), &json!(other)));
    photon.report(&last, "complete", json!({"result": 1})).await.expect(200);
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_claim_of_an_old_incarnation_gets_nothing() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let again = json!({"id": "a", "config": {"heartbeatIntervalMs": 0}});
    // One waits while the next incarnation registers.
    let (old, _) = tokio::join!(photon.post("/api/v1/agents/a/claim", json!({"wait": "20s"})), async {
        photon.claims_waiting(1).await;
        photon.post("/api/v1/agents", again.clone()).await.expect(200);
        photon.operation(one_step()).await
    });
    assert_eq!(old.expect(200).data()["leases"], json!([]));
    // The others come later.
    let claim = |incarnation: u64| {
        photon.post("/api/v1/agents/a/claim", json!({"wait": "200ms", "incarnation": incarnation}))
    };
    claim(1).await.refused(409, "stale_incarnation");
    let current = claim(2).await.expect(200);
    let lease = current.data()["leases"][0].clone();
    // A report of before the registration is not answered with work either.
    photon.operation(one_step()).await;
    photon.post("/api/v1/agents", again).await.expect(200);
    let body = json!({"result": 1, "claim": {"max": 1}});
    let late = photon.report(&lease, "complete", body).await;
    assert_ne!(late.data()["leases"].as_array().map(Vec::len), Some(1), "{}", late.body);
    claim(2).await.refused(409, "stale_incarnation");
    assert_eq!(claim(3).await.expect(200).data()["leases"].as_array().unwrap().len(), 1);
    let reserved = types_of(&photon, "types=step.reserved").await;
    assert!((2..=3).contains(&reserved.len()), "{reserved:?}");
    checker::check_log(&photon).await.must_be_clean();
}
