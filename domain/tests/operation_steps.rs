//! One step under its grants: offers, reports, losses, retries, and who comes too late.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::operation::event::{CloseReason, Event, LeaseEnd};
use domain::operation::pending::Effect;
use domain::operation::{Command, Rejection, StepWish};
use domain::{Aggregate, Json};
use serde_json::json;
use support::{
    Flow, agent, complete, definition, error, expire, fail, lose, names, once, progress, reserve, step, with,
};

fn single() -> Flow {
    Flow::of(definition(vec![step(1, &[])]))
}

fn running() -> Flow {
    let mut flow = single();
    flow.begin(1);
    flow
}

fn gone(status: &'static str) -> Rejection {
    Rejection::AlreadyTerminal { status }
}

fn attempts(flow: &Flow) -> u32 {
    flow.operation().run.steps[0].attempts
}

#[test]
fn a_step_is_offered_taken_and_completed() {
    let mut flow = single();
    assert_eq!(flow.operation().pending(), [Effect::Offer { step: 1 }]);
    assert_eq!(names(&flow.offer(1, "ada").unwrap()), ["StepReserved"]);
    let offered = Effect::AwaitTaker { step: 1, grant: 1, agent: agent("ada") };
    assert_eq!((flow.status(1), flow.operation().pending()), ("reserved", vec![offered]));
    assert_eq!(names(&flow.wish(1, StepWish::Acknowledge).unwrap()), ["StepStarted"]);
    assert!(matches!(flow.operation().pending()[..], [Effect::Watch { step: 1, timeout_ms: 60_000, .. }]));
    flow.wait(250);
    let events = flow.wish(1, complete(json!({"ok": true}))).unwrap();
    assert_eq!(names(&events), ["StepCompleted", "Progressed", "Completed"]);
    let Event::StepCompleted(completed) = &events[0] else { panic!("{events:?}") };
    assert_eq!((completed.duration_ms, completed.attempt), (250, 1));
    assert_eq!(flow.operation().results[&1], Json::from(json!({"ok": true})));
    assert_eq!(flow.operation().pending(), []);
}

#[test]
fn any_report_is_a_sign_of_life_that_begins_the_attempt() {
    for (wish, expected) in [
        (StepWish::Acknowledge, vec!["StepStarted"]),
        (progress(50), vec!["StepStarted", "StepProgressed", "Progressed"]),
        (StepWish::Checkpoint(Json::object()), vec!["StepStarted", "StepCheckpointed"]),
        (complete(json!(1)), vec!["StepStarted", "StepCompleted", "Progressed", "Completed"]),
        (fail("flaky"), vec!["StepStarted", "StepFailed", "StepRetryScheduled"]),
    ] {
        let mut flow = single();
        flow.offer(1, "ada").unwrap();
        assert_eq!(names(&flow.wish(1, wish).unwrap()), expected);
        assert_eq!(attempts(&flow), 1);
    }
}

#[test]
fn a_repeated_report_changes_nothing() {
    for wish in [
        StepWish::Acknowledge,
        progress(50),
        StepWish::Checkpoint(Json::object()),
        complete(json!(1)),
        fail("x"),
    ] {
        let mut flow = running();
        flow.wish(1, wish.clone()).unwrap();
        assert_eq!(flow.wish(1, wish), Ok(vec![]));
    }
}

#[test]
fn a_repeated_reservation_changes_nothing_and_a_second_agent_is_refused() {
    let mut flow = single();
    let events = flow.offer(1, "ada").unwrap();
    let Event::StepReserved(reserved) = &events[0] else { panic!("{events:?}") };
    assert_eq!((reserved.incarnation, reserved.lease_id.clone()), (1, flow.lease(1)));
    assert_eq!(flow.wish_under(1, 1, reserve(agent("ada"), 1)), Ok(vec![]));
    let refused = Err(Rejection::NotReady { step: 1, status: "reserved" });
    assert_eq!(flow.wish_under(1, 1, reserve(agent("bob"), 1)), refused);
    assert_eq!(flow.wish_under(1, 2, reserve(agent("bob"), 1)), refused);
    // A new incarnation of Ada does not have what the one before was given, not even once it runs.
    assert_eq!(flow.wish_under(1, 1, reserve(agent("ada"), 2)), refused);
    flow.wish(1, StepWish::Acknowledge).unwrap();
    assert_eq!(flow.wish_under(1, 1, reserve(agent("ada"), 1)), Ok(vec![]));
    let refused = Err(Rejection::NotReady { step: 1, status: "running" });
    assert_eq!(flow.wish_under(1, 1, reserve(agent("ada"), 2)), refused);
}

