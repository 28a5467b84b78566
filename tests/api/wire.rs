//! The letter of HTTP, as a client library would not send it: entity tags, media types, headers of browsers,
//! and requests that would like to be upgraded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::json;
use support::{Photon, step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Everything that is answered to these bytes until the server closes.
async fn talk(photon: &Photon, bytes: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", photon.port())).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    // The rest of what was sent may be unread when the server closes, which resets the connection.
    let _ = tokio::time::timeout(support::PATIENCE, reading).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_precondition_is_met_or_the_reason_is_true() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    for path in [format!("/api/v1/operations/{id}"), "/api/v1/agents/a".to_owned()] {
        let tag = photon.get(&path).await.expect(200).header("etag").to_owned();
        let put = async |tag: &str| {
            let request = photon.request("PUT", &path).header("if-match", tag);
            photon.send(request.json(&json!({"name": "n"}))).await
        };
        let weak = put(&format!("W/{tag}")).await.refused(412, "revision_mismatch");
        assert!(weak.body["error"].as_str().unwrap().contains("is weak"), "{}", weak.body);
        for malformed in [tag.trim_matches('"'), "", "\"1\" \"2\"", "*, \"1\""] {
            let refused = put(malformed).await.refused(400, "malformed_request");
            assert!(refused.body["error"].as_str().unwrap().contains("double quotes"), "{}", refused.body);
        }
        let old = put("\"999\"").await.refused(412, "revision_mismatch");
        assert!(old.body["error"].as_str().unwrap().contains("present revision"), "{}", old.body);
        put(&format!("\"999\", {tag}")).await.expect(200);
        put("*").await.expect(200);
        let delete = photon.request("DELETE", &path).header("if-match", "7");
        photon.send(delete).await.refused(400, "malformed_request");
    }
}

#[tokio::test]
async fn a_media_type_of_weight_zero_is_not_sent() {
    let photon = Photon::start().await;
    let metrics = async |accept: &str| {
        let answer = photon.send(photon.request("GET", "/metrics").header("accept", accept)).await;
        answer.expect(200).header("content-type").to_owned()
    };
    assert_eq!(metrics("application/json").await, "application/json");
    for other in ["application/json;q=0, text/plain", "application/json; Q=0.0", "*/*", "application/jsonx"] {
        assert!(metrics(other).await.starts_with("text/plain"), "{other}");
    }
    let refused = async |accept: &str| {
        let request = photon.request("GET", "/api/v1/agents/nobody").header("accept", accept);
        photon.send(request).await.expect(404).header("content-type").to_owned()
    };
    assert_eq!(refused("application/problem+json").await, "application/problem+json");
    assert_eq!(refused("application/problem+json;q=0.0, application/json").await, "application/json");
}

#[tokio::test]
async fn pages_of_other_sites_reach_neither_the_interface_nor_the_metrics() {
    let photon = Photon::start().await;
    for path in ["/api/v1/operations", "/api/v1/events/stream", "/metrics", "/metrics/dashboard"] {
        let asked = photon.request("GET", path).header("sec-fetch-site", "cross-site");
        photon.send(asked).await.refused(403, "origin_not_allowed");
    }
    let own = photon.request("GET", "/api/v1/operations").header("sec-fetch-site", "same-origin");
    photon.send(own).await.expect(200);
    let open = photon.request("GET", "/health").header("sec-fetch-site", "cross-site");
    photon.send(open).await.expect(200);
}

#[tokio::test]
async fn two_content_types_are_refused() {
    let photon = Photon::start().await;
    let request = photon.request("POST", "/api/v1/agents").body(r#"{"id":"a"}"#);
    let request = request.header("content-type", "application/json").header("content-type", "text/plain");
    photon.send(request).await.refused(400, "malformed_request");
    photon.get("/api/v1/agents/a").await.expect(404);
}

#[tokio::test]
async fn the_length_of_a_body_holds_although_its_request_would_like_an_upgrade() {
    let photon = Photon::start().await;
    for upgrade in ["Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        let body = format!(r#"{{"id":"u{}"}}"#, upgrade.len());
        let answer = talk(
            &photon,
            &format!(
                "POST /api/v1/agents HTTP/1.1\r\nHost: localhost\r\n{upgrade}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}\
                 GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
                body.len()
            ),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        photon.get(&format!("/api/v1/agents/u{}", upgrade.len())).await.expect(200);
    }
}

#[tokio::test]
async fn a_head_among_pipelined_requests_has_no_body() {
    let photon = Photon::start().await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let request = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    };
    // The first is still being answered when the second is read.
    let slow = format!("/api/v1/operations/{id}?wait=200ms");
    let last = request("GET", "/health", "Connection: close\r\n");
    for path in ["/health", "/nothing", &slow] {
        let answer = talk(&photon, &(request("HEAD", path, "") + &last)).await;
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert!(length.parse::<usize>().unwrap() > 0, "{head}");
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with('}'), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    }
    let kept = request("HEAD", "/health", "") + &request("HEAD", &slow, "") + &last;
    assert_eq!(talk(&photon, &kept).await.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn no_refusal_names_a_type_of_the_program() {
    let photon = Photon::start().await;
    const OURS: [&str; 9] = ["struct", "enum", "variant", "u8", "u32", "u64", "f64", "Option", "string"];
    let numbers = json!({"id": 1, "config": 2, "capabilities": 3, "location": 4});
    for (path, body) in [
        ("/api/v1/operations", json!({"name": "n", "workflow": [7]})),
        ("/api/v1/operations", json!({"name": "n", "workflow": [{"step": 1.5}]})),
        ("/api/v1/operations", json!({"name": "n", "workflow": [], "priority": {}})),
        ("/api/v1/operations", json!({"name": "n", "workflow": [], "deadline": 5})),
        ("/api/v1/agents", numbers),
        ("/api/v1/agents", json!({"id": "a", "config": {"labels": 5, "maxConcurrentSteps": -1}})),
        ("/api/v1/agents", json!({"id": "a", "location": {"x": 1}})),
        ("/api/v1/agents/a/claim", json!({"max": "many"})),
        ("/api/v1/agents/a/heartbeat", json!({"metrics": {"cpuUsage": "high"}, "status": 5})),
        ("/api/v1/agents/select", json!({"requires": {"capabilities": 5}})),
    ] {
        let refused = photon.post(path, body.clone()).await;
        assert!((400..500).contains(&refused.status), "{body} {}", refused.body);
        let message = refused.body["error"].as_str().unwrap().to_owned();
        let leaked = message.split(|letter: char| !letter.is_alphanumeric()).find(|word| OURS.contains(word));
        assert!(leaked.is_none() && !message.contains('`') && !message.contains("::"), "{message}");
    }
}
