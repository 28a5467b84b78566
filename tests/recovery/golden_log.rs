//! Logs of earlier versions are read for ever: each stored one comes to what it came to when it was written.
//!
//! A log of today is stored by `PHOTON_WRITE_SAMPLES=1` under the name in [`TODAY`], which never rewrites one
//! that exists. Before the first release, `PHOTON_WRITE_SAMPLES=afresh` does: docs/TESTING.md has the
//! commands.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Photon, step};

/// The newest stored log; a version that changes what is stored adds another.
const TODAY: &str = "0001";

fn stored() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs")
}

fn step_on(number: u32, platform: &str, action: &str) -> Value {
    let mut step = step(number, action, &[], json!({}));
    step["platform"] = json!(platform);
    step
}

/// Something of everything that is stored today.
async fn lead_a_life(photon: &Photon) {
    photon.agent("ada", &["rust"]).await;
    photon.agent("bob", &[]).await;
    let mut write = step(3, "deploy", &[1], json!({"of": {"$expr": "steps[1].result.n"}}));
    (write["effect"], write["timeout"]) = (json!("write"), json!(200));
    let workflow = json!([step(1, "build", &[], json!({})), step_on(2, "human", "approve"), write]);
    let id = photon.operation(workflow).await;
    let path = |what: &str| format!("/api/v1/operations/{id}/{what}");
    let lease = photon.claim("ada").await;
    let checkpoint = json!({"progress": 50, "note": "half", "checkpoint": {"at": 1}});
    photon.report(&lease, "progress", checkpoint).await.expect(200);
    photon.post(&path("pause"), json!({"reason": "wait"})).await.expect(200);
    photon.report(&lease, "complete", json!({"result": {"n": 7}, "usage": {"tokens": 3}})).await.expect(200);
    photon.post(&path("resume"), json!({})).await.expect(200);
    photon.post(&path("steps/2/approve"), json!({"reason": "green"})).await.expect(200);
    let lease = photon.claim("ada").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    let whole = format!("/api/v1/operations/{id}");
    photon.until(&whole, |shown| shown["workflow"][2]["status"] == json!("needs_attention")).await;
    let resolved = json!({"outcome": "completed", "result": true, "reason": "seen"});
    photon.post(&path("steps/3/resolve"), resolved).await.expect(200);
    let other = photon.operation(json!([step(1, "call", &[], json!({})), step(2, "call", &[1], json!({}))]));
    let other = other.await;
    let lease = photon.claim("bob").await;
    let limit = json!({"code": "rate_limited", "message": "429", "retryAfterMs": 60_000});
    photon.report(&lease, "fail", limit).await.expect(200);
    photon.delete("/api/v1/lanes/worker.bob").await.expect(200);
    let lease = photon.claim("ada").await;
    let flaky = json!({"code": "flaky", "message": "once more"});
    photon.report(&lease, "fail", flaky).await.expect(200);
    photon.post(&format!("/api/v1/operations/{other}/steps/2/skip"), json!({})).await.expect(200);
    photon.put(&format!("/api/v1/operations/{other}"), json!({"priority": "high"})).await.expect(200);
    photon.delete(&format!("/api/v1/operations/{other}")).await.expect(200);
    photon.delete("/api/v1/agents/bob").await.expect(200);
    // Cancelled while an agent had it: the lease is closed after the end.
    let cut = photon.operation(json!([step(1, "call", &[], json!({}))])).await;
    let lease = photon.claim("ada").await;
    photon.delete(&format!("/api/v1/operations/{cut}")).await.expect(200);
    photon.report(&lease, "release", json!({})).await.refused(409, "already_terminal");
    assert_eq!(photon.history(&cut).await.last().unwrap(), "lease.closed");
}

async fn write_today(folder: &Path) {
    let mut photon = Photon::start().await;
    lead_a_life(&photon).await;
    let replay = photon.get("/api/v1/replay").await.expect(200).data().clone();
    assert_eq!(photon.stop(), 0);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(photon.folder().join("data/gen-000001/journal"), folder.join("journal")).unwrap();
    std::fs::write(folder.join("replay.json"), format!("{replay:#}\n")).unwrap();
}

#[tokio::test]
async fn every_log_that_was_stored_comes_to_what_it_came_to_then() {
    let today = stored().join(TODAY);
    let asked = std::env::var("PHOTON_WRITE_SAMPLES").unwrap_or_default();
    if asked == "afresh" || (asked == "1" && !today.exists()) {
        write_today(&today).await;
    }
    assert!(today.exists(), "the log of today is not stored; see the head of this file");
    for entry in std::fs::read_dir(stored()).unwrap() {
        let folder = entry.unwrap().path();
        let expected: Value =
            serde_json::from_slice(&std::fs::read(folder.join("replay.json")).unwrap()).unwrap();
        let data = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(data.path().join("gen-000001")).unwrap();
        std::fs::copy(folder.join("journal"), data.path().join("gen-000001/journal")).unwrap();
        let place = ("PHOTON_DATA_DIR".to_owned(), data.path().display().to_string());
        let photon = Photon::surrounded("", vec![place]).await;
        let to = expected["position"].as_str().unwrap();
        let replay = photon.get(&format!("/api/v1/replay?to={to}")).await.expect(200).data().clone();
        for field in ["events", "position", "time", "operations", "agents"] {
            assert_eq!(replay[field], expected[field], "{field} of {}", folder.display());
        }
        // A state of another form has another hash, and nothing is wrong with that.
        if replay["stateForm"] == expected["stateForm"] {
            assert_eq!(replay["hash"], expected["hash"], "{}", folder.display());
        }
    }
}
