//! An agent: registering, slots, silence, leaving, and what is owed to it. Examples, then laws.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::fmt::Debug;

use bincode::Options;
use domain::agent::event::{Outcome, Patch, ReportedMetrics, Status};
use domain::agent::record::Window;
use domain::agent::{Agent, Command, Effect, Event, Rejection};
use domain::scenario::Scenario;
use domain::views::agent_directory::AgentDirectory;
use domain::{Aggregate, fold};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::crew::{crew, lease, names, profile, register, release, reserve, state};
use support::{agent, world};

fn status(to: Status) -> Command {
    Command::SetStatus { status: to, reason: "because".into() }
}

const SILENT: Command = Command::TimeOut { silent_ms: 30_000 };

#[test]
fn nothing_can_be_asked_of_an_agent_before_it_registers_or_after_it_left() {
    let mut nobody = Scenario::<Agent>::new(agent("ada"), world());
    assert_eq!(nobody.when(&reserve(1)), Err(Rejection::Unknown));
    let mut gone = crew(1);
    gone.when(&Command::Unregister).unwrap();
    let update = Command::Update { patch: Box::default(), status: None };
    for command in [reserve(1), SILENT, status(Status::Active), update] {
        assert_eq!(gone.when(&command), Err(Rejection::Unknown));
    }
    assert_eq!(gone.when(&Command::Unregister), Ok(vec![]));
}

#[test]
fn registering_again_begins_a_new_incarnation_and_an_older_one_is_stale() {
    let mut ada = crew(1);
    assert_eq!(names(&ada.when(&register(profile(2, &["go"]))).unwrap()), ["Reregistered"]);
    assert_eq!((state(&ada).incarnation, state(&ada).free_slots()), (2, 2));
    let as_of = |incarnation| Command::Register {
        profile: Box::new(profile(1, &[])),
        incarnation: Some(incarnation),
    };
    assert_eq!(ada.when(&as_of(1)), Err(Rejection::StaleIncarnation { given: 1, current: 2 }));
    ada.when(&Command::Unregister).unwrap();
    ada.when(&as_of(2)).unwrap();
    assert_eq!((state(&ada).incarnation, state(&ada).registered), (3, true));
    assert_eq!(state(&ada).status, Status::Active);
}

#[test]
fn slots_are_taken_one_by_one_and_a_repetition_takes_none() {
    let mut ada = crew(2);
    assert_eq!(names(&ada.when(&reserve(1)).unwrap()), ["Assigned"]);
    assert_eq!(ada.when(&reserve(1)), Ok(vec![]));
    assert_eq!(state(&ada).shown_status(), "active");
    ada.when(&reserve(2)).unwrap();
    assert_eq!(state(&ada).shown_status(), "busy");
    assert_eq!(ada.when(&reserve(3)), Err(Rejection::AtCapacity { slots: 2 }));
    ada.when(&release(1, Outcome::Completed)).unwrap();
    assert_eq!(ada.when(&release(1, Outcome::Completed)), Ok(vec![]));
    assert!(ada.when(&reserve(3)).is_ok());
}

#[test]
fn an_agent_that_takes_no_work_is_refused_with_its_status() {
    for (to, name) in [(Status::Inactive, "inactive"), (Status::Error, "error")] {
        let mut ada = crew(1);
        assert_eq!(names(&ada.when(&status(to)).unwrap()), ["StatusChanged"]);
        assert_eq!(ada.when(&status(to)), Ok(vec![]));
        assert_eq!(ada.when(&reserve(1)), Err(Rejection::NotActive { status: name }));
        ada.when(&status(Status::Active)).unwrap();
        assert!(ada.when(&reserve(1)).is_ok());
    }
}

#[test]
fn fewer_slots_than_are_taken_leave_none_free() {
    let mut ada = crew(2);
    ada.when(&reserve(1)).unwrap();
    ada.when(&reserve(2)).unwrap();
    let patch = Patch { config: Some(profile(1, &[]).config), ..Patch::default() };
    ada.when(&Command::Update { patch: Box::new(patch.clone()), status: None }).unwrap();
    assert_eq!(ada.when(&Command::Update { patch: Box::new(patch), status: None }), Ok(vec![]));
    assert_eq!(state(&ada).free_slots(), 0);
    ada.when(&release(1, Outcome::Completed)).unwrap();
    assert_eq!(ada.when(&reserve(3)), Err(Rejection::AtCapacity { slots: 1 }));
}

