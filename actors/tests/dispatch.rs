//! The dispatcher as a function: views that lag behind the log, answers that come late, in any order, or not
//! at all. No slot is ever given twice, every claim is answered once, and nothing stays owed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "dispatch/chance.rs"]
mod chance;
#[path = "dispatch/record.rs"]
mod record;
#[path = "dispatch/shell.rs"]
mod shell;
mod support;

use actors::dispatch::Input;
use actors::dispatch::task::{Outcome, Subject, Task};
use actors::effects::Periods;
use actors::matching::Appetite;
use domain::agent::Command as AgentCommand;
use domain::agent::event::{Patch, Status, StatusReason};
use domain::operation::event::{LeaseEnd, StepError};
use domain::operation::{Command, StepWish};
use domain::{Json, LeaseId};
use shell::{Fate, Shell};
use support::stage::{agent, operation, wide};

/// Agents with so many slots each, and one operation of so many steps; the views show all of it.
fn house(agents: &[(&str, u32)], steps: u32) -> Shell {
    let mut shell = Shell::new();
    for (name, slots) in agents {
        shell.register(&agent(name), *slots, &["x"]);
    }
    shell.on_operation(&operation(1), &Command::Create(Box::new(wide(steps, "x"))));
    shell.show_all();
    shell
}

fn lease(step: u32, grant: u64) -> LeaseId {
    LeaseId { operation: operation(1), step, grant }
}

fn any(max: u32) -> Appetite {
    Appetite::of(max, None)
}

fn flaky() -> StepWish {
    let error = StepError { code: "flaky".into(), message: "it did not work".into() };
    StepWish::Fail { error, retryable: true, retry_after_ms: None }
}

#[test]
fn a_grant_that_is_answered_before_the_views_show_it_takes_its_slot() {
    let mut shell = house(&[("ada", 1)], 2);
    let first = shell.claim(&agent("ada"), any(1), 10_000);
    shell.decide(0, Fate::Heard);
    shell.tell(0);
    assert_eq!(shell.answer(first), Some(vec![lease(1, 1)]));
    let second = shell.claim(&agent("ada"), any(1), 10_000);
    shell.nudge();
    assert_eq!((shell.tasks().len(), shell.answer(second)), (0, None));
    shell.show_all();
    assert!(shell.tasks().is_empty());
    shell.say(&lease(1, 1), StepWish::Complete { result: Json::object(), usage: None });
    shell.settle();
    assert_eq!(shell.answer(second), Some(vec![lease(2, 1)]));
}

#[test]
fn a_grant_that_the_views_show_before_its_answer_takes_one_slot() {
    let mut shell = house(&[("ada", 2)], 2);
    shell.claim(&agent("ada"), any(1), 10_000);
    shell.decide(0, Fate::Heard);
    shell.show_all();
    let second = shell.claim(&agent("ada"), any(2), 10_000);
    assert_eq!(shell.tasks().len(), 1);
    shell.settle();
    assert_eq!(shell.answer(second), Some(vec![lease(2, 1)]));
}

#[test]
fn a_claim_of_an_old_incarnation_is_answered_empty() {
    let mut shell = house(&[("ada", 1)], 1);
    let waiting = shell.claim(&agent("ada"), Appetite::of(1, Some(vec!["glue".parse().unwrap()])), 10_000);
    shell.register(&agent("ada"), 1, &["x"]);
    shell.show_all();
    assert_eq!(shell.answer(waiting), Some(vec![]));
    let late = shell.claim_as(&agent("ada"), 1, any(1), 10_000, None);
    assert_eq!((shell.answer(late), shell.sent), (Some(vec![]), 0));
    let nobody = shell.claim(&agent("bob"), any(1), 10_000);
    assert_eq!(shell.answer(nobody), Some(vec![]));
}

#[test]
fn a_grant_that_crosses_a_new_incarnation_is_lost_and_takes_no_slot_of_it() {
    let mut shell = house(&[("ada", 1)], 2);
    shell.claim(&agent("ada"), any(1), 10_000);
    shell.register(&agent("ada"), 1, &["x"]);
    shell.decide(0, Fate::Heard);
    shell.tell(0);
    shell.show_all();
    let lost = matches!(&shell.tasks()[..],
        [Task::Lease(of, StepWish::LoseLease { reason: LeaseEnd::NewIncarnation })] if *of == lease(1, 1));
    assert!(lost, "{:?}", shell.tasks());
    let second = shell.claim(&agent("ada"), any(1), 10_000);
    shell.settle();
    assert_eq!(shell.answer(second), Some(vec![lease(2, 1)]));
}

