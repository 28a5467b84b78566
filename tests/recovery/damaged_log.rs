//! A damaged log: the start is refused with the place, the audit names the same place, and with
//! `--quarantine` what is whole can be read while nothing can be changed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support;

use support::called::{Call, call};
use support::{Photon, Tail, step};

/// A stopped server with two operations, the second one damaged: where its journal is and what it held.
async fn damaged() -> (Photon, [String; 2], PathBuf, Vec<u8>) {
    let mut photon = Photon::start().await;
    let named = |name: &str| step(1, name, &[], json!({}));
    let whole = photon.operation(json!([named("kept-action")])).await;
    let lost = photon.operation(json!([named("lost-action")])).await;
    assert_eq!(photon.stop(), 0);
    let journal = photon.folder().join("data/gen-000001/journal");
    let bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(11).position(|window| window == b"lost-action").unwrap();
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    (photon, [whole, lost], journal, damaged)
}

fn verify(photon: &Photon, more: &[&str]) -> Call {
    call([&["event", "verify", "--data-dir", "data"], more].concat()).in_folder(photon.folder())
}

#[tokio::test]
async fn a_damaged_log_is_named_by_the_start_and_by_the_audit() {
    let (photon, _, journal, damaged) = damaged().await;
    let (exit, complaint) = photon.refused_start();
    assert_eq!(exit, 65, "{complaint}");
    let audited = verify(&photon, &[]).ends_with(65).stderr;
    assert!(audited.contains("photon serve --quarantine"));
    for told in [complaint, audited] {
        assert!(told.contains("checksum in generation 1 at byte "), "{told}");
        assert!(told.contains(", position 3"), "{told}");
    }
    let snapshots = call(["snapshot", "verify", "--data-dir", "data"]).in_folder(photon.folder());
    snapshots.ends_with(65);
    assert!(fs::read(journal).unwrap() == damaged, "nothing was repaired");
}

#[tokio::test]
async fn in_quarantine_what_is_whole_can_be_read_and_nothing_can_be_changed() {
    let (mut photon, [whole, lost], journal, damaged) = damaged().await;
    photon.restart_read_only().await;
    assert_eq!(photon.shown(&whole).await["name"], "test");
    photon.get(&format!("/api/v1/operations/{lost}")).await.refused(404, "not_found");
    assert_eq!(photon.get("/api/v1/events").await.expect(200).data().as_array().unwrap().len(), 2);
    assert_eq!(photon.history(&whole).await, ["operation.created", "operation.started"]);
    photon.post("/api/v1/agents/select", json!({"platform": "worker", "action": "x"})).await.expect(200);
    for (method, path) in [
        ("POST", "/api/v1/operations".to_owned()),
        ("PUT", format!("/api/v1/operations/{whole}")),
        ("DELETE", format!("/api/v1/operations/{whole}")),
        ("POST", "/api/v1/agents".to_owned()),
        ("POST", "/api/v1/agents/a/claim".to_owned()),
        ("DELETE", "/api/v1/lanes/a".to_owned()),
    ] {
        let request = photon.request(method, &path).json(&json!({}));
        let refused = photon.send(request).await.refused(503, "read_only");
        assert!(refused.body["error"].as_str().unwrap().contains("The log is damaged"));
    }
    photon.get("/health/ready").await.refused(503, "read_only");
    let health = photon.get("/health/detailed").await;
    let checks = health.data()["checks"].as_array().unwrap().clone();
    let log = checks.iter().find(|check| check["name"] == "log").unwrap();
    assert!(log["state"] == "fail" && log["detail"].as_str().unwrap().contains("position 3"), "{log}");
    assert!(photon.get("/metrics").await.body.as_str().unwrap().contains("\nphoton_log_read_only 1\n"));
    let tail = Tail::start(&photon, "operation.*");
    assert_eq!(tail.next()["sequence"], "1");
    assert_eq!(photon.stopped().await, 0);
    assert!(fs::read(&journal).unwrap() == damaged, "nothing was changed");
}

#[tokio::test]
async fn a_stream_of_a_damaged_log_says_where_the_damage_is() {
    let (mut photon, _, _, _) = damaged().await;
    photon.restart_read_only().await;
    let mut stream = photon.request("GET", "/api/v1/events/stream?after=0").send().await.unwrap();
    let mut told = String::new();
    while !told.contains("event: gap") || !told.ends_with("\n\n") {
        let chunk = stream.chunk().await.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let frames: Vec<&str> = told.split("\n\n").filter(|frame| !frame.is_empty()).collect();
    let gap = frames.last().unwrap();
    assert!(frames.iter().any(|frame| frame.starts_with("id: 1\nevent: operation.created")), "{told}");
    let data: Value = serde_json::from_str(gap.strip_prefix("event: gap\ndata: ").unwrap()).unwrap();
    assert_eq!((&data["position"], &data["generation"]), (&json!("3"), &json!(1)));
    assert_eq!(data["what"], "a record breaks its checksum");
}

#[tokio::test]
async fn an_audit_of_a_whole_log_counts_and_names_the_head_of_its_chain() {
    let mut photon = Photon::start().await;
    photon.agent("scout", &["look"]).await;
    photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    let busy = verify(&photon, &[]).ends_with(69).stderr;
    assert!(busy.contains("in use by a running server"), "{busy}");
    assert_eq!(photon.stop(), 0);
    let found = verify(&photon, &["-o", "json"]).ends_with(0).json();
    assert_eq!((&found["events"], &found["streams"]), (&json!(3), &json!(2)));
    assert_eq!((&found["first"], &found["last"]), (&json!("1"), &json!("3")));
    assert_eq!(found["head"].as_str().unwrap().len(), 64);
    let told = verify(&photon, &[]).ends_with(0).stdout;
    assert!(
        told.contains("3 events of 2 streams") && told.contains(found["head"].as_str().unwrap()),
        "{told}"
    );
    fs::remove_dir_all(photon.folder().join("data/gen-000001")).unwrap();
    verify(&photon, &[]).ends_with(64);
}
