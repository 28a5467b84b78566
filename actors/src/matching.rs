//! Which waiting agent gets which ready step: by priority, then in turn between operations, then by
//! age. Pure over the views; it reserves nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::agent::Agent;
use domain::agent::selection::{Applicant, Candidates, Need, Weights, select};
use domain::operation::definition::{Priority, Requirements};
use domain::operation::step::{Run, Status, StepStatus};
use domain::views::Views;
use domain::views::agent_directory::Row as AgentRow;
use domain::{ActionName, AgentId, LeaseId, OperationId, Timestamp};

use crate::presence::Presence;

/// The platform whose steps are claimed by agents' own processes.
pub const WORKER: &str = "worker";

/// A step for an agent.
#[derive(Clone, Debug)]
pub struct Pick {
    /// The lease that would be granted.
    pub lease: LeaseId,
    /// Why this agent.
    pub candidates: Candidates,
}

/// What an agent that waits for work would take.
#[derive(Clone, Debug)]
pub struct Appetite {
    /// So many steps.
    pub max: u32,
    /// Only these actions.
    pub actions: Option<Vec<ActionName>>,
}

/// Operations that may have ready steps, in the order of their turns.
#[derive(Debug, Default)]
pub struct Turns {
    queues: [BTreeMap<u64, OperationId>; Priority::ALL.len()],
    queued: HashMap<OperationId, (Priority, u64)>,
    next: u64,
}

impl Turns {
    /// Gives an operation a turn, behind the others of its priority unless it has one.
    pub fn enter(&mut self, id: &OperationId, priority: Priority) {
        if self.queued.get(id).is_none_or(|(queued, _)| *queued != priority) {
            self.move_back(id, priority);
        }
    }

    /// Takes an operation's turn away.
    pub fn leave(&mut self, id: &OperationId) {
        if let Some((priority, turn)) = self.queued.remove(id) {
            self.queues[priority as usize].remove(&turn);
        }
    }

    fn move_back(&mut self, id: &OperationId, priority: Priority) {
        self.leave(id);
        self.next += 1;
        self.queued.insert(id.clone(), (priority, self.next));
        self.queues[priority as usize].insert(self.next, id.clone());
    }

    /// The turns of one priority: of all operations, or of those in `among`.
    fn of(&self, priority: Priority, among: Option<&BTreeSet<OperationId>>) -> Vec<OperationId> {
        let Some(among) = among else { return self.queues[priority as usize].values().cloned().collect() };
        let mut turns: Vec<(u64, &OperationId)> = among
            .iter()
            .filter_map(|id| self.queued.get(id).map(|(queued, turn)| (*queued, *turn, id)))
            .filter(|(queued, _, _)| *queued == priority)
            .map(|(_, turn, id)| (turn, id))
            .collect();
        turns.sort_unstable();
        turns.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}

/// What a step asks for, to be asked once in a pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Ask<'f> {
    agent: Option<&'f AgentId>,
    among: &'f [AgentId],
    requires: &'f Requirements,
    action: &'f ActionName,
}

/// What a pass looks at.
pub struct Floor<'f> {
    /// The views.
    pub views: &'f Views,
    /// Who was seen when.
    pub presence: &'f Presence,
    /// Agents that wait for work.
    pub waiting: HashMap<&'f AgentId, Appetite>,
    /// Leases that are being granted, and to whom.
    pub in_flight: &'f HashMap<LeaseId, AgentId>,
    /// Weights of the score.
    pub weights: Weights,
    /// Now.
    pub now: Timestamp,
}

impl<'f> Floor<'f> {
    /// Matches as many steps as there is appetite for: of all operations, or of those in `among`.
    pub fn pass(
        mut self,
        turns: &mut Turns,
        among: Option<&BTreeSet<OperationId>>,
    ) -> HashMap<AgentId, Vec<Pick>> {
        let mut picks: HashMap<AgentId, Vec<Pick>> = HashMap::new();
        let mut picked: HashSet<(OperationId, u32)> = HashSet::new();
        // Appetites only shrink in a pass: what nobody can take once, nobody can take later.
        let mut hopeless: HashSet<Ask<'f>> = HashSet::new();
        for priority in Priority::ALL {
            let mut round = turns.of(priority, among);
            // One step each, then again for those that were given one.
            while !round.is_empty() && !self.waiting.is_empty() {
                round.retain(|id| {
                    if self.waiting.is_empty() {
                        return false;
                    }
                    let Some((agent, pick)) = self.pick(id, &picked, &mut hopeless) else { return false };
                    picked.insert((id.clone(), pick.lease.step));
                    self.serve(&agent);
                    picks.entry(agent).or_default().push(pick);
                    turns.move_back(id, priority);
                    true
                });
            }
        }
        picks
    }

