//! What people should look at, and what they need not.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::Timestamp;
use domain::agent;
use domain::agent::event::{Status, StatusChanged, StatusReason};
use domain::operation::definition::Definition;
use domain::operation::event::LeaseEnd;
use domain::operation::pending::{BlockedOn, Cause};
use domain::operation::{Command, StepWish};
use domain::views::Views;
use domain::views::attention::{Kind, concerns};
use serde_json::json;
use support::crew::crew;
use support::{Flow, approval, complete, definition, lose, stamp, step, with, write};

/// The views of one operation and of Ada, who knows Rust.
fn views(flow: &Flow) -> Views {
    let mut views = Views::default();
    let ada = crew(1);
    for (revision, (event, at)) in (1..).zip(&ada.history) {
        views.apply_agent(&ada.id, event, stamp(revision, *at));
    }
    for (revision, (event, at)) in (1..).zip(&flow.scenario.history) {
        views.apply_operation(&flow.scenario.id, event, stamp(revision, *at));
    }
    views
}

fn kinds(flow: &Flow) -> Vec<Kind> {
    concerns(&views(flow), flow.scenario.now, 100).into_iter().map(|concern| concern.kind).collect()
}

#[test]
fn what_goes_well_concerns_nobody() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[1])]));
    assert_eq!(kinds(&flow), []);
    flow.begin(1);
    flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
    assert_eq!(kinds(&flow), []);
}

#[test]
fn a_step_that_nobody_could_ever_take_concerns_people() {
    let needy =
        |capability: &str| with(step(1, &[]), |step| step.requires.capabilities = vec![capability.into()]);
    assert_eq!(kinds(&Flow::of(definition(vec![needy("cobol")]))), [Kind::NoCapableAgent]);
    assert_eq!(kinds(&Flow::of(definition(vec![needy("rust")]))), []);
    let bobs = with(step(1, &[]), |step| step.agent = Some(support::agent("bob")));
    assert_eq!(kinds(&Flow::of(definition(vec![bobs]))), [Kind::NoCapableAgent]);
}

#[test]
fn a_step_that_only_agents_out_of_work_could_take_concerns_people() {
    let needy = with(step(1, &[]), |step| step.requires.capabilities = vec!["rust".into()]);
    let mut asked = definition(vec![needy]);
    asked.max_parallel = Some(1);
    let mut flow = Flow::of(asked);
    let changed =
        |to, reason| agent::Event::StatusChanged(StatusChanged { from: Status::Active, to, reason });
    for gone in [
        changed(Status::Inactive, StatusReason::Timeout),
        changed(Status::Inactive, StatusReason::Drained),
        changed(Status::Error, StatusReason::QuarantinedFailures),
    ] {
        let mut views = views(&flow);
        views.apply_agent(&crew(1).id, &gone, stamp(9, flow.scenario.now));
        let found = concerns(&views, flow.scenario.now, 100);
        assert_eq!(found.len(), 1, "{gone:?}");
        assert_eq!((found[0].kind, found[0].step), (Kind::AgentsUnavailable, Some(1)), "{gone:?}");
    }
    // Of a paused operation no step waits for an agent.
    flow.put(&Command::Pause { by: "ops".into(), reason: None }).unwrap();
    let mut views = views(&flow);
    views.apply_agent(&crew(1).id, &agent::Event::Unregistered, stamp(9, flow.scenario.now));
    assert_eq!(concerns(&views, flow.scenario.now, 100), []);
}

