//! What is wrong with single fields of a definition, apart from the graph and from who is there.

use crate::Json;
use crate::bounds::{self, Breach, CAPABILITIES_MAX, DESCRIPTION_MAX, LIST_MAX, MODEL_MAX, NAME_MAX};
use crate::operation::definition::{Definition, Requirements, StepDefinition};
use crate::operation::event::Patch;
use crate::operation::expression;
use crate::operation::workflow::Fault;

/// Error codes that a retry policy names.
const CODES_MAX: usize = 64;
/// Characters of one of them.
const CODE_MAX: usize = 128;
/// Characters of a title before it is resolved.
const TITLE_MAX: usize = 1_024;

fn fault(breach: Breach, step: Option<u32>) -> Fault {
    Fault { pointer: breach.pointer, step, code: breach.code, detail: breach.detail }
}

/// Bytes of everything that a caller may write at length; numbers and links have maxima of their own.
pub(super) fn bytes(definition: &Definition) -> usize {
    let own = definition.name.len() + definition.description.as_ref().map_or(0, String::len);
    own + definition.metadata.len() + definition.workflow.iter().map(step_bytes).sum::<usize>()
}

fn step_bytes(step: &StepDefinition) -> usize {
    let requires = &step.requires;
    let words = requires.capabilities.iter().chain(&step.retry.non_retryable_errors).map(String::len);
    let labels = requires.labels.iter().map(|(key, value)| key.len() + value.len());
    let optional = [&step.when, &step.title, &requires.model].into_iter().flatten().map(String::len);
    step.inputs.len() + words.chain(labels).chain(optional).sum::<usize>()
}

/// Faults of the operation's own fields.
pub(super) fn of_definition(definition: &Definition) -> Vec<Fault> {
    let own = Patch {
        name: Some(definition.name.clone()),
        description: Some(definition.description.clone()),
        metadata: Some(definition.metadata.clone()),
        agents: Some(definition.agents.clone()),
        ..Patch::default()
    };
    let mut faults = of_patch(&own);
    let platforms = bounds::list("platforms", definition.platforms.len(), LIST_MAX);
    faults.extend(platforms.map(|breach| fault(breach.at("/platforms"), None)));
    if definition.max_parallel == Some(0) {
        let breach = Breach::new("out_of_bounds", "maxParallel must be at least 1".into());
        faults.push(fault(breach.at("/maxParallel"), None));
    }
    faults
}

/// Faults of what a patch changes.
pub(super) fn of_patch(patch: &Patch) -> Vec<Fault> {
    let name = patch.name.as_ref().and_then(|name| bounds::name("name", name, NAME_MAX));
    let prose = patch.description.as_ref().and_then(Option::as_ref);
    let prose = prose.and_then(|prose| bounds::prose("description", prose, DESCRIPTION_MAX));
    let metadata = patch.metadata.as_ref().and_then(|metadata| bounds::object("metadata", metadata));
    let agents = patch.agents.as_ref().and_then(|agents| bounds::list("agents", agents.len(), LIST_MAX));
    let breaches = [
        name.map(|breach| breach.at("/name")),
        prose.map(|breach| breach.at("/description")),
        metadata.map(|breach| breach.at("/metadata")),
        agents.map(|breach| breach.at("/agents")),
    ];
    breaches.into_iter().flatten().map(|breach| fault(breach, None)).collect()
}

/// Refuses inputs that take more bytes than may be resolved, whatever their expressions yield.
pub(super) fn resolved_size(bytes: usize, max: usize) -> Option<Breach> {
    let detail =
        || format!("the resolved inputs would have at least {bytes} bytes, at most {max} are allowed");
    (bytes > max).then(|| Breach::new("too_large", detail()))
}

/// Faults of one step's own fields; its resolved inputs have at most `inputs_max` bytes.
pub(super) fn of_step(index: usize, step: &StepDefinition, inputs_max: usize) -> Vec<Fault> {
    let mut breaches = Vec::new();
    if let Some(breach) = of_inputs(&step.inputs, inputs_max) {
        breaches.push(breach.at("/inputs"));
    }
    let title = step.title.as_ref().and_then(|title| bounds::name("title", title, TITLE_MAX));
    breaches.extend(title.map(|breach| breach.at("/title")));
    breaches.extend(of_requirements(&step.requires).into_iter().map(|breach| breach.at("/requires")));
    let codes = of_codes(&step.retry.non_retryable_errors);
    breaches.extend(codes.into_iter().map(|breach| breach.at("/retryPolicy/nonRetryableErrors")));
    let placed = |breach: Breach| fault(breach.at(&format!("/workflow/{index}")), Some(step.step));
    breaches.into_iter().map(placed).collect()
}

/// Codes of failures may be written in any form; they are compared in one.
fn of_codes(codes: &[String]) -> Vec<Breach> {
    let each = codes.iter().enumerate().filter_map(|(index, code)| {
        bounds::name("each of nonRetryableErrors", code, CODE_MAX)
            .map(|breach| breach.at(&format!("/{index}")))
    });
    bounds::list("nonRetryableErrors", codes.len(), CODES_MAX).into_iter().chain(each).collect()
}

fn of_inputs(inputs: &Json, max: usize) -> Option<Breach> {
    let not_an_object = || Breach::new("not_an_object", "inputs must be a JSON object".into());
    bounds::data("inputs", inputs)
        .or_else(|| (!bounds::is_object(inputs)).then(not_an_object))
        .or_else(|| resolved_size(inputs.len(), max).filter(|_| !expression::may_hold_mark(inputs.as_str())))
}

fn of_requirements(requires: &Requirements) -> Vec<Breach> {
    let capabilities = bounds::slugs("capabilities", &requires.capabilities, CAPABILITIES_MAX);
    let model = requires.model.as_ref().and_then(|model| bounds::line("model", model, MODEL_MAX));
    let labels = bounds::labels(&requires.labels).into_iter().map(|breach| breach.at("/labels"));
    let capabilities = capabilities.into_iter().map(|breach| breach.at("/capabilities"));
    capabilities.chain(model.map(|breach| breach.at("/model"))).chain(labels).collect()
}

impl Patch {
    /// Everything that is wrong with what it changes, as (JSON pointer, sentence). Whether its agents
    /// are registered is asked when it is decided.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        of_patch(self).into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }
}
