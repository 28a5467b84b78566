//! Owns what the measurements send: one operation of three steps that hand results on, and the agents that
//! perform it. It must stay the same between versions, or figures cannot be compared.

use domain::operation::Operation;
use domain::operation::definition::Definition;
use domain::operation::{Command, Event};
use domain::world::Everybody;
use domain::{Aggregate, Given, Limits, OperationId, Timestamp, World};
use platforms::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

use super::fault::Fault;
use crate::http::operation_request::CreateOperation;

/// The steps of one operation.
pub(super) const STEPS: u32 = 3;

/// A new operation as a client sends it; only who asks for this action can perform it.
pub(super) fn operation(action: &str) -> Value {
    json!({
        "name": "bench: summarise the changes of a release",
        "description": "Three steps, each on the result of the one before.",
        "priority": "medium",
        "workflow": [
            {"step": 1, "platform": "worker", "action": action,
             "inputs": {"repository": "photon/core", "from": "v0.1.0", "to": "v0.2.0", "depth": 3}},
            {"step": 2, "platform": "worker", "action": action, "dependencies": [1],
             "inputs": {"changes": {"$expr": "steps[1].result.summary"}, "language": "en"}},
            {"step": 3, "platform": "worker", "action": action, "dependencies": [2],
             "inputs": {"text": {"$expr": "steps[2].result.summary"}, "format": "markdown"}},
        ],
        "metadata": {"source": "photon bench", "team": "release"},
    })
}

/// What a step yields.
pub(super) fn result() -> Value {
    json!({"summary": "Twelve changes in four crates, two of them in the public interface.", "files": 12})
}

/// An agent as it registers itself.
pub(super) fn agent(id: &str, slots: usize) -> Value {
    // No heartbeat is expected: who measures steps does not want silence to be noticed.
    json!({"id": id, "config": {"maxConcurrentSteps": slots, "heartbeatIntervalMs": 0}})
}

/// The same operation as the domain knows it.
pub(super) fn definition() -> Result<Definition, Fault> {
    let wish: CreateOperation =
        serde_json::from_value(operation("bench")).map_err(|_| Fault::Protocol("the sample is no wish"))?;
    let definition = wish.definition(&Limits::default());
    definition.map_err(|_| Fault::Protocol("the sample has faults"))
}

/// Surroundings in which the sample is accepted.
pub(super) fn world() -> World {
    let platforms = Arc::new(Registry::built().rules());
    World { limits: Limits::default(), platforms, agents: Arc::new(Everybody) }
}

/// A fresh id for an operation.
pub(super) fn operation_id() -> Result<OperationId, Fault> {
    let id = format!("op_{}", Uuid::now_v7().simple()).parse();
    id.map_err(|_| Fault::Protocol("an id is not of its form"))
}

/// An operation that was just created.
pub(super) fn created(id: &OperationId, now: Timestamp) -> Result<(Operation, Vec<Event>), Fault> {
    let command = Command::Create(Box::new(definition()?));
    let given = Given { now, world: &world() };
    let events = Operation::decide(None, id, &command, &given);
    let events = events.map_err(|_| Fault::Protocol("the sample was refused"))?;
    let operation = events.iter().fold(None, |state, event| Operation::evolve(state, event, now));
    Ok((operation.ok_or(Fault::Protocol("the sample was not created"))?, events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_accepted_and_has_its_steps() {
        let (operation, events) = created(&operation_id().unwrap(), Timestamp::from_micros(1)).unwrap();
        assert_eq!(operation.run.steps.len(), STEPS as usize);
        assert_eq!(events.len(), 2);
    }
}
