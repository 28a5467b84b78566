//! Checks a workflow before it is accepted: every fault at once, each with its step and place.

mod fields;
mod graph;

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::definition::{Definition, StepDefinition};
use crate::operation::event::Patch;
use crate::operation::expression::{self, InputsError};
use crate::world::PlatformRule;
use crate::{AgentId, Given, PlatformName};
use graph::{Ancestors, Graph};

/// Faults that are listed; more would only hide the first ones.
const FAULTS_MAX: usize = 100;
/// Shortest timeout of a step, in milliseconds.
const TIMEOUT_MIN_MS: u64 = 100;
/// Longest timeout of a step: seven days.
const TIMEOUT_MAX_MS: u64 = 604_800_000;
/// Steps of a cycle that its fault names.
const CYCLE_SHOWN_MAX: usize = 32;

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
        check.faults = fields::of_definition(definition);
        check.agents_and_platforms();
        check.steps();
        check.graph();
    }
    check.faults.truncate(FAULTS_MAX);
    check.faults
}

/// Lists everything that is wrong with a change of an operation that is under way.
#[must_use]
pub(crate) fn patch_faults(patch: &Patch, definition: &Definition, given: &Given<'_>) -> Vec<Fault> {
    let mut faults = fields::of_patch(patch);
    let Some(agents) = &patch.agents else { return faults };
    faults.extend(unknown_agents(agents, given));
    // A step that asks for an agent outside of the list could never be given to anybody.
    let asked = definition.workflow.iter().filter_map(|step| Some((step.step, step.agent.as_ref()?)));
    for (step, agent) in asked.filter(|(_, agent)| !agents.is_empty() && !agents.contains(agent)) {
        let detail = format!("step {step} asks for agent {agent}, which is not in these agents");
        faults.push(Fault { pointer: "/agents".into(), step: Some(step), code: "agent_not_listed", detail });
    }
    faults.truncate(FAULTS_MAX);
    faults
}

