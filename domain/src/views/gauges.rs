//! What is counted of a moment, for whatever shows numbers: metrics, samples, alerts and dashboards.

use super::Views;
use super::operation_board::Row;
use crate::Timestamp;
use crate::operation::pending::Cause;
use crate::operation::step::Run;

/// Steps of operations that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// An agent could take them now: they wait for one, and their operation is neither paused nor full.
    pub ready: usize,
    /// An agent has them.
    pub held: usize,
    /// They wait for the moment of their next attempt.
    pub backing_off: usize,
}

impl Views {
    /// How many steps stand where.
    #[must_use]
    pub fn step_counts(&self, now: Timestamp) -> StepCounts {
        let rows = self.operations.open().iter().filter_map(|id| self.operations.get(id));
        rows.filter_map(Row::open_run).fold(StepCounts::default(), |all, run| {
            let own = run.counts(now);
            StepCounts {
                ready: all.ready + own.ready,
                held: all.held + own.held,
                backing_off: all.backing_off + own.backing_off,
            }
        })
    }

    /// How many agents are shown with which status.
    #[must_use]
    pub fn agent_counts(&self) -> [(&'static str, usize); 4] {
        let mut counts = [("active", 0), ("busy", 0), ("inactive", 0), ("error", 0)];
        for (id, row) in self.agents.iter() {
            let shown = self.shown_status(id, &row.agent);
            counts.iter_mut().filter(|(status, _)| *status == shown).for_each(|(_, count)| *count += 1);
        }
        counts
    }
}

impl Run {
    fn counts(&self, now: Timestamp) -> StepCounts {
        StepCounts {
            ready: self.awaiting_agents(now).take(self.room()).count(),
            held: self.held.len(),
            backing_off: self
                .backing_off
                .iter()
                .filter(|at| self.is_blocked_on(Cause::Retry, **at, now))
                .count(),
        }
    }
}
