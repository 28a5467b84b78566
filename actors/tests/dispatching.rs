//! The dispatcher makes every match that is possible, without being asked to look again, and gives each
//! operation its turn.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::Core;
use actors::codec::Metadata;
use actors::dispatch::actor::Ask;
use actors::dispatch::claims::{Claim, ClaimId};
use actors::dispatch::task::Granted;
use actors::gateway::{Housed, Order};
use actors::in_flight::InFlight;
use actors::matching::Appetite;
use actors::ready::Scene;
use domain::agent::{Agent, Command as AgentCommand};
use domain::lane::{self, Lane};
use domain::operation::event::StepError;
use domain::operation::{Command, Operation, StepWish};
use domain::{AgentId, Json, LaneId, LeaseId, Limits, OperationId};
use events::faulty_log::{Fault, FaultyLog, Odds};
use events::{EventLog, MemoryLog, Position};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::model::Model;
use support::moves::{AGENTS, Move, moves};
use support::stage::{agent, profile, wide};
use support::{core, core_within, definition, id, until};
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

/// Random lives that are led.
const LIVES: u8 = 100;
/// Moves of each.
const MOVES: usize = 60;
/// How long a step is kept from who gave it back, in these lives.
const HOLD_MS: u64 = 40;
/// What becomes possible within this time is waited for; longer waits of the random lives are not.
const SOON_MS: u64 = 1_000;

/// Claims that do not pass through the door of the core are numbered from here on.
const OWN_CLAIMS: u64 = 1 << 40;

/// Most appends go well in these lives; the others refuse grants, or let them be carried out unheard.
const ODDS: Odds =
    Odds { lost_answer: 30, lost_append: 30, overloaded: 60, late_answer: 100, delay_max_ms: 5 };

/// A core, and the claims that wait for it.
struct House {
    core: Arc<Core>,
    claims: BTreeMap<AgentId, (Appetite, Receiver<Vec<Granted>>)>,
    claimed: u64,
}

impl House {
    async fn put<A: Housed>(&self, id: &A::Id, command: A::Command) -> bool {
        self.core.gateway.execute_shown::<A>(id, Order::of(command, Metadata::of_photon())).await.is_ok()
    }

    async fn register(&self, name: &str, slots: u32, capabilities: &[&str]) {
        let profile = Box::new(profile(slots, capabilities));
        assert!(self.put::<Agent>(&agent(name), AgentCommand::Register { profile, incarnation: None }).await);
    }

    async fn claim(&mut self, agent: &AgentId, appetite: Appetite) {
        let (reply, answer) = oneshot::channel();
        let until = self.core.around.clock.now().plus_ms(60_000);
        let metadata = Metadata::of_photon();
        let row = self.core.projected.views.read().agents.get(agent).map(|row| row.agent.incarnation);
        self.claimed += 1;
        let (id, incarnation) = (ClaimId(self.claimed), row.unwrap_or(1));
        let (asked, agent) = (appetite.clone(), agent.clone());
        let claim = Claim { id, agent: agent.clone(), incarnation, appetite: asked, until, metadata };
        // Only the newest claim of an agent waits.
        self.claims.insert(agent, (appetite, answer));
        self.core.dispatcher().unwrap().send(Ask { claim, reply }).await.unwrap();
    }

    fn held(&self, choice: usize) -> Option<LeaseId> {
        let leases = self.core.leases();
        let choice = choice.checked_rem(leases.len())?;
        leases.into_iter().nth(choice).map(|info| info.lease)
    }

    async fn carry_out(&mut self, next: Move) {
        match next {
            // Time passes by itself, and grants are answered by the core.
            Move::Wait(_) | Move::Answer(_) => {}
            Move::Claim(agent, appetite) => self.claim(&agent, appetite).await,
            Move::HangUp(agent) => _ = self.claims.remove(&agent),
            Move::Say(choice, wish) => {
                if let Some(lease) = self.held(choice) {
                    let _ = self.core.report(&lease, wish, Metadata::of_photon()).await;
                }
            }
            Move::Operation(id, command) => _ = self.put::<Operation>(&id, command).await,
            Move::Agent(id, command) => _ = self.put::<Agent>(&id, command).await,
            Move::Park(agent, ms) => {
                let until = self.core.around.clock.now().plus_ms(ms);
                let command =
                    lane::Command::Park { until, lease: LeaseId { operation: id(1), step: 1, grant: 1 } };
                _ = self.put::<Lane>(&LaneId::of_worker(&agent), command).await;
            }
        }
    }