#[test]
fn what_is_counted_as_ready_is_what_an_agent_could_take_now() {
    let mut asked = definition((1..=6).map(|number| step(number, &[])).collect());
    asked.max_parallel = Some(2);
    let mut flow = Flow::of(asked);
    let counts = |flow: &Flow| {
        let counts = views(flow).step_counts(flow.scenario.now);
        (counts.ready, counts.held, counts.backing_off)
    };
    assert_eq!(counts(&flow), (2, 0, 0));
    flow.begin(1);
    assert_eq!(counts(&flow), (1, 1, 0));
    flow.begin(2);
    assert_eq!(counts(&flow), (0, 2, 0));
    flow.wish(1, support::fail("flaky")).unwrap();
    assert_eq!(counts(&flow), (1, 1, 1));
    let run = flow.operation().run.clone();
    assert!(run.waits_for(Cause::Retry, flow.scenario.now));
    let BlockedOn::Retry(due) = run.blocked_on(0, flow.scenario.now).unwrap() else { panic!("no retry") };
    assert_eq!(run.last_passed(flow.scenario.now), None);
    assert_eq!((run.blocked_on(0, due), run.last_passed(due)), (Some(BlockedOn::Agent), Some(due)));
    assert!(!run.causes(due).contains(&Cause::Retry));
    assert_eq!(views(&flow).step_counts(due).backing_off, 0);
    flow.put(&Command::Pause { by: "ops".into(), reason: None }).unwrap();
    assert_eq!(flow.operation().run.blocked_on(0, due), Some(BlockedOn::Resume));
    assert_eq!(views(&flow).step_counts(due).ready, 0);
}

#[test]
fn a_step_that_two_agents_lost_concerns_people_until_it_is_settled() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[])]));
    for _ in 0..2 {
        flow.begin(1);
        flow.wish(1, lose(LeaseEnd::LeaseExpired)).unwrap();
        flow.wait(60_000);
    }
    assert_eq!(kinds(&flow), [Kind::LeaseLostTwice]);
    flow.done(1, json!(1));
    assert_eq!(kinds(&flow), []);
}

#[test]
fn what_waits_for_people_concerns_them_in_time() {
    let mut flow = Flow::of(definition(vec![approval(1, &[]), write(2, &[]), approval(3, &[])]));
    assert_eq!(kinds(&flow), [Kind::ApprovalWaiting, Kind::ApprovalWaiting], "each of them");
    flow.wait(50_000);
    assert_eq!(kinds(&flow), [Kind::ApprovalExpiring, Kind::ApprovalExpiring]);
    flow.begin(2);
    flow.wish(2, lose(LeaseEnd::LeaseExpired)).unwrap();
    let found = concerns(&views(&flow), flow.scenario.now, 100);
    assert_eq!((found[0].kind, found[0].step), (Kind::NeedsAttention, Some(2)));
    assert_eq!(concerns(&views(&flow), flow.scenario.now, 1).len(), 1);
}

#[test]
fn a_pace_that_misses_the_deadline_concerns_people() {
    let deadline = Timestamp::from_micros(1_700_000_000_000_000).plus_ms(100_000);
    let asked = definition(vec![step(1, &[]), step(2, &[])]);
    let mut flow = Flow::of(Definition { deadline: Some(deadline), ..asked });
    flow.wait(19_000);
    assert_eq!(kinds(&flow), []);
    flow.wait(2_000);
    assert_eq!(kinds(&flow), [Kind::DeadlineAtRisk]);
    flow.done(1, json!(1));
    assert_eq!(kinds(&flow), []);
    flow.wait(30_000);
    assert_eq!(kinds(&flow), [Kind::DeadlineAtRisk]);
}

#[test]
fn more_failures_than_completions_are_a_storm() {
    let steps = (1..=20).map(|number| step(number, &[])).collect();
    let mut flow = Flow::of(definition(steps));
    for number in 1..=20 {
        flow.begin(number);
        flow.wish(number, support::fail("flaky")).unwrap();
    }
    assert_eq!(kinds(&flow), [Kind::RetryStorm]);
    flow.wait(10 * 60_000);
    assert_eq!(kinds(&flow), []);
    flow.offer(1, "ada").unwrap();
    flow.wish(1, StepWish::Acknowledge).unwrap();
    flow.wish(1, complete(json!(1))).unwrap();
}
