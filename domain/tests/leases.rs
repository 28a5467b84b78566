//! The leases: which events open, close and end one, and what its end tells of the agent. The table of the
//! design row by row; `lease_laws.rs` has the laws.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::event::Status;
use domain::operation::definition::Definition;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::{Command, Intervention, StepWish};
use domain::views::leases::State;
use domain::{LeaseId, OperationId};
use serde_json::json;
use support::crew::{SILENT, heard, own, profile, register, told};
use support::fleet::Fleet;
use support::{complete, definition, error, expire, fail, lose, release, reserve, step, write};

const LEASE_ENDS: [LeaseEnd; 7] = [
    LeaseEnd::NoSignOfLife,
    LeaseEnd::LeaseExpired,
    LeaseEnd::AgentTimeout,
    LeaseEnd::AgentUnregistered,
    LeaseEnd::NewIncarnation,
    LeaseEnd::Revoked,
    LeaseEnd::NotHeard,
];
const CLOSE_REASONS: [CloseReason; 6] = [
    CloseReason::Reported,
    CloseReason::GraceExpired,
    CloseReason::AgentTimeout,
    CloseReason::AgentUnregistered,
    CloseReason::NewIncarnation,
    CloseReason::Revoked,
];

/// Ada, of whom one lease was lost, one offer left untaken and one step failed, in a row each; and a new
/// operation whose first step she was offered.
fn offered() -> (Fleet, OperationId) {
    let mut fleet = Fleet::of(2);
    for (begins, end) in
        [(true, fail("flaky")), (true, lose(LeaseEnd::LeaseExpired)), (false, expire(LeaseEnd::NoSignOfLife))]
    {
        let id = fleet.create(definition(vec![step(1, &[])]));
        fleet.offer(&id, 1, "ada").unwrap();
        if begins {
            fleet.wish(&id, 1, StepWish::Acknowledge).unwrap();
        }
        fleet.wait(1_000);
        fleet.wish(&id, 1, end).unwrap();
    }
    let id = fleet.create(definition(vec![write(1, &[]), step(2, &[])]));
    fleet.offer(&id, 1, "ada").unwrap();
    fleet.wait(1_000);
    assert_eq!(counted(&fleet), ([0, 2], [1, 1, 1]));
    (fleet, id)
}

fn running() -> (Fleet, OperationId) {
    let (mut fleet, id) = offered();
    fleet.wish(&id, 1, StepWish::Acknowledge).unwrap();
    fleet.wait(500);
    (fleet, id)
}

/// Completed and failed; lost, untaken and failed in a row.
fn counted(fleet: &Fleet) -> ([u64; 2], [u32; 3]) {
    let record = &fleet.row("ada").work.record;
    ([record.completed, record.failed], fleet.rows("ada"))
}

/// The lease is over, and Ada is idle since now.
#[track_caller]
fn ended(fleet: &Fleet, id: &OperationId, record: [u64; 2], rows: [u32; 3]) {
    assert_eq!(fleet.lease(id, 1), None);
    assert_eq!(fleet.views.leases.of_operation(id).count(), 0);
    assert_eq!((fleet.free_slots("ada"), fleet.row("ada").work.idle_since), (2, fleet.now));
    assert_eq!(counted(fleet), (record, rows));
    fleet.leases_agree();
    fleet.views_survive();
}

#[test]
fn a_reservation_opens_a_lease_of_the_incarnation_that_claimed() {
    let mut fleet = Fleet::of(2);
    let id = fleet.create(definition(vec![step(1, &[]), step(2, &[])]));
    fleet.offer(&id, 1, "ada").unwrap();
    let reserved_at = fleet.now;
    let lease = fleet.lease(&id, 1).unwrap();
    assert_eq!((lease.grant, lease.agent.as_str(), lease.incarnation), (1, "ada", 1));
    assert_eq!((lease.reserved_at, lease.state), (fleet.now, State::Held));
    assert_eq!(fleet.free_slots("ada"), 1);
    fleet.wait(1_000);
    fleet.wish(&id, 1, StepWish::Acknowledge).unwrap();
    assert_eq!(fleet.lease(&id, 1).unwrap().reserved_at, reserved_at);
    let other = LeaseId { grant: 2, ..fleet.lease_id(&id, 1) };
    assert_eq!((fleet.views.leases.get(&other), fleet.views.leases.is_closing(&other)), (None, false));
    fleet.offer(&id, 2, "ada").unwrap();
    let row = fleet.row("ada");
    assert_eq!(fleet.views.shown_status(&support::agent("ada"), &row.agent), "busy");
    // What is shown of her changed with the operation's event, and her own stream did not.
    assert_eq!((row.revision, row.position), (1, fleet.log.len() as u64));
}

