//! No report is refused for its wording, and no request is half understood: what cannot be used is refused by
//! name, and what is wrong of one lease costs the agent no other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, Photon, step};

const QUICK: &str = "[agents]\nlease_ms = 1500\n";

fn one_step() -> Value {
    json!([step(1, "work", &[], json!({}))])
}

/// Sends a text that may be no JSON.
async fn raw(photon: &Photon, path: &str, body: &str) -> Answer {
    let request = photon.request("POST", path).header("content-type", "application/json");
    photon.send(request.body(body.to_owned())).await
}

/// An agent that holds two leases.
async fn two_leases(photon: &Photon, interval_ms: u64) -> Vec<Value> {
    let config = json!({"heartbeatIntervalMs": interval_ms, "maxConcurrentSteps": 2});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    let mut leases = Vec::new();
    for _ in 0..2 {
        photon.operation(one_step()).await;
        leases.push(photon.claim("a").await);
        photon.report(&leases[leases.len() - 1], "ack", json!({})).await.expect(200);
    }
    leases
}

/// Speaks in this way for longer than a lease and than three intervals of silence; nothing must be lost.
async fn lives_by(photon: &Photon, speak: impl AsyncFn(u32)) {
    let begun = Instant::now();
    for round in 0.. {
        speak(round).await;
        if begun.elapsed() > Duration::from_millis(3_500) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let lost = photon.get("/api/v1/events?types=step.lease_lost,agent.timeout").await.expect(200);
    assert_eq!(lost.data(), &json!([]));
}

#[tokio::test]
async fn what_is_wrong_of_one_lease_is_told_and_costs_none() {
    let photon = Photon::configured(QUICK).await;
    let leases = two_leases(&photon, 1_000).await;
    lives_by(&photon, async |round| {
        let wrong = [json!({"progress": 33.4}), json!({"progress": 101}), json!({"progess": 1})];
        let mut wrong = wrong[round as usize % 3].clone();
        wrong["leaseId"] = leases[0]["leaseId"].clone();
        let good =
            json!({"leaseId": leases[1]["leaseId"], "progress": 5, "note": "two\nlines".repeat(1_000)});
        let body = json!({"leases": [wrong, good, {"leaseId": "ls_1"}, 7]});
        let told = photon.post("/api/v1/agents/a/heartbeat", body).await.expect(200);
        let renewed = told.data()["renewed"].as_array().unwrap().iter();
        let renewed: Vec<&Value> = renewed.map(|renewed| &renewed["leaseId"]).collect();
        assert_eq!(renewed, [&leases[0]["leaseId"], &leases[1]["leaseId"]]);
        let rejected = told.data()["rejected"].as_array().unwrap();
        let named: Vec<&Value> = rejected.iter().map(|rejected| &rejected["leaseId"]).collect();
        assert_eq!(named, [&leases[0]["leaseId"], &json!("ls_1"), &json!("")], "{}", told.body);
        assert!(rejected[0]["detail"].as_str().unwrap().starts_with("leases[0]: "), "{}", told.body);
    })
    .await;
    let id = leases[1]["operationId"].as_str().unwrap();
    assert_eq!(photon.shown(id).await["workflow"][0]["status"], json!("running"));
}

#[tokio::test]
async fn a_heartbeat_that_is_refused_is_a_sign_of_life_of_the_agent_and_its_leases() {
    let photon = Photon::configured(QUICK).await;
    let leases = two_leases(&photon, 1_000).await;
    let path = "/api/v1/agents/a/heartbeat";
    lives_by(&photon, async |round| {
        let named: Vec<Value> = leases.iter().map(|lease| json!({"leaseId": lease["leaseId"]})).collect();
        let (body, status) = [
            (json!({"leases": named, "colour": "red"}), 400),
            (json!({"leases": named, "status": "actve"}), 422),
            (json!({"leases": named, "metrics": {"cpuUsage": 900}}), 422),
        ][round as usize % 3]
            .clone();
        photon.post(path, body).await.expect(status);
        raw(&photon, path, r#"{"incarnation": 1, "leases": [{"leaseId""#)
            .await
            .refused(400, "malformed_json");
    })
    .await;
    raw(&photon, "/api/v1/agents/nobody/heartbeat", "{").await.refused(400, "malformed_json");
}

#[tokio::test]
async fn a_broken_heartbeat_of_an_incarnation_that_is_over_counts_for_nothing() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 300});
    for status in [201, 200] {
        photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(status);
    }
    let begun = Instant::now();
    while photon.get("/api/v1/events?types=agent.timeout").await.data() == &json!([]) {
        assert!(begun.elapsed() < support::PATIENCE, "the agent lives by what its former process says");
        raw(&photon, "/api/v1/agents/a/heartbeat", r#"{"incarnation": 1, "leases"#).await.expect(400);
        photon.post("/api/v1/agents/a/heartbeat", json!({"incarnation": 1, "x": 1})).await.expect(400);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The present process may be as clumsy as it likes.
    raw(&photon, "/api/v1/agents/a/heartbeat", r#"{"incarnation": 2, "leases"#).await.expect(400);
    assert_eq!(photon.get("/api/v1/agents/a").await.data()["statusReason"], json!("heard_again"));
}

#[tokio::test]
async fn what_an_agent_says_of_its_end_is_cut_and_cleaned() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut only_once = step(1, "work", &[], json!({}));
    only_once["retryPolicy"] = json!({"maxAttempts": 9, "nonRetryableErrors": ["HTTP 500"]});
    let workflow = json!([only_once]);
    for (code, kept, message) in [
        ("HTTP 500", "http_500", "at a\r\n\tat b\u{1b}[2J".to_owned()),
        ("http_500", "http_500", "at frame ".repeat(600)),
        ("Http\n500", "http_500", String::new()),
    ] {
        let id = photon.operation(workflow.clone()).await;
        let lease = photon.claim("a").await;
        let said = json!({"code": code, "message": message});
        let told = photon.report(&lease, "fail", said.clone()).await.expect(200);
        assert_eq!(told.data()["willRetry"], json!(false), "{code}");
        photon.report(&lease, "fail", said).await.expect(200);
        let failed = photon.shown(&id).await["workflow"][0].clone();
        assert_eq!(failed["errorCode"], json!(kept), "{failed}");
        let shown = failed["error"].as_str().unwrap();
        assert!(shown.chars().count() <= 4_096 && !shown.contains(['\u{1b}', '\r']), "{shown}");
    }
    photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "progress", json!({"progress": 50, "note": "two\nlines"})).await.expect(200);
    let reason = format!("two\nlines{}", "x".repeat(1_000));
    photon.report(&lease, "release", json!({"reason": reason, "holdMs": 0})).await.expect(200);
    let told = photon.get("/api/v1/events?types=step.released,step.progressed").await.expect(200);
    assert_eq!(told.data()[0]["data"]["note"], json!("two lines"));
    let kept = told.data()[1]["data"]["reason"].as_str().unwrap();
    assert!(kept.starts_with("two lines") && kept.len() == 256, "{kept}");
}