    fn serve(&mut self, agent: &AgentId) {
        if let Some(appetite) = self.waiting.get_mut(agent) {
            appetite.max -= 1;
            if appetite.max == 0 {
                self.waiting.remove(agent);
            }
        }
    }

    /// The oldest step of this operation that somebody waiting can take.
    fn pick(
        &self,
        id: &OperationId,
        picked: &HashSet<(OperationId, u32)>,
        hopeless: &mut HashSet<Ask<'f>>,
    ) -> Option<(AgentId, Pick)> {
        let row = self.views.operations.get(id)?;
        let run = row.run.as_ref().filter(|run| run.status == Status::InProgress)?;
        let coming = self.coming(id, run, picked);
        if row.max_parallel.is_some_and(|most| run.held.len() + coming.len() >= most as usize) {
            return None;
        }
        for position in self.due(run) {
            let step = &run.skeleton.steps[position];
            if step.platform.as_str() != WORKER || coming.contains(&step.step) {
                continue;
            }
            let agent = step.agent.as_ref();
            let ask = Ask { agent, among: &row.agents, requires: &step.requires, action: &step.action };
            if hopeless.contains(&ask) {
                continue;
            }
            let held_from = &run.steps[position].held_from;
            if !self.anybody_takes(ask, held_from) {
                // Whoever gave the step back is kept from this step only, not from others like it.
                if held_from.is_empty() {
                    hopeless.insert(ask);
                }
                continue;
            }
            let candidates = self.select(ask, held_from, self.views.agents.iter());
            let grant = run.steps[position].grant + 1;
            let lease = LeaseId { operation: id.clone(), step: step.step, grant };
            let best = candidates.best().cloned()?;
            return Some((best, Pick { lease, candidates }));
        }
        None
    }

    /// Looks at those that wait only: most agents do not, and the table of all is for the explanation.
    fn anybody_takes(&self, ask: Ask<'_>, held_from: &[(AgentId, Timestamp)]) -> bool {
        let waiting = self.waiting.keys().filter_map(|id| Some((*id, self.views.agents.get(id)?)));
        self.select(ask, held_from, waiting).best().is_some()
    }

    fn select<'a>(
        &self,
        ask: Ask<'_>,
        held_from: &[(AgentId, Timestamp)],
        agents: impl Iterator<Item = (&'a AgentId, &'a AgentRow)>,
    ) -> Candidates {
        let need = Need { agent: ask.agent, among: ask.among, requires: ask.requires, held_from };
        let wants =
            |appetite: &Appetite| appetite.actions.as_ref().is_none_or(|all| all.contains(ask.action));
        let applicants =
            agents.map(|(id, row)| self.applicant(id, &row.agent, self.waiting.get(id).is_some_and(wants)));
        select(&need, applicants, self.weights, self.now)
    }

    /// Steps of an operation that are picked or being granted, and that its row does not show as held yet.
    fn coming(&self, id: &OperationId, run: &Run, picked: &HashSet<(OperationId, u32)>) -> HashSet<u32> {
        let picked = picked.iter().filter(|(operation, _)| operation == id).map(|(_, step)| *step);
        let granting = self.in_flight.keys().filter(|lease| lease.operation == *id);
        let granting = granting.filter(|lease| {
            let run = run.skeleton.position(lease.step).map(|position| &run.steps[position]);
            run.is_some_and(|run| run.grant < lease.grant)
        });
        picked.chain(granting.map(|lease| lease.step)).collect()
    }

    fn due<'r>(&self, run: &'r Run) -> impl Iterator<Item = usize> + 'r {
        let now = self.now;
        let is_due = move |position: &usize| match run.steps[*position].status {
            StepStatus::BackingOff { at, .. } => at <= now,
            _ => false,
        };
        run.ready.iter().copied().chain(run.backing_off.iter().copied().filter(is_due))
    }

    fn applicant<'a>(&self, id: &'a AgentId, agent: &'a Agent, waits: bool) -> Applicant<'a> {
        let seen = self.presence.seen(id);
        let limit = domain::agent::health::silence_limit_ms(&agent.profile.config);
        let freshness = match (seen, limit) {
            (Some(seen), Some(limit)) => 1.0 - (self.now.ms_since(seen.at) as f64 / limit as f64).min(1.0),
            _ => 1.0,
        };
        let reported = seen.map_or(agent.reported, |seen| seen.metrics);
        let free_slots = free_slots(id, agent, self.in_flight);
        Applicant { id, agent, free_slots, freshness, reported, waits }
    }
}

/// Slots of an agent that are free, where a lease that is being granted has taken one already.
#[must_use]
pub fn free_slots(id: &AgentId, agent: &Agent, in_flight: &HashMap<LeaseId, AgentId>) -> u32 {
    let coming = in_flight.iter().filter(|(lease, to)| *to == id && !agent.assignments.contains_key(*lease));
    agent.free_slots().saturating_sub(u32::try_from(coming.count()).unwrap_or(u32::MAX))
}
