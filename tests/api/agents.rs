//! The agent protocol over HTTP: incarnations, heartbeats, offers, leases, loss, cancel, fencing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Photon, step};

const QUICK: &str =
    "[agents]\nlease_ms = 1000\noffer_ms = 300\ncancel_grace_ms = 1000\nrelease_hold_ms = 300\n";

fn one_step() -> Value {
    json!([step(1, "work", &[], json!({}))])
}

fn retried() -> Value {
    let mut workflow = one_step();
    workflow[0]["retryPolicy"] = json!({"initialDelayMs": 1, "maxAttempts": 3});
    workflow
}

async fn heartbeat(photon: &Photon, agent: &str, body: Value) -> support::Answer {
    photon.post(&format!("/api/v1/agents/{agent}/heartbeat"), body).await
}

#[tokio::test]
async fn registering_again_starts_the_next_incarnation() {
    let photon = Photon::start().await;
    let body = json!({"id": "a", "name": "A", "model": "GLM-4.6", "capabilities": ["x"], "location": "edge"});
    let first = photon.post("/api/v1/agents", body.clone()).await.expect(201);
    assert_eq!(first.header("location"), "/api/v1/agents/a");
    assert_eq!((&first.data()["incarnation"], &first.data()["leaseMs"]), (&json!(1), &json!(60_000)));
    assert_eq!(first.data()["heartbeatIntervalMs"], json!(10_000));
    let second = photon.post("/api/v1/agents", body).await.expect(200);
    assert_eq!(second.data()["incarnation"], json!(2));
    let stale = json!({"id": "a", "incarnation": 1});
    photon.post("/api/v1/agents", stale).await.refused(409, "stale_incarnation");
    heartbeat(&photon, "a", json!({"incarnation": 1})).await.refused(409, "stale_incarnation");
    heartbeat(&photon, "a", json!({"incarnation": 2})).await.expect(200);
    heartbeat(&photon, "b", json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn an_agent_is_listed_changed_and_unregistered() {
    let photon = Photon::start().await;
    photon.agent("a", &["x", "y"]).await;
    photon.agent("b", &["y"]).await;
    for (filter, count) in
        [("", 2), ("capability=x", 1), ("status=active", 2), ("status=busy", 0), ("location=cloud", 0)]
    {
        let list = photon.get(&format!("/api/v1/agents?count=true&{filter}")).await.expect(200);
        assert_eq!(list.body["page"]["total"], json!(count), "{filter}");
    }
    let changed =
        photon.put("/api/v1/agents/a", json!({"model": "m", "location": "cloud"})).await.expect(200);
    assert_eq!(
        (&changed.data()["model"], &changed.data()["capabilities"]),
        (&json!("m"), &json!(["x", "y"]))
    );
    let available = photon.get("/api/v1/agents/a/availability").await.expect(200);
    assert_eq!(available.data()["free"], json!(1));
    photon.delete("/api/v1/agents/a").await.expect(200);
    photon.get("/api/v1/agents/a").await.refused(404, "not_found");
    let again = photon.post("/api/v1/agents", json!({"id": "a"})).await.expect(200);
    assert_eq!(again.data()["incarnation"], json!(2));
}

#[tokio::test]
async fn a_specialist_is_chosen_and_the_choice_is_explained() {
    let photon = Photon::start().await;
    photon.agent("generalist", &["rust", "docs", "go", "c"]).await;
    photon.agent("specialist", &["rust"]).await;
    photon.agent("stranger", &["docs"]).await;
    let mut workflow = one_step();
    workflow[0]["requires"] = json!({"capabilities": ["rust"]});
    let wait = |agent: &'static str| {
        let photon = &photon;
        async move { photon.post(&format!("/api/v1/agents/{agent}/claim"), json!({"wait": "3s"})).await }
    };
    let submit = async {
        photon.claims_waiting(3).await;
        photon.operation(workflow.clone()).await
    };
    let (generalist, specialist, stranger, id) =
        tokio::join!(wait("generalist"), wait("specialist"), wait("stranger"), submit);
    assert_eq!(specialist.data()["leases"].as_array().unwrap().len(), 1);
    assert_eq!((generalist.data(), stranger.data()), (&json!({"leases": []}), &json!({"leases": []})));
    let detail = photon.get(&format!("/api/v1/operations/{id}/steps/1")).await.expect(200);
    let chosen = &detail.data()["attempts"][0]["candidates"];
    assert_eq!(chosen["ranked"][0]["agent"], json!("specialist"));
    assert_eq!(chosen["ranked"][0]["capability"], json!(1.0));
    assert_eq!(chosen["ranked"][1]["capability"], json!(0.25));
    assert_eq!(chosen["excluded"]["capability"], json!(1));
}

#[tokio::test]
async fn an_offer_that_nobody_takes_is_offered_again_without_spending_an_attempt() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let first = photon.claim("a").await;
    let second = photon.claim("a").await;
    assert_eq!((&first["attempt"], &second["attempt"]), (&json!(1), &json!(1)));
    assert_eq!(second["fencingToken"], json!(2));
    photon.report(&first, "ack", json!({})).await.refused(410, "lease_lost");
    photon.report(&second, "ack", json!({})).await.expect(200);
    assert!(photon.history(&id).await.contains(&"step.offer_expired".to_owned()));
    photon.report(&second, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.shown(&id).await["workflow"][0]["attempt"], json!(1));
}

