//! The matching of `actors::matching` in its plainest form: every step of every operation is looked at,
//! again for each pick. Knows no index.

use std::collections::{BTreeMap, HashMap, HashSet};

use actors::matching::{Appetite, Pick};
use actors::ready::Scene;
use domain::agent::event::Status as AgentStatus;
use domain::agent::selection::{Applicant, Candidates, Need, Weights, fits, select};
use domain::operation::step::{Run, Status, StepStatus};
use domain::views::operation_board::Row;
use domain::{ActionName, AgentId, LeaseId, OperationId, Timestamp};

/// Whose turn it is.
#[derive(Default)]
pub struct Model {
    turns: HashMap<OperationId, u64>,
    last: u64,
}

/// Class, turn, since when, position.
type Rank = (usize, u64, Timestamp, usize);

impl Model {
    /// An operation with an offered step has a turn, another has none.
    pub fn look(&mut self, scene: Scene<'_>, id: &OperationId) {
        let any = running(scene, id).is_some_and(|(_, run)| {
            (0..run.steps.len()).any(|position| offered_since(scene, id, run, position).is_some())
        });
        if !any {
            self.turns.remove(id);
        } else if !self.turns.contains_key(id) {
            self.last += 1;
            self.turns.insert(id.clone(), self.last);
        }
    }

    /// Looks at the operations whose steps stand elsewhere because time passed since `then`.
    pub fn advance(&mut self, scene: Scene<'_>, then: Timestamp) {
        let mut moments = Vec::new();
        for id in scene.views.operations.open() {
            let Some((_, run)) = running(scene, id) else { continue };
            for (position, step) in run.steps.iter().enumerate() {
                let held = step.held_from.iter().map(|(_, until)| *until);
                let moment = match step.status {
                    StepStatus::BackingOff { at, .. } if at > then => Some(at),
                    StepStatus::BackingOff { at, .. } => {
                        let elsewhere = at.plus_ms(scene.elsewhere_ms);
                        held.chain([elsewhere]).filter(|until| *until > then).min()
                    }
                    StepStatus::Ready => held.filter(|until| *until > then).min(),
                    _ => None,
                };
                moments.extend(moment.filter(|at| *at <= scene.now).map(|at| (at, id.clone(), position)));
            }
        }
        moments.sort();
        for (_, id, _) in moments {
            self.look(scene, &id);
        }
    }

    /// Whether somebody who waits could be given a step, whoever is to be served first.
    pub fn any(scene: Scene<'_>, waiting: &BTreeMap<&AgentId, Appetite>) -> bool {
        Self::default().next(scene, waiting, &[], u64::MAX).is_some()
    }

    /// Matches until nothing is possible.
    pub fn pass(
        &mut self,
        scene: Scene<'_>,
        waiting: &BTreeMap<&AgentId, Appetite>,
        starvation_ms: u64,
    ) -> Vec<(AgentId, Pick)> {
        let mut waiting = waiting.clone();
        let mut picks: Vec<(AgentId, Pick)> = Vec::new();
        while let Some((id, agent, pick)) = self.next(scene, &waiting, &picks, starvation_ms) {
            if let Some(appetite) = waiting.get_mut(&agent) {
                appetite.max -= 1;
            }
            waiting.retain(|_, appetite| appetite.max > 0);
            self.last += 1;
            self.turns.insert(id, self.last);
            picks.push((agent, pick));
        }
        // What is being granted is offered no more, until it is refused: then it waits for its turn anew.
        let granted: HashSet<&LeaseId> = picks.iter().map(|(_, pick)| &pick.lease).collect();
        for id in granted.iter().map(|lease| &lease.operation) {
            let Some((_, run)) = running(scene, id) else { continue };
            let offered = |at: usize| {
                offered_since(scene, id, run, at).is_some() && !granted.contains(&next_lease(id, run, at))
            };
            if !(0..run.steps.len()).any(offered) {
                self.turns.remove(id);
            }
        }
        picks
    }

