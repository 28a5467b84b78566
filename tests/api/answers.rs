//! Large answers: what may wait for readers that take nothing is bounded, small answers and heartbeats get
//! through all the same, and a client that wants less says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::support;

use support::{Photon, step};

/// The smallest budget that can be set.
const CONFIG: &str = "[limits]\nmax_answer_bytes = 33554432\nmax_results_bytes = 16777216\n";
const STEPS: u32 = 40;
const RESULT_BYTES: usize = 250_000;

/// An operation with 10 MB of results.
async fn large(photon: &Photon) -> String {
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": STEPS});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    let steps: Vec<_> = (1..=STEPS).map(|number| step(number, "work", &[], json!({}))).collect();
    let id = photon.operation(json!(steps)).await;
    let claim = json!({"max": STEPS, "wait": "20s"});
    let claimed = photon.post("/api/v1/agents/a/claim", claim).await.expect(200);
    for lease in claimed.data()["leases"].as_array().unwrap() {
        photon.report(lease, "complete", json!({"result": "x".repeat(RESULT_BYTES)})).await.expect(200);
    }
    id
}

/// Asks for something and takes nothing of the answer.
fn idle_reader(photon: &Photon, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", photon.port())).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    socket
}

#[tokio::test]
async fn readers_that_take_nothing_hold_no_more_than_the_budget() {
    let photon = Photon::configured(CONFIG).await;
    let id = large(&photon).await;
    let path = format!("/api/v1/operations/{id}");
    // In `results` and in its step, and yet held once: three of them fit.
    let shown = photon.get(&path).await.expect(200);
    assert_eq!(shown.data()["results"]["1"], shown.data()["workflow"][0]["result"]);
    let mut readers = Vec::new();
    let full = loop {
        let answer = photon.get(&path).await;
        if answer.status == 503 {
            break answer;
        }
        // One that is refused meanwhile holds nothing; another takes its place.
        readers.push(idle_reader(&photon, &path));
    };
    let full = full.refused(503, "overloaded");
    assert_eq!(full.header("retry-after"), "1");
    photon.get(&format!("{path}?view=summary")).await.expect(200);
    photon.post("/api/v1/agents/a/heartbeat", json!({})).await.expect(200);
    photon.get("/health/ready").await.expect(200);
    assert!(photon.resident() < 400 << 20, "{}", photon.resident());
    drop(readers);
    photon.until(&path, |shown| shown["status"] == "completed").await;
}

#[tokio::test]
async fn a_view_leaves_out_what_is_not_wanted() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": 7})).await.expect(200);
    let shown = async |view: &str| {
        let answer = photon.get(&format!("/api/v1/operations/{id}?view={view}")).await.expect(200);
        let data = answer.data().clone();
        assert_eq!((&data["status"], answer.header("etag").is_empty()), (&json!("completed"), false));
        (data.get("results").cloned(), data.get("workflow").map(|steps| steps[0].get("result").cloned()))
    };
    let results = || Some(json!({"1": 7}));
    assert_eq!(shown("full").await, (results(), Some(Some(json!(7)))));
    assert_eq!(shown("steps").await, (None, Some(None)));
    assert_eq!(shown("results").await, (results(), None));
    assert_eq!(shown("summary").await, (None, None));
    photon.get(&format!("/api/v1/operations/{id}?view=short")).await.refused(400, "invalid_parameter");
}
