//! Granting one step to one agent: first the agent's slot, then the operation's step. Each half may
//! be repeated, and what stays behind of a half is owed and found again.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use domain::agent::selection::Weights;
use domain::agent::{self, Agent};
use domain::operation::event::StepReserved;
use domain::operation::{Command, Event, Operation, StepWish};
use domain::{ActionName, AgentId, Json, LeaseId};

use crate::aggregate_actor::{DispatchError, Receipt, Surroundings};
use crate::codec::Metadata;
use crate::effects::Periods;
use crate::gateway::{Gateway, Order};
use crate::matching::Pick;
use crate::presence::Presence;
use crate::projections::Projected;

/// A step that an agent was given.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What was recorded of it.
    pub reserved: Box<StepReserved>,
    /// What is performed.
    pub action: ActionName,
    /// Hard stop of the attempt, in milliseconds from its start.
    pub timeout_ms: u64,
    /// What an earlier attempt left.
    pub checkpoint: Option<Json>,
}

/// What became of a match.
pub(crate) enum Grant {
    /// The agent has it.
    Granted(Granted),
    /// The agent certainly has it not.
    Refused,
    /// The operation perhaps reserved the step.
    Unknown,
}

impl Grant {
    /// What the agent is told.
    pub(crate) fn granted(self) -> Option<Granted> {
        match self {
            Self::Granted(granted) => Some(granted),
            Self::Refused | Self::Unknown => None,
        }
    }
}

/// What the dispatcher works with.
#[derive(Clone)]
pub struct Desk {
    /// The log, the clock, the world.
    pub around: Arc<Surroundings>,
    /// The door to the aggregates.
    pub gateway: Arc<Gateway>,
    /// The views.
    pub projected: Arc<Projected>,
    /// Who was seen when.
    pub presence: Arc<Presence>,
    /// Durations.
    pub periods: Periods,
    /// Weights of the score.
    pub weights: Weights,
    /// How many claims wait for work, for whoever wants to know.
    pub waiting: Arc<AtomicUsize>,
}

/// Puts a wish about one step to its operation.
///
/// # Errors
/// Why it was not, or perhaps not, carried out.
pub async fn execute_step(
    gateway: &Gateway,
    lease: &LeaseId,
    wish: StepWish,
    metadata: Metadata,
) -> Result<Receipt<Operation>, DispatchError<Operation>> {
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    gateway.execute(&lease.operation, Order::of(command, metadata)).await
}

/// The same, and back when the views show what the answer rests on.
///
/// # Errors
/// Why it was not, or perhaps not, carried out.
pub(crate) async fn execute_step_shown(
    gateway: &Gateway,
    lease: &LeaseId,
    wish: StepWish,
    metadata: Metadata,
) -> Result<Receipt<Operation>, DispatchError<Operation>> {
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    gateway.execute_shown(&lease.operation, Order::of(command, metadata)).await
}

/// Reserves at the agent, then at the operation.
pub(crate) async fn grant(desk: &Desk, agent: &AgentId, pick: Pick, metadata: &Metadata) -> Grant {
    let Pick { lease, candidates } = pick;
    let reserve = agent::Command::Reserve { lease: lease.clone() };
    // The slot may be there already; the claim's key stands with the step, which is reserved only once.
    let unkeyed = Metadata { key: None, ..metadata.clone() };
    let reserved = desk.gateway.execute::<Agent>(agent, Order::of(reserve, unkeyed)).await;
    if reserved.is_err() {
        return Grant::Refused;
    }
    let wish = StepWish::Reserve { agent: agent.clone(), candidates };
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    let order = Order::of(command, metadata.clone());
    let order = Order::<Operation> { wants_state: has_checkpoint(desk, &lease), ..order };
    match desk.gateway.execute_shown(&lease.operation, order).await {
        Ok(receipt) => granted(desk, &lease, &receipt).map_or(Grant::Refused, Grant::Granted),
        Err(DispatchError::OutcomeUnknown | DispatchError::Crashed) => Grant::Unknown,
        Err(_) => Grant::Refused,
    }
}

/// None when the step could not be offered after all, or was reserved under this lease before.
fn granted(desk: &Desk, lease: &LeaseId, receipt: &Receipt<Operation>) -> Option<Granted> {
    let reserved = receipt.events.iter().find_map(|event| match &**event {
        Event::StepReserved(reserved) => Some(reserved.clone()),
        _ => None,
    })?;
    let views = desk.projected.views.read();
    let run = views.operations.get(&lease.operation)?.run.as_ref()?;
    let definition = &run.skeleton.steps[run.skeleton.position(lease.step)?];
    let state = receipt.state.as_ref();
    Some(Granted {
        reserved,
        action: definition.action.clone(),
        timeout_ms: definition.timeout_ms,
        checkpoint: state.and_then(|operation| operation.checkpoints.get(&lease.step).cloned()),
    })
}

fn has_checkpoint(desk: &Desk, lease: &LeaseId) -> bool {
    let views = desk.projected.views.read();
    let run = views.operations.get(&lease.operation).and_then(|row| row.run.as_ref());
    let step = run.and_then(|run| run.skeleton.position(lease.step).map(|position| &run.steps[position]));
    step.is_some_and(|step| step.checkpointed_at.is_some())
}
