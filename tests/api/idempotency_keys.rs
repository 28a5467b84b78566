//! How many idempotency keys are remembered, and what happens to one more: it is refused, and nobody's key is
//! forgotten for it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use crate::support;

use support::{Answer, Photon, step};

async fn register(photon: &Photon, id: &str, key: &str) -> Answer {
    let body = json!({"id": id, "config": {"heartbeatIntervalMs": 0}});
    photon.send(photon.request("POST", "/api/v1/agents").header("idempotency-key", key).json(&body)).await
}

async fn create(photon: &Photon, key: &str) -> Value {
    let body = json!({"name": "n", "workflow": [step(1, "work", &[], json!({}))]});
    let request = photon.request("POST", "/api/v1/operations").header("idempotency-key", key).json(&body);
    photon.send(request).await.expect(201).data()["id"].clone()
}

#[tokio::test]
async fn one_key_too_many_is_refused_and_no_key_is_forgotten() {
    let mut photon = Photon::configured("[limits]\nmax_idempotency_keys = 2\n").await;
    register(&photon, "a", "k1").await.expect(201);
    register(&photon, "b", "k2").await.expect(201);
    for life in 0..2 {
        let refused = register(&photon, "c", "k3").await.refused(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), "3600");
        assert!(refused.body["error"].as_str().unwrap().contains("max_idempotency_keys"), "{}", refused.body);
        for (id, key) in [("a", "k1"), ("b", "k2")] {
            let again = register(&photon, id, key).await.expect(201);
            assert_eq!(again.header("idempotency-replayed"), "true", "{life} {id}");
        }
        // The key of a creation is in its id.
        assert_eq!(create(&photon, "c1").await, create(&photon, "c1").await);
        assert_ne!(create(&photon, "c1").await, create(&photon, "c2").await);
        if life == 0 {
            assert_eq!(photon.stopped().await, 0);
            photon.restart().await;
        }
    }
}
