//! A data folder that has grown to its maximum: changes are refused, reads and streams go on, also after a
//! restart, and changes are taken again by themselves once there is space.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support;

use support::{Photon, Tail, step};

const MIB: usize = 1 << 20;

fn limit(mib: usize) -> String {
    format!("[limits]\nmax_disk_bytes = {}\ndisk_low_water_bytes = 0\n", mib * MIB)
}

fn operation() -> Value {
    let inputs = json!({"text": "x".repeat(150_000)});
    json!({"name": "large", "workflow": [step(1, "work", &[], inputs.clone()), step(2, "work", &[], inputs)]})
}

fn small() -> Value {
    json!({"name": "small", "workflow": [step(1, "work", &[], json!({}))]})
}

/// Creates such operations until the folder is full; says how many there are.
async fn fill(photon: &Photon, operation: fn() -> Value) -> usize {
    let mut created = 0;
    loop {
        let answer = photon.post("/api/v1/operations", operation()).await;
        if answer.status != 201 {
            answer.refused(507, "storage_full");
            return created;
        }
        created += 1;
    }
}

async fn check_that_reads_go_on(photon: &Photon, operations: usize) {
    let listed = photon.get("/api/v1/operations").await.expect(200);
    assert_eq!(listed.data().as_array().unwrap().len(), operations);
    let id = listed.data()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(photon.shown(&id).await["name"], "large");
    let tail = Tail::start(photon, "operation.created");
    for _ in 0..operations {
        assert_eq!(tail.next()["type"], "operation.created");
    }
    photon.get("/health").await.expect(200);
    photon.get("/health/ready").await.refused(507, "storage_full");
    let health = photon.get("/health/detailed").await.expect(503);
    let checks = health.data()["checks"].as_array().unwrap().clone();
    let disk = checks.iter().find(|check| check["name"] == "disk").unwrap();
    assert!(disk["state"] == "fail" && disk["detail"].as_str().unwrap().contains("are allowed"), "{disk}");
}

#[tokio::test]
async fn at_the_maximum_changes_are_refused_and_reads_go_on_until_there_is_space() {
    let _alone = support::alone();
    let mut photon = Photon::configured(&limit(4)).await;
    let created = fill(&photon, operation).await;
    assert!(created >= 2, "{created}");
    check_that_reads_go_on(&photon, created).await;
    assert_eq!(photon.stopped().await, 0);
    // Still over the limit, whatever a clean end has freed.
    photon.configure(&limit(1));
    photon.restart_unready().await;
    photon.post("/api/v1/operations", operation()).await.refused(507, "storage_full");
    check_that_reads_go_on(&photon, created).await;
    assert_eq!(photon.stopped().await, 0);

    photon.configure(&limit(64));
    photon.restart().await;
    photon.post("/api/v1/operations", operation()).await.expect(201);
    // What lies beside the log counts as well, and can go while the server runs.
    let beside = photon.folder().join("data/beside");
    std::fs::write(&beside, vec![0; 64 * MIB]).unwrap();
    // The folder is measured now and then: what comes before that is still taken. It must be little, or the
    // log would fill the folder by itself.
    fill(&photon, small).await;
    assert_eq!(fill(&photon, small).await, 0);
    std::fs::remove_file(beside).unwrap();
    let freed = Instant::now();
    while photon.post("/api/v1/operations", small()).await.status != 201 {
        assert!(freed.elapsed() < Duration::from_secs(5), "changes are not taken again");
    }
    photon.get("/health/ready").await.expect(200);
}