#[test]
fn a_held_lease_is_to_be_settled_and_one_of_a_lost_agent_is_to_be_lost() {
    let lost = |reason| vec![Effect::Lose { lease: lease(1, 1), reason }];
    let mut ada = crew(1);
    ada.when(&reserve(1)).unwrap();
    assert_eq!(state(&ada).pending(), [Effect::Settle { lease: lease(1, 1) }]);

    let mut silent = ada.clone();
    assert_eq!(names(&silent.when(&SILENT).unwrap()), ["TimedOut", "StatusChanged"]);
    assert_eq!(silent.when(&SILENT), Ok(vec![]));
    assert_eq!(state(&silent).pending(), lost("agent_timeout"));
    silent.when(&status(Status::Active)).unwrap();
    assert_eq!(state(&silent).pending(), [Effect::Settle { lease: lease(1, 1) }]);

    let mut anew = ada.clone();
    anew.when(&register(profile(1, &[]))).unwrap();
    assert_eq!(state(&anew).pending(), lost("new_incarnation"));
    assert_eq!(anew.when(&reserve(2)), Err(Rejection::AtCapacity { slots: 1 }));

    ada.when(&Command::Unregister).unwrap();
    assert_eq!(state(&ada).pending(), lost("agent_unregistered"));
    assert_eq!(names(&ada.when(&release(1, Outcome::Lost)).unwrap()), ["Released"]);
    assert_eq!(state(&ada).pending(), []);
}

#[test]
fn a_drained_agent_that_falls_silent_loses_what_it_still_had() {
    let mut ada = crew(1);
    ada.when(&reserve(1)).unwrap();
    ada.when(&status(Status::Inactive)).unwrap();
    assert_eq!(state(&ada).pending(), [Effect::Settle { lease: lease(1, 1) }]);
    assert_eq!(names(&ada.when(&SILENT).unwrap()), ["TimedOut"]);
    assert_eq!(state(&ada).pending(), [Effect::Lose { lease: lease(1, 1), reason: "agent_timeout" }]);
    assert_eq!(ada.when(&SILENT), Ok(vec![]));
    assert!(!state(&ada).is_timed_out(), "being heard again would end the drain");
    let mut idle = crew(1);
    idle.when(&status(Status::Inactive)).unwrap();
    assert_eq!(idle.when(&SILENT), Ok(vec![]));
}

#[test]
fn success_and_speed_are_averages_that_unperformed_work_does_not_touch() {
    let mut ada = crew(1);
    assert_eq!((state(&ada).record.success_rate(), state(&ada).record.response_ms()), (0.5, None));
    let mut work = |outcome, ms| {
        ada.when(&reserve(1)).unwrap();
        ada.wait(ms);
        ada.when(&release(1, outcome)).unwrap();
        let record = &state(&ada).record;
        ((record.success_rate() * 100.0).round(), record.response_ms().map(f64::round))
    };
    for outcome in [Outcome::Returned, Outcome::Cancelled, Outcome::Untaken] {
        assert_eq!(work(outcome, 5), (50.0, None));
    }
    assert_eq!(work(Outcome::Completed, 100), (60.0, Some(100.0)));
    assert_eq!(work(Outcome::Completed, 200), (68.0, Some(156.0)));
    assert_eq!(work(Outcome::Lost, 9_000), (54.0, Some(156.0)));
    let record = &state(&ada).record;
    assert_eq!((record.completed, record.failed), (2, 1));
    assert!((record.response_ms_from(1_000.0) - (0.64 * 1_000.0 + 0.16 * 100.0 + 0.2 * 200.0)).abs() < 1e-9);
}

#[test]
fn the_last_results_are_a_window_of_fifty() {
    let mut ada = crew(1);
    assert_eq!(state(&ada).record.window(), Window::default());
    let mut since = Vec::new();
    for turn in 0..60 {
        ada.when(&reserve(1)).unwrap();
        ada.wait(turn);
        let outcome = if turn % 10 == 9 { Outcome::Failed } else { Outcome::Completed };
        ada.when(&release(1, outcome)).unwrap();
        since.push(ada.now);
    }
    let window = state(&ada).record.window();
    assert_eq!((window.completed, window.failed, window.lost), (45, 5, 0));
    assert_eq!((window.since, window.success_rate()), (Some(since[10]), Some(0.9)));
    assert_eq!((window.p50_ms, window.p95_ms), (Some(34), Some(56)));
}

