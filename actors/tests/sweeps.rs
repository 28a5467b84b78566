//! Sweeps over sample workflows: each command is sent twice, each step fails in turn, and the answer to each
//! append is lost in turn. The end is that of the undisturbed run wherever it must be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "sweeps/performance.rs"]
mod performance;
#[path = "sweeps/samples.rs"]
mod samples;
mod support;

use std::collections::BTreeMap;

use domain::operation::definition::FailurePolicy;
use events::faulty_log::Fault;
use futures_util::{StreamExt, stream};
use performance::{Ending, Failing, Performance};
use samples::{Sample, samples};

/// Cores that run beside each other.
const BESIDE: usize = 16;

async fn undisturbed(sample: &Sample) -> Ending {
    Performance::of(sample).run().await
}

/// Steps that come to an agent's hands when all goes well.
fn performed(ending: &Ending) -> Vec<u32> {
    let performed = ending.steps.iter().filter(|(_, step)| step.status == "completed");
    performed.map(|(number, _)| *number).collect()
}

#[actix::test]
async fn every_sample_ends_as_it_must() {
    for sample in samples() {
        let ending = undisturbed(&sample).await;
        assert_eq!(ending.status, "completed", "{}", sample.name);
        for (number, step) in &ending.steps {
            let skipped = sample.skipped.contains(number);
            assert_eq!(step.status, if skipped { "skipped" } else { "completed" }, "{number}");
            assert_eq!(step.attempts, u32::from(!skipped));
        }
    }
}

#[actix::test]
async fn every_command_sent_twice_changes_nothing() {
    for sample in samples() {
        let ending = undisturbed(&sample).await;
        assert_eq!(Performance::of(&sample).twice().run().await, ending, "{}", sample.name);
        for step in performed(&ending) {
            for failing in [Failing::Once(step), Failing::ForGood(step)] {
                let plain = Performance::of(&sample).failing(failing).run().await;
                let twice = Performance::of(&sample).failing(failing).twice().run().await;
                assert_eq!(twice, plain, "{} {failing:?}", sample.name);
            }
        }
    }
}

#[actix::test]
async fn a_step_that_fails_once_costs_one_attempt_and_nothing_else() {
    for sample in samples() {
        let mut ending = undisturbed(&sample).await;
        for step in performed(&ending) {
            let failed = Performance::of(&sample).failing(Failing::Once(step)).run().await;
            ending.steps.get_mut(&step).unwrap().attempts = 2;
            assert_eq!(failed, ending, "{} step {step}", sample.name);
            ending.steps.get_mut(&step).unwrap().attempts = 1;
        }
    }
}

/// What must become of each step when one of them fails for good, by the rules and not by the product.
fn expected(sample: &Sample, broken: u32) -> BTreeMap<u32, &'static str> {
    let mut ends = BTreeMap::new();
    for step in &*sample.definition.workflow {
        let spoiled = step.dependencies.iter().any(|before| {
            let excused =
                sample.definition.workflow.iter().any(|one| one.step == broken && one.continue_on_error);
            matches!(ends.get(before), Some(&"spoiled")) || (*before == broken && !excused)
        });
        let end = match (step.step == broken, spoiled, sample.skipped.contains(&step.step)) {
            (true, ..) => "failed",
            (_, true, _) => "spoiled",
            (_, _, true) => "skipped",
            _ => "completed",
        };
        ends.insert(step.step, end);
    }
    ends
}

#[actix::test]
async fn a_step_that_fails_for_good_has_the_consequences_of_its_policy() {
    for sample in samples() {
        for broken in performed(&undisturbed(&sample).await) {
            let ending = Performance::of(&sample).failing(Failing::ForGood(broken)).run().await;
            let what = format!("{} step {broken}", sample.name);
            let excused =
                sample.definition.workflow.iter().any(|one| one.step == broken && one.continue_on_error);
            assert_eq!(ending.status, if excused { "completed" } else { "failed" }, "{what}");
            assert_eq!(ending.reason.as_deref(), (!excused).then_some("step_failed"), "{what}");
            let fast = sample.definition.failure_policy == FailurePolicy::FailFast && !excused;
            for (number, wanted) in expected(&sample, broken) {
                let status = ending.steps[&number].status;
                let right = match wanted {
                    "spoiled" => status == if fast { "cancelled" } else { "skipped" },
                    // Beside the broken one: done before it failed, or cut short by it.
                    "completed" | "skipped" if fast => status == wanted || status == "cancelled",
                    // A condition may look at what became of the step before.
                    "completed" | "skipped" if excused => matches!(status, "completed" | "skipped"),
                    _ => status == wanted,
                };
                assert!(right, "{what}: step {number} is {status}, not {wanted}");
            }
        }
    }
}

/// Runs a performance once for each append that it makes and each fault, several beside each other.
async fn with_each_append_disturbed(sample: &Sample, failing: Option<Failing>) -> usize {
    let of = || match failing {
        Some(failing) => Performance::of(sample).failing(failing),
        None => Performance::of(sample),
    };
    let plain = of().run().await;
    let faults = [Fault::LostAnswer, Fault::LostAppend, Fault::Overloaded];
    let appends = (0..plain.appends).flat_map(|append| faults.map(|fault| (append, fault)));
    let runs = appends.map(|(append, fault)| {
        let disturbed = of().with_fault(append, fault);
        async move { (append, fault, disturbed.run().await) }
    });
    let mut runs = stream::iter(runs).buffer_unordered(BESIDE);
    let mut count = 0;
    while let Some((append, fault, ending)) = runs.next().await {
        assert_eq!(ending, plain, "{} {failing:?}: {fault:?} at append {append}", sample.name);
        count += 1;
    }
    count
}

#[actix::test]
async fn a_lost_answer_to_any_append_changes_no_end() {
    let mut runs = 0;
    for sample in samples() {
        runs += with_each_append_disturbed(&sample, None).await;
    }
    println!("{runs} runs");
}

#[actix::test]
async fn a_lost_answer_to_any_append_of_a_failing_operation_changes_no_end() {
    let mut runs = 0;
    for sample in samples() {
        let last = sample.definition.workflow.iter().map(|step| step.step).max().unwrap();
        for failing in [Failing::Once(last), Failing::ForGood(sample.telling)] {
            runs += with_each_append_disturbed(&sample, Some(failing)).await;
        }
    }
    println!("{runs} runs");
}
