//! What people do with an operation: pause it, answer its questions, find out what became of a write.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::operation::event::{Event, LeaseEnd, Resolution, SkipReason};
use domain::operation::pending::{BlockedOn, Cause, Effect};
use domain::operation::{Command, Intervention, Operation, Rejection, Status, StepWish};
use domain::{Timestamp, fold};
use serde_json::json;
use support::{
    Flow, agent, approval, complete, continuing, definition, lose, names, once, step, with, write,
};

fn pause(flow: &mut Flow) -> Vec<Event> {
    flow.put(&Command::Pause { by: "ops".into(), reason: Some("too hot".into()) }).unwrap()
}

fn resume(flow: &mut Flow) -> Vec<Event> {
    flow.put(&Command::Resume { by: "ops".into() }).unwrap()
}

fn cause(flow: &Flow, step: u32) -> Option<BlockedOn> {
    flow.operation().run.blocked_on(flow.position(step), flow.scenario.now)
}

/// A write that Ada had and whose lease was lost.
fn unknown() -> Flow {
    let mut flow = Flow::of(definition(vec![write(1, &[]), step(2, &[1])]));
    flow.begin(1);
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow
}

#[test]
fn a_paused_operation_starts_nothing_and_lets_what_runs_finish() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[]), step(3, &[1])]));
    flow.begin(1);
    assert_eq!(names(&pause(&mut flow)), ["Paused"]);
    assert_eq!(pause(&mut flow), []);
    assert!(matches!(flow.offer(2, "ada"), Err(Rejection::NotReady { .. })));
    assert_eq!(cause(&flow, 2), Some(BlockedOn::Resume));
    flow.wish(1, complete(json!(1))).unwrap();
    assert_eq!((flow.status(3), cause(&flow, 3)), ("ready", Some(BlockedOn::Resume)));
    assert_eq!(flow.operation().run.pending(), []);
    assert_eq!(names(&resume(&mut flow)), ["Resumed"]);
    assert_eq!(resume(&mut flow), []);
    assert_eq!(cause(&flow, 2), Some(BlockedOn::Agent));
    flow.done(2, json!(2));
    flow.done(3, json!(3));
    assert_eq!(flow.operation().status(), Status::Completed);
    assert!(flow.put(&Command::Pause { by: "ops".into(), reason: None }).is_err());
}

#[test]
fn an_operation_can_be_paused_before_it_starts_and_asks_nobody_until_it_is_resumed() {
    let mut asked = definition(vec![approval(1, &[]), step(2, &[])]);
    asked.auto_start = false;
    let mut flow = Flow::of(asked);
    pause(&mut flow);
    assert_eq!(names(&flow.put(&Command::Start).unwrap()), ["Started"]);
    assert_eq!(flow.statuses(), ["ready", "ready"]);
    assert_eq!(names(&resume(&mut flow)), ["Resumed", "StepApprovalRequested"]);
    assert_eq!(flow.status(1), "awaiting_approval");
}

#[test]
fn a_question_that_only_a_resume_makes_due_is_put_with_it() {
    let broken = with(approval(2, &[1]), |step| {
        step.inputs = support::json(json!({"text": {"$expr": "steps[1].result.missing.more"}}));
        step.continue_on_error = true;
    });
    let mut flow = Flow::of(definition(vec![step(1, &[]), broken, approval(3, &[2])]));
    flow.begin(1);
    pause(&mut flow);
    flow.wish(1, complete(json!({}))).unwrap();
    assert_eq!(flow.statuses(), ["completed", "ready", "pending"]);
    let events = resume(&mut flow);
    assert_eq!(names(&events), ["Resumed", "StepFailed", "StepApprovalRequested", "Progressed"]);
    assert_eq!(flow.statuses(), ["completed", "failed", "awaiting_approval"]);
}

#[test]
fn a_person_is_asked_as_soon_as_it_is_due_and_shown_the_resolved_inputs() {
    let ask = with(approval(2, &[1]), |step| {
        step.inputs = support::json(json!({"text": {"$template": "ship {{ steps[1].result }}?"}}));
        step.timeout_ms = 5_000;
    });
    let mut flow = Flow::of(definition(vec![step(1, &[]), ask, step(3, &[2])]));
    let events = flow.done(1, json!("v2"));
    assert_eq!(names(&events), ["StepCompleted", "StepApprovalRequested", "Progressed"]);
    assert_eq!(flow.inputs(2), json!({"text": "ship v2?"}));
    let until = flow.scenario.now.plus_ms(5_000);
    assert_eq!(cause(&flow, 2), Some(BlockedOn::Approval(until)));
    let owed = Effect::AwaitAnswer { step: 2, until, timeout_ms: 5_000 };
    assert_eq!(flow.operation().run.pending(), [owed]);
    assert!(matches!(flow.offer(2, "ada"), Err(Rejection::NotReady { .. })));
}

