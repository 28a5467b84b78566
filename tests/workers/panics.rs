//! A panic inside a running server: one operation's actor ends and comes back with its state, and nobody
//! else notices. Needs the feature `testing`, without which nothing can make an actor panic.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::{PATIENCE, Photon, checker, step};

/// Makes the actor of an operation panic and waits until so many have.
async fn sabotage(photon: &Photon, id: &str, deaths: usize) {
    photon.post(&format!("/testing/operations/{id}/panic"), json!({})).await.expect(202);
    let begun = std::time::Instant::now();
    while metric(photon, "photon_actor_deaths_total").await != deaths {
        assert!(begun.elapsed() < PATIENCE, "the actor did not die");
    }
}

async fn metric(photon: &Photon, name: &str) -> usize {
    let text = photon.get("/metrics").await.expect(200).body;
    let line = text.as_str().unwrap().lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

async fn rename(photon: &Photon, id: &str, name: &str) -> support::Answer {
    photon.put(&format!("/api/v1/operations/{id}"), json!({"name": name})).await
}

/// Takes whole operations through, one after the other, for as long as it is told to.
async fn keep_working(photon: &Photon, agent: &str, done: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
        let lease = photon.claim(agent).await;
        assert_eq!(lease["operationId"], json!(id));
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
        assert_eq!(photon.shown(&id).await["status"], json!("completed"));
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn until_more(done: &AtomicUsize, count: usize) {
    let (begun, before) = (std::time::Instant::now(), done.load(Ordering::Relaxed));
    while done.load(Ordering::Relaxed) < before + count {
        assert!(begun.elapsed() < PATIENCE, "the others stand still");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_panic_in_one_operation_stops_no_other_and_loses_none_of_its_state() {
    let mut photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.agent("b", &[]).await;
    photon.agent("c", &[]).await;
    let inputs = json!({"from": {"$expr": "steps[1].result"}});
    let hurt = photon.operation(json!([step(1, "one", &[], json!({})), step(2, "two", &[1], inputs)])).await;
    let lease = photon.claim("a").await;
    let note = json!({"progress": 40, "note": "half way", "checkpoint": {"at": 40}});
    photon.report(&lease, "progress", note).await.expect(200);
    let bystander = photon.operation(json!([step(1, "one", &[], json!({}))])).await;
    let held = photon.claim("b").await;
    let renamed = rename(&photon, &hurt, "before").await.expect(200);
    let (before, history) = (photon.shown(&hurt).await, photon.history(&hurt).await);

    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    tokio::join!(keep_working(&photon, "c", &done, &stop), async {
        until_more(&done, 3).await;
        sabotage(&photon, &hurt, 1).await;
        until_more(&done, 3).await;
        stop.store(true, Ordering::Relaxed);
    });

    photon.report(&held, "complete", json!({"result": "kept"})).await.expect(200);
    assert_eq!(photon.shown(&bystander).await["status"], json!("completed"));
    assert_eq!((photon.shown(&hurt).await, photon.history(&hurt).await), (before, history));
    // The new actor stands at the very revision of the dead one, and knows its grant, progress and all.
    let path = format!("/api/v1/operations/{hurt}");
    let change = photon.request("PUT", &path).header("if-match", renamed.header("etag"));
    let after = photon.send(change.json(&json!({"name": "after"}))).await.expect(200);
    let revision = renamed.data()["revision"].as_u64().unwrap() + 1;
    assert_eq!((&after.data()["revision"], &after.data()["name"]), (&json!(revision), &json!("after")));
    assert_eq!(after.data()["workflow"][0]["progress"], json!(40));
    photon.report(&lease, "complete", json!({"result": {"seed": 7}})).await.expect(200);
    let second = photon.claim("a").await;
    assert_eq!((&second["step"], &second["inputs"]), (&json!(2), &json!({"from": {"seed": 7}})));
    photon.report(&second, "complete", json!({"result": "done"})).await.expect(200);
    let ended = photon.shown(&hurt).await;
    assert_eq!((&ended["status"], &ended["results"]["2"]), (&json!("completed"), &json!("done")));
    assert_eq!(
        (&ended["workflow"][0]["attempt"], metric(&photon, "photon_quarantined_streams").await),
        (&json!(1), 0)
    );
    checker::check_log(&photon).await.must_be_clean();
    // It is the process that was started first: nothing but the one actor was ever restarted.
    assert_eq!(photon.stop(), 0);
}

#[tokio::test]
async fn an_operation_that_panics_again_and_again_is_put_out_of_service_alone() {
    let photon = Photon::start().await;
    let hurt = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let bystander = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    for death in 1..=5 {
        // Each life needs a birth.
        rename(&photon, &hurt, &format!("life {death}")).await.expect(200);
        sabotage(&photon, &hurt, death).await;
    }
    rename(&photon, &hurt, "x").await.refused(503, "quarantined");
    assert_eq!(metric(&photon, "photon_quarantined_streams").await, 1);
    // It is still there for readers, and everybody else is in service.
    assert_eq!(photon.shown(&hurt).await["name"], json!("life 5"));
    rename(&photon, &bystander, "undisturbed").await.expect(200);
    photon.get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn a_lease_whose_operation_is_out_of_service_costs_the_agent_no_other() {
    let _alone = support::alone();
    let photon = Photon::configured("[agents]\nlease_ms = 1000\n").await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 2});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    let hurt = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let bad = photon.claim("a").await;
    let kept = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let good = photon.claim("a").await;
    let named: Vec<Value> =
        [&bad, &good].map(|lease| json!({"leaseId": lease["leaseId"], "progress": 40})).into();
    let beat = || photon.post("/api/v1/agents/a/heartbeat", json!({"leases": named}));
    assert_eq!(beat().await.expect(200).data()["renewed"].as_array().unwrap().len(), 2);
    for death in 1..=5 {
        beat().await.expect(200);
        sabotage(&photon, &hurt, death).await;
    }
    // Longer than two lease periods.
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(2_200) {
        let pulse = beat().await.expect(200);
        assert_eq!(pulse.data()["rejected"][0]["leaseId"], bad["leaseId"]);
        assert_eq!(pulse.data()["rejected"][0]["code"], json!("quarantined"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(photon.shown(&kept).await["workflow"][0]["status"], json!("running"));
    photon.report(&good, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(photon.shown(&kept).await["status"], json!("completed"));
}