fn unknown_agents(agents: &[AgentId], given: &Given<'_>) -> Vec<Fault> {
    let unknown = agents.iter().enumerate().filter(|(_, agent)| !given.world.agents.is_registered(agent));
    let faults = unknown.map(|(index, agent)| Fault {
        pointer: format!("/agents/{index}"),
        step: None,
        code: "unknown_agent",
        detail: format!("agent {agent} is not registered: register it first or leave it out"),
    });
    faults.collect()
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
            let detail =
                format!("a workflow has at most {} steps, this one {}", limits.max_steps, steps.len());
            self.fault("/workflow".into(), "too_many_steps", detail);
        }
        let edges: usize = steps.iter().map(|step| step.dependencies.len()).sum();
        if edges > limits.max_edges {
            let detail =
                format!("a workflow has at most {} dependencies, this one {edges}", limits.max_edges);
            self.fault("/workflow".into(), "too_many_dependencies", detail);
        }
        let max = limits.max_definition_bytes;
        let bytes = fields::bytes(self.definition);
        if bytes > max {
            let detail = format!("the texts of a definition have at most {max} bytes in all, these {bytes}");
            self.fault("/workflow".into(), "too_large", detail);
        }
    }

    fn agents_and_platforms(&mut self) {
        self.faults.extend(unknown_agents(&self.definition.agents, self.given));
        for (index, platform) in self.definition.platforms.iter().enumerate() {
            self.platform(|| format!("/platforms/{index}"), None, platform);
        }
    }

    fn platform(
        &mut self,
        pointer: impl FnOnce() -> String,
        step: Option<u32>,
        platform: &PlatformName,
    ) -> bool {
        let known = &self.given.world.platforms;
        if known.contains_key(platform) {
            return true;
        }
        let names: Vec<&str> = known.keys().map(PlatformName::as_str).collect();
        let detail = format!("platform {platform} is not available; available: {}", names.join(", "));
        self.faults.push(Fault { pointer: pointer(), step, code: "platform_unavailable", detail });
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
            self.faults.extend(fields::of_step(index, step, self.given.world.limits.max_result_bytes));
            if self.faults.len() >= FAULTS_MAX {
                return;
            }
        }
    }

    fn performer(&mut self, index: usize, step: &StepDefinition) {
        if self.platform(|| format!("/workflow/{index}/platform"), Some(step.step), &step.platform) {
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
        if step.asks_a_person() {
            let detail =
                format!("a step of platform {} is for people: leave agent {agent} out", step.platform);
            return self.step_fault(index, "/agent", "agent_not_allowed", detail);
        }
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
        let graph = Graph::of(&self.definition.workflow);
        for (index, number) in &graph.unknown {
            let detail = format!("dependency {number} is not a step of this workflow");
            self.step_fault(*index, "/dependencies", "unknown_dependency", detail);
        }
        for index in &graph.selfish {
            let detail = format!("step {} depends on itself", self.definition.workflow[*index].step);
            self.step_fault(*index, "/dependencies", "self_dependency", detail);
        }
        let cycles = graph.cycles();
        for cycle in &cycles {
            let detail = format!("the steps depend on each other in a cycle: {}", self.shown(cycle));
            self.step_fault(cycle[0], "/dependencies", "cycle", detail);
        }
        if cycles.is_empty() && graph.unknown.is_empty() && graph.selfish.is_empty() {
            self.expressions(&graph);
        }
    }

    fn shown(&self, cycle: &[usize]) -> String {
        let mut shown = String::new();
        for index in cycle.iter().take(CYCLE_SHOWN_MAX) {
            let arrow = if shown.is_empty() { "" } else { " → " };
            shown = format!("{shown}{arrow}{}", self.definition.workflow[*index].step);
        }
        if cycle.len() > CYCLE_SHOWN_MAX { format!("{shown} → …") } else { shown }
    }

    fn expressions(&mut self, graph: &Graph) {
        let mut ancestors = None;
        for (index, step) in self.definition.workflow.iter().enumerate() {
            let inputs = &step.inputs;
            if expression::may_hold_mark(inputs.as_str()) && inputs.unstorable().is_none() {
                let read = self.marked_inputs(index, step);
                self.reads(index, "/inputs", read, graph, &mut ancestors);
            }
            if let Some(condition) = &step.when {
                let read = whole(expression::condition_steps(condition));
                self.reads(index, "/when", read, graph, &mut ancestors);
            }
            if let Some(title) = &step.title {
                let read = whole(expression::title_steps(title));
                self.reads(index, "/title", read, graph, &mut ancestors);
            }
            if self.faults.len() >= FAULTS_MAX {
                return;
            }
        }
    }

    fn marked_inputs(&mut self, index: usize, step: &StepDefinition) -> Result<Reads, InputsError> {
        let outlook = expression::outlook(&step.inputs.value())?;
        let max = self.given.world.limits.max_result_bytes;
        if let Some(breach) = fields::resolved_size(outlook.least_bytes, max) {
            self.step_fault(index, "/inputs", breach.code, breach.detail);
        }
        Ok(outlook.reads)
    }

    fn reads(
        &mut self,
        index: usize,
        field: &str,
        read: Result<Reads, InputsError>,
        graph: &Graph,
        ancestors: &mut Option<Ancestors>,
    ) {
        let read = match read {
            Ok(read) => read,
            Err(InputsError { pointer, message }) => {
                return self.step_fault(index, &format!("{field}{pointer}"), "template", message);
            }
        };
        let step = &self.definition.workflow[index];
        let direct: BTreeSet<u32> = step.dependencies.iter().copied().collect();
        for (number, pointer) in read.iter().filter(|(number, _)| !direct.contains(number)) {
            let ancestors = ancestors.get_or_insert_with(|| graph.ancestors());
            let known = graph.position(*number);
            if !known.is_some_and(|other| ancestors.contains(index, other)) {
                let detail = format!("steps[{number}] is read, but step {} does not depend on it", step.step);
                self.step_fault(index, &format!("{field}{pointer}"), "not_an_ancestor", detail);
            }
        }
    }
}

/// The steps that a field reads, each with the JSON pointer of the place below the field.
type Reads = BTreeMap<u32, String>;

/// Of a field that is one text.
fn whole(steps: Result<BTreeSet<u32>, String>) -> Result<Reads, InputsError> {
    Ok(steps?.into_iter().map(|step| (step, String::new())).collect())
}
