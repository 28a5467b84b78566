//! How a workflow would run: levels, the longest chain, the width. Compared with all chains of small ones.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::operation::definition::{Definition, StepDefinition};
use domain::operation::plan::Plan;
use proptest::prelude::*;
use support::{definition, step, with};

fn lasting(number: u32, dependencies: &[u32], timeout_ms: u64) -> StepDefinition {
    with(step(number, dependencies), |step| step.timeout_ms = timeout_ms)
}

#[test]
fn a_diamond_has_three_levels_and_its_longer_side_is_critical() {
    let workflow = || {
        vec![lasting(4, &[2, 3], 400), lasting(2, &[1], 2_000), lasting(3, &[1], 300), lasting(1, &[], 100)]
    };
    let plan = Plan::of(&definition(workflow()));
    assert_eq!(plan.levels, [vec![1], vec![2, 3], vec![4]]);
    assert_eq!((plan.critical_path, plan.critical_path_ms, plan.width), (vec![1, 2, 4], 2_500, 2));
    let narrow = Definition { max_parallel: Some(1), ..definition(workflow()) };
    assert_eq!(Plan::of(&narrow).width, 1);
}

#[test]
fn a_chain_of_ten_thousand_and_a_dense_graph_are_planned() {
    let chain =
        (1..=10_000).map(|number| if number == 1 { step(1, &[]) } else { step(number, &[number - 1]) });
    let plan = Plan::of(&definition(chain.collect()));
    assert_eq!((plan.levels.len(), plan.critical_path.len(), plan.width), (10_000, 10_000, 1));
    assert_eq!(plan.critical_path_ms, 600_000_000);
    let dense = (1..=10_000_u32).map(|number| {
        let before: Vec<u32> =
            (1..=10).map(|back| number.saturating_sub(back)).filter(|of| *of > 0).collect();
        step(number, &before)
    });
    assert_eq!(Plan::of(&definition(dense.collect())).critical_path.len(), 10_000);
}

#[test]
fn steps_of_different_levels_may_be_under_way_at_once() {
    // While 4 takes its time, 2 and 3 follow 1.
    let workflow = vec![step(1, &[]), step(2, &[1]), step(3, &[1]), step(4, &[])];
    assert_eq!(Plan::of(&definition(workflow)).width, 3);
}

#[test]
fn one_step_is_its_own_plan() {
    let plan = Plan::of(&definition(vec![lasting(7, &[], 5)]));
    let expected = Plan { levels: vec![vec![7]], critical_path: vec![7], critical_path_ms: 5, width: 1 };
    assert_eq!(plan, expected);
}

/// Small graphs, their steps in any order of the workflow and with any numbers.
fn graphs() -> impl Strategy<Value = Definition> {
    let one = (proptest::collection::vec(any::<bool>(), 8), 100..1_000_u64);
    let steps = proptest::collection::vec(one, 1..=8);
    let order = Just((1..=8_u32).collect::<Vec<_>>()).prop_shuffle();
    (steps, order, proptest::option::of(1..4_u32)).prop_map(|(steps, numbers, max_parallel)| {
        let mut workflow: Vec<StepDefinition> = steps
            .iter()
            .enumerate()
            .map(|(at, (edges, timeout_ms))| {
                let before: Vec<u32> = (0..at).filter(|other| edges[*other]).map(|at| numbers[at]).collect();
                lasting(numbers[at], &before, *timeout_ms)
            })
            .collect();
        workflow.sort_by_key(|step| step.step);
        Definition { max_parallel, ..definition(workflow) }
    })
}

fn find(definition: &Definition, number: u32) -> &StepDefinition {
    definition.workflow.iter().find(|step| step.step == number).unwrap()
}

/// The largest sum of any chain that ends with this step, by looking at all of them.
fn longest(definition: &Definition, number: u32) -> u64 {
    let step = find(definition, number);
    let before = step.dependencies.iter().map(|before| longest(definition, *before)).max();
    before.unwrap_or(0) + step.timeout_ms
}

/// Whether a step waits for another, perhaps over others.
fn waits(definition: &Definition, number: u32, before: u32) -> bool {
    let step = find(definition, number);
    step.dependencies.iter().any(|direct| *direct == before || waits(definition, *direct, before))
}

/// The size of the largest set of steps of which none waits for another, by looking at all sets.
fn widest(definition: &Definition) -> usize {
    let numbers: Vec<u32> = definition.workflow.iter().map(|step| step.step).collect();
    let apart = |set: &Vec<u32>| {
        set.iter().all(|one| set.iter().all(|other| one == other || !waits(definition, *one, *other)))
    };
    let sets = (0..1_u32 << numbers.len()).map(|set| {
        let chosen = numbers.iter().enumerate().filter(|(at, _)| (set >> at) & 1 == 1);
        chosen.map(|(_, number)| *number).collect::<Vec<u32>>()
    });
    sets.filter(apart).map(|set| set.len()).max().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_dependency_is_in_an_earlier_level_and_every_step_in_one(definition in graphs()) {
        let plan = Plan::of(&definition);
        let level = |number: u32| plan.levels.iter().position(|level| level.contains(&number)).unwrap();
        for step in &*definition.workflow {
            let own = level(step.step);
            prop_assert!(step.dependencies.iter().all(|before| level(*before) < own));
            // And no later than it must be.
            let last = step.dependencies.iter().map(|before| level(*before) + 1).max();
            prop_assert_eq!(own, last.unwrap_or(0));
        }
        prop_assert_eq!(plan.levels.iter().map(Vec::len).sum::<usize>(), definition.workflow.len());
    }

    #[test]
    fn the_width_is_the_largest_set_of_steps_of_which_none_waits_for_another(definition in graphs()) {
        let most = definition.max_parallel.map_or(usize::MAX, |most| most as usize);
        prop_assert_eq!(Plan::of(&definition).width, widest(&definition).min(most));
    }

    #[test]
    fn the_critical_path_is_a_chain_and_no_chain_is_longer(definition in graphs()) {
        let plan = Plan::of(&definition);
        for pair in plan.critical_path.windows(2) {
            prop_assert!(find(&definition, pair[1]).dependencies.contains(&pair[0]));
        }
        let sum: u64 = plan.critical_path.iter().map(|number| find(&definition, *number).timeout_ms).sum();
        prop_assert_eq!(sum, plan.critical_path_ms);
        let all = definition.workflow.iter().map(|step| longest(&definition, step.step));
        prop_assert_eq!(plan.critical_path_ms, all.max().unwrap());
    }
}
