//! Where every step of an operation stands, without payloads. Folded by the aggregate and by the
//! operation board alike, so that scheduling and deciding can never disagree.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::operation::definition::StepDefinition;
use crate::operation::event::{Event, Resolution, StepError, StepsCancelled};
use crate::operation::positions::Positions;
pub use crate::operation::status::{Holder, Status, StepStatus};
use crate::{AgentId, Timestamp};

/// One step's run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRun {
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts begun so far.
    pub attempts: u32,
    /// The newest grant; 0 before the first.
    pub grant: u64,
    /// Dependencies that are not satisfied yet.
    pub unsatisfied: usize,
    /// Whole percent reported under the newest grant.
    pub progress: u8,
    /// When that was last recorded.
    pub progressed_at: Option<Timestamp>,
    /// When a checkpoint was last recorded.
    pub checkpointed_at: Option<Timestamp>,
    /// Leases of it that were lost.
    pub losses: u32,
    /// Who had the newest grant.
    pub agent: Option<AgentId>,
    /// The incarnation of the agent that claimed it.
    pub incarnation: u64,
    /// The last failure; boxed, since most steps have none.
    pub error: Option<Box<StepError>>,
    /// The grant that it was of.
    pub error_grant: u64,
    /// When the provider of the agent that gave it back last takes calls again.
    pub limited_until: Option<Timestamp>,
    /// When it last became ready.
    pub ready_at: Option<Timestamp>,
    /// When the newest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it was settled.
    pub completed_at: Option<Timestamp>,
    /// Agents that gave it back, and until when it is kept from them.
    pub held_from: Vec<(AgentId, Timestamp)>,
    /// The newest grant that ended without spending an attempt.
    pub unspent: Option<u64>,
    /// Offers of it in a row that were not taken.
    pub untaken: u32,
}

/// The unchanging part of a workflow as the run needs it: positions instead of numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Skeleton {
    /// The steps as they were asked for.
    pub steps: Arc<[StepDefinition]>,
    /// Per step: positions of those it depends on.
    pub dependencies: Box<[Box<[usize]>]>,
    /// Per step: positions of those that depend on it.
    pub dependents: Box<[Box<[usize]>]>,
    /// Numbers and positions, by number.
    index: Box<[(u32, usize)]>,
}

impl Skeleton {
    /// Links a validated workflow; unknown numbers in an unchecked one are left out.
    #[must_use]
    pub fn of(steps: Arc<[StepDefinition]>) -> Self {
        let mut index: Box<[(u32, usize)]> =
            steps.iter().enumerate().map(|(at, step)| (step.step, at)).collect();
        index.sort_unstable();
        let mut dependencies = Vec::with_capacity(steps.len());
        let mut dependents = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            let known = step.dependencies.iter().filter_map(|number| position(&index, *number));
            let mut known: Vec<usize> = known.collect();
            known.sort_unstable();
            known.dedup();
            for other in &known {
                dependents[*other].push(at);
            }
            dependencies.push(known.into_boxed_slice());
        }
        let dependents = dependents.into_iter().map(Vec::into_boxed_slice).collect();
        Self { steps, dependencies: dependencies.into(), dependents, index }
    }

    /// Position of the step with this number.
    #[must_use]
    pub fn position(&self, number: u32) -> Option<usize> {
        position(&self.index, number)
    }
}

fn position(index: &[(u32, usize)], number: u32) -> Option<usize> {
    let found = index.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    Some(index[found].1)
}

