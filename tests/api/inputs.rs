//! Bad input over HTTP: each class gets its stated status, code and field; afterwards nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, Photon, step};

fn minimal() -> Value {
    json!({"name": "n", "workflow": [step(1, "a", &[], json!({}))]})
}

async fn raw(photon: &Photon, body: impl Into<reqwest::Body>) -> Answer {
    let request = photon.request("POST", "/api/v1/operations").header("content-type", "application/json");
    photon.send(request.body(body)).await
}

/// Fails unless the server is healthy and empty.
async fn untouched(photon: &Photon) {
    assert_eq!(photon.get("/health").await.expect(200).data()["status"], json!("ok"));
    photon.get("/health/detailed").await.expect(200);
    let operations = photon.get("/api/v1/operations?count=true").await.expect(200);
    let agents = photon.get("/api/v1/agents?count=true").await.expect(200);
    let events = photon.get("/api/v1/events").await.expect(200);
    let totals = (&operations.body["page"]["total"], &agents.body["page"]["total"], events.data());
    assert_eq!(totals, (&json!(0), &json!(0), &json!([])));
}

#[tokio::test]
async fn malformed_json_is_refused_with_line_and_column() {
    let photon = Photon::start().await;
    for body in [
        "{",
        "",
        "nonsense",
        r#"{"name": NaN}"#,
        r#"{"name": "n", "workflow": [{"step": 1e999}]}"#,
        r#"{"name": "a", "name": "b", "workflow": []}"#,
        r#"{"name": "\ud800", "workflow": []}"#,
        "{\"name\": \"n\",\n  \"workflow\": [}",
    ] {
        let answer = raw(&photon, body.to_owned()).await.refused(400, "malformed_json");
        assert!(answer.body["error"].as_str().unwrap().contains("line"), "{}", answer.body);
    }
    raw(&photon, b"{\"name\": \"\xff\"}".to_vec()).await.refused(400, "malformed_json");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let workflow = r#"[{"step": 1, "platform": "worker", "action": "a"}]"#;
    let deep = format!(r#"{{"name": "n", "workflow": {workflow}, "metadata": {{"x": {deep}}}}}"#);
    let answer = raw(&photon, deep).await.refused(422, "invalid_workflow");
    assert_eq!(answer.body["problem"]["errors"][0]["pointer"], json!("/metadata"), "{}", answer.body);
    untouched(&photon).await;
}

#[tokio::test]
async fn a_misspelt_field_or_parameter_is_named_with_the_nearest_known_one() {
    let photon = Photon::start().await;
    let mut body = minimal();
    body["priorty"] = json!("high");
    let answer = photon.post("/api/v1/operations", body).await.refused(400, "unknown_field");
    assert!(answer.body["error"].as_str().unwrap().contains("priority"), "{}", answer.body);
    let answer = photon.get("/api/v1/operations?statis=failed").await.refused(400, "unknown_parameter");
    assert!(answer.body["error"].as_str().unwrap().contains("status"), "{}", answer.body);
    for query in [
        "limit=0",
        "limit=501",
        "limit=1000000000",
        "limit=-1",
        "limit=x",
        "status=done",
        "createdAfter=now",
        "cursor=forged",
        "count=maybe",
        "sort=name",
    ] {
        photon.get(&format!("/api/v1/operations?{query}")).await.refused(400, "invalid_parameter");
    }
    untouched(&photon).await;
}

#[tokio::test]
async fn a_missing_or_mistyped_field_is_named_by_its_pointer() {
    let photon = Photon::start().await;
    for (pointer, body) in [
        ("/name", json!({"name": 7, "workflow": []})),
        ("/priority", json!({"name": "n", "priority": "urgent", "workflow": []})),
        (
            "/workflow/0/step",
            json!({"name": "n", "workflow": [{"step": -1, "platform": "worker", "action": "a"}]}),
        ),
        ("/deadline", json!({"name": "n", "deadline": "tomorrow", "workflow": []})),
        ("/workflow", json!({"name": "n", "workflow": "none"})),
    ] {
        let answer = photon.post("/api/v1/operations", body).await.refused(422, "invalid_field");
        assert_eq!(answer.body["problem"]["errors"][0]["pointer"], json!(pointer), "{}", answer.body);
    }
    let answer =
        photon.post("/api/v1/operations", json!({"workflow": []})).await.refused(422, "invalid_field");
    assert!(answer.body["error"].as_str().unwrap().contains("name"), "{}", answer.body);
    for (path, body) in [
        ("/api/v1/agents", json!(["a"])),
        ("/api/v1/agents", json!({"id": "a", "config": [1]})),
        (
            "/api/v1/operations",
            json!({"name": "n", "workflow": [
            {"step": 1, "platform": "worker", "action": "a", "retryPolicy": [7]}]}),
        ),
    ] {
        photon.post(path, body).await.refused(422, "invalid_field");
    }
    let misspelt = json!({"id": "a", "config": {"maxConcurentSteps": 1}});
    photon.post("/api/v1/agents", misspelt).await.refused(400, "unknown_field");
    let agent = json!({"id": "a", "config": {"maxConcurrentSteps": 0}});
    photon.post("/api/v1/agents", agent).await.refused(422, "invalid_field");
    for id in ["", "a b", "a/b", "a\u{0}", "\u{202e}x"] {
        photon.post("/api/v1/agents", json!({"id": id})).await.refused(422, "invalid_field");
    }
    let many: Vec<String> = (0..100_000).map(|number| format!("c{number}")).collect();
    let many = json!({"id": "a", "capabilities": many});
    assert!([413, 422].contains(&photon.post("/api/v1/agents", many).await.status));
    untouched(&photon).await;
}

#[tokio::test]
async fn workflows_beyond_the_limits_are_refused() {
    let photon = Photon::start().await;
    let mut steps: Vec<Value> = Vec::new();
    for number in 0..10_001 {
        steps.push(json!({"step": number, "platform": "worker", "action": "a"}));
    }
    let body = json!({"name": "n", "workflow": steps});
    let answer = photon.post("/api/v1/operations", body).await.refused(422, "invalid_workflow");
    assert_eq!(answer.body["problem"]["errors"][0]["code"], json!("too_many_steps"));
    let cycle = json!({"name": "n", "workflow": [
        step(3, "a", &[5], json!({})), step(5, "a", &[3], json!({})), step(7, "a", &[], json!({}))]});
    let answer = photon.post("/api/v1/operations", cycle).await.refused(422, "invalid_workflow");
    let detail = answer.body["problem"]["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("3 → 5 → 3") || detail.contains("5 → 3 → 5"), "{detail}");
    let template = json!({"name": "n", "workflow": [
        step(1, "a", &[], json!({})), step(2, "a", &[], json!({"x": {"$expr": "steps[1].result"}}))]});
    let answer = photon.post("/api/v1/operations", template).await.refused(422, "invalid_workflow");
    assert_eq!(answer.body["problem"]["errors"][0]["code"], json!("not_an_ancestor"));
    let mut named = minimal();
    named["name"] = json!("x".repeat(300_000));
    photon.post("/api/v1/operations", named).await.refused(422, "invalid_workflow");
    untouched(&photon).await;
}

#[tokio::test]
async fn bodies_that_are_too_large_compressed_or_of_another_type_are_refused() {
    let photon = Photon::start().await;
    raw(&photon, vec![b' '; 1024 * 1024 + 1]).await.refused(413, "body_too_large");
    let beat =
        photon.request("POST", "/api/v1/agents/a/heartbeat").header("content-type", "application/json");
    photon.send(beat.body(vec![b' '; 256 * 1024 + 1])).await.refused(413, "body_too_large");
    let request = photon.request("POST", "/api/v1/operations").header("content-type", "application/json");
    photon
        .send(request.header("content-encoding", "gzip").body("x"))
        .await
        .refused(415, "unsupported_media_type");
    let request = photon.request("POST", "/api/v1/operations").header("content-type", "text/plain");
    photon.send(request.body("{}")).await.refused(415, "unsupported_media_type");
    untouched(&photon).await;
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_refused() {
    let photon = Photon::start().await;
    photon.get("/api/v1/nothing").await.refused(404, "not_found");
    photon.get("/api/v1/operations/op_1").await.refused(404, "not_found");
    photon.get("/api/v1/agents/none").await.refused(404, "not_found");
    photon.get("/api/v1/platforms/cursor").await.refused(404, "not_found");
    photon.post("/api/v1/leases/ls_1/ack", json!({})).await.refused(404, "not_found");
    let never = "ls_00000000000000000000000000000000_1_1";
    photon.post(&format!("/api/v1/leases/{never}/ack"), json!({})).await.refused(404, "not_found");
    let epoch = photon.get("/api/v1/events").await.header("photon-epoch").to_owned();
    for (tag, status, code) in
        [(&epoch[..6], 404, "not_found"), ("zzzzzz", 404, "not_found"), ("000000", 410, "lease_lost")]
    {
        let path = format!("/api/v1/leases/{}/ack", never.replacen("ls_", &format!("ls_{tag}_"), 1));
        photon.post(&path, json!({})).await.refused(status, code);
    }
    let refused = photon.send(photon.request("TRACE", "/api/v1/operations")).await;
    assert_eq!(refused.refused(405, "method_not_allowed").header("allow"), "GET, HEAD, POST");
    photon.send(photon.request("PATCH", "/health")).await.refused(405, "method_not_allowed");
    untouched(&photon).await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let photon = Photon::start().await;
    let request = photon.request("GET", "/api/v1/operations").header("host", "evil.example");
    photon.send(request).await.refused(403, "host_not_allowed");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let request = photon.request("GET", "/api/v1/operations").header("origin", origin);
        photon.send(request).await.refused(403, "origin_not_allowed");
    }
    let own = format!("http://127.0.0.1:{}", photon.port());
    photon.send(photon.request("GET", "/api/v1/operations").header("origin", own)).await.expect(200);
    untouched(&photon).await;
}

#[tokio::test]
async fn a_problem_is_sent_bare_to_who_asks_for_it() {
    let photon = Photon::start().await;
    let request = photon.request("GET", "/api/v1/nothing").header("accept", "application/problem+json");
    let answer = photon.send(request).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"));
    assert_eq!(answer.body["status"], json!(404));
    assert!(answer.body.get("success").is_none());
}

#[tokio::test]
async fn headers_and_uris_are_bounded() {
    let photon = Photon::start().await;
    let request = photon.request("GET", "/health").header("x-big", "x".repeat(17 * 1024));
    photon.send(request).await.refused(431, "headers_too_large");
    photon.get(&format!("/health?{}", "x".repeat(9_000))).await.refused(414, "uri_too_long");
    untouched(&photon).await;
}

/// What the server answers to raw bytes, until it closes or says nothing more.
fn exchange(photon: &Photon, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", photon.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_closed() {
    let photon = Photon::start().await;
    let head = "POST /api/v1/operations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
    let cases = [
        format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}"),
        format!("{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n".to_owned(),
        "\x16\x03\x01 not http\r\n\r\n".to_owned(),
    ];
    for case in cases {
        let answer = exchange(&photon, case.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{case:?} got {answer:?}");
    }
    untouched(&photon).await;
}
