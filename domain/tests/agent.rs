//! An agent: registering, status, silence, drains, quarantine, leaving. Examples, then laws.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::fmt::Debug;

use bincode::Options;
use domain::agent::event::{Patch, ReportedMetrics, Status, StatusReason};
use domain::agent::{Agent, Command, Event, Rejection};
use domain::operation::event::LeaseEnd;
use domain::presence::{self, Seen};
use domain::scenario::Scenario;
use domain::views::{Stamp, Views};
use domain::{Aggregate, fold};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::crew::{SILENT, crew, heard, names, own, profile, quarantine, register, state, told};
use support::{agent, stamp, world};

const REASONS: [StatusReason; 3] =
    [StatusReason::QuarantinedLosses, StatusReason::QuarantinedUntaken, StatusReason::QuarantinedFailures];

fn stands(scenario: &Scenario<Agent>) -> (Status, StatusReason) {
    (state(scenario).status, state(scenario).status_reason)
}

#[test]
fn nothing_can_be_asked_of_an_agent_before_it_registers_or_after_it_left() {
    let mut nobody = Scenario::<Agent>::new(agent("ada"), world());
    let mut gone = crew(1);
    gone.when(&Command::Unregister).unwrap();
    for command in [SILENT, own(Status::Active), told(Status::Inactive), quarantine(REASONS[0])] {
        assert_eq!(nobody.when(&command), Err(Rejection::Unknown));
        assert_eq!(gone.when(&command), Err(Rejection::Unknown));
    }
    assert_eq!(nobody.when(&Command::Unregister), Err(Rejection::Unknown));
    assert_eq!(gone.when(&Command::Unregister), Ok(vec![]));
    assert_eq!(stands(&gone), (Status::Inactive, StatusReason::Unregistered));
}

