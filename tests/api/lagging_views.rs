//! What the server answers while its views lag behind the log: writes are answered at once, and every
//! request that looks at the views waits for what was answered before it. Needs the feature `testing`,
//! without which nothing can hold the views.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, Photon, step};

/// Long enough that no request is refused for it here.
const PATIENT: &str = "[limits]\nviews_wait_ms = 60000\n";
/// So that a refusal comes at once.
const HASTY: &str = "[limits]\nviews_wait_ms = 50\n";
/// A request that has not been answered after this time waits.
const A_WHILE: Duration = Duration::from_millis(100);

async fn hold(photon: &Photon) {
    photon.post("/testing/views", json!({})).await.expect(202);
}

async fn let_go(photon: &Photon) {
    photon.delete("/testing/views").await.expect(202);
}

fn work() -> Value {
    json!([step(1, "work", &[], json!({}))])
}

/// Sends a request while the views are held, and lets them go when it has waited for a while.
async fn waits(photon: &Photon, request: impl Future<Output = Answer>) -> Answer {
    let mut request = std::pin::pin!(request);
    if let Ok(answer) = tokio::time::timeout(A_WHILE, &mut request).await {
        panic!("it was answered while the views lagged: {}", answer.body);
    }
    let_go(photon).await;
    request.await
}

async fn keyed(photon: &Photon, path: &str, key: &str, body: &Value) -> Answer {
    photon.send(photon.request("POST", path).header("idempotency-key", key).json(body)).await
}

fn position(answer: &Answer) -> u64 {
    answer.header("photon-position").parse().unwrap()
}

#[tokio::test]
async fn a_creation_is_answered_at_once_and_a_read_of_it_waits() {
    let photon = Photon::configured(PATIENT).await;
    hold(&photon).await;
    let created =
        photon.post("/api/v1/operations", json!({"name": "n", "workflow": work()})).await.expect(201);
    let path = format!("/api/v1/operations/{}", created.data()["id"].as_str().unwrap());
    let read = waits(&photon, photon.get(&path)).await.expect(200);
    assert!(position(&read) >= position(&created));
    assert_eq!(read.header("etag"), created.header("etag"));
}

#[tokio::test]
async fn what_was_just_created_can_be_cancelled() {
    let photon = Photon::configured(PATIENT).await;
    hold(&photon).await;
    let id = photon.operation(work()).await;
    let cancelled = waits(&photon, photon.delete(&format!("/api/v1/operations/{id}"))).await.expect(200);
    assert_eq!(cancelled.data()["status"], json!("cancelled"));
    photon.delete("/api/v1/operations/op_00000000000000000000000000000009").await.refused(404, "not_found");
}

#[tokio::test]
async fn what_follows_a_position_that_an_answer_names_is_read_after_it() {
    let photon = Photon::configured(PATIENT).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(work()).await;
    let lease = photon.claim("a").await;
    hold(&photon).await;
    // Settlements do not wait, and say how their operation stands.
    let done = photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(done.data()["operationStatus"], json!("completed"));
    // Repetitions neither; what they rest on is waited for, too.
    let again = photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert!(position(&again) >= position(&done));
    let path = format!("/api/v1/operations/{id}?minPosition={}", position(&done));
    let read = waits(&photon, photon.get(&path)).await.expect(200);
    assert_eq!(read.data()["status"], json!("completed"));
}

#[tokio::test]
async fn two_requests_with_one_key_lead_to_one_thing() {
    let photon = Photon::configured(PATIENT).await;
    photon.agent("a", &[]).await;
    photon.operation(work()).await;
    let lease = photon.claim("a").await;
    let path = format!("/api/v1/leases/{}/fail", lease["leaseId"].as_str().unwrap());
    let body = json!({"code": "broken", "message": "no"});
    hold(&photon).await;
    let first = keyed(&photon, &path, "k", &body).await.expect(200);
    let second = waits(&photon, keyed(&photon, &path, "k", &body)).await.expect(200);
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(second.data(), first.data());
}

#[tokio::test]
async fn two_creations_with_one_key_make_one_operation() {
    let photon = Photon::configured(PATIENT).await;
    hold(&photon).await;
    let new = json!({"name": "n", "workflow": work()});
    let made = keyed(&photon, "/api/v1/operations", "c", &new).await.expect(201);
    let again = waits(&photon, keyed(&photon, "/api/v1/operations", "c", &new)).await.expect(201);
    assert_eq!(again.data()["id"], made.data()["id"]);
}

#[tokio::test]
async fn a_key_of_which_the_client_hung_up_is_found_by_the_next_request() {
    let photon = Photon::configured(PATIENT).await;
    photon.agent("a", &[]).await;
    photon.operation(work()).await;
    let lease = photon.claim("a").await;
    let path = format!("/api/v1/leases/{}/release", lease["leaseId"].as_str().unwrap());
    let body = json!({"holdMs": 0});
    // Whether it was sent when its client hung up differs; it is carried out once at most.
    for micros in [0, 200, 500, 1_000, 5_000] {
        let lost = keyed(&photon, &path, "k", &body);
        let _ = tokio::time::timeout(Duration::from_micros(micros), lost).await;
    }
    keyed(&photon, &path, "k", &body).await.expect(200);
    let history = photon.history(lease["operationId"].as_str().unwrap()).await;
    assert_eq!(history.iter().filter(|name| *name == "step.released").count(), 1, "{history:?}");
}

#[tokio::test]
async fn a_heartbeat_right_after_a_claim_knows_the_lease() {
    let photon = Photon::configured(PATIENT).await;
    photon.agent("a", &[]).await;
    photon.operation(work()).await;
    let lease = photon.claim("a").await;
    let beat = json!({"leases": [{"leaseId": lease["leaseId"]}]});
    // The acknowledgement is answered, and the heartbeat waits until the views show it.
    hold(&photon).await;
    photon.operation(work()).await;
    let told = waits(&photon, photon.post("/api/v1/agents/a/heartbeat", beat)).await.expect(200);
    assert_eq!(told.data()["renewed"][0]["leaseId"], lease["leaseId"]);
    assert_eq!(told.data()["directives"], json!([]));
}

#[tokio::test]
async fn an_agent_that_a_creation_names_is_known_as_soon_as_its_registration_is_answered() {
    let photon = Photon::configured(PATIENT).await;
    hold(&photon).await;
    photon.agent("a", &[]).await;
    let named = json!({"name": "n", "agents": ["a"], "workflow": work()});
    waits(&photon, photon.post("/api/v1/operations", named)).await.expect(201);
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_refused_and_its_heartbeat_counts() {
    let photon = Photon::configured(HASTY).await;
    photon.agent("a", &[]).await;
    let before = photon.until("/api/v1/agents/a/availability", |_| true).await["lastSeen"].clone();
    hold(&photon).await;
    let id = photon.operation(work()).await;
    photon.get(&format!("/api/v1/operations/{id}")).await.refused(503, "overloaded");
    photon.post("/api/v1/agents/a/heartbeat", json!({})).await.refused(503, "overloaded");
    photon.post("/api/v1/agents/a/claim", json!({"wait": "0s"})).await.refused(503, "overloaded");
    // What must be seen in spite of it.
    photon.get("/health/live").await.expect(200);
    photon.get("/metrics").await.expect(200);
    let_go(&photon).await;
    let seen = photon.until("/api/v1/agents/a/availability", |_| true).await["lastSeen"].clone();
    assert!(seen.as_str().unwrap() > before.as_str().unwrap(), "{seen} {before}");
}
