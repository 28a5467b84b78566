//! kill −9 in the middle of work: what was acknowledged is there, byte for byte, and all of it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::collections::BTreeMap;

use events::{Options, SledLog};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::called::call;
use support::workers::Shift;
use support::{Photon, checker, step};

const OPERATIONS: usize = 50;
const AGENTS: usize = 8;

fn workflow() -> Value {
    let mut steps = json!([
        step(1, "one", &[], json!({})),
        step(2, "two", &[1], json!({"from": {"$expr": "steps[1].result"}})),
        step(3, "three", &[2], json!({"from": {"$expr": "steps[2].result"}})),
    ]);
    for step in steps.as_array_mut().unwrap() {
        step["retryPolicy"] = json!({"initialDelayMs": 10, "maxAttempts": 10});
    }
    steps
}

#[tokio::test]
async fn killed_in_the_middle_of_fifty_operations_nothing_acknowledged_is_lost() {
    let _alone = support::alone();
    let mut photon = Photon::configured("[agents]\noffer_ms = 500\nlease_ms = 2000\n").await;
    let mut acknowledged: BTreeMap<String, Value> = BTreeMap::new();
    for number in 0..OPERATIONS {
        let body =
            json!({"name": format!("n{number}"), "metadata": {"number": number}, "workflow": workflow()});
        let answer = photon.post("/api/v1/operations", body).await.expect(201);
        acknowledged.insert(answer.data()["id"].as_str().unwrap().into(), answer.data().clone());
    }
    let shift = Shift::begin(&photon, AGENTS).await;
    photon
        .until("/api/v1/operations?status=completed&limit=500", |done| done.as_array().unwrap().len() >= 10)
        .await;
    shift.end().await;
    // Nobody writes now except the timers, so what is read twice the same is what must come back.
    let mut before = BTreeMap::new();
    for id in acknowledged.keys() {
        before.insert(id.clone(), photon.shown(id).await);
    }
    photon.kill();
    photon.restart().await;
    for (id, shown) in &before {
        let after = photon.shown(id).await;
        if after["revision"] == shown["revision"] {
            assert_eq!(after.to_string(), shown.to_string(), "{id}");
        } else {
            // Only an offer that nobody took may have moved on meanwhile.
            assert!(after["revision"].as_u64() > shown["revision"].as_u64(), "{id}");
        }
    }
    let shift = Shift::resume(&photon, 1);
    let list = "/api/v1/operations?status=completed&limit=500";
    photon.until(list, |done| done.as_array().unwrap().len() == OPERATIONS).await;
    shift.end().await;
    checker::check_log(&photon).await.must_be_clean();
}

#[tokio::test]
async fn killed_under_load_every_acknowledged_operation_is_there_and_ends() {
    let _alone = support::alone();
    let mut photon = Photon::configured("[agents]\noffer_ms = 500\nlease_ms = 2000\n").await;
    let shift = Shift::begin(&photon, AGENTS).await;
    let create = |photon: &Photon, key: usize| {
        let body = json!({"name": format!("n{key}"), "workflow": workflow()});
        let request = photon.request("POST", "/api/v1/operations");
        request.header("idempotency-key", format!("key-{key}")).json(&body)
    };
    let mut acknowledged = Vec::new();
    for _ in 0..5 {
        for _ in 0..OPERATIONS / 5 {
            let answer = photon.send(create(&photon, acknowledged.len())).await.expect(201);
            acknowledged.push(answer.data().to_string());
        }
        // The workers are in the middle of some step, whatever it is.
        photon.kill();
        photon.restart().await;
        for (key, first) in acknowledged.iter().enumerate() {
            let again = photon.send(create(&photon, key)).await.expect(201);
            assert_eq!(again.data().to_string(), *first, "the state at the acknowledged revision");
        }
    }
    let ids = acknowledged.iter().map(|data| serde_json::from_str::<Value>(data).unwrap());
    let acknowledged: Vec<String> = ids.map(|data| data["id"].as_str().unwrap().to_owned()).collect();
    for id in &acknowledged {
        let ended = photon.get(&format!("/api/v1/operations/{id}?wait=30s")).await.expect(200);
        assert_eq!(ended.data()["status"], json!("completed"), "{}", ended.body);
        let history = photon.history(id).await;
        for number in 1..=3 {
            assert!(ended.data()["results"][number.to_string()].is_object());
        }
        assert_eq!(history.iter().filter(|name| *name == "step.completed").count(), 3);
        assert_eq!(history.iter().filter(|name| *name == "operation.completed").count(), 1);
        assert_eq!(history.last().unwrap(), "operation.completed");
    }
    shift.end().await;
    // No slot leaks: every agent is free again.
    photon
        .until("/api/v1/agents?limit=100", |agents| {
            agents.as_array().unwrap().iter().all(|agent| agent["currentOperations"] == json!([]))
        })
        .await;
    checker::check_log(&photon).await.must_be_over();
}

