//! What follows when a provider says "not before then": the lane of the account is parked and the step
//! given back. Both are facts, so that no restart lets a call through.

use domain::lane::{self, Lane};
use domain::operation::event::StepError;
use domain::operation::{Operation, StepWish};
use domain::{LaneId, LeaseId, Timestamp};

use crate::aggregate_actor::DispatchError;
use crate::codec::Metadata;
use crate::core::Core;
use crate::gateway::Order;
use crate::settling::Settled;

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
    ) -> Result<Settled, LimitError> {
        let until = until.max(self.around.clock.now().plus_ms(WINDOW_MIN_MS));
        if let Some(lane) = self.worked_in(lease) {
            let command = lane::Command::Park { until, lease: lease.clone() };
            let metadata = Metadata { key: None, ..metadata.clone() };
            self.gateway
                .execute::<Lane>(&lane, Order::of(command, metadata))
                .await
                .map_err(LimitError::Lane)?;
        }
        let wish = StepWish::Limit { until, error, retryable };
        self.settle(lease, wish, metadata).await.map_err(LimitError::Step)
    }

    /// The lane of the agent that has this lease, or had it last: what its provider says is true even if
    /// the lease is over.
    fn worked_in(&self, lease: &LeaseId) -> Option<LaneId> {
        let views = self.projected.views.read();
        let run = views.operations.get(&lease.operation)?.run.as_ref()?;
        let step = &run.steps[run.skeleton.position(lease.step)?];
        let agent = step.agent.as_ref().filter(|_| step.grant == lease.grant)?;
        Some(LaneId::of_agent(agent, &views.agents.ever(agent)?.agent.profile.config))
    }
}
