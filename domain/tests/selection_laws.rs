//! Laws of the choice, over random fleets: it depends on nothing but who is there and what is asked.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::Agent;
use domain::agent::event::{ReportedMetrics, Status};
use domain::agent::record::{Outcome, Record};
use domain::agent::selection::{Applicant, Candidates, Excluded, Need, Weights, select};
use domain::operation::definition::{Location, Requirements};
use domain::{AgentId, Timestamp};
use proptest::prelude::*;
use support::agent;
use support::crew::{crew, state};

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

/// An agent and how it is met.
#[derive(Clone, Debug)]
struct Member {
    id: AgentId,
    agent: Agent,
    record: Record,
    idle_since: Timestamp,
    free_slots: u32,
    freshness: f64,
    cpu: Option<f64>,
    waits: bool,
}

fn plain() -> Agent {
    state(&crew(2)).clone()
}

fn record(history: &[(Outcome, u64)]) -> Record {
    let mut record = Record::default();
    history.iter().for_each(|(outcome, ms)| record.add(*outcome, *ms, now()));
    record
}

fn member(at: usize, history: &[(Outcome, u64)]) -> Member {
    Member {
        id: agent(&format!("a{at:02}")),
        agent: plain(),
        record: record(history),
        idle_since: Timestamp::from_micros(0),
        free_slots: 1,
        freshness: 1.0,
        cpu: None,
        waits: true,
    }
}

fn histories() -> impl Strategy<Value = Vec<(Outcome, u64)>> {
    let outcomes = vec![Outcome::Completed, Outcome::Completed, Outcome::Failed, Outcome::Lost];
    proptest::collection::vec((proptest::sample::select(outcomes), 0..1_000_u64), 0..5)
}

fn members() -> impl Strategy<Value = Member> {
    let words = proptest::sample::subsequence(vec!["rust", "go", "sql"], 0..=3);
    let met = (0..3_u32, 0.0..=1.0_f64, proptest::option::of(0.0..=100.0_f64), any::<bool>());
    let statuses = vec![Status::Active, Status::Active, Status::Active, Status::Inactive, Status::Error];
    let places = proptest::sample::select(Location::ALL.to_vec());
    let own = (words, histories(), proptest::sample::select(statuses), places, 0..3_u64);
    (own, met).prop_map(|((words, history, status, location, idle), (free_slots, freshness, cpu, waits))| {
        let mut agent = plain();
        agent.profile.capabilities = words.into_iter().map(str::to_owned).collect();
        agent.profile.location = location;
        agent.status = status;
        let idle_since = Timestamp::from_micros(0).plus_ms(idle);
        let record = record(&history);
        let id = support::agent("a");
        Member { id, agent, record, idle_since, free_slots, freshness, cpu, waits }
    })
}

/// Ten at most, so that an explanation names all who fit.
fn fleets() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::vec(members(), 1..=10).prop_map(|mut fleet| {
        for (at, member) in fleet.iter_mut().enumerate() {
            member.id = agent(&format!("a{at:02}"));
        }
        fleet
    })
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let words = proptest::sample::subsequence(vec!["rust", "go", "sql"], 0..=2);
    let place = proptest::option::of(proptest::sample::select(Location::ALL.to_vec()));
    (words, place).prop_map(|(words, location)| Requirements {
        capabilities: words.into_iter().map(str::to_owned).collect(),
        location,
        ..Requirements::default()
    })
}

fn chosen(fleet: &[Member], requires: &Requirements) -> Candidates {
    let held = [(agent("a01"), now().plus_ms(1))];
    let among: Vec<AgentId> = (0..9).map(|at| agent(&format!("a{at:02}"))).collect();
    let need = Need { agent: None, among: &among, requires, held_from: &held, avoids: None };
    let applicants = fleet.iter().map(|member| Applicant {
        id: &member.id,
        agent: &member.agent,
        record: &member.record,
        idle_since: member.idle_since,
        free_slots: member.free_slots,
        freshness: member.freshness,
        reported: ReportedMetrics { cpu_usage: member.cpu, ..ReportedMetrics::default() },
        parked: false,
        waits: member.waits,
    });
    select(&need, applicants, Weights::default(), now())
}