#[tokio::test]
async fn a_lease_lives_by_its_heartbeats_and_is_lost_without() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(retried()).await;
    let lease = photon.claim("a").await;
    let named = json!({"leases": [{"leaseId": lease["leaseId"], "progress": 40, "checkpoint": {"at": 40}}]});
    // Longer than two lease periods.
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(2_200) {
        let answer = heartbeat(&photon, "a", named.clone()).await.expect(200);
        assert_eq!(answer.data()["renewed"].as_array().unwrap().len(), 1, "{}", answer.body);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let path = format!("/api/v1/operations/{id}");
    assert_eq!(photon.shown(&id).await["workflow"][0]["status"], json!("running"));
    photon.until(&path, |shown| shown["workflow"][0]["status"] != json!("running")).await;
    let lost = heartbeat(&photon, "a", named).await.expect(200);
    assert_eq!(lost.data()["directives"][0]["type"], json!("lost"));
    let next = photon.claim("a").await;
    assert_eq!((&next["attempt"], &next["checkpoint"]), (&json!(2), &json!({"at": 40})));
    assert!(photon.history(&id).await.contains(&"step.lease_lost".to_owned()));
    photon.report(&lease, "complete", json!({"result": 1})).await.refused(410, "lease_lost");
}

#[tokio::test]
async fn a_late_completion_counts_while_its_grant_is_the_newest() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let mut workflow = one_step();
    workflow[0]["retryPolicy"] = json!({"initialDelayMs": 60_000});
    let id = photon.operation(workflow).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let path = format!("/api/v1/operations/{id}");
    photon.until(&path, |shown| shown["workflow"][0]["status"] == json!("backing_off")).await;
    photon.report(&lease, "complete", json!({"result": 5})).await.expect(200);
    photon.report(&lease, "complete", json!({"result": 5})).await.expect(200);
    photon.report(&lease, "complete", json!({"result": 6})).await.refused(409, "already_terminal");
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
}

#[tokio::test]
async fn a_silent_agent_is_gone_and_its_step_goes_to_another() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 200});
    photon.post("/api/v1/agents", json!({"id": "mute", "config": config})).await.expect(201);
    let id = photon.operation(retried()).await;
    let lease = photon.claim("mute").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.agent("other", &[]).await;
    let next = photon.claim("other").await;
    assert_eq!(next["attempt"], json!(2));
    photon.until("/api/v1/agents/mute", |agent| agent["status"] == json!("inactive")).await;
    let events = photon.get("/api/v1/events?agent=mute&limit=100").await.expect(200);
    let names: Vec<&str> =
        events.data().as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(names.windows(2).any(|pair| pair == ["agent.timeout", "agent.status_changed"]), "{names:?}");
    assert!(photon.history(&id).await.contains(&"step.lease_lost".to_owned()));
    heartbeat(&photon, "mute", json!({})).await.expect(200);
    photon.until("/api/v1/agents/mute", |agent| agent["status"] == json!("active")).await;
    photon.report(&next, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
}

#[tokio::test]
async fn cancel_settles_at_once_and_keeps_the_slot_until_the_agent_reports() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    let told = heartbeat(&photon, "a", json!({"leases": [{"leaseId": lease["leaseId"]}]})).await.expect(200);
    assert_eq!(told.data()["directives"][0]["type"], json!("cancel"));
    let busy = photon.get("/api/v1/agents/a/availability").await.expect(200);
    assert_eq!(busy.data()["free"], json!(0));
    photon.report(&lease, "complete", json!({"result": 1})).await.refused(409, "already_terminal");
    photon.until("/api/v1/agents/a/availability", |slots| slots["free"] == json!(1)).await;
}

#[tokio::test]
async fn the_end_of_grace_frees_the_slot_of_an_agent_that_ignores_cancel() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    assert_eq!(photon.get("/api/v1/agents/a/availability").await.data()["free"], json!(0));
    photon.until("/api/v1/agents/a/availability", |slots| slots["free"] == json!(1)).await;
}