#[test]
fn an_approval_says_who_and_why_and_lets_dependents_go_on() {
    let mut flow = Flow::of(definition(vec![approval(1, &[]), step(2, &[1])]));
    flow.wait(700);
    let events = flow.say(1, Intervention::Approve).unwrap();
    assert_eq!(names(&events), ["StepApproved", "StepCompleted", "Progressed"]);
    let Event::StepApproved(approved) = &events[0] else { panic!("{events:?}") };
    assert_eq!((approved.by.as_str(), approved.reason.as_deref()), ("ops", Some("I looked")));
    let Event::StepCompleted(completed) = &events[1] else { panic!("{events:?}") };
    assert_eq!((&completed.agent, completed.duration_ms), (&None, 700));
    let said = json!({"approved": true, "by": "ops", "reason": "I looked"});
    assert_eq!(flow.operation().results[&1].value(), said);
    assert_eq!(flow.status(2), "ready");
    assert_eq!(flow.say(1, Intervention::Approve), Ok(vec![]));
    let already = Rejection::AlreadyTerminal { status: "completed" };
    assert_eq!(flow.say(1, Intervention::Reject), Err(already));
}

#[test]
fn a_rejection_fails_the_step_and_silence_is_another_outcome() {
    for (silent, code) in [(false, "rejected"), (true, "expired")] {
        let mut flow = Flow::of(continuing(vec![approval(1, &[]), step(2, &[1]), step(3, &[])]));
        let early = flow.put(&Command::ExpireApproval { step: 1 });
        assert_eq!(early, Err(Rejection::Early));
        let events = if silent {
            flow.wait(60_000);
            flow.put(&Command::ExpireApproval { step: 1 }).unwrap()
        } else {
            flow.say(1, Intervention::Reject).unwrap()
        };
        let failed = events.iter().find_map(|event| match event {
            Event::StepFailed(failed) => Some(failed.clone()),
            _ => None,
        });
        let failed = failed.unwrap();
        assert_eq!((failed.error.code.as_str(), failed.is_final, failed.attempt), (code, true, 0));
        assert_eq!(events.iter().any(|event| matches!(event, Event::StepRejected(_))), !silent);
        assert_eq!(flow.statuses(), ["failed", "skipped", "ready"]);
    }
}

#[test]
fn a_question_that_cannot_be_put_fails_its_step() {
    let ask = with(approval(2, &[1]), |step| {
        step.inputs = support::json(json!({"text": {"$expr": "steps[1].result.missing.more"}}));
    });
    let mut flow = Flow::of(definition(vec![step(1, &[]), ask]));
    let events = flow.done(1, json!({}));
    assert_eq!(names(&events), ["StepCompleted", "StepFailed", "Failed"]);
    assert_eq!(flow.status(2), "failed");
}