#[test]
fn what_was_reported_last_is_remembered() {
    let mut ada = crew(1);
    ada.wait(60_000);
    let metrics = ReportedMetrics { cpu_usage: Some(40.0), ..ReportedMetrics::default() };
    ada.when(&Command::RecordSeen { metrics }).unwrap();
    assert_eq!((state(&ada).reported, state(&ada).last_seen), (metrics, ada.now));
}

fn commands() -> impl Strategy<Value = Command> {
    let steps = || 1..5_u32;
    let outcomes = [
        Outcome::Completed,
        Outcome::Failed,
        Outcome::Lost,
        Outcome::Returned,
        Outcome::Cancelled,
        Outcome::Untaken,
    ];
    let statuses = [Status::Active, Status::Inactive, Status::Error];
    prop_oneof![
        2 => (1..4_u32, proptest::option::of(0..4_u64)).prop_map(|(slots, incarnation)| {
            Command::Register { profile: Box::new(profile(slots, &["rust"])), incarnation }
        }),
        8 => (steps(), 1..3_u64).prop_map(|(step, grant)| Command::Reserve { lease: lease(step, grant) }),
        6 => (steps(), 1..3_u64, proptest::sample::select(outcomes.to_vec()))
            .prop_map(|(step, grant, outcome)| Command::Release { lease: lease(step, grant), outcome }),
        2 => proptest::sample::select(statuses.to_vec()).prop_map(status),
        1 => Just(SILENT),
        1 => Just(Command::Unregister),
        1 => (1..4_u32).prop_map(|slots| {
            let config = Some(profile(slots, &[]).config);
            Command::Update { patch: Box::new(Patch { config, ..Patch::default() }), status: None }
        }),
        1 => proptest::sample::select(statuses.to_vec())
            .prop_map(|status| Command::Update { patch: Box::default(), status: Some(status) }),
        1 => Just(Command::RecordSeen { metrics: ReportedMetrics::default() }),
    ]
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &T) {
    let bytes = bincode::DefaultOptions::new().serialize(body).unwrap();
    assert_eq!(&bincode::DefaultOptions::new().deserialize::<T>(&bytes).unwrap(), body);
}

fn check_stored(event: &Event) {
    match event {
        Event::Registered(body) | Event::Reregistered(body) => survives(body),
        Event::Updated(body) => survives(body),
        Event::StatusChanged(body) => survives(body),
        Event::Assigned(body) => survives(body),
        Event::Released(body) => survives(body),
        Event::TimedOut(body) => survives(body),
        Event::Unregistered => {}
        Event::Seen(body) => survives(body),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_laws(
        commands in proptest::collection::vec(commands(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut ada = crew(2);
        let mut directory = AgentDirectory::default();
        directory.apply(&ada.id, &ada.history[0].0, 1, ada.now);
        for command in &commands {
            ada.wait(1_000);
            let before = ada.history.len();
            let Ok(events) = ada.when(command) else { continue };
            for (event, at) in &ada.history[before..] {
                directory.apply(&ada.id, event, before as u64 + 1, *at);
                check_stored(event);
            }
            let (known, slots) = (state(&ada), state(&ada).profile.config.max_concurrent_steps as usize);
            if events.iter().any(|event| matches!(event, Event::Assigned(_))) {
                prop_assert!(known.assignments.len() <= slots);
            }
            // A registration is an event by itself, and so is a sample; all else is silent when repeated.
            if !matches!(command, Command::Register { .. } | Command::RecordSeen { .. }) {
                prop_assert!(!matches!(ada.ask(command), Ok(more) if !more.is_empty()), "{command:?} again");
            }
            prop_assert_eq!(known.pending().len(), known.assignments.len());
            let operation = support::operation_id();
            let working: Vec<_> = directory.working_for(&operation).map(|(_, lease)| lease).collect();
            prop_assert_eq!(working, known.assignments.keys().collect::<Vec<_>>());
            prop_assert_eq!(directory.get(&ada.id).is_some(), known.registered);
        }
        let cut = cut.index(ada.history.len() + 1);
        let prefix = fold::<Agent>(ada.history[..cut].iter().map(|(event, at)| (event, *at)));
        let rest = ada.history[cut..].iter();
        let joined = rest.fold(prefix, |state, (event, at)| Agent::evolve(state, event, *at));
        let shown = format!("{:?}", state(&ada));
        prop_assert_eq!(&format!("{:?}", joined.unwrap()), &shown);
        prop_assert_eq!(&format!("{:?}", directory.ever(&ada.id).unwrap().agent), &shown);
    }
}
