//! Claims from their arrival to their answer: matched with ready steps, granted, and answered when every
//! grant is. Reserves nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use domain::agent::quarantine::Thresholds;
use domain::{AgentId, Timestamp};

use super::claims::{Claim, ClaimId};
use super::task::{Grant, Granted, Origin, Task};
use super::{Action, Dispatch, DispatchContext};
use crate::effects::Wake;
use crate::matching::{Appetite, Floor, Pick};
use crate::ready::Scene;

/// How long a claim rests after everything it was matched with was refused.
const REFUSED_MS: u64 = 100;

/// A claim that was matched.
#[derive(Debug)]
pub(super) struct Granting {
    claim: Claim,
    /// Grants that are not answered yet.
    open: usize,
    granted: Vec<Granted>,
}

impl Dispatch {
    /// An agent asks for work: it waits, unless it wants an answer at once.
    pub(super) fn claimed(
        &mut self,
        claim: Claim,
        context: &DispatchContext<'_>,
        able: &mut BTreeSet<AgentId>,
    ) {
        let agent = claim.agent.clone();
        if self.draining || !is_current(&claim, context) {
            return self.answer(claim, Vec::new());
        }
        let Some(claim) = self.take_over(claim) else { return };
        able.insert(agent.clone());
        let replaced = if claim.until <= context.now {
            // It is looked at once, and takes the place of nothing that waits.
            let id = claim.id;
            let aside = self.claims.enter(claim);
            self.once = Some((agent, id, aside));
            return;
        } else {
            self.timers.set(Wake::Claim(agent), claim.until);
            self.claims.enter(claim)
        };
        replaced.into_iter().for_each(|older| self.answer(older, Vec::new()));
    }

    /// A claim that is made again by its key while what it was matched with is being granted gets that, and
    /// nothing more. None when it does.
    fn take_over(&mut self, claim: Claim) -> Option<Claim> {
        let repeated =
            |before: &Claim| before.agent == claim.agent && before.metadata.key == claim.metadata.key;
        let granting = self.granting.values_mut().filter(|_| claim.metadata.key.is_some());
        let Some(granting) = granting.into_iter().find(|granting| repeated(&granting.claim)) else {
            return Some(claim);
        };
        let before = std::mem::replace(&mut granting.claim, claim);
        self.answer(before, Vec::new());
        None
    }

    /// Ends a claim that wanted an answer at once and was not matched. The one that waits goes on, and is
    /// matched with what was offered while it stood aside.
    pub(super) fn end_once(&mut self, context: &DispatchContext<'_>) {
        let Some((agent, id, aside)) = self.once.take() else { return };
        if let Some(unmatched) = self.claims.take_if(&agent, id) {
            self.answer(unmatched, Vec::new());
        }
        if let Some(aside) = aside {
            self.claims.enter(aside);
            self.match_waiting(&BTreeSet::from([agent]), context);
        }
    }

    /// Answers a claim of an incarnation that is over, or of an agent that has left.
    pub(super) fn dismiss_stale(&mut self, agent: &AgentId, context: &DispatchContext<'_>) {
        let stale = self.claims.of(agent).is_some_and(|claim| !is_current(claim, context));
        if stale && let Some(claim) = self.claims.take(agent) {
            self.timers.clear(&Wake::Claim(agent.clone()));
            match context.views.agents.get(agent) {
                Some(_) => self.answer(claim, Vec::new()),
                // An agent that has left is not remembered for it.
                None => self.actions.push(Action::Answer(Box::new(claim), Vec::new())),
            }
        }
    }

    /// The client of a claim is gone: nothing is granted to it any more. It is answered all the same, so that
    /// nobody keeps its place.
    pub(super) fn hung_up(&mut self, agent: &AgentId, id: ClaimId) {
        if let Some(claim) = self.claims.take_if(agent, id) {
            self.timers.clear(&Wake::Claim(agent.clone()));
            self.answer(claim, Vec::new());
        }
    }

    /// The client was gone when the answer came. If the same claim was made again by its key, that one gets
    /// the answer; else the offers expire, no more.
    pub(super) fn undelivered(&mut self, claim: &Claim, granted: Vec<Granted>) {
        if !granted.is_empty()
            && let Some(again) = self.claims.take_repetition(claim)
        {
            self.timers.clear(&Wake::Claim(again.agent.clone()));
            self.answer(again, granted);
        }
    }