#[test]
fn an_agent_cannot_be_asked_for_where_a_person_answers() {
    let ask = with(approval(1, &[]), |step| step.agent = Some(agent("ada")));
    let refused = Flow::new().put(&Command::Create(Box::new(definition(vec![ask]))));
    let Err(Rejection::Invalid(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!((faults[0].code, faults[0].pointer.as_str()), ("agent_not_allowed", "/workflow/0/agent"));
}

#[test]
fn a_write_whose_outcome_nobody_knows_waits_for_a_person() {
    let mut flow = unknown();
    assert_eq!((flow.status(1), cause(&flow, 1)), ("needs_attention", Some(BlockedOn::Attention)));
    assert_eq!(flow.operation().run.pending(), []);
    assert!(flow.operation().run.waits_for(Cause::Attention, flow.scenario.now));
    // The agent may still be heard of.
    assert_eq!(flow.wish(1, StepWish::Acknowledge), Err(Rejection::LeaseLost));
    let events = flow.wish(1, complete(json!(7))).unwrap();
    assert_eq!(names(&events), ["StepCompleted", "Progressed"]);
    assert_eq!(flow.status(2), "ready");
}

#[test]
fn a_timeout_and_an_unknown_outcome_of_a_write_need_attention_too() {
    let mut flow = Flow::of(definition(vec![write(1, &[]), write(2, &[]), step(3, &[])]));
    flow.begin(1);
    flow.begin(2);
    flow.begin(3);
    flow.wish(2, support::fail("unknown_outcome")).unwrap();
    flow.wish(3, support::fail("unknown_outcome")).unwrap();
    flow.wait(60_000);
    flow.wish(1, StepWish::TimeOut).unwrap();
    assert_eq!(flow.statuses(), ["needs_attention", "needs_attention", "backing_off"]);
}

#[test]
fn an_untaken_offer_and_a_known_failure_of_a_write_need_nobody() {
    let mut flow = Flow::of(definition(vec![write(1, &[])]));
    flow.offer(1, "ada").unwrap();
    flow.wish(1, lose(LeaseEnd::AgentTimeout)).unwrap();
    assert_eq!(flow.status(1), "ready");
    flow.begin(1);
    flow.wish(1, support::fail("flaky")).unwrap();
    assert_eq!(flow.status(1), "backing_off");
}

#[test]
fn a_person_resolves_what_became_of_a_write() {
    let mut flow = unknown();
    let events = flow.say(1, Intervention::Complete(support::json(json!({"n": 1})))).unwrap();
    assert_eq!(names(&events), ["StepResolved", "StepCompleted", "Progressed"]);
    assert_eq!(flow.say(1, Intervention::Complete(support::json(json!({"n": 1})))), Ok(vec![]));
    assert!(flow.say(1, Intervention::Complete(support::json(json!(2)))).is_err());

    let mut flow = unknown();
    assert_eq!(names(&flow.say(1, Intervention::Fail).unwrap())[..2], ["StepResolved", "StepFailed"]);
    assert_eq!(flow.operation().status(), Status::Failed);
    assert_eq!(flow.say(1, Intervention::Fail), Ok(vec![]));

    let mut flow = unknown();
    assert_eq!(names(&flow.say(1, Intervention::Retry).unwrap()), ["StepResolved"]);
    assert_eq!(flow.say(1, Intervention::Retry), Ok(vec![]));
    flow.done(1, json!(1));
    assert_eq!(flow.operation().run.steps[0].attempts, 2);
}

#[test]
fn a_persons_retry_is_one_attempt_more_even_after_the_last() {
    let last = with(once(1, &[]), |step| step.effect = domain::operation::definition::EffectClass::Write);
    let mut flow = Flow::of(definition(vec![last]));
    flow.begin(1);
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow.say(1, Intervention::Retry).unwrap();
    flow.begin(1);
    let events = flow.wish(1, support::fail("flaky")).unwrap();
    assert_eq!(names(&events), ["StepFailed", "Failed"]);
    assert_eq!(flow.operation().run.steps[0].attempts, 2);
}

#[test]
fn a_completion_after_a_persons_retry_is_of_the_attempt_that_was_lost() {
    let mut flow = unknown();
    flow.wait(5_000);
    flow.say(1, Intervention::Retry).unwrap();
    let events = flow.wish(1, complete(json!("late"))).unwrap();
    let Event::StepCompleted(completed) = &events[0] else { panic!("{events:?}") };
    assert_eq!((completed.attempt, completed.duration_ms), (1, 5_000));
    assert_eq!(flow.operation().run.steps[0].attempts, 1);
}

#[test]
fn a_person_may_end_a_wait_between_attempts() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.begin(1);
    flow.wish(1, support::fail("flaky")).unwrap();
    let events = flow.say(1, Intervention::Retry).unwrap();
    let Event::StepResolved(resolved) = &events[0] else { panic!("{events:?}") };
    assert_eq!((resolved.resolution, resolved.by.as_str()), (Resolution::Retry, "ops"));
    assert_eq!(flow.status(1), "ready");
    flow.done(1, json!(1));
}

#[test]
fn a_step_that_nobody_has_can_be_skipped_and_its_dependents_go_on() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[1]), step(3, &[2])]));
    let events = flow.say(2, Intervention::Skip).unwrap();
    assert_eq!(names(&events), ["StepResolved", "StepsSkipped", "Progressed"]);
    let Event::StepsSkipped(skipped) = &events[1] else { panic!("{events:?}") };
    assert_eq!(skipped.reason, SkipReason::Requested);
    assert_eq!(flow.say(2, Intervention::Skip), Ok(vec![]));
    assert_eq!(flow.statuses(), ["ready", "skipped", "ready"]);
    flow.begin(1);
    let held = Rejection::NotPossible { step: 1, status: "running", wish: "skip" };
    assert_eq!(flow.say(1, Intervention::Skip), Err(held));
    flow.wish(1, complete(json!(1))).unwrap();
    flow.done(3, json!(3));
    assert_eq!(flow.operation().status(), Status::Completed);
}

