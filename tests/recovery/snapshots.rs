//! Snapshots of a server: taken, listed, verified, used at the next start, and never missed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::called::call;
use support::{Photon, step};

fn chain() -> Value {
    json!([step(1, "a", &[], json!({})), step(2, "b", &[1], json!({"of": {"$expr": "steps[1].result"}}))])
}

/// Some operations, of which most have ended.
async fn lead_a_life(photon: &Photon, operations: usize) {
    photon.agent("ada", &["rust"]).await;
    for _ in 0..operations {
        photon.operation(chain()).await;
    }
    for result in 0..operations {
        let lease = photon.claim("ada").await;
        photon.report(&lease, "complete", json!({"result": result})).await.expect(200);
    }
    photon.claim("ada").await;
}

fn files(photon: &Photon) -> Vec<PathBuf> {
    let entries = fs::read_dir(photon.folder().join("data/snapshots"));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Whether the server shows what its log says.
async fn must_be_whole(photon: &Photon) {
    let replay = photon.get("/api/v1/replay?check=true").await.expect(200).data().clone();
    assert_eq!((&replay["check"]["equal"], &replay["check"]["differing"]), (&json!(true), &json!([])));
    assert!(replay["check"]["compared"].as_u64().unwrap() > 0);
}

async fn began_with(photon: &Photon) -> Option<u64> {
    let startup = photon.get("/health/startup").await.expect(200).data().clone();
    assert_eq!((&startup["status"], &startup["progress"]), (&json!("ok"), &json!(100)));
    startup["snapshotPosition"].as_str().map(|position| position.parse().unwrap())
}

/// What `photon snapshot verify` ends with, and says.
fn verify(photon: &Photon) -> (i32, Vec<Value>) {
    let call = call(["snapshot", "verify", "-o", "json", "--data-dir", "data"]);
    let called = call.in_folder(photon.folder()).run();
    (called.exit, serde_json::from_str(&called.stdout).unwrap_or_default())
}

#[tokio::test]
async fn a_snapshot_can_be_taken_and_listed_while_the_server_works() {
    let photon = Photon::start().await;
    let none = photon.get("/api/v1/snapshots").await.expect(200);
    assert_eq!(none.data(), &json!([]));
    lead_a_life(&photon, 5).await;
    let answer = photon.post("/api/v1/snapshots", json!({})).await.expect(201);
    let taken = answer.data().clone();
    assert_eq!((&taken["kind"], answer.header("location")), (&json!("views"), "/api/v1/snapshots"));
    assert_eq!(taken["hash"].as_str().unwrap().len(), 64);
    let listed = photon.get("/api/v1/snapshots").await.expect(200);
    assert_eq!(listed.data(), &json!([taken]));
    for _ in 0..3 {
        photon.operation(chain()).await;
        photon.post("/api/v1/snapshots", json!({})).await.expect(201);
    }
    let listed = photon.get("/api/v1/snapshots").await.expect(200);
    let positions: Vec<u64> = listed.data().as_array().unwrap().iter().map(position).collect();
    assert!(positions.len() == 2 && positions[0] > positions[1], "{positions:?}");
    photon.get("/api/v1/snapshots?limit=1").await.refused(400, "unknown_parameter");
    photon.post("/api/v1/snapshots", json!({"x": 1})).await.refused(400, "unknown_field");
}

fn position(snapshot: &Value) -> u64 {
    snapshot["position"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_clean_stop_leaves_one_and_the_next_start_begins_with_it() {
    let mut photon = Photon::start().await;
    lead_a_life(&photon, 10).await;
    let key = photon.request("POST", "/api/v1/agents/ada/heartbeat").header("idempotency-key", "k1");
    photon.send(key.json(&json!({"status": "inactive"}))).await.expect(200);
    assert_eq!(photon.stop(), 0);
    assert_eq!(files(&photon).len(), 1);
    assert_eq!(verify(&photon).0, 0);
    photon.restart().await;
    assert!(began_with(&photon).await.is_some());
    must_be_whole(&photon).await;
    // What is in flight goes on, and keys are remembered.
    let leases = photon.get("/api/v1/leases").await.expect(200);
    assert_eq!(leases.data().as_array().unwrap().len(), 1);
    photon.operation(chain()).await;
    photon.kill();
    photon.restart().await;
    assert!(began_with(&photon).await.is_some());
    must_be_whole(&photon).await;
}

#[tokio::test]
async fn snapshots_that_are_damaged_or_gone_or_of_another_log_change_nothing() {
    let mut photon = Photon::start().await;
    lead_a_life(&photon, 6).await;
    photon.post("/api/v1/snapshots", json!({})).await.expect(201);
    photon.operation(chain()).await;
    assert_eq!(photon.stop(), 0);
    let [older, newer] = files(&photon).try_into().unwrap();
    let whole = fs::read(&newer).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&newer, flipped).unwrap();
    let (code, found) = verify(&photon);
    assert_eq!(code, 1);
    let verdicts: Vec<&str> = found.iter().map(|one| one["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["wrong", "right"]);
    photon.restart().await;
    let older_position: u64 =
        older.file_stem().unwrap().to_str().unwrap().trim_start_matches("views-").parse().unwrap();
    assert_eq!(began_with(&photon).await, Some(older_position));
    must_be_whole(&photon).await;
    photon.kill();
    files(&photon).iter().for_each(|file| fs::write(file, b"photonsn").unwrap());
    photon.restart().await;
    assert_eq!(began_with(&photon).await, None);
    must_be_whole(&photon).await;
    photon.kill();
    fs::remove_dir_all(photon.folder().join("data/snapshots")).unwrap();
    photon.restart().await;
    assert_eq!(began_with(&photon).await, None);
    must_be_whole(&photon).await;
    assert_eq!(photon.stop(), 0);

    // The same file beside another log.
    let mut other = Photon::start().await;
    lead_a_life(&other, 9).await;
    other.kill();
    fs::create_dir_all(other.folder().join("data/snapshots")).unwrap();
    fs::write(other.folder().join("data/snapshots").join(newer.file_name().unwrap()), whole).unwrap();
    let (code, found) = verify(&other);
    assert_eq!((code, &found[0]["verdict"]), (0, &json!("passed over")));
    other.restart().await;
    assert_eq!(began_with(&other).await, None);
    must_be_whole(&other).await;
}

#[tokio::test]
async fn snapshots_are_taken_by_policy_of_views_and_of_long_streams_that_rest() {
    let config = "[snapshots]\nevery_events = 50\nstream_events = 4\n[limits]\nidle_actor_ms = 100\n";
    let mut photon = Photon::configured(config).await;
    lead_a_life(&photon, 10).await;
    let kinds = |all: &Value, kind: &str| {
        all.as_array().unwrap().iter().filter(|one| one["kind"] == json!(kind)).count()
    };
    photon.until("/api/v1/snapshots", |all| kinds(all, "views") > 0 && kinds(all, "stream") > 5).await;
    photon.kill();
    let (code, found) = verify(&photon);
    assert_eq!(code, 0, "{found:?}");
    assert!(found.iter().all(|one| one["verdict"] == json!("right")), "{found:?}");
    photon.restart().await;
    must_be_whole(&photon).await;
    for _ in 0..10 {
        let lease = photon.claim("ada").await;
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    support::checker::check_log(&photon).await.must_be_clean();
}

#[tokio::test]
async fn without_snapshots_none_are_taken() {
    let mut photon = Photon::configured("[snapshots]\nenabled = false\n").await;
    lead_a_life(&photon, 2).await;
    photon.post("/api/v1/snapshots", json!({})).await.refused(409, "conflict");
    assert_eq!(photon.get("/api/v1/snapshots").await.expect(200).data(), &json!([]));
    assert_eq!(photon.stop(), 0);
    assert!(files(&photon).is_empty());
}