#[test]
fn a_reservation_must_name_the_next_grant_of_a_known_step() {
    let mut flow = single();
    let reserve = reserve(agent("ada"), 1);
    assert!(flow.wish_under(1, 2, reserve.clone()).is_err());
    assert!(flow.wish_under(1, 0, reserve.clone()).is_err());
    assert_eq!(flow.wish_under(9, 1, reserve), Err(Rejection::UnknownStep(9)));
    assert_eq!(flow.wish_under(1, 0, StepWish::Acknowledge), Err(Rejection::LeaseLost));
}

#[test]
fn an_offer_that_is_not_taken_spends_no_attempt_and_a_lost_lease_does() {
    let mut flow = single();
    flow.offer(1, "ada").unwrap();
    let expire = expire(LeaseEnd::NoSignOfLife);
    assert_eq!(names(&flow.wish(1, expire.clone()).unwrap()), ["StepOfferExpired"]);
    assert_eq!((flow.status(1), attempts(&flow)), ("ready", 0));
    assert_eq!(flow.wish(1, expire.clone()), Ok(vec![]));
    flow.offer(1, "ada").unwrap();
    assert_eq!(names(&flow.wish(1, lose(LeaseEnd::AgentTimeout)).unwrap()), ["StepOfferExpired"]);
    flow.begin(1);
    assert_eq!(flow.wish(1, expire), Err(Rejection::LeaseLost));
    assert_eq!(
        names(&flow.wish(1, lose(LeaseEnd::AgentTimeout)).unwrap()),
        ["StepLeaseLost", "StepRetryScheduled"]
    );
    assert_eq!((flow.status(1), attempts(&flow), flow.grant(1)), ("backing_off", 1, 3));
    let known = flow.operation().run.steps[0].error.clone().unwrap();
    assert_eq!(known.code, "lease_lost");
    assert!(known.message.contains("agent_timeout"));
    assert_eq!(flow.wish(1, lose(LeaseEnd::AgentTimeout)), Ok(vec![]));
}

#[test]
fn the_last_lost_lease_fails_the_step() {
    let mut flow = Flow::of(definition(vec![once(1, &[])]));
    flow.begin(1);
    let events = flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    assert_eq!(names(&events), ["StepLeaseLost", "StepFailed", "Failed"]);
    assert_eq!(flow.wish(1, lose(LeaseEnd::LeaseExpired)), Err(gone("failed")));
}

#[test]
fn a_released_step_costs_no_attempt_and_is_kept_from_that_agent_for_thirty_seconds() {
    let mut flow = Flow::of(definition(vec![once(1, &[])]));
    let release = StepWish::Release { reason: "not mine".into(), hold_ms: None };
    flow.begin(1);
    assert_eq!(names(&flow.wish(1, release.clone()).unwrap()), ["StepReleased"]);
    assert_eq!((flow.status(1), attempts(&flow)), ("ready", 0));
    assert_eq!(flow.wish(1, release.clone()), Ok(vec![]));
    flow.wait(29_999);
    assert!(flow.offer(1, "ada").is_err());
    assert!(flow.offer(1, "bob").is_ok());
    flow.wish(1, release).unwrap();
    flow.wait(1);
    assert!(flow.offer(1, "bob").is_err());
    assert!(flow.offer(1, "ada").is_ok());
    flow.wish(1, StepWish::Acknowledge).unwrap();
    assert_eq!(attempts(&flow), 1);
}

#[test]
fn a_failed_attempt_is_made_again_after_a_growing_wait_and_then_no_more() {
    let mut flow = single();
    for (attempt, wait_ms) in [(1, 1_000), (2, 2_000)] {
        flow.begin(1);
        assert_eq!(attempts(&flow), attempt);
        assert_eq!(names(&flow.wish(1, fail("flaky")).unwrap()), ["StepFailed", "StepRetryScheduled"]);
        flow.wait(wait_ms - 1);
        assert_eq!(flow.offer(1, "ada"), Err(Rejection::NotReady { step: 1, status: "backing_off" }));
        assert!(matches!(flow.operation().pending()[..], [Effect::Retry { step: 1, .. }]));
        flow.wait(1);
    }
    flow.begin(1);
    assert_eq!(names(&flow.wish(1, fail("flaky")).unwrap()), ["StepFailed", "Failed"]);
    assert_eq!(flow.operation().errors, ["step 1: flaky: it did not work"]);
    assert_eq!(flow.wish(1, fail("flaky")), Ok(vec![]));
    assert_eq!(flow.wish(1, fail("other")), Err(gone("failed")));
}