#[test]
fn an_offer_that_is_perhaps_made_is_withdrawn_before_its_step_or_its_slot_is_given_again() {
    for (fate, grant) in [(Fate::Unheard, 2), (Fate::Lost, 1)] {
        let mut shell = house(&[("ada", 1), ("bob", 1)], 1);
        // It is over before the step can be given again.
        shell.claim(&agent("ada"), any(1), 500);
        shell.decide(0, fate);
        shell.tell(0);
        shell.show_all();
        let second = shell.claim(&agent("bob"), any(1), 10_000);
        let withdraws = matches!(
            &shell.tasks()[..],
            [Task::Lease(of, StepWish::ExpireOffer { reason: LeaseEnd::NotHeard })] if *of == lease(1, 1)
        );
        assert!(withdraws, "{:?}", shell.tasks());
        // What is not heard of the withdrawal is said again.
        shell.decide(0, Fate::Lost);
        shell.tell(0);
        assert!(shell.tasks().is_empty());
        shell.pass(1_000);
        shell.decide(0, Fate::Heard);
        shell.tell(0);
        shell.show_all();
        assert_eq!(shell.leases(), [lease(1, grant)]);
        shell.settle();
        assert_eq!(shell.answer(second), Some(vec![lease(1, grant)]));
    }
}

#[test]
fn a_claim_that_wants_an_answer_at_once_never_displaces_one_that_waits() {
    let mut shell = house(&[("ada", 2)], 0);
    let glue = || Appetite::of(1, Some(vec!["glue".parse().unwrap()]));
    let waiting = shell.claim(&agent("ada"), any(1), 10_000);
    let once = shell.claim(&agent("ada"), glue(), 0);
    assert_eq!((shell.answer(once), shell.answer(waiting)), (Some(vec![]), None));
    assert!(shell.waiting.contains(&agent("ada")));
    // It is matched like any other, and the one that waits goes on.
    let mut shell = house(&[("ada", 2)], 2);
    shell.claim(&agent("ada"), glue(), 10_000);
    let once = shell.claim(&agent("ada"), any(1), 0);
    shell.settle();
    assert_eq!(shell.answer(once), Some(vec![lease(1, 1)]));
    assert_eq!((shell.open.len(), shell.waiting.len()), (1, 1));
}

#[test]
fn what_is_offered_while_a_claim_stands_aside_for_another_is_offered_to_it() {
    let mut shell = house(&[("ada", 1)], 1);
    let held = shell.claim(&agent("ada"), any(1), 10_000);
    shell.settle();
    assert_eq!(shell.answer(held), Some(vec![lease(1, 1)]));
    shell.say(&lease(1, 1), StepWish::Release { reason: "busy".into(), hold_ms: Some(5_000) });
    shell.show_all();
    let waiting = shell.claim(&agent("ada"), any(1), 60_000);
    // The hold ends, and the first to come is a claim for something else.
    shell.now = shell.now.plus_ms(5_000);
    let once = shell.claim(&agent("ada"), Appetite::of(1, Some(vec!["glue".parse().unwrap()])), 0);
    shell.settle();
    assert_eq!((shell.answer(once), shell.answer(waiting)), (Some(vec![]), Some(vec![lease(1, 2)])));
}

#[test]
fn a_retry_goes_to_another_agent_if_there_is_one_and_else_to_the_same() {
    for (others, drained) in [(vec![], false), (vec![("bob", 1)], false), (vec![("bob", 1)], true)] {
        let mut shell = house(&[&[("ada", 1)], &others[..]].concat(), 1);
        let first = shell.claim(&agent("ada"), any(1), 10_000);
        shell.settle();
        assert_eq!(shell.answer(first), Some(vec![lease(1, 1)]));
        assert_eq!(shell.say(&lease(1, 1), flaky()), Outcome::Done);
        shell.show_all();
        let again = shell.claim(&agent("ada"), any(1), 120_000);
        shell.pass(20_000);
        shell.presence.heard(&agent("bob"), None, shell.now, u64::MAX);
        let alone = others.is_empty();
        assert_eq!(shell.leases().len(), usize::from(alone));
        if drained {
            let command = AgentCommand::Update { patch: Box::default(), status: Some(Status::Inactive) };
            shell.on_agent(&agent("bob"), &command);
            shell.show_all();
        } else if !alone {
            let other = shell.claim(&agent("bob"), any(1), 10_000);
            shell.settle();
            assert_eq!((shell.answer(other), shell.answer(again)), (Some(vec![lease(1, 2)]), None));
            continue;
        }
        shell.settle();
        assert_eq!(shell.answer(again), Some(vec![lease(1, 2)]));
    }
}

