//! What Photon notes about itself: health that changed, alerts, callers turned away, streams out of service.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::fs::File;
use std::time::Instant;

use actors::codec::{Metadata, Stored};
use domain::system::{Event, Quarantined};
use events::{Append, Beside, EventLog, Expected, NewEvent, Options, SledLog};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::{Value, json};
use support::{PATIENCE, Photon, step};

const MIB: u64 = 1 << 20;
const SECURITY: &str = "/api/v1/events?types=security.*";
const ALERTS: &str = "/api/v1/events?types=performance.alert";

/// The bodies of what is shown at this path, oldest first.
fn bodies(events: &Value) -> Vec<Value> {
    events.as_array().unwrap().iter().map(|event| event["data"].clone()).collect()
}

async fn noted(photon: &Photon, path: &str) -> Vec<Value> {
    bodies(photon.get(path).await.expect(200).data())
}

/// Waits until this line stands in `/metrics`.
async fn until_metric(photon: &Photon, line: &str) {
    let begun = Instant::now();
    let wanted = format!("{line}\n");
    loop {
        let shown = photon.get("/metrics").await.body;
        if shown.as_str().unwrap().contains(&wanted) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{line} is not in {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn callers_that_are_turned_away_are_noted_together_and_nothing_of_theirs_as_it_came() {
    let mut photon = Photon::start().await;
    let hostile = format!("http://evil.test/{}", "x".repeat(500));
    for _ in 0..5 {
        let request = photon.request("GET", "/api/v1/agents").header("origin", &hostile);
        photon.send(request).await.refused(403, "origin_not_allowed");
    }
    let request = photon.request("GET", "/health").header("host", "rebound.test");
    photon.send(request).await.refused(403, "host_not_allowed");
    until_metric(&photon, r#"photon_security_refusals_total{kind="origin_not_allowed"} 5"#).await;
    until_metric(&photon, r#"photon_security_refusals_total{kind="host_not_allowed"} 1"#).await;
    assert_eq!(photon.stop(), 0);
    photon.restart().await;
    let noted = noted(&photon, SECURITY).await;
    let of = |kind: &str| noted.iter().filter(|body| body["kind"] == kind).cloned().collect::<Vec<_>>();
    let origins = of("origin_not_allowed");
    // Two when a minute ended in between.
    assert!((1..=2).contains(&origins.len()), "{origins:?}");
    assert_eq!(origins.iter().map(|body| body["count"].as_u64().unwrap()).sum::<u64>(), 5);
    assert_eq!((&origins[0]["peer"], &origins[0]["detail"]), (&json!("127.0.0.1"), &json!(hostile[..64])));
    let hosts =
        json!([{"kind": "host_not_allowed", "peer": "127.0.0.1", "count": 1, "detail": "rebound.test"}]);
    assert_eq!(json!(of("host_not_allowed")), hosts);
}

#[tokio::test]
async fn too_many_ready_steps_raise_an_alert_which_is_cleared_when_they_are_gone() {
    let config = "[monitoring]\nmetrics_interval_ms = 100\nalert_ready_steps = 1\nalert_p95_ms = 0\n";
    let photon = Photon::configured(config).await;
    let workflow = json!([step(1, "a", &[], json!({})), step(2, "b", &[], json!({}))]);
    let id = photon.operation(workflow).await;
    let raised = photon.until(ALERTS, |events| !events.as_array().unwrap().is_empty()).await;
    let alert = json!({"metric": "ready_steps", "state": "raised", "value": 2, "threshold": 1});
    assert_eq!(bodies(&raised), std::slice::from_ref(&alert));
    assert_eq!(raised[0]["subject"], json!("system/system"));
    until_metric(&photon, r#"photon_alert_raised{metric="ready_steps"} 1"#).await;
    let dashboard = photon.get("/metrics/dashboard").await.expect(200);
    let shown = &dashboard.data()["alerts"][0];
    assert_eq!((&shown["kind"], &shown["subject"]), (&json!("performance"), &json!("ready_steps")));
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    let both = photon.until(ALERTS, |events| events.as_array().unwrap().len() > 1).await;
    let cleared = json!({"metric": "ready_steps", "state": "cleared", "value": 0, "threshold": 1});
    assert_eq!(bodies(&both), [alert, cleared]);
    until_metric(&photon, r#"photon_alert_raised{metric="ready_steps"} 0"#).await;
    let dashboard = photon.get("/metrics/dashboard").await.expect(200);
    assert_eq!(dashboard.data()["alerts"], json!([]));
}

#[tokio::test]
async fn slow_answers_raise_an_alert_and_long_polls_do_not() {
    let config = "[monitoring]\nmetrics_interval_ms = 100\nalert_p95_ms = 1000\n";
    let photon = Photon::configured(config).await;
    let id = photon.operation(json!([step(1, "a", &[], json!({}))])).await;
    for _ in 0..2 {
        photon.get(&format!("/api/v1/operations/{id}?wait=1200ms&minRevision=99")).await.expect(200);
    }
    // Waits for events that never come, for as long as the server lets it: two seconds.
    let slow = || photon.get("/api/v1/operations?minPosition=999999");
    assert_eq!(noted(&photon, ALERTS).await, Vec::<Value>::new());
    for _ in 0..2 {
        for answer in futures_util::future::join_all([slow(), slow(), slow()]).await {
            answer.refused(503, "overloaded");
        }
    }
    let both = photon.until(ALERTS, |events| events.as_array().unwrap().len() == 2).await;
    let seen: Vec<_> = bodies(&both);
    let words = |body: &Value| (body["metric"].clone(), body["state"].clone());
    assert_eq!(words(&seen[0]), (json!("request_p95_ms"), json!("raised")));
    assert_eq!(words(&seen[1]), (json!("request_p95_ms"), json!("cleared")));
    assert!((1_001..10_000).contains(&seen[0]["value"].as_u64().unwrap()), "{seen:?}");
}

#[tokio::test]
async fn a_disk_without_space_is_a_change_of_health_and_so_is_its_end() {
    let _alone = support::alone();
    let free = statvfs(std::env::temp_dir()).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
    if free < 4_096 * MIB {
        eprintln!("skipped: too little space to take some of it");
        return;
    }
    let config = format!(
        "[monitoring]\nhealth_check_interval_ms = 100\n[limits]\ndisk_low_water_bytes = {}\n",
        free - 512 * MIB
    );
    let photon = Photon::configured(&config).await;
    // Below twice the low water somebody should look at it, from the first look on.
    let path = "/api/v1/events?types=system.health_changed";
    let first = photon.until(path, |events| !events.as_array().unwrap().is_empty()).await;
    let first = bodies(&first).remove(0);
    assert_eq!((&first["from"], &first["to"]), (&json!("pass"), &json!("warn")));
    assert_eq!((&first["checks"][0]["name"], &first["checks"][0]["state"]), (&json!("disk"), &json!("warn")));
    let ballast = photon.folder().join("ballast");
    let file = File::create(&ballast).unwrap();
    if let Err(fault) = fallocate(&file, FallocateFlags::empty(), 0, 1_024 * MIB) {
        eprintln!("skipped: no space can be taken here: {fault}");
        return;
    }
    until_metric(&photon, "photon_health_state 2").await;
    photon.get("/health/detailed").await.expect(503);
    std::fs::remove_file(&ballast).unwrap();
    drop(file);
    until_metric(&photon, "photon_health_state 1").await;
    // What happened while nothing could be stored is stored now, in its order.
    let events = photon.until(path, |events| events.as_array().unwrap().len() == 3).await;
    let steps: Vec<_> =
        bodies(&events).iter().map(|body| (body["from"].clone(), body["to"].clone())).collect();
    let word = |word: &str| json!(word);
    let expected = [(word("pass"), word("warn")), (word("warn"), word("fail")), (word("fail"), word("warn"))];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn without_monitoring_nothing_is_sampled_and_refusals_are_noted_still() {
    let config = "[monitoring]\nenabled = false\nmetrics_interval_ms = 100\nalert_ready_steps = 1\n";
    let mut photon = Photon::configured(config).await;
    photon.operation(json!([step(1, "a", &[], json!({})), step(2, "b", &[], json!({}))])).await;
    let request = photon.request("GET", "/health").header("host", "rebound.test");
    photon.send(request).await.refused(403, "host_not_allowed");
    assert_eq!(photon.stop(), 0);
    photon.restart().await;
    assert_eq!(noted(&photon, SECURITY).await.len(), 1);
    assert_eq!(noted(&photon, ALERTS).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_quarantine_is_shown_with_the_name_of_its_stream() {
    let mut photon = Photon::start().await;
    assert_eq!(photon.stop(), 0);
    let log = SledLog::open(photon.folder().join("data"), Options::default()).unwrap();
    let stored = Event::encode(&Event::Quarantined(Quarantined { stream: "agent/b".into() })).unwrap();
    let event = NewEvent {
        id: uuid::Uuid::from_u128(1).into(),
        name: stored.name.into(),
        schema: stored.schema,
        time_us: 0,
        metadata: Metadata::of_photon().encode(),
        body: stored.body,
        beside: Beside::NONE,
    };
    let stream = actors::system::stream();
    log.append(Append { stream, expected: Expected::Any, events: vec![event] }).await.unwrap();
    log.close().await.unwrap();
    photon.restart().await;
    let noted = noted(&photon, "/api/v1/events?types=stream.quarantined").await;
    assert_eq!(noted, [json!({"stream": "agent/b"})]);
}