#[test]
fn an_agent_may_ask_for_a_longer_wait_but_not_for_an_endless_one() {
    for (asked, waited) in [(5_000, 5_000), (1, 1_000), (u64::MAX, 86_400_000)] {
        let mut flow = running();
        let wish = StepWish::Fail { error: error("slow"), retryable: true, retry_after_ms: Some(asked) };
        let events = flow.wish(1, wish).unwrap();
        assert!(matches!(&events[1], Event::StepRetryScheduled(retry) if retry.delay_ms == waited));
    }
}

#[test]
fn a_code_that_is_not_retryable_and_an_agent_that_says_so_end_it_at_once() {
    let fussy = with(step(1, &[]), |step| step.retry.non_retryable_errors = vec!["bad_input".into()]);
    let mut flow = Flow::of(definition(vec![fussy]));
    flow.begin(1);
    assert_eq!(names(&flow.wish(1, fail("bad_input")).unwrap()), ["StepFailed", "Failed"]);
    assert_eq!(names(&single().broken(1)), ["StepFailed", "Failed"]);
}

#[test]
fn what_an_agent_says_of_a_failure_is_cut_to_what_is_kept() {
    let mut flow = single();
    flow.begin(1);
    let mut long = error(&"c".repeat(1_000));
    long.message = "é".repeat(100_000);
    let wish = StepWish::Fail { error: long, retryable: false, retry_after_ms: None };
    flow.wish(1, wish.clone()).unwrap();
    let kept = flow.operation().run.steps[0].error.clone().unwrap();
    assert_eq!((kept.code.len(), kept.message.chars().count()), (64, 4_096));
    assert!(flow.operation().errors[0].len() < 1_000);
    assert_eq!(flow.wish(1, wish), Ok(vec![]));
}

#[test]
fn a_timeout_is_refused_before_its_time_and_spends_an_attempt_after_it() {
    let mut flow = running();
    flow.wait(59_999);
    assert_eq!(flow.wish(1, StepWish::TimeOut), Err(Rejection::Early));
    flow.wait(1);
    assert_eq!(names(&flow.wish(1, StepWish::TimeOut).unwrap()), ["StepFailed", "StepRetryScheduled"]);
    assert_eq!(flow.wish(1, StepWish::TimeOut), Err(Rejection::LeaseLost));
    assert_eq!(flow.operation().run.steps[0].error.as_ref().unwrap().code, "timeout");
}

#[test]
fn a_late_completion_is_accepted_while_its_grant_is_the_newest() {
    let mut backing_off = running();
    backing_off.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    let mut ready = single();
    ready.offer(1, "ada").unwrap();
    ready.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap();
    for mut flow in [backing_off, ready] {
        let events = flow.wish(1, complete(json!("late"))).unwrap();
        assert_eq!(names(&events), ["StepCompleted", "Progressed", "Completed"]);
        assert_eq!((flow.status(1), attempts(&flow)), ("completed", 1));
    }
}

#[test]
fn a_late_completion_of_an_offer_is_of_the_attempt_that_it_was_offered_as() {
    let mut flow = running();
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow.wait(60_000);
    flow.offer(1, "bob").unwrap();
    flow.wish(1, expire(LeaseEnd::NoSignOfLife)).unwrap();
    let events = flow.wish(1, complete(json!("late"))).unwrap();
    let Event::StepCompleted(completed) = &events[0] else { panic!("{events:?}") };
    // Not the one that was lost, nor measured from its start.
    assert_eq!(completed.agent, Some(support::agent("bob")));
    assert_eq!((completed.attempt, completed.duration_ms), (2, 0));
    assert_eq!(attempts(&flow), 2);
}

#[test]
fn an_older_grant_is_lost_whatever_it_reports() {
    let mut flow = running();
    flow.wish(1, StepWish::Release { reason: String::new(), hold_ms: None }).unwrap();
    flow.offer(1, "bob").unwrap();
    for wish in [
        StepWish::Acknowledge,
        progress(1),
        StepWish::Checkpoint(Json::object()),
        complete(json!(1)),
        fail("x"),
        StepWish::Release { reason: String::new(), hold_ms: None },
        lose(LeaseEnd::LeaseExpired),
        StepWish::TimeOut,
        StepWish::CloseLease { why: CloseReason::Reported },
        expire(LeaseEnd::NoSignOfLife),
    ] {
        assert_eq!(flow.wish_under(1, 1, wish.clone()), Err(Rejection::LeaseLost), "{wish:?}");
        assert_eq!(flow.wish_under(1, 3, wish.clone()), Err(Rejection::LeaseLost), "{wish:?}");
    }
    assert_eq!((flow.status(1), flow.grant(1)), ("reserved", 2));
}

