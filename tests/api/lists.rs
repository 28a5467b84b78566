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
