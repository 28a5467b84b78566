//! A provider that says "not before then": no call before, no attempt spent, other accounts go on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use domain::Timestamp;
use serde_json::{Value, json};
use support::{Photon, step};

/// How far the reset lies ahead; the shown run by hand uses a minute.
const WINDOW: Duration = Duration::from_secs(12);

async fn agent(photon: &Photon, id: &str, account: Option<&str>) {
    let labels = account.map_or(json!({}), |account| json!({ "account": account }));
    let body = json!({"id": id, "capabilities": [], "config": {"heartbeatIntervalMs": 0, "labels": labels}});
    photon.post("/api/v1/agents", body).await.expect(201);
}

fn of(agent: &str) -> Value {
    let mut step = step(1, "call", &[], json!({}));
    step["agent"] = json!(agent);
    step
}

async fn claim(photon: &Photon, agent: &str, wait: &str) -> Value {
    let answer = photon.post(&format!("/api/v1/agents/{agent}/claim"), json!({ "wait": wait })).await;
    answer.expect(200).data()["leases"].clone()
}

#[tokio::test]
async fn a_limit_parks_its_lane_over_three_restarts_and_no_other() {
    let _alone = support::alone();
    let mut photon = Photon::start().await;
    for (id, account) in [("ada", Some("team")), ("bob", Some("team")), ("eve", None)] {
        agent(&photon, id, account).await;
    }
    let id = photon.operation(json!([of("ada")])).await;
    let lease = photon.claim("ada").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let now = photon.shown(&id).await["workflow"][0]["startedAt"].as_str().unwrap().to_owned();
    let reset = Timestamp::parse(&now).unwrap().plus_ms(WINDOW.as_millis() as u64);
    let began = Instant::now();
    let body = json!({"code": "rate_limited", "message": "429", "resetsAt": reset});
    let failed = photon.report(&lease, "fail", body.clone()).await.expect(200);
    assert_eq!(failed.data(), &json!({"willRetry": true, "nextAttemptAt": reset}));
    photon.report(&lease, "fail", body).await.expect(200);
    for _ in 0..3 {
        let shown = photon.shown(&id).await;
        let step = &shown["workflow"][0];
        assert_eq!((&step["status"], &step["attempt"]), (&json!("ready"), &json!(0)));
        assert_eq!(step["blockedOn"], json!({"kind": "window", "until": reset}));
        let lanes = photon.get("/api/v1/lanes").await.expect(200);
        assert_eq!(
            (&lanes.data()[0]["lane"], &lanes.data()[0]["until"]),
            (&json!("account.team"), &json!(reset))
        );
        assert_eq!(claim(&photon, "ada", "50ms").await, json!([]));
        photon.kill();
        photon.restart().await;
    }
    // Whoever shares the account waits too; whoever does not goes on.
    photon.operation(json!([of("bob")])).await;
    photon.operation(json!([of("eve")])).await;
    assert_eq!(claim(&photon, "bob", "50ms").await, json!([]));
    assert_eq!(claim(&photon, "eve", "2s").await[0]["action"], json!("call"));
    let early = began.elapsed() < WINDOW;
    assert!(early, "the machine is too slow for this window");
    let again = claim(&photon, "ada", "30s").await;
    assert!(
        began.elapsed() >= WINDOW - Duration::from_millis(50),
        "called {:?} after the report",
        began.elapsed()
    );
    assert_eq!((&again[0]["attempt"], &again[0]["step"]), (&json!(1), &json!(1)));
    assert_eq!(claim(&photon, "bob", "10s").await[0]["action"], json!("call"));
}

#[tokio::test]
async fn a_lane_is_opened_by_hand_and_wakes_who_waits() {
    let photon = Photon::start().await;
    agent(&photon, "ada", None).await;
    photon.operation(json!([of("ada")])).await;
    let lease = photon.claim("ada").await;
    let minute = json!({"code": "rate_limited", "message": "429", "retryAfterMs": 3_600_000});
    photon.report(&lease, "fail", minute).await.expect(200);
    let wrong = json!({"code": "flaky", "message": "x", "resetsAt": "2030-01-01T00:00:00Z"});
    photon.report(&lease, "fail", wrong).await.refused(422, "invalid_field");
    photon.delete("/api/v1/lanes/worker.nobody").await.expect(404);
    photon.delete("/api/v1/lanes/nobody").await.expect(404);
    let opening = async {
        photon.claims_waiting(1).await;
        photon.delete("/api/v1/lanes/worker.ada").await.expect(200)
    };
    let (leases, opened) = tokio::join!(claim(&photon, "ada", "30s"), opening);
    assert_eq!(opened.data()["remainingMs"], json!(0));
    assert_eq!(leases[0]["operationId"], lease["operationId"]);
    assert_eq!(leases[0]["attempt"], json!(1));
}

#[tokio::test]
async fn what_a_provider_said_counts_even_if_the_offer_was_over() {
    let photon = Photon::configured("[agents]\noffer_ms = 300\n").await;
    agent(&photon, "ada", None).await;
    let id = photon.operation(json!([of("ada")])).await;
    let lease = photon.claim("ada").await;
    let path = format!("/api/v1/operations/{id}");
    photon.until(&path, |shown| shown["workflow"][0]["status"] == json!("ready")).await;
    let limit = json!({"code": "rate_limited", "message": "429", "retryAfterMs": 3_600_000});
    let told = photon.report(&lease, "fail", limit).await.expect(200);
    assert_eq!(told.data()["willRetry"], json!(true));
    assert_eq!(claim(&photon, "ada", "50ms").await, json!([]));
}
