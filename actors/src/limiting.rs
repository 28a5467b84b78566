//! What follows when a provider says "not before then": the lane of the account is parked and the step
//! given back. Both are facts, so that no restart lets a call through.

use domain::agent::Agent;
use domain::lane::{self, Lane};
use domain::operation::event::StepError;
use domain::operation::{Operation, StepWish};
use domain::{AgentId, LaneId, LeaseId, Timestamp};

use crate::aggregate_actor::{DispatchError, Receipt};
use crate::codec::Metadata;
use crate::core::Core;
use crate::gateway::Order;

/// The code by which an agent says that its provider takes no calls; also the reason of the step's release.
pub const RATE_LIMITED: &str = "rate_limited";

/// Shortest time a lane is parked: a reset that has passed already must not make the same call spin.
const WINDOW_MIN_MS: u64 = 1_000;

/// Why a limit was not, or perhaps not, recorded.
#[derive(Debug)]
pub enum LimitError {
    /// The lane is not parked; nothing else was done.
    Lane(DispatchError<Lane>),
    /// The lane is parked; the step was not given back.
    Step(DispatchError<Operation>),
}

impl Core {
    /// The provider of this lease's agent takes no calls before `until`. The lane is parked first: a crash
    /// between the two leaves a step that is still held, never one that is called too early.
    ///
    /// # Errors
    /// Which half was not done.
    pub async fn report_limit(
        &self,
        lease: &LeaseId,
        until: Timestamp,
        error: StepError,
        retryable: bool,
        metadata: Metadata,
    ) -> Result<Receipt<Operation>, LimitError> {
        let until = until.max(self.around.clock.now().plus_ms(WINDOW_MIN_MS));
        if let Some(lane) = self.holder(lease).and_then(|(agent, _)| self.lane_of(&agent)) {
            let command = lane::Command::Park { until, lease: lease.clone() };
            let metadata = Metadata { key: None, ..metadata.clone() };
            self.gateway
                .execute::<Lane>(&lane, Order::of(command, metadata))
                .await
                .map_err(LimitError::Lane)?;
        }
        let wish = StepWish::Limit { until, error, retryable };
        self.report(lease, wish, metadata).await.map_err(LimitError::Step)
    }

    /// The lane in which an agent works.
    fn lane_of(&self, agent: &AgentId) -> Option<LaneId> {
        let views = self.projected.views.read();
        let row = views.agents.ever(agent)?;
        let Agent { profile, .. } = &row.agent;
        Some(LaneId::of_agent(agent, &profile.config))
    }
}
