//! Lists over HTTP: what their filters admit, and what they refuse.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::json;
use support::{Answer, Photon, step};

async fn operations(photon: &Photon, query: &str) -> Answer {
    photon.get(&format!("/api/v1/operations?count=true&{query}")).await.expect(200)
}

fn ids(answer: &Answer) -> Vec<String> {
    let rows = answer.data().as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn several_statuses_are_looked_for_at_once() {
    let photon = Photon::start().await;
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(photon.operation(json!([step(1, "a", &[], json!({}))])).await);
    }
    photon.delete(&format!("/api/v1/operations/{}", created[0])).await.expect(200);
    let pending = json!({"name": "n", "autoStart": false, "workflow": [step(1, "a", &[], json!({}))]});
    photon.post("/api/v1/operations", pending).await.expect(201);
    for (query, count) in [
        ("status=cancelled", 1),
        ("status=cancelled,in_progress", 3),
        ("status=cancelled,%20pending", 2),
        ("status=failed,completed", 0),
        ("status=failed,failed,cancelled", 1),
        ("", 4),
    ] {
        let page = operations(&photon, query).await;
        assert_eq!(page.body["page"]["total"], json!(count), "{query}");
        assert_eq!(ids(&page).len(), count, "{query}");
    }
    let refused = photon.get("/api/v1/operations?status=failed,canceled").await;
    let refused = refused.refused(400, "invalid_parameter");
    assert_eq!(refused.body["problem"]["errors"][0]["parameter"], json!("status"));
    let error = refused.body["error"].as_str().unwrap();
    assert!(error.contains("Did you mean 'cancelled'?"), "{error}");
    photon.get("/api/v1/operations?status=failed,").await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn an_operation_is_found_by_the_beginning_or_the_end_of_its_id() {
    let photon = Photon::start().await;
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(photon.operation(json!([step(1, "a", &[], json!({}))])).await);
    }
    let wanted = &created[1];
    for query in [wanted.clone(), wanted[3..].to_owned(), wanted[20..].to_owned(), wanted[..30].to_owned()] {
        let found = ids(&operations(&photon, &format!("id={query}")).await);
        assert_eq!(found, std::slice::from_ref(wanted), "{query}");
    }
    // Their ids begin with the time.
    let page = operations(&photon, &format!("id={}&limit=50", &wanted[..8])).await;
    assert_eq!((ids(&page).len(), &page.body["page"]["hasMore"]), (2, &json!(true)));
    assert_eq!(page.body["page"]["total"], json!(3));
    assert_eq!(ids(&operations(&photon, &format!("id={wanted}&status=failed")).await).len(), 0);
    for query in ["id=", "id=012", "id=op_012", "id=xyzw", "id=ABCD"] {
        let refused = photon.get(&format!("/api/v1/operations?{query}")).await;
        let refused = refused.refused(400, "invalid_parameter");
        assert_eq!(refused.body["problem"]["errors"][0]["parameter"], json!("id"), "{query}");
    }
}

