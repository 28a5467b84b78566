//! All operations, one small row each. Rows of operations under way also hold their run, for the
//! dispatcher and the timers; payloads are never held here. Operations that are over are packed into blocks.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use serde::{Deserialize, Serialize};

use crate::operation::Event;
use crate::operation::definition::{Definition, Priority, StepDefinition};
use crate::operation::event::Patch;
use crate::operation::pending::Cause;
use crate::operation::step::{Run, Status};
use crate::views::Stamp;
use crate::views::ended::block::{Block, ROWS_MAX};
use crate::views::ended::{BLOCK_ROWS, Ended, Order, Walk};
use crate::views::skeletons::Skeletons;
use crate::{AgentId, Json, OperationId, PlatformName, Timestamp};

/// Bytes of a key or a value of metadata that can be filtered by; longer ones are left out of rows.
pub const METADATA_TEXT_MAX: usize = 256;
/// Bytes of texts after which a block is packed, though it has few rows.
const BLOCK_BYTES: usize = 8 << 20;

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
}

/// Where an operation stands in lists.
pub type Place = (Timestamp, OperationId);

/// All operations.
#[derive(Clone, Debug)]
pub struct OperationBoard {
    /// Those that are not packed; boxed, so that the table does not move them when it grows.
    rows: HashMap<OperationId, Box<Row>>,
    by_age: BTreeSet<Place>,
    open: BTreeSet<OperationId>,
    /// Those that are over and wait until a block is full of them.
    over: Vec<OperationId>,
    /// Bytes of their texts.
    over_bytes: usize,
    ended: Ended,
    block_rows: usize,
    skeletons: Skeletons,
    counts: HashMap<(Status, Priority), usize>,
}

impl Default for OperationBoard {
    fn default() -> Self {
        Self::in_blocks_of(BLOCK_ROWS)
    }
}

impl OperationBoard {
    /// An empty board that packs so many ended operations into a block; what it shows does not depend on it.
    #[must_use]
    pub fn in_blocks_of(rows: usize) -> Self {
        Self {
            rows: HashMap::new(),
            by_age: BTreeSet::new(),
            open: BTreeSet::new(),
            over: Vec::new(),
            over_bytes: 0,
            ended: Ended::default(),
            block_rows: rows.clamp(1, ROWS_MAX),
            skeletons: Skeletons::default(),
            counts: HashMap::new(),
        }
    }

    /// The row of an operation that is not over. That of any other is found by [`OperationBoard::find`].
    #[must_use]
    pub fn get(&self, id: &OperationId) -> Option<&Row> {
        self.rows.get(id).map(AsRef::as_ref).filter(|row| !row.is_over())
    }

