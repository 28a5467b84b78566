//! Agents whose leases or offers come to nothing again and again, and agents that somebody drains.
//! Examples, then laws.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::event::{Outcome, Status};
use domain::agent::quarantine::{LOST_MAX, UNTAKEN_MAX};
use domain::agent::{Agent, Command, Effect, Event, Rejection};
use domain::scenario::Scenario;
use domain::{Aggregate, fold};
use proptest::prelude::*;
use support::crew::{crew, lease, names, profile, register, release, reserve, state};

const SILENT: Command = Command::TimeOut { silent_ms: 30_000 };

fn own(to: Status) -> Command {
    Command::SetStatus { status: to, reason: "heartbeat".into() }
}

fn heard() -> Command {
    Command::SetStatus { status: Status::Active, reason: "heard again".into() }
}

fn told(to: Status) -> Command {
    Command::Update { patch: Box::default(), status: Some(to) }
}

/// Takes a step and ends it like this.
fn work(ada: &mut Scenario<Agent>, outcome: Outcome) -> Vec<String> {
    ada.when(&reserve(1)).unwrap();
    ada.wait(1_000);
    names(&ada.when(&release(1, outcome)).unwrap())
}

fn quarantined() -> Scenario<Agent> {
    let mut ada = crew(2);
    ada.when(&reserve(9)).unwrap();
    for _ in 0..LOST_MAX {
        work(&mut ada, Outcome::Lost);
    }
    assert!(state(&ada).is_quarantined());
    ada
}

#[test]
fn three_leases_lost_in_a_row_are_a_quarantine_in_the_same_append() {
    let mut ada = crew(1);
    assert_eq!(work(&mut ada, Outcome::Lost), ["Released"]);
    assert_eq!(work(&mut ada, Outcome::Lost), ["Released"]);
    assert_eq!(work(&mut ada, Outcome::Lost), ["Released", "StatusChanged"]);
    let ada = state(&ada);
    assert_eq!((ada.status, ada.shown_status()), (Status::Error, "error"));
    assert_eq!(ada.status_reason, "quarantined: three leases lost in a row");
}

#[test]
fn five_offers_in_a_row_that_are_not_taken_are_one_too() {
    let mut ada = crew(1);
    for _ in 1..UNTAKEN_MAX {
        assert_eq!(work(&mut ada, Outcome::Untaken), ["Released"]);
    }
    assert_eq!(work(&mut ada, Outcome::Untaken), ["Released", "StatusChanged"]);
    assert_eq!(state(&ada).status_reason, "quarantined: five offers in a row not taken");
}

#[test]
fn a_result_ends_a_row_of_losses_and_anything_taken_a_row_of_offers() {
    for (bad, good) in [
        (Outcome::Lost, Outcome::Completed),
        (Outcome::Lost, Outcome::Failed),
        (Outcome::Untaken, Outcome::Completed),
        (Outcome::Untaken, Outcome::Failed),
    ] {
        let mut ada = crew(1);
        for _ in 0..5 {
            for _ in 1..LOST_MAX {
                work(&mut ada, bad);
            }
            assert_eq!(work(&mut ada, good), ["Released"], "{bad:?} {good:?}");
        }
        assert_eq!(state(&ada).status, Status::Active);
    }
    let mut ada = crew(1);
    for _ in 1..UNTAKEN_MAX {
        work(&mut ada, Outcome::Untaken);
    }
    work(&mut ada, Outcome::Lost);
    assert_eq!((state(&ada).streaks.untaken(), state(&ada).streaks.lost()), (0, 1));
    // What was given back, or cut short, says neither.
    work(&mut ada, Outcome::Returned);
    work(&mut ada, Outcome::Cancelled);
    assert_eq!(state(&ada).streaks.lost(), 1);
}

