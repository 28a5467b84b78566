//! What a ready step asks for, and since when: derived from the views, and from them alone.

use std::hash::BuildHasher;

use domain::agent::selection::Need;
use domain::operation::definition::StepDefinition;
use domain::operation::step::{Run, Status, StepStatus};
use domain::views::Views;
use domain::views::operation_board::Row;
use domain::{AgentId, LeaseId, OperationId, Timestamp};

use crate::in_flight::InFlight;

/// The platform whose steps are claimed by agents' own processes.
pub const WORKER: &str = "worker";

/// What is looked at: the views, what is being granted, and the time.
#[derive(Clone, Copy)]
pub struct Scene<'s> {
    /// The views.
    pub views: &'s Views,
    /// Leases that are being granted.
    pub in_flight: &'s InFlight,
    /// Now.
    pub now: Timestamp,
}

/// What a step asks for, as a number: steps that ask for the same have the same one, and who takes one
/// of them takes all of them.
pub(crate) type Ask = u64;

/// Where agents find an ask: nobody else can serve it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Door {
    /// Only this agent.
    Agent(AgentId),
    /// Only agents with this capability.
    Capability(String),
    /// Anyone, as far as a door can tell.
    Anyone,
}

impl Door {
    /// The narrowest one for a step.
    pub(crate) fn of(row: &Row, step: &StepDefinition) -> Self {
        match (&step.agent, &row.agents[..], step.requires.capabilities.first()) {
            (Some(only), ..) | (None, [only], _) => Self::Agent(only.clone()),
            (None, _, Some(capability)) => Self::Capability(capability.clone()),
            _ => Self::Anyone,
        }
    }
}

/// Where a ready step stands in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filed {
    /// What it asks for.
    pub(crate) ask: Ask,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

impl<'s> Scene<'s> {
    /// An operation whose steps may be offered. One that is paused has its row and run, and no room.
    pub(crate) fn offered(&self, id: &OperationId) -> Option<(&'s Row, &'s Run)> {
        let row = self.views.operations.get(id)?;
        let run = row.run.as_ref().filter(|run| run.status == Status::InProgress)?;
        Some((row, run))
    }

    /// How many more of its steps may be under way at once.
    pub(crate) fn room(&self, id: &OperationId, row: &Row, run: &Run) -> usize {
        if run.paused {
            return 0;
        }
        let Some(most) = row.max_parallel else { return usize::MAX };
        (most as usize).saturating_sub(self.in_flight.under_way(id, run))
    }

    /// Where a step stands now, if it can be offered.
    pub(crate) fn filed(
        &self,
        (id, row, run): (&OperationId, &Row, &Run),
        position: usize,
        asking: &impl BuildHasher,
    ) -> Option<Filed> {
        let (step, stands) = (&run.skeleton.steps[position], &run.steps[position]);
        let since = match &stands.status {
            StepStatus::Ready => stands.ready_at.unwrap_or_default(),
            StepStatus::BackingOff { at, .. } if *at <= self.now => *at,
            _ => return None,
        };
        let next = LeaseId { operation: id.clone(), step: step.step, grant: stands.grant + 1 };
        if step.platform.as_str() != WORKER || self.in_flight.contains(&next) {
            return None;
        }
        // Whoever gave the step back is kept from this step only: it asks for somebody else.
        let kept = stands.held_from.iter().filter(|(_, until)| *until > self.now);
        let kept_from: Vec<&AgentId> = kept.map(|(agent, _)| agent).collect();
        let ask = (&step.platform, &step.agent, &row.agents, &step.requires, &step.action, kept_from);
        Some(Filed { ask: asking.hash_one(ask), since })
    }

    /// The next moment at which a step stands elsewhere though nothing happens.
    pub(crate) fn moves_at(&self, run: &Run, position: usize) -> Option<Timestamp> {
        let stands = &run.steps[position];
        match &stands.status {
            StepStatus::BackingOff { at, .. } if *at > self.now => Some(*at),
            StepStatus::Ready | StepStatus::BackingOff { .. } => {
                stands.held_from.iter().map(|(_, until)| *until).filter(|until| *until > self.now).min()
            }
            _ => None,
        }
    }
}

/// What a step asks of an agent.
pub(crate) fn need<'n>(row: &'n Row, run: &'n Run, position: usize) -> Need<'n> {
    let step = &run.skeleton.steps[position];
    Need {
        agent: step.agent.as_ref(),
        among: &row.agents,
        requires: &step.requires,
        held_from: &run.steps[position].held_from,
    }
}
