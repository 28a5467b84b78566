//! Takes back what was perhaps granted. Nobody heard of it, so nobody would begin with it; and its agent's
//! slot must not be freed while the step may still be reserved under that lease.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use domain::operation::StepWish;
use domain::{AgentId, LeaseId};

use super::{AGAIN_MS, Dispatcher, settled};
use crate::aggregate_actor::DispatchError;
use crate::codec::Metadata;
use crate::granting::execute_step_shown;

/// Why such an offer is over; says nothing against its agent.
const NOT_HEARD: &str = "not_heard";

impl Dispatcher {
    /// Stands behind the reservation in the operation's queue, so that its answer decides whether there was
    /// one. Until then the lease counts as one that is being granted.
    pub(super) fn withdraw(&self, lease: LeaseId, agent: AgentId, ctx: &mut Context<Self>) {
        let (gateway, withdrawn) = (Arc::clone(&self.desk.gateway), lease.clone());
        let withdrawing = async move {
            let wish = StepWish::ExpireOffer { reason: NOT_HEARD.into() };
            let outcome = execute_step_shown(&gateway, &withdrawn, wish, Metadata::of_photon()).await;
            // An operation that is out of service will never say more than its log does.
            settled(&outcome)
                || matches!(outcome, Err(DispatchError::Quarantined | DispatchError::Unreadable(_)))
        };
        ctx.spawn(withdrawing.into_actor(self).map(move |settled, dispatcher, ctx| {
            if settled {
                dispatcher.in_flight.remove(&lease);
                dispatcher.look_at_lease(&lease, Some(&agent), ctx);
            } else {
                let later = Duration::from_millis(AGAIN_MS);
                ctx.run_later(later, move |dispatcher, ctx| dispatcher.withdraw(lease, agent, ctx));
            }
        }));
    }
}