/// All steps' runs, and the sets that scheduling asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Whether the operation runs.
    pub status: Status,
    /// What does not change; kept beside the run, since the definition has it already.
    #[serde(skip)]
    pub skeleton: Arc<Skeleton>,
    /// By position.
    pub steps: Vec<StepRun>,
    /// Positions that wait for an agent.
    pub ready: Positions,
    /// Positions that wait for their next attempt.
    pub backing_off: Positions,
    /// Positions that an agent has.
    pub held: Positions,
    /// Positions that wait for a person: for an approval, or for attention.
    pub with_people: Positions,
    /// Positions that were cancelled while an agent held them, and whose slots are not free yet.
    pub closing: Positions,
    /// While it is set no step starts; what runs goes on.
    pub paused: bool,
    /// Most steps that may be under way at once; none means no bound.
    pub max_parallel: Option<u32>,
    /// How many are settled.
    pub settled: usize,
    /// Positions that failed for good and were not excused.
    pub failed: Positions,
    progress_points: u64,
    #[serde(skip)]
    moved: Vec<usize>,
}

impl Run {
    /// Before the first step.
    #[must_use]
    pub fn of(steps: &Arc<[StepDefinition]>, max_parallel: Option<u32>) -> Self {
        Self::on(Arc::new(Skeleton::of(Arc::clone(steps))), max_parallel)
    }

    /// The same on a skeleton that is there already.
    #[must_use]
    pub fn on(skeleton: Arc<Skeleton>, max_parallel: Option<u32>) -> Self {
        let runs = skeleton.dependencies.iter().map(|dependencies| StepRun {
            status: StepStatus::Pending,
            attempts: 0,
            grant: 0,
            unsatisfied: dependencies.len(),
            progress: 0,
            progressed_at: None,
            checkpointed_at: None,
            losses: 0,
            agent: None,
            incarnation: 0,
            error: None,
            error_grant: 0,
            limited_until: None,
            ready_at: None,
            started_at: None,
            completed_at: None,
            held_from: Vec::new(),
            unspent: None,
            untaken: 0,
        });
        Self {
            status: Status::Pending,
            steps: runs.collect(),
            skeleton,
            ready: Positions::new(),
            backing_off: Positions::new(),
            held: Positions::new(),
            with_people: Positions::new(),
            closing: Positions::new(),
            paused: false,
            max_parallel,
            settled: 0,
            failed: Positions::new(),
            progress_points: 0,
            moved: Vec::new(),
        }
    }

    /// Whole percent of the work: settled steps count fully, running ones by what they reported.
    #[must_use]
    pub fn progress(&self) -> u8 {
        self.progress_with(0)
    }

    /// The same after `points` more hundredths of a step, or fewer.
    #[must_use]
    pub fn progress_with(&self, points: i64) -> u8 {
        let total = self.steps.len().max(1) as u64;
        let points = self.progress_points.saturating_add_signed(points);
        u8::try_from(points / total).unwrap_or(100).min(100)
    }

    /// Hundredths of a step that settling it would add.
    #[must_use]
    pub fn points_left(&self, position: usize) -> i64 {
        i64::from(100 - self.steps[position].progress.min(100))
    }

    /// Positions of the steps that the last fact moved.
    #[must_use]
    pub fn moved(&self) -> &[usize] {
        &self.moved
    }

    /// Folds one fact.
    pub fn evolve(&mut self, event: &Event, at: Timestamp) {
        self.moved = Vec::new();
        match event {
            Event::Started => self.start(at),
            Event::Completed => self.status = Status::Completed,
            Event::Failed(_) => self.status = Status::Failed,
            Event::Cancelled(_) => self.status = Status::Cancelled,
            Event::Paused(_) => self.paused = true,
            Event::Resumed(_) => self.paused = false,
            Event::StepsSkipped(skipped) => {
                self.settle_all(&skipped.steps, &StepStatus::Skipped(skipped.reason), at);
            }
            Event::StepsCancelled(cancelled) => self.cancel(cancelled, at),
            Event::LeaseClosed(closed) => {
                if let Some(position) = self.skeleton.position(closed.lease_id.step) {
                    self.closing.remove(position);
                }
            }
            Event::Created(_) | Event::Updated(_) | Event::Progressed(_) => {}
            _ => self.evolve_step(event, at),
        }
    }

    fn cancel(&mut self, cancelled: &StepsCancelled, at: Timestamp) {
        self.settle_all(&cancelled.steps, &StepStatus::Cancelled, at);
        for lease in &cancelled.closing {
            if let Some(position) = self.skeleton.position(lease.step) {
                self.closing.insert(position);
            }
        }
    }

