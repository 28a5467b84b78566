//! Which agent gets a step: filters, score, ties; and that a part that falls never raises the score.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::collections::BTreeMap;

use domain::agent::Agent;
use domain::agent::event::{ReportedMetrics, Status};
use domain::agent::record::{Outcome, Record};
use domain::agent::selection::{Applicant, Candidates, EXPLAINED_MAX, Excluded, Need, Weights, select};
use domain::operation::definition::{Location, Requirements};
use domain::{AgentId, Timestamp};
use proptest::prelude::*;
use support::agent;
use support::crew::{crew, state};

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

fn changed(change: impl FnOnce(&mut Agent)) -> Agent {
    let mut agent = state(&crew(2)).clone();
    change(&mut agent);
    agent
}

/// An agent that is met as one without history, idle since the beginning of time.
struct Member {
    id: AgentId,
    agent: Agent,
    record: Record,
    idle_since: Timestamp,
}

fn member(name: &str, agent: Agent) -> Member {
    let idle_since = Timestamp::from_micros(0);
    Member { id: support::agent(name), agent, record: Record::default(), idle_since }
}

fn applicant(member: &Member) -> Applicant<'_> {
    let Member { id, agent, record, idle_since } = member;
    Applicant {
        id,
        agent,
        record,
        idle_since: *idle_since,
        free_slots: agent.slots(),
        freshness: 1.0,
        reported: ReportedMetrics::default(),
        parked: false,
        waits: true,
    }
}

fn needing(requires: &Requirements) -> Need<'_> {
    Need { agent: None, among: &[], requires, held_from: &[], avoids: None }
}

fn chosen(requires: &Requirements, members: &[Member]) -> Candidates {
    select(&needing(requires), members.iter().map(applicant), Weights::default(), now())
}

fn order(candidates: &Candidates) -> Vec<&str> {
    candidates.ranked.iter().map(|scored| scored.agent.as_str()).collect()
}

fn needs(capabilities: &[&str]) -> Requirements {
    let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
    Requirements { capabilities, ..Requirements::default() }
}

/// How many each filter excluded when this one applies.
fn excluded(need: &Need<'_>, change: impl FnOnce(&mut Applicant<'_>), agent: &Agent) -> Excluded {
    let ada = member("ada", agent.clone());
    let mut applicant = applicant(&ada);
    change(&mut applicant);
    let candidates = select(need, std::iter::once(applicant), Weights::default(), now());
    assert_eq!(candidates.best(), None);
    candidates.excluded
}

#[test]
fn each_filter_counts_whom_it_excludes() {
    let (plain, ada) = (changed(|_| {}), changed(|_| {}));
    let (none, bob, held) = (needs(&[]), agent("bob"), [(agent("ada"), now().plus_ms(1))]);
    let any = needing(&none);
    let zero = Excluded::default();
    let asked = Need { agent: Some(&bob), ..any };
    assert_eq!(excluded(&asked, |_| {}, &plain), Excluded { not_asked: 1, ..zero });
    let among = Need { among: std::slice::from_ref(&bob), ..any };
    assert_eq!(excluded(&among, |_| {}, &plain), Excluded { not_asked: 1, ..zero });
    let go = needs(&["rust", "go"]);
    assert_eq!(excluded(&Need { requires: &go, ..any }, |_| {}, &plain), Excluded { capability: 1, ..zero });
    let model = Requirements { model: Some("other".into()), ..needs(&[]) };
    let labels = Requirements { labels: BTreeMap::from([("zone".into(), "a".into())]), ..needs(&[]) };
    for requires in [&model, &labels] {
        let counted = excluded(&Need { requires, ..any }, |_| {}, &plain);
        assert_eq!(counted, Excluded { requirement: 1, ..zero });
    }
    let idle = changed(|agent| agent.status = Status::Inactive);
    assert_eq!(excluded(&any, |_| {}, &idle), Excluded { status: 1, ..zero });
    let kept = Need { held_from: &held, ..any };
    assert_eq!(excluded(&kept, |_| {}, &ada), Excluded { held: 1, ..zero });
    let (eve, own) = (agent("eve"), agent("ada"));
    let avoided = Need { avoids: Some(&own), ..any };
    assert_eq!(excluded(&avoided, |_| {}, &ada), Excluded { held: 1, ..zero });
    let other = Need { avoids: Some(&eve), ..any };
    assert_eq!(excluded(&other, |it| it.free_slots = 0, &ada), Excluded { capacity: 1, ..zero });
    assert_eq!(excluded(&any, |it| it.parked = true, &ada), Excluded { held: 1, ..zero });
    assert_eq!(excluded(&any, |it| it.free_slots = 0, &ada), Excluded { capacity: 1, ..zero });
    assert_eq!(excluded(&any, |it| it.waits = false, &ada), Excluded { not_waiting: 1, ..zero });
}

#[test]
fn an_agent_counts_at_the_first_filter_only_and_a_hold_ends() {
    let none = needs(&["go"]);
    let any = needing(&none);
    let idle = changed(|agent| agent.status = Status::Inactive);
    let counted = excluded(&any, |it| it.waits = false, &idle);
    assert_eq!(counted, Excluded { capability: 1, ..Excluded::default() });
    let (plain, held) = (needs(&[]), [(agent("ada"), now())]);
    let over = Need { held_from: &held, requires: &plain, ..any };
    let (ada, weights) = (member("ada", changed(|_| {})), Weights::default());
    assert!(select(&over, std::iter::once(applicant(&ada)), weights, now()).best().is_some());
}

