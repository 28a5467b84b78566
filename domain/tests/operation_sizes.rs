//! What validation and the longest chains cost. Prints times; asserts results only.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::time::Instant;

use domain::operation::Status;
use domain::operation::definition::{Definition, StepDefinition};
use domain::operation::workflow::faults;
use domain::{Given, Json, Timestamp};
use serde_json::json;
use support::{Flow, definition, step, when, with, world};

fn codes(what: &str, workflow: Vec<StepDefinition>) -> Vec<&'static str> {
    let (definition, world) = (definition(workflow), world());
    let start = Instant::now();
    let found = faults(&definition, &Given { now: Timestamp::default(), world: &world });
    println!("{what}: {:?}, {} faults", start.elapsed(), found.len());
    found.into_iter().map(|fault| fault.code).collect()
}

/// Every step depends on the `each` steps before it.
fn dense(steps: u32, each: u32) -> Vec<StepDefinition> {
    (0..steps).map(|n| step(n, &(n.saturating_sub(each)..n).collect::<Vec<_>>())).collect()
}

/// Reads the first step, which only its ancestors' ancestors depend on.
fn reading_the_first(mut steps: Vec<StepDefinition>) -> Vec<StepDefinition> {
    for step in steps.iter_mut().skip(1) {
        step.inputs = Json::from(json!({"x": {"$expr": "steps[0].result"}}));
    }
    steps
}

#[test]
fn the_largest_workflows_are_validated_in_proportion_to_their_size() {
    assert_eq!(codes("10 000 steps, 99 945 edges", dense(10_000, 10)), Vec::<&str>::new());
    let reading = reading_the_first(dense(10_000, 10));
    assert_eq!(codes("the same, each reading the first", reading), Vec::<&str>::new());
    assert_eq!(codes("a chain of 10 000", reading_the_first(dense(10_000, 1))), Vec::<&str>::new());
}

#[test]
fn too_many_dependencies_are_refused_at_once() {
    let found = codes("1 000 steps, 10^6 edges", vec![step(1, &[2; 1_000]); 1_000]);
    assert_eq!(found, ["too_many_dependencies"]);
    assert_eq!(codes("one step, 10^6 edges", vec![step(1, &vec![2; 1_000_000])]), ["too_many_dependencies"]);
}

#[test]
fn large_cycles_are_found_and_named_in_short() {
    let mut ring = dense(10_000, 1);
    ring[0].dependencies = vec![9_999];
    assert_eq!(codes("a ring of 10 000", ring), ["cycle"]);
    let mut knot = dense(10_000, 9);
    for step in &mut knot[..9_000] {
        step.dependencies.push(step.step + 1_000);
    }
    assert_eq!(codes("a knot of 10 000", knot), ["cycle"]);
    let pairs = (0..10_000).map(|n| step(n, &[n ^ 1])).collect();
    assert_eq!(codes("5 000 pairs", pairs).len(), 100);
}

#[test]
fn a_chain_of_ten_thousand_skipped_steps_settles_in_one_decision() {
    let mut chain: Vec<StepDefinition> =
        (0..10_000_u32).map(|n| when(n, &(n.saturating_sub(1)..n).collect::<Vec<_>>(), "false")).collect();
    chain.push(step(10_000, &[9_999]));
    chain.remove(0);
    chain[0].dependencies.clear();
    let start = Instant::now();
    let flow = Flow::of(definition(chain));
    println!("9 999 skips: {:?}, {} events", start.elapsed(), flow.scenario.history.len());
    assert_eq!(flow.status(10_000), "ready");
    assert!(flow.scenario.history.len() < 10);
}

#[test]
fn ten_thousand_conditions_that_read_one_large_result_cost_little() {
    let mut star = vec![step(0, &[])];
    star.extend((1..10_000).map(|n| when(n, &[0], "steps[0].result.go")));
    let mut flow = Flow::of(definition(star));
    flow.begin(0);
    let start = Instant::now();
    flow.done_with_large_result();
    println!("9 999 conditions: {:?}", start.elapsed());
    assert_eq!(flow.operation().status(), Status::Completed);
}

#[test]
fn ten_thousand_failures_are_summed_up() {
    let broken = (0..10_000).map(|n| when(n, &[], "operation.metadata.missing")).collect();
    let flow = Flow::of(Definition {
        failure_policy: domain::operation::definition::FailurePolicy::Continue,
        ..definition(broken)
    });
    let errors = &flow.operation().errors;
    assert_eq!((errors.len(), errors[99].as_str()), (100, "and 9901 more steps failed"));
}

trait Large {
    fn done_with_large_result(&mut self);
}

impl Large for Flow {
    fn done_with_large_result(&mut self) {
        let result = json!({"go": false, "load": vec!["x"; 50_000]});
        self.wish(0, support::complete(result)).unwrap();
    }
}

#[test]
fn a_resolved_input_that_is_too_large_fails_the_step_with_its_code() {
    let doubled = with(step(2, &[1]), |step| {
        step.inputs =
            Json::from(json!({"a": {"$expr": "steps[1].result"}, "b": {"$expr": "steps[1].result"}}));
    });
    let mut flow = Flow::of(definition(vec![step(1, &[]), doubled]));
    flow.done(1, json!("x".repeat(200_000)));
    flow.offer(2, "ada").unwrap();
    let error = flow.operation().run.steps[1].error.clone().unwrap();
    assert_eq!((flow.status(2), error.code.as_str()), ("failed", "too_large"));
}
