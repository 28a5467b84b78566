//! What a ready step asks for, and since when: derived from the views, and from them alone.

use std::hash::BuildHasher;

use domain::agent::event::Status;
use domain::agent::selection::{Need, fits};
use domain::operation::definition::StepDefinition;
use domain::operation::step::{self, Run, StepStatus};
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
    /// How long a due retry is kept from the agent that failed it, in milliseconds, while another one could
    /// take it.
    pub elsewhere_ms: u64,
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
    /// Whether it goes to the agent that failed it only if no other one could take it.
    pub(crate) avoids: bool,
}

impl<'s> Scene<'s> {
    /// An operation whose steps may be offered. One that is paused has its row and run, and no room.
    pub(crate) fn offered(&self, id: &OperationId) -> Option<(&'s Row, &'s Run)> {
        let row = self.views.operations.get(id)?;
        let run = row.run.as_ref().filter(|run| run.status == step::Status::InProgress)?;
        Some((row, run))
    }

    /// How many more of its steps may be under way at once.
    pub(crate) fn room(&self, id: &OperationId, run: &Run) -> usize {
        match run.room() {
            room @ (0 | usize::MAX) => room,
            room => room.saturating_sub(self.in_flight.under_way(id, run) - run.held.len()),
        }
    }

    /// Where a step stands now, if it can be offered.
    pub(crate) fn filed(
        &self,
        (id, row, run): (&OperationId, &Row, &Run),
        position: usize,
        asking: &impl BuildHasher,
    ) -> Option<Filed> {
        let (step, stands) = (&run.skeleton.steps[position], &run.steps[position]);
        let since = run.due_since(position, self.now)?;
        let next = LeaseId { operation: id.clone(), step: step.step, grant: stands.grant + 1 };
        if step.platform.as_str() != WORKER || self.in_flight.contains(&next) {
            return None;
        }
        // Whoever gave the step back is kept from this step only: it asks for somebody else.
        let kept = stands.held_from.iter().filter(|(_, until)| *until > self.now);
        let kept_from: Vec<&AgentId> = kept.map(|(agent, _)| agent).collect();
        let avoided = self.avoided(run, position);
        let ask =
            (&step.platform, &step.agent, &row.agents, &step.requires, &step.action, kept_from, avoided);
        Some(Filed { ask: asking.hash_one(ask), since, avoids: avoided.is_some() })
    }

    /// The agent that failed a due step a moment ago.
    fn avoided<'r>(&self, run: &'r Run, position: usize) -> Option<&'r AgentId> {
        let (agent, due) = run.failed_by(position)?;
        (due <= self.now && self.now < due.plus_ms(self.elsewhere_ms)).then_some(agent)
    }

    /// What a step asks of an agent.
    pub(crate) fn need<'n>(&self, row: &'n Row, run: &'n Run, position: usize) -> Need<'n> {
        let step = &run.skeleton.steps[position];
        let need = Need {
            agent: step.agent.as_ref(),
            among: &row.agents,
            requires: &step.requires,
            held_from: &run.steps[position].held_from,
            avoids: None,
        };
        let avoided = self.avoided(run, position);
        Need { avoids: avoided.filter(|avoided| self.is_there_another(&need, avoided)), ..need }
    }

    /// Whether another agent could take the step, now or when it is free.
    fn is_there_another(&self, need: &Need<'_>, than: &AgentId) -> bool {
        self.views.agents.iter().any(|(id, row)| {
            let held = need.held_from.iter().any(|(other, until)| other == id && *until > self.now);
            id != than
                && !held
                && row.agent.status == Status::Active
                && !self.views.lanes.holds_back(id, &row.agent, self.now)
                && fits(need.agent, need.among, need.requires, id, &row.agent.profile)
        })
    }

    /// The next moment at which a step stands elsewhere though nothing happens.
    pub(crate) fn moves_at(&self, run: &Run, position: usize) -> Option<Timestamp> {
        let stands = &run.steps[position];
        match &stands.status {
            StepStatus::BackingOff { at, .. } if *at > self.now => Some(*at),
            StepStatus::Ready | StepStatus::BackingOff { .. } => {
                let held = stands.held_from.iter().map(|(_, until)| *until);
                let avoided = run.failed_by(position).map(|(_, due)| due.plus_ms(self.elsewhere_ms));
                held.chain(avoided).filter(|until| *until > self.now).min()
            }
            _ => None,
        }
    }
}