#[test]
fn a_retry_that_nobody_else_claims_goes_back_when_it_was_kept_long_enough() {
    let mut shell = house(&[("ada", 1), ("bob", 1)], 1);
    shell.claim(&agent("ada"), any(1), 10_000);
    shell.settle();
    shell.say(&lease(1, 1), flaky());
    shell.show_all();
    let again = shell.claim(&agent("ada"), any(1), 120_000);
    let begun = shell.now;
    while shell.tasks().is_empty() {
        shell.pass(500);
        shell.presence.heard(&agent("bob"), None, shell.now, u64::MAX);
        assert!(shell.now.ms_since(begun) < 120_000, "it is kept for ever");
    }
    assert!(shell.now.ms_since(begun) >= Periods::default().retry_elsewhere_ms);
    shell.settle();
    assert_eq!(shell.answer(again), Some(vec![lease(1, 2)]));
}

/// An agent whose steps failed so often in a row that its quarantine is sent.
fn condemned() -> Shell {
    let mut shell = Shell::new();
    shell.register(&agent("ada"), 1, &["x"]);
    for number in 1..=5 {
        shell.on_operation(&operation(number), &Command::Create(Box::new(wide(1, "x"))));
        shell.show_all();
        let claim = shell.claim(&agent("ada"), any(1), 10_000);
        shell.settle();
        let lease = shell.answer(claim).unwrap()[0].clone();
        let error = StepError { code: "broken".into(), message: "it broke".into() };
        shell.say(&lease, StepWish::Fail { error, retryable: false, retry_after_ms: None });
        shell.show_all();
    }
    let subjects: Vec<Subject> = shell.tasks().into_iter().map(Task::subject).collect();
    assert_eq!(subjects, [Subject::Quarantine(agent("ada"))]);
    shell
}

#[test]
fn who_fails_too_often_in_a_row_is_quarantined_once() {
    let mut shell = condemned();
    let before = shell.sent;
    shell.settle();
    shell.pass(60_000);
    let ada = shell.record.agent(&agent("ada")).unwrap();
    assert_eq!((ada.status, ada.status_reason), (Status::Error, StatusReason::QuarantinedFailures));
    assert_eq!(shell.sent, before);
}

#[test]
fn who_is_reactivated_meanwhile_is_not_quarantined() {
    let mut shell = condemned();
    // Others put it out of service and back before the quarantine is decided.
    for status in [Status::Inactive, Status::Active] {
        let command = AgentCommand::Update { patch: Box::<Patch>::default(), status: Some(status) };
        shell.on_agent(&agent("ada"), &command);
    }
    shell.decide(0, Fate::Heard);
    shell.tell(0);
    shell.settle();
    shell.pass(10_000);
    shell.settle();
    assert_eq!(shell.record.agent(&agent("ada")).unwrap().status, Status::Active);
}

#[test]
fn what_becomes_owed_while_something_else_about_it_is_under_way_is_sent_afterwards() {
    let mut shell = house(&[("ada", 1)], 1);
    let claim = shell.claim(&agent("ada"), any(1), 10_000);
    shell.settle();
    assert_eq!(shell.answer(claim), Some(vec![lease(1, 1)]));
    // The offer's time is over, just when the agent takes it and then leaves.
    shell.pass(Periods::default().offer_ms);
    assert_eq!(shell.leases(), [lease(1, 1)]);
    shell.say(&lease(1, 1), StepWish::Acknowledge);
    shell.on_agent(&agent("ada"), &AgentCommand::Unregister);
    shell.show_all();
    shell.settle();
    assert!(shell.record.taken().is_empty());
}

#[test]
fn a_claim_made_again_by_its_key_gets_what_its_lost_connection_was_granted() {
    let mut shell = house(&[("ada", 1)], 1);
    let first = shell.claim_as(&agent("ada"), 1, any(1), 10_000, Some(1));
    shell.hang_up(first, true);
    let resent: Vec<_> = (0..3).map(|_| shell.claim_as(&agent("ada"), 1, any(1), 10_000, Some(1))).collect();
    shell.settle();
    assert_eq!(shell.answer(resent[2]), Some(vec![lease(1, 1)]));
    assert_eq!((shell.answer(resent[0]), shell.answer(resent[1])), (Some(vec![]), Some(vec![])));
    assert!(shell.open.is_empty());
}

