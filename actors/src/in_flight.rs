//! Leases that are being granted, and to whom: matched, and not yet shown by the views. Memory of the
//! dispatcher alone; what a crash takes of it is found again in the views.

use std::collections::{BTreeMap, BTreeSet};

use domain::agent::Agent;
use domain::operation::step::Run;
use domain::views::leases::Leases;
use domain::{AgentId, LeaseId, OperationId};

/// An incarnation of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grantee {
    agent: AgentId,
    incarnation: u64,
}

/// The leases, by operation and by agent. Bounded by the slots of the agents that wait.
#[derive(Debug, Default)]
pub struct InFlight {
    by_lease: BTreeMap<LeaseId, Grantee>,
    by_agent: BTreeMap<AgentId, BTreeSet<LeaseId>>,
}

impl InFlight {
    /// Begins to grant a lease to an incarnation of an agent.
    pub fn insert(&mut self, lease: LeaseId, agent: AgentId, incarnation: u64) {
        self.by_agent.entry(agent.clone()).or_default().insert(lease.clone());
        self.by_lease.insert(lease, Grantee { agent, incarnation });
    }

    /// The views show what became of it.
    pub fn remove(&mut self, lease: &LeaseId) {
        let Some(Grantee { agent, .. }) = self.by_lease.remove(lease) else { return };
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

    /// Slots of an agent that are free: a lease takes one while it is shown, or while it is being granted
    /// and not shown yet. Those of earlier incarnations take none.
    #[must_use]
    pub fn free_slots(&self, id: &AgentId, agent: &Agent, leases: &Leases) -> u32 {
        let granting = self.by_agent.get(id).into_iter().flatten();
        let coming = granting.filter(|lease| {
            let grantee = self.by_lease.get(*lease);
            let current = grantee.is_some_and(|grantee| grantee.incarnation == agent.incarnation);
            current && leases.get(lease).is_none_or(|shown| shown.agent != *id)
        });
        let coming = u32::try_from(coming.count()).unwrap_or(u32::MAX);
        let taken = leases.taken(id, agent.incarnation).saturating_add(coming);
        agent.slots().saturating_sub(taken)
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
