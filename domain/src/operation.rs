//! An operation: a workflow of steps and how far it has come. Owns what happens to steps; knows
//! agents by name only.

mod command;
mod decide_person;
mod decide_step;
pub mod definition;
pub mod event;
pub mod expression;
pub mod kept;
pub mod pending;
pub mod plan;
pub mod positions;
pub mod retry;
mod settle;
mod sight;
pub mod status;
pub mod step;
pub mod workflow;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use command::{Command, Intervention, Rejection, StepWish};
pub use event::Event;
pub use step::Status;

use crate::operation::decide_person::Word;
use crate::operation::definition::Definition;
use crate::operation::event::{Cancelled, Failed, FailureReason, Patch, Paused, Resumed};
use crate::operation::pending::Effect;
use crate::operation::settle::Settlement;
use crate::operation::step::Run;
use crate::{Aggregate, Given, Json, OperationId, Timestamp};

/// An operation's state. Its id is the stream's name and is told where it is needed.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What was asked for, with later updates.
    pub definition: Arc<Definition>,
    /// What was asked for, without later updates: the same wish again changes nothing.
    pub asked: Arc<Definition>,
    /// Where every step stands.
    pub run: Run,
    /// Results by step number: of completed steps, and the errors of excused ones.
    pub results: BTreeMap<u32, Json>,
    /// Sum of the results' sizes, in bytes.
    pub results_bytes: usize,
    /// Last checkpoint by step number, until the step is settled.
    pub checkpoints: BTreeMap<u32, Json>,
    /// Resolved inputs by step number, of steps that an agent has.
    pub inputs: BTreeMap<u32, Json>,
    /// Resolved titles by step number, where they differ from what was asked for.
    pub titles: BTreeMap<u32, String>,
    /// Why it ended without success.
    pub status_reason: Option<String>,
    /// One sentence for each failed step.
    pub errors: Vec<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

impl Aggregate for Operation {
    const CATEGORY: &'static str = "operation";
    type Id = OperationId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    type Effect = Effect;

    fn decide(
        state: Option<&Self>,
        id: &OperationId,
        command: &Command,
        given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let Some(operation) = state else {
            return match command {
                Command::Create(definition) => create(id, definition, given),
                _ => Err(Rejection::Unknown),
            };
        };
        match command {
            Command::Create(definition) if **definition == *operation.asked => Ok(Vec::new()),
            Command::Create(_) => Err(Rejection::Taken),
            Command::Start => operation.start(id, given),
            Command::Update(patch) => operation.update(patch, given),
            Command::Cancel { by } => operation.cancel(id, by),
            Command::ExpireDeadline => operation.expire_deadline(id, given),
            Command::Pause { by, reason } => operation.pause(by, reason.as_deref()),
            Command::Resume { by } => operation.resume(id, by, given),
            Command::Intervene { step, by, reason, intervention } => {
                let word = Word { id, by, reason: reason.as_deref(), given };
                operation.intervene(*step, intervention, &word)
            }
            Command::ExpireApproval { step } => operation.expire_approval(id, *step, given),
            Command::Step { step, grant, wish } => operation.decide_step(id, *step, *grant, wish, given),
        }
    }

    fn evolve(state: Option<Self>, event: &Event, at: Timestamp) -> Option<Self> {
        match (state, event) {
            (None, Event::Created(definition)) => Some(Self::created(definition, at)),
            (None, _) => None,
            (Some(mut operation), event) => {
                operation.fold(event, at);
                Some(operation)
            }
        }
    }

    fn pending(&self) -> Vec<Effect> {
        self.run.pending()
    }
}

fn create(id: &OperationId, definition: &Definition, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
    let faults = workflow::faults(definition, given);
    if !faults.is_empty() {
        return Err(Rejection::Invalid(faults));
    }
    let events = vec![Event::Created(Box::new(definition.clone()))];
    if !definition.auto_start {
        return Ok(events);
    }
    let operation = Operation::created(definition, given.now);
    Ok(operation.started(id, events, given))
}

