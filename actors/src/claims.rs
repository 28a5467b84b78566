//! Agents that wait for work: one claim each, the newest. Every answer goes out here, since an agent
//! that was just answered has just been present.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::Message;
use domain::{AgentId, Timestamp};
use tokio::sync::oneshot;

use crate::codec::Metadata;
use crate::granting::Granted;
use crate::matching::Appetite;
use crate::presence::Presence;

/// An agent asks for work.
pub struct Claim {
    /// Who.
    pub agent: AgentId,
    /// How much, and of what kind.
    pub appetite: Appetite,
    /// When it wants an answer at the latest.
    pub until: Timestamp,
    /// Who asked, and with which key.
    pub metadata: Metadata,
    /// Where the answer goes; an empty one when nothing was found.
    pub reply: oneshot::Sender<Vec<Granted>>,
}

impl Message for Claim {
    type Result = ();
}

/// The claims that wait.
pub struct Claims {
    waiting: HashMap<AgentId, Claim>,
    presence: Arc<Presence>,
}

impl Claims {
    /// None yet.
    #[must_use]
    pub fn new(presence: Arc<Presence>) -> Self {
        Self { waiting: HashMap::new(), presence }
    }

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

    /// Whether this agent waits.
    #[must_use]
    pub fn waits(&self, agent: &AgentId) -> bool {
        self.waiting.contains_key(agent)
    }

    /// Those that wait and whose clients have not hung up.
    pub fn open(&self) -> impl Iterator<Item = &Claim> {
        self.waiting.values().filter(|claim| !claim.reply.is_closed())
    }

    /// The one of this agent, unless its client has hung up.
    #[must_use]
    pub fn open_of(&self, agent: &AgentId) -> Option<&Claim> {
        self.waiting.get(agent).filter(|claim| !claim.reply.is_closed())
    }

    /// Lets a new claim wait, and sends an older one of the same agent away.
    pub fn enter(&mut self, claim: Claim, now: Timestamp) {
        self.presence.waits(&claim.agent, true);
        if let Some(older) = self.waiting.insert(claim.agent.clone(), claim) {
            self.answer(older, Vec::new(), now);
        }
    }

    /// Lets a claim wait again, unless a newer one of the same agent does or its time is over.
    /// Says whether it waits.
    pub fn return_to(&mut self, claim: Claim, now: Timestamp) -> bool {
        if claim.until <= now || self.waits(&claim.agent) {
            self.answer(claim, Vec::new(), now);
            return false;
        }
        self.presence.waits(&claim.agent, true);
        self.waiting.insert(claim.agent.clone(), claim);
        true
    }

    /// Takes a claim out, to be answered.
    pub fn take(&mut self, agent: &AgentId) -> Option<Claim> {
        self.presence.waits(agent, false);
        self.waiting.remove(agent)
    }

    /// Takes all of them.
    pub fn take_all(&mut self) -> Vec<Claim> {
        self.waiting.keys().for_each(|agent| self.presence.waits(agent, false));
        self.waiting.drain().map(|(_, claim)| claim).collect()
    }

    /// Forgets claims whose clients have hung up.
    pub fn forget_closed(&mut self, now: Timestamp) {
        let presence = &self.presence;
        self.waiting.retain(|agent, claim| {
            let closed = claim.reply.is_closed();
            if closed {
                presence.waits(agent, false);
                presence.heard(agent, None, now, u64::MAX);
            }
            !closed
        });
    }

