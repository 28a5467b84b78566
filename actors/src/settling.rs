//! Reports that end an attempt. Such a report does not look at the views, so that it does not wait for
//! them: what it is answered with is what its operation knew right after it.

use domain::operation::event::CloseReason;
use domain::operation::step::{Run, StepStatus};
use domain::operation::{Command, Operation, Rejection, Status, StepWish};
use domain::{LeaseId, Timestamp};

use crate::aggregate_actor::{DispatchError, Receipt};
use crate::codec::Metadata;
use crate::core::Core;
use crate::gateway::Order;
use crate::protocol::execute_step;
use crate::reclaiming::Holder;

/// What an operation knew right after a report about one of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aftermath {
    /// Its status.
    pub status: Status,
    /// When the step can be performed again, if it will be.
    pub next_attempt: Option<Timestamp>,
    /// The holder of the lease, as it was granted.
    pub holder: Option<Holder>,
}

impl Aftermath {
    /// What this operation knows of the step of this lease.
    #[must_use]
    pub fn of(operation: &Operation, lease: &LeaseId) -> Self {
        let run = &operation.run;
        let step = run.skeleton.position(lease.step).map(|position| &run.steps[position]);
        let step = step.filter(|step| step.grant == lease.grant);
        let holder =
            step.and_then(|step| Some(Holder { agent: step.agent.clone()?, incarnation: step.incarnation }));
        Self { status: operation.status(), next_attempt: next_attempt(run, lease), holder }
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
            // The agent needs no further time to stop. If it is not taken now, the end of grace does the
            // same.
            let wish = StepWish::CloseLease { why: CloseReason::Reported };
            let _ = execute_step(&self.gateway, lease, wish, Metadata::of_photon()).await;
        }
        let receipt = outcome?;
        // Whatever is decided is looked at.
        let after = after.take().ok_or(DispatchError::Crashed)?;
        Ok(Settled { receipt, after })
    }
}