impl Operation {
    fn created(definition: &Definition, at: Timestamp) -> Self {
        let definition = Arc::new(definition.clone());
        Self {
            run: Run::of(&definition.workflow, definition.max_parallel),
            asked: Arc::clone(&definition),
            definition,
            results: BTreeMap::new(),
            results_bytes: 0,
            checkpoints: BTreeMap::new(),
            inputs: BTreeMap::new(),
            titles: BTreeMap::new(),
            status_reason: None,
            errors: Vec::new(),
            created_at: at,
            started_at: None,
            completed_at: None,
        }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.run.status
    }

    /// One sentence for each step that failed for good.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.run.failed.iter().map(|position| {
            let (number, run) = (self.run.skeleton.steps[*position].step, &self.run.steps[*position]);
            match &run.error {
                Some(error) => error.sentence(number),
                None => format!("step {number} failed"),
            }
        });
        failed.collect()
    }

    fn start(&self, id: &OperationId, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        match self.status() {
            Status::Pending => Ok(self.started(id, Vec::new(), given)),
            status => Err(Rejection::NotPending { status: status.name() }),
        }
    }

    fn started(&self, id: &OperationId, mut events: Vec<Event>, given: &Given<'_>) -> Vec<Event> {
        events.push(Event::Started);
        Settlement::new(id, self, given, events).started()
    }

    fn pause(&self, by: &str, reason: Option<&str>) -> Result<Vec<Event>, Rejection> {
        self.refuse_terminal()?;
        let reason = reason.map(str::to_owned);
        let paused = Event::Paused(Paused { by: by.to_owned(), reason });
        Ok(if self.run.paused { Vec::new() } else { vec![paused] })
    }

    fn resume(&self, id: &OperationId, by: &str, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        self.refuse_terminal()?;
        if !self.run.paused {
            return Ok(Vec::new());
        }
        let resumed = Event::Resumed(Resumed { by: by.to_owned() });
        Ok(Settlement::new(id, self, given, vec![resumed]).resumed())
    }

    fn update(&self, patch: &Patch, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        self.refuse_terminal()?;
        let changed = self.changes(patch);
        let faults = workflow::patch_faults(&changed, &self.definition, given);
        if !faults.is_empty() {
            return Err(Rejection::Invalid(faults));
        }
        Ok(if changed.is_empty() { Vec::new() } else { vec![Event::Updated(Box::new(changed))] })
    }

    /// What of the patch differs from what stands.
    fn changes(&self, patch: &Patch) -> Patch {
        let current = &*self.definition;
        let mut patch = patch.clone();
        patch.name = patch.name.filter(|name| *name != current.name);
        patch.description = patch.description.filter(|description| *description != current.description);
        patch.priority = patch.priority.filter(|priority| *priority != current.priority);
        patch.deadline = patch.deadline.filter(|deadline| *deadline != current.deadline);
        patch.metadata = patch.metadata.filter(|metadata| *metadata != current.metadata);
        patch.agents = patch.agents.filter(|agents| *agents != current.agents);
        patch
    }

    fn cancel(&self, id: &OperationId, by: &str) -> Result<Vec<Event>, Rejection> {
        if self.status() == Status::Cancelled {
            return Ok(Vec::new());
        }
        self.refuse_terminal()?;
        let mut events = vec![Event::Cancelled(Cancelled { by: by.to_owned() })];
        events.extend(settle::end(id, &self.run, &|_| false));
        Ok(events)
    }

    fn expire_deadline(&self, id: &OperationId, given: &Given<'_>) -> Result<Vec<Event>, Rejection> {
        self.refuse_terminal()?;
        if self.definition.deadline.is_none_or(|deadline| given.now < deadline) {
            return Err(Rejection::Early);
        }
        let mut events: Vec<Event> = settle::end(id, &self.run, &|_| false).into_iter().collect();
        events.push(Event::Failed(Failed {
            reason: FailureReason::DeadlineExceeded,
            errors: settle::shortened(self.failures()),
        }));
        Ok(events)
    }

    fn refuse_terminal(&self) -> Result<(), Rejection> {
        let status = self.status();
        if status.is_terminal() { Err(Rejection::Terminal { status: status.name() }) } else { Ok(()) }
    }

    fn fold(&mut self, event: &Event, at: Timestamp) {
        self.run.evolve(event, at);
        match event {
            Event::Started => self.started_at = Some(at),
            Event::Updated(patch) => Arc::make_mut(&mut self.definition).apply(patch),
            Event::Completed => self.completed_at = Some(at),
            Event::Failed(failed) => {
                self.completed_at = Some(at);
                self.status_reason = Some(failed.reason.name().to_owned());
                self.errors.clone_from(&failed.errors);
            }
            Event::Cancelled(cancelled) => {
                self.completed_at = Some(at);
                self.status_reason = Some(format!("cancelled_by:{}", cancelled.by));
            }
            Event::StepReserved(reserved) => {
                self.resolve(reserved.step, &reserved.inputs, reserved.title.as_ref());
            }
            Event::StepApprovalRequested(asked) => {
                self.resolve(asked.step, &asked.inputs, asked.title.as_ref());
            }
            Event::StepsSkipped(skipped) => skipped.steps.iter().for_each(|step| self.forget(*step)),
            Event::StepCheckpointed(kept) => _ = self.checkpoints.insert(kept.step, kept.checkpoint.clone()),
            Event::StepCompleted(completed) => self.keep_result(completed.step, completed.result.clone()),
            Event::StepFailed(failed) if failed.is_final => self.keep_failure(failed),
            Event::StepOfferExpired(_)
            | Event::StepReleased(_)
            | Event::StepLimited(_)
            | Event::StepRetryScheduled(_)
            | Event::StepNeedsAttention(_)
            | Event::StepLeaseLost(_) => _ = event.step().and_then(|step| self.inputs.remove(&step)),
            Event::Created(_)
            | Event::Progressed(_)
            | Event::Paused(_)
            | Event::Resumed(_)
            | Event::StepStarted(_)
            | Event::StepProgressed(_)
            | Event::StepFailed(_)
            | Event::StepsCancelled(_)
            | Event::StepApproved(_)
            | Event::StepRejected(_)
            | Event::StepResolved(_)
            | Event::LeaseClosed(_) => {}
        }
        if self.status().is_terminal() {
            self.inputs.clear();
            self.checkpoints.clear();
        }
    }

    /// Takes over what a step was resolved to.
    fn resolve(&mut self, step: u32, inputs: &Json, title: Option<&String>) {
        self.inputs.insert(step, inputs.clone());
        let position = self.run.skeleton.position(step);
        let asked = position.and_then(|position| self.run.skeleton.steps[position].title.as_ref());
        if let Some(title) = title.filter(|title| Some(*title) != asked) {
            self.titles.insert(step, title.clone());
        }
    }

    /// The title of the step at `position`, resolved once it was reserved.
    #[must_use]
    pub fn title(&self, position: usize) -> Option<&str> {
        let step = &self.run.skeleton.steps[position];
        self.titles.get(&step.step).or(step.title.as_ref()).map(String::as_str)
    }

    /// Drops what only an open step needs.
    fn forget(&mut self, step: u32) {
        self.checkpoints.remove(&step);
        self.inputs.remove(&step);
    }

    fn keep_failure(&mut self, failed: &event::StepFailed) {
        self.forget(failed.step);
        let position = self.run.skeleton.position(failed.step);
        if position.is_some_and(|position| self.run.skeleton.steps[position].continue_on_error) {
            self.keep_result(failed.step, failed.error.as_result());
        }
    }

    fn keep_result(&mut self, step: u32, result: Json) {
        self.results_bytes += result.len();
        if let Some(before) = self.results.insert(step, result) {
            self.results_bytes -= before.len();
        }
        self.forget(step);
    }
}

impl Definition {
    /// Takes over what a patch changes.
    pub fn apply(&mut self, patch: &Patch) {
        let Patch { name, description, priority, deadline, metadata, agents } = patch.clone();
        self.name = name.unwrap_or_else(|| std::mem::take(&mut self.name));
        self.description = description.unwrap_or_else(|| self.description.take());
        self.priority = priority.unwrap_or(self.priority);
        self.deadline = deadline.unwrap_or(self.deadline);
        self.metadata = metadata.unwrap_or_else(|| self.metadata.clone());
        self.agents = agents.unwrap_or_else(|| std::mem::take(&mut self.agents));
    }
}
