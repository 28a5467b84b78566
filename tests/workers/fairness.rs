//! A large operation does not keep a small one of the same priority waiting.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::workers::Shift;
use support::{Photon, checker, step};

const AGENTS: usize = 4;
const LARGE: u32 = 5_000;
const SMALL: u32 = 5;

fn beside_each_other(steps: u32) -> Value {
    (1..=steps).map(|number| step(number, "work", &[], json!({}))).collect()
}

/// Positions of an operation's events of one type.
async fn places(photon: &Photon, id: &str, kind: &str) -> Vec<u64> {
    let events = checker::read(photon, &format!("limit=500&operation={id}&types={kind}")).await;
    events.iter().map(|event| event["sequence"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until the small one has completed; how many steps of the large one were done after the small one
/// came and before it ended.
async fn overtaken(photon: &Photon, large: &str, small: &str) -> usize {
    photon.until(&format!("/api/v1/operations/{small}"), |shown| shown["status"] == "completed").await;
    let came = places(photon, small, "operation.created").await[0];
    let ended = places(photon, small, "operation.completed").await[0];
    let done = places(photon, large, "step.completed").await;
    done.iter().filter(|place| (came..ended).contains(place)).count()
}

#[tokio::test]
async fn a_small_operation_ends_before_a_large_one_has_done_a_twentieth() {
    let _alone = support::alone();
    let photon = Photon::start().await;
    let large = photon.operation(beside_each_other(LARGE)).await;
    let small = photon.operation(beside_each_other(SMALL)).await;
    let shift = Shift::begin(&photon, AGENTS).await;
    let done = overtaken(&photon, &large, &small).await;
    println!("submitted behind it: {done} of {LARGE} steps were done meanwhile");
    assert!(done < LARGE as usize / 20, "{done} steps");
    // The same when the large one is well under way.
    let late = photon.operation(beside_each_other(SMALL)).await;
    let done = overtaken(&photon, &large, &late).await;
    println!("submitted in its midst: {done} of {LARGE} steps were done meanwhile");
    assert!(done < LARGE as usize / 20, "{done} steps");
    shift.end().await;
    assert_eq!(photon.shown(&large).await["status"], json!("in_progress"));
    checker::check_log(&photon).await.must_be_clean();
}
