//! Folds for reading: what lists, dashboards and the dispatcher look at. Small, and rebuilt from the log.

pub mod agent_directory;
pub mod attention;
pub mod dashboard;
pub mod ended;
pub mod filter;
pub mod lanes;
pub mod listing;
pub mod operation_board;
pub mod pieces;
mod skeletons;

use crate::operation::step::Status;
use crate::{AgentId, OperationId, Timestamp, agent, operation};
use agent_directory::AgentDirectory;
use dashboard::Dashboard;
use lanes::Lanes;
use operation_board::OperationBoard;

/// All views together, since some facts of one tell another what it may forget.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// All operations.
    pub operations: OperationBoard,
    /// All agents.
    pub agents: AgentDirectory,
    /// Lanes that are parked.
    pub lanes: Lanes,
    /// Figures over time.
    pub dashboard: Dashboard,
}

impl Views {
    /// Folds one fact of one operation.
    pub fn apply_operation(
        &mut self,
        id: &OperationId,
        event: &operation::Event,
        revision: u64,
        at: Timestamp,
    ) {
        self.operations.apply(id, event, revision, at);
        self.measure(id, event, at);
        self.forget_run(id);
    }

    /// Folds one fact of one agent.
    pub fn apply_agent(&mut self, id: &AgentId, event: &agent::Event, revision: u64, at: Timestamp) {
        self.agents.apply(id, event, revision, at);
        if let agent::Event::Released(released) = event {
            self.forget_run(&released.lease_id.operation);
        }
    }

    /// The run of an ended operation is needed until the last agent has its slot back.
    fn forget_run(&mut self, id: &OperationId) {
        if self.agents.working_for(id).next().is_none() {
            self.operations.forget_run(id);
        }
    }

    fn measure(&mut self, id: &OperationId, event: &operation::Event, at: Timestamp) {
        let minute = self.dashboard.minute(at);
        match event {
            operation::Event::Created(_) => minute.created += 1,
            operation::Event::Completed => minute.completed += 1,
            operation::Event::Failed(_) => minute.failed += 1,
            operation::Event::StepRetryScheduled(_) => minute.retries += 1,
            operation::Event::StepCompleted(completed) => {
                minute.steps += 1;
                self.dashboard.steps.add(completed.duration_ms);
            }
            _ => {}
        }
        let Some(row) = self.operations.get(id) else { return };
        if matches!(event, operation::Event::Completed | operation::Event::Failed(_))
            && matches!(row.status, Status::Completed | Status::Failed)
        {
            self.dashboard.operations.add(at.ms_since(row.created_at));
        }
    }
}