#[test]
fn one_silence_that_costs_many_leases_is_one_loss() {
    let mut ada = crew(8);
    for turn in 1..=LOST_MAX {
        (1..=8).for_each(|step| drop(ada.when(&reserve(step)).unwrap()));
        ada.wait(30_000);
        ada.when(&SILENT).unwrap();
        for step in 1..=8 {
            assert_eq!(
                state(&ada).pending()[0],
                Effect::Lose { lease: lease(step, 1), reason: "agent_timeout" }
            );
            ada.when(&release(step, Outcome::Lost)).unwrap();
        }
        assert_eq!(state(&ada).streaks.lost(), turn);
        assert_eq!(state(&ada).is_quarantined(), turn == LOST_MAX);
        // Who only came back has shown nothing yet.
        if turn < LOST_MAX {
            ada.when(&heard()).unwrap();
        }
    }
}

#[test]
fn in_quarantine_it_takes_no_work_and_what_it_has_goes_on() {
    let mut ada = quarantined();
    assert_eq!(ada.when(&reserve(2)), Err(Rejection::NotActive { status: "error" }));
    assert_eq!(state(&ada).pending(), [Effect::Settle { lease: lease(9, 1) }]);
    assert!(state(&ada).is_listened_for());
    let mut working = ada.clone();
    assert_eq!(names(&working.when(&release(9, Outcome::Completed)).unwrap()), ["Released"]);
    assert!(state(&working).is_quarantined(), "work that it had is no reason to give it more");
    assert!(!state(&working).is_listened_for());
    // Silent, it loses what it has, and stays in quarantine when it is heard again.
    assert_eq!(names(&ada.when(&SILENT).unwrap()), ["TimedOut"]);
    assert_eq!(state(&ada).pending(), [Effect::Lose { lease: lease(9, 1), reason: "agent_timeout" }]);
    ada.when(&release(9, Outcome::Lost)).unwrap();
    assert!(state(&ada).is_quarantined() && !state(&ada).is_timed_out());
}

#[test]
fn its_owner_ends_a_quarantine_and_the_count_begins_anew() {
    for end in [own(Status::Active), told(Status::Active), register(profile(2, &["rust"]))] {
        let mut ada = quarantined();
        ada.when(&end).unwrap();
        assert_eq!((state(&ada).status, state(&ada).streaks.lost()), (Status::Active, 0));
        assert_eq!(work(&mut ada, Outcome::Lost), ["Released"]);
        assert_eq!(work(&mut ada, Outcome::Lost), ["Released"]);
        assert_eq!(work(&mut ada, Outcome::Lost), ["Released", "StatusChanged"]);
    }
}

#[test]
fn what_an_earlier_incarnation_lost_is_not_held_against_the_next() {
    for gone in [register(profile(3, &[])), Command::Unregister] {
        let mut ada = crew(3);
        (1..=3).for_each(|step| drop(ada.when(&reserve(step)).unwrap()));
        ada.when(&gone).unwrap();
        for step in 1..=3 {
            ada.wait(1);
            assert_eq!(names(&ada.when(&release(step, Outcome::Lost)).unwrap()), ["Released"]);
        }
        ada.when(&register(profile(3, &[]))).unwrap();
        assert_eq!((state(&ada).status, state(&ada).streaks.lost()), (Status::Active, 0));
    }
}

#[test]
fn who_is_drained_finishes_and_takes_nothing_new_until_somebody_says_so() {
    let mut ada = crew(2);
    ada.when(&reserve(1)).unwrap();
    assert_eq!(names(&ada.when(&told(Status::Inactive)).unwrap()), ["StatusChanged"]);
    assert_eq!(ada.when(&told(Status::Inactive)), Ok(vec![]));
    assert_eq!(ada.when(&reserve(2)), Err(Rejection::NotActive { status: "inactive" }));
    assert_eq!(state(&ada).pending(), [Effect::Settle { lease: lease(1, 1) }]);
    // Its own wish does not end what somebody else began, and no new process of it does.
    assert_eq!(ada.when(&own(Status::Active)), Ok(vec![]));
    assert_eq!(names(&ada.when(&register(profile(2, &[]))).unwrap()), ["Reregistered", "StatusChanged"]);
    assert!(state(&ada).is_drained());
    ada.when(&told(Status::Active)).unwrap();
    assert!(ada.when(&reserve(2)).is_ok());
}

