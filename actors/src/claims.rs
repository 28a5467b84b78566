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

    /// Those that wait.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.waiting.values()
    }

    /// Lets a new claim wait, and sends an older one of the same agent away.
    pub fn enter(&mut self, claim: Claim, now: Timestamp) {
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
        self.waiting.insert(claim.agent.clone(), claim);
        true
    }

    /// Takes a claim out, to be answered.
    pub fn take(&mut self, agent: &AgentId) -> Option<Claim> {
        self.waiting.remove(agent)
    }

    /// Takes all of them.
    pub fn take_all(&mut self) -> Vec<Claim> {
        self.waiting.drain().map(|(_, claim)| claim).collect()
    }

    /// Forgets claims whose clients have hung up.
    pub fn forget_closed(&mut self, now: Timestamp) {
        let presence = &self.presence;
        self.waiting.retain(|agent, claim| {
            let closed = claim.reply.is_closed();
            if closed {
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
            && let Some(waiting) = self.waiting.remove(&agent)
        {
            let _ = waiting.reply.send(granted);
        }
    }
}
