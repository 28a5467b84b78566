//! One step's course by its events alone, and the leases that take slots of agents for it. Must never use the
//! product's folds: they are what is checked.

use domain::operation::Event;
use domain::operation::definition::StepDefinition;
use domain::operation::event::{LeaseEnd, SkipReason};
use domain::{AgentId, LeaseId, OperationId, Timestamp};

use crate::course::Faults;

/// So many offers of one step in a row that nobody takes spend an attempt.
pub(crate) const UNTAKEN_MAX: u32 = 5;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
    Skipped(SkipReason),
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) agent: AgentId,
    pub(crate) incarnation: u64,
    pub(crate) running: bool,
    /// When it was offered, or begun.
    pub(crate) since: Timestamp,
    pub(crate) reserved_at: Timestamp,
    /// The attempt counts from the reservation, since its end is its first sign of life.
    pub(crate) told_late: bool,
}

/// A lease that takes a slot of its agent: an agent holds it, or it is closing.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) lease: LeaseId,
    pub(crate) agent: AgentId,
    pub(crate) incarnation: u64,
    pub(crate) reserved_at: Timestamp,
    /// Since when it is closing.
    pub(crate) closing: Option<Timestamp>,
}

/// How a lease ended, as far as its agent is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Completed,
    /// With this code.
    Failed(String),
    Lost,
    Untaken,
    Other,
}

#[derive(Debug)]
pub(crate) struct StepCourse {
    pub(crate) definition: StepDefinition,
    pub(crate) end: Option<End>,
    pub(crate) grant: u64,
    pub(crate) held: Option<Held>,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) answer_by: Option<Timestamp>,
    pub(crate) attention: bool,
    /// A lease that was cancelled and still takes a slot.
    pub(crate) closing: Option<Slot>,
    pub(crate) kept_from: Vec<(AgentId, Timestamp)>,
    /// The agent that had it last.
    pub(crate) last: Option<AgentId>,
    /// The agent whose attempt is followed by the one that is scheduled.
    pub(crate) failed_by: Option<AgentId>,
    /// Offers in a row that nobody took.
    pub(crate) untaken: u32,
    /// The last of them was one too many, and its attempt is not spent yet.
    pub(crate) worn: bool,
    pub(crate) spent: u32,
    /// Attempts that people have added.
    pub(crate) granted: u32,
    /// An attempt ended and nothing was said yet of what follows.
    pub(crate) owes: bool,
}

/// How an event ended a lease that it ended.
pub(crate) fn how(event: &Event) -> How {
    match event {
        Event::StepCompleted(_) => How::Completed,
        Event::StepFailed(failed) => How::Failed(failed.error.code.clone()),
        Event::StepNeedsAttention(unknown) => How::Failed(unknown.error.code.clone()),
        Event::StepLeaseLost(lost) if lost.reason != LeaseEnd::Revoked => How::Lost,
        Event::StepOfferExpired(expired) => match expired.reason {
            LeaseEnd::NoSignOfLife | LeaseEnd::AgentTimeout => How::Untaken,
            _ => How::Other,
        },
        _ => How::Other,
    }
}

impl StepCourse {
    pub(crate) fn of(definition: &StepDefinition) -> Self {
        Self {
            definition: definition.clone(),
            end: None,
            grant: 0,
            held: None,
            retry_at: None,
            answer_by: None,
            attention: false,
            closing: None,
            kept_from: Vec::new(),
            last: None,
            failed_by: None,
            untaken: 0,
            worn: false,
            spent: 0,
            granted: 0,
            owes: false,
        }
    }

    pub(crate) fn satisfies(&self) -> bool {
        match self.end {
            Some(End::Completed) => true,
            Some(End::Skipped(reason)) => reason != SkipReason::UpstreamFailed,
            Some(End::Failed) => self.definition.continue_on_error,
            Some(End::Cancelled) | None => false,
        }
    }

    pub(crate) fn spoils(&self) -> bool {
        self.end.is_some() && !self.satisfies()
    }

    pub(crate) fn settle(&mut self, end: End, faults: &mut Faults) {
        if let Some(before) = self.end.replace(end) {
            faults.push(format!("P13: step {} ends {end:?} after {before:?}", self.definition.step));
        }
        (self.held, self.owes, self.retry_at, self.answer_by) = (None, false, None, None);
        self.attention = false;
    }

    pub(crate) fn spend(&mut self) {
        self.spent += 1;
        self.owes = true;
        self.let_go();
    }

    /// Nobody has it any more.
    pub(crate) fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.last = Some(held.agent);
        }
    }

    /// The lease that an agent holds.
    pub(crate) fn slot(&self, operation: &OperationId) -> Option<Slot> {
        let held = self.held.as_ref()?;
        Some(Slot {
            lease: self.lease(operation),
            agent: held.agent.clone(),
            incarnation: held.incarnation,
            reserved_at: held.reserved_at,
            closing: None,
        })
    }

    pub(crate) fn lease(&self, operation: &OperationId) -> LeaseId {
        LeaseId { operation: operation.clone(), step: self.definition.step, grant: self.grant }
    }
}