#[test]
fn who_drains_itself_begins_again_by_itself() {
    for again in [own(Status::Active), register(profile(1, &[]))] {
        let mut ada = crew(1);
        ada.when(&own(Status::Inactive)).unwrap();
        assert!(!state(&ada).is_drained());
        ada.when(&again).unwrap();
        assert_eq!(state(&ada).status, Status::Active);
    }
}

#[test]
fn a_drain_outlasts_silence_and_lost_leases_and_ends_a_quarantine() {
    let mut ada = crew(3);
    (1..=3).for_each(|step| drop(ada.when(&reserve(step)).unwrap()));
    ada.when(&told(Status::Inactive)).unwrap();
    assert_eq!(names(&ada.when(&SILENT).unwrap()), ["TimedOut"]);
    for step in 1..=3 {
        assert_eq!(names(&ada.when(&release(step, Outcome::Lost)).unwrap()), ["Released"]);
    }
    assert!(state(&ada).is_drained());
    let mut silent = crew(1);
    silent.when(&SILENT).unwrap();
    silent.when(&told(Status::Inactive)).unwrap();
    assert_eq!(silent.when(&heard()), Ok(vec![]));
    let mut out = quarantined();
    out.when(&told(Status::Inactive)).unwrap();
    out.when(&told(Status::Active)).unwrap();
    assert_eq!((state(&out).status, state(&out).streaks.lost()), (Status::Active, 0));
}

fn commands() -> impl Strategy<Value = Command> {
    let outcomes = vec![
        Outcome::Completed,
        Outcome::Lost,
        Outcome::Lost,
        Outcome::Lost,
        Outcome::Returned,
        Outcome::Untaken,
        Outcome::Untaken,
        Outcome::Untaken,
    ];
    let statuses = || proptest::sample::select(vec![Status::Active, Status::Inactive, Status::Error]);
    prop_oneof![
        20 => (1..4_u32).prop_map(reserve),
        20 => (1..4_u32, proptest::sample::select(outcomes)).prop_map(|(step, end)| release(step, end)),
        1 => statuses().prop_map(own),
        1 => statuses().prop_map(told),
        1 => Just(heard()),
        1 => Just(SILENT),
        1 => Just(register(profile(2, &["rust"]))),
        1 => Just(Command::Unregister),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_laws_of_quarantine(commands in proptest::collection::vec(commands(), 1..120)) {
        let mut ada = crew(2);
        for command in &commands {
            ada.wait(1_000);
            let before = state(&ada).clone();
            let Ok(events) = ada.when(command) else { continue };
            let now = state(&ada);
            if before.is_quarantined() {
                let assigned = events.iter().any(|event| matches!(event, Event::Assigned(_)));
                prop_assert!(!assigned, "in quarantine it takes no work");
                let settled = now.pending().iter().all(|owed| matches!(owed, Effect::Settle { .. }));
                prop_assert!(!now.is_quarantined() || now.silent || settled, "what it has goes on");
            }
            if !before.is_quarantined() && now.is_quarantined() {
                let ended_badly = matches!(&events[..], [Event::Released(released), Event::StatusChanged(_)]
                    if matches!(released.outcome, Outcome::Lost | Outcome::Untaken));
                prop_assert!(ended_badly, "{events:?}");
                prop_assert!(now.streaks.lost() >= LOST_MAX || now.streaks.untaken() >= UNTAKEN_MAX);
            }
            if before.is_quarantined() && now.status == Status::Active {
                prop_assert_eq!((now.streaks.lost(), now.streaks.untaken()), (0, 0));
            }
            // Nobody takes work who should be out of service.
            prop_assert!(now.status != Status::Active || now.streaks.verdict().is_none());
        }
        let again = fold::<Agent>(ada.history.iter().map(|(event, at)| (event, *at)));
        prop_assert_eq!(format!("{:?}", again.unwrap()), format!("{:?}", state(&ada)));
    }
}