#[test]
fn a_completion_is_not_accepted_again_with_another_result() {
    let mut flow = running();
    flow.wish(1, complete(json!(1))).unwrap();
    assert_eq!(flow.wish(1, complete(json!(1))), Ok(vec![]));
    assert_eq!(flow.wish(1, complete(json!(2))), Err(gone("completed")));
    assert_eq!(flow.wish(1, fail("x")), Err(gone("completed")));
}

#[test]
fn after_a_cancellation_every_report_hears_that_it_is_over() {
    let mut flow = running();
    flow.put(&Command::Cancel { by: "key:ops".into() }).unwrap();
    for wish in [
        StepWish::Acknowledge,
        progress(1),
        StepWish::Checkpoint(Json::object()),
        complete(json!(1)),
        fail("x"),
        StepWish::Release { reason: String::new(), hold_ms: None },
        lose(LeaseEnd::LeaseExpired),
    ] {
        assert_eq!(flow.wish(1, wish.clone()), Err(gone("cancelled")), "{wish:?}");
    }
}

#[test]
fn reports_between_attempts_hear_that_the_lease_is_lost() {
    let mut flow = running();
    flow.wish(1, fail("flaky")).unwrap();
    for wish in [
        StepWish::Acknowledge,
        progress(1),
        StepWish::Release { reason: String::new(), hold_ms: None },
        fail("other"),
    ] {
        assert_eq!(flow.wish(1, wish.clone()), Err(Rejection::LeaseLost), "{wish:?}");
    }
}

#[test]
fn progress_is_recorded_each_ten_percent_or_five_seconds() {
    let mut flow = running();
    assert_eq!(names(&flow.wish(1, progress(1)).unwrap()), ["StepProgressed", "Progressed"]);
    assert_eq!(flow.wish(1, progress(10)), Ok(vec![]));
    assert_eq!(names(&flow.wish(1, progress(11)).unwrap()), ["StepProgressed", "Progressed"]);
    flow.wait(5_000);
    assert_eq!(names(&flow.wish(1, progress(12)).unwrap()), ["StepProgressed", "Progressed"]);
    flow.wait(5_000);
    assert_eq!(flow.wish(1, progress(12)), Ok(vec![]));
    flow.wish(1, progress(255)).unwrap();
    assert_eq!(flow.operation().run.progress(), 100);
}

#[test]
fn progress_that_falls_is_said_of_the_whole_too() {
    let mut flow = running();
    flow.wish(1, progress(80)).unwrap();
    let events = flow.wish(1, progress(30)).unwrap();
    assert!(matches!(&events[1], Event::Progressed(whole) if whole.progress == 30), "{events:?}");
    assert_eq!(flow.operation().run.progress(), 30);
}

#[test]
fn a_new_grant_begins_at_no_progress() {
    let mut flow = running();
    flow.wish(1, progress(80)).unwrap();
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow.wait(1_000);
    flow.begin(1);
    assert_eq!(flow.operation().run.progress(), 0);
    assert_eq!(names(&flow.wish(1, progress(5)).unwrap()), ["StepProgressed", "Progressed"]);
    assert_eq!(flow.operation().run.progress(), 5);
}

#[test]
fn a_checkpoint_is_kept_at_most_once_a_second_and_never_dropped_in_silence() {
    let mut flow = running();
    let kept = |n: u32| StepWish::Checkpoint(Json::from(json!({ "n": n })));
    flow.wish(1, kept(1)).unwrap();
    flow.wait(999);
    assert_eq!(flow.wish(1, kept(1)), Ok(vec![]));
    assert_eq!(flow.wish(1, kept(2)), Err(Rejection::Early));
    flow.wait(1);
    assert_eq!(names(&flow.wish(1, kept(2)).unwrap()), ["StepCheckpointed"]);
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    assert_eq!(flow.operation().checkpoints[&1], Json::from(json!({"n": 2})));
}

#[test]
fn what_is_too_large_is_refused_and_the_step_goes_on() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[])]));
    flow.begin(1);
    let large = |bytes: usize| json!("x".repeat(bytes - 2));
    let refused = flow.wish(1, complete(large(256 * 1024 + 1)));
    assert!(matches!(refused, Err(Rejection::TooLarge { what: "the result", max: 262_144, .. })));
    let checkpoint = StepWish::Checkpoint(Json::from(large(64 * 1024 + 1)));
    assert!(matches!(flow.wish(1, checkpoint), Err(Rejection::TooLarge { what: "the checkpoint", .. })));
    flow.scenario.world.limits.max_results_bytes = 300 * 1024;
    flow.wish(1, complete(large(256 * 1024))).unwrap();
    flow.begin(2);
    assert!(matches!(flow.wish(2, complete(large(64 * 1024))), Err(Rejection::TooLarge { .. })));
    assert_eq!(flow.statuses(), ["completed", "running"]);
}
