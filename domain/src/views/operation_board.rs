//! All operations, one small row each. Rows of operations under way also hold their run, for the
//! dispatcher and the timers; payloads are never held here.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use serde::{Deserialize, Serialize};

use crate::operation::definition::{Definition, Priority, StepDefinition};
use crate::operation::event::{Patch, StepLeaseLost};
use crate::operation::pending::Cause;
use crate::operation::step::{Run, Status};
use crate::operation::{self, Event};
use crate::{AgentId, Json, LeaseId, OperationId, PlatformName, Timestamp};

/// Entries of an operation's metadata that can be filtered by; longer ones are left out.
const METADATA_KEYS_MAX: usize = 16;
const METADATA_VALUE_MAX: usize = 256;

/// One operation, as lists show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// For people.
    pub name: String,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it runs.
    pub status: Status,
    /// Why it ended without success.
    pub status_reason: Option<String>,
    /// Only these agents may be chosen.
    pub agents: Vec<AgentId>,
    /// Agents that were given a step, and those its steps ask for.
    pub agents_used: BTreeSet<AgentId>,
    /// Platforms of its steps, each once.
    pub platforms: Vec<PlatformName>,
    /// Entries of the metadata that are short texts, numbers or truths.
    pub metadata: Box<[(String, String)]>,
    /// Most steps that may be under way at once.
    pub max_parallel: Option<u32>,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Whole percent.
    pub progress: u8,
    /// Steps in all.
    pub steps: usize,
    /// Steps settled.
    pub settled: usize,
    /// Version of its stream.
    pub revision: u64,
    /// Where the steps stand, while it has not ended or an agent still has a slot taken for it.
    pub run: Option<Run>,
    /// Leases that were cut short by its end; their agents keep the slot for a grace period.
    pub cut: Vec<LeaseId>,
}

/// All operations.
#[derive(Clone, Debug, Default)]
pub struct OperationBoard {
    /// Boxed, so that the table does not move them when it grows.
    rows: HashMap<OperationId, Box<Row>>,
    by_age: BTreeSet<(Timestamp, OperationId)>,
    open: BTreeSet<OperationId>,
    counts: HashMap<(Status, Priority), usize>,
}

impl OperationBoard {
    /// One row.
    #[must_use]
    pub fn get(&self, id: &OperationId) -> Option<&Row> {
        self.rows.get(id).map(AsRef::as_ref)
    }

    /// Operations that have not ended.
    #[must_use]
    pub fn open(&self) -> &BTreeSet<OperationId> {
        &self.open
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many have this status and priority.
    #[must_use]
    pub fn count(&self, status: Status, priority: Priority) -> usize {
        self.counts.get(&(status, priority)).copied().unwrap_or(0)
    }

    /// Rows by age, oldest first, after the given place.
    pub fn oldest_first<'b>(
        &'b self,
        after: Option<&'b (Timestamp, OperationId)>,
    ) -> impl Iterator<Item = (&'b OperationId, &'b Row)> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.shown(self.by_age.range((start, std::ops::Bound::Unbounded)))
    }

    /// Rows by age, newest first, after the given place.
    pub fn newest_first<'b>(
        &'b self,
        after: Option<&'b (Timestamp, OperationId)>,
    ) -> impl Iterator<Item = (&'b OperationId, &'b Row)> {
        let end = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.shown(self.by_age.range((std::ops::Bound::Unbounded, end)).rev())
    }

    /// Drops what only scheduling needs, once the operation has ended and is settled.
    pub fn forget_run(&mut self, id: &OperationId) {
        if let Some(row) = self.rows.get_mut(id)
            && row.status.is_terminal()
            && row.settled == row.steps
        {
            row.run = None;
            row.cut = Vec::new();
        }
    }

    fn shown<'b>(
        &'b self,
        keys: impl Iterator<Item = &'b (Timestamp, OperationId)>,
    ) -> impl Iterator<Item = (&'b OperationId, &'b Row)> {
        keys.filter_map(|(_, id)| self.get(id).map(|row| (id, row)))
    }

    /// Folds one fact of one operation.
    pub fn apply(&mut self, id: &OperationId, event: &Event, revision: u64, at: Timestamp) {
        if let Event::Created(definition) = event {
            self.create(id, definition, at);
        }
        let Some(row) = self.rows.get_mut(id) else { return };
        let before = (row.status, row.priority);
        row.apply(id, event, at);
        row.revision = revision;
        let after = (row.status, row.priority);
        if before != after {
            self.recount(before, after);
        }
        if after.0.is_terminal() {
            self.open.remove(id);
        }
    }

    fn create(&mut self, id: &OperationId, definition: &Definition, at: Timestamp) {
        let row = Row::of(definition, at);
        *self.counts.entry((row.status, row.priority)).or_default() += 1;
        self.by_age.insert((at, id.clone()));
        self.open.insert(id.clone());
        self.rows.insert(id.clone(), Box::new(row));
    }

    /// Puts back a row of a snapshot.
    pub(super) fn put(&mut self, id: OperationId, row: Row) {
        *self.counts.entry((row.status, row.priority)).or_default() += 1;
        self.by_age.insert((row.created_at, id.clone()));
        if !row.status.is_terminal() {
            self.open.insert(id.clone());
        }
        self.rows.insert(id, Box::new(row));
    }

    fn recount(&mut self, before: (Status, Priority), after: (Status, Priority)) {
        if let Some(count) = self.counts.get_mut(&before) {
            *count -= 1;
        }
        *self.counts.entry(after).or_default() += 1;
    }
}