    /// The row of an operation, whether it is over or not.
    #[must_use]
    pub fn find(&self, id: &OperationId) -> Option<Cow<'_, Row>> {
        match self.rows.get(id) {
            Some(row) => Some(Cow::Borrowed(row)),
            None => self.ended.find(id).map(Cow::Owned),
        }
    }

    /// Operations that have not ended.
    #[must_use]
    pub fn open(&self) -> &BTreeSet<OperationId> {
        &self.open
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() + self.ended.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many have this status and priority.
    #[must_use]
    pub fn count(&self, status: Status, priority: Priority) -> usize {
        self.counts.get(&(status, priority)).copied().unwrap_or(0)
    }

    /// Rows by age, after the given place.
    pub fn rows<'b>(
        &'b self,
        order: Order,
        after: Option<&Place>,
    ) -> impl Iterator<Item = (OperationId, Cow<'b, Row>)> {
        let mut open = self.unpacked(order, after).peekable();
        let all = 0..self.blocks().len();
        let mut packed = Walk::begin(self.blocks(), all, order, after, |_, _| true)
            .filter_map(|(block, row)| self.blocks().get(block)?.row(row))
            .peekable();
        std::iter::from_fn(move || {
            let packed_first = match (open.peek(), packed.peek()) {
                (Some((a, left)), Some((b, right))) => {
                    let is_older = (right.created_at, b) < (left.created_at, *a);
                    is_older == (order == Order::OldestFirst)
                }
                (left, _) => left.is_none(),
            };
            match packed_first {
                true => packed.next().map(|(id, row)| (id, Cow::Owned(row))),
                false => open.next().map(|(id, row)| (id.clone(), Cow::Borrowed(row))),
            }
        })
    }

    /// Rows that are not packed, after the given place.
    pub(super) fn unpacked<'b>(
        &'b self,
        order: Order,
        after: Option<&Place>,
    ) -> Box<dyn Iterator<Item = (&'b OperationId, &'b Row)> + 'b> {
        use std::ops::Bound::{Excluded, Unbounded};
        let bound = after.cloned().map_or(Unbounded, Excluded);
        let shown = |(_, id): &'b Place| self.rows.get(id).map(|row| (id, row.as_ref()));
        match order {
            Order::OldestFirst => Box::new(self.by_age.range((bound, Unbounded)).filter_map(shown)),
            Order::NewestFirst => Box::new(self.by_age.range((Unbounded, bound)).rev().filter_map(shown)),
        }
    }

    /// Operations that are over, packed, oldest block first. They never change.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        self.ended.blocks()
    }

    /// From now on takes equal blocks of others, which are of the same history, instead of making copies.
    pub fn share(&mut self, others: &[Block]) {
        self.ended.share(others);
    }

    /// Drops what only scheduling needs, once nothing of the operation can change any more.
    pub fn forget_run(&mut self, id: &OperationId) {
        if let Some(row) = self.rows.get_mut(id)
            && row.run.as_ref().is_some_and(Run::is_over)
        {
            row.run = None;
            self.over_bytes += row.text_bytes();
            self.over.push(id.clone());
            self.pack();
        }
    }

    /// Packs what is over, once there is enough for a block.
    fn pack(&mut self) {
        if self.over.len() < self.block_rows && self.over_bytes < BLOCK_BYTES {
            return;
        }
        self.over_bytes = 0;
        let going: Vec<(OperationId, Box<Row>)> =
            self.over.drain(..).filter_map(|id| self.rows.remove_entry(&id)).collect();
        for (id, row) in &going {
            self.by_age.remove(&(row.created_at, id.clone()));
        }
        let rows: Vec<(OperationId, &Row)> = going.iter().map(|(id, row)| (id.clone(), &**row)).collect();
        self.ended.push(Block::pack(&rows));
    }

    /// Folds one fact of one operation.
    pub fn apply(&mut self, id: &OperationId, event: &Event, stamp: Stamp) {
        if let Event::Created(definition) = event {
            self.create(id, definition, stamp.at);
        }
        let Some(row) = self.rows.get_mut(id).filter(|row| !row.is_over()) else { return };
        let before = (row.status, row.priority);
        row.apply(event, stamp.at);
        row.revision = stamp.revision;
        let after = (row.status, row.priority);
        if before != after {
            self.recount(before, after);
        }
        if after.0.is_terminal() {
            self.open.remove(id);
        }
    }

    fn create(&mut self, id: &OperationId, definition: &Definition, at: Timestamp) {
        let row = Row::of(definition, Run::lean(definition, &mut self.skeletons), at);
        *self.counts.entry((row.status, row.priority)).or_default() += 1;
        self.by_age.insert((at, id.clone()));
        self.open.insert(id.clone());
        self.rows.insert(id.clone(), Box::new(row));
    }

    /// Puts back a row of a snapshot.
    pub(super) fn put(&mut self, id: OperationId, mut row: Row, steps: Option<Vec<StepDefinition>>) {
        if let (Some(run), Some(steps)) = (&mut row.run, steps) {
            run.skeleton = self.skeletons.of(steps.into());
        }
        *self.counts.entry((row.status, row.priority)).or_default() += 1;
        self.by_age.insert((row.created_at, id.clone()));
        if !row.status.is_terminal() {
            self.open.insert(id.clone());
        }
        if row.is_over() {
            self.over_bytes += row.text_bytes();
            self.over.push(id.clone());
        }
        self.rows.insert(id, Box::new(row));
    }

    /// Puts back a block of a snapshot.
    pub(super) fn put_block(&mut self, block: Block) {
        for status in Status::ALL {
            for priority in Priority::ALL {
                *self.counts.entry((status, priority)).or_default() += block.count(status, priority) as usize;
            }
        }
        self.ended.push(block);
    }

    fn recount(&mut self, before: (Status, Priority), after: (Status, Priority)) {
        if let Some(count) = self.counts.get_mut(&before) {
            *count -= 1;
        }
        *self.counts.entry(after).or_default() += 1;
    }
}

impl Row {
    fn of(definition: &Definition, run: Run, at: Timestamp) -> Self {
        let steps = &run.skeleton.steps;
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
            run: Some(run),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        if let Some(run) = &mut self.run {
            run.evolve(event, at);
            (self.progress, self.settled, self.status) = (run.progress(), run.settled, run.status);
        }
        match event {
            Event::Started => self.started_at = Some(at),
            Event::Updated(patch) => self.update(patch),
            Event::StepReserved(reserved) => _ = self.agents_used.insert(reserved.agent.clone()),
            Event::Failed(failed) => self.status_reason = Some(failed.reason.name().to_owned()),
            Event::Cancelled(cancelled) => {
                self.status_reason = Some(format!("cancelled_by:{}", cancelled.by));
            }
            _ => {}
        }
        if self.status.is_terminal() && self.completed_at.is_none() {
            self.completed_at = Some(at);
        }
    }

    fn text_bytes(&self) -> usize {
        self.name.len() + self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }

    /// Whether it never changes again: it has ended, and no agent has a slot taken for it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.run.is_none()
    }

    /// Whether a step of it waits for this now; nothing does once it has ended.
    #[must_use]
    pub fn waits_for(&self, cause: Cause, now: Timestamp) -> bool {
        self.open_run().is_some_and(|run| run.waits_for(cause, now))
    }

    /// What its steps wait for now, each kind once.
    #[must_use]
    pub fn causes(&self, now: Timestamp) -> BTreeSet<Cause> {
        self.open_run().map(|run| run.causes(now)).unwrap_or_default()
    }

    /// Its run while it has not ended.
    #[must_use]
    pub fn open_run(&self) -> Option<&Run> {
        self.run.as_ref().filter(|run| !run.status.is_terminal())
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
    fn lean(definition: &Definition, skeletons: &mut Skeletons) -> Self {
        let inputs = Json::object();
        let lean =
            |step: &StepDefinition| StepDefinition { inputs: inputs.clone(), title: None, ..step.clone() };
        let skeleton = skeletons.of(definition.workflow.iter().map(lean).collect());
        Self::on(skeleton, definition.max_parallel)
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
        (key.len() <= METADATA_TEXT_MAX && text.len() <= METADATA_TEXT_MAX).then_some((key, text))
    });
    texts.collect()
}
