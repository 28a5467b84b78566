//! How a workflow would run, before it does: which steps may run together, and which chain takes longest.
//! Pure, and without recursion. It must never look at agents.

mod width;

use crate::operation::definition::Definition;
use crate::operation::step::Skeleton;

/// How a workflow would run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of the steps by level, each ascending: what a step depends on is in an earlier level.
    pub levels: Vec<Vec<u32>>,
    /// Numbers of the steps on the chain whose timeouts make the largest sum, first to last.
    pub critical_path: Vec<u32>,
    /// That sum, in milliseconds: with agents enough, no retries and no waiting, no run takes longer.
    pub critical_path_ms: u64,
    /// The most steps that can be under way at once, or `maxParallel` when that is less.
    pub width: usize,
}

impl Plan {
    /// Plans a workflow that was found valid; of a cycle nothing is planned.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        let skeleton = Skeleton::of(definition.workflow.clone());
        let steps = &skeleton.steps;
        let mut levels: Vec<Vec<u32>> = Vec::new();
        // Per step: the largest sum of timeouts up to and including it, and over which dependency.
        let mut reach: Vec<(u64, Option<usize>)> = vec![(0, None); steps.len()];
        let mut end: Option<usize> = None;
        let mut unmet: Vec<usize> = skeleton.dependencies.iter().map(|all| all.len()).collect();
        let mut level: Vec<usize> = (0..steps.len()).filter(|position| unmet[*position] == 0).collect();
        while !level.is_empty() {
            let mut next = Vec::new();
            for position in &level {
                let before = skeleton.dependencies[*position].iter().copied();
                let longest =
                    before.reduce(|one, other| if reach[other].0 > reach[one].0 { other } else { one });
                let sum = longest.map_or(0, |before| reach[before].0);
                reach[*position] = (sum.saturating_add(steps[*position].timeout_ms), longest);
                if end.is_none_or(|end| reach[*position].0 > reach[end].0) {
                    end = Some(*position);
                }
                for dependent in &*skeleton.dependents[*position] {
                    unmet[*dependent] -= 1;
                    if unmet[*dependent] == 0 {
                        next.push(*dependent);
                    }
                }
            }
            let mut numbers: Vec<u32> = level.iter().map(|position| steps[*position].step).collect();
            numbers.sort_unstable();
            levels.push(numbers);
            level = next;
        }
        let most = definition.max_parallel.map_or(usize::MAX, |most| most as usize);
        let mut path: Vec<usize> = std::iter::successors(end, |position| reach[*position].1).collect();
        path.reverse();
        Self {
            levels,
            critical_path: path.iter().map(|position| steps[*position].step).collect(),
            critical_path_ms: end.map_or(0, |end| reach[end].0),
            width: width::width(&skeleton).min(most),
        }
    }
}
