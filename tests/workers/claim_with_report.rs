//! A report that asks for the next work: settled first, and answered whatever becomes of the claim.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Answer, Photon, step};

fn work() -> Value {
    json!([step(1, "work", &[], json!({}))])
}

async fn keyed(photon: &Photon, lease: &Value, what: &str, key: &str, body: Value) -> Answer {
    let path = format!("/api/v1/leases/{}/{what}", lease["leaseId"].as_str().unwrap());
    photon.send(photon.request("POST", &path).header("idempotency-key", key).json(&body)).await
}

fn leases(answer: &Answer) -> Vec<Value> {
    answer.data()["leases"].as_array().expect("a list of leases").clone()
}

#[tokio::test]
async fn each_report_gives_the_slot_that_it_frees_the_next_step() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let ids =
        [photon.operation(work()).await, photon.operation(work()).await, photon.operation(work()).await];
    let mut lease = photon.claim("a").await;
    assert_eq!(lease["operationId"], json!(ids[0]));
    let done = photon.report(&lease, "complete", json!({"result": 1, "claim": {"max": 1}})).await.expect(200);
    assert_eq!(done.data()["operationStatus"], json!("completed"));
    lease = leases(&done)[0].clone();
    assert_eq!(lease["operationId"], json!(ids[1]));
    let failure = json!({"code": "broken", "message": "no", "retryable": false, "claim": {}});
    let failed = photon.report(&lease, "fail", failure).await.expect(200);
    assert_eq!(failed.data()["willRetry"], json!(false));
    lease = leases(&failed)[0].clone();
    assert_eq!(lease["operationId"], json!(ids[2]));
    // What it gives back is kept from it for a while, so that there is nothing else now.
    let released = photon.report(&lease, "release", json!({"claim": {"max": 1}})).await.expect(200);
    assert_eq!((leases(&released), released.data().get("claimRefused")), (vec![], None));
    // Without a claim there is no word about one.
    let plain = photon.operation(work()).await;
    let lease = photon.claim("a").await;
    assert_eq!(lease["operationId"], json!(plain));
    let done = photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(done.data().get("leases"), None);
}

#[tokio::test]
async fn a_repetition_gets_what_it_was_given_and_has_not_begun_with() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for _ in 0..3 {
        photon.operation(work()).await;
    }
    let lease = photon.claim("a").await;
    let body = |claim: Value| json!({"result": 1, "claim": claim});
    let first = keyed(&photon, &lease, "complete", "k", body(json!({"max": 1}))).await.expect(200);
    let next = leases(&first)[0].clone();
    // The claim is no part of the body, and the answer to the report is the same.
    for claim in [json!({"max": 1}), json!({"max": 7}), json!(null)] {
        let again = keyed(&photon, &lease, "complete", "k", body(claim.clone())).await.expect(200);
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.data()["operationStatus"], first.data()["operationStatus"]);
        if !claim.is_null() {
            assert_eq!(leases(&again)[0]["leaseId"], next["leaseId"]);
        }
    }
    keyed(&photon, &lease, "complete", "k", json!({"result": 2}))
        .await
        .refused(422, "idempotency_key_reused");
    // What has begun is not given again: there is no free slot for more.
    photon.report(&next, "ack", json!({})).await.expect(200);
    let again = keyed(&photon, &lease, "complete", "k", body(json!({"max": 1}))).await.expect(200);
    assert_eq!(leases(&again), Vec::<Value>::new());
    photon.report(&next, "complete", json!({"result": 1})).await.expect(200);
    let again = keyed(&photon, &lease, "complete", "k", body(json!({"max": 1}))).await.expect(200);
    assert_eq!(leases(&again).len(), 1);
}

#[tokio::test]
async fn a_claim_that_cannot_be_served_costs_the_report_nothing() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for _ in 0..4 {
        photon.operation(work()).await;
    }
    // Drained.
    let lease = photon.claim("a").await;
    photon.put("/api/v1/agents/a", json!({"status": "inactive"})).await.expect(200);
    let body = json!({"result": 1, "claim": {"max": 1}});
    let done = photon.report(&lease, "complete", body.clone()).await.expect(200);
    assert_eq!(done.data()["operationStatus"], json!("completed"));
    assert_eq!((leases(&done), &done.data()["claimRefused"]["code"]), (vec![], &json!("drained")));
    photon.put("/api/v1/agents/a", json!({"status": "active"})).await.expect(200);
    // Its provider takes no calls.
    let lease = photon.claim("a").await;
    let limited =
        json!({"code": "rate_limited", "message": "later", "retryAfterMs": 60_000, "claim": {"max": 1}});
    let failed = photon.report(&lease, "fail", limited).await.expect(200);
    let refused = &failed.data()["claimRefused"];
    assert_eq!((leases(&failed), &refused["code"]), (vec![], &json!("rate_limited")));
    assert!((1..=60_000).contains(&refused["retryAfterMs"].as_u64().unwrap()), "{refused}");
    let lane = photon.get("/api/v1/lanes").await.expect(200).data()[0]["lane"].as_str().unwrap().to_owned();
    photon.delete(&format!("/api/v1/lanes/{lane}")).await.expect(200);
    // An earlier incarnation's: the report is late, and what it is told is what it always was.
    let lease = photon.claim("a").await;
    photon.report(&lease, "ack", json!({})).await.expect(200);
    photon.post("/api/v1/agents", json!({"id": "a", "config": {"heartbeatIntervalMs": 0}})).await.expect(200);
    let late = photon.report(&lease, "complete", body).await;
    assert!(late.status == 410 || late.data()["leases"] == json!([]), "{}", late.body);
}

#[tokio::test]
async fn what_is_refused_as_a_report_claims_nothing() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    photon.operation(work()).await;
    let lease = photon.claim("a").await;
    for max in [0, 101] {
        let refused = photon.report(&lease, "complete", json!({"claim": {"max": max}})).await;
        refused.refused(422, "invalid_field");
    }
    let refused = photon.report(&lease, "complete", json!({"claim": {"max": 1, "wait": "1s"}})).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    photon.operation(work()).await;
    let gone = json!({"leaseId": lease["leaseId"].as_str().unwrap().replace("_1_1", "_1_9")});
    photon.report(&gone, "complete", json!({"claim": {"max": 1}})).await.refused(410, "lease_lost");
    assert_eq!(photon.get("/api/v1/leases").await.expect(200).data(), &json!([]));
}

#[tokio::test]
async fn a_claim_that_does_not_wait_displaces_none_that_does() {
    let photon = Photon::start().await;
    let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentSteps": 2});
    photon.post("/api/v1/agents", json!({"id": "a", "config": config})).await.expect(201);
    photon.operation(work()).await;
    let lease = photon.claim("a").await;
    let waiting = photon.post("/api/v1/agents/a/claim", json!({"wait": "20s"}));
    let meanwhile = async {
        photon.claims_waiting(1).await;
        let none = photon.post("/api/v1/agents/a/claim", json!({"wait": "0s"})).await.expect(200);
        assert_eq!(leases(&none), Vec::<Value>::new());
        let done = photon.report(&lease, "complete", json!({"result": 1, "claim": {"max": 2}})).await;
        assert_eq!(leases(&done.expect(200)), Vec::<Value>::new());
        photon.claims_waiting(1).await;
        photon.operation(work()).await
    };
    let (served, id) = tokio::join!(waiting, meanwhile);
    assert_eq!(leases(&served.expect(200))[0]["operationId"], json!(id));
}