    /// Answers a claim. One into a dead connection costs the offer's time, no more; if the same claim was
    /// made again by its key, that one is answered.
    pub fn answer(&mut self, claim: Claim, granted: Vec<Granted>, now: Timestamp) {
        // Waiting for our answer was no silence: that begins now.
        self.presence.heard(&claim.agent, None, now, u64::MAX);
        let Claim { agent, metadata, reply, .. } = claim;
        let Err(granted) = reply.send(granted) else { return };
        let again = self.waiting.get(&agent).is_some_and(|waiting| waiting.metadata.key == metadata.key);
        if again
            && metadata.key.is_some()
            && !granted.is_empty()
            && let Some(waiting) = self.take(&agent)
        {
            let _ = waiting.reply.send(granted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::KeyUse;
    use domain::agent::selection::Candidates;
    use domain::operation::event::StepReserved;
    use domain::{Json, LeaseId};
    use oneshot::Receiver;

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);

    fn agent() -> AgentId {
        "a".parse().unwrap()
    }

    fn claim(key: Option<u8>) -> (Claim, Receiver<Vec<Granted>>) {
        let (reply, answer) = oneshot::channel();
        let key = key.map(|key| KeyUse { key: [key; 16], body: [0; 16] });
        let metadata = Metadata { key, ..Metadata::of_photon() };
        let until = NOW.plus_ms(1_000);
        (Claim { agent: agent(), appetite: Appetite::of(1, None), until, metadata, reply }, answer)
    }

    fn granted() -> Vec<Granted> {
        let lease_id = LeaseId { operation: domain::OperationId::from_bits(1), step: 1, grant: 7 };
        let reserved = StepReserved {
            step: 1,
            grant: 7,
            lease_id,
            agent: agent(),
            attempt: 1,
            inputs: Json::object(),
            candidates: Candidates::default(),
            title: None,
        };
        let action = "work".parse().unwrap();
        vec![Granted { reserved: Box::new(reserved), action, timeout_ms: 1, checkpoint: None }]
    }

    /// Claims of which one with this key was matched and whose client then hung up.
    fn hung_up(key: Option<u8>) -> (Claims, Claim) {
        let mut claims = Claims::new(Arc::default());
        let (first, answer) = claim(key);
        claims.enter(first, NOW);
        let taken = claims.take(&agent()).unwrap();
        drop(answer);
        (claims, taken)
    }

    fn grants(answer: &mut Receiver<Vec<Granted>>) -> Vec<u64> {
        answer.try_recv().unwrap().iter().map(|granted| granted.reserved.grant).collect()
    }

    #[test]
    fn the_same_claim_made_again_gets_what_its_lost_connection_was_granted() {
        let (mut claims, taken) = hung_up(Some(1));
        let (again, mut answer) = claim(Some(1));
        claims.enter(again, NOW);
        claims.answer(taken, granted(), NOW);
        assert_eq!(grants(&mut answer), [7]);
        assert!(claims.is_empty());
    }

    #[test]
    fn the_last_of_a_chain_of_resends_gets_it() {
        let (mut claims, taken) = hung_up(Some(1));
        for _ in 0..3 {
            let (lost, answer) = claim(Some(1));
            claims.enter(lost, NOW);
            drop(answer);
        }
        let (waiting, mut sent_away) = claim(Some(1));
        claims.enter(waiting, NOW);
        let (last, mut answer) = claim(Some(1));
        claims.enter(last, NOW);
        claims.answer(taken, granted(), NOW);
        assert_eq!((grants(&mut sent_away), grants(&mut answer)), (vec![], vec![7]));
        assert!(claims.is_empty());
    }

    #[test]
    fn another_claim_waits_on_for_work_of_its_own() {
        for (first, second) in [(Some(1), Some(2)), (None, None), (Some(1), None), (None, Some(1))] {
            let (mut claims, taken) = hung_up(first);
            let (other, mut answer) = claim(second);
            claims.enter(other, NOW);
            claims.answer(taken, granted(), NOW);
            assert!(claims.waits(&agent()) && answer.try_recv().is_err(), "{first:?} {second:?}");
        }
    }

    #[test]
    fn nothing_found_for_a_lost_connection_ends_no_wait() {
        let (mut claims, taken) = hung_up(Some(1));
        let (again, mut answer) = claim(Some(1));
        claims.enter(again, NOW);
        claims.answer(taken, Vec::new(), NOW);
        assert!(claims.waits(&agent()) && answer.try_recv().is_err());
    }

    #[test]
    fn who_is_still_there_gets_its_own_answer() {
        let mut claims = Claims::new(Arc::default());
        let (first, mut answer) = claim(Some(1));
        claims.enter(first, NOW);
        let taken = claims.take(&agent()).unwrap();
        let (again, mut other) = claim(Some(1));
        claims.enter(again, NOW);
        claims.answer(taken, granted(), NOW);
        assert_eq!(grants(&mut answer), [7]);
        assert!(claims.waits(&agent()) && other.try_recv().is_err());
    }

    #[test]
    fn whose_client_hung_up_is_forgotten_and_was_no_silent_agent() {
        let presence = Arc::<Presence>::default();
        let mut claims = Claims::new(Arc::clone(&presence));
        let (waiting, answer) = claim(None);
        claims.enter(waiting, NOW);
        claims.forget_closed(NOW);
        assert!(claims.waits(&agent()) && presence.seen(&agent()).is_none());
        drop(answer);
        claims.forget_closed(NOW);
        assert!(claims.is_empty());
        assert_eq!(presence.seen(&agent()).unwrap().at, NOW);
    }
}
