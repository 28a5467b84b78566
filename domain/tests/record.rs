//! How an agent did, as the views fold it from its operations: averages, the window of its last results, and
//! since when it is idle.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::record::Window;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::{Command, StepWish};
use serde_json::json;
use support::fleet::Fleet;
use support::{complete, definition, expire, fail, lose, once, release};

/// Ada is given a step, begins it if she does, and this comes of it some time later.
fn work(fleet: &mut Fleet, begins: bool, ms: u64, end: StepWish) {
    let id = fleet.create(definition(vec![once(1, &[])]));
    fleet.offer(&id, 1, "ada").unwrap();
    if begins {
        fleet.wish(&id, 1, StepWish::Acknowledge).unwrap();
    }
    fleet.wait(ms);
    fleet.wish(&id, 1, end).unwrap();
}

#[test]
fn success_and_speed_are_averages_that_unperformed_work_does_not_touch() {
    let mut fleet = Fleet::of(1);
    let shown = |fleet: &Fleet| {
        let record = &fleet.row("ada").work.record;
        ((record.success_score() * 100.0).round(), record.response_ms().map(f64::round))
    };
    assert_eq!(shown(&fleet), (50.0, None));
    for (begins, end) in [
        (true, release()),
        (false, release()),
        (false, expire(LeaseEnd::NoSignOfLife)),
        (false, lose(LeaseEnd::NewIncarnation)),
        (true, lose(LeaseEnd::Revoked)),
    ] {
        work(&mut fleet, begins, 5, end);
        assert_eq!(shown(&fleet), (50.0, None));
        assert_eq!(fleet.row("ada").work.idle_since, fleet.now);
    }
    work(&mut fleet, true, 100, complete(json!(1)));
    assert_eq!(shown(&fleet), (60.0, Some(100.0)));
    // Without an acknowledgement it took as long as it was reserved.
    work(&mut fleet, false, 200, complete(json!(1)));
    assert_eq!(shown(&fleet), (68.0, Some(156.0)));
    work(&mut fleet, true, 9_000, lose(LeaseEnd::LeaseExpired));
    assert_eq!(shown(&fleet), (54.0, Some(156.0)));
    let record = &fleet.row("ada").work.record;
    assert_eq!((record.completed, record.failed), (2, 1));
    assert!((record.response_ms_from(1_000.0) - (0.64 * 1_000.0 + 0.16 * 100.0 + 0.2 * 200.0)).abs() < 1e-9);
}

#[test]
fn the_last_results_are_a_window_of_fifty() {
    let mut fleet = Fleet::of(1);
    assert_eq!(fleet.row("ada").work.record.window(), Window::default());
    let mut since = Vec::new();
    for turn in 0..60 {
        let end = match turn % 10 {
            9 => fail("flaky"),
            8 => lose(LeaseEnd::AgentTimeout),
            _ => complete(json!(turn)),
        };
        work(&mut fleet, true, turn, end);
        since.push(fleet.now);
    }
    let window = fleet.row("ada").work.record.window();
    assert_eq!((window.completed, window.failed, window.lost), (40, 5, 5));
    assert_eq!((window.since, window.success_rate()), (Some(since[10]), Some(0.8)));
    assert_eq!((window.p50_ms, window.p95_ms), (Some(33), Some(55)));
}

#[test]
fn an_agent_is_idle_since_its_registration_or_since_a_slot_became_free_last() {
    let mut fleet = Fleet::of(2);
    assert_eq!(fleet.row("ada").work.idle_since, fleet.now);
    let (one, two) =
        (fleet.create(definition(vec![once(1, &[])])), fleet.create(definition(vec![once(1, &[])])));
    fleet.wait(1_000);
    fleet.begin(&one, 1, "ada");
    fleet.begin(&two, 1, "ada");
    assert!(fleet.row("ada").work.idle_since < fleet.now);
    fleet.wish(&one, 1, complete(json!(1))).unwrap();
    assert_eq!(fleet.row("ada").work.idle_since, fleet.now);
    // A slot that closes is not free yet.
    fleet.wait(1_000);
    let before = fleet.row("ada").work.idle_since;
    fleet.put(&two, &Command::Cancel { by: "ops".into() }).unwrap();
    assert_eq!(fleet.row("ada").work.idle_since, before);
    fleet.wait(1_000);
    fleet.wish(&two, 1, StepWish::CloseLease { why: CloseReason::Reported }).unwrap();
    assert_eq!(fleet.row("ada").work.idle_since, fleet.now);
}
