//! Owns what the views say about pools: which ready steps a worker of each could take, how long they have
//! waited, how long steps take, and how the workers stand. It must never change anything.

use std::collections::BTreeMap;
use std::ops::Bound;

use actors::ready::WORKER;
use domain::agent::Agent;
use domain::agent::event::{Profile, Status};
use domain::agent::record::Record;
use domain::agent::selection::meets;
use domain::operation::definition::{Requirements, StepDefinition};
use domain::pool::Seen;
use domain::views::Views;
use domain::views::agent_directory::Row as AgentRow;
use domain::views::operation_board::Row;
use domain::{AgentId, OperationId, Timestamp};
use parking_lot::RwLock;

/// Operations that are looked at under one lock.
const CHUNK: usize = 256;

/// Ready steps that a worker of one pool could take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) ready: u64,
    pub(super) oldest_wait_ms: u64,
}

impl Queue {
    fn add(&mut self, wait_ms: u64) {
        self.ready += 1;
        self.oldest_wait_ms = self.oldest_wait_ms.max(wait_ms);
    }
}

/// Who asks: what its workers say of themselves, and which there are now.
pub(super) struct Asking {
    pub(super) profile: Profile,
    /// Whether the account that they all work with takes no calls now.
    pub(super) parked: bool,
    pub(super) crew: Vec<AgentId>,
}

/// Looks at every operation under way, a part at a time, so that nobody waits long for the views.
pub(super) async fn queues(views: &RwLock<Views>, asking: &[Asking], now: Timestamp) -> Vec<Queue> {
    let mut queues = vec![Queue::default(); asking.len()];
    let mut last: Option<OperationId> = None;
    loop {
        {
            let views = views.read();
            let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut chunk = views.operations.open().range((after, Bound::Unbounded)).take(CHUNK).peekable();
            if chunk.peek().is_none() {
                return queues;
            }
            let mut seen = None;
            for id in chunk {
                if let Some(row) = views.operations.get(id) {
                    count(row, asking, now, &mut queues);
                }
                seen = Some(id.clone());
            }
            last = seen;
        }
        tokio::task::yield_now().await;
    }
}

/// Counts the steps of one operation; no more than it may have under way at once.
fn count(row: &Row, asking: &[Asking], now: Timestamp, queues: &mut [Queue]) {
    let Some(run) = row.open_run() else { return };
    let steps = |position: usize| &run.skeleton.steps[position];
    let waiting = run.awaiting_agents(now).filter(|position| is_for_workers(steps(*position)));
    // Most steps of an operation require the same, which is then looked at once.
    let mut met: Option<(&Requirements, Vec<bool>)> = None;
    for position in waiting.take(run.room()) {
        let step = steps(position);
        if met.as_ref().is_none_or(|(requires, _)| **requires != step.requires) {
            let meeting = asking.iter().map(|asking| meets(&asking.profile, &step.requires));
            met = Some((&step.requires, meeting.collect()));
        }
        let Some((_, meeting)) = &met else { continue };
        let wait_ms = run.due_since(position, now).map_or(0, |since| now.ms_since(since));
        let asked = asking.iter().zip(meeting).zip(queues.iter_mut());
        for ((asking, meets), queue) in asked {
            if *meets && !asking.parked && may_be_asked(&asking.crew, row, step) {
                queue.add(wait_ms);
            }
        }
    }
}

fn is_for_workers(step: &StepDefinition) -> bool {
    step.platform.as_str() == WORKER
}

/// A step that names agents is work for a pool only when one of them is its worker at the moment.
fn may_be_asked(crew: &[AgentId], row: &Row, step: &StepDefinition) -> bool {
    let is_there = |agent: &AgentId| crew.contains(agent);
    step.agent.as_ref().is_none_or(is_there) && (row.agents.is_empty() || row.agents.iter().any(is_there))
}

/// Mean time that a step takes, over the agents of a pool, each weighing as many steps as it completed.
pub(super) fn service_ms<'a>(records: impl Iterator<Item = &'a Record>) -> Option<u64> {
    let measured = records.filter_map(|record| Some((record.response_ms()?, record.completed as f64)));
    let (time, steps): (f64, f64) = measured
        .fold((0.0, 0.0), |(time, steps), (mean, completed)| (time + mean * completed, steps + completed));
    (steps > 0.0).then_some((time / steps).ceil() as u64)
}

/// How the agents stand that fit a pool whose workers somebody else starts.
pub(super) fn outside(views: &Views, profile: &Profile) -> (Seen, Vec<AgentId>) {
    let wanted = Requirements {
        capabilities: profile.capabilities.clone(),
        location: None,
        model: None,
        labels: profile.config.labels.clone(),
    };
    let fits = |agent: &Agent| agent.status == Status::Active && meets(&agent.profile, &wanted);
    let fitting: BTreeMap<&AgentId, &AgentRow> =
        views.agents.iter().filter(|(_, row)| fits(&row.agent)).collect();
    let held: Vec<usize> = fitting.keys().map(|id| views.leases.of_agent(id).count()).collect();
    let busy = held.iter().filter(|held| **held > 0).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let seen = Seen {
        held: held.iter().sum::<usize>() as u64,
        busy: count(busy),
        idle: count(fitting.len() - busy),
        service_ms: service_ms(fitting.values().map(|row| &row.work.record)),
        ..Seen::default()
    };
    (seen, fitting.into_keys().cloned().collect())
}
