//! What matching one claim costs, by the number of ready steps: `cargo bench -p actors --bench matching`.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use actors::in_flight::InFlight;
use actors::matching::{Appetite, Floor};
use actors::presence::Presence;
use actors::ready::{Ready, Scene};
use domain::agent::Event as AgentEvent;
use domain::agent::event::{Config, Profile, Registered};
use domain::agent::selection::Weights;
use domain::operation::Event;
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Location, Priority, Requirements, StepDefinition,
};
use domain::operation::retry::RetryPolicy;
use domain::views::{Stamp, Views};
use domain::{AgentId, Json, OperationId, Timestamp};

/// Most steps of one operation in the third case; more ready steps are spread over more operations.
const STEPS_MAX: usize = 10_000;
/// Each figure is the middle one of so many rounds.
const ROUNDS: usize = 7;
/// How long one round takes at least.
const ROUND: Duration = Duration::from_millis(60);

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn stamp(revision: u64) -> Stamp {
    Stamp { revision, position: revision, at: Timestamp::default() }
}

fn scene<'s>(views: &'s Views, in_flight: &'s InFlight) -> Scene<'s> {
    Scene { views, in_flight, now: Timestamp::default(), elsewhere_ms: 30_000 }
}

fn register(views: &mut Views, id: &str, slots: u32) {
    let profile = Profile {
        name: id.into(),
        model: "m".into(),
        capabilities: vec!["x".into()],
        location: Location::Local,
        config: Config { max_concurrent_steps: slots, ..Config::default() },
        metadata: Json::object(),
    };
    let event = AgentEvent::Registered(Box::new(Registered { profile, incarnation: 1 }));
    views.apply_agent(&agent(id), &event, stamp(1));
}

fn definition(steps: usize, asks: Option<&str>) -> Definition {
    let step = |number| StepDefinition {
        step: number,
        agent: asks.map(agent),
        platform: "worker".parse().unwrap(),
        action: "work".parse().unwrap(),
        title: None,
        inputs: Json::object(),
        dependencies: Vec::new(),
        timeout_ms: 1_000,
        retry: RetryPolicy::default(),
        requires: Requirements { capabilities: vec!["x".into()], ..Requirements::default() },
        when: None,
        continue_on_error: false,
        effect: EffectClass::Idempotent,
    };
    Definition {
        name: "n".into(),
        description: None,
        priority: Priority::Medium,
        agents: Vec::new(),
        platforms: Vec::new(),
        workflow: (1..=u32::try_from(steps).unwrap()).map(step).collect(),
        deadline: None,
        metadata: Json::object(),
        failure_policy: FailurePolicy::FailFast,
        max_parallel: None,
        auto_start: true,
    }
}

/// Views in which eight agents are registered, one waits, and all steps are ready.
struct Stage {
    views: Views,
    ready: Ready,
    in_flight: InFlight,
    operations: u128,
}

impl Stage {
    fn new() -> Self {
        let mut views = Views::default();
        for number in 0..8 {
            register(&mut views, &format!("agent-{number}"), 4);
        }
        register(&mut views, "full", 0);
        Self { views, ready: Ready::new(300_000, 1), in_flight: InFlight::default(), operations: 0 }
    }

    fn add(&mut self, steps: usize, asks: Option<&str>) {
        let id = self.start(steps, asks);
        self.look(&id, 0..steps);
    }

    fn start(&mut self, steps: usize, asks: Option<&str>) -> OperationId {
        self.operations += 1;
        let id = OperationId::from_bits(self.operations);
        let created = Event::Created(Box::new(definition(steps, asks)));
        self.views.apply_operation(&id, &created, stamp(1));
        self.views.apply_operation(&id, &Event::Started, stamp(2));
        id
    }

    fn look(&mut self, id: &OperationId, moved: impl IntoIterator<Item = usize>) {
        let scene = scene(&self.views, &self.in_flight);
        self.ready.look(scene, id, moved);
    }

    /// Matches one claim, and lets the step come back as if it were refused.
    fn claim(&mut self, who: &AgentId) {
        let floor = Floor {
            scene: scene(&self.views, &self.in_flight),
            presence: &Presence::default(),
            waiting: BTreeMap::from([(who, Appetite::of(1, None))]),
            able: BTreeSet::from([who]),
            weights: Weights::default(),
        };
        let picks = floor.pass(&mut self.ready);
        let pick = black_box(picks.into_values().next().unwrap().pop().unwrap());
        // Numbers begin with 1, positions with 0.
        self.look(&pick.lease.operation, [pick.lease.step as usize - 1]);
    }
}

fn one_operation(steps: usize) -> Stage {
    let mut stage = Stage::new();
    stage.add(steps, None);
    stage
}

fn many_operations(steps: usize) -> Stage {
    let mut stage = Stage::new();
    for _ in 0..steps.div_ceil(10) {
        stage.add(steps.min(10), None);
    }
    stage
}

fn behind_a_full_agent(steps: usize) -> Stage {
    let mut stage = Stage::new();
    for _ in 0..steps.div_ceil(STEPS_MAX) {
        stage.add(steps.min(STEPS_MAX), Some("full"));
    }
    stage.add(1, None);
    stage
}

/// Nanoseconds for one claim.
fn measure(mut stage: Stage) -> u128 {
    let who = agent("agent-0");
    let mut rounds: Vec<u128> = (0..ROUNDS).map(|_| round(&mut stage, &who)).collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn round(stage: &mut Stage, who: &AgentId) -> u128 {
    let (begun, mut claims) = (Instant::now(), 0);
    while begun.elapsed() < ROUND {
        stage.claim(who);
        claims += 1;
    }
    begun.elapsed().as_nanos() / claims
}

/// Bytes of the index for one ready step, by what the process holds more once it is built.
fn index_bytes(operations: usize, steps: usize) -> u64 {
    let mut stage = Stage::new();
    let ids: Vec<OperationId> = (0..operations).map(|_| stage.start(steps, None)).collect();
    let (before, begun) = (resident_bytes(), Instant::now());
    ids.iter().for_each(|id| stage.look(id, 0..steps));
    let (count, elapsed) = ((operations * steps) as u64, begun.elapsed());
    println!("{operations} operations of {steps} steps were indexed in {} ms", elapsed.as_millis());
    resident_bytes().saturating_sub(before) / count
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

type Case = (&'static str, fn(usize) -> Stage);

fn main() {
    let cases: [Case; 3] = [
        ("one operation", one_operation),
        ("operations of ten steps", many_operations),
        ("all but one ask for a full agent", behind_a_full_agent),
    ];
    println!("ns for a claim to be matched, and its step to come back; by ready steps");
    println!("{:34} {:>10} {:>10} {:>10} {:>10}", "", 10, 1_000, 10_000, 100_000);
    for (name, stage) in cases {
        let figures = [10, 1_000, 10_000, 100_000].map(|steps| measure(stage(steps)));
        println!("{name:34} {:>10} {:>10} {:>10} {:>10}", figures[0], figures[1], figures[2], figures[3]);
    }
    for (operations, steps) in [(20, 10_000), (20_000, 10), (100_000, 1)] {
        println!("{} bytes for each ready step", index_bytes(operations, steps));
    }
}
