//! Clients that wait while the server restarts: they see the end of what they wait for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use crate::support::called::command;
use crate::support::{PATIENCE, Photon, step};

/// A command that waits, once it has said so.
fn waiting(photon: &Photon, arguments: &[&str], sign: &str) -> Child {
    let url = photon.url("");
    let mut command = command(arguments.iter().copied().chain(["--server", &url]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(sign), "{arguments:?} says {line}");
    child
}

#[tokio::test]
async fn commands_that_wait_see_the_end_of_an_operation_over_a_restart() {
    let mut photon = Photon::start().await;
    let steps = json!([step(1, "go", &[], json!({}))]);
    let watched = photon.operation(steps.clone()).await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("operation.json");
    std::fs::write(&file, json!({"name": "n", "workflow": steps}).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let mut children = [
        waiting(&photon, &["op", "watch", &watched], "Following"),
        waiting(&photon, &["op", "watch", &watched, "-o", "json"], "Following"),
        waiting(&photon, &["op", "watch", &watched, "-o", "jsonl"], "Following"),
        waiting(&photon, &["op", "create", file, "--wait", "10m"], "is accepted"),
    ];
    for clean in [true, false] {
        if clean {
            assert_eq!(photon.stop(), 0);
        } else {
            photon.kill();
        }
        photon.restart().await;
    }
    photon.agent("a", &[]).await;
    for _ in 0..2 {
        let lease = photon.claim("a").await;
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    let begun = Instant::now();
    for child in &mut children {
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "a command waits on for ever");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(status.code(), Some(0));
    }
}
