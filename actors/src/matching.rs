//! Which waiting agent gets which ready step: by priority, then in turn between operations, then by
//! age. Pure over the views; it reserves nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use domain::agent::Agent;
use domain::agent::selection::{Applicant, Candidates, Need, Weights, select};
use domain::operation::definition::{Priority, StepDefinition};
use domain::operation::step::{Run, Status, StepStatus};
use domain::views::Views;
use domain::views::agent_directory::Row as AgentRow;
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

/// What a step asks for, as a number: steps that ask for the same have the same one.
type Ask = u64;

/// Steps of one operation that are looked at to see whether all of them ask for the same.
const SAME_ASK_STEPS_MAX: usize = 16;

/// An operation's turn.
#[derive(Debug)]
struct Turn {
    id: OperationId,
    /// What all of its due steps ask for, if it is known that they ask for the same.
    ask: Option<Ask>,
}

/// Operations that may have ready steps, in the order of their turns.
#[derive(Debug, Default)]
pub struct Turns {
    queues: [BTreeMap<u64, Turn>; Priority::ALL.len()],
    queued: HashMap<OperationId, (Priority, u64)>,
    next: u64,
    /// Turns a step's wishes into a number; differs from process to process, so nobody can aim at it.
    asking: RandomState,
}

impl Turns {
    /// Gives an operation a turn, behind the others of its priority unless it has one.
    pub fn enter(&mut self, id: &OperationId, row: &Row, run: &Run) {
        let ask = self.same_ask(row, run);
        match self.queued.get(id) {
            Some((priority, turn)) if *priority == row.priority => {
                if let Some(turn) = self.queues[*priority as usize].get_mut(turn) {
                    turn.ask = ask;
                }
            }
            _ => self.move_back(id, row.priority, ask),
        }
    }