#[test]
fn registering_again_begins_a_new_incarnation_and_an_older_one_is_stale() {
    let mut ada = crew(1);
    assert_eq!(stands(&ada), (Status::Active, StatusReason::Registered));
    assert_eq!(names(&ada.when(&register(profile(2, &["go"]))).unwrap()), ["Reregistered"]);
    assert_eq!((state(&ada).incarnation, state(&ada).slots()), (2, 2));
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
fn an_update_says_only_what_changed() {
    let mut ada = crew(2);
    let patch = Patch { config: Some(profile(1, &[]).config), ..Patch::default() };
    let update = Command::Update { patch: Box::new(patch.clone()), status: None };
    assert_eq!(ada.when(&update), Ok(vec![Event::Updated(Box::new(patch))]));
    assert_eq!(ada.when(&update), Ok(vec![]));
    assert_eq!(state(&ada).slots(), 1);
}

#[test]
fn an_agent_is_lost_to_what_it_was_given_once_it_is_silent_gone_or_another() {
    let mut ada = crew(1);
    assert_eq!((state(&ada).loss(1), state(&ada).loss(0)), (None, Some(LeaseEnd::NewIncarnation)));
    let mut silent = ada.clone();
    assert_eq!(names(&silent.when(&SILENT).unwrap()), ["TimedOut", "StatusChanged"]);
    assert_eq!(silent.when(&SILENT), Ok(vec![]));
    assert_eq!(stands(&silent), (Status::Inactive, StatusReason::Timeout));
    assert_eq!(state(&silent).loss(1), Some(LeaseEnd::AgentTimeout));
    silent.when(&heard()).unwrap();
    assert_eq!(state(&silent).loss(1), None);

    let mut anew = ada.clone();
    anew.when(&register(profile(1, &[]))).unwrap();
    assert_eq!((state(&anew).loss(1), state(&anew).loss(2)), (Some(LeaseEnd::NewIncarnation), None));

    ada.when(&SILENT).unwrap();
    ada.when(&Command::Unregister).unwrap();
    assert_eq!(state(&ada).loss(1), Some(LeaseEnd::AgentUnregistered));
}

#[test]
fn a_status_that_outlasts_silence_does_not_keep_what_the_agent_had() {
    for (before, reason) in [
        (own(Status::Inactive), StatusReason::Heartbeat),
        (told(Status::Inactive), StatusReason::Drained),
        (own(Status::Error), StatusReason::Heartbeat),
        (quarantine(REASONS[1]), REASONS[1]),
    ] {
        let mut ada = crew(1);
        ada.when(&before).unwrap();
        assert_eq!(state(&ada).loss(1), None, "what it has goes on");
        assert_eq!(names(&ada.when(&SILENT).unwrap()), ["TimedOut"]);
        assert_eq!(ada.when(&SILENT), Ok(vec![]));
        assert_eq!(state(&ada).status_reason, reason);
        assert_eq!(state(&ada).loss(1), Some(LeaseEnd::AgentTimeout));
        assert!(!state(&ada).is_timed_out(), "being heard again would end {reason:?}");
    }
}

#[test]
fn a_quarantine_puts_an_active_or_silent_agent_out_of_service_and_nobody_else() {
    for reason in REASONS {
        let mut ada = crew(1);
        assert_eq!(names(&ada.when(&quarantine(reason)).unwrap()), ["StatusChanged"]);
        assert_eq!(stands(&ada), (Status::Error, reason));
        assert!(state(&ada).is_quarantined() && !state(&ada).is_in_service());
        for again in REASONS {
            assert_eq!(ada.when(&quarantine(again)), Ok(vec![]));
        }
        let mut silent = crew(1);
        silent.when(&SILENT).unwrap();
        assert_eq!(silent.when(&quarantine(reason)).unwrap().len(), 1);
        assert_eq!((stands(&silent), state(&silent).silent), ((Status::Error, reason), true));
        assert!(!state(&silent).is_timed_out(), "being heard again would end the quarantine");
        for out in [told(Status::Inactive), own(Status::Inactive), own(Status::Error)] {
            let mut ada = crew(1);
            ada.when(&out).unwrap();
            let before = stands(&ada);
            assert_eq!(ada.when(&quarantine(reason)), Ok(vec![]), "{out:?}");
            assert_eq!(stands(&ada), before);
        }
    }
}

#[test]
fn its_owner_ends_a_quarantine_and_a_drain_comes_before_one() {
    for end in [own(Status::Active), told(Status::Active), register(profile(2, &["rust"]))] {
        let mut ada = crew(2);
        ada.when(&quarantine(REASONS[0])).unwrap();
        ada.when(&end).unwrap();
        assert_eq!(state(&ada).status, Status::Active);
    }
    let mut ada = crew(1);
    ada.when(&quarantine(REASONS[2])).unwrap();
    ada.when(&told(Status::Inactive)).unwrap();
    assert!(state(&ada).is_drained());
    ada.when(&told(Status::Active)).unwrap();
    assert_eq!(stands(&ada), (Status::Active, StatusReason::Updated));
}

#[test]
fn only_somebody_else_ends_a_drain() {
    let mut ada = crew(2);
    assert_eq!(names(&ada.when(&told(Status::Inactive)).unwrap()), ["StatusChanged"]);
    assert_eq!(ada.when(&told(Status::Inactive)), Ok(vec![]));
    // Its own wish does not end what somebody else began, and no new process of it does.
    assert_eq!(ada.when(&own(Status::Active)), Ok(vec![]));
    assert_eq!(ada.when(&heard()), Ok(vec![]));
    assert_eq!(names(&ada.when(&register(profile(2, &[]))).unwrap()), ["Reregistered", "StatusChanged"]);
    assert!(state(&ada).is_drained());
    ada.when(&told(Status::Active)).unwrap();
    assert_eq!(state(&ada).status, Status::Active);
    // It may turn a rest of its own, or a silence, into a drain.
    for before in [own(Status::Inactive), SILENT] {
        let mut ada = crew(1);
        ada.when(&before).unwrap();
        assert_eq!(ada.when(&told(Status::Inactive)).unwrap().len(), 1);
        assert!(state(&ada).is_drained());
        assert_eq!(ada.when(&heard()), Ok(vec![]));
    }
}

#[test]
fn an_agent_that_rests_by_itself_begins_again_by_itself() {
    for again in [own(Status::Active), register(profile(1, &[]))] {
        let mut ada = crew(1);
        ada.when(&own(Status::Inactive)).unwrap();
        assert!(!state(&ada).is_drained());
        ada.when(&again).unwrap();
        assert_eq!(state(&ada).status, Status::Active);
    }
}

#[test]
fn what_was_reported_last_is_remembered_and_raises_no_revision() {
    let ada = crew(1);
    let mut views = Views::default();
    let (registered, at) = &ada.history[0];
    views.apply_agent(&ada.id, registered, stamp(1, *at));
    let metrics = ReportedMetrics { cpu_usage: Some(40.0), ..ReportedMetrics::default() };
    let later = at.plus_ms(60_000);
    let of = |name: &str| presence::Event::Seen(Seen { agent: agent(name), metrics });
    views.apply_presence(&of("ada"), Stamp { revision: 7, position: 9, at: later });
    views.apply_presence(&of("nobody"), Stamp { revision: 8, position: 10, at: later });
    let row = views.agents.get(&ada.id).unwrap();
    assert_eq!((row.reported, row.last_seen), (metrics, later));
    assert_eq!((row.revision, row.position, views.agents.len()), (1, 9, 1));
}

fn commands() -> impl Strategy<Value = Command> {
    let statuses = || proptest::sample::select(vec![Status::Active, Status::Inactive, Status::Error]);
    prop_oneof![
        2 => (1..4_u32, proptest::option::of(0..4_u64)).prop_map(|(slots, incarnation)| {
            Command::Register { profile: Box::new(profile(slots, &["rust"])), incarnation }
        }),
        3 => statuses().prop_map(own),
        1 => Just(heard()),
        2 => Just(SILENT),
        1 => Just(Command::Unregister),
        2 => proptest::sample::select(REASONS.to_vec()).prop_map(quarantine),
        1 => (1..4_u32).prop_map(|slots| {
            let config = Some(profile(slots, &[]).config);
            Command::Update { patch: Box::new(Patch { config, ..Patch::default() }), status: None }
        }),
        2 => statuses().prop_map(told),
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
        Event::TimedOut(body) => survives(body),
        Event::Unregistered => {}
    }
}

/// What may follow from a command, by where the agent stood.
fn check_life(before: &Agent, command: &Command, events: &[Event], now: &Agent) {
    let changed = events.iter().any(|event| matches!(event, Event::StatusChanged(_)));
    assert_eq!(before.is_drained() && now.status == Status::Active, ends_drain(before, command));
    if now.is_quarantined() && !before.is_quarantined() {
        assert!(matches!(command, Command::Quarantine { .. }) && before.is_in_service());
    }
    if let Command::Quarantine { .. } = command {
        assert_eq!(changed, before.is_in_service(), "{events:?}");
    }
    if before.is_quarantined() && !now.is_quarantined() {
        assert!(!matches!(command, Command::TimeOut { .. }));
    }
    assert!(!now.silent || now.status != Status::Active, "an active agent is heard");
    assert!(now.incarnation >= before.incarnation);
    let current = now.loss(now.incarnation);
    assert_eq!(current.is_none(), now.registered && !now.silent);
}

fn ends_drain(before: &Agent, command: &Command) -> bool {
    before.is_drained() && matches!(command, Command::Update { status: Some(Status::Active), .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_laws(
        commands in proptest::collection::vec(commands(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut ada = crew(2);
        let mut views = Views::default();
        views.apply_agent(&ada.id, &ada.history[0].0, stamp(1, ada.now));
        for command in &commands {
            ada.wait(1_000);
            let (before, stood) = (ada.history.len(), state(&ada).clone());
            let Ok(events) = ada.when(command) else { continue };
            for (revision, (event, at)) in (before as u64 + 1..).zip(&ada.history[before..]) {
                views.apply_agent(&ada.id, event, stamp(revision, *at));
                check_stored(event);
            }
            check_life(&stood, command, &events, state(&ada));
            // A registration is an event by itself; all else is silent when repeated.
            if !matches!(command, Command::Register { .. }) {
                prop_assert!(!matches!(ada.ask(command), Ok(more) if !more.is_empty()), "{command:?} again");
            }
            prop_assert_eq!(views.agents.get(&ada.id).is_some(), state(&ada).registered);
        }
        let cut = cut.index(ada.history.len() + 1);
        let prefix = fold::<Agent>(ada.history[..cut].iter().map(|(event, at)| (event, *at)));
        let rest = ada.history[cut..].iter();
        let joined = rest.fold(prefix, |state, (event, at)| Agent::evolve(state, event, *at));
        let shown = format!("{:?}", state(&ada));
        prop_assert_eq!(&format!("{:?}", joined.unwrap()), &shown);
        let row = views.agents.ever(&ada.id).unwrap();
        prop_assert_eq!(&format!("{:?}", row.agent), &shown);
        let length = ada.history.len() as u64;
        prop_assert_eq!((row.revision, row.position), (length, length));
    }
}