#[test]
fn a_wish_that_does_not_fit_is_refused_and_says_what_the_step_is() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    for wish in [Intervention::Approve, Intervention::Reject, Intervention::Fail] {
        let refused = Rejection::NotPossible { step: 1, status: "ready", wish: wish.name() };
        assert_eq!(flow.say(1, wish), Err(refused));
    }
    assert_eq!(flow.say(9, Intervention::Skip), Err(Rejection::UnknownStep(9)));
}

#[test]
fn the_end_of_an_operation_settles_what_waits_for_people() {
    let mut flow = Flow::of(definition(vec![approval(1, &[]), write(2, &[])]));
    flow.begin(2);
    flow.wish(2, lose(LeaseEnd::LeaseExpired)).unwrap();
    flow.put(&Command::Cancel { by: "ops".into() }).unwrap();
    assert_eq!(flow.statuses(), ["cancelled", "cancelled"]);
    let already = Rejection::AlreadyTerminal { status: "cancelled" };
    assert_eq!(flow.say(1, Intervention::Approve), Err(already.clone()));
    assert_eq!(flow.put(&Command::ExpireApproval { step: 1 }), Err(already));
    let history = flow.scenario.history.iter().map(|(event, at): &(Event, Timestamp)| (event, *at));
    assert_eq!(fold::<Operation>(history).unwrap().run, flow.operation().run);
}

#[test]
fn a_limited_step_waits_for_its_window_and_no_attempt_is_spent() {
    let fixed = with(step(1, &[]), |step| step.agent = Some(agent("ada")));
    let mut flow = Flow::of(definition(vec![fixed]));
    flow.begin(1);
    let until = flow.scenario.now.plus_ms(3_600_000);
    let limit = StepWish::Limit { until, error: support::error("rate_limited"), retryable: true };
    assert_eq!(names(&flow.wish(1, limit.clone()).unwrap()), ["StepLimited"]);
    assert_eq!(flow.wish(1, limit), Ok(vec![]));
    assert_eq!(cause(&flow, 1), Some(BlockedOn::Window(until)));
    assert_eq!(flow.operation().run.steps[0].attempts, 0);
    // The account is parked elsewhere; a person may know better.
    flow.say(1, Intervention::Retry).unwrap();
    assert_eq!(flow.say(1, Intervention::Retry), Ok(vec![]));
    assert_eq!(cause(&flow, 1), Some(BlockedOn::Agent));
    flow.done(1, json!(1));
    assert_eq!(flow.operation().run.steps[0].attempts, 1);
}

#[test]
fn a_write_that_was_begun_and_is_given_back_waits_for_a_person() {
    let release = || StepWish::Release { reason: "stopping".into(), hold_ms: Some(0) };
    let mut flow = Flow::of(definition(vec![write(1, &[]), step(2, &[])]));
    flow.offer(1, "ada").unwrap();
    flow.wish(1, release()).unwrap();
    assert_eq!(flow.status(1), "ready");
    flow.begin(1);
    flow.wish(1, release()).unwrap();
    assert_eq!(flow.status(1), "needs_attention");
    // Whoever stops and comes back gets another step at once.
    flow.begin(2);
    flow.wish(2, release()).unwrap();
    flow.begin(2);
}

#[test]
fn the_same_words_about_another_attempt_are_another_report() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.begin(1);
    flow.wish(1, support::fail("flaky")).unwrap();
    assert_eq!(flow.wish(1, support::fail("flaky")), Ok(vec![]));
    flow.wait(60_000);
    flow.begin(1);
    flow.put(&Command::Cancel { by: "ops".into() }).unwrap();
    let already = Rejection::AlreadyTerminal { status: "cancelled" };
    assert_eq!(flow.wish(1, support::fail("flaky")), Err(already));
}

#[test]
fn a_limit_that_is_final_by_the_agent_or_the_policy_fails_the_step() {
    let until = Timestamp::from_micros(i64::MAX);
    let limit = |retryable| StepWish::Limit { until, error: support::error("rate_limited"), retryable };
    let strict = with(step(1, &[]), |step| {
        step.retry.non_retryable_errors = vec!["rate_limited".into()];
    });
    for (asked, retryable, status) in [(step(1, &[]), false, "failed"), (strict, true, "failed")] {
        let mut flow = Flow::of(definition(vec![asked]));
        flow.begin(1);
        flow.wish(1, limit(retryable)).unwrap();
        assert_eq!(flow.status(1), status);
    }
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.begin(1);
    flow.wish(1, limit(true)).unwrap();
    let kept = flow.operation().run.steps[0].limited_until;
    assert_eq!(kept, Some(flow.scenario.now.plus_ms(domain::lane::WINDOW_MAX_MS)));
}