impl Row {
    fn of(definition: &Definition, at: Timestamp) -> Self {
        let steps = &definition.workflow;
        Self {
            name: definition.name.clone(),
            priority: definition.priority,
            status: Status::Pending,
            status_reason: None,
            agents: definition.agents.clone(),
            agents_used: steps.iter().filter_map(|step| step.agent.clone()).collect(),
            platforms: platforms(steps),
            metadata: filterable(&definition.metadata),
            max_parallel: definition.max_parallel,
            deadline: definition.deadline,
            created_at: at,
            started_at: None,
            completed_at: None,
            progress: 0,
            steps: steps.len(),
            settled: 0,
            revision: 0,
            run: Some(Run::lean(definition)),
            cut: Vec::new(),
        }
    }

    fn apply(&mut self, id: &OperationId, event: &Event, at: Timestamp) {
        if let Event::StepsCancelled(cancelled) = event {
            self.cut = self.held_leases(id, &cancelled.steps);
        }
        if let Some(run) = &mut self.run {
            run.evolve(event, at);
            (self.progress, self.settled, self.status) = (run.progress(), run.settled, run.status);
        }
        match event {
            Event::Started => self.started_at = Some(at),
            Event::Updated(patch) => self.update(patch),
            Event::StepReserved(reserved) => _ = self.agents_used.insert(reserved.agent.clone()),
            Event::Failed(failed) => self.status_reason = Some(failed.reason.clone()),
            Event::Cancelled(cancelled) => {
                self.status_reason = Some(format!("cancelled_by:{}", cancelled.by));
            }
            _ => {}
        }
        if self.status.is_terminal() && self.completed_at.is_none() {
            self.completed_at = Some(at);
        }
    }

    /// Whether a step of it waits for this now; nothing does once it has ended.
    #[must_use]
    pub fn waits_for(&self, cause: Cause, now: Timestamp) -> bool {
        self.open_run().is_some_and(|run| run.waits_for(cause, now))
    }

    /// What its steps wait for, each kind once.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<Cause> {
        self.open_run().map(Run::causes).unwrap_or_default()
    }

    /// Its run while it has not ended.
    #[must_use]
    pub fn open_run(&self) -> Option<&Run> {
        self.run.as_ref().filter(|run| !run.status.is_terminal())
    }

    fn held_leases(&self, id: &OperationId, steps: &[u32]) -> Vec<LeaseId> {
        let Some(run) = &self.run else { return Vec::new() };
        let held = steps.iter().filter_map(|number| {
            let step = &run.steps[run.skeleton.position(*number)?];
            step.status.holder()?;
            Some(LeaseId { operation: id.clone(), step: *number, grant: step.grant })
        });
        held.collect()
    }

    fn update(&mut self, patch: &Patch) {
        if let Some(name) = &patch.name {
            self.name.clone_from(name);
        }
        if let Some(agents) = &patch.agents {
            self.agents.clone_from(agents);
        }
        if let Some(metadata) = &patch.metadata {
            self.metadata = filterable(metadata);
        }
        self.priority = patch.priority.unwrap_or(self.priority);
        self.deadline = patch.deadline.unwrap_or(self.deadline);
    }
}

