//! A sync that fails once: the process stops, and the next start has everything that was acknowledged (P7).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::path::Path;

use futures_util::future;
use serde_json::{Value, json};
use support::tally::{Tally, asked, build_shim};
use support::{Photon, step};

/// Syncs of one life before the one that fails.
const SYNCS: u32 = 25;
const CLIENTS: usize = 4;

#[tokio::test]
async fn a_failed_sync_stops_the_process_and_nothing_acknowledged_is_lost() {
    let (outside, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("events/tests/failpoints/failpoints.c");
    let place = data.path().display().to_string();
    let environment = [
        ("PHOTON_DATA_DIR", place.clone()),
        ("FAILPOINT_FOLDER", place),
        ("LD_PRELOAD", build_shim(&source, outside.path()).display().to_string()),
        ("FAILPOINT_SITE", format!("fdatasync gen-000001/journal {SYNCS}")),
        ("FAILPOINT_ACTION", "eio".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let tally = Tally::of("P1 P7", "a sync of a running server fails", asked(20, 500, 5_000));
    let mut photon = Photon::surrounded("", environment).await;
    let mut acknowledged: Vec<Value> = Vec::new();
    while !tally.is_done() {
        acknowledged.extend(create_until_it_ends(&photon, acknowledged.len()).await);
        assert_eq!(photon.ended().await, 74);
        photon.restart().await;
        for operation in &acknowledged {
            let there = photon.shown(operation["id"].as_str().unwrap()).await;
            assert_eq!((&there["name"], &there["workflow"]), (&operation["name"], &operation["workflow"]));
        }
        tally.add(1);
    }
}

/// Creates operations that wait to be started; returns those that were acknowledged.
async fn create_until_it_ends(photon: &Photon, first: usize) -> Vec<Value> {
    let mut acknowledged = Vec::new();
    loop {
        let creating = (0..CLIENTS).map(|client| {
            let name = format!("n{}-{client}", first + acknowledged.len());
            let workflow = [step(1, "work", &[], json!({}))];
            let body = json!({"name": name, "autoStart": false, "workflow": workflow});
            photon.request("POST", "/api/v1/operations").json(&body).send()
        });
        for answer in future::join_all(creating).await {
            let Ok(answer) = answer else { return acknowledged };
            if answer.status().as_u16() != 201 {
                assert!(answer.status().is_server_error(), "{answer:?}");
                continue;
            }
            let Ok(body) = answer.json::<Value>().await else { continue };
            acknowledged.push(body["data"].clone());
        }
    }
}
