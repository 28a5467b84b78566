//! Offers and their ends: attempts whose beginning nobody reported, offers that nobody takes, and slots of
//! cancelled steps.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::Json;
use domain::operation::event::{CloseReason, Event, LeaseEnd};
use domain::operation::{Command, Rejection, StepWish};
use serde_json::json;
use support::{Flow, complete, definition, expire, fail, lose, names, once, progress, step, write};

fn single() -> Flow {
    Flow::of(definition(vec![step(1, &[])]))
}

fn attempts(flow: &Flow) -> u32 {
    flow.operation().run.steps[0].attempts
}

#[test]
fn an_attempt_whose_report_is_its_first_sign_of_life_counts_from_the_reservation() {
    for wish in [complete(json!(1)), fail("flaky")] {
        let mut flow = single();
        flow.offer(1, "ada").unwrap();
        let reserved = flow.scenario.now;
        // Whatever the timeout says: nobody said when it began.
        flow.wait(90_000);
        let events = flow.wish(1, wish).unwrap();
        let Event::StepStarted(started) = &events[0] else { panic!("{events:?}") };
        assert_eq!((started.started_at, started.attempt), (reserved, 1));
        assert_eq!(flow.operation().run.steps[0].started_at, Some(reserved));
        if let Event::StepCompleted(completed) = &events[1] {
            assert_eq!(completed.duration_ms, 90_000);
        }
    }
    for wish in [StepWish::Acknowledge, progress(50), StepWish::Checkpoint(Json::object())] {
        let mut flow = single();
        flow.offer(1, "ada").unwrap();
        flow.wait(700);
        let begun = flow.scenario.now;
        let events = flow.wish(1, wish).unwrap();
        let Event::StepStarted(started) = &events[0] else { panic!("{events:?}") };
        assert_eq!(started.started_at, begun);
        flow.wait(59_999);
        assert_eq!(flow.wish(1, StepWish::TimeOut), Err(Rejection::Early));
        let events = flow.wish(1, complete(json!(1))).unwrap();
        let Event::StepCompleted(completed) = &events[0] else { panic!("{events:?}") };
        assert_eq!(completed.duration_ms, 59_999);
    }
}

/// Offered so often, and never taken.
fn untaken(flow: &mut Flow, times: usize) {
    for _ in 0..times {
        flow.offer(1, "ada").unwrap();
        assert_eq!(names(&flow.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap()), ["StepOfferExpired"]);
        assert_eq!(flow.status(1), "ready");
    }
}

#[test]
fn the_fifth_offer_in_a_row_that_is_not_taken_spends_the_attempt_as_a_lost_one() {
    // Of a write too: it is acknowledged before it begins, so that nothing was done.
    for asked in [step(1, &[]), write(1, &[])] {
        let mut flow = Flow::of(definition(vec![asked]));
        untaken(&mut flow, 4);
        flow.offer(1, "ada").unwrap();
        let events = flow.wish(1, lose(LeaseEnd::AgentTimeout)).unwrap();
        assert_eq!(names(&events), ["StepOfferExpired", "StepLeaseLost", "StepRetryScheduled"]);
        let Event::StepLeaseLost(lost) = &events[1] else { panic!("{events:?}") };
        assert_eq!((lost.grant, lost.attempt, lost.reason), (5, 1, LeaseEnd::AgentTimeout));
        assert_eq!((flow.status(1), attempts(&flow)), ("backing_off", 1));
        assert_eq!(flow.operation().run.steps[0].losses, 1);
        assert_eq!(flow.operation().run.failed_by(0).map(|(agent, _)| agent.as_str()), Some("ada"));
        // The next attempt has its own five.
        flow.wait(60_000);
        untaken(&mut flow, 4);
        flow.begin(1);
        assert_eq!(attempts(&flow), 2);
    }
}

#[test]
fn the_last_attempt_that_untaken_offers_spend_fails_the_step() {
    let mut flow = Flow::of(definition(vec![once(1, &[]), step(2, &[1])]));
    untaken(&mut flow, 4);
    flow.offer(1, "ada").unwrap();
    let events = flow.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap();
    let expected = ["StepOfferExpired", "StepLeaseLost", "StepFailed", "StepsCancelled", "Failed"];
    assert_eq!(names(&events), expected);
    assert_eq!(flow.statuses(), ["failed", "cancelled"]);
}

#[test]
fn what_is_taken_or_given_back_ends_a_row_of_untaken_offers_and_what_is_taken_back_does_not_count() {
    let back = StepWish::Release { reason: String::new(), hold_ms: Some(0) };
    for end in [lose(LeaseEnd::Revoked), lose(LeaseEnd::NewIncarnation), expire(LeaseEnd::NotHeard)] {
        let mut flow = single();
        untaken(&mut flow, 4);
        flow.offer(1, "ada").unwrap();
        assert_eq!(names(&flow.wish(1, end).unwrap()), ["StepOfferExpired"]);
        flow.offer(1, "ada").unwrap();
        assert_eq!(flow.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap().len(), 3);
    }
    for (begins, end) in [(false, back.clone()), (true, back), (true, lose(LeaseEnd::LeaseExpired))] {
        let mut flow = single();
        untaken(&mut flow, 4);
        flow.offer(1, "ada").unwrap();
        if begins {
            flow.wish(1, StepWish::Acknowledge).unwrap();
        }
        flow.wish(1, end).unwrap();
        flow.wait(60_000);
        untaken(&mut flow, 4);
    }
}

#[test]
fn a_late_completion_of_an_attempt_that_untaken_offers_spent_is_not_measured_from_the_one_before() {
    let mut flow = single();
    flow.begin(1);
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow.wait(60_000);
    untaken(&mut flow, 4);
    flow.offer(1, "ada").unwrap();
    flow.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap();
    assert_eq!(flow.operation().run.steps[0].started_at, None);
    let events = flow.wish(1, complete(json!("late"))).unwrap();
    let Event::StepCompleted(completed) = &events[0] else { panic!("{events:?}") };
    assert_eq!((completed.attempt, completed.duration_ms), (2, 0));
}

#[test]
fn the_slot_of_a_cancelled_step_is_freed_once() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[]), step(3, &[])]));
    flow.begin(1);
    flow.offer(2, "bob").unwrap();
    let close = || StepWish::CloseLease { why: CloseReason::Reported };
    assert_eq!(flow.wish(1, close()), Ok(vec![]), "it is held");
    let events = flow.put(&Command::Cancel { by: "ops".into() }).unwrap();
    let Event::StepsCancelled(cancelled) = &events[1] else { panic!("{events:?}") };
    assert_eq!(
        (&cancelled.steps[..], &cancelled.closing[..]),
        (&[1, 2, 3][..], &[flow.lease(1), flow.lease(2)][..])
    );
    assert!(!flow.operation().run.is_over());
    assert_eq!(flow.wish_under(3, 0, close()), Err(Rejection::LeaseLost));
    assert_eq!(flow.wish_under(1, 2, close()), Err(Rejection::LeaseLost));
    for step in [1, 2] {
        let events = flow.wish(step, close()).unwrap();
        let Event::LeaseClosed(closed) = &events[0] else { panic!("{events:?}") };
        assert_eq!((&closed.lease_id, closed.why), (&flow.lease(step), CloseReason::Reported));
        assert_eq!(flow.wish(step, close()), Ok(vec![]));
    }
    assert!(flow.operation().run.is_over());
}
