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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::KeyUse;

    fn agent() -> AgentId {
        "a".parse().unwrap()
    }

    fn claim(id: u64, key: Option<u8>) -> Claim {
        let key = key.map(|key| KeyUse { key: [key; 16], body: [0; 16] });
        let metadata = Metadata { key, ..Metadata::of_photon() };
        let (appetite, until) = (Appetite::of(1, None), Timestamp::from_micros(5_000_000));
        Claim { id: ClaimId(id), agent: agent(), incarnation: 1, appetite, until, metadata }
    }

    fn id(claim: Option<Claim>) -> Option<u64> {
        claim.map(|claim| claim.id.0)
    }

    /// Claims of which the first one, with this key, was taken out to be granted something.
    fn taken(key: Option<u8>) -> (Claims, Claim) {
        let mut claims = Claims::default();
        claims.enter(claim(1, key));
        let taken = claims.take(&agent()).unwrap();
        (claims, taken)
    }

    #[test]
    fn a_claim_waits_instead_of_the_one_that_its_agent_has() {
        let mut claims = Claims::default();
        assert!(claims.enter(claim(1, None)).is_none());
        assert_eq!(id(claims.enter(claim(2, None))), Some(1));
        assert_eq!((claims.len(), claims.of(&agent()).map(|claim| claim.id)), (1, Some(ClaimId(2))));
    }

    #[test]
    fn the_same_claim_made_again_by_its_key_is_its_repetition() {
        let (mut claims, first) = taken(Some(1));
        claims.enter(claim(2, Some(1)));
        assert_eq!(id(claims.take_repetition(&first)), Some(2));
        assert!(claims.is_empty());
    }

    #[test]
    fn the_last_of_a_chain_of_resends_is_the_repetition_of_the_first() {
        let (mut claims, first) = taken(Some(1));
        let sent_away: Vec<_> = (2..=5).filter_map(|again| id(claims.enter(claim(again, Some(1))))).collect();
        assert_eq!((sent_away, id(claims.take_repetition(&first))), (vec![2, 3, 4], Some(5)));
        assert!(claims.is_empty());
    }

    #[test]
    fn another_claim_is_no_repetition_and_waits_on() {
        for (first, second) in [(Some(1), Some(2)), (None, None), (Some(1), None), (None, Some(1))] {
            let (mut claims, first) = taken(first);
            claims.enter(claim(2, second));
            assert!(claims.take_repetition(&first).is_none(), "{first:?} {second:?}");
            assert!(claims.of(&agent()).is_some());
        }
    }

    #[test]
    fn a_claim_that_was_replaced_cannot_take_out_the_newer_one() {
        let mut claims = Claims::default();
        claims.enter(claim(1, None));
        claims.enter(claim(2, None));
        assert!(claims.take_if(&agent(), ClaimId(1)).is_none());
        assert_eq!(id(claims.take_if(&agent(), ClaimId(2))), Some(2));
        assert!(claims.take_if(&agent(), ClaimId(2)).is_none());
    }

    #[test]
    fn it_says_once_whose_claims_came_or_went() {
        let mut claims = Claims::default();
        claims.enter(claim(1, None));
        assert_eq!(claims.take_moved(), [(agent(), true)]);
        assert_eq!(claims.take_moved(), []);
        assert_eq!(claims.take_all().len(), 1);
        assert_eq!(claims.take_moved(), [(agent(), false)]);
    }
}