fn all(excluded: &Excluded) -> u32 {
    let Excluded { not_asked, capability, requirement, status, held, capacity, not_waiting } = excluded;
    not_asked + capability + requirement + status + held + capacity + not_waiting
}

/// Parts of the score of the first of a fleet.
fn performance(own: &[(Outcome, u64)], others: &[Vec<(Outcome, u64)>]) -> f64 {
    let others = others.iter().enumerate().map(|(at, history)| member(at + 2, history));
    let fleet: Vec<Member> = std::iter::once(member(0, own)).chain(others).collect();
    let candidates = chosen(&fleet, &Requirements::default());
    let own = candidates.ranked.iter().find(|scored| scored.agent.as_str() == "a00");
    own.unwrap().performance
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_fleet_in_any_order_gives_the_same_table(
        fleet in fleets(), requires in requirements(), seed in any::<prop::sample::Index>(),
    ) {
        let first = chosen(&fleet, &requires);
        prop_assert_eq!(&chosen(&fleet, &requires), &first);
        let mut turned = fleet.clone();
        turned.rotate_left(seed.index(fleet.len()));
        turned.swap(0, seed.index(fleet.len()));
        prop_assert_eq!(&chosen(&turned, &requires), &first);
    }

    #[test]
    fn everybody_is_ranked_or_excluded_and_excluded_once(fleet in fleets(), requires in requirements()) {
        let candidates = chosen(&fleet, &requires);
        prop_assert_eq!(candidates.ranked.len() + all(&candidates.excluded) as usize, fleet.len());
        for scored in &candidates.ranked {
            let member = fleet.iter().find(|member| member.id == scored.agent).unwrap();
            prop_assert!(member.agent.status == Status::Active && member.free_slots > 0 && member.waits);
            let parts = [scored.capability, scored.performance, scored.availability, scored.location];
            prop_assert!(parts.iter().chain([&scored.score]).all(|part| (0.0..=1.0 + 1e-9).contains(part)));
        }
        let falls = candidates.ranked.windows(2).all(|pair| pair[0].score >= pair[1].score);
        prop_assert!(falls, "best first");
    }

    #[test]
    fn to_be_slower_or_to_fail_once_more_never_helps(
        own in histories(), others in proptest::collection::vec(histories(), 0..6), more in 0..1_000_u64,
    ) {
        let before = performance(&own, &others);
        let slower: Vec<_> = own.iter().map(|(outcome, ms)| (*outcome, ms + more)).collect();
        prop_assert!(performance(&slower, &others) <= before + 1e-9);
        let mut worse = own.clone();
        worse.push((Outcome::Failed, 0));
        prop_assert!(performance(&worse, &others) <= before + 1e-9);
        worse.push((Outcome::Lost, 0));
        prop_assert!(performance(&worse, &others) <= before + 1e-9);
    }
}

#[test]
fn who_has_done_one_step_is_not_yet_fast_or_slow() {
    let fleet = [vec![(Outcome::Completed, 100); 20], vec![(Outcome::Completed, 100); 20]];
    let after = |steps: usize, ms| performance(&vec![(Outcome::Completed, ms); steps], &fleet);
    let (new, once, often) = (performance(&[], &fleet), after(1, 10_000), after(20, 10_000));
    // One half, and as much as one success out of one is worth.
    assert_eq!(new, 0.5);
    assert!(once > 0.37 && often - 0.5 * 0.99 < 0.12, "{once} {often}");
}

#[test]
fn a_capability_that_is_named_twice_counts_once() {
    let mut member = member(0, &[]);
    member.agent.profile.capabilities = ["rust", "rust", "go"].map(str::to_owned).to_vec();
    let twice = vec!["rust".to_owned(), "rust".to_owned()];
    let requires = Requirements { capabilities: twice, ..Requirements::default() };
    assert_eq!(chosen(&[member], &requires).ranked[0].capability, 0.5);
}
