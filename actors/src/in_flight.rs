//! Leases that are being granted, and to whom: matched, but not yet answered by the agent and the
//! operation. Memory of the dispatcher alone; what a crash takes of it is found again in the views.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::agent::Agent;
use domain::operation::step::Run;
use domain::{AgentId, LeaseId, OperationId};

/// The leases, by operation and by agent. Bounded by the slots of the agents that wait.
#[derive(Debug, Default)]
pub struct InFlight {
    by_lease: BTreeMap<LeaseId, AgentId>,
    by_agent: HashMap<AgentId, BTreeSet<LeaseId>>,
}

impl InFlight {
    /// Begins to grant a lease to an agent.
    pub fn insert(&mut self, lease: LeaseId, agent: AgentId) {
        self.by_agent.entry(agent.clone()).or_default().insert(lease.clone());
        self.by_lease.insert(lease, agent);
    }

    /// The grant was answered.
    pub fn remove(&mut self, lease: &LeaseId) {
        let Some(agent) = self.by_lease.remove(lease) else { return };
        if let Some(leases) = self.by_agent.get_mut(&agent) {
            leases.remove(lease);
            if leases.is_empty() {
                self.by_agent.remove(&agent);
            }
        }
    }

    /// Whether this lease is being granted.
    #[must_use]
    pub fn contains(&self, lease: &LeaseId) -> bool {
        self.by_lease.contains_key(lease)
    }

    /// Whether something is being granted to this agent.
    #[must_use]
    pub fn serves(&self, agent: &AgentId) -> bool {
        self.by_agent.contains_key(agent)
    }

    /// Slots of an agent that are free, where a lease that is being granted has taken one already.
    #[must_use]
    pub fn free_slots(&self, id: &AgentId, agent: &Agent) -> u32 {
        let leases = self.by_agent.get(id).into_iter().flatten();
        let coming = leases.filter(|lease| !agent.assignments.contains_key(*lease)).count();
        agent.free_slots().saturating_sub(u32::try_from(coming).unwrap_or(u32::MAX))
    }

    /// Steps of an operation that are under way, where one that is being granted is so already.
    #[must_use]
    pub fn under_way(&self, id: &OperationId, run: &Run) -> usize {
        let first = LeaseId { operation: id.clone(), step: 0, grant: 0 };
        let leases = self.by_lease.range(first..).map(|(lease, _)| lease);
        let granting = leases.take_while(|lease| lease.operation == *id).filter(|lease| {
            let position = run.skeleton.position(lease.step);
            position.is_some_and(|position| run.steps[position].grant < lease.grant)
        });
        run.held.len() + granting.count()
    }
}
