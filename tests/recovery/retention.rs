//! The log as a file and back, and without what ended long ago: what goes is archived first, what stays is
//! untouched, and who asks for what is gone is told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use photon::archive::LineReader;
use photon::retention;
use serde_json::{Value, json};

use crate::support;

use support::called::{Called, call};
use support::streams::{Asked, Said, Way};
use support::{Photon, step};

const SMALL: &str = "[storage]\ngeneration_max_bytes = 65536\n";

fn event(photon: &Photon, arguments: &[&str]) -> Called {
    call([&["event"], arguments].concat()).in_folder(photon.folder()).run()
}

fn verified(photon: &Photon, folder: &str) -> Value {
    event(photon, &["verify", "--data-dir", folder, "-o", "json"]).ends_with(0).json()
}

/// A stopped server with eight operations that are over and one that is under way, in several generations.
async fn stopped() -> (Photon, Vec<String>, String) {
    let mut photon = Photon::configured(SMALL).await;
    photon.agent("scout", &[]).await;
    let large = json!([step(1, "look", &[], json!({"text": "x".repeat(20_000)}))]);
    let mut over = Vec::new();
    for _ in 0..8 {
        over.push(photon.operation(large.clone()).await);
        let lease = photon.claim("scout").await;
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    let open = photon.operation(large).await;
    assert_eq!(photon.stopped().await, 0);
    (photon, over, open)
}

fn archived(folder: &Path) -> Vec<events::Recorded> {
    let files: Vec<_> = fs::read_dir(folder.join(retention::ARCHIVE)).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let path = files[0].as_ref().unwrap().path();
    assert!(path.to_string_lossy().ends_with(".jsonl.zst"));
    let text = zstd::decode_all(File::open(path).unwrap()).unwrap();
    LineReader::new(BufReader::new(&text[..])).map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_ended_long_ago_goes_to_the_archive_and_everything_else_goes_on() {
    let (mut photon, over, open) = stopped().await;
    let data = photon.folder().join("data");
    let young = event(&photon, &["compact", "--data-dir", "data", "--ended-hours", "24"]);
    assert!(young.ends_with(0).stderr.contains("Nothing can go"));
    let before = verified(&photon, "data");
    let done = retention::apply(&data, -1, 0).unwrap();
    assert!((1..=8).contains(&done.streams), "{done:?}");
    let gone = archived(&data);
    assert_eq!(gone.len() as u64, done.events);
    assert!(gone.iter().all(|event| over.iter().any(|id| event.stream.id() == id)));
    let after = verified(&photon, "data");
    // How the one agent did in them is carried over.
    let carried = 1;
    assert_eq!(after["events"].as_u64().unwrap() + done.events, before["events"].as_u64().unwrap() + carried);
    assert_eq!(after["last"], before["last"]);

    photon.restart().await;
    photon.get(&format!("/api/v1/operations/{}", over[0])).await.refused(404, "not_found");
    assert_eq!(photon.shown(&open).await["status"], "in_progress");
    photon.get("/api/v1/agents/scout").await.expect(200);
    let lease = photon.claim("scout").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    photon.until(&format!("/api/v1/operations/{open}"), |shown| shown["status"] == "completed").await;

    for path in ["/api/v1/events?after=0", "/api/v1/events/stream?after=0", "/api/v1/events?after=1"] {
        let refused = photon.get(path).await.refused(410, "position_compacted");
        assert_eq!(refused.header("photon-oldest-sequence"), done.floor.to_string());
    }
    // A stream that is there is there as a whole.
    let whole = photon.get(&format!("/api/v1/events?operation={open}&after=0")).await.expect(200);
    assert_eq!(whole.data()[0]["type"], "operation.created");
    photon
        .get(&format!("/api/v1/events?operation={}&after=0", over[0]))
        .await
        .refused(410, "position_compacted");
    let mut socket = Asked::new(photon.port(), Way::Socket, "").open().await;
    socket.begun().await;
    socket.say(r#"{"type": "subscribe", "after": "1"}"#).await;
    assert_eq!(socket.control("error").await, done.floor.get());
    assert_eq!(socket.next().await, Said::End(Some(4410)));
    // Nobody is shown a past that was otherwise.
    for path in ["operations?at=1", "agents?at=2026-01-01T00:00:00Z", "replay?to=1"] {
        photon.get(&format!("/api/v1/{path}")).await.refused(410, "position_compacted");
    }
    let gone = photon.get(&format!("/api/v1/operations/{}?at=5", over[0])).await;
    gone.refused(410, "position_compacted");
    photon.get(&format!("/api/v1/operations?at={}", done.floor)).await.expect(200);
    let rest = photon.get(&format!("/api/v1/events?after={}&limit=500", done.floor)).await.expect(200);
    let first: u64 = rest.data()[0]["sequence"].as_str().unwrap().parse().unwrap();
    assert_eq!(first, done.floor.get() + 1, "after the floor everything is there");
    let all = photon.get("/api/v1/events?limit=500").await.expect(200);
    let kinds: Vec<&str> =
        all.data().as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "agent.registered", "what stays can still be read");
    assert_eq!(photon.stopped().await, 0);
    verified(&photon, "data");
}

#[tokio::test]
async fn who_is_refused_the_log_leaves_the_archive_in_the_making_alone() {
    let (photon, _, _) = stopped().await;
    let data = photon.folder().join("data");
    let unfinished = data.join(retention::ARCHIVE).join("unfinished");
    fs::create_dir(data.join(retention::ARCHIVE)).unwrap();
    fs::write(&unfinished, "of another process").unwrap();
    let server = events::SledLog::open(&data, events::Options::default()).unwrap();
    let refused = retention::apply(&data, -1, 0);
    assert!(matches!(refused, Err(events::OpenError::Locked)), "{refused:?}");
    assert!(unfinished.exists());
    server.close().await.unwrap();
    drop(server);
    retention::apply(&data, i64::MAX, 0).unwrap();
    assert!(!unfinished.exists(), "of a process that ended in the middle");
}

#[tokio::test]
async fn an_export_can_be_imported_into_an_empty_folder_with_the_same_digest() {
    let (mut photon, over, open) = stopped().await;
    for file in ["log.jsonl", "log.jsonl.zst"] {
        let exported = event(&photon, &["export", "--data-dir", "data", "-o", file]);
        exported.ends_with(0);
        event(&photon, &["import", file, "--data-dir", file.trim_start_matches("log.")]).ends_with(0);
    }
    let again = event(&photon, &["export", "--data-dir", "data", "-o", "log.jsonl"]);
    assert!(again.ends_with(1).stderr.contains("exists"));
    let original = verified(&photon, "data");
    for folder in ["jsonl", "jsonl.zst"] {
        let imported = verified(&photon, folder);
        for same in ["digest", "events", "streams", "first", "last"] {
            assert_eq!(imported[same], original[same], "{same}");
        }
    }
    event(&photon, &["import", "log.jsonl", "--data-dir", "jsonl"]).ends_with(5);
    // What is cut, changed or without its beginning is refused, and leaves nothing.
    let text = fs::read_to_string(photon.folder().join("log.jsonl")).unwrap();
    let cut: String = text.lines().take(5).map(|line| format!("{line}\n")).collect();
    for broken in [cut, text.replacen("\"version\":1,", "\"version\":2,", 1)] {
        fs::write(photon.folder().join("broken.jsonl"), broken).unwrap();
        event(&photon, &["import", "broken.jsonl", "--data-dir", "broken"]).ends_with(65);
    }
    let ahead = text.replacen("\"timeUs\":1", "\"timeUs\":9", 1);
    fs::write(photon.folder().join("broken.jsonl"), ahead).unwrap();
    let refused = event(&photon, &["import", "broken.jsonl", "--data-dir", "broken"]);
    assert!(refused.ends_with(65).stderr.contains("is of the future"));
    let tail =
        event(&photon, &["export", "--data-dir", "data", "--from", "10", "--to", "13", "-o", "tail.jsonl"]);
    assert!(tail.ends_with(0).stderr.contains("Exported 4 events"));
    event(&photon, &["import", "tail.jsonl", "--data-dir", "broken"]).ends_with(65);

    fs::remove_dir_all(photon.folder().join("data")).unwrap();
    fs::rename(photon.folder().join("jsonl"), photon.folder().join("data")).unwrap();
    photon.restart().await;
    assert_eq!(photon.shown(&over[0]).await["status"], "completed");
    assert_eq!(photon.shown(&open).await["status"], "in_progress");
    photon.claim("scout").await;
}

#[tokio::test]
async fn a_start_with_retention_removes_what_is_old_enough_and_nothing_young() {
    let (mut photon, over, open) = stopped().await;
    photon.configure(&format!("{SMALL}[retention]\nkeep_ended_ms = 86400000\n"));
    photon.restart().await;
    photon.shown(&over[0]).await;
    assert_eq!(photon.stopped().await, 0);
    // The same log two days earlier, followed by an event of today.
    let data = photon.folder().join("data");
    let mut all = Vec::new();
    let each = &mut |event: &events::Recorded| {
        all.push(event.clone());
        Ok(())
    };
    events::SledLog::audit(&data, each).unwrap();
    all.iter_mut().for_each(|event| event.time_us -= 2 * 86_400_000_000);
    fs::remove_dir_all(&data).unwrap();
    events::SledLog::restore(&data, &mut all.into_iter().map(Ok)).unwrap();
    photon.restart().await;
    let young = photon.operation(json!([step(1, "other", &[], json!({}))])).await;
    photon.delete(&format!("/api/v1/operations/{young}")).await;
    assert_eq!(photon.stopped().await, 0);
    photon.restart().await;
    photon.get(&format!("/api/v1/operations/{}", over[0])).await.refused(404, "not_found");
    for kept in [&open, &young] {
        photon.shown(kept).await;
    }
    assert!(archived(&data).iter().all(|event| over.iter().any(|id| event.stream.id() == id)));
    assert_eq!(photon.stopped().await, 0);
    photon.configure(&format!("{SMALL}[retention]\nkeep_ended_ms = 1000\n"));
    let (exit, said) = photon.refused_start();
    assert!(exit == 64 && said.contains("retention.keep_ended_ms must be 0 or at least 86400000"), "{said}");
}