#[tokio::test]
async fn of_two_waits_that_a_provider_names_the_longer_one_counts() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    let soon = chrono::Utc::now() + Duration::from_secs(2);
    let said = json!({"code": "Rate_Limited", "message": "429", "retryAfterMs": 3_600_000, "resetsAt": soon});
    photon.report(&lease, "fail", said).await.expect(200);
    let lanes = photon.get("/api/v1/lanes").await.expect(200);
    assert!(lanes.data()[0]["remainingMs"].as_u64().unwrap() > 3_000_000, "{}", lanes.body);
}

#[tokio::test]
async fn null_removes_only_what_may_be_removed() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let operation = format!("/api/v1/operations/{id}");
    let fields = ["name", "priority", "metadata", "agents"].map(|field| (operation.as_str(), field));
    let own = ["name", "model", "capabilities", "location", "config", "metadata", "status"];
    for (path, field) in fields.into_iter().chain(own.map(|field| ("/api/v1/agents/a", field))) {
        let refused = photon.put(path, json!({field: null})).await.refused(422, "invalid_field");
        let pointer = &refused.body["problem"]["errors"][0]["pointer"];
        assert_eq!(pointer, &json!(format!("/{field}")), "{}", refused.body);
    }
    photon.put(&operation, json!({"description": null, "deadline": null})).await.expect(200);
    photon.put("/api/v1/agents/a", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_refused() {
    let photon = Photon::start().await;
    let id = photon.operation(one_step()).await;
    let passed = json!({"name": "n", "workflow": one_step(), "deadline": "2020-01-01T00:00:00Z"});
    let refusals = [
        photon.post("/api/v1/operations", passed.clone()).await,
        photon.post("/api/v1/operations?dryRun=true", passed).await,
        photon.put(&format!("/api/v1/operations/{id}"), json!({"deadline": "2020-01-01T00:00:00Z"})).await,
    ];
    for refused in refusals {
        let refused = refused.refused(422, "invalid_field");
        assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/deadline"));
        assert!(refused.body["error"].as_str().unwrap().contains("in the future"), "{}", refused.body);
    }
}

#[tokio::test]
async fn what_names_nothing_is_refused_with_the_nearest_that_does() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for path in ["/api/v1/events?types=operation.complete", "/api/v1/events/stream?types=operation.complete"]
    {
        let refused = photon.get(path).await.refused(400, "invalid_parameter");
        assert!(
            refused.body["error"].as_str().unwrap().contains("'operation.completed'"),
            "{}",
            refused.body
        );
    }
    let none = photon.post("/api/v1/agents/a/claim", json!({"wait": "0s", "actions": []})).await;
    assert!(none.refused(422, "invalid_field").body["error"].as_str().unwrap().contains("leave it out"));
    for id in [".", ".."] {
        photon.post("/api/v1/agents", json!({"id": id})).await.refused(422, "invalid_field");
        let mut action = step(1, id, &[], json!({}));
        let body = json!({"name": "n", "workflow": [action.clone()]});
        photon.post("/api/v1/operations", body).await.refused(422, "invalid_workflow");
        action["action"] = json!("work");
        action["platform"] = json!(id);
        let body = json!({"name": "n", "workflow": [action]});
        photon.post("/api/v1/operations", body).await.refused(422, "invalid_workflow");
    }
    let inputs = json!({"a": [{"b": {"$expr": "1 +"}}]});
    let body = json!({"name": "n", "workflow": [step(1, "work", &[], inputs)]});
    let refused = photon.post("/api/v1/operations", body).await.refused(422, "invalid_workflow");
    assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/workflow/0/inputs/a/0/b"));
}

