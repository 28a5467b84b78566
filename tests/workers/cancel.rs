//! Work that is cut short: what each late word of an agent is answered, and how long its slot is kept.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use chrono::DateTime;
use serde_json::{Value, json};
use support::{Photon, checker, step};

/// Longer than any test waits: what is free before has not waited for it.
const LONG_GRACE: &str = "[agents]\ncancel_grace_ms = 600000\noffer_ms = 300\n";
const GRACE_MS: i64 = 3_000;
const SHORT_GRACE: &str = "[agents]\ncancel_grace_ms = 3000\n";

fn chain() -> Value {
    json!([step(1, "work", &[], json!({})), step(2, "work", &[1], json!({}))])
}

async fn cancel(photon: &Photon, id: &str) {
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
}

async fn begun(photon: &Photon, agent: &str) -> Value {
    let lease = photon.claim(agent).await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    lease
}

async fn free_slots(photon: &Photon, agent: &str) -> u64 {
    let path = format!("/api/v1/agents/{agent}/availability");
    photon.get(&path).await.expect(200).data()["free"].as_u64().unwrap()
}

async fn until_free(photon: &Photon, agent: &str) {
    photon.until(&format!("/api/v1/agents/{agent}/availability"), |slots| slots["free"] == 1).await;
}

/// When the one event of a type happened, in milliseconds.
async fn moment(photon: &Photon, query: &str) -> i64 {
    let events = checker::read(photon, &format!("limit=500&{query}")).await;
    assert_eq!(events.len(), 1, "{query}");
    DateTime::parse_from_rfc3339(events[0]["time"].as_str().unwrap()).unwrap().timestamp_millis()
}

/// How long the agent's slot was kept after the operation was cancelled.
async fn kept_ms(photon: &Photon, id: &str) -> i64 {
    let cancelled = moment(photon, &format!("operation={id}&types=operation.cancelled")).await;
    moment(photon, &format!("operation={id}&types=lease.closed")).await - cancelled
}

