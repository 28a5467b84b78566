//! Recorded choices weighed anew by the command line: from a server, from a file, page by page.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::called::call;
use support::{Photon, step};

/// Fit counts for much: the specialist. Place alone: whoever is on the edge.
const OF_THEN: &str = "capability=0.4,performance=0.3,availability=0.2,location=0.1";
const PLACE: &str = "capability=0,performance=0,availability=0,location=1";

fn replay(server: &Photon, weights: &str, more: &[&str]) -> String {
    server.call([&["routing", "replay", "--weights", weights], more].concat()).ends_with(0).stdout
}

fn totals(server: &Photon, weights: &str, more: &[&str]) -> Value {
    serde_json::from_str(&replay(server, weights, &[&["-o", "json"], more].concat())).unwrap()
}

/// Two agents wait for each of these steps; the specialist is chosen although the other one is near.
async fn choose(server: &Photon, rounds: usize) -> String {
    let mut last = String::new();
    for _ in 0..rounds {
        let claim = |agent: &'static str| async move {
            let path = format!("/api/v1/agents/{agent}/claim");
            let answer = server.post(&path, json!({"wait": "20s"})).await.expect(200);
            for lease in answer.data()["leases"].as_array().unwrap() {
                server.report(lease, "complete", json!({"result": 1})).await.expect(200);
            }
        };
        let ask = |requires: Value| async move {
            let mut workflow = json!([step(1, "work", &[], json!({}))]);
            workflow[0]["requires"] = requires;
            server.operation(workflow).await
        };
        let (.., id) = tokio::join!(claim("near"), claim("fit"), async {
            server.claims_waiting(2).await;
            let id = ask(json!({"capabilities": ["rust"], "location": "edge"})).await;
            let path = format!("/api/v1/operations/{id}");
            server.until(&path, |shown| shown["status"] == json!("completed")).await;
            // The other one gets what only it can do.
            ask(json!({"capabilities": ["go"]})).await;
            id
        });
        last = id;
    }
    last
}

async fn team(server: &Photon) {
    let config = json!({"heartbeatIntervalMs": 0});
    let near = json!({"id": "near", "location": "edge", "config": config,
        "capabilities": ["rust", "go", "sql", "c"]});
    server.post("/api/v1/agents", near).await.expect(201);
    let fit = json!({"id": "fit", "location": "cloud", "config": config, "capabilities": ["rust"]});
    server.post("/api/v1/agents", fit).await.expect(201);
}

#[tokio::test]
async fn other_weights_show_which_choices_they_would_have_changed() {
    let server = Photon::start().await;
    team(&server).await;
    let last = choose(&server, 3).await;
    let same = totals(&server, OF_THEN, &[]);
    assert_eq!((&same["decisions"], &same["changed"]), (&json!(6), &json!(0)), "{same}");
    assert_eq!((&same["unchanged"], &same["alone"]), (&json!(3), &json!(3)));
    let other = totals(&server, PLACE, &[]);
    assert_eq!((&other["changed"], &other["alone"]), (&json!(3), &json!(3)), "{other}");
    let change = &other["changes"][0];
    assert_eq!((&change["chosen"], &change["instead"]), (&json!("fit"), &json!("near")));
    assert_eq!((&change["score"], &change["insteadScore"]), (&json!(0.0), &json!(1.0)));
    let of_one = totals(&server, PLACE, &["--operation", &last]);
    assert_eq!((&of_one["decisions"], &of_one["changes"][0]["operationId"]), (&json!(1), &json!(last)));
    let text = replay(&server, PLACE, &["--limit", "1"]);
    assert!(text.starts_with("OPERATION") && text.contains("… and 2 more"), "{text}");
    assert!(
        text.ends_with("6 decisions: 3 changed, 0 unchanged, 3 with only one agent to choose.\n"),
        "{text}"
    );
}

