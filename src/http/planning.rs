//! What would come of an operation that is not created: the refusals of a creation, or a plan.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use domain::operation::definition::{Definition, Requirements};
use domain::operation::plan::Plan;
use domain::operation::{Command, Operation};
use domain::{AgentId, Aggregate, Given, OperationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::envelope::Reply;
use super::error::{ApiError, Code};
use super::front::Reach;
use super::operation_request::{CreateOperation, not_passed};
use super::operations::Answer;
use super::refusal::Refusal;
use super::selection::{SelectionView, selection};

/// Plans that are made at once; each takes a thread.
pub const PLANS_MAX: usize = 2;
/// Agents that are looked at for one plan, all of its selections together.
const LOOKS_MAX: usize = 100_000;
/// Selections of one plan.
const SELECTIONS_MAX: usize = 1_000;

/// How an operation would run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// Numbers of the steps by level: those of one level may run together, once the levels before are done.
    pub order: Vec<Vec<u32>>,
    /// Numbers of the steps on the chain whose timeouts make the largest sum, first to last.
    pub critical_path: Vec<u32>,
    /// That sum, in milliseconds.
    pub critical_path_ms: u64,
    /// How many steps are on it.
    pub critical_path_steps: usize,
    /// The most steps that can be under way at once, or `maxParallel` when that is less.
    pub width: usize,
    /// The steps in the order of the workflow.
    pub steps: Vec<PlannedStep>,
    /// Who would be chosen now; steps that ask for the same share one. Of a workflow with very many
    /// different wishes only those of its first steps are looked at.
    pub selections: Vec<SelectionView>,
}

/// One step of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// Its number.
    pub step: u32,
    /// Which of `order` it is in, from 0.
    pub level: usize,
    /// Which of `selections` says who would be chosen for it, from 0; null when it was not looked at.
    pub selection: Option<usize>,
}

/// Checks an operation exactly as a creation would, and plans it. Appends nothing.
///
/// # Errors
/// The refusals of a creation.
pub async fn plan(api: Reach, operation: CreateOperation) -> Answer<PlanView> {
    let Ok(permit) = Arc::clone(&api.plans).try_acquire_owned() else {
        let message = "Other plans are being made; try again in a moment.";
        return Err(ApiError::new(Code::Overloaded, message).retry_after(Duration::from_secs(1)));
    };
    // A large workflow takes its time, and other requests of this thread shall not wait for it.
    let planned = web::block(move || {
        // Kept until the work is done, even if nobody waits for it any more.
        let _permit = permit;
        let definition = operation.definition(&api.core.around.world.limits)?;
        not_passed(definition.deadline, api.core.around.clock.now())?;
        check(&api, &definition)?;
        Ok::<_, ApiError>(view(&api, &definition))
    });
    Ok(Reply::ok(planned.await.map_err(ApiError::internal)??))
}

fn check(api: &Api, definition: &Definition) -> Result<(), ApiError> {
    let given = Given { now: api.core.around.clock.now(), world: &api.core.around.world };
    let command = Command::Create(Box::new(definition.clone()));
    let decided = Operation::decide(None, &OperationId::from_bits(0), &command, &given);
    decided.map(drop).map_err(Operation::refusal)
}

fn view(api: &Api, definition: &Definition) -> PlanView {
    let Plan { levels, critical_path, critical_path_ms, width } = Plan::of(definition);
    let places = levels.iter().enumerate();
    let places = places.flat_map(|(level, steps)| steps.iter().map(move |step| (*step, level)));
    let level_of: HashMap<u32, usize> = places.collect();
    let agents = api.core.projected.views.read().agents.len().max(1);
    let most = (LOOKS_MAX / agents).clamp(1, SELECTIONS_MAX);
    let mut asked: HashMap<(Option<&AgentId>, &Requirements), usize> = HashMap::new();
    let mut selections = Vec::new();
    let steps = definition.workflow.iter().map(|step| {
        let wish = (step.agent.as_ref(), &step.requires);
        // A person is not chosen.
        if step.asks_a_person() {
            let level = level_of.get(&step.step).copied().unwrap_or(0);
            return PlannedStep { step: step.step, level, selection: None };
        }
        if selections.len() < most && !asked.contains_key(&wish) {
            asked.insert(wish, selections.len());
            selections.push(selection(api, &definition.agents, step));
        }
        let level = level_of.get(&step.step).copied().unwrap_or(0);
        PlannedStep { step: step.step, level, selection: asked.get(&wish).copied() }
    });
    PlanView {
        steps: steps.collect(),
        order: levels,
        critical_path_steps: critical_path.len(),
        critical_path,
        critical_path_ms,
        width,
        selections,
    }
}
