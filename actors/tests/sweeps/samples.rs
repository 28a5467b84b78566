//! The sample workflows of the sweeps. In each list a step stands behind those that it depends on.

use domain::operation::definition::{Definition, FailurePolicy, StepDefinition};
use domain::operation::retry::RetryPolicy;

use super::support::definition;

/// A workflow, and what the sweeps must know of it.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) definition: Definition,
    /// Steps that are skipped by their condition when all goes well.
    pub(super) skipped: Vec<u32>,
    /// The step whose final failure tells most.
    pub(super) telling: u32,
}

fn step(number: u32, dependencies: &[u32]) -> StepDefinition {
    StepDefinition {
        step: number,
        dependencies: dependencies.to_vec(),
        timeout_ms: 600_000,
        retry: RetryPolicy { initial_delay_ms: 1, jitter: 0.0, ..RetryPolicy::default() },
        ..definition("n").workflow[0].clone()
    }
}

fn when(number: u32, dependencies: &[u32], condition: &str) -> StepDefinition {
    StepDefinition { when: Some(condition.into()), ..step(number, dependencies) }
}

fn excused(number: u32, dependencies: &[u32]) -> StepDefinition {
    StepDefinition { continue_on_error: true, ..step(number, dependencies) }
}

fn sample(name: &'static str, workflow: Vec<StepDefinition>, telling: u32) -> Sample {
    let definition = Definition { workflow: workflow.into(), ..definition(name) };
    Sample { name, definition, skipped: Vec::new(), telling }
}

fn continuing(mut sample: Sample) -> Sample {
    sample.definition.failure_policy = FailurePolicy::Continue;
    sample
}

fn diamond() -> Vec<StepDefinition> {
    vec![step(1, &[]), step(2, &[1]), step(3, &[1]), step(4, &[2, 3])]
}

/// All of them.
pub(super) fn samples() -> Vec<Sample> {
    let fan = vec![step(1, &[]), step(2, &[1]), step(3, &[1]), step(4, &[1]), step(5, &[2, 3, 4])];
    let conditions = vec![
        step(1, &[]),
        when(2, &[1], "steps[1].result.step == 1"),
        when(3, &[1], "steps[1].result.step == 2"),
        when(4, &[3], "steps[3].result is none and false"),
        step(5, &[2, 4]),
    ];
    let errors = vec![
        excused(1, &[]),
        when(2, &[1], "steps[1].status == 'failed'"),
        excused(3, &[1]),
        step(4, &[2, 3]),
    ];
    let branches =
        vec![step(1, &[]), step(2, &[1]), step(3, &[2]), step(4, &[]), step(5, &[4]), step(6, &[3, 5])];
    let wide = (1..=5).map(|number| step(number, &[])).collect();
    let mut narrow = continuing(sample("max parallel", (1..=5).map(|number| step(number, &[])).collect(), 2));
    narrow.definition.max_parallel = Some(2);
    vec![
        sample("chain", vec![step(1, &[]), step(2, &[1]), step(3, &[2])], 2),
        sample("diamond", diamond(), 3),
        sample("fan-out", fan, 3),
        Sample { skipped: vec![3, 4], ..sample("conditions", conditions, 2) },
        Sample { skipped: vec![2], ..sample("excused errors", errors, 1) },
        continuing(sample("branches that go on", branches, 2)),
        sample("running beside the failure", wide, 3),
        narrow,
    ]
}
