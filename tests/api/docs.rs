//! What the server says of itself: health, metrics, dashboard, platforms, and documents that are true.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Photon, SPECIFIED_EVENTS, step};

/// The route table as (path, method), read from its source: one line a route.
fn routed() -> BTreeSet<(String, String)> {
    let source = include_str!("../../src/http.rs").replace("\n            .", ".");
    let mut routes = BTreeSet::new();
    for line in source.lines().filter(|line| line.contains("resource(\"")) {
        let path = line.split('"').nth(1).unwrap().to_owned();
        for method in ["get", "post", "put", "delete"] {
            if line.contains(&format!(").{method}(")) {
                routes.insert((path.clone(), method.to_owned()));
            }
        }
    }
    routes
}

#[tokio::test]
async fn the_openapi_document_names_exactly_the_routes_there_are() {
    let photon = Photon::start().await;
    let document = photon.get("/openapi.json").await.expect(200).body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.insert((path.clone(), method.clone()));
        }
    }
    documented.insert(("/openapi.json".into(), "get".into()));
    documented.insert(("/asyncapi.json".into(), "get".into()));
    assert!(documented.len() > 30);
    assert_eq!(documented, routed());
}

/// Every `$ref` of the document leads to something within it.
fn dangling(document: &Value, part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref").and_then(Value::as_str)
                && document.pointer(target.trim_start_matches('#')).is_none()
            {
                found.push(target.to_owned());
            }
            members.values().for_each(|member| dangling(document, member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(document, item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_asyncapi_document_names_every_type_of_event_that_the_specification_wants() {
    let photon = Photon::start().await;
    let document = photon.get("/asyncapi.json").await.expect(200).body;
    assert_eq!(document["asyncapi"], "3.0.0");
    let mut found = Vec::new();
    dangling(&document, &document, &mut found);
    assert!(found.is_empty(), "{found:?}");
    let named = &document["components"]["schemas"]["Event"]["properties"]["type"]["examples"];
    for kind in SPECIFIED_EVENTS {
        assert!(named.as_array().unwrap().contains(&json!(kind)), "{kind} of {named}");
    }
    for channel in document["channels"].as_object().unwrap().values() {
        let path = channel["address"].as_str().unwrap();
        assert!(routed().contains(&(path.to_owned(), "get".to_owned())), "{path}");
    }
}

/// `testing` is on in `cargo test --all-features`; this is what everybody else runs.
#[cfg(not(feature = "testing"))]
#[tokio::test]
async fn a_normal_build_has_no_way_to_make_an_actor_panic() {
    let photon = Photon::start().await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let path = format!("/testing/operations/{id}/panic");
    photon.post(&path, json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn the_docs_page_needs_nothing_from_outside() {
    let photon = Photon::start().await;
    let page = photon.get("/docs/").await.expect(200);
    // A problem's type is the address of a page about it.
    let refused = photon.get("/api/v1/agents/nobody").await.refused(404, "not_found");
    let about = photon.get(refused.body["problem"]["type"].as_str().unwrap()).await.expect(200);
    assert!(about.body.as_str().unwrap().starts_with("404 not_found: "), "{}", about.body);
    photon.get("/docs/errors/nonsense").await.refused(404, "not_found");
    let text = page.body.as_str().unwrap();
    assert!(text.contains("swagger-ui"));
    assert!(!text.contains("https://") && !text.contains("//cdn"), "{text}");
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    photon.get("/docs/swagger-ui-bundle.js").await.expect(200);
}

#[tokio::test]
async fn health_says_how_each_part_is() {
    let photon = Photon::start().await;
    for path in ["/health", "/health/live", "/health/ready", "/health/startup"] {
        let health = photon.get(path).await.expect(200);
        assert_eq!(health.data()["status"], json!("ok"));
        assert_eq!(health.data()["version"], json!(env!("CARGO_PKG_VERSION")));
    }
    let detailed = photon.get("/health/detailed").await.expect(200);
    let checks = detailed.data()["checks"].as_array().unwrap().clone();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["phase", "log", "views", "disk", "actors"]);
    assert!(checks.iter().all(|check| check["state"] == json!("pass")), "{checks:?}");
}

#[tokio::test]
async fn metrics_count_what_happened_and_name_no_id() {
    let photon = Photon::start().await;
    photon.agent("metered-agent", &[]).await;
    let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    photon.shown(&id).await;
    let text = photon.get("/metrics").await.expect(200);
    let text = text.body.as_str().unwrap();
    assert!(text.contains("photon_operations{priority=\"medium\",status=\"in_progress\"} 1"), "{text}");
    assert!(text.contains("photon_agents{status=\"active\"} 1"));
    assert!(text.contains("photon_steps{status=\"ready\"} 1"));
    assert!(text.contains("route=\"/api/v1/operations/{id}\""));
    assert!(text.contains("process_resident_memory_bytes"));
    assert!(!text.contains(&id) && !text.contains("metered-agent"));
    let json = photon.send(photon.request("GET", "/metrics").header("accept", "application/json")).await;
    assert_eq!(json.data()["photon_agents"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_dashboard_shows_real_figures() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    let shown = photon.get("/metrics/dashboard").await.expect(200);
    let data = shown.data();
    assert_eq!(data["operationsByStatus"]["completed"], json!(1));
    assert_eq!(data["operationsByStatus"]["in_progress"], json!(1));
    assert_eq!(data["activeByPriority"]["medium"], json!(1));
    assert_eq!(data["throughput"]["completedLastMinute"], json!(1));
    assert_eq!(data["throughput"]["stepsLastMinute"], json!(1));
    assert!(data["operationDurationMs"]["p95"].is_u64());
    assert_eq!(data["agents"]["active"].as_u64().unwrap() + data["agents"]["busy"].as_u64().unwrap(), 1);
}

#[tokio::test]
async fn only_platforms_that_are_built_are_there() {
    let photon = Photon::start().await;
    let list = photon.get("/api/v1/platforms").await.expect(200);
    let names = list.data().as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names, [json!("human"), json!("worker")]);
    let human = photon.get("/api/v1/platforms/human").await.expect(200);
    assert_eq!(human.data()["performedBy"], json!("person"));
    let worker = photon.get("/api/v1/platforms/worker").await.expect(200);
    assert_eq!((&worker.data()["name"], &worker.data()["performedBy"]), (&json!("worker"), &json!("agent")));
    let workflow = json!([{"step": 1, "platform": "cursor", "action": "edit-code"}]);
    let body = json!({"name": "n", "workflow": workflow});
    photon.post("/api/v1/operations", body).await.refused(422, "platform_unavailable");
}