#[tokio::test]
async fn a_clean_stop_ends_with_zero_and_the_next_start_has_everything() {
    let mut photon = Photon::start().await;
    photon.agent("a", &["x"]).await;
    let id = photon.operation(workflow()).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    // The slot is freed a moment after the report was answered.
    photon.until("/api/v1/agents/a", |agent| agent["currentOperations"] == json!([])).await;
    let (operation, agent) = (photon.shown(&id).await, photon.get("/api/v1/agents/a").await);
    assert_eq!(photon.stop(), 0);
    photon.restart().await;
    assert_eq!(photon.shown(&id).await.to_string(), operation.to_string());
    let after = photon.get("/api/v1/agents/a").await.expect(200);
    assert_eq!(after.data()["metrics"], agent.data()["metrics"]);
    assert_eq!(photon.claim("a").await["action"], json!("two"));
}

#[tokio::test]
async fn a_stop_answers_long_polls_instead_of_waiting_for_them() {
    let mut photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(workflow()).await;
    let path = photon.url(&format!("/api/v1/operations/{id}?wait=50s"));
    let claim = photon.request("POST", "/api/v1/agents/b/claim");
    photon.agent("b", &[]).await;
    let first = photon.claim("a").await;
    let poll = tokio::spawn(async move { reqwest::get(path).await.unwrap().status().as_u16() });
    let claim = tokio::spawn(claim.json(&json!({"wait": "50s"})).send());
    photon.claims_waiting(1).await;
    assert_eq!(first["step"], json!(1));
    let begun = std::time::Instant::now();
    assert_eq!(tokio::task::spawn_blocking(move || photon.stop()).await.unwrap(), 0);
    // Far below the 25 s that requests may take; both were answered.
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(claim.await.unwrap().unwrap().status().as_u16(), 200);
    assert_eq!(poll.await.unwrap(), 200);
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let photon = Photon::start().await;
    let second = call(["serve"]).with("PHOTON_PORT", "0");
    let second = second.with("PHOTON_DATA_DIR", photon.folder().join("data")).ends_with(69);
    assert!(second.stderr.contains("another process"), "{}", second.stderr);
    photon.get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn a_server_whose_log_another_process_has_taken_over_ends_with_69() {
    let mut photon = Photon::start().await;
    photon.agent("mine", &[]).await;
    let folder = photon.folder().join("data");
    photon.signal(Signal::STOP);
    // As on a file system that grants the lock twice.
    std::fs::remove_file(folder.join("lock")).unwrap();
    let log = SledLog::open(&folder, Options::default()).unwrap();
    photon.signal(Signal::CONT);
    let body = json!({"id": "late", "capabilities": []});
    let late = photon.request("POST", "/api/v1/agents").json(&body).send().await;
    assert!(!late.is_ok_and(|answer| answer.status().is_success()), "nobody is told that it was done");
    assert_eq!(photon.ended().await, 69);
    log.close().await.unwrap();
    drop(log);
    photon.restart().await;
    photon.get("/api/v1/agents/mine").await.expect(200);
    photon.get("/api/v1/agents/late").await.refused(404, "not_found");
}
