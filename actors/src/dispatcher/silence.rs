//! What silence means to the dispatcher: when an agent counts as gone, and that nobody is blamed for a
//! standstill of the server itself.

use std::sync::Arc;

use actix::prelude::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use domain::agent::{self, Agent};
use domain::{AgentId, Timestamp};

use super::{AGAIN_MS, Dispatcher, settled};
use crate::codec::Metadata;
use crate::effects::{self, Wake};
use crate::gateway::Order;

impl Dispatcher {
    /// After a standstill of the server everybody gets one full period again.
    pub(super) fn forgive(&mut self, wake: &Wake, now: Timestamp) -> bool {
        let periods = &self.desk.periods;
        let ms = match wake {
            Wake::Offer(_) => periods.offer_ms,
            Wake::Lease(_) => periods.lease_ms,
            Wake::Silence(agent) => match self.silence_limit(agent) {
                Some(limit) => limit,
                None => return false,
            },
            _ => return false,
        };
        self.timers.set(wake.clone(), now.plus_ms(ms));
        true
    }

    fn silence_limit(&self, agent: &AgentId) -> Option<u64> {
        let views = self.desk.projected.views.read();
        views.agents.get(agent).and_then(|row| effects::silence_limit(&row.agent))
    }

    pub(super) fn notice_silence(
        &mut self,
        wake: &Wake,
        id: &AgentId,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        let Some(limit) = self.silence_limit(id) else { return };
        let heard = self.desk.presence.seen(id).map(|seen| seen.at);
        let until = heard.map_or(now, |at| at.plus_ms(limit));
        // An agent that waits for an answer of ours is not silent.
        if self.claims.waits(id) || self.in_flight.serves(id) {
            self.timers.set(wake.clone(), now.plus_ms(limit));
        } else if until > now {
            self.timers.set(wake.clone(), until);
        } else {
            let silent_ms = heard.map_or(limit, |at| now.ms_since(at));
            let (gateway, id, wake) = (Arc::clone(&self.desk.gateway), id.clone(), wake.clone());
            let command = agent::Command::TimeOut { silent_ms };
            let sending = async move {
                settled(&gateway.execute_shown::<Agent>(&id, Order::of(command, Metadata::of_photon())).await)
            };
            ctx.spawn(sending.into_actor(self).map(|settled, dispatcher, ctx| {
                if !settled {
                    dispatcher.timers.set_if_absent(wake, dispatcher.now().plus_ms(AGAIN_MS));
                    dispatcher.sleep(ctx);
                }
            }));
        }
    }
}