    /// Takes an operation's turn away.
    pub fn leave(&mut self, id: &OperationId) {
        if let Some((priority, turn)) = self.queued.remove(id) {
            self.queues[priority as usize].remove(&turn);
        }
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    fn move_back(&mut self, id: &OperationId, priority: Priority, ask: Option<Ask>) {
        self.leave(id);
        self.next += 1;
        self.queued.insert(id.clone(), (priority, self.next));
        self.queues[priority as usize].insert(self.next, Turn { id: id.clone(), ask });
    }

    /// The next turn of this priority after the given one, of all operations or of those in `among`.
    /// Operations that only ask for what nobody takes are passed over.
    fn after(
        &self,
        priority: Priority,
        turn: u64,
        among: Option<&BTreeSet<OperationId>>,
        hopeless: &HashSet<Ask>,
    ) -> Option<(u64, OperationId, Option<Ask>)> {
        let hopeful = |found: &Turn| found.ask.is_none_or(|ask| !hopeless.contains(&ask));
        let queue = &self.queues[priority as usize];
        let Some(among) = among else {
            let mut later = queue.range((Bound::Excluded(turn), Bound::Unbounded));
            let (turn, found) = later.find(|(_, found)| hopeful(found))?;
            return Some((*turn, found.id.clone(), found.ask));
        };
        let turns = among.iter().filter_map(|id| self.queued.get(id));
        let later = turns.filter(|(queued, at)| *queued == priority && *at > turn).map(|(_, at)| *at);
        let next = later.filter(|at| queue.get(at).is_some_and(hopeful)).min()?;
        let found = queue.get(&next)?;
        Some((next, found.id.clone(), found.ask))
    }

    fn same_ask(&self, row: &Row, run: &Run) -> Option<Ask> {
        if run.ready.len() + run.backing_off.len() > SAME_ASK_STEPS_MAX {
            return None;
        }
        let mut asks = run.ready.iter().chain(&run.backing_off).map(|position| {
            // A step that is kept from somebody is a case of its own.
            let shared = run.steps[*position].held_from.is_empty();
            shared.then(|| self.ask(row, &run.skeleton.steps[*position]))
        });
        let first = asks.next()??;
        asks.all(|ask| ask == Some(first)).then_some(first)
    }

    fn ask(&self, row: &Row, step: &StepDefinition) -> Ask {
        self.asking.hash_one((&step.platform, &step.agent, &row.agents, &step.requires, &step.action))
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
    /// Matches as many steps as there is appetite for: of all operations, or of those in `among`.
    pub fn pass(
        mut self,
        turns: &mut Turns,
        among: Option<&BTreeSet<OperationId>>,
    ) -> HashMap<AgentId, Vec<Pick>> {
        let mut picks: HashMap<AgentId, Vec<Pick>> = HashMap::new();
        let mut picked: HashSet<(OperationId, u32)> = HashSet::new();
        // Appetites only shrink in a pass: what nobody takes once, nobody takes later.
        let mut hopeless: HashSet<Ask> = HashSet::new();
        for priority in Priority::ALL {
            let mut last = 0;
            // An operation that is served moves to the back, and is met again after all others.
            while !self.waiting.is_empty()
                && let Some((turn, id, ask)) = turns.after(priority, last, among, &hopeless)
            {
                last = turn;
                if let Some((agent, pick)) = self.pick(&id, turns, &picked, &mut hopeless) {
                    picked.insert((id.clone(), pick.lease.step));
                    self.serve(&agent);
                    picks.entry(agent).or_default().push(pick);
                    turns.move_back(&id, priority, ask);
                }
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
        turns: &Turns,
        picked: &HashSet<(OperationId, u32)>,
        hopeless: &mut HashSet<Ask>,
    ) -> Option<(AgentId, Pick)> {
        let row = self.views.operations.get(id)?;
        let run = row.run.as_ref().filter(|run| run.status == Status::InProgress)?;
        let coming = self.coming(id, run, picked);
        if row.max_parallel.is_some_and(|most| run.held.len() + coming.len() >= most as usize) {
            return None;
        }
        for position in self.due(run) {
            let step = &run.skeleton.steps[position];
            if coming.contains(&step.step) {
                continue;
            }
            let ask = turns.ask(row, step);
            if hopeless.contains(&ask) {
                continue;
            }
            let held_from = &run.steps[position].held_from;
            let need =
                Need { agent: step.agent.as_ref(), among: &row.agents, requires: &step.requires, held_from };
            if step.platform.as_str() != WORKER || !self.anybody_takes(&need, &step.action) {
                // Whoever gave the step back is kept from this step only, not from others like it.
                if held_from.is_empty() {
                    hopeless.insert(ask);
                }
                continue;
            }
            let candidates = self.select(&need, &step.action, self.views.agents.iter());
            let grant = run.steps[position].grant + 1;
            let lease = LeaseId { operation: id.clone(), step: step.step, grant };
            let best = candidates.best().cloned()?;
            return Some((best, Pick { lease, candidates }));
        }
        None
    }

    /// Looks at those that wait only: most agents do not, and the table of all is for the explanation.
    fn anybody_takes(&self, need: &Need<'_>, action: &ActionName) -> bool {
        let waiting = self.waiting.keys().filter_map(|id| Some((*id, self.views.agents.get(id)?)));
        self.select(need, action, waiting).best().is_some()
    }

    fn select<'a>(
        &self,
        need: &Need<'_>,
        action: &ActionName,
        agents: impl Iterator<Item = (&'a AgentId, &'a AgentRow)>,
    ) -> Candidates {
        let wants = |appetite: &Appetite| appetite.actions.as_ref().is_none_or(|all| all.contains(action));
        let applicants =
            agents.map(|(id, row)| self.applicant(id, &row.agent, self.waiting.get(id).is_some_and(wants)));
        select(need, applicants, self.weights, self.now)
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
        let (freshness, reported) = self.presence.freshness(id, agent, self.now);
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