    /// Whether nothing of it can change any more: it has ended, and no agent has a slot for it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.is_terminal() && self.settled == self.steps.len() && self.closing.is_empty()
    }

    fn evolve_step(&mut self, event: &Event, at: Timestamp) {
        let Some(position) = event.step().and_then(|number| self.skeleton.position(number)) else { return };
        let step = &mut self.steps[position];
        match event {
            Event::StepReserved(reserved) => {
                let agent = reserved.agent.clone();
                step.grant = reserved.grant;
                (step.agent, step.incarnation) = (Some(agent.clone()), reserved.incarnation);
                let holder = Holder { agent, attempt: reserved.attempt, since: at };
                self.progress_points -= u64::from(step.progress);
                (step.progress, step.progressed_at) = (0, None);
                self.stand(position, StepStatus::Reserved(holder), at);
            }
            Event::StepOfferExpired(expired) => {
                step.unspent = Some(expired.grant);
                step.untaken += u32::from(expired.reason.is_silence());
                self.stand(position, StepStatus::Ready, at);
            }
            Event::StepReleased(released) => {
                (step.unspent, step.untaken) = (Some(released.grant), 0);
                step.held_from.retain(|(agent, until)| *until > at && *agent != released.agent);
                step.held_from.push((released.agent.clone(), released.held_until));
                self.give_attempt_back(position);
                self.stand(position, StepStatus::Ready, at);
            }
            Event::StepStarted(started) => {
                (step.attempts, step.untaken) = (started.attempt, 0);
                step.started_at = Some(started.started_at);
                if let Some(holder) = step.status.holder() {
                    let (attempt, since) = (started.attempt, started.started_at);
                    let holder = Holder { attempt, since, ..holder.clone() };
                    self.stand(position, StepStatus::Running(holder), at);
                }
            }
            Event::StepProgressed(progressed) => {
                self.progress_points -= u64::from(step.progress);
                step.progress = progressed.progress.min(100);
                step.progressed_at = Some(at);
                self.progress_points += u64::from(step.progress);
            }
            Event::StepCheckpointed(_) => step.checkpointed_at = Some(at),
            Event::StepCompleted(completed) => {
                step.attempts = step.attempts.max(completed.attempt);
                step.error = None;
                self.settle(position, StepStatus::Completed, at);
            }
            Event::StepFailed(failed) => {
                step.error = Some(Box::new(failed.error.clone()));
                step.error_grant = failed.grant;
                if failed.is_final {
                    self.settle(position, StepStatus::Failed, at);
                }
            }
            Event::StepRetryScheduled(retry) => {
                let status = StepStatus::BackingOff { at: retry.at, delay_ms: retry.delay_ms };
                self.stand(position, status, at);
            }
            // What follows a loss is said by the next event of the same append.
            Event::StepLeaseLost(lost) => {
                step.losses += 1;
                // An attempt that never started is spent all the same, and not measured from the one before.
                step.started_at = step.started_at.filter(|_| lost.attempt <= step.attempts);
                (step.attempts, step.untaken) = (step.attempts.max(lost.attempt), 0);
                step.error = Some(Box::new(lost.error()));
                step.error_grant = lost.grant;
                step.unspent = None;
            }
            _ => self.evolve_further(position, event, at),
        }
    }

    fn evolve_further(&mut self, position: usize, event: &Event, at: Timestamp) {
        match event {
            Event::StepLimited(limited) => {
                let step = &mut self.steps[position];
                (step.unspent, step.untaken) = (Some(limited.grant), 0);
                step.limited_until = Some(limited.until);
                self.give_attempt_back(position);
                self.stand(position, StepStatus::Ready, at);
            }
            Event::StepApprovalRequested(asked) => {
                let (until, timeout_ms) = (asked.until, asked.timeout_ms);
                self.stand(position, StepStatus::AwaitingApproval { until, timeout_ms }, at);
            }
            Event::StepNeedsAttention(unknown) => {
                self.steps[position].error = Some(Box::new(unknown.error.clone()));
                self.steps[position].error_grant = unknown.grant;
                self.stand(position, StepStatus::NeedsAttention, at);
            }
            // What the other resolutions lead to is said by the next event of the same append.
            Event::StepResolved(resolved) if resolved.resolution == Resolution::Retry => {
                self.steps[position].held_from.clear();
                self.steps[position].limited_until = None;
                self.stand(position, StepStatus::Ready, at);
            }
            _ => {}
        }
    }

    /// The agent that failed the step at `position` last, and when its next attempt is due, while it waits
    /// for that.
    #[must_use]
    pub fn failed_by(&self, position: usize) -> Option<(&AgentId, Timestamp)> {
        let step = &self.steps[position];
        match &step.status {
            StepStatus::BackingOff { at, .. } if step.error_grant == step.grant => {
                Some((step.agent.as_ref()?, *at))
            }
            _ => None,
        }
    }

    /// What is given back unperformed spends no attempt.
    fn give_attempt_back(&mut self, position: usize) {
        let step = &mut self.steps[position];
        if let StepStatus::Running(holder) = &step.status {
            step.attempts = holder.attempt.saturating_sub(1);
        }
    }

    fn start(&mut self, at: Timestamp) {
        self.status = Status::InProgress;
        for position in 0..self.steps.len() {
            if self.steps[position].unsatisfied == 0 && self.steps[position].status == StepStatus::Pending {
                self.stand(position, StepStatus::Ready, at);
            }
        }
    }

    /// Moves a step to where it stands now, in the status and in the sets.
    fn stand(&mut self, position: usize, status: StepStatus, at: Timestamp) {
        self.moved.push(position);
        self.ready.remove(position);
        self.backing_off.remove(position);
        self.held.remove(position);
        self.with_people.remove(position);
        match status {
            StepStatus::Ready => {
                self.ready.insert(position);
                self.steps[position].ready_at = Some(at);
            }
            StepStatus::BackingOff { .. } => self.backing_off.insert(position),
            StepStatus::Reserved(_) | StepStatus::Running(_) => self.held.insert(position),
            StepStatus::AwaitingApproval { .. } | StepStatus::NeedsAttention => {
                self.with_people.insert(position);
            }
            _ => {}
        }
        self.steps[position].status = status;
    }

    fn settle_all(&mut self, numbers: &[u32], status: &StepStatus, at: Timestamp) {
        for number in numbers {
            if let Some(position) = self.skeleton.position(*number) {
                self.settle(position, status.clone(), at);
            }
        }
    }

    fn settle(&mut self, position: usize, status: StepStatus, at: Timestamp) {
        if self.steps[position].status.is_settled() {
            return;
        }
        let excused = self.skeleton.steps[position].continue_on_error;
        let satisfies = match &status {
            StepStatus::Completed => true,
            StepStatus::Skipped(reason) => reason.satisfies(),
            StepStatus::Failed => excused,
            _ => false,
        };
        if status == StepStatus::Failed && !excused {
            self.failed.insert(position);
        }
        self.settled += 1;
        self.progress_points = self.progress_points.saturating_add_signed(self.points_left(position));
        self.steps[position].progress = 100;
        self.steps[position].completed_at = Some(at);
        self.stand(position, status, at);
        if satisfies {
            self.satisfy_dependents(position, at);
        }
    }

    fn satisfy_dependents(&mut self, position: usize, at: Timestamp) {
        let skeleton = Arc::clone(&self.skeleton);
        for dependent in &*skeleton.dependents[position] {
            let step = &mut self.steps[*dependent];
            step.unsatisfied = step.unsatisfied.saturating_sub(1);
            if step.unsatisfied == 0 && step.status == StepStatus::Pending {
                self.stand(*dependent, StepStatus::Ready, at);
            }
        }
    }
}
