//! Agents that fail what they are given: they are put out of service by their failures in a row, others are
//! given the retries, and what says nothing of an agent is not held against it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Photon, checker, step};

/// One step that is tried so often.
fn tried(attempts: u32) -> Value {
    let mut workflow = json!([step(1, "work", &[], json!({}))]);
    workflow[0]["retryPolicy"] = json!({"initialDelayMs": 1, "maxAttempts": attempts});
    workflow
}

async fn agent(photon: &Photon, id: &str, failures_in_a_row: Value) {
    let config = json!({"heartbeatIntervalMs": 0, "failuresInARow": failures_in_a_row});
    photon.post("/api/v1/agents", json!({"id": id, "config": config})).await.expect(201);
}

/// The agent claims the next step and reports that it failed.
async fn fail(photon: &Photon, agent: &str, code: &str) -> Value {
    let lease = photon.claim(agent).await;
    let body = json!({"code": code, "message": "not logged in"});
    photon.report(&lease, "fail", body).await.expect(200);
    lease
}

async fn complete(photon: &Photon, agent: &str) -> Value {
    let lease = photon.claim(agent).await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    lease
}

async fn fail_operations(photon: &Photon, agent: &str, code: &str, count: usize) {
    for _ in 0..count {
        photon.operation(tried(1)).await;
        fail(photon, agent, code).await;
    }
}

async fn shown(photon: &Photon, agent: &str) -> Value {
    photon.get(&format!("/api/v1/agents/{agent}")).await.expect(200).data().clone()
}

async fn failed_in_a_row(photon: &Photon, agent: &str) -> u64 {
    shown(photon, agent).await["metrics"]["failedInARow"].as_u64().unwrap()
}

async fn until_quarantined(photon: &Photon, agent: &str) {
    let path = format!("/api/v1/agents/{agent}");
    let shown = photon.until(&path, |agent| agent["status"] == "error").await;
    assert_eq!(shown["statusReason"], json!("quarantined_failures"));
}

