//! The eleven events of the specification, each caused for real and seen by one reader of the stream.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use support::{PATIENCE, Photon, SPECIFIED_EVENTS, Tail, step};

/// A disk that is called nearly full from the start, and alerts at the first ready step.
fn config(folder: &std::path::Path) -> String {
    let disk = rustix::fs::statvfs(folder).unwrap();
    let low_water = disk.f_bavail * disk.f_frsize / 4 * 3;
    format!(
        "[limits]\ndisk_low_water_bytes = {low_water}\n[monitoring]\nmetrics_interval_ms = 100\n\
         health_check_interval_ms = 100\nalert_ready_steps = 1\n"
    )
}

/// One operation completes, one fails, and one agent falls silent.
async fn cause_what_agents_do(photon: &Photon) {
    photon.agent("diligent", &["work"]).await;
    let heartbeat = json!({"leases": []});
    photon.post("/api/v1/agents/diligent/heartbeat", heartbeat).await.expect(200);
    let workflow = json!([step(1, "work", &[], json!({})), step(2, "work", &[1], json!({}))]);
    photon.operation(workflow).await;
    for _ in 0..2 {
        let lease = photon.claim("diligent").await;
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let lease = photon.claim("diligent").await;
    let error = json!({"code": "broken", "message": "it is broken", "retryable": false});
    photon.report(&lease, "fail", error).await.expect(200);
    let silent = json!({"id": "silent", "capabilities": [], "config": {"heartbeatIntervalMs": 1_000}});
    photon.post("/api/v1/agents", silent).await.expect(201);
    // More ready steps than an alert wants, and nobody to take them.
    let crowd = json!([step(1, "other", &[], json!({})), step(2, "other", &[], json!({}))]);
    photon.operation(crowd).await;
}

#[tokio::test]
async fn every_kind_of_event_of_the_specification_reaches_a_stream() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut photon = Photon::configured(&config(folder.path())).await;
    let tail = Tail::start(&photon, &SPECIFIED_EVENTS.join(","));
    // The first line proves that the reader is there: a heartbeat is not kept for it.
    photon.agent("first", &[]).await;
    let mut missing: BTreeSet<&str> = SPECIFIED_EVENTS.into();
    let take = |missing: &mut BTreeSet<&str>| {
        let event = tail.next();
        let kind = event["type"].as_str().unwrap();
        assert_eq!(event["sequence"].is_null(), kind == "agent.heartbeat", "{event}");
        missing.remove(kind);
    };
    take(&mut missing);
    cause_what_agents_do(&photon).await;
    let foreign = photon.request("GET", "/health").header("origin", "http://evil.test");
    photon.send(foreign).await.refused(403, "origin_not_allowed");
    let begun = Instant::now();
    while missing != BTreeSet::from(["security.event"]) {
        assert!(begun.elapsed() < PATIENCE, "not seen: {missing:?}");
        take(&mut missing);
    }
    // Offences of a minute are told together; a stop tells at once, and the reader comes back.
    photon.stop();
    photon.restart().await;
    while !missing.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "not seen: {missing:?}");
        take(&mut missing);
    }
}