#[test]
fn a_claim_made_again_by_its_key_while_it_is_granted_something_is_given_nothing_else() {
    let mut shell = house(&[("ada", 2)], 2);
    let first = shell.claim_as(&agent("ada"), 1, any(1), 10_000, Some(1));
    shell.hang_up(first, true);
    let again = shell.claim_as(&agent("ada"), 1, any(1), 10_000, Some(1));
    let other = shell.claim_as(&agent("ada"), 1, any(1), 10_000, Some(2));
    shell.settle();
    assert_eq!((shell.answer(first), shell.answer(again)), (None, Some(vec![lease(1, 1)])));
    assert_eq!(shell.answer(other), Some(vec![lease(2, 1)]));
}

#[test]
fn another_claim_does_not_get_what_a_lost_connection_was_granted() {
    for (first, second) in [(Some(1), Some(2)), (None, None), (Some(1), None), (None, Some(1))] {
        let mut shell = house(&[("ada", 1)], 1);
        let lost = shell.claim_as(&agent("ada"), 1, any(1), 10_000, first);
        shell.hang_up(lost, false);
        let other = shell.claim_as(&agent("ada"), 1, any(1), 10_000, second);
        shell.settle();
        assert_eq!((shell.answer(lost), shell.answer(other)), (None, None));
        assert!(shell.waiting.contains(&agent("ada")));
    }
}

#[test]
fn a_client_that_hangs_up_without_a_word_is_found_and_was_no_silent_agent() {
    let mut shell = house(&[("ada", 1)], 0);
    let claim = shell.claim(&agent("ada"), any(1), 60_000);
    shell.hang_up(claim, false);
    let begun = shell.now;
    shell.pass(5_000);
    assert!(shell.open.is_empty() && shell.waiting.is_empty());
    assert!(shell.presence.seen(&agent("ada")).unwrap().at > begun);
}

#[test]
fn a_shorter_heartbeat_interval_counts_at_once() {
    let mut shell = house(&[("ada", 1)], 1);
    shell.claim(&agent("ada"), any(1), 0);
    shell.settle();
    shell.say(&lease(1, 1), StepWish::Acknowledge);
    let mut config = shell.record.agent(&agent("ada")).unwrap().profile.config.clone();
    config.heartbeat_interval_ms = 100;
    let patch = Box::new(Patch { config: Some(config), ..Patch::default() });
    shell.on_agent(&agent("ada"), &AgentCommand::Update { patch, status: None });
    shell.show_all();
    shell.pass(2_000);
    shell.settle();
    assert_eq!(shell.record.agent(&agent("ada")).unwrap().status, Status::Inactive);
}

#[test]
fn no_more_than_1024_tasks_are_under_way_and_the_others_follow() {
    let mut shell = house(&[("ada", 1_000), ("bob", 1_000)], 1_500);
    for name in ["ada", "bob"] {
        shell.claim(&agent(name), any(1_000), 10_000);
    }
    assert_eq!((shell.flights.len(), shell.sent), (1_024, 1_024));
    shell.decide(0, Fate::Heard);
    shell.tell(0);
    assert_eq!((shell.flights.len(), shell.sent), (1_024, 1_025));
    shell.settle();
    assert_eq!((shell.sent, shell.record.taken().len()), (1_500, 1_500));
}

#[test]
fn a_drain_answers_everybody_and_stops_nothing_else() {
    let mut shell = house(&[("ada", 2)], 1);
    let granted = shell.claim(&agent("ada"), any(1), 10_000);
    let waiting = shell.claim(&agent("ada"), any(1), 10_000);
    shell.feed(Input::Drain);
    assert_eq!(shell.answer(waiting), Some(vec![]));
    let late = shell.claim(&agent("ada"), any(1), 10_000);
    assert_eq!(shell.answer(late), Some(vec![]));
    shell.settle();
    assert_eq!(shell.answer(granted), Some(vec![lease(1, 1)]));
    shell.on_agent(&agent("ada"), &AgentCommand::Unregister);
    shell.show_all();
    shell.settle();
    assert!(shell.record.taken().is_empty());
}