    /// Whether somebody waits who could be given a step now, or soon if nothing else happens.
    fn misses_a_match(&mut self) -> bool {
        self.claims.retain(|_, (_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let waiting = self.claims.iter().map(|(agent, (appetite, _))| (agent, appetite.clone())).collect();
        let views = self.core.projected.views.read();
        let in_flight = InFlight::default();
        let now = self.core.around.clock.now();
        let elsewhere_ms = self.core.periods.retry_elsewhere_ms;
        [now, now.plus_ms(SOON_MS)].into_iter().any(|now| {
            Model::any(Scene { views: &views, in_flight: &in_flight, now, elsewhere_ms }, &waiting)
        })
    }
}

fn appear(name: &str) -> Move {
    let profile = Box::new(profile(2, &["x"]));
    Move::Agent(agent(name), AgentCommand::Register { profile, incarnation: None })
}

async fn lead_a_life(seed: u8) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let life = vec(moves(), MOVES).new_tree(&mut runner).unwrap().current();
    let log: Arc<dyn EventLog> =
        Arc::new(FaultyLog::seeded(Arc::new(MemoryLog::new()), u64::from(seed), ODDS));
    let limits = Limits { release_hold_ms: HOLD_MS, ..Limits::default() };
    let mut house =
        House { core: core_within(log, limits).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    for next in AGENTS.map(appear).into_iter().chain(life) {
        house.carry_out(next).await;
    }
    let begun = Instant::now();
    while house.misses_a_match() {
        assert!(begun.elapsed() < Duration::from_secs(10), "seed {seed}: a match was missed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.core.stop();
}

#[actix::test]
async fn every_match_that_is_possible_is_made_without_a_further_event() {
    for seed in 0..LIVES {
        lead_a_life(seed).await;
    }
}

/// Has a step given back or failed, after which nothing happens until it may be had again.
async fn again_after(wish: StepWish) {
    let limits = Limits { release_hold_ms: 200, ..Limits::default() };
    let core = core_within(Arc::new(MemoryLog::new()), limits).await;
    let house = House { core, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    house.register("ada", 1, &[]).await;
    let mut definition = definition("n");
    let mut step = definition.workflow[0].clone();
    (step.retry.initial_delay_ms, step.retry.jitter) = (200, 0.0);
    definition.workflow = vec![step].into();
    assert!(house.put::<Operation>(&id(1), Command::Create(Box::new(definition))).await);
    let lease = granted(&house.core, "ada").await;
    let begun = house.core.around.clock.now();
    house.core.report(&lease, wish, Metadata::of_photon()).await.unwrap();
    let again = granted(&house.core, "ada").await;
    assert_eq!(again.grant, lease.grant + 1);
    assert!(house.core.around.clock.now().ms_since(begun) >= 200);
    house.core.stop();
}

#[actix::test]
async fn who_gave_a_step_back_gets_it_when_the_hold_is_over_although_nothing_happens() {
    again_after(StepWish::Release { reason: "busy".into(), hold_ms: None }).await;
}

#[actix::test]
async fn a_failed_attempt_is_followed_by_another_when_its_wait_is_over_although_nothing_happens() {
    let error = StepError { code: "flaky".into(), message: "it did not work".into() };
    again_after(StepWish::Fail { error, retryable: true, retry_after_ms: None }).await;
}

#[actix::test]
async fn a_newer_claim_gets_the_slot_of_a_grant_that_was_refused() {
    let log = Arc::new(FaultyLog::scripted(Arc::new(MemoryLog::new()), []));
    let mut house = House { core: core(log.clone()).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    house.register("ada", 1, &["x"]).await;
    let mut definition = wide(2, "x");
    let mut steps = definition.workflow.to_vec();
    steps[1].action = "glue".parse().unwrap();
    definition.workflow = steps.into();
    assert!(house.put::<Operation>(&id(1), Command::Create(Box::new(definition))).await);
    log.then([Fault::Overloaded]);
    for action in ["work", "glue"] {
        house.claim(&agent("ada"), Appetite::of(1, Some(vec![action.parse().unwrap()]))).await;
    }
    let (_, answer) = house.claims.remove(&agent("ada")).unwrap();
    let granted = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
    assert_eq!(granted[0].reserved.step, 2);
    house.core.stop();
}

#[actix::test]
async fn a_step_that_was_perhaps_reserved_is_taken_back_before_it_is_given_again() {
    let log = Arc::new(FaultyLog::scripted(Arc::new(MemoryLog::new()), []));
    let house = House { core: core(log.clone()).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    house.register("ada", 1, &["x"]).await;
    assert!(house.put::<Operation>(&id(1), Command::Create(Box::new(wide(1, "x")))).await);
    log.then([Fault::LostAnswer]);
    let lease = granted(&house.core, "ada").await;
    assert_eq!(lease.grant, 2);
    let names = log.page(Position::START, u64::MAX).await.unwrap();
    let names: Vec<String> = names.iter().map(|event| event.name.to_string()).skip(3).collect();
    assert_eq!(names, ["step.reserved", "step.offer_expired", "step.reserved"]);
    house.core.stop();
}

/// Ada is given a step and that is not heard of; it becomes Bob's. Returns the grant that he has.
async fn given_unheard(fault: Fault) -> u64 {
    let log = Arc::new(FaultyLog::scripted(Arc::new(MemoryLog::new()), []));
    let mut house = House { core: core(log.clone()).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    house.register("ada", 1, &["x"]).await;
    house.register("bob", 1, &["x", "y"]).await;
    for name in ["ada", "bob"] {
        house.claim(&agent(name), Appetite::of(1, None)).await;
    }
    // Ada is the specialist and comes first.
    log.then([Fault::None, fault]);
    assert!(house.put::<Operation>(&id(1), Command::Create(Box::new(wide(1, "x")))).await);
    let holder = || house.core.leases().first().map(|info| (info.agent.clone(), info.lease.grant));
    until(|| holder().is_some_and(|(holder, _)| holder == agent("bob"))).await;
    let slots = |name: &str| {
        let views = house.core.projected.views.read();
        views.free_slots(&agent(name), &views.agents.get(&agent(name)).unwrap().agent)
    };
    assert_eq!((slots("ada"), slots("bob")), (1, 0));
    let (_, grant) = holder().unwrap();
    // Ada's slot is free for the dispatcher too.
    assert!(house.put::<Operation>(&id(2), Command::Create(Box::new(wide(1, "x")))).await);
    let (_, answer) = house.claims.remove(&agent("ada")).unwrap();
    let granted = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
    assert_eq!(granted[0].reserved.lease_id.operation, id(2));
    house.core.stop();
    grant
}

#[actix::test]
async fn a_slot_that_was_taken_unheard_is_freed_and_the_step_given_to_another() {
    assert_eq!(given_unheard(Fault::LostAnswer).await, 2);
}

#[actix::test]
async fn a_slot_that_was_perhaps_taken_is_freed_though_another_has_the_same_lease() {
    assert_eq!(given_unheard(Fault::LostAppend).await, 1);
}

#[actix::test]
async fn a_restart_finds_what_is_ready() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let mut house =
        House { core: core(Arc::clone(&log)).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    house.register("ada", 2, &["x"]).await;
    assert!(house.put::<Operation>(&id(1), Command::Create(Box::new(wide(2, "x")))).await);
    house.core.stop();
    house.core = core(log).await;
    let both = [granted(&house.core, "ada").await, granted(&house.core, "ada").await];
    assert_eq!(both.map(|lease| lease.step), [1, 2]);
    house.core.stop();
}

/// The lease that an agent gets, which waits as long as it takes.
async fn granted(core: &Core, name: &str) -> LeaseId {
    let agent = agent(name);
    let claim = core.claim(&agent, None, Appetite::of(1, None), 10_000, Metadata::of_photon());
    let granted = claim.await.unwrap();
    granted[0].reserved.lease_id.clone()
}

/// Claims and completes until this operation has ended.
async fn work(core: &Core, name: &str, until: &OperationId) {
    let has_ended = || core.projected.views.read().operations.find(until).unwrap().status.is_terminal();
    let (agent, begun) = (agent(name), Instant::now());
    while !has_ended() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the small operation is starved");
        let claim = core.claim(&agent, None, Appetite::of(1, None), 1_000, Metadata::of_photon());
        for granted in claim.await.unwrap() {
            let wish = StepWish::Complete { result: Json::object(), usage: None };
            core.report(&granted.reserved.lease_id, wish, Metadata::of_photon()).await.unwrap();
        }
    }
}

#[actix::test]
async fn a_large_operation_does_not_starve_a_small_one() {
    const LARGE: u32 = 5_000;
    let mut house =
        House { core: core(Arc::new(MemoryLog::new())).await, claims: BTreeMap::new(), claimed: OWN_CLAIMS };
    let names = ["ada", "bob", "eve", "kim"];
    for name in names {
        house.register(name, 1, &["x"]).await;
    }
    for (number, steps) in [(1, LARGE), (2, 5)] {
        assert!(house.put::<Operation>(&id(number), Command::Create(Box::new(wide(steps, "x")))).await);
    }
    let small = id(2);
    join_all(names.map(|name| work(&house.core, name, &small))).await;
    let settled = house.core.projected.views.read().operations.find(&id(1)).unwrap().settled;
    assert!(settled * 20 < LARGE as usize, "{settled} steps of the large operation were done meanwhile");
    house.claims.clear();
    house.core.stop();
}
