//! Why an agent is chosen, how it did, and how ready it is, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Photon, step};

async fn position(photon: &Photon) -> String {
    photon.get("/api/v1/agents").await.expect(200).header("photon-position").to_owned()
}

async fn select(photon: &Photon, wish: Value) -> Value {
    photon.post("/api/v1/agents/select", wish).await.expect(200).data().clone()
}

fn names(selection: &Value) -> Vec<&str> {
    let ranked = selection["candidates"]["ranked"].as_array().unwrap();
    ranked.iter().map(|scored| scored["agent"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_selection_explains_whom_a_step_would_get_and_gives_nothing_away() {
    let photon = Photon::start().await;
    photon.agent("generalist", &["rust", "docs", "go", "c"]).await;
    photon.agent("specialist", &["rust"]).await;
    photon.agent("stranger", &["docs"]).await;
    photon.agent("idle", &["rust"]).await;
    photon.put("/api/v1/agents/idle", json!({"status": "inactive"})).await.expect(200);
    let before = position(&photon).await;
    let asked = select(&photon, json!({"requires": {"capabilities": ["rust"]}, "action": "review"})).await;
    assert_eq!(asked["chosen"], json!("specialist"));
    assert_eq!(names(&asked), ["specialist", "generalist"]);
    let best = &asked["candidates"]["ranked"][0];
    assert_eq!((&best["capability"], &best["performance"]), (&json!(1.0), &json!(0.5)));
    let excluded = &asked["candidates"]["excluded"];
    assert_eq!((&excluded["capability"], &excluded["status"]), (&json!(1), &json!(1)));
    assert_eq!((&excluded["notWaiting"], &asked["waiting"]), (&json!(0), &json!([])));
    assert_eq!(asked["candidates"]["weights"]["capability"], json!(0.4));
    assert_eq!(names(&select(&photon, json!({"agents": ["generalist"]})).await), ["generalist"]);
    assert_eq!(names(&select(&photon, json!({"agent": "generalist"})).await), ["generalist"]);
    assert_eq!(names(&select(&photon, json!({})).await).len(), 3);
    let nobody = select(&photon, json!({"requires": {"model": "none-such"}})).await;
    assert_eq!((&nobody["chosen"], names(&nobody).len()), (&Value::Null, 0));
    assert_eq!(position(&photon).await, before, "nothing is appended");
}

#[tokio::test]
async fn a_selection_is_what_the_step_then_records() {
    let photon = Photon::start().await;
    photon.agent("a", &["rust", "go"]).await;
    photon.agent("b", &["rust"]).await;
    let requires = json!({"capabilities": ["rust"], "location": "edge"});
    let claim = |agent: &'static str| {
        let photon = &photon;
        async move { photon.post(&format!("/api/v1/agents/{agent}/claim"), json!({"wait": "3s"})).await }
    };
    let (.., (selection, id)) = tokio::join!(claim("a"), claim("b"), async {
        photon.claims_waiting(2).await;
        let selection = select(&photon, json!({"requires": requires})).await;
        let mut workflow = json!([step(1, "work", &[], json!({}))]);
        workflow[0]["requires"] = requires.clone();
        (selection, photon.operation(workflow).await)
    });
    assert_eq!(selection["waiting"], json!(["b", "a"]));
    let path = format!("/api/v1/operations/{id}/steps/1");
    let step = photon.until(&path, |step| step["attempts"][0]["agent"] == json!("b")).await;
    assert_eq!(step["attempts"][0]["candidates"], selection["candidates"]);
}

#[tokio::test]
async fn a_wish_that_no_step_could_have_is_refused_with_its_place() {
    let photon = Photon::start().await;
    let refusals = [
        (json!({"requires": {"capabilities": ["no blanks"]}}), "/requires/capabilities/0"),
        (json!({"agent": "nobody"}), "/agent"),
        (json!({"agent": "no/id"}), "/agent"),
        (json!({"agents": ["nobody"]}), "/agents/0"),
        (json!({"action": "no blanks"}), "/action"),
    ];
    for (wish, pointer) in refusals {
        let answer = photon.post("/api/v1/agents/select", wish).await.refused(422, "invalid_field");
        assert_eq!(answer.body["problem"]["errors"][0]["pointer"], json!(pointer), "{}", answer.body);
    }
    let unbuilt = json!({"platform": "cursor"});
    photon.post("/api/v1/agents/select", unbuilt).await.refused(422, "platform_unavailable");
    photon.post("/api/v1/agents/select", json!({"wish": 1})).await.refused(400, "unknown_field");
    photon.get("/api/v1/agents/select").await.refused(405, "method_not_allowed");
    photon.post("/api/v1/agents", json!({"id": "select"})).await.refused(422, "invalid_field");
}

#[tokio::test]
async fn the_command_line_shows_the_same_table() {
    let photon = Photon::start().await;
    photon.agent("generalist", &["rust", "go"]).await;
    photon.agent("specialist", &["rust"]).await;
    photon.agent("stranger", &["go"]).await;
    let shown = |more: &[&str]| {
        let arguments = [&["agent", "select", "--capability", "rust"], more].concat();
        photon.call(arguments).ends_with(0).stdout
    };
    let text = shown(&[]);
    assert!(text.starts_with("Chosen: specialist\nAGENT "), "{text}");
    assert!(text.contains("left out: 1 without the capability"), "{text}");
    let document: Value = serde_json::from_str(&shown(&["-o", "json"])).unwrap();
    assert_eq!(names(&document), ["specialist", "generalist"]);
    assert!(shown(&["--model", "none-such"]).starts_with("Nobody fits.\nleft out: "));
}

#[tokio::test]
async fn how_an_agent_did_is_measured_and_survives_a_restart() {
    let mut photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let fresh = photon.get("/api/v1/agents/a").await.expect(200).data()["metrics"].clone();
    assert_eq!((&fresh["successRate"], &fresh["averageResponseTime"]), (&Value::Null, &Value::Null));
    assert_eq!(fresh["successScore"], json!(50.0));
    assert_eq!(fresh["recent"]["since"], Value::Null);
    photon.operation(json!([step(1, "x", &[], json!({})), step(2, "x", &[1], json!({}))])).await;
    for _ in 0..2 {
        let lease = photon.claim("a").await;
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    photon.operation(json!([step(1, "x", &[], json!({}))])).await;
    let lease = photon.claim("a").await;
    let error = json!({"code": "broken", "message": "it is broken", "retryable": false});
    photon.report(&lease, "fail", error).await.expect(200);
    let done = |agent: &Value| agent["metrics"]["operationsFailed"] == json!(1);
    let before = photon.until("/api/v1/agents/a", done).await["metrics"].clone();
    assert_eq!(before["operationsCompleted"], json!(2));
    let (rate, score) = (before["successRate"].as_f64().unwrap(), before["successScore"].as_f64().unwrap());
    assert!((rate - 200.0 / 3.0).abs() < 1e-6 && (score - 54.4).abs() < 1e-6, "{rate} {score}");
    let recent = &before["recent"];
    assert_eq!((&recent["completed"], &recent["failed"], &recent["lost"]), (&json!(2), &json!(1), &json!(0)));
    assert!(recent["responseTimeP50"].as_u64() <= recent["responseTimeP95"].as_u64());
    photon.kill();
    photon.restart().await;
    assert_eq!(photon.get("/api/v1/agents/a").await.expect(200).data()["metrics"], before);
}

#[tokio::test]
async fn availability_says_how_ready_an_agent_is() {
    let photon = Photon::start().await;
    let body = json!({"id": "a", "config": {"heartbeatIntervalMs": 60_000, "maxConcurrentSteps": 2}});
    photon.post("/api/v1/agents", body).await.expect(201);
    let path = "/api/v1/agents/a/availability";
    let idle = photon.get(path).await.expect(200).data().clone();
    assert_eq!((&idle["available"], &idle["waiting"]), (&json!(true), &json!(false)));
    assert_eq!((&idle["free"], &idle["silenceLimitMs"]), (&json!(2), &json!(180_000)));
    assert!(idle["freshness"].as_f64().unwrap() > 0.9);
    let claim = photon.post("/api/v1/agents/a/claim", json!({"wait": "20s"}));
    let (granted, ()) = tokio::join!(claim, async {
        let waiting = photon.until(path, |shown| shown["waiting"] == json!(true)).await;
        assert_eq!((&waiting["silentMs"], &waiting["freshness"]), (&json!(0), &json!(1.0)));
        photon.operation(json!([step(1, "x", &[], json!({}))])).await;
    });
    let lease = granted.expect(200).data()["leases"][0]["leaseId"].clone();
    let busy = photon.get(path).await.expect(200).data().clone();
    assert_eq!((&busy["free"], &busy["leases"]), (&json!(1), &json!([lease])));
    assert_eq!(busy["waiting"], json!(false));
    photon.put("/api/v1/agents/a", json!({"status": "inactive"})).await.expect(200);
    let drained = photon.get(path).await.expect(200).data().clone();
    assert_eq!((&drained["available"], &drained["statusReason"]), (&json!(false), &json!("drained")));
}
