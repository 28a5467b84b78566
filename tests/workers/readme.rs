//! The README is true: its curl worker is run as it stands there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Photon, step};

/// The shell script after a marker.
fn script(marker: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let after = readme.split(&format!("<!-- {marker} -->")).nth(1).expect("the README has the marker");
    after.split("```sh\n").nth(1).expect("a script follows").split("\n```").next().unwrap()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[tokio::test]
async fn the_curl_worker_of_the_readme_performs_steps() {
    if !(is_there("curl") && is_there("jq") && is_there("bash")) {
        assert!(std::env::var_os("CI").is_none(), "CI must have curl, jq and bash");
        eprintln!("SKIPPED: curl, jq and bash are needed for the worker of the README");
        return;
    }
    let photon = Photon::start().await;
    let mut worker = Command::new("bash")
        .args(["-c", script("curl-worker")])
        .env("PHOTON_SERVER", photon.url(""))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let shout = |number, dependencies: &[u32], text: Value| {
        step(number, "shout", dependencies, json!({"text": text}))
    };
    let second = json!({"$template": "{{ steps[1].result }} world"});
    let workflow = json!([shout(1, &[], json!("hello")), shout(2, &[1], second)]);
    let id = photon.operation(workflow).await;
    let ended = photon.get(&format!("/api/v1/operations/{id}?wait=30s")).await.expect(200);
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(ended.data()["results"], json!({"1": "HELLO", "2": "HELLO WORLD"}), "{}", ended.body);
}
