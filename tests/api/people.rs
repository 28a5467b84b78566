//! What people do with operations over HTTP: pause, approve, reject, retry, skip, resolve.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Photon, step};

fn approval(number: u32, dependencies: &[u32], inputs: Value) -> Value {
    let mut step = step(number, "approve", dependencies, inputs);
    step["platform"] = json!("human");
    step
}

fn write(number: u32) -> Value {
    let mut step = step(number, "deploy", &[], json!({}));
    step["effect"] = json!("write");
    step
}

fn of_step(id: &str, number: u32, what: &str) -> String {
    format!("/api/v1/operations/{id}/steps/{number}/{what}")
}

/// Ids of the operations in which something waits for this.
async fn waiting_for(photon: &Photon, cause: &str) -> Vec<Value> {
    let found = photon.get(&format!("/api/v1/operations?blockedOn={cause}")).await.expect(200);
    found.data().as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
}

#[tokio::test]
async fn a_paused_operation_gives_out_nothing_until_it_is_resumed_even_after_a_restart() {
    let mut photon = Photon::start().await;
    photon.agent("ada", &[]).await;
    let id = photon.operation(json!([step(1, "a", &[], json!({})), step(2, "b", &[1], json!({}))])).await;
    let lease = photon.claim("ada").await;
    let path = format!("/api/v1/operations/{id}/pause");
    let paused = photon.post(&path, json!({"reason": "too hot"})).await.expect(200);
    assert_eq!(paused.data()["paused"], json!(true));
    let again = photon.post(&path, json!({})).await.expect(200);
    assert_eq!(again.data()["revision"], paused.data()["revision"]);
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(waiting_for(&photon, "resume").await, [json!(id)]);
    photon.kill();
    photon.restart().await;
    let shown = photon.shown(&id).await;
    assert_eq!((&shown["paused"], &shown["blockedOn"]), (&json!(true), &json!(["resume"])));
    assert_eq!(shown["workflow"][1]["blockedOn"], json!({"kind": "resume"}));
    let nothing = photon.post("/api/v1/agents/ada/claim", json!({"wait": "50ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
    photon.post(&format!("/api/v1/operations/{id}/resume"), json!({})).await.expect(200);
    let lease = photon.claim("ada").await;
    photon.report(&lease, "complete", json!({"result": 2})).await.expect(200);
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
    let refused = photon.post(&path, json!({})).await;
    refused.refused(409, "already_terminal");
}

#[tokio::test]
async fn a_question_to_people_is_listed_answered_and_recorded_with_who_and_why() {
    let photon = Photon::start().await;
    photon.agent("ada", &[]).await;
    let ask = approval(2, &[1], json!({"text": {"$template": "ship {{ steps[1].result }}?"}}));
    let id = photon.operation(json!([step(1, "build", &[], json!({})), ask])).await;
    let lease = photon.claim("ada").await;
    photon.report(&lease, "complete", json!({"result": "v2"})).await.expect(200);
    photon.operation(json!([step(1, "build", &[], json!({}))])).await;
    assert_eq!(waiting_for(&photon, "approval").await, [json!(id)]);
    let shown = photon.shown(&id).await;
    let asked = &shown["workflow"][1];
    assert_eq!(asked["status"], json!("awaiting_approval"));
    assert_eq!(asked["resolvedInputs"], json!({"text": "ship v2?"}));
    assert_eq!(asked["blockedOn"]["kind"], json!("approval"));
    assert!(asked["blockedOn"]["until"].is_string());
    photon.post(&of_step(&id, 2, "skip2"), json!({})).await.expect(404);
    let long = "x".repeat(1_025);
    let refused = photon.post(&of_step(&id, 2, "approve"), json!({"reason": long})).await;
    refused.refused(422, "invalid_field");
    photon.post(&of_step(&id, 2, "approve"), json!({"why": "x"})).await.refused(400, "unknown_field");
    photon.post(&of_step(&id, 9, "approve"), json!({})).await.expect(404);
    photon.post(&of_step(&id, 1, "approve"), json!({})).await.refused(409, "already_terminal");
    let key = photon.request("POST", &of_step(&id, 2, "approve")).header("idempotency-key", "yes");
    let yes = photon.send(key.json(&json!({"reason": "tests are green"}))).await.expect(200);
    let said = json!({"approved": true, "by": "anonymous", "reason": "tests are green"});
    assert_eq!((&yes.data()["status"], &yes.data()["result"]), (&json!("completed"), &said));
    let key = photon.request("POST", &of_step(&id, 2, "approve")).header("idempotency-key", "yes");
    let again = photon.send(key.json(&json!({"reason": "tests are green"}))).await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    photon.post(&of_step(&id, 2, "reject"), json!({})).await.refused(409, "already_terminal");
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
    let history = photon.history(&id).await;
    assert_eq!(history.iter().filter(|name| *name == "step.approved").count(), 1);
    assert!(waiting_for(&photon, "approval").await.is_empty());
}

#[tokio::test]
async fn a_no_and_no_answer_are_different_ends_and_the_wait_survives_a_restart() {
    let mut photon = Photon::start().await;
    let mut brief = approval(1, &[], json!({}));
    brief["timeout"] = json!(700);
    let refused = photon.operation(json!([approval(1, &[], json!({}))])).await;
    let expired = photon.operation(json!([brief])).await;
    photon.post(&of_step(&refused, 1, "reject"), json!({"reason": "not now"})).await.expect(200);
    photon.kill();
    photon.restart().await;
    let code = |shown: &Value| shown["workflow"][0]["errorCode"].clone();
    assert_eq!(code(&photon.shown(&refused).await), json!("rejected"));
    let path = format!("/api/v1/operations/{expired}?wait=10s");
    let shown = photon.get(&path).await.expect(200);
    assert_eq!((&shown.data()["status"], code(shown.data())), (&json!("failed"), json!("expired")));
}

#[tokio::test]
async fn a_write_that_was_lost_waits_for_a_person_across_a_restart() {
    let mut photon = Photon::configured("[agents]\nlease_ms = 1000\n").await;
    photon.agent("ada", &[]).await;
    let id = photon.operation(json!([write(1)])).await;
    let lease = photon.claim("ada").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.kill();
    photon.restart().await;
    let path = format!("/api/v1/operations/{id}");
    photon.until(&path, |shown| shown["workflow"][0]["status"] == json!("needs_attention")).await;
    assert_eq!(waiting_for(&photon, "attention").await, [json!(id)]);
    let dashboard = photon.get("/metrics/dashboard").await.expect(200);
    let concern = &dashboard.data()["attention"][0];
    assert_eq!((&concern["kind"], &concern["operationId"]), (&json!("needs_attention"), &json!(id)));
    let resolve = of_step(&id, 1, "resolve");
    let body = json!({"outcome": "failed", "result": 1});
    photon.post(&resolve, body).await.refused(422, "invalid_field");
    photon.post(&resolve, json!({"outcome": "maybe"})).await.refused(422, "invalid_field");
    let wrong = photon.post(&resolve, json!({"outcome": 1})).await.refused(422, "invalid_field");
    assert_eq!(wrong.body["problem"]["errors"][0]["pointer"], json!("/outcome"));
    photon.post(&of_step(&id, 1, "approve"), json!({})).await.refused(409, "conflict");
    let body = json!({"outcome": "completed", "result": {"deployed": true}, "reason": "seen it"});
    photon.post(&resolve, body).await.expect(200);
    let shown = photon.shown(&id).await;
    assert_eq!((&shown["status"], &shown["results"]["1"]), (&json!("completed"), &json!({"deployed": true})));
    // Whoever had it comes late, and says the same or something else.
    let late = photon.report(&lease, "complete", json!({"result": {"deployed": true}})).await;
    late.expect(200);
    photon.report(&lease, "complete", json!({"result": 2})).await.refused(409, "already_terminal");
}

#[tokio::test]
async fn a_step_can_be_skipped_or_tried_again_by_hand() {
    let photon = Photon::start().await;
    photon.agent("ada", &[]).await;
    let mut first = step(1, "a", &[], json!({}));
    first["retryPolicy"] = json!({"initialDelayMs": 3_600_000, "maxDelayMs": 3_600_000});
    let id = photon.operation(json!([first, step(2, "b", &[1], json!({})), step(3, "c", &[2], json!({}))]));
    let id = id.await;
    let lease = photon.claim("ada").await;
    let error = json!({"code": "flaky", "message": "once more"});
    photon.report(&lease, "fail", error).await.expect(200);
    let retried = photon.post(&of_step(&id, 1, "retry"), json!({"reason": "fixed"})).await.expect(200);
    assert_eq!(retried.data()["status"], json!("ready"));
    let skipped = photon.post(&of_step(&id, 2, "skip"), json!({})).await.expect(200);
    assert_eq!(skipped.data()["errorCode"], json!("requested"));
    let lease = photon.claim("ada").await;
    assert_eq!((&lease["step"], &lease["attempt"]), (&json!(1), &json!(2)));
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.claim("ada").await["step"], json!(3));
}