async fn finds_nothing(photon: &Photon, agent: &str, wait: &str) {
    let path = format!("/api/v1/agents/{agent}/claim");
    let nothing = photon.post(&path, json!({"wait": wait})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
}

/// What became of the agent's status, in order.
async fn told(photon: &Photon, agent: &str) -> Vec<(String, String)> {
    let query = format!("limit=500&agent={agent}&types=agent.status_changed");
    let text = |event: &Value, name: &str| event["data"][name].as_str().unwrap().to_owned();
    let events = checker::read(photon, &query).await;
    events.iter().map(|event| (text(event, "to"), text(event, "reason"))).collect()
}

#[tokio::test]
async fn five_operations_that_fail_in_a_row_are_a_quarantine_and_others_do_the_rest() {
    let mut photon = Photon::start().await;
    agent(&photon, "bad", json!(null)).await;
    fail_operations(&photon, "bad", "broken", 4).await;
    photon.operation(tried(1)).await;
    complete(&photon, "bad").await;
    assert_eq!(failed_in_a_row(&photon, "bad").await, 0, "a completion ends the row");
    fail_operations(&photon, "bad", "broken", 4).await;
    let before = shown(&photon, "bad").await;
    assert_eq!((&before["status"], &before["metrics"]["failedInARow"]), (&json!("active"), &json!(4)));
    fail_operations(&photon, "bad", "broken", 1).await;
    until_quarantined(&photon, "bad").await;
    let next = photon.operation(tried(1)).await;
    finds_nothing(&photon, "bad", "100ms").await;
    // It is history, not memory.
    photon.kill();
    photon.restart().await;
    finds_nothing(&photon, "bad", "100ms").await;
    photon.agent("good", &[]).await;
    assert_eq!(complete(&photon, "good").await["operationId"], json!(next));
    assert_eq!(told(&photon, "bad").await, [("error".to_owned(), "quarantined_failures".to_owned())]);
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn one_operation_counts_once_however_often_it_fails() {
    let photon = Photon::start().await;
    agent(&photon, "only", json!(null)).await;
    let id = photon.operation(tried(10)).await;
    // Nobody else is there: it gets every retry, at once.
    for attempt in 1..=9 {
        assert_eq!(fail(&photon, "only", "broken").await["attempt"], json!(attempt));
    }
    assert_eq!(failed_in_a_row(&photon, "only").await, 1);
    complete(&photon, "only").await;
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
    assert_eq!(told(&photon, "only").await, []);
}

#[tokio::test]
async fn an_agents_own_number_wins_zero_never_does_and_bad_work_is_not_its_fault() {
    let photon = Photon::configured("[agents]\nfailures_in_a_row = 2\n").await;
    for (id, own) in [("never", json!(0)), ("three", json!(3)), ("usual", json!(null))] {
        agent(&photon, id, own).await;
    }
    for id in ["three", "usual"] {
        photon.put(&format!("/api/v1/agents/{id}"), json!({"status": "inactive"})).await.expect(200);
    }
    fail_operations(&photon, "never", "broken", 8).await;
    let never = shown(&photon, "never").await;
    assert_eq!((&never["status"], &never["metrics"]["failedInARow"]), (&json!("active"), &json!(8)));
    photon.put("/api/v1/agents/never", json!({"status": "inactive"})).await.expect(200);
    for id in ["three", "usual"] {
        photon.put(&format!("/api/v1/agents/{id}"), json!({"status": "active"})).await.expect(200);
        fail_operations(&photon, id, "invalid", 8).await;
        let row = shown(&photon, id).await;
        assert_eq!((&row["metrics"]["failedInARow"], &row["status"]), (&json!(0), &json!("active")));
        fail_operations(&photon, id, "broken", 2).await;
        if id == "three" {
            assert_eq!(shown(&photon, id).await["status"], json!("active"));
            fail_operations(&photon, id, "broken", 1).await;
        }
        until_quarantined(&photon, id).await;
    }
}

#[tokio::test]
async fn a_retry_goes_to_another_agent_than_the_one_that_failed() {
    let photon = Photon::start().await;
    agent(&photon, "bad", json!(null)).await;
    agent(&photon, "good", json!(null)).await;
    let id = photon.operation(tried(3)).await;
    fail(&photon, "bad", "broken").await;
    // The other one does not even wait for work yet.
    finds_nothing(&photon, "bad", "700ms").await;
    assert_eq!(complete(&photon, "good").await["attempt"], json!(2));
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
    // An agent that takes no work is no other agent.
    photon.put("/api/v1/agents/good", json!({"status": "inactive"})).await.expect(200);
    photon.operation(tried(3)).await;
    fail(&photon, "bad", "broken").await;
    assert_eq!(complete(&photon, "bad").await["attempt"], json!(2));
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_retry_that_no_other_agent_takes_in_time_goes_to_the_one_that_failed() {
    let photon = Photon::configured("[agents]\nretry_elsewhere_ms = 1000\n").await;
    agent(&photon, "bad", json!(null)).await;
    agent(&photon, "asleep", json!(null)).await;
    photon.operation(tried(3)).await;
    fail(&photon, "bad", "broken").await;
    let begun = Instant::now();
    assert_eq!(complete(&photon, "bad").await["attempt"], json!(2));
    assert!(begun.elapsed() > Duration::from_millis(700), "after {:?}", begun.elapsed());
}

#[tokio::test]
async fn who_is_reactivated_at_once_is_not_quarantined_again_by_the_old_row() {
    let photon = Photon::start().await;
    agent(&photon, "bad", json!(null)).await;
    let mut expected = Vec::new();
    for round in 0..6 {
        fail_operations(&photon, "bad", "broken", 5).await;
        let reason = if round % 2 == 0 {
            until_quarantined(&photon, "bad").await;
            photon.put("/api/v1/agents/bad", json!({"status": "active"})).await.expect(200);
            "updated"
        } else {
            // As soon as it can be: the quarantine itself may not have been shown yet.
            while told(&photon, "bad").await.len() == expected.len() {}
            photon.post("/api/v1/agents/bad/heartbeat", json!({"status": "active"})).await.expect(200);
            "heartbeat"
        };
        expected.push(("error".to_owned(), "quarantined_failures".to_owned()));
        expected.push(("active".to_owned(), reason.to_owned()));
        assert_eq!(failed_in_a_row(&photon, "bad").await, 0);
        fail_operations(&photon, "bad", "broken", 4).await;
        let shown = shown(&photon, "bad").await;
        assert_eq!((&shown["status"], &shown["metrics"]["failedInARow"]), (&json!("active"), &json!(4)));
        photon.operation(tried(1)).await;
        complete(&photon, "bad").await;
    }
    assert_eq!(told(&photon, "bad").await, expected);
}
