//! Agents that are put out of service, by their own history or by somebody's wish, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::Instant;

use serde_json::{Value, json};
use support::{PATIENCE, Photon, step};

const QUICK: &str = "[agents]\nlease_ms = 1000\noffer_ms = 100\n";

/// One step that is tried until it works.
fn stubborn() -> Value {
    let mut workflow = json!([step(1, "work", &[], json!({}))]);
    workflow[0]["retryPolicy"] = json!({"initialDelayMs": 1, "maxAttempts": 10});
    workflow
}

async fn heartbeat(photon: &Photon, agent: &str, body: Value) -> Value {
    let path = format!("/api/v1/agents/{agent}/heartbeat");
    photon.post(&path, body).await.expect(200).data().clone()
}

async fn finds_nothing(photon: &Photon, agent: &str) {
    let path = format!("/api/v1/agents/{agent}/claim");
    let nothing = photon.post(&path, json!({"wait": "100ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
}

/// The agent's own events: what became of its status, and why.
async fn told(photon: &Photon, agent: &str) -> Vec<(String, String)> {
    let path = format!("/api/v1/events?agent={agent}&types=agent.status_changed&limit=500");
    let events = photon.get(&path).await.expect(200).data().as_array().unwrap().clone();
    let text = |event: &Value, name: &str| event["data"][name].as_str().unwrap().to_owned();
    events.iter().map(|event| (text(event, "to"), text(event, "reason"))).collect()
}

fn quarantined(reason: &str) -> Vec<(String, String)> {
    vec![("error".to_owned(), reason.to_owned())]
}

/// How often something happened to an operation.
async fn count(photon: &Photon, id: &str, kind: &str) -> usize {
    photon.history(id).await.iter().filter(|name| *name == kind).count()
}

async fn row(photon: &Photon, agent: &str, name: &str) -> Value {
    let shown = photon.get(&format!("/api/v1/agents/{agent}")).await.expect(200);
    shown.data()["metrics"][name].clone()
}

#[tokio::test]
async fn five_offers_that_are_not_taken_are_a_quarantine_until_the_owner_ends_it() {
    let mut photon = Photon::configured(QUICK).await;
    photon.agent("deaf", &[]).await;
    let workflow = stubborn();
    // No two of them are offers of one step in a row: those spend its attempt.
    let mut ids = vec![photon.operation(workflow.clone()).await];
    for _ in 0..4 {
        photon.claim("deaf").await;
    }
    let lost = ids[0].clone();
    photon.until(&format!("/api/v1/operations/{lost}/steps/1"), |step| step["status"] == "ready").await;
    photon.delete(&format!("/api/v1/operations/{lost}")).await.expect(200);
    assert_eq!(row(&photon, "deaf", "untakenInARow").await, json!(4));
    ids.push(photon.operation(workflow).await);
    photon.claim("deaf").await;
    let shown = photon.until("/api/v1/agents/deaf", |agent| agent["status"] == json!("error")).await;
    assert_eq!(shown["statusReason"], json!("quarantined_untaken"));
    assert_eq!(told(&photon, "deaf").await, quarantined("quarantined_untaken"));
    for (id, times) in ids.iter().zip([4, 1]) {
        assert_eq!(count(&photon, id, "step.offer_expired").await, times);
    }
    heartbeat(&photon, "deaf", json!({})).await;
    finds_nothing(&photon, "deaf").await;
    // It is history, not memory.
    photon.kill();
    photon.restart().await;
    finds_nothing(&photon, "deaf").await;
    heartbeat(&photon, "deaf", json!({"status": "active"})).await;
    let lease = photon.claim("deaf").await;
    assert_eq!(lease["attempt"], json!(1), "offers spend no attempt");
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    photon.until("/api/v1/agents/deaf", |agent| agent["status"] == json!("active")).await;
}

#[tokio::test]
async fn a_step_that_was_given_back_is_no_offer_that_was_not_taken() {
    let photon = Photon::configured("[agents]\nrelease_hold_ms = 0\n").await;
    photon.agent("picky", &[]).await;
    let id = photon.operation(stubborn()).await;
    for _ in 0..6 {
        let lease = photon.claim("picky").await;
        photon.report(&lease, "release", json!({"reason": "not mine"})).await.expect(200);
    }
    let lease = photon.claim("picky").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(count(&photon, &id, "step.released").await, 6);
    assert_eq!(count(&photon, &id, "step.offer_expired").await, 0);
    assert_eq!(told(&photon, "picky").await, []);
}

#[tokio::test]
async fn three_lost_leases_are_a_quarantine_in_which_running_work_goes_on() {
    let photon = Photon::configured(QUICK).await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 2});
    photon.post("/api/v1/agents", json!({"id": "frail", "config": config})).await.expect(201);
    let steady = photon.operation(json!([step(1, "steady", &[], json!({}))])).await;
    let kept = photon.claim("frail").await;
    let alive = json!({"leases": [{"leaseId": kept["leaseId"]}]});
    let id = photon.operation(stubborn()).await;
    let begun = Instant::now();
    while photon.get("/api/v1/agents/frail").await.data()["status"] != json!("error") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", told(&photon, "frail").await);
        heartbeat(&photon, "frail", alive.clone()).await;
        let path = "/api/v1/agents/frail/claim";
        let answer = photon.post(path, json!({"wait": "50ms"})).await.expect(200);
        for lost in answer.data()["leases"].as_array().unwrap() {
            photon.report(lost, "ack", json!({})).await.expect(200);
        }
    }
    assert_eq!(told(&photon, "frail").await, quarantined("quarantined_losses"));
    assert_eq!(count(&photon, &id, "step.lease_lost").await, 3);
    assert_eq!(row(&photon, "frail", "lostInARow").await, json!(3));
    heartbeat(&photon, "frail", alive).await;
    finds_nothing(&photon, "frail").await;
    photon.report(&kept, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.shown(&steady).await["status"], json!("completed"));
    let config = json!({"heartbeatIntervalMs": 0});
    photon.post("/api/v1/agents", json!({"id": "frail", "config": config})).await.expect(200);
    photon.claim("frail").await;
}

