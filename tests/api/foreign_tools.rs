//! What tools of others say of the server's documents: promtool of the metrics, the AsyncAPI parser of the
//! description of the streams.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use support::{Photon, step};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Longest time that a tool may take.
const TOOL_MAX: Duration = Duration::from_secs(60);

/// Where `.ci/run` installs what is not ours.
fn installed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

/// Hands a document to a tool and returns what it prints; nothing when the tool is not there, which is said
/// past the harness's capture.
async fn judge(name: &str, tool: Option<Command>, document: &[u8]) -> String {
    let started = tool.and_then(|mut tool| {
        tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        tool.spawn().ok()
    });
    let Some(mut child) = started else {
        std::io::stderr().write_all(format!("skipped: {name}, not installed\n").as_bytes()).unwrap();
        return String::new();
    };
    child.stdin.take().unwrap().write_all(document).await.unwrap();
    let output = timeout(TOOL_MAX, child.wait_with_output()).await.expect("the tool takes too long").unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    said
}

/// The metrics of a server that has an agent, and an operation that is under way.
async fn metrics() -> String {
    let photon = Photon::start().await;
    photon.agent("metered", &[]).await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    photon.shown(&id).await;
    photon.get("/metrics").await.expect(200).body.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let own = installed().join("promtool");
    let program = if own.exists() { own } else { "promtool".into() };
    let mut tool = Command::new(program);
    tool.args(["check", "metrics"]);
    assert_eq!(judge("promtool", Some(tool), metrics().await.as_bytes()).await, "");
}

#[tokio::test]
async fn the_asyncapi_parser_finds_no_error_in_the_description_of_the_streams() {
    let photon = Photon::start().await;
    let document = photon.get("/asyncapi.json").await.expect(200).body.to_string();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/asyncapi.mjs");
    let there = installed().join("node_modules/@asyncapi/parser").exists();
    let tool = there.then(|| {
        let mut tool = Command::new("node");
        tool.arg(script).env("PHOTON_CLIENTS", installed());
        tool
    });
    judge("the AsyncAPI parser", tool, document.as_bytes()).await;
}