#[tokio::test]
async fn a_released_step_is_kept_from_its_agent_for_a_while() {
    let photon = Photon::configured(QUICK).await;
    photon.agent("a", &[]).await;
    photon.agent("b", &[]).await;
    let id = photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "release", json!({"reason": "not mine"})).await.expect(200);
    let nothing = photon.post("/api/v1/agents/a/claim", json!({"wait": "50ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
    let other = photon.claim("b").await;
    assert_eq!(other["attempt"], json!(1));
    photon.report(&other, "complete", json!({"result": null})).await.expect(200);
    assert_eq!(photon.shown(&id).await["status"], json!("completed"));
}

#[tokio::test]
async fn a_new_incarnation_loses_the_old_leases() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(retried()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let again = json!({"id": "a", "config": {"heartbeatIntervalMs": 0}});
    photon.post("/api/v1/agents", again).await.expect(200);
    let next = photon.claim("a").await;
    assert_eq!(next["attempt"], json!(2));
    let history = photon.history(&id).await;
    assert!(history.contains(&"step.lease_lost".to_owned()), "{history:?}");
}

#[tokio::test]
async fn a_claim_with_the_same_key_gets_its_live_lease_again() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(json!([step(1, "x", &[], json!({"n": 1})), step(2, "y", &[], json!({}))])).await;
    let claim = || {
        let request = photon.request("POST", "/api/v1/agents/a/claim").header("idempotency-key", "c1");
        photon.send(request.json(&json!({"wait": "1s"})))
    };
    let first = claim().await.expect(200);
    let again = claim().await.expect(200);
    assert_eq!(first.data()["leases"][0]["leaseId"], again.data()["leases"][0]["leaseId"]);
    assert_eq!(again.data()["leases"][0]["inputs"], json!({"n": 1}));
}

#[tokio::test]
async fn an_operator_sees_and_revokes_leases() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(retried()).await;
    let lease = photon.claim("a").await;
    let list = photon.get("/api/v1/leases").await.expect(200);
    assert_eq!(list.data()[0]["leaseId"], lease["leaseId"]);
    assert_eq!(list.data()[0]["status"], json!("offered"));
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let path = format!("/api/v1/leases/{}", lease["leaseId"].as_str().unwrap());
    photon.delete(&path).await.expect(200);
    photon.report(&lease, "progress", json!({"progress": 1})).await.refused(410, "lease_lost");
    assert_eq!(photon.claim("a").await["attempt"], json!(2));
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_stopped_by_its_timeout() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut workflow = one_step();
    workflow[0]["timeout"] = json!(200);
    workflow[0]["retryPolicy"] = json!({"maxAttempts": 1});
    let id = photon.operation(workflow).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let ended = photon.get(&format!("/api/v1/operations/{id}?wait=10s")).await.expect(200);
    assert_eq!(ended.data()["status"], json!("failed"));
    assert_eq!(ended.data()["workflow"][0]["errorCode"], json!("timeout"));
}

#[tokio::test]
async fn an_operation_ends_at_its_deadline() {
    let photon = Photon::start().await;
    let soon = (chrono::Utc::now() + chrono::Duration::milliseconds(700)).to_rfc3339();
    let body = json!({"name": "n", "deadline": soon, "workflow": one_step()});
    let created = photon.post("/api/v1/operations", body).await.expect(201);
    let path = format!("/api/v1/operations/{}?wait=10s", created.data()["id"].as_str().unwrap());
    let ended = photon.get(&path).await.expect(200);
    assert_eq!(ended.data()["statusReason"], json!("deadline_exceeded"));
}