#[tokio::test]
async fn an_agent_is_found_by_the_beginning_or_the_end_of_its_id() {
    let photon = Photon::start().await;
    for id in ["worker-east-1", "worker-east-2", "worker-west-1", "worker", "my-worker"] {
        photon.agent(id, &[]).await;
    }
    for (query, found, total) in [
        ("id=worker-east-2", json!(["worker-east-2"]), 1),
        ("id=ast-2", json!(["worker-east-2"]), 1),
        ("id=worker-e", json!(["worker-east-1", "worker-east-2"]), 2),
        ("id=worker-", json!(["worker-east-1", "worker-east-2"]), 3),
        // An id that is one as it stands is no shortened one.
        ("id=worker", json!(["worker"]), 1),
        ("id=nobody", json!([]), 0),
    ] {
        let page = photon.get(&format!("/api/v1/agents?count=true&limit=50&{query}")).await.expect(200);
        assert_eq!((json!(ids(&page)), &page.body["page"]["total"]), (found, &json!(total)), "{query}");
    }
    for query in ["id=", "id=wor", "id=a%20bc"] {
        photon.get(&format!("/api/v1/agents?{query}")).await.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_time_that_is_shown_names_the_moment_that_is_compared() {
    let photon = Photon::start().await;
    for _ in 0..5 {
        photon.operation(json!([step(1, "a", &[], json!({}))])).await;
    }
    let all = operations(&photon, "").await;
    for row in all.data().as_array().unwrap() {
        let (id, at) = (row["id"].as_str().unwrap().to_owned(), row["createdAt"].as_str().unwrap());
        for (query, is_shown) in [
            (format!("createdAfter={at}"), false),
            (format!("createdBefore={at}"), false),
            // Later within the same millisecond.
            (format!("createdAfter={}", at.replace('Z', "0001Z")), false),
            (format!("createdBefore={}", at.replace('Z', "0001Z")), true),
        ] {
            assert_eq!(ids(&operations(&photon, &query).await).contains(&id), is_shown, "{query}");
        }
    }
}

#[tokio::test]
async fn every_entry_of_metadata_is_found_or_the_filter_is_refused() {
    let photon = Photon::start().await;
    let mut metadata: serde_json::Map<String, serde_json::Value> =
        (0..100).map(|number| (format!("key{number:03}"), json!(format!("value {number}")))).collect();
    metadata.insert("long".into(), json!("x".repeat(257)));
    metadata.insert("most".into(), json!("y".repeat(256)));
    let body = json!({"name": "n", "metadata": metadata, "workflow": [step(1, "a", &[], json!({}))]});
    photon.post("/api/v1/operations", body).await.expect(201);
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "long") {
        let query = format!("metadata.{key}={}", value.as_str().unwrap().replace(' ', "%20"));
        assert_eq!(ids(&operations(&photon, &query).await).len(), 1, "{query}");
    }
    for query in [format!("metadata.long={}", "x".repeat(257)), format!("metadata.{}=1", "k".repeat(257))] {
        photon.get(&format!("/api/v1/operations?{query}")).await.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_cursor_survives_a_restart_and_belongs_to_one_filter_and_order() {
    let mut photon = Photon::start().await;
    for _ in 0..3 {
        photon.operation(json!([step(1, "a", &[], json!({}))])).await;
    }
    let first = operations(&photon, "limit=1&status=in_progress").await;
    let cursor = first.body["page"]["nextCursor"].as_str().unwrap().to_owned();
    let path = |query: &str| format!("/api/v1/operations?cursor={cursor}&{query}");
    photon.kill();
    photon.restart().await;
    let second = photon.get(&path("limit=2&status=in_progress")).await.expect(200);
    assert_eq!(ids(&second).len(), 2);
    assert!(!ids(&second).contains(&ids(&first)[0]));
    for other in ["limit=1", "limit=1&status=in_progress&sort=createdAt", "limit=1&status=failed"] {
        photon.get(&path(other)).await.refused(400, "invalid_parameter");
    }
    photon.get(&format!("/api/v1/agents?cursor={cursor}")).await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn a_due_retry_waits_for_an_agent_wherever_one_looks() {
    let photon = Photon::configured("[monitoring]\nmetrics_interval_ms = 100\n").await;
    photon.agent("a", &[]).await;
    let mut work = step(1, "x", &[], json!({}));
    work["retryPolicy"] = json!({"initialDelayMs": 1_000, "maxDelayMs": 1_000, "jitter": 0.0});
    let id = photon.operation(json!([work])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "fail", json!({"code": "x", "message": "m"})).await.expect(200);
    let path = format!("/api/v1/operations/{id}");
    let before = photon.get(&path).await.expect(200);
    assert_eq!(before.data()["blockedOn"], json!(["retry"]));
    let etag = before.header("etag").to_owned();
    photon.until(&path, |shown| shown["blockedOn"] == json!(["agent"])).await;
    // What is shown changed, though nothing happened to the operation.
    let after = photon.send(photon.request("GET", &path).header("if-none-match", &etag)).await.expect(200);
    assert_eq!(after.data()["workflow"][0]["blockedOn"], json!({"kind": "agent"}));
    assert_eq!(after.data()["revision"], before.data()["revision"]);
    let current = after.header("etag").to_owned();
    photon.send(photon.request("GET", &path).header("if-none-match", &current)).await.expect(304);
    for (query, count) in [("blockedOn=agent", 1), ("blockedOn=retry", 0)] {
        let list = operations(&photon, query).await;
        assert_eq!(list.body["page"]["total"], json!(count), "{query}");
    }
    let listed = operations(&photon, "").await;
    assert_eq!(listed.data()[0]["blockedOn"], json!(["agent"]));
    let metrics = photon.get("/metrics").await.body.as_str().unwrap().to_owned();
    for line in ["photon_steps{status=\"ready\"} 1\n", "photon_steps{status=\"backing_off\"} 0\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let changed = photon.request("PUT", &path).header("if-match", &current).json(&json!({"name": "m"}));
    photon.send(changed).await.expect(200);
}

#[tokio::test]
async fn only_steps_that_an_agent_could_take_are_counted_as_ready() {
    let photon = Photon::start().await;
    let workflow: Vec<_> = (1..=6).map(|number| step(number, "x", &[], json!({}))).collect();
    let body = json!({"name": "n", "maxParallel": 2, "workflow": workflow});
    let id = photon.post("/api/v1/operations", body).await.expect(201).data()["id"].clone();
    let counted = async |line: &str| {
        let metrics = photon.get("/metrics").await.body.as_str().unwrap().to_owned();
        assert!(metrics.contains(line), "{metrics}");
    };
    counted("photon_steps{status=\"ready\"} 2\n").await;
    photon.post(&format!("/api/v1/operations/{}/pause", id.as_str().unwrap()), json!({})).await.expect(200);
    counted("photon_steps{status=\"ready\"} 0\n").await;
}
