//! When an agent's work comes to nothing too often in a row: what the views count, and whom that puts out of
//! service. Examples, then laws against a count from the facts alone.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use domain::agent::event::{Config, Patch, Status, StatusReason};
use domain::agent::quarantine::{FAILURES_MAX, Thresholds};
use domain::agent::{self, Command};
use domain::operation::event::LeaseEnd;
use domain::operation::{Event, StepWish};
use domain::{AgentId, OperationId, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use support::crew::{SILENT, heard, own, profile, quarantine, register, told};
use support::fleet::{Fact, Fleet};
use support::{agent, complete, definition, expire, fail, lose, once, release, step, write};

/// What an agent makes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Completes,
    Fails(&'static str),
    Loses,
    Ignores,
    Returns,
    Revoked,
}

impl How {
    fn begins(self) -> bool {
        matches!(self, Self::Completes | Self::Fails(_) | Self::Loses | Self::Revoked)
    }

    fn end(self) -> StepWish {
        match self {
            Self::Completes => complete(json!(1)),
            Self::Fails(code) => fail(code),
            Self::Loses => lose(LeaseEnd::LeaseExpired),
            Self::Ignores => expire(LeaseEnd::NoSignOfLife),
            Self::Returns => release(),
            Self::Revoked => lose(LeaseEnd::Revoked),
        }
    }
}

/// Ada makes this of a step of a new operation; says whether that was once too often.
fn work(fleet: &mut Fleet, how: How) -> Option<StatusReason> {
    let id = fleet.create(definition(vec![step(1, &[])]));
    make(fleet, &id, 1, how)
}

fn make(fleet: &mut Fleet, id: &OperationId, step: u32, how: How) -> Option<StatusReason> {
    fleet.offer(id, step, "ada").unwrap();
    if how.begins() {
        fleet.wish(id, step, StepWish::Acknowledge).unwrap();
    }
    fleet.wait(1_000);
    fleet.wish(id, step, how.end()).unwrap();
    fleet.judge("ada")
}

fn quarantined() -> Fleet {
    let mut fleet = Fleet::of(2);
    assert_eq!([How::Loses; 3].map(|how| work(&mut fleet, how))[2], Some(StatusReason::QuarantinedLosses));
    fleet
}

#[test]
fn three_losses_five_untaken_offers_or_five_failures_in_a_row_are_a_quarantine() {
    for (how, enough, reason, name) in [
        (How::Loses, 3, StatusReason::QuarantinedLosses, "quarantined_losses"),
        (How::Ignores, 5, StatusReason::QuarantinedUntaken, "quarantined_untaken"),
        (How::Fails("flaky"), 5, StatusReason::QuarantinedFailures, "quarantined_failures"),
    ] {
        let mut fleet = Fleet::of(1);
        for _ in 1..enough {
            assert_eq!(work(&mut fleet, how), None);
        }
        assert_eq!(work(&mut fleet, how), Some(reason));
        let agent = &fleet.row("ada").agent;
        assert_eq!((agent.status, agent.status_reason.name()), (Status::Error, name));
        assert_eq!(fleet.views.shown_status(&support::agent("ada"), agent), "error");
    }
}

#[test]
fn what_ends_a_row_and_what_does_not() {
    let (lost, untaken, failed) = (How::Loses, How::Ignores, How::Fails("flaky"));
    for (before, then, rows) in [
        (vec![failed, lost, untaken], How::Completes, [0, 0, 0]),
        (vec![failed, lost, untaken], failed, [0, 0, 2]),
        (vec![failed, lost, untaken], How::Fails("invalid"), [0, 0, 1]),
        (vec![failed, lost, untaken], lost, [2, 0, 1]),
        (vec![failed, lost, untaken], untaken, [1, 2, 1]),
        (vec![failed, lost, untaken], How::Returns, [1, 1, 1]),
        (vec![failed, lost, untaken], How::Revoked, [1, 1, 1]),
    ] {
        let mut fleet = Fleet::of(1);
        before.iter().for_each(|how| assert_eq!(work(&mut fleet, *how), None));
        assert_eq!(fleet.rows("ada"), [1, 1, 1]);
        assert_eq!(work(&mut fleet, then), None);
        assert_eq!(fleet.rows("ada"), rows, "{then:?}");
    }
}

#[test]
fn a_result_in_time_keeps_an_agent_in_service_for_ever() {
    for (bad, good, times) in [
        (How::Loses, How::Completes, 2),
        (How::Loses, How::Fails("cancelled"), 2),
        (How::Ignores, How::Completes, 4),
        (How::Ignores, How::Loses, 4),
        (How::Fails("flaky"), How::Completes, 4),
    ] {
        let mut fleet = Fleet::of(1);
        for _ in 0..3 {
            (0..times).for_each(|_| assert_eq!(work(&mut fleet, bad), None));
            // Losses of its own would be a row too.
            fleet.wait(1_000);
            assert_eq!(work(&mut fleet, good), None, "{bad:?} {good:?}");
            if good == How::Loses {
                work(&mut fleet, How::Completes);
            }
        }
        assert_eq!(fleet.row("ada").agent.status, Status::Active);
    }
}

#[test]
fn one_operation_counts_as_one_failure_and_some_codes_as_none() {
    let mut fleet = Fleet::of(1);
    let broken = fleet.create(support::continuing((1..=9).map(|number| once(number, &[])).collect()));
    for number in 1..=9 {
        assert_eq!(make(&mut fleet, &broken, number, How::Fails("flaky")), None);
        assert_eq!(fleet.rows("ada"), [0, 0, 1]);
    }
    for code in ["invalid", "type_mismatch", "rate_limited", "cancelled", "released", "timeout"] {
        (0..9).for_each(|_| assert_eq!(work(&mut fleet, How::Fails(code)), None));
        assert_eq!(fleet.rows("ada"), [0, 0, 1], "{code}");
    }
    // What a person must look at is a failure as well. An attempt that took too long is none of this row: its
    // time may have passed while the server was away.
    let id = fleet.create(definition(vec![write(1, &[])]));
    assert_eq!(make(&mut fleet, &id, 1, How::Fails("unknown_outcome")), None);
    assert_eq!(fleet.operation(&id).run.steps[0].status.name(), "needs_attention");
    assert_eq!(fleet.rows("ada"), [0, 0, 2]);
    let id = fleet.create(definition(vec![step(1, &[])]));
    fleet.begin(&id, 1, "ada");
    fleet.wait(60_000);
    fleet.wish(&id, 1, StepWish::TimeOut).unwrap();
    assert_eq!((fleet.judge("ada"), fleet.rows("ada")), (None, [0, 0, 2]));
}

#[test]
fn an_agent_may_ask_for_up_to_a_hundred_failures_or_for_no_limit() {
    for (asked, enough) in [(Some(0), None), (Some(1), Some(1)), (Some(100), Some(100)), (None, Some(5))] {
        let mut fleet = Fleet::new();
        let config = Config { failures_in_a_row: asked, ..profile(1, &[]).config };
        fleet.hire("ada", agent::Profile { config, ..profile(1, &[]) });
        let first = (1..=120).find(|_| work(&mut fleet, How::Fails("flaky")).is_some());
        assert_eq!(first, enough, "{asked:?}");
    }
    let faults = |failures| {
        let config = Config { failures_in_a_row: Some(failures), ..Config::default() };
        Patch { config: Some(config), ..Patch::default() }.faults().len()
    };
    assert_eq!([0, FAILURES_MAX, FAILURES_MAX + 1].map(faults), [0, 0, 1]);
}

#[test]
fn the_server_sets_the_numbers_and_none_is_never_enough() {
    let mut fleet = Fleet::of(1);
    for how in [How::Fails("flaky"), How::Fails("flaky"), How::Loses, How::Ignores] {
        assert_eq!(work(&mut fleet, how), None);
    }
    let streaks = &fleet.row("ada").work.streaks;
    let verdict = |losses, untaken, failures, own| {
        let config = Config { failures_in_a_row: own, ..Config::default() };
        streaks.verdict(&config, &Thresholds { losses, untaken, failures })
    };
    assert_eq!(verdict(0, 0, 0, None), None);
    assert_eq!(verdict(2, 2, 3, None), None);
    assert_eq!(verdict(1, 1, 1, None), Some(StatusReason::QuarantinedLosses));
    assert_eq!(verdict(0, 1, 1, None), Some(StatusReason::QuarantinedUntaken));
    assert_eq!(verdict(0, 0, 2, None), Some(StatusReason::QuarantinedFailures));
    assert_eq!(verdict(0, 0, 2, Some(3)), None);
    assert_eq!(verdict(0, 0, 0, Some(2)), Some(StatusReason::QuarantinedFailures));
}

#[test]
fn one_silence_that_costs_many_leases_is_one_loss() {
    let mut fleet = Fleet::of(8);
    for turn in 1..=3 {
        let id = fleet.create(definition((1..=8).map(|number| step(number, &[])).collect()));
        (1..=8).for_each(|number| fleet.begin(&id, number, "ada"));
        assert_eq!(fleet.free_slots("ada"), 0);
        fleet.wait(30_000);
        fleet.tell("ada", &SILENT).unwrap();
        fleet.settle("ada");
        assert_eq!((fleet.free_slots("ada"), fleet.rows("ada")), (8, [turn, 0, 0]));
        assert_eq!(fleet.judge("ada").is_some(), turn == 3);
        // An agent that only came back has shown nothing yet.
        if turn < 3 {
            fleet.tell("ada", &heard()).unwrap();
            assert_eq!(fleet.rows("ada"), [turn, 0, 0]);
        }
    }
}

#[test]
fn in_quarantine_what_an_agent_has_goes_on() {
    let mut fleet = Fleet::of(2);
    let id = fleet.create(definition(vec![step(1, &[])]));
    fleet.begin(&id, 1, "ada");
    assert_eq!([How::Loses; 3].map(|how| work(&mut fleet, how))[2], Some(StatusReason::QuarantinedLosses));
    fleet.settle("ada");
    assert!(fleet.lease(&id, 1).is_some());
    let completed = fleet.wish(&id, 1, complete(json!(1))).unwrap();
    assert_eq!(support::names(&completed)[0], "StepCompleted");
    // Work that it had is no reason to give it more, though its rows are over.
    assert!(fleet.row("ada").agent.is_quarantined());
    assert_eq!((fleet.rows("ada"), fleet.judge("ada")), ([0, 0, 0], None));
}

#[test]
fn a_quarantined_agent_that_falls_silent_loses_what_it_has_and_stays_where_it_is() {
    let mut fleet = Fleet::of(2);
    let id = fleet.create(definition(vec![step(1, &[])]));
    fleet.begin(&id, 1, "ada");
    (0..3).for_each(|_| _ = work(&mut fleet, How::Loses));
    assert_eq!(fleet.tell("ada", &SILENT).unwrap().len(), 1);
    fleet.settle("ada");
    assert_eq!(fleet.lease(&id, 1), None);
    assert_eq!((fleet.judge("ada"), fleet.row("ada").agent.is_quarantined()), (None, true));
}

#[test]
fn the_rows_begin_anew_with_a_registration_or_when_the_agent_is_activated() {
    for end in [own(Status::Active), told(Status::Active), register(profile(2, &["rust"]))] {
        let mut fleet = quarantined();
        fleet.tell("ada", &end).unwrap();
        assert_eq!((fleet.row("ada").agent.status, fleet.rows("ada")), (Status::Active, [0, 0, 0]));
        let again = [How::Loses; 3].map(|how| work(&mut fleet, how));
        assert_eq!(again, [None, None, Some(StatusReason::QuarantinedLosses)]);
    }
    // A drain that ends a quarantine keeps the rows until it is ended itself.
    let mut fleet = quarantined();
    fleet.tell("ada", &told(Status::Inactive)).unwrap();
    assert_eq!((fleet.rows("ada"), fleet.judge("ada")), ([3, 0, 0], None));
    fleet.tell("ada", &told(Status::Active)).unwrap();
    assert_eq!((fleet.rows("ada"), fleet.judge("ada")), ([0, 0, 0], None));
}

#[test]
fn what_an_earlier_incarnation_lost_is_not_held_against_the_next() {
    for gone in [register(profile(3, &[])), Command::Unregister] {
        let mut fleet = Fleet::of(3);
        let id = fleet.create(definition((1..=3).map(|number| step(number, &[])).collect()));
        (1..=3).for_each(|number| fleet.begin(&id, number, "ada"));
        fleet.tell("ada", &gone).unwrap();
        fleet.settle("ada");
        let judged = fleet.tell("ada", &quarantine(StatusReason::QuarantinedLosses));
        fleet.tell("ada", &told(Status::Active)).ok();
        match gone {
            Command::Unregister => assert_eq!(judged, Err(agent::Rejection::Unknown)),
            _ => assert_eq!(judged.unwrap().len(), 1),
        }
        fleet.tell("ada", &register(profile(3, &[]))).unwrap();
        assert_eq!((fleet.row("ada").agent.status, fleet.rows("ada")), (Status::Active, [0, 0, 0]));
        assert_eq!(fleet.row("ada").work.record.failed, 3);
    }
}

#[test]
fn a_drained_agent_finishes_what_it_has_and_is_not_quarantined() {
    let mut fleet = Fleet::of(3);
    let ids = [1, 2, 3].map(|_| fleet.create(definition(vec![step(1, &[])])));
    fleet.begin(&ids[0], 1, "ada");
    fleet.tell("ada", &told(Status::Inactive)).unwrap();
    fleet.settle("ada");
    assert!(fleet.lease(&ids[0], 1).is_some(), "a drain takes nothing away");
    // A grant may cross the drain by the lag of the views; it is finished like any other.
    for _ in 0..3 {
        assert_eq!(work(&mut fleet, How::Loses), None);
    }
    assert_eq!(fleet.rows("ada"), [3, 0, 0]);
    let judged = fleet.tell("ada", &quarantine(StatusReason::QuarantinedLosses));
    assert_eq!((judged, fleet.row("ada").agent.is_drained()), (Ok(vec![]), true));
}

/// A count from the facts alone, as naive as can be: how each lease of the newest incarnation ended, since
/// the agent began anew.
#[derive(Debug, Default)]
struct Count {
    incarnations: BTreeMap<AgentId, u64>,
    timed_out: BTreeSet<AgentId>,
    /// By operation and step: its grant, who has it, in which incarnation, and since when.
    held: BTreeMap<(OperationId, u32), (u64, AgentId, u64, Timestamp)>,
    ends: BTreeMap<AgentId, Vec<(&'static str, OperationId, Timestamp, Timestamp)>>,
}

impl Count {
    fn note(&mut self, fact: &Fact, at: Timestamp) {
        match fact {
            Fact::Agent(id, event) => self.note_agent(id, event),
            Fact::Operation(id, event) => self.note_operation(id, event, at),
        }
    }

    fn note_agent(&mut self, id: &AgentId, event: &agent::Event) {
        match event {
            agent::Event::Registered(now) | agent::Event::Reregistered(now) => {
                self.incarnations.insert(id.clone(), now.incarnation);
                self.timed_out.remove(id);
                self.ends.remove(id);
            }
            agent::Event::StatusChanged(changed) => {
                let silent = self.timed_out.remove(id);
                if changed.to == Status::Active && !silent {
                    self.ends.remove(id);
                }
                if changed.reason == StatusReason::Timeout {
                    self.timed_out.insert(id.clone());
                }
            }
            _ => {}
        }
    }

    fn note_operation(&mut self, id: &OperationId, event: &Event, at: Timestamp) {
        let excused = |code: &str| {
            ["invalid", "type_mismatch", "rate_limited", "cancelled", "released", "timeout"].contains(&code)
        };
        let failed = |code: &str| if excused(code) { "excused" } else { "failed" };
        let (step, grant, how) = match event {
            Event::StepReserved(new) => {
                let held = (new.grant, new.agent.clone(), new.incarnation, at);
                self.held.insert((id.clone(), new.step), held);
                return;
            }
            Event::StepsCancelled(cancelled) => {
                cancelled.steps.iter().for_each(|step| _ = self.held.remove(&(id.clone(), *step)));
                return;
            }
            Event::StepCompleted(end) => (end.step, end.grant, "completed"),
            Event::StepFailed(end) => (end.step, end.grant, failed(&end.error.code)),
            Event::StepNeedsAttention(end) => (end.step, end.grant, failed(&end.error.code)),
            Event::StepLeaseLost(end) if end.reason == LeaseEnd::Revoked => (end.step, end.grant, "other"),
            Event::StepLeaseLost(end) => (end.step, end.grant, "lost"),
            Event::StepOfferExpired(end) => match end.reason {
                LeaseEnd::NoSignOfLife | LeaseEnd::AgentTimeout => (end.step, end.grant, "untaken"),
                _ => (end.step, end.grant, "other"),
            },
            Event::StepReleased(end) => (end.step, end.grant, "other"),
            Event::StepLimited(end) => (end.step, end.grant, "other"),
            _ => return,
        };
        let key = (id.clone(), step);
        if self.held.get(&key).is_some_and(|(held, ..)| *held == grant)
            && let Some((_, agent, incarnation, since)) = self.held.remove(&key)
            && self.incarnations.get(&agent) == Some(&incarnation)
        {
            self.ends.entry(agent).or_default().push((how, id.clone(), since, at));
        }
    }

    fn rows(&self, id: &AgentId) -> [u32; 3] {
        let ends = self.ends.get(id).map(Vec::as_slice).unwrap_or_default();
        let since = |breaks: &[&str]| {
            let last = ends.iter().rposition(|(how, ..)| breaks.contains(how));
            &ends[last.map_or(0, |at| at + 1)..]
        };
        let row = |how: &str, breaks: &[&str]| {
            let mut counted: Option<Timestamp> = None;
            let of_kind = since(breaks).iter().filter(|(other, ..)| *other == how);
            of_kind.fold(0, |count, (_, _, began, at)| match counted {
                Some(last) if *began < last => count,
                _ => {
                    counted = Some(*at);
                    count + 1
                }
            })
        };
        let failed = since(&["completed"]).iter().filter(|(how, ..)| *how == "failed");
        let operations: BTreeSet<&OperationId> = failed.map(|(_, operation, ..)| operation).collect();
        let results = ["completed", "failed", "excused"];
        let taken = ["completed", "failed", "excused", "lost"];
        [row("lost", &results), row("untaken", &taken), operations.len().min(100) as u32]
    }
}

/// What happens next: to one of two agents, with one of four operations.
#[derive(Clone, Debug)]
enum Act {
    Work(usize, u32, usize, How),
    Begin(usize, u32, usize),
    End(usize, u32, How),
    Agent(usize, Command),
    Settle(usize),
    Judge(usize),
}

const NAMES: [&str; 2] = ["ada", "bob"];
const OPERATIONS: usize = 4;

fn acts() -> impl Strategy<Value = Act> {
    let hows = || {
        let failures = [How::Fails("flaky"), How::Fails("flaky"), How::Fails("invalid")];
        let others = [How::Completes, How::Loses, How::Loses, How::Ignores, How::Ignores, How::Returns];
        proptest::sample::select([&failures[..], &others[..], &[How::Revoked]].concat())
    };
    let (operation, step, who) = (|| 0..OPERATIONS, || 1..4_u32, || 0..NAMES.len());
    let lives = vec![
        own(Status::Active),
        own(Status::Inactive),
        own(Status::Error),
        told(Status::Active),
        told(Status::Inactive),
        heard(),
        SILENT,
        register(profile(3, &[])),
        Command::Unregister,
    ];
    prop_oneof![
        20 => (operation(), step(), who(), hows())
            .prop_map(|(of, step, who, how)| Act::Work(of, step, who, how)),
        8 => (operation(), step(), who()).prop_map(|(of, step, who)| Act::Begin(of, step, who)),
        8 => (operation(), step(), hows()).prop_map(|(of, step, how)| Act::End(of, step, how)),
        3 => (who(), proptest::sample::select(lives)).prop_map(|(who, command)| Act::Agent(who, command)),
        3 => who().prop_map(Act::Settle),
        6 => who().prop_map(Act::Judge),
    ]
}

/// Plays one act; what is refused changes nothing.
fn play(fleet: &mut Fleet, ids: &[OperationId], act: &Act) {
    match act {
        Act::Work(of, step, who, how) => {
            if fleet.offer(&ids[*of], *step, NAMES[*who]).is_ok() {
                if how.begins() {
                    fleet.wish(&ids[*of], *step, StepWish::Acknowledge).ok();
                }
                fleet.wait(500);
                fleet.wish(&ids[*of], *step, how.end()).ok();
            }
        }
        Act::Begin(of, step, who) => {
            if fleet.offer(&ids[*of], *step, NAMES[*who]).is_ok() {
                fleet.wish(&ids[*of], *step, StepWish::Acknowledge).ok();
            }
        }
        Act::End(of, step, how) => drop(fleet.wish(&ids[*of], *step, how.end())),
        Act::Agent(who, command) => drop(fleet.tell(NAMES[*who], command)),
        Act::Settle(who) => fleet.settle(NAMES[*who]),
        Act::Judge(who) => _ = fleet.judge(NAMES[*who]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_laws_of_quarantine(acts in proptest::collection::vec(acts(), 1..120)) {
        let mut fleet = Fleet::new();
        NAMES.iter().for_each(|name| fleet.hire(name, profile(3, &[])));
        let tough = |number| support::with(step(number, &[]), |step| step.retry.max_attempts = 100);
        let ids = [(); OPERATIONS].map(|()| fleet.create(support::continuing((1..4).map(tough).collect())));
        let mut count = Count::default();
        let mut seen = 0;
        for act in &acts {
            fleet.wait(60_000);
            let before = NAMES.map(|name| fleet.row(name).agent.clone());
            play(&mut fleet, &ids, act);
            fleet.log[seen..].iter().for_each(|(fact, stamp)| count.note(fact, stamp.at));
            seen = fleet.log.len();
            for (name, before) in NAMES.iter().zip(before) {
                let now = fleet.row(name);
                prop_assert_eq!(fleet.rows(name), count.rows(&agent(name)), "{} {:?}", name, count);
                let verdict = now.work.streaks.verdict(&now.agent.profile.config, &Thresholds::default());
                let [lost, untaken, failed] = fleet.rows(name);
                prop_assert_eq!(verdict.is_some(), lost >= 3 || untaken >= 5 || failed >= 5);
                if now.agent.is_quarantined() && !before.is_quarantined() {
                    prop_assert!(matches!(act, Act::Judge(_)) && before.is_in_service());
                    prop_assert_eq!(verdict, Some(now.agent.status_reason));
                }
                // An agent that is put in service again begins anew.
                if before.is_quarantined() && now.agent.status == Status::Active {
                    prop_assert_eq!(fleet.rows(name), [0, 0, 0]);
                }
            }
        }
        fleet.leases_agree();
        fleet.views_survive();
    }
}
