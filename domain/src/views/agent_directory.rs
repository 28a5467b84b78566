//! All agents with their state, and which of them work for which operation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, Event};
use crate::{AgentId, Aggregate, LeaseId, OperationId, Timestamp};

/// One agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its state.
    pub agent: Agent,
    /// Version of its stream.
    pub revision: u64,
}

/// All agents.
#[derive(Clone, Debug, Default)]
pub struct AgentDirectory {
    rows: BTreeMap<AgentId, Row>,
    working: HashMap<OperationId, BTreeSet<(AgentId, LeaseId)>>,
}

impl AgentDirectory {
    /// One agent, unless it is unregistered.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<&Row> {
        self.rows.get(id).filter(|row| row.agent.registered)
    }

    /// One agent, even if it was unregistered.
    #[must_use]
    pub fn ever(&self, id: &AgentId) -> Option<&Row> {
        self.rows.get(id)
    }

    /// All agents that are registered, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Row)> {
        self.rows.iter().filter(|(_, row)| row.agent.registered)
    }

    /// All agents that ever were, by id.
    pub fn all(&self) -> impl Iterator<Item = (&AgentId, &Row)> {
        self.rows.iter()
    }

    /// How many ever registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Who has a slot taken for this operation, and under which lease.
    pub fn working_for(&self, operation: &OperationId) -> impl Iterator<Item = &(AgentId, LeaseId)> {
        self.working.get(operation).into_iter().flatten()
    }

    /// Who works for which operation, by operation.
    pub(super) fn working(&self) -> BTreeMap<&OperationId, &BTreeSet<(AgentId, LeaseId)>> {
        self.working.iter().collect()
    }

    /// Puts back a row of a snapshot.
    pub(super) fn put(&mut self, id: AgentId, row: Row) {
        self.rows.insert(id, row);
    }

    /// Puts back who works for an operation.
    pub(super) fn put_working(&mut self, operation: OperationId, leases: BTreeSet<(AgentId, LeaseId)>) {
        self.working.insert(operation, leases);
    }

    /// Folds one fact of one agent.
    pub fn apply(&mut self, id: &AgentId, event: &Event, revision: u64, at: Timestamp) {
        match event {
            Event::Assigned(assigned) => {
                let leases = self.working.entry(assigned.operation.clone()).or_default();
                leases.insert((id.clone(), assigned.lease_id.clone()));
            }
            Event::Released(released) => {
                let operation = &released.lease_id.operation;
                if let Some(leases) = self.working.get_mut(operation) {
                    leases.remove(&(id.clone(), released.lease_id.clone()));
                    if leases.is_empty() {
                        self.working.remove(operation);
                    }
                }
            }
            _ => {}
        }
        let before = self.rows.remove(id).map(|row| row.agent);
        if let Some(agent) = Agent::evolve(before, event, at) {
            self.rows.insert(id.clone(), Row { agent, revision });
        }
    }
}