#[tokio::test]
async fn a_key_goes_with_what_a_body_says_and_not_with_its_bytes() {
    let photon = Photon::start().await;
    let keyed = async |path: &str, key: &str, body: &str| {
        let request = photon.request("POST", path).header("content-type", "application/json");
        photon.send(request.header("idempotency-key", key).body(body.to_owned())).await
    };
    let plain =
        r#"{"name":"n","workflow":[{"step":1,"platform":"worker","action":"a","inputs":{"x":1,"y":2}}]}"#;
    let spaced = r#"{"workflow": [ {"action": "a", "platform": "worker", "step": 1, "dependencies": [],
        "inputs": {"y": 2, "x": 1}} ], "name": "\u006e", "priority": "medium"}"#;
    let first = keyed("/api/v1/operations", "k", plain).await.expect(201);
    let again = keyed("/api/v1/operations", "k", spaced).await.expect(201);
    assert_eq!((again.data(), again.header("idempotency-replayed")), (first.data(), "true"));
    let other = plain.replace("\"x\":1", "\"x\":3");
    keyed("/api/v1/operations", "k", &other).await.refused(422, "idempotency_key_reused");
    let agent = keyed("/api/v1/agents", "k", r#"{"id":"a","capabilities":["x"]}"#).await.expect(201);
    let again = keyed("/api/v1/agents", "k", r#"{ "capabilities": ["x"], "id": "a" }"#).await.expect(201);
    assert_eq!((agent.data()["id"].clone(), again.header("idempotency-replayed")), (json!("a"), "true"));
    let path = format!("/api/v1/operations/{}/pause", first.data()["id"].as_str().unwrap());
    keyed(&path, "p", "").await.expect(200);
    assert_eq!(keyed(&path, "p", "{}").await.expect(200).header("idempotency-replayed"), "true");
    let twice = photon.request("POST", &path).header("idempotency-key", "p").header("idempotency-key", "q");
    let refused = photon.send(twice.json(&json!({}))).await.refused(400, "malformed_request");
    assert!(refused.body["error"].as_str().unwrap().contains("more than once"), "{}", refused.body);
}
