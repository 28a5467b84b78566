//! Checks a workflow before it is accepted: every fault at once, each with its step and place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::operation::definition::{Definition, StepDefinition};
use crate::operation::expression;
use crate::world::PlatformRule;
use crate::{Given, PlatformName};

/// Faults that are listed; more would only hide the first ones.
const FAULTS_MAX: usize = 100;
/// Shortest timeout of a step, in milliseconds.
const TIMEOUT_MIN_MS: u64 = 100;
/// Longest timeout of a step: seven days.
const TIMEOUT_MAX_MS: u64 = 604_800_000;

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer into the request.
    pub pointer: String,
    /// The step's number, when it is about a step.
    pub step: Option<u32>,
    /// A stable slug.
    pub code: &'static str,
    /// A sentence.
    pub detail: String,
}

/// Lists everything that is wrong with a definition; an empty list accepts it.
#[must_use]
pub fn faults(definition: &Definition, given: &Given<'_>) -> Vec<Fault> {
    let mut check = Check { definition, given, faults: Vec::new() };
    check.sizes();
    if check.faults.is_empty() {
        check.agents_and_platforms();
        check.steps();
        check.graph();
    }
    check.faults.truncate(FAULTS_MAX);
    check.faults
}

struct Check<'c> {
    definition: &'c Definition,
    given: &'c Given<'c>,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, pointer: String, code: &'static str, detail: String) {
        self.faults.push(Fault { pointer, step: None, code, detail });
    }

    fn step_fault(&mut self, index: usize, field: &str, code: &'static str, detail: String) {
        let step = Some(self.definition.workflow[index].step);
        self.faults.push(Fault { pointer: format!("/workflow/{index}{field}"), step, code, detail });
    }

    /// Sizes come first: everything after may then take time in proportion to them.
    fn sizes(&mut self) {
        let limits = &self.given.world.limits;
        let steps = &self.definition.workflow;
        if steps.is_empty() {
            self.fault("/workflow".into(), "empty", "a workflow needs at least one step".into());
        }
        if steps.len() > limits.max_steps {
            let detail = format!("a workflow has at most {} steps, this one {}", limits.max_steps, steps.len());
            self.fault("/workflow".into(), "too_many_steps", detail);
        }
        let edges: usize = steps.iter().map(|step| step.dependencies.len()).sum();
        if edges > limits.max_edges {
            let detail = format!("a workflow has at most {} dependencies, this one {edges}", limits.max_edges);
            self.fault("/workflow".into(), "too_many_dependencies", detail);
        }
        let bytes = steps.iter().map(|step| step.inputs.len()).sum::<usize>() + self.definition.metadata.len();
        if bytes > limits.max_definition_bytes {
            let max = limits.max_definition_bytes;
            let detail = format!("inputs and metadata have at most {max} bytes in all, these have {bytes}");
            self.fault("/workflow".into(), "too_large", detail);
        }
    }

    fn agents_and_platforms(&mut self) {
        for (index, agent) in self.definition.agents.iter().enumerate() {
            if !self.given.world.agents.is_registered(agent) {
                let detail = format!("agent {agent} is not registered: register it first or leave it out");
                self.fault(format!("/agents/{index}"), "unknown_agent", detail);
            }
        }
        for (index, platform) in self.definition.platforms.iter().enumerate() {
            self.platform(format!("/platforms/{index}"), None, platform);
        }
    }

    fn platform(&mut self, pointer: String, step: Option<u32>, platform: &PlatformName) -> bool {
        let known = &self.given.world.platforms;
        if known.contains_key(platform) {
            return true;
        }
        let names: Vec<&str> = known.keys().map(PlatformName::as_str).collect();
        let detail = format!("platform {platform} is not available; available: {}", names.join(", "));
        self.faults.push(Fault { pointer, step, code: "platform_unavailable", detail });
        false
    }

    fn steps(&mut self) {
        let mut numbers = BTreeSet::new();
        for index in 0..self.definition.workflow.len() {
            let step = &self.definition.workflow[index];
            if !numbers.insert(step.step) {
                let detail = format!("step number {} is used more than once", step.step);
                self.step_fault(index, "/step", "duplicate_step", detail);
            }
            self.performer(index, step);
            self.bounds(index, step);
            if self.faults.len() >= FAULTS_MAX {
                return;
            }
        }
    }

    fn performer(&mut self, index: usize, step: &StepDefinition) {
        if self.platform(format!("/workflow/{index}/platform"), Some(step.step), &step.platform) {
            let rule = &self.given.world.platforms[&step.platform];
            if let PlatformRule::Actions(actions) = rule
                && !actions.iter().any(|known| known == step.action.as_str())
            {
                let detail = format!("platform {} has no action {}", step.platform, step.action);
                self.step_fault(index, "/action", "unknown_action", detail);
            }
            if !self.definition.platforms.is_empty() && !self.definition.platforms.contains(&step.platform) {
                let detail = format!("platform {} is not in the operation's platforms", step.platform);
                self.step_fault(index, "/platform", "platform_not_listed", detail);
            }
        }
        let Some(agent) = &step.agent else { return };
        if !self.given.world.agents.is_registered(agent) {
            let detail = format!("agent {agent} is not registered: register it first or use \"auto\"");
            self.step_fault(index, "/agent", "unknown_agent", detail);
        }
        if !self.definition.agents.is_empty() && !self.definition.agents.contains(agent) {
            let detail = format!("agent {agent} is not in the operation's agents");
            self.step_fault(index, "/agent", "agent_not_listed", detail);
        }
    }

    fn bounds(&mut self, index: usize, step: &StepDefinition) {
        if !(TIMEOUT_MIN_MS..=TIMEOUT_MAX_MS).contains(&step.timeout_ms) {
            let detail = format!("timeout must be from {TIMEOUT_MIN_MS} to {TIMEOUT_MAX_MS} ms");
            self.step_fault(index, "/timeout", "out_of_bounds", detail);
        }
        for (field, detail) in step.retry.faults() {
            self.step_fault(index, &format!("/retryPolicy/{field}"), "out_of_bounds", detail.into());
        }
    }

    fn graph(&mut self) {
        let workflow = Graph::of(self.definition);
        for (index, number) in workflow.unknown.clone() {
            let detail = format!("dependency {number} is not a step of this workflow");
            self.step_fault(index, "/dependencies", "unknown_dependency", detail);
        }
        for index in workflow.selfish.clone() {
            let detail = format!("step {} depends on itself", self.definition.workflow[index].step);
            self.step_fault(index, "/dependencies", "self_dependency", detail);
        }
        let cycles = workflow.cycles();
        for cycle in &cycles {
            let numbers: Vec<String> =
                cycle.iter().map(|index| self.definition.workflow[*index].step.to_string()).collect();
            let detail = format!("the steps depend on each other in a cycle: {}", numbers.join(" → "));
            self.step_fault(cycle[0], "/dependencies", "cycle", detail);
        }
        if cycles.is_empty() && workflow.unknown.is_empty() && workflow.selfish.is_empty() {
            self.expressions(&workflow);
        }
    }

    fn expressions(&mut self, workflow: &Graph) {
        let mut ancestors = None;
        for (index, step) in self.definition.workflow.iter().enumerate() {
            let inputs = expression::references(&step.inputs.value());
            let condition = step.when.as_deref().map(expression::condition_references);
            for (field, read) in std::iter::once(("/inputs", inputs)).chain(condition.map(|read| ("/when", read)))
            {
                let steps = match read {
                    Ok(steps) => steps,
                    Err(detail) => {
                        self.step_fault(index, field, "template", detail);
                        continue;
                    }
                };
                for number in steps.into_iter().filter(|number| !step.dependencies.contains(number)) {
                    let ancestors = ancestors.get_or_insert_with(|| workflow.ancestors());
                    let known = workflow.index.get(&number);
                    if !known.is_some_and(|other| ancestors.contains(index, *other)) {
                        let detail = format!("steps[{number}] is read, but step {} does not depend on it", step.step);
                        self.step_fault(index, field, "not_an_ancestor", detail);
                    }
                }
            }
        }
    }
}

