//! Folds for reading: what lists, dashboards and the dispatcher look at. Small, and rebuilt from the log.

pub mod agent_directory;
pub mod attention;
pub mod dashboard;
pub mod ended;
pub mod filter;
pub mod gauges;
pub mod lanes;
pub mod leases;
pub mod listing;
pub mod operation_board;
pub mod pieces;
mod skeletons;

use crate::agent::Agent;
use crate::operation::step::Status;
use crate::{AgentId, OperationId, Timestamp, agent, operation, presence, work};
use agent_directory::AgentDirectory;
use dashboard::Dashboard;
use lanes::Lanes;
use leases::Leases;
use operation_board::OperationBoard;

/// All views together, since some facts of one tell another what it may forget.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// All operations.
    pub operations: OperationBoard,
    /// All agents.
    pub agents: AgentDirectory,
    /// Which agent holds which lease.
    pub leases: Leases,
    /// Lanes that are parked.
    pub lanes: Lanes,
    /// Figures over time.
    pub dashboard: Dashboard,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its version within its stream.
    pub revision: u64,
    /// Its position in the whole log.
    pub position: u64,
    /// When it happened.
    pub at: Timestamp,
}

impl Views {
    /// Folds one fact of one operation. Returns the agent whose leases it changed, if there is one.
    pub fn apply_operation(
        &mut self,
        id: &OperationId,
        event: &operation::Event,
        stamp: Stamp,
    ) -> Option<AgentId> {
        self.operations.apply(id, event, stamp);
        let agent = self.apply_leases(id, event, stamp);
        self.measure(id, event, stamp.at);
        self.operations.forget_run(id);
        agent
    }

    /// The same for leases and agents' records alone.
    pub fn apply_leases(
        &mut self,
        id: &OperationId,
        event: &operation::Event,
        stamp: Stamp,
    ) -> Option<AgentId> {
        let ended = self.leases.apply(id, event, stamp.at);
        match (&ended, event) {
            (Some(ended), _) => {
                self.agents.note_end(ended, stamp);
                Some(ended.lease.agent.clone())
            }
            (None, operation::Event::StepReserved(reserved)) => {
                self.agents.note_lease(&reserved.agent, stamp);
                Some(reserved.agent.clone())
            }
            _ => None,
        }
    }

    /// Folds one fact of one agent.
    pub fn apply_agent(&mut self, id: &AgentId, event: &agent::Event, stamp: Stamp) {
        self.agents.apply(id, event, stamp);
    }

    /// Folds that an agent was seen.
    pub fn apply_presence(&mut self, event: &presence::Event, stamp: Stamp) {
        let presence::Event::Seen(seen) = event;
        self.agents.note_seen(&seen.agent, seen.metrics, stamp);
    }

    /// Folds what operations that left the log leave of one agent.
    pub fn apply_work(&mut self, agent: &AgentId, event: &work::Event) {
        let work::Event::Carried(carried) = event;
        self.agents.carry(agent, carried);
    }

    /// Slots of an agent that are free.
    #[must_use]
    pub fn free_slots(&self, id: &AgentId, agent: &Agent) -> u32 {
        agent.slots().saturating_sub(self.leases.taken(id, agent.incarnation))
    }

    /// An agent's status as others see it: `busy` when it is active without a free slot.
    #[must_use]
    pub fn shown_status(&self, id: &AgentId, agent: &Agent) -> &'static str {
        match agent.status {
            agent::event::Status::Active if self.free_slots(id, agent) == 0 => "busy",
            status => status.name(),
        }
    }

    fn measure(&mut self, id: &OperationId, event: &operation::Event, at: Timestamp) {
        self.dashboard.count(at, |counts| match event {
            operation::Event::Created(_) => counts.created += 1,
            operation::Event::Completed => counts.completed += 1,
            operation::Event::Failed(_) => counts.failed += 1,
            operation::Event::StepRetryScheduled(_) => counts.retries += 1,
            operation::Event::StepCompleted(_) => counts.steps += 1,
            _ => {}
        });
        if let operation::Event::StepCompleted(completed) = event {
            self.dashboard.steps.add(completed.duration_ms);
        }
        let Some(row) = self.operations.get(id) else { return };
        if matches!(event, operation::Event::Completed | operation::Event::Failed(_))
            && matches!(row.status, Status::Completed | Status::Failed)
        {
            self.dashboard.operations.add(at.ms_since(row.created_at));
        }
    }
}