#[test]
fn a_lease_needs_no_row_of_its_agent() {
    let mut flow = support::Flow::of(definition(vec![step(1, &[])]));
    flow.begin(1);
    let ada = support::agent("ada");
    assert_eq!((flow.views.leases.taken(&ada, 1), flow.views.agents.len()), (1, 0));
    flow.wish(1, complete(json!(1))).unwrap();
    assert_eq!((flow.views.leases.taken(&ada, 1), flow.views.agents.len()), (0, 0));
}

#[test]
fn a_completion_ends_it_and_every_row() {
    for (fleet, id) in [offered(), running()] {
        let mut fleet = fleet;
        fleet.wish(&id, 1, complete(json!(1))).unwrap();
        ended(&fleet, &id, [1, 2], [0, 0, 0]);
    }
    // It took as long as it ran, or as it was reserved when nobody said that it began.
    for ((mut fleet, id), took_ms) in [(offered(), 1_000), (running(), 500)] {
        fleet.wish(&id, 1, complete(json!(1))).unwrap();
        assert_eq!(fleet.row("ada").work.record.window().p50_ms, Some(took_ms));
    }
}

#[test]
fn a_failure_ends_it_and_counts_unless_its_code_excuses_the_agent() {
    for (code, failed) in
        [("flaky", 2), ("timeout", 1), ("invalid", 1), ("type_mismatch", 1), ("cancelled", 1)]
    {
        for (mut fleet, id) in [offered(), running()] {
            fleet.wish(&id, 1, fail(code)).unwrap();
            ended(&fleet, &id, [0, 3], [0, 0, failed]);
        }
    }
    for (mut fleet, id) in [offered(), running()] {
        let until = fleet.now.plus_ms(60_000);
        fleet
            .wish(&id, 1, StepWish::Limit { until, error: error("rate_limited"), retryable: false })
            .unwrap();
        ended(&fleet, &id, [0, 3], [0, 0, 1]);
    }
}

#[test]
fn an_outcome_that_nobody_knows_is_a_failure_and_a_verdict_on_it_adds_nothing() {
    for said in [Intervention::Complete(support::json(json!(1))), Intervention::Fail, Intervention::Skip] {
        let (mut fleet, id) = running();
        fleet.wish(&id, 1, fail("unknown_outcome")).unwrap();
        assert_eq!(fleet.operation(&id).run.steps[0].status.name(), "needs_attention");
        ended(&fleet, &id, [0, 3], [0, 0, 2]);
        let (by, idle_since) = ("ops".to_owned(), fleet.row("ada").work.idle_since);
        fleet.wait(1_000);
        fleet.put(&id, &Command::Intervene { step: 1, by, reason: None, intervention: said }).unwrap();
        assert_eq!(counted(&fleet), ([0, 3], [0, 0, 2]));
        assert_eq!(fleet.row("ada").work.idle_since, idle_since);
    }
}

#[test]
fn a_lost_lease_counts_as_a_failure_and_a_loss_unless_it_was_revoked() {
    for reason in LEASE_ENDS {
        let (mut fleet, id) = running();
        fleet.wish(&id, 1, lose(reason)).unwrap();
        if reason == LeaseEnd::Revoked {
            ended(&fleet, &id, [0, 2], [1, 1, 1]);
        } else {
            // The question that a lost write puts to people ends nothing more.
            ended(&fleet, &id, [0, 3], [2, 0, 1]);
        }
    }
}

#[test]
fn an_offer_that_expires_counts_only_if_the_agent_was_silent() {
    for reason in LEASE_ENDS {
        for end in [lose(reason), expire(reason)] {
            let (mut fleet, id) = offered();
            fleet.wish(&id, 1, end).unwrap();
            let silent = matches!(reason, LeaseEnd::NoSignOfLife | LeaseEnd::AgentTimeout);
            ended(&fleet, &id, [0, 2], if silent { [1, 2, 1] } else { [1, 1, 1] });
        }
    }
}

