//! Which waiting agent gets which ready step: by priority, then in turn between operations, then by
//! age. Pure over the views; it reserves nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use domain::agent::Agent;
use domain::agent::selection::{Applicant, Candidates, Need, Weights, select};
use domain::operation::definition::Priority;
use domain::operation::step::{Run, Status, StepStatus};
use domain::views::Views;
use domain::views::operation_board::Row;
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
    queues: [VecDeque<OperationId>; Priority::ALL.len()],
    queued: HashMap<OperationId, Priority>,
}

impl Turns {
    /// Gives an operation a turn, behind the others of its priority unless it has one.
    pub fn enter(&mut self, id: &OperationId, priority: Priority) {
        if self.queued.get(id) == Some(&priority) {
            return;
        }
        self.leave(id);
        self.queued.insert(id.clone(), priority);
        self.queues[priority as usize].push_back(id.clone());
    }

    /// Takes an operation's turn away.
    pub fn leave(&mut self, id: &OperationId) {
        if let Some(priority) = self.queued.remove(id) {
            self.queues[priority as usize].retain(|other| other != id);
        }
    }

    /// How many operations wait for a turn.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
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

impl Floor<'_> {
    /// Matches as many steps as there is appetite for.
    pub fn pass(mut self, turns: &mut Turns) -> HashMap<AgentId, Vec<Pick>> {
        let mut picks: HashMap<AgentId, Vec<Pick>> = HashMap::new();
        let mut picked: HashSet<(OperationId, u32)> = HashSet::new();
        for queue in &mut turns.queues {
            // One turn each, until a whole round brings nothing.
            let mut passed = 0;
            while passed < queue.len() && !self.waiting.is_empty() {
                let Some(id) = queue.pop_front() else { break };
                if let Some((agent, pick)) = self.pick(&id, &picked) {
                    picked.insert((id.clone(), pick.lease.step));
                    self.serve(&agent);
                    picks.entry(agent).or_default().push(pick);
                    passed = 0;
                } else {
                    passed += 1;
                }
                queue.push_back(id);
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
    fn pick(&self, id: &OperationId, picked: &HashSet<(OperationId, u32)>) -> Option<(AgentId, Pick)> {
        let row = self.views.operations.get(id)?;
        let run = row.run.as_ref().filter(|run| run.status == Status::InProgress)?;
        let coming = self.coming(id, run, picked);
        if row.max_parallel.is_some_and(|most| run.held.len() + coming.len() >= most as usize) {
            return None;
        }
        let mut hopeless: Vec<usize> = Vec::new();
        for position in self.due(run) {
            let step = &run.skeleton.steps[position];
            if step.platform.as_str() != WORKER || coming.contains(&step.step) {
                continue;
            }
            // A step that asks for the same as one that nobody can take is not looked at again.
            if hopeless.iter().any(|other| same_need(run, *other, position)) {
                continue;
            }
            let candidates = self.candidates(row, run, position);
            let Some(best) = candidates.best().cloned() else {
                hopeless.push(position);
                continue;
            };
            let grant = run.steps[position].grant + 1;
            let lease = LeaseId { operation: id.clone(), step: step.step, grant };
            return Some((best, Pick { lease, candidates }));
        }
        None
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

    fn candidates(&self, row: &Row, run: &Run, position: usize) -> Candidates {
        let step = &run.skeleton.steps[position];
        let need = Need {
            agent: step.agent.as_ref(),
            among: &row.agents,
            requires: &step.requires,
            held_from: &run.steps[position].held_from,
        };
        let applicants = self.views.agents.iter().map(|(id, row)| {
            let appetite = self.waiting.get(id);
            let wants = appetite.is_some_and(|appetite| {
                appetite.actions.as_ref().is_none_or(|all| all.contains(&step.action))
            });
            self.applicant(id, &row.agent, wants)
        });
        select(&need, applicants, self.weights, self.now)
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

fn same_need(run: &Run, one: usize, other: usize) -> bool {
    let (a, b) = (&run.skeleton.steps[one], &run.skeleton.steps[other]);
    let held = run.steps[one].held_from.is_empty() && run.steps[other].held_from.is_empty();
    held && a.agent == b.agent && a.action == b.action && a.requires == b.requires
}
