//! Reports that end an attempt. Such a report does not look at the views, so that it does not wait for
//! them: what it is answered with is what its operation knew right after it.

use domain::agent::event::Outcome;
use domain::agent::{self, Agent};
use domain::operation::step::{Run, StepStatus};
use domain::operation::{Command, Operation, Rejection, Status, StepWish};
use domain::{AgentId, LeaseId, Timestamp};

use crate::aggregate_actor::{DispatchError, Receipt};
use crate::codec::Metadata;
use crate::core::Core;
use crate::gateway::Order;

/// What an operation knew right after a report about one of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aftermath {
    /// Its status.
    pub status: Status,
    /// When the step can be performed again, if it will be.
    pub next_attempt: Option<Timestamp>,
    /// The agent that had the lease.
    pub agent: Option<AgentId>,
}

impl Aftermath {
    /// What this operation knows of the step of this lease.
    #[must_use]
    pub fn of(operation: &Operation, lease: &LeaseId) -> Self {
        let run = &operation.run;
        let step = run.skeleton.position(lease.step).map(|position| &run.steps[position]);
        let agent = step.filter(|step| step.grant == lease.grant).and_then(|step| step.agent.clone());
        Self { status: operation.status(), next_attempt: next_attempt(run, lease), agent }
    }
}

fn next_attempt(run: &Run, lease: &LeaseId) -> Option<Timestamp> {
    let step = &run.steps[run.skeleton.position(lease.step)?];
    match &step.status {
        StepStatus::BackingOff { at, .. } => Some(*at),
        StepStatus::Ready => step.limited_until.or(step.ready_at),
        _ => None,
    }
}

/// A report that was taken.
#[derive(Debug)]
pub struct Settled {
    /// The operation's answer.
    pub receipt: Receipt<Operation>,
    /// How the operation stood then.
    pub after: Aftermath,
}

impl Core {
    /// Puts a report that ends an attempt to its operation; it is a sign of life, too.
    ///
    /// # Errors
    /// Why it was not, or perhaps not, taken.
    pub async fn settle(
        &self,
        lease: &LeaseId,
        wish: StepWish,
        metadata: Metadata,
    ) -> Result<Settled, DispatchError<Operation>> {
        self.note_report(lease);
        let command = Command::Step { step: lease.step, grant: lease.grant, wish };
        let (order, after) = Order::of(command, metadata).looking({
            let lease = lease.clone();
            move |operation| Aftermath::of(operation, &lease)
        });
        let outcome = self.put_step(lease, order).await;
        if let Err(DispatchError::Rejected(Rejection::AlreadyTerminal { .. })) = &outcome {
            self.free_cut_slot(lease).await;
        }
        let receipt = outcome?;
        // Whatever is decided is looked at.
        let after = after.take().ok_or(DispatchError::Crashed)?;
        Ok(Settled { receipt, after })
    }

    /// The agent has reported on work whose operation had ended: it needs no further grace.
    async fn free_cut_slot(&self, lease: &LeaseId) {
        if !self.is_cut(lease) {
            return;
        }
        let agent = {
            let views = self.projected.views.read();
            let mut working = views.agents.working_for(&lease.operation);
            working.find(|(_, held)| held == lease).map(|(agent, _)| agent.clone())
        };
        if let Some(agent) = agent {
            let command = agent::Command::Release { lease: lease.clone(), outcome: Outcome::Cancelled };
            // If it is not taken now, the end of grace does the same.
            let _ = self.gateway.execute::<Agent>(&agent, Order::of(command, Metadata::of_photon())).await;
        }
    }
}