    fn next(
        &self,
        scene: Scene<'_>,
        waiting: &BTreeMap<&AgentId, Appetite>,
        picks: &[(AgentId, Pick)],
        starvation_ms: u64,
    ) -> Option<(OperationId, AgentId, Pick)> {
        let picked: HashSet<&LeaseId> = picks.iter().map(|(_, pick)| &pick.lease).collect();
        let mut best: Option<(Rank, OperationId, AgentId, Pick)> = None;
        for id in scene.views.operations.open() {
            let Some((row, run)) = running(scene, id) else { continue };
            let under_way = scene.in_flight.under_way(id, run)
                + picked.iter().filter(|lease| lease.operation == *id).count();
            if run.paused || row.max_parallel.is_some_and(|most| under_way >= most as usize) {
                continue;
            }
            for position in 0..run.steps.len() {
                let Some(since) = offered_since(scene, id, run, position) else { continue };
                let lease = next_lease(id, run, position);
                if picked.contains(&lease) {
                    continue;
                }
                let risen = usize::try_from(scene.now.ms_since(since) / starvation_ms).unwrap();
                let class = (row.priority as usize).saturating_sub(risen);
                let rank = (class, self.turns.get(id).copied().unwrap_or(0), since, position);
                if best.as_ref().is_some_and(|(better, ..)| *better < rank) {
                    continue;
                }
                let candidates = candidates(scene, row, run, position, waiting);
                let Some(agent) = candidates.best().cloned() else { continue };
                best = Some((rank, id.clone(), agent, pick(run, position, lease, candidates)));
            }
        }
        best.map(|(_, id, agent, pick)| (id, agent, pick))
    }
}

fn pick(run: &Run, position: usize, lease: LeaseId, candidates: Candidates) -> Pick {
    let step = &run.skeleton.steps[position];
    Pick {
        lease,
        candidates,
        action: step.action.clone(),
        timeout_ms: step.timeout_ms,
        effect: step.effect,
        has_checkpoint: run.steps[position].checkpointed_at.is_some(),
    }
}

fn running<'s>(scene: Scene<'s>, id: &OperationId) -> Option<(&'s Row, &'s Run)> {
    let row = scene.views.operations.get(id)?;
    Some((row, row.run.as_ref().filter(|run| run.status == Status::InProgress)?))
}

fn next_lease(id: &OperationId, run: &Run, position: usize) -> LeaseId {
    let step = run.skeleton.steps[position].step;
    LeaseId { operation: id.clone(), step, grant: run.steps[position].grant + 1 }
}

fn offered_since(scene: Scene<'_>, id: &OperationId, run: &Run, position: usize) -> Option<Timestamp> {
    let since = match run.steps[position].status {
        StepStatus::Ready => run.steps[position].ready_at.unwrap(),
        StepStatus::BackingOff { at, .. } if at <= scene.now => at,
        _ => return None,
    };
    let claimed = run.skeleton.steps[position].platform.as_str() == "worker";
    (claimed && !scene.in_flight.contains(&next_lease(id, run, position))).then_some(since)
}

/// Everybody's chances for this step; none is ranked when nobody takes it.
fn candidates(
    scene: Scene<'_>,
    row: &Row,
    run: &Run,
    position: usize,
    waiting: &BTreeMap<&AgentId, Appetite>,
) -> Candidates {
    let step = &run.skeleton.steps[position];
    let held_from = &run.steps[position].held_from;
    let (agent, among, requires) = (step.agent.as_ref(), &row.agents[..], &step.requires);
    let mut need = Need { agent, among, requires, held_from, avoids: None };
    need.avoids = avoided(scene, run, position).filter(|avoided| {
        let others = scene.views.agents.iter().filter(|(id, _)| *id != *avoided);
        others.into_iter().any(|(id, other)| {
            let held = held_from.iter().any(|(from, until)| from == id && *until > scene.now);
            let parked = scene.views.lanes.holds_back(id, &other.agent, scene.now);
            let fit = fits(agent, among, requires, id, &other.agent.profile);
            fit && !held && !parked && other.agent.status == AgentStatus::Active
        })
    });
    let applicants = scene.views.agents.iter().map(|(id, row)| Applicant {
        id,
        agent: &row.agent,
        record: &row.work.record,
        idle_since: row.work.idle_since,
        free_slots: scene.in_flight.free_slots(id, &row.agent, &scene.views.leases),
        freshness: 1.0,
        reported: row.reported,
        parked: scene.views.lanes.holds_back(id, &row.agent, scene.now),
        waits: waiting.get(id).is_some_and(|appetite| wants(appetite, &step.action)),
    });
    select(&need, applicants, Weights::default(), scene.now)
}

/// The agent whose attempt failed last, while the next one is due and not due for long.
fn avoided<'r>(scene: Scene<'_>, run: &'r Run, position: usize) -> Option<&'r AgentId> {
    let step = &run.steps[position];
    let StepStatus::BackingOff { at, .. } = step.status else { return None };
    // Without a failure of the newest grant, it is due for another reason.
    let failed = step.error_grant == step.grant;
    let just_due = at <= scene.now && scene.now < at.plus_ms(scene.elsewhere_ms);
    step.agent.as_ref().filter(|_| failed && just_due)
}

fn wants(appetite: &Appetite, action: &ActionName) -> bool {
    appetite.actions.as_ref().is_none_or(|actions| actions.contains(action))
}