    /// Answers every claim with nothing, and matches no more. Losses, closings and deadlines go on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for claim in self.claims.take_all() {
            self.answer(claim, Vec::new());
        }
    }

    /// The time of a waiting claim is over.
    pub(super) fn claim_expired(&mut self, agent: &AgentId) {
        if let Some(claim) = self.claims.take(agent) {
            self.answer(claim, Vec::new());
        }
    }

    pub(super) fn answer(&mut self, claim: Claim, granted: Vec<Granted>) {
        // Waiting for our answer was no silence: that begins now.
        self.actions.push(Action::Heard(claim.agent.clone()));
        self.actions.push(Action::Answer(Box::new(claim), granted));
    }

    /// Matches what may have become possible: what is freshly offered with everybody who waits, and
    /// whatever is offered with those that have become able to take it.
    pub(super) fn match_waiting(&mut self, able: &BTreeSet<AgentId>, context: &DispatchContext<'_>) {
        let scene = context.scene(&self.in_flight, &self.settings);
        self.ready.advance(scene);
        if self.draining || self.claims.is_empty() {
            return;
        }
        let claims: Vec<&Claim> = if self.ready.is_fresh() {
            self.claims.all().collect()
        } else {
            able.iter().filter_map(|agent| self.claims.of(agent)).collect()
        };
        let waiting: BTreeMap<_, _> =
            claims.into_iter().filter_map(|claim| demand(scene, claim, &self.settings.thresholds)).collect();
        let able = able.iter().filter(|agent| waiting.contains_key(agent)).collect();
        let weights = self.settings.weights;
        let floor = Floor { scene, presence: context.presence, waiting, able, weights };
        for (agent, picks) in floor.pass(&mut self.ready) {
            self.grant(&agent, picks, context);
        }
    }

    fn grant(&mut self, agent: &AgentId, picks: Vec<Pick>, context: &DispatchContext<'_>) {
        let Some(claim) = self.claims.take(agent) else { return };
        self.actions.push(Action::Heard(agent.clone()));
        if self.once.as_ref().is_none_or(|(_, id, _)| *id != claim.id) {
            self.timers.clear(&Wake::Claim(agent.clone()));
        }
        let (id, incarnation, metadata) = (claim.id, claim.incarnation, claim.metadata.clone());
        self.granting.insert(id, Granting { claim, open: picks.len(), granted: Vec::new() });
        for pick in picks {
            self.in_flight.insert(pick.lease.clone(), agent.clone(), incarnation);
            let grant = Grant {
                lease: pick.lease,
                agent: agent.clone(),
                incarnation,
                candidates: pick.candidates,
                action: pick.action,
                timeout_ms: pick.timeout_ms,
                effect: pick.effect,
                has_checkpoint: pick.has_checkpoint,
                metadata: metadata.clone(),
            };
            let origin = Origin::Grant(id, agent.clone());
            self.send(Task::Grant(Box::new(grant)), origin, context.now);
        }
    }

    /// One grant of a claim was answered; after the last one the claim is.
    pub(super) fn grant_answered(&mut self, id: ClaimId, granted: Option<Granted>, now: Timestamp) {
        let Some(granting) = self.granting.get_mut(&id) else { return };
        granting.open -= 1;
        granting.granted.extend(granted);
        if granting.open > 0 {
            return;
        }
        if granting.granted.is_empty() && granting.claim.until > now {
            // Not at once: whoever refused would only be asked the same again.
            self.reopening.set(id, now.plus_ms(REFUSED_MS));
        } else if let Some(Granting { claim, granted, .. }) = self.granting.remove(&id) {
            self.answer(claim, granted);
        }
    }

    /// Lets claims wait again whose grants were all refused.
    pub(super) fn reopen(&mut self, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        while let Some(id) = self.reopening.take_due(context.now) {
            let Some(Granting { claim, .. }) = self.granting.remove(&id) else { continue };
            let agent = claim.agent.clone();
            let over = claim.until <= context.now || self.claims.of(&agent).is_some();
            if over || self.draining || !is_current(&claim, context) {
                self.answer(claim, Vec::new());
            } else {
                self.timers.set(Wake::Claim(agent.clone()), claim.until);
                self.claims.enter(claim);
                able.insert(agent);
            }
        }
    }
}

/// Whether a claim was made by the incarnation that its agent has now.
fn is_current(claim: &Claim, context: &DispatchContext<'_>) -> bool {
    let row = context.views.agents.get(&claim.agent);
    row.is_some_and(|row| row.agent.incarnation == claim.incarnation)
}

/// What a claim would take, as far as its agent has free slots.
fn demand<'c>(
    scene: Scene<'_>,
    claim: &'c Claim,
    thresholds: &Thresholds,
) -> Option<(&'c AgentId, Appetite)> {
    let row = scene.views.agents.get(&claim.agent)?;
    let agent = &row.agent;
    // It is about to be quarantined.
    if row.work.streaks.verdict(&agent.profile.config, thresholds).is_some() {
        return None;
    }
    if scene.views.lanes.holds_back(&claim.agent, agent, scene.now) {
        return None;
    }
    let free = scene.in_flight.free_slots(&claim.agent, agent, &scene.views.leases);
    let appetite = Appetite { max: claim.appetite.max.min(free), ..claim.appetite.clone() };
    (appetite.max > 0).then_some((&claim.agent, appetite))
}
