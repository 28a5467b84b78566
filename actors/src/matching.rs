//! Which waiting agent gets which ready step: by class, then in turn between operations, then by age.
//! Pure over the views and the index of ready steps; it reserves nothing.
//!
//! A pass looks at asks, not at steps: at those that a step has joined or that have room again
//! (*fresh*), and at those that an agent may serve which was not able to before. After a pass nobody who
//! waits can take anything that is offered, so nothing else can have become possible since. What makes
//! an agent able is listed where passes are made, in `dispatch.rs`.

use std::collections::{BTreeMap, BTreeSet};

use domain::agent::selection::{Applicant, Candidates, Need, Weights, select};
use domain::operation::definition::EffectClass;
use domain::views::agent_directory::Row as AgentRow;
use domain::{ActionName, AgentId, LeaseId};

use crate::presence::Presence;
use crate::ready::{Ask, Front, Ready, Scene};

/// A step for an agent.
#[derive(Clone, Debug)]
pub struct Pick {
    /// The lease that would be granted.
    pub lease: LeaseId,
    /// Why this agent.
    pub candidates: Candidates,
    /// What is performed.
    pub action: ActionName,
    /// Hard stop of the attempt, in milliseconds from its start.
    pub timeout_ms: u64,
    /// What performing it does to the world.
    pub effect: EffectClass,
    /// Whether an earlier attempt left a checkpoint.
    pub has_checkpoint: bool,
}

/// What an agent that waits for work would take.
#[derive(Clone, Debug)]
pub struct Appetite {
    /// So many steps.
    pub max: u32,
    /// Only these actions.
    pub actions: Option<Vec<ActionName>>,
}

/// What a pass looks at.
pub struct Floor<'f> {
    /// The views, what is being granted, and the time.
    pub scene: Scene<'f>,
    /// Who was seen when.
    pub presence: &'f Presence,
    /// Agents that wait for work and have a free slot.
    pub waiting: BTreeMap<&'f AgentId, Appetite>,
    /// Those of them that could not take before what they can take now.
    pub able: BTreeSet<&'f AgentId>,
    /// Weights of the score.
    pub weights: Weights,
}

impl Floor<'_> {
    /// Matches as many steps as there is appetite for. The index has been advanced to this moment.
    pub fn pass(mut self, ready: &mut Ready) -> BTreeMap<AgentId, Vec<Pick>> {
        let mut picks: BTreeMap<AgentId, Vec<Pick>> = BTreeMap::new();
        let fresh = ready.take_fresh();
        let mut fronts = self.fronts(ready, &fresh);
        while !self.waiting.is_empty()
            && let Some(front) = fronts.pop_first()
        {
            let next = match ready.front(front.ask) {
                Some(next) if next == front => next,
                // It had to let others pass.
                later => {
                    fronts.extend(later);
                    continue;
                }
            };
            if !ready.stands(self.scene, &next) {
                ready.forget(&next, self.scene.now);
            } else if let Some((agent, pick)) = self.pick(&next, fresh.contains(&next.ask)) {
                ready.take(&next, self.scene.now);
                self.serve(&agent);
                picks.entry(agent).or_default().push(pick);
            } else {
                // Appetites only shrink in a pass: what nobody takes once, nobody takes later.
                continue;
            }
            fronts.extend(ready.front(next.ask));
        }
        picks
    }

    /// The next steps of all asks that anybody may have become able to take.
    fn fronts(&self, ready: &mut Ready, fresh: &BTreeSet<Ask>) -> BTreeSet<Front> {
        if self.waiting.is_empty() {
            return BTreeSet::new();
        }
        let mut asks = fresh.clone();
        for id in &self.able {
            if let Some(row) = self.scene.views.agents.get(id) {
                asks.extend(ready.asks_for(id, &row.agent));
            }
        }
        asks.into_iter().filter_map(|ask| ready.front(ask)).collect()
    }

    fn serve(&mut self, agent: &AgentId) {
        if let Some(appetite) = self.waiting.get_mut(agent) {
            appetite.max -= 1;
            if appetite.max == 0 {
                self.waiting.remove(agent);
            }
        }
    }

    /// Who takes this step, if anybody does.
    fn pick(&self, front: &Front, fresh: bool) -> Option<(AgentId, Pick)> {
        let (row, run) = self.scene.offered(&front.operation)?;
        let step = &run.skeleton.steps[front.position];
        let need = self.scene.need(row, run, front.position);
        if !self.anybody_takes(&need, &step.action, fresh) {
            return None;
        }
        let candidates = self.select(&need, &step.action, self.scene.views.agents.iter());
        let grant = run.steps[front.position].grant + 1;
        let lease = LeaseId { operation: front.operation.clone(), step: step.step, grant };
        let best = candidates.best().cloned()?;
        let pick = Pick {
            lease,
            candidates,
            action: step.action.clone(),
            timeout_ms: step.timeout_ms,
            effect: step.effect,
            has_checkpoint: run.steps[front.position].checkpointed_at.is_some(),
        };
        Some((best, pick))
    }

    /// Looks only at those that may: the table of all agents is for the explanation.
    fn anybody_takes(&self, need: &Need<'_>, action: &ActionName, fresh: bool) -> bool {
        let takes = |id: &&AgentId| {
            let row = self.scene.views.agents.get(id).map(|row| (*id, row));
            self.select(need, action, row.into_iter()).best().is_some()
        };
        if fresh {
            self.waiting.keys().any(&takes)
        } else {
            self.able.iter().filter(|id| self.waiting.contains_key(*id)).any(takes)
        }
    }

    fn select<'a>(
        &self,
        need: &Need<'_>,
        action: &ActionName,
        agents: impl Iterator<Item = (&'a AgentId, &'a AgentRow)>,
    ) -> Candidates {
        let wants = |appetite: &Appetite| appetite.actions.as_ref().is_none_or(|all| all.contains(action));
        let applicants =
            agents.map(|(id, row)| self.applicant(id, row, self.waiting.get(id).is_some_and(wants)));
        select(need, applicants, self.weights, self.scene.now)
    }

    fn applicant<'a>(&self, id: &'a AgentId, row: &'a AgentRow, waits: bool) -> Applicant<'a> {
        let Scene { views, in_flight, now, .. } = self.scene;
        let agent = &row.agent;
        let (freshness, reported) = self.presence.freshness(id, row, now);
        let free_slots = in_flight.free_slots(id, agent, &views.leases);
        let parked = views.lanes.holds_back(id, agent, now);
        let (record, idle_since) = (&row.work.record, row.work.idle_since);
        Applicant { id, agent, record, idle_since, free_slots, freshness, reported, parked, waits }
    }
}