#[test]
fn a_specialist_comes_before_a_generalist_who_also_fits() {
    let own = |names: &[&str]| {
        changed(|agent| agent.profile.capabilities = names.iter().map(|name| (*name).to_owned()).collect())
    };
    let agents = [member("all", own(&["go", "rust", "sql", "web"])), member("one", own(&["rust"]))];
    let candidates = chosen(&needs(&["rust"]), &agents);
    assert_eq!(order(&candidates), ["one", "all"]);
    assert_eq!((candidates.ranked[0].capability, candidates.ranked[1].capability), (1.0, 0.25));
}

#[test]
fn a_place_is_scored_as_equal_near_or_elsewhere() {
    for (wanted, own, score) in [
        (None, Location::Mobile, 1.0),
        (Some(Location::Edge), Location::Edge, 1.0),
        (Some(Location::Local), Location::Edge, 0.5),
        (Some(Location::Remote), Location::Cloud, 0.5),
        (Some(Location::Local), Location::Cloud, 0.0),
        (Some(Location::Mobile), Location::Local, 0.0),
    ] {
        let agents = [member("ada", changed(|agent| agent.profile.location = own))];
        let requires = Requirements { location: wanted, ..needs(&[]) };
        assert_eq!(chosen(&requires, &agents).ranked[0].location, score, "{wanted:?} {own:?}");
    }
}

#[test]
fn without_history_every_part_of_performance_is_neutral() {
    let scored = &chosen(&needs(&[]), &[member("ada", changed(|_| {}))]).ranked[0];
    assert_eq!((scored.performance, scored.availability, scored.capability), (0.5, 1.0, 1.0));
    assert!((scored.score - 0.85).abs() < 1e-9);
}

#[test]
fn who_does_well_and_fast_comes_first() {
    let worked = |name: &str, outcome, ms| {
        let mut member = member(name, changed(|_| {}));
        member.record.add(outcome, ms, now());
        member
    };
    let agents = [
        worked("slow", Outcome::Completed, 9_000),
        worked("bad", Outcome::Failed, 10),
        worked("fast", Outcome::Completed, 10),
    ];
    assert_eq!(order(&chosen(&needs(&[]), &agents)), ["fast", "slow", "bad"]);
}

fn idle(name: &str, ms: u64) -> Member {
    let idle_since = Timestamp::from_micros(0).plus_ms(ms);
    Member { idle_since, ..member(name, changed(|_| {})) }
}

#[test]
fn ties_go_to_the_longest_idle_and_then_to_the_lower_id() {
    let agents = [idle("c", 5), idle("b", 9), idle("a", 9), idle("d", 1)];
    assert_eq!(order(&chosen(&needs(&[]), &agents)), ["d", "c", "a", "b"]);
}

#[test]
fn an_explanation_lists_the_best_ten() {
    let agents: Vec<_> = (10..40).map(|n| member(&format!("a{n}"), changed(|_| {}))).collect();
    let candidates = chosen(&needs(&[]), &agents);
    assert_eq!((candidates.ranked.len(), candidates.best()), (EXPLAINED_MAX, Some(&agent("a10"))));
}

/// What a score is made of, each between 0 and 1, and larger is better.
#[derive(Clone, Debug)]
struct Parts {
    spare: u32,
    freshness: f64,
    ease: f64,
    free: u32,
    near: u8,
}

fn parts() -> impl Strategy<Value = Parts> {
    (0..6_u32, 0.0..1.0_f64, 0.0..1.0_f64, 1..9_u32, 0..3_u8)
        .prop_map(|(spare, freshness, ease, free, near)| Parts { spare, freshness, ease, free, near })
}

fn score(parts: &Parts) -> f64 {
    let agent = changed(|agent| {
        agent.profile.config.max_concurrent_steps = 8;
        agent.profile.location = [Location::Cloud, Location::Edge, Location::Local][parts.near as usize];
        // Fewer capabilities beside the needed one are a better fit.
        agent.profile.capabilities.extend((parts.spare..6).map(|n| format!("c{n}")));
    });
    let ada = member("ada", agent);
    let requires = Requirements { location: Some(Location::Local), ..needs(&["rust"]) };
    let need = needing(&requires);
    let cpu_usage = Some(100.0 - 100.0 * parts.ease);
    let applicant = Applicant {
        free_slots: parts.free,
        freshness: parts.freshness,
        reported: ReportedMetrics { cpu_usage, ..ReportedMetrics::default() },
        ..applicant(&ada)
    };
    select(&need, std::iter::once(applicant), Weights::default(), now()).ranked[0].score
}

proptest! {
    #[test]
    fn a_part_that_falls_never_raises_the_score(high in parts(), low in parts(), which in 0..5_u8) {
        let mut fallen = high.clone();
        match which {
            0 => fallen.spare = fallen.spare.min(low.spare),
            1 => fallen.freshness = fallen.freshness.min(low.freshness),
            2 => fallen.ease = fallen.ease.min(low.ease),
            3 => fallen.free = fallen.free.min(low.free),
            _ => fallen.near = fallen.near.min(low.near),
        }
        prop_assert!(score(&fallen) <= score(&high) + 1e-12);
        prop_assert!((0.0..=1.0 + 1e-12).contains(&score(&high)));
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order_of_the_applicants(
        idle in proptest::collection::vec(0..4_u64, 1..15), turn in any::<prop::sample::Index>(),
    ) {
        let idle = idle.iter().enumerate();
        let mut agents: Vec<Member> = idle.map(|(n, ms)| self::idle(&format!("a{n:02}"), *ms)).collect();
        let first = chosen(&needs(&[]), &agents);
        let by = turn.index(agents.len());
        agents.rotate_left(by);
        prop_assert_eq!(chosen(&needs(&[]), &agents), first);
    }
}