/// The dependencies of a workflow as a graph; node n is `workflow[n]`, an edge leads to the dependent.
struct Graph {
    graph: DiGraph<(), ()>,
    index: HashMap<u32, usize>,
    unknown: Vec<(usize, u32)>,
    selfish: Vec<usize>,
}

impl Graph {
    fn of(definition: &Definition) -> Self {
        let steps = &definition.workflow;
        let index = steps.iter().enumerate().map(|(index, step)| (step.step, index)).collect::<HashMap<_, _>>();
        let mut graph = DiGraph::with_capacity(steps.len(), steps.len());
        for _ in steps {
            graph.add_node(());
        }
        let (mut unknown, mut selfish) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            for number in &step.dependencies {
                match index.get(number) {
                    None => unknown.push((at, *number)),
                    Some(other) if *other == at => selfish.push(at),
                    Some(other) => {
                        graph.add_edge(NodeIndex::new(*other), NodeIndex::new(at), ());
                    }
                }
            }
        }
        Self { graph, index, unknown, selfish }
    }

    /// One closed walk for each group of steps that depend on each other: `[3, 5, 3]`.
    fn cycles(&self) -> Vec<Vec<usize>> {
        let groups = tarjan_scc(&self.graph).into_iter().filter(|group| group.len() > 1);
        groups.map(|group| self.walk(&group.into_iter().collect())).collect()
    }

    fn walk(&self, group: &BTreeSet<NodeIndex>) -> Vec<usize> {
        let mut seen = BTreeMap::new();
        let mut path = Vec::new();
        let mut next = group.first().copied();
        while let Some(node) = next {
            path.push(node.index());
            if let Some(start) = seen.insert(node, path.len() - 1) {
                return path.split_off(start);
            }
            let mut onward = self.graph.neighbors_directed(node, Direction::Outgoing);
            next = onward.find(|other| group.contains(other));
        }
        path
    }

    fn ancestors(&self) -> Ancestors {
        let nodes = self.graph.node_count();
        let words = nodes.div_ceil(64);
        let mut ancestors = Ancestors { words, bits: vec![0; words * nodes] };
        // The graph has no cycle here, so every component of Tarjan's order is one node, last first.
        for node in tarjan_scc(&self.graph).into_iter().rev().flatten() {
            for parent in self.graph.neighbors_directed(node, Direction::Incoming) {
                ancestors.add(node.index(), parent.index());
            }
        }
        ancestors
    }
}

/// For each step a set of steps that come before it, as bits.
struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    fn add(&mut self, node: usize, parent: usize) {
        for word in 0..self.words {
            let inherited = self.bits[parent * self.words + word];
            self.bits[node * self.words + word] |= inherited;
        }
        self.bits[node * self.words + parent / 64] |= 1 << (parent % 64);
    }

    fn contains(&self, node: usize, other: usize) -> bool {
        self.bits[node * self.words + other / 64] & (1 << (other % 64)) != 0
    }
}
