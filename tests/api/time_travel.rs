//! The past over HTTP: operations, agents, lists and the dashboard as they were, transitions, replay.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Photon, step};

/// What a request answers, and the position that it reflects.
async fn at(photon: &Photon, path: &str, at: &str) -> Value {
    let joint = if path.contains('?') { '&' } else { '?' };
    photon.get(&format!("{path}{joint}at={at}")).await.expect(200).data().clone()
}

/// One operation of two steps on its way to its end; what was shown after each change, by position.
async fn lead_a_life(photon: &Photon) -> (String, Vec<(String, Value, Value)>) {
    photon.agent("ada", &["rust"]).await;
    let id = photon.operation(json!([step(1, "a", &[], json!({})), step(2, "b", &[1], json!({}))])).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let lease = photon.claim("ada").await;
        for (what, body) in [("ack", json!({})), ("complete", json!({"result": 7}))] {
            let answer = photon.report(&lease, what, body).await.expect(200);
            let position = answer.header("photon-position").to_owned();
            let operation = photon.shown(&id).await;
            let agent = photon.get("/api/v1/agents/ada").await.expect(200).data().clone();
            seen.push((position, operation, agent));
        }
    }
    (id, seen)
}

#[tokio::test]
async fn every_answer_of_the_past_can_be_had_again_by_position_and_by_time_over_a_restart() {
    let mut photon = Photon::start().await;
    let (id, seen) = lead_a_life(&photon).await;
    photon.kill();
    photon.restart().await;
    let path = format!("/api/v1/operations/{id}");
    for (position, operation, _) in &seen {
        assert_eq!(&at(&photon, &path, position).await, operation, "at {position}");
        let steps = at(&photon, &format!("{path}/steps"), position).await;
        assert_eq!(steps, operation["workflow"]);
        let one = at(&photon, &format!("{path}/steps/2"), position).await;
        assert_eq!(one["status"], operation["workflow"][1]["status"]);
        let list = at(&photon, "/api/v1/operations", position).await;
        assert_eq!(
            (&list[0]["status"], &list[0]["revision"], &list[0]["progress"]),
            (&operation["status"], &operation["revision"], &operation["progress"])
        );
        let done = u64::from(operation["status"] == json!("completed"));
        let board = at(&photon, "/metrics/dashboard", position).await;
        assert_eq!(board["operationsByStatus"]["completed"], json!(done));
    }
    let (_, finished, _) = seen.last().unwrap();
    let end = finished["completedAt"].as_str().unwrap();
    assert_eq!(&at(&photon, &path, end).await, finished);
    assert_eq!(at(&photon, "/api/v1/agents", "1").await[0]["id"], json!("ada"));
    assert_eq!(at(&photon, "/api/v1/agents/ada", "1").await["metrics"]["operationsCompleted"], json!(0));
    let before = photon.get(&format!("{path}?at=2000-01-01T00:00:00Z")).await;
    before.refused(404, "not_found");
    assert_eq!(at(&photon, "/api/v1/operations", "0").await, json!([]));
}

#[tokio::test]
async fn what_is_no_place_in_the_log_is_refused() {
    let photon = Photon::start().await;
    let id = photon.operation(json!([step(1, "a", &[], json!({}))])).await;
    let path = format!("/api/v1/operations/{id}");
    for bad in ["999999", "-1", "yesterday", "1e3", ""] {
        let answer = photon.get(&format!("{path}?at={bad}")).await;
        answer.refused(400, "invalid_parameter");
    }
    photon.get(&format!("{path}?at=1&wait=1s")).await.refused(400, "invalid_parameter");
    photon.get("/api/v1/replay?to=999999").await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn transitions_tell_each_change_of_status_once_page_by_page() {
    let photon = Photon::start().await;
    let (id, _) = lead_a_life(&photon).await;
    let path = format!("/api/v1/operations/{id}/transitions");
    let all = photon.get(&path).await.expect(200).data().as_array().unwrap().clone();
    let told: Vec<String> = all
        .iter()
        .map(|row| {
            let step = row["step"].as_u64().map_or("all".into(), |step| step.to_string());
            format!("{step}:{}>{}", row["from"].as_str().unwrap(), row["to"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            "all:pending>in_progress",
            "1:pending>ready",
            "1:ready>reserved",
            "1:reserved>running",
            "1:running>completed",
            "2:pending>ready",
            "2:ready>reserved",
            "2:reserved>running",
            "2:running>completed",
            "all:in_progress>completed",
        ]
    );
    assert_eq!((&all[2]["agent"], &all[4]["progress"]), (&json!("ada"), &json!(50)));
    let (mut pages, mut next) = (Vec::new(), Some(format!("{path}?limit=3")));
    while let Some(path) = next {
        let page = photon.get(&path).await.expect(200);
        pages.extend(page.data().as_array().unwrap().clone());
        let cursor = page.body["page"]["nextCursor"].as_str().map(str::to_owned);
        next = cursor.map(|cursor| format!("/api/v1/operations/{id}/transitions?limit=3&cursor={cursor}"));
    }
    assert_eq!(pages, all);
    photon.get("/api/v1/operations/op_00000000000000000000000000000000/transitions").await.expect(404);
}

#[tokio::test]
async fn a_replay_says_the_same_before_and_after_a_restart_and_finds_no_difference() {
    let mut photon = Photon::start().await;
    let (id, seen) = lead_a_life(&photon).await;
    // The slot is given back after the step was reported; what moves meanwhile is not compared.
    photon.until("/api/v1/agents/ada/availability", |ada| ada["leases"] == json!([])).await;
    let whole = photon.get("/api/v1/replay?check=true").await.expect(200).data().clone();
    assert_eq!(whole["check"], json!({"equal": true, "compared": 2, "movedOn": 0, "differing": []}));
    assert_eq!(whole["operations"]["completed"], json!(1));
    photon.get("/api/v1/replay?check=true&to=0").await.refused(400, "invalid_parameter");
    let early = &seen[0].0;
    let part = photon.get(&format!("/api/v1/replay?to={early}")).await.expect(200).data().clone();
    assert_ne!(part["hash"], whole["hash"]);
    photon.kill();
    photon.restart().await;
    let position = whole["position"].as_str().unwrap();
    for (to, then) in [(position, &whole), (early.as_str(), &part)] {
        let again = photon.get(&format!("/api/v1/replay?to={to}")).await.expect(200);
        assert_eq!((&again.data()["hash"], &again.data()["events"]), (&then["hash"], &then["events"]));
    }
    let said = photon.call(["replay", "--check"]).ends_with(0).stdout;
    assert!(said.contains(position), "{said}");
    let then = photon.call(["replay", "--operation", &id, "--to", early, "-o", "json"]).ends_with(0);
    assert_eq!(then.json()["revision"], seen[0].1["revision"]);
}
