//! Agents that wait for work: one claim each, the newest. Says which claim is to be answered; the answers
//! themselves are sent elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use domain::{AgentId, Timestamp};

use crate::codec::Metadata;
use crate::matching::Appetite;

/// Names one claim of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub u64);

/// An agent asks for work.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which claim it is.
    pub id: ClaimId,
    /// The agent.
    pub agent: AgentId,
    /// The incarnation of it that asks.
    pub incarnation: u64,
    /// How much, and of what kind.
    pub appetite: Appetite,
    /// When it wants an answer at the latest.
    pub until: Timestamp,
    /// On whose behalf, and with which idempotency key.
    pub metadata: Metadata,
}

/// The claims that wait. Bounded by the number of agents.
#[derive(Debug, Default)]
pub struct Claims {
    waiting: BTreeMap<AgentId, Claim>,
    /// Agents whose claims came or went since they were last asked for.
    moved: BTreeSet<AgentId>,
}

impl Claims {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them, by agent.
    pub fn all(&self) -> impl Iterator<Item = &Claim> {
        self.waiting.values()
    }

    /// The one of this agent.
    #[must_use]
    pub fn of(&self, agent: &AgentId) -> Option<&Claim> {
        self.waiting.get(agent)
    }

    /// Lets a claim wait instead of the one that the same agent has, which is returned.
    pub fn enter(&mut self, claim: Claim) -> Option<Claim> {
        self.moved.insert(claim.agent.clone());
        self.waiting.insert(claim.agent.clone(), claim)
    }

    /// Takes the claim of an agent out.
    pub fn take(&mut self, agent: &AgentId) -> Option<Claim> {
        self.moved.insert(agent.clone());
        self.waiting.remove(agent)
    }

    /// Takes a claim out, unless another one of the same agent has replaced it.
    pub fn take_if(&mut self, agent: &AgentId, id: ClaimId) -> Option<Claim> {
        self.of(agent).filter(|claim| claim.id == id)?;
        self.take(agent)
    }

    /// Takes out the claim by which an agent repeats a claim that was made with the same key.
    pub fn take_repetition(&mut self, of: &Claim) -> Option<Claim> {
        let key = of.metadata.key?;
        self.of(&of.agent).filter(|claim| claim.metadata.key == Some(key))?;
        self.take(&of.agent)
    }

    /// Takes all of them out.
    pub fn take_all(&mut self) -> Vec<Claim> {
        self.moved.extend(self.waiting.keys().cloned());
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Agents whose claims came or went since this was last asked, and whether they wait now.
    pub fn take_moved(&mut self) -> Vec<(AgentId, bool)> {
        let moved = std::mem::take(&mut self.moved).into_iter();
        let waits = |agent: AgentId| {
            let waits = self.waiting.contains_key(&agent);
            (agent, waits)
        };
        moved.map(waits).collect()
    }
}