#[tokio::test]
async fn who_ignores_a_cancel_keeps_the_slot_until_the_end_of_grace_and_no_longer() {
    let photon = Photon::configured(SHORT_GRACE).await;
    photon.agent("deaf", &[]).await;
    let id = photon.operation(chain()).await;
    let lease = begun(&photon, "deaf").await;
    cancel(&photon, &id).await;
    let shown = photon.shown(&id).await;
    assert_eq!(shown["status"], json!("cancelled"));
    assert_eq!(shown["workflow"][0]["status"], json!("cancelled"));
    // Signs of life are no report.
    let told = photon.report(&lease, "progress", json!({"progress": 50})).await.expect(200);
    assert_eq!(told.data()["cancelRequested"], json!(true));
    assert_eq!(free_slots(&photon, "deaf").await, 0);
    until_free(&photon, "deaf").await;
    assert!(kept_ms(&photon, &id).await >= GRACE_MS);
    // The end of grace changes nothing of what its word is worth.
    photon.report(&lease, "complete", json!({"result": 1})).await.refused(409, "already_terminal");
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_report_after_the_cancel_frees_the_slot_at_once() {
    let photon = Photon::configured(LONG_GRACE).await;
    photon.agent("a", &[]).await;
    let endings = [
        ("complete", json!({"result": 1})),
        ("fail", json!({"code": "stopped", "message": "as you wished"})),
        ("release", json!({"reason": "as you wished"})),
    ];
    for (what, body) in endings {
        let id = photon.operation(chain()).await;
        let lease = begun(&photon, "a").await;
        cancel(&photon, &id).await;
        assert_eq!(free_slots(&photon, "a").await, 0);
        photon.report(&lease, what, body.clone()).await.refused(409, "already_terminal");
        assert_eq!(free_slots(&photon, "a").await, 1, "after {what}");
        photon.report(&lease, what, body).await.refused(409, "already_terminal");
        let shown = photon.shown(&id).await;
        assert_eq!((&shown["status"], &shown["results"]), (&json!("cancelled"), &json!({})), "{what}");
    }
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn each_late_word_gets_its_stated_code_and_changes_nothing() {
    let photon = Photon::configured(LONG_GRACE).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(chain()).await;
    // An offer that nobody took: an older grant.
    let older = photon.claim("a").await;
    let first = begun(&photon, "a").await;
    assert_eq!(first["fencingToken"], json!(2));
    photon.report(&first, "complete", json!({"result": {"n": 1}})).await.expect(200);
    let second = begun(&photon, "a").await;
    cancel(&photon, &id).await;
    let revision = photon.shown(&id).await["revision"].as_u64().unwrap();
    photon.report(&first, "complete", json!({"result": {"n": 1}})).await.expect(200);
    photon.report(&first, "complete", json!({"result": {"n": 2}})).await.refused(409, "already_terminal");
    assert_eq!(photon.shown(&id).await["revision"], json!(revision));
    // The first report frees the slot, and that is all that it does.
    for _ in 0..2 {
        photon.report(&second, "complete", json!({"result": null})).await.refused(409, "already_terminal");
        assert_eq!(photon.shown(&id).await["revision"], json!(revision + 1));
    }
    for what in ["ack", "complete", "release"] {
        photon.report(&older, what, json!({})).await.refused(410, "lease_lost");
    }
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    assert_eq!(photon.shown(&id).await["revision"], json!(revision + 1));
    assert_eq!(photon.history(&id).await.last().unwrap(), "lease.closed");
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_failure_cuts_what_runs_beside_it_and_its_slot_is_freed_by_the_report() {
    let photon = Photon::configured(LONG_GRACE).await;
    photon.agent("a", &[]).await;
    photon.agent("b", &[]).await;
    let id =
        photon.operation(json!([step(1, "work", &[], json!({})), step(2, "work", &[], json!({}))])).await;
    let (broken, cut) = (begun(&photon, "a").await, begun(&photon, "b").await);
    let body = json!({"code": "broken", "message": "it broke", "retryable": false});
    photon.report(&broken, "fail", body).await.expect(200);
    assert_eq!(photon.shown(&id).await["status"], json!("failed"));
    let named = json!({"leases": [{"leaseId": cut["leaseId"]}]});
    let told = photon.post("/api/v1/agents/b/heartbeat", named).await.expect(200);
    assert_eq!(told.data()["directives"][0]["type"], json!("cancel"));
    assert_eq!(free_slots(&photon, "b").await, 0);
    photon.report(&cut, "complete", json!({"result": 1})).await.refused(409, "already_terminal");
    assert_eq!(free_slots(&photon, "b").await, 1);
    until_free(&photon, "a").await;
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_server_that_is_killed_within_the_grace_frees_the_slot_in_the_end() {
    let mut photon = Photon::configured(SHORT_GRACE).await;
    photon.agent("deaf", &[]).await;
    let id = photon.operation(chain()).await;
    let lease = begun(&photon, "deaf").await;
    cancel(&photon, &id).await;
    photon.kill();
    photon.restart().await;
    until_free(&photon, "deaf").await;
    // Who was away does not know how much of the grace was left: it is kept in full.
    assert!(kept_ms(&photon, &id).await >= GRACE_MS);
    photon.report(&lease, "complete", json!({"result": 1})).await.refused(409, "already_terminal");
    checker::check_log(&photon).await.must_be_over();
}

/// Why the lease was closed that the operation's cancel left.
async fn closed_by(photon: &Photon, id: &str) -> String {
    let query = format!("limit=500&operation={id}&types=operation.cancelled,steps.cancelled,lease.closed");
    let events = checker::read(photon, &query).await;
    let kinds: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["operation.cancelled", "steps.cancelled", "lease.closed"]);
    events[2]["data"]["why"].as_str().unwrap().to_owned()
}

/// An operation that was cancelled while its first step was offered, and not begun.
async fn cancelled_offer(photon: &Photon, agent: &str) -> (String, Value) {
    let id = photon.operation(chain()).await;
    let lease = photon.claim(agent).await;
    cancel(photon, &id).await;
    assert_eq!(free_slots(photon, agent).await, 0, "whoever was offered it may be about to begin");
    (id, lease)
}

#[tokio::test]
async fn an_offer_that_is_cancelled_keeps_its_slot_until_the_end_of_grace() {
    let photon = Photon::configured(SHORT_GRACE).await;
    photon.agent("deaf", &[]).await;
    let (id, lease) = cancelled_offer(&photon, "deaf").await;
    // Nothing is given out for the slot meanwhile.
    let next = photon.operation(chain()).await;
    let claim = photon.post("/api/v1/agents/deaf/claim", json!({"wait": "300ms"})).await.expect(200);
    assert_eq!(claim.data()["leases"], json!([]));
    assert_eq!(photon.claim("deaf").await["operationId"], json!(next));
    assert!(kept_ms(&photon, &id).await >= GRACE_MS);
    assert_eq!(closed_by(&photon, &id).await, "grace_expired");
    photon.report(&lease, "ack", json!({})).await.refused(409, "already_terminal");
    checker::check_log(&photon).await.must_be_clean();
}

#[tokio::test]
async fn a_report_about_a_cancelled_offer_frees_its_slot_at_once() {
    let photon = Photon::configured(LONG_GRACE).await;
    photon.agent("a", &[]).await;
    let endings = [
        ("complete", json!({"result": 1})),
        ("fail", json!({"code": "stopped", "message": "as you wished"})),
        ("release", json!({"reason": "as you wished"})),
    ];
    for (what, body) in endings {
        let (id, lease) = cancelled_offer(&photon, "a").await;
        let told = photon.report(&lease, "ack", json!({})).await.expect(200);
        assert_eq!((&told.data()["cancelRequested"], free_slots(&photon, "a").await), (&json!(true), 0));
        let revision = photon.shown(&id).await["revision"].as_u64().unwrap();
        photon.report(&lease, what, body).await.refused(409, "already_terminal");
        assert_eq!(free_slots(&photon, "a").await, 1, "after {what}");
        assert_eq!(closed_by(&photon, &id).await, "reported");
        assert_eq!(photon.shown(&id).await["revision"], json!(revision + 1), "the close is an event as any");
    }
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_cancelled_offer_of_an_agent_that_is_gone_is_closed_at_once() {
    let photon = Photon::configured(LONG_GRACE).await;
    photon.agent("a", &[]).await;
    let body = json!({"id": "a", "config": {"heartbeatIntervalMs": 0}});
    let (revoked, lease) = cancelled_offer(&photon, "a").await;
    let path = format!("/api/v1/leases/{}", lease["leaseId"].as_str().unwrap());
    photon.delete(&path).await.expect(200);
    assert_eq!(free_slots(&photon, "a").await, 1);
    assert_eq!(closed_by(&photon, &revoked).await, "revoked");
    let (again, _) = cancelled_offer(&photon, "a").await;
    photon.post("/api/v1/agents", body.clone()).await.expect(200);
    assert_eq!(free_slots(&photon, "a").await, 1, "an old incarnation takes no slot");
    let left = |id: &str| format!("/api/v1/events?operation={id}&types=lease.closed");
    photon.until(&left(&again), |events| events[0].is_object()).await;
    assert_eq!(closed_by(&photon, &again).await, "new_incarnation");
    let (gone, _) = cancelled_offer(&photon, "a").await;
    photon.delete("/api/v1/agents/a").await.expect(200);
    photon.until(&left(&gone), |events| events[0].is_object()).await;
    assert_eq!(closed_by(&photon, &gone).await, "agent_unregistered");
    let silent = json!({"id": "mute", "config": {"heartbeatIntervalMs": 200}});
    photon.post("/api/v1/agents", silent).await.expect(201);
    let (mute, _) = cancelled_offer(&photon, "mute").await;
    photon.until(&left(&mute), |events| events[0].is_object()).await;
    assert_eq!(closed_by(&photon, &mute).await, "agent_timeout");
    checker::check_log(&photon).await.must_be_over();
}
