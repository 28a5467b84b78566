//! Which waiting agent gets which ready step: urgency first, then turns, and nobody in the way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashMap};

use actors::matching::{Appetite, Floor, Pick, Turns};
use actors::presence::Presence;
use domain::agent::Event as AgentEvent;
use domain::agent::event::{Config, Profile, Registered};
use domain::agent::selection::Weights;
use domain::operation::Event;
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Location, Priority, Requirements, StepDefinition,
};
use domain::operation::retry::RetryPolicy;
use domain::views::Views;
use domain::{AgentId, Json, LeaseId, OperationId, Timestamp};

/// Views with operations and agents, all of whose steps are ready.
struct Stage {
    views: Views,
    turns: Turns,
}

impl Stage {
    fn new() -> Self {
        Self { views: Views::default(), turns: Turns::default() }
    }

    fn agent(mut self, id: &str, slots: u32, capabilities: &[&str]) -> Self {
        let profile = Profile {
            name: id.into(),
            model: "m".into(),
            capabilities: capabilities.iter().map(ToString::to_string).collect(),
            location: Location::Local,
            config: Config { max_concurrent_steps: slots, ..Config::default() },
            metadata: Json::object(),
        };
        let event = AgentEvent::Registered(Box::new(Registered { profile, incarnation: 1 }));
        self.views.apply_agent(&id.parse().unwrap(), &event, 1, Timestamp::default());
        self
    }

    fn operation(self, number: u128, priority: Priority, steps: u32, needs: &str) -> Self {
        self.narrow(number, priority, steps, needs, None)
    }

    fn narrow(
        mut self,
        number: u128,
        priority: Priority,
        steps: u32,
        needs: &str,
        most: Option<u32>,
    ) -> Self {
        let step = |number| StepDefinition {
            step: number,
            agent: None,
            platform: "worker".parse().unwrap(),
            action: "work".parse().unwrap(),
            inputs: Json::object(),
            dependencies: Vec::new(),
            timeout_ms: 1_000,
            retry: RetryPolicy::default(),
            requires: Requirements { capabilities: vec![needs.into()], ..Requirements::default() },
            when: None,
            continue_on_error: false,
            effect: EffectClass::Idempotent,
        };
        let definition = Definition {
            name: "n".into(),
            description: None,
            priority,
            agents: Vec::new(),
            platforms: Vec::new(),
            workflow: (1..=steps).map(step).collect(),
            deadline: None,
            metadata: Json::object(),
            failure_policy: FailurePolicy::FailFast,
            max_parallel: most,
            auto_start: true,
        };
        let id = OperationId::from_bits(number);
        self.views.apply_operation(&id, &Event::Created(Box::new(definition)), 1, Timestamp::default());
        self.views.apply_operation(&id, &Event::Started, 2, Timestamp::default());
        let row = self.views.operations.get(&id).unwrap();
        self.turns.enter(&id, row, row.run.as_ref().unwrap());
        self
    }

    fn pass(&mut self, waiting: &[(&AgentId, u32)], in_flight: &HashMap<LeaseId, AgentId>) -> Vec<u128> {
        let waiting = waiting.iter().map(|(agent, max)| (*agent, Appetite::of(*max, None)));
        let floor = Floor {
            views: &self.views,
            presence: &Presence::default(),
            waiting: waiting.collect(),
            in_flight,
            weights: Weights::default(),
            now: Timestamp::default(),
        };
        let picks = floor.pass(&mut self.turns, None);
        let mut all: Vec<&Pick> = picks.values().flatten().collect();
        all.sort_by(|one, other| one.lease.cmp(&other.lease));
        all.iter()
            .map(|pick| u128::from_str_radix(&pick.lease.operation.as_str()[3..], 16).unwrap())
            .collect()
    }
}

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

#[test]
fn operations_of_one_priority_take_turns() {
    let mut stage = Stage::new().agent("a", 100, &["x"]).operation(1, Priority::Medium, 50, "x").operation(
        2,
        Priority::Medium,
        2,
        "x",
    );
    assert_eq!(stage.pass(&[(&agent("a"), 4)], &HashMap::new()), [1, 1, 2, 2]);
}

#[test]
fn the_most_urgent_goes_first() {
    let mut stage = Stage::new().agent("a", 100, &["x"]).operation(1, Priority::Low, 5, "x").operation(
        2,
        Priority::Critical,
        2,
        "x",
    );
    assert_eq!(stage.pass(&[(&agent("a"), 3)], &HashMap::new()), [1, 2, 2]);
}

#[test]
fn a_step_that_nobody_takes_stands_in_nobodys_way() {
    let mut stage = Stage::new().agent("a", 1, &["x"]).agent("b", 1, &["y"]);
    for number in 1..=100 {
        stage = stage.operation(number, Priority::Critical, 20, "y");
    }
    stage = stage.operation(101, Priority::Low, 1, "x");
    assert_eq!(stage.pass(&[(&agent("a"), 1)], &HashMap::new()), [101]);
}

#[test]
fn a_parallel_limit_counts_what_is_being_granted() {
    let first = LeaseId { operation: OperationId::from_bits(1), step: 1, grant: 1 };
    let granting = HashMap::from([(first, agent("b"))]);
    let mut stage = Stage::new().agent("a", 5, &["x"]).narrow(1, Priority::High, 5, "x", Some(2)).narrow(
        2,
        Priority::Low,
        5,
        "x",
        Some(1),
    );
    assert_eq!(stage.pass(&[(&agent("a"), 5)], &granting), [1, 2]);
}

#[test]
fn a_pass_over_some_operations_leaves_the_others_alone() {
    let mut stage = Stage::new().agent("a", 5, &["x"]).operation(1, Priority::High, 1, "x").operation(
        2,
        Priority::Low,
        1,
        "x",
    );
    let (only, a) = (BTreeSet::from([OperationId::from_bits(2)]), agent("a"));
    let floor = Floor {
        views: &stage.views,
        presence: &Presence::default(),
        waiting: HashMap::from([(&a, Appetite::of(5, None))]),
        in_flight: &HashMap::new(),
        weights: Weights::default(),
        now: Timestamp::default(),
    };
    let picks = floor.pass(&mut stage.turns, Some(&only));
    assert_eq!(picks[&a].len(), 1);
    assert_eq!(picks[&a][0].lease.operation, OperationId::from_bits(2));
}