#[tokio::test]
async fn a_drained_agent_finishes_and_gets_nothing_new_until_it_is_resumed() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 2});
    let body = json!({"id": "a", "config": config});
    photon.post("/api/v1/agents", body.clone()).await.expect(201);
    let id = photon.operation(stubborn()).await;
    let lease = photon.claim("a").await;
    photon.call(["agent", "drain", "a"]).ends_with(0);
    let shown = photon.get("/api/v1/agents/a").await.expect(200);
    assert_eq!(
        (&shown.data()["status"], &shown.data()["statusReason"]),
        (&json!("inactive"), &json!("drained"))
    );
    let next = photon.operation(stubborn()).await;
    finds_nothing(&photon, "a").await;
    let pulse = heartbeat(&photon, "a", json!({"leases": [{"leaseId": lease["leaseId"]}]})).await;
    assert_eq!(
        (&pulse["directives"][0]["type"], &pulse["renewed"][0]["leaseId"]),
        (&json!("drain"), &lease["leaseId"])
    );
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
    // Neither its own wish nor a new process of it ends what an operator asked for.
    let pulse = heartbeat(&photon, "a", json!({"status": "active"})).await;
    assert_eq!(pulse["directives"][0]["type"], json!("drain"));
    let again = photon.post("/api/v1/agents", body).await.expect(200);
    assert_eq!(again.data()["status"], json!("inactive"));
    finds_nothing(&photon, "a").await;
    photon.call(["agent", "resume", "a"]).ends_with(0);
    assert_eq!(photon.claim("a").await["operationId"], json!(next));
}

#[tokio::test]
async fn the_leases_of_a_drained_agent_that_dies_are_lost_by_its_silence() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 200});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    let id = photon.operation(stubborn()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.put("/api/v1/agents/a", json!({"status": "inactive"})).await.expect(200);
    let path = format!("/api/v1/operations/{id}");
    photon
        .until(&path, |shown| {
            shown["workflow"][0]["assignedAgent"] != json!("a")
                || shown["workflow"][0]["status"] != json!("running")
        })
        .await;
    assert!(photon.history(&id).await.contains(&"step.lease_lost".to_owned()));
    heartbeat(&photon, "a", json!({})).await;
    assert_eq!(photon.get("/api/v1/agents/a").await.data()["statusReason"], json!("drained"));
}