#[tokio::test]
async fn an_inactive_agent_is_told_to_drain_and_gets_no_work() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let told = heartbeat(&photon, "a", json!({"status": "inactive"})).await.expect(200);
    assert_eq!(told.data()["directives"][0]["type"], json!("drain"));
    photon.operation(one_step()).await;
    let nothing = photon.post("/api/v1/agents/a/claim", json!({"wait": "100ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
    heartbeat(&photon, "a", json!({"status": "active"})).await.expect(200);
    photon.claim("a").await;
}

#[tokio::test]
async fn an_operation_at_its_parallel_limit_disturbs_nobody() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.agent("b", &[]).await;
    let workflow = json!([step(1, "x", &[], json!({})), step(2, "x", &[], json!({}))]);
    let body = json!({"name": "narrow", "priority": "critical", "maxParallel": 1, "workflow": workflow});
    photon.post("/api/v1/operations", body).await.expect(201);
    let held = photon.claim("a").await;
    photon.report(&held, "ack", json!({})).await.expect(200);
    let nothing = photon.post("/api/v1/agents/b/claim", json!({"wait": "300ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
    let reserved = photon.get("/api/v1/events?types=step.reserved").await.expect(200);
    let given: Vec<&Value> =
        reserved.data().as_array().unwrap().iter().map(|it| &it["data"]["agent"]).collect();
    assert_eq!(given, ["a"], "b was given what it could not have");
    let other = photon.operation(one_step()).await;
    assert_eq!(photon.claim("b").await["operationId"], json!(other));
    photon.report(&held, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.claim("a").await["step"], json!(2));
}

#[tokio::test]
async fn waiting_for_an_answer_is_no_silence() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 500});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    let (claimed, _) = tokio::join!(photon.claim("a"), async {
        photon.claims_waiting(1).await;
        // Longer than the limit of silence.
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(2_000) {
            assert_eq!(photon.get("/api/v1/agents/a").await.data()["status"], json!("active"));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        photon.operation(one_step()).await
    });
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(1_000) {
        assert_eq!(photon.get("/api/v1/agents/a").await.data()["statusReason"], json!("registered"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    photon.report(&claimed, "complete", json!({"result": 1})).await.expect(200);
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_or_too_soon_loses_no_lease() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    let beat =
        |checkpoint: Value| json!({"leases": [{"leaseId": lease["leaseId"], "checkpoint": checkpoint}]});
    let told = heartbeat(&photon, "a", beat(json!("x".repeat(65 * 1024)))).await.expect(200);
    let rejected = &told.data()["rejected"][0];
    assert_eq!((&rejected["leaseId"], &rejected["code"]), (&lease["leaseId"], &json!("invalid_field")));
    assert!(rejected["detail"].as_str().unwrap().contains("a checkpoint has at most"), "{rejected}");
    assert_eq!(told.data()["renewed"][0]["leaseId"], lease["leaseId"]);
    let kept = heartbeat(&photon, "a", beat(json!(1))).await.expect(200);
    assert_eq!(kept.data()["renewed"][0]["checkpointKept"], json!(true));
    let soon = heartbeat(&photon, "a", beat(json!(2))).await.expect(200);
    assert_eq!(soon.data()["renewed"][0]["checkpointKept"], json!(false));
    assert_eq!(soon.data()["directives"], json!([]));
    let progress = json!({"progress": 50, "checkpoint": 3, "usage": {"tokens": 5}});
    let early = photon.report(&lease, "progress", progress).await.refused(429, "rate_limited");
    assert_eq!(early.header("retry-after"), "1");
    let large = json!({"result": "x".repeat(257 * 1024)});
    photon.report(&lease, "complete", large).await.refused(422, "too_large");
    // The attempt has failed, and its late completion is welcome as every other.
    photon.report(&lease, "complete", json!({"result": "small"})).await.expect(200);
}

#[tokio::test]
async fn a_newer_claim_sends_the_older_one_away() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let claim = || photon.post("/api/v1/agents/a/claim", json!({"wait": "20s"}));
    let older = async {
        let sent_away = claim().await;
        // There was no work until now.
        photon.operation(one_step()).await;
        sent_away
    };
    let (older, newer) = tokio::join!(older, async {
        photon.claims_waiting(1).await;
        claim().await
    });
    let granted = |answer: &support::Answer| answer.data()["leases"].as_array().unwrap().len();
    assert_eq!((granted(&older), granted(&newer)), (0, 1));
}

#[tokio::test]
async fn signs_of_life_for_cancelled_work_are_told_to_stop() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(one_step()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    let told = photon.report(&lease, "progress", json!({"progress": 10})).await.expect(200);
    assert_eq!(told.data()["cancelRequested"], json!(true));
    photon
        .report(&lease, "fail", json!({"code": "x", "message": "y"}))
        .await
        .refused(409, "already_terminal");
}

#[tokio::test]
async fn a_timed_out_agent_that_drains_stays_inactive() {
    let photon = Photon::start().await;
    photon
        .post("/api/v1/agents", json!({"id": "a", "config": {"heartbeatIntervalMs": 100}}))
        .await
        .expect(201);
    photon.until("/api/v1/agents/a", |agent| agent["status"] == json!("inactive")).await;
    let told = heartbeat(&photon, "a", json!({"status": "inactive"})).await.expect(200);
    assert_eq!(told.data()["directives"][0]["type"], json!("drain"));
    assert_eq!(photon.get("/api/v1/agents/a").await.data()["status"], json!("inactive"));
}