impl Run {
    /// A run whose skeleton has no payloads: for scheduling only.
    fn lean(definition: &Definition) -> Self {
        let inputs = Json::object();
        let lean =
            |step: &StepDefinition| StepDefinition { inputs: inputs.clone(), title: None, ..step.clone() };
        Self::of(&definition.workflow.iter().map(lean).collect(), definition.max_parallel)
    }
}

/// In the order of their names.
fn platforms(steps: &[StepDefinition]) -> Vec<PlatformName> {
    let names: BTreeSet<&PlatformName> = steps.iter().map(|step| &step.platform).collect();
    names.into_iter().cloned().collect()
}

fn filterable(metadata: &Json) -> Box<[(String, String)]> {
    let Value::Object(fields) = metadata.value() else { return Box::default() };
    let texts = fields.into_iter().filter_map(|(key, value)| {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        (key.len() <= METADATA_VALUE_MAX && text.len() <= METADATA_VALUE_MAX).then_some((key, text))
    });
    texts.take(METADATA_KEYS_MAX).collect()
}

/// Whether a lease that an agent holds is still one the operation knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// The step is reserved or running under it.
    Held,
    /// It ended; the slot shall be freed.
    Over(crate::agent::event::Outcome),
    /// The operation ended under it at that moment; the agent has a grace period.
    Cut(Timestamp),
}

impl OperationBoard {
    /// Where a lease stands for an agent that has a slot taken for it. Where nobody heard that the slot was
    /// taken, the same lease may have gone to another agent since.
    #[must_use]
    pub fn lease_of(&self, agent: &AgentId, lease: &LeaseId) -> LeaseState {
        let run = self.rows.get(&lease.operation).and_then(|row| row.run.as_ref());
        let step = run.and_then(|run| run.skeleton.position(lease.step).map(|position| &run.steps[position]));
        match step.filter(|step| step.grant == lease.grant).and_then(|step| step.agent.as_ref()) {
            Some(other) if other != agent => LeaseState::Over(crate::agent::event::Outcome::Returned),
            _ => self.lease(lease),
        }
    }

    /// Where a lease stands. A lease of an unknown operation was never granted: its slot shall be freed.
    #[must_use]
    pub fn lease(&self, lease: &LeaseId) -> LeaseState {
        use crate::agent::event::Outcome;
        let Some(row) = self.rows.get(&lease.operation) else { return LeaseState::Over(Outcome::Returned) };
        if row.cut.contains(lease) {
            let step = row.run.as_ref().and_then(|run| Some(&run.steps[run.skeleton.position(lease.step)?]));
            // The steps are cancelled before their operation is said to have failed.
            let at = step.and_then(|step| step.completed_at).or(row.completed_at);
            return LeaseState::Cut(at.unwrap_or(row.created_at));
        }
        let Some(run) = &row.run else { return LeaseState::Over(ended(row.status)) };
        let Some(position) = run.skeleton.position(lease.step) else {
            return LeaseState::Over(Outcome::Returned);
        };
        let step = &run.steps[position];
        match &step.status {
            status if step.grant == lease.grant && status.holder().is_some() => LeaseState::Held,
            operation::step::StepStatus::Completed if step.grant == lease.grant => {
                LeaseState::Over(Outcome::Completed)
            }
            _ if let Some((grant, outcome)) = step.unspent
                && grant == lease.grant =>
            {
                LeaseState::Over(outcome)
            }
            _ if step.grant < lease.grant => LeaseState::Over(Outcome::Returned),
            _ if step.error.as_ref().is_some_and(|error| error.code == StepLeaseLost::CODE) => {
                LeaseState::Over(Outcome::Lost)
            }
            _ => LeaseState::Over(Outcome::Failed),
        }
    }
}

/// What to say of a lease whose operation is over and whose step is no longer remembered.
fn ended(status: Status) -> crate::agent::event::Outcome {
    use crate::agent::event::Outcome;
    match status {
        Status::Completed => Outcome::Completed,
        _ => Outcome::Cancelled,
    }
}