#[test]
fn the_fifth_untaken_offer_of_a_step_ends_it_as_untaken_and_not_as_lost_too() {
    let mut fleet = Fleet::of(1);
    let id = fleet.create(definition(vec![step(1, &[]), step(2, &[])]));
    for untaken in 1..=5 {
        fleet.offer(&id, 1, "ada").unwrap();
        fleet.wait(1_000);
        fleet.wish(&id, 1, expire(LeaseEnd::NoSignOfLife)).unwrap();
        assert_eq!(counted(&fleet), ([0, 0], [0, untaken, 0]));
    }
    let run = &fleet.operation(&id).run.steps[0];
    assert_eq!((run.losses, run.attempts, fleet.lease(&id, 1)), (1, 1, None));
}

#[test]
fn what_is_given_back_or_limited_ends_it_and_says_nothing_of_the_agent() {
    let limit = |fleet: &Fleet| {
        let until = fleet.now.plus_ms(60_000);
        StepWish::Limit { until, error: error("rate_limited"), retryable: true }
    };
    let (mut fleet, id) = offered();
    fleet.wish(&id, 1, release()).unwrap();
    ended(&fleet, &id, [0, 2], [1, 1, 1]);
    for (mut fleet, id) in [offered(), running()] {
        let wish = limit(&fleet);
        fleet.wish(&id, 1, wish).unwrap();
        ended(&fleet, &id, [0, 2], [1, 1, 1]);
    }
    // A write that was begun is not given back: somebody must look at it. That is no fault of the agent's.
    let (mut fleet, id) = running();
    fleet.wish(&id, 1, release()).unwrap();
    ended(&fleet, &id, [0, 3], [0, 0, 1]);
}

#[test]
fn a_cancelled_lease_keeps_its_slot_until_it_is_closed_for_whatever_reason() {
    let deadline = |fleet: &Fleet| Some(fleet.now.plus_ms(60_000));
    for why in CLOSE_REASONS {
        for (mut fleet, id) in [offered(), running()] {
            fleet.put(&id, &Command::Cancel { by: "ops".into() }).unwrap();
            assert_eq!(fleet.lease(&id, 1).unwrap().state, State::Closing(fleet.now));
            assert!(fleet.views.leases.is_closing(&fleet.lease_id(&id, 1)));
            assert_eq!((fleet.free_slots("ada"), counted(&fleet)), (1, ([0, 2], [1, 1, 1])));
            fleet.leases_agree();
            fleet.views_survive();
            // What the agent reports of it is refused, and ends nothing by itself.
            fleet.wait(1_000);
            assert!(fleet.wish(&id, 1, complete(json!(1))).is_err());
            assert!(fleet.lease(&id, 1).is_some());
            let closed = fleet.wish(&id, 1, StepWish::CloseLease { why }).unwrap();
            assert_eq!(support::names(&closed), ["LeaseClosed"]);
            ended(&fleet, &id, [0, 2], [1, 1, 1]);
            assert_eq!(fleet.wish(&id, 1, StepWish::CloseLease { why }), Ok(vec![]));
        }
    }
    // The same at a deadline, and when another step fails fast, which is not closing itself.
    let mut fleet = Fleet::of(3);
    let steps = || vec![support::once(1, &[]), step(2, &[])];
    let late = Definition { deadline: deadline(&fleet), ..definition(steps()) };
    let (late, fast) = (fleet.create(late), fleet.create(definition(steps())));
    fleet.begin(&late, 2, "ada");
    fleet.begin(&fast, 1, "ada");
    fleet.offer(&fast, 2, "ada").unwrap();
    fleet.wait(60_000);
    fleet.put(&late, &Command::ExpireDeadline).unwrap();
    fleet.wish(&fast, 1, fail("flaky")).unwrap();
    assert_eq!((fleet.lease(&fast, 1), fleet.free_slots("ada")), (None, 1));
    for id in [&late, &fast] {
        assert!(fleet.views.leases.is_closing(&fleet.lease_id(id, 2)));
    }
}

#[test]
fn what_comes_late_or_again_ends_nothing() {
    for end in [lose(LeaseEnd::LeaseExpired), fail("flaky")] {
        let mut fleet = Fleet::of(2);
        let id = fleet.create(definition(vec![step(1, &[])]));
        fleet.begin(&id, 1, "ada");
        fleet.wish(&id, 1, end).unwrap();
        let (before, idle_since) = (counted(&fleet), fleet.row("ada").work.idle_since);
        fleet.wait(1_000);
        assert_eq!(support::names(&fleet.wish(&id, 1, complete(json!(1))).unwrap())[0], "StepCompleted");
        assert_eq!((counted(&fleet), fleet.row("ada").work.idle_since), (before, idle_since));
    }
    // An older grant ends nothing of what another agent has by now.
    let mut fleet = Fleet::of(2);
    fleet.hire("bob", profile(1, &[]));
    let id = fleet.create(definition(vec![step(1, &[])]));
    fleet.begin(&id, 1, "ada");
    fleet.wish(&id, 1, release()).unwrap();
    fleet.offer(&id, 1, "bob").unwrap();
    for wish in [complete(json!(1)), fail("flaky"), lose(LeaseEnd::AgentTimeout), release()] {
        assert!(fleet.put(&id, &Command::Step { step: 1, grant: 1, wish }).is_err());
    }
    assert_eq!((fleet.lease(&id, 1).unwrap().agent.as_str(), fleet.free_slots("bob")), ("bob", 0));
}