#[tokio::test]
async fn more_choices_than_a_page_holds_are_all_counted() {
    let server = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 250});
    server.post("/api/v1/agents", json!({"id": "many", "config": config})).await.expect(201);
    let steps: Vec<Value> = (1..=250).map(|number| step(number, "x", &[], json!({}))).collect();
    server.operation(json!(steps)).await;
    let mut taken = 0;
    while taken < 250 {
        let wish = json!({"max": 100, "wait": "20s"});
        let answer = server.post("/api/v1/agents/many/claim", wish).await.expect(200);
        taken += answer.data()["leases"].as_array().unwrap().len();
    }
    let counted = totals(&server, OF_THEN, &[]);
    assert_eq!((&counted["decisions"], &counted["alone"]), (&json!(250), &json!(250)));
}

#[tokio::test]
async fn a_file_of_events_says_the_same_as_the_server() {
    let server = Photon::start().await;
    team(&server).await;
    choose(&server, 2).await;
    let listed = server.call(["event", "list", "--limit", "1000", "-o", "jsonl"]).ends_with(0).stdout;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, &listed).unwrap();
    let arguments = ["routing", "replay", "--weights", PLACE, "-o", "json", "--from-file"];
    let of_file = call([&arguments[..], &[path.to_str().unwrap()]].concat()).ends_with(0);
    assert_eq!(of_file.json(), totals(&server, PLACE, &[]));
    let of_input = call([&arguments[..], &["-"]].concat()).input(&listed).ends_with(0);
    assert_eq!(of_input.stdout, of_file.stdout);
}

#[test]
fn a_long_history_is_read_page_by_page_and_listed_line_by_line() {
    let scored = |agent: &str, capability: f64, location: f64| {
        json!({"agent": agent, "score": 0.4 * capability + 0.1 * location, "capability": capability,
            "performance": 0.0, "availability": 0.0, "location": location})
    };
    let weights = json!({"capability": 0.4, "performance": 0.3, "availability": 0.2, "location": 0.1});
    let event = |step: u32, kind: &str| {
        let excluded = json!({"notAsked": 0, "capability": 0, "requirement": 0, "status": 0, "held": 0,
            "capacity": 0, "notWaiting": 0});
        let ranked = [scored("fit", 1.0, 0.0), scored("near", 0.5, 1.0)];
        let candidates = json!({"ranked": ranked, "excluded": excluded,
                "weights": weights});
        let lease = format!("ls_{}_{step}_1", "0".repeat(32));
        let data = json!({"step": step, "grant": 1, "leaseId": lease, "agent": "fit", "incarnation": 1,
            "attempt": 1, "inputs": {}, "candidates": candidates});
        json!({"specversion": "1.0", "id": "x", "source": "/photon", "type": kind, "actor": "photon",
            "subject": format!("operation/op_{}", "0".repeat(32)), "time": "2026-01-01T00:00:00Z",
            "datacontenttype": "application/json", "sequence": step.to_string(), "revision": "1",
            "data": data})
    };
    let kinds = |step: u32| if step.is_multiple_of(2) { "step.reserved" } else { "step.started" };
    let lines: String = (1..=1_000).map(|step| format!("{}\n\n", event(step, kinds(step)))).collect();
    let arguments = ["routing", "replay", "--weights", PLACE, "--from-file", "-", "-o", "jsonl"];
    let called = call(arguments).input(&lines).ends_with(0);
    let printed: Vec<Value> = called.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed.len(), 501, "{}", called.stderr);
    assert_eq!((&printed[499]["step"], &printed[500]["changed"]), (&json!(1_000), &json!(500)));
    let broken = call(arguments).input(&format!("{lines}{{\"half\": ")).ends_with(65);
    assert!(broken.stderr.contains("-, line 2001 is no event"), "{}", broken.stderr);
}

#[test]
fn weights_that_are_none_are_a_mistake_of_usage() {
    for (weights, fault) in [("capability=1", "give all four"), ("speed=1", "no weight")] {
        let called = call(["routing", "replay", "--weights", weights]).ends_with(2);
        assert!(called.stderr.contains(fault), "{}", called.stderr);
    }
}