#[test]
fn a_registration_or_an_activation_ends_every_row_and_no_lease() {
    for (before, event, rows) in [
        (None, register(profile(2, &[])), [0, 0, 0]),
        (Some(own(Status::Inactive)), own(Status::Active), [0, 0, 0]),
        (Some(told(Status::Inactive)), told(Status::Active), [0, 0, 0]),
        (Some(SILENT), heard(), [1, 1, 1]),
        (Some(SILENT), register(profile(2, &[])), [0, 0, 0]),
    ] {
        let (mut fleet, id) = running();
        if let Some(before) = before {
            fleet.tell("ada", &before).unwrap();
            assert_eq!(counted(&fleet), ([0, 2], [1, 1, 1]));
        }
        fleet.tell("ada", &event).unwrap();
        assert_eq!(counted(&fleet), ([0, 2], rows), "{event:?}");
        assert!(fleet.lease(&id, 1).is_some());
    }
}

#[test]
fn a_new_incarnation_has_all_its_slots_at_once_and_the_results_of_the_one_before() {
    let mut fleet = Fleet::of(2);
    let id = fleet.create(definition((1..=4).map(|number| step(number, &[])).collect()));
    fleet.begin(&id, 1, "ada");
    fleet.begin(&id, 2, "ada");
    assert_eq!(fleet.free_slots("ada"), 0);
    fleet.tell("ada", &register(profile(2, &[]))).unwrap();
    assert_eq!(fleet.free_slots("ada"), 2);
    fleet.begin(&id, 3, "ada");
    assert_eq!(
        (fleet.free_slots("ada"), fleet.views.leases.of_agent(&support::agent("ada")).count()),
        (1, 3)
    );
    fleet.wish(&id, 3, complete(json!(1))).unwrap();
    // A grant of the older incarnation that crosses the registration takes no slot of the newer one.
    let wish = reserve(support::agent("ada"), 1);
    fleet.put(&id, &Command::Step { step: 4, grant: 1, wish }).unwrap();
    assert_eq!(fleet.free_slots("ada"), 2);
    fleet.leases_agree();
    fleet.views_survive();
    fleet.settle("ada");
    assert_eq!(counted(&fleet), ([1, 2], [0, 0, 0]));
    assert_eq!(fleet.views.leases.of_agent(&support::agent("ada")).count(), 0);
}

#[test]
fn an_event_of_another_grant_than_the_one_that_is_held_ends_and_closes_nothing() {
    let single = || support::Flow::of(definition(vec![step(1, &[])]));
    let mut held = single();
    held.begin(1);
    held.wish(1, release()).unwrap();
    held.offer(1, "bob").unwrap();
    let until = held.scenario.now.plus_ms(60_000);
    let limit = StepWish::Limit { until, error: error("rate_limited"), retryable: true };
    let ends = [complete(json!(1)), fail("flaky"), lose(LeaseEnd::AgentTimeout), release(), limit];
    for (begins, end) in [true, false].iter().flat_map(|begins| ends.clone().map(|end| (*begins, end))) {
        let mut older = single();
        older.offer(1, "ada").unwrap();
        if begins {
            older.wish(1, StepWish::Acknowledge).unwrap();
        }
        let mut events = older.wish(1, end).unwrap();
        let mut cancelled = single();
        cancelled.begin(1);
        events.extend(cancelled.put(&Command::Cancel { by: "ops".into() }).unwrap());
        events.extend(cancelled.wish(1, StepWish::CloseLease { why: CloseReason::Reported }).unwrap());
        let mut views = held.views.clone();
        for event in &events {
            views.apply_operation(&held.scenario.id, event, support::stamp(99, held.scenario.now));
            assert_eq!(views.leases.get(&held.lease(1)), held.views.leases.get(&held.lease(1)), "{event:?}");
        }
        assert_eq!(views.leases.taken(&support::agent("bob"), 1), 1);
    }
}
