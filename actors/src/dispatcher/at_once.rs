//! Claims that do not wait: matched once with what is there now. They never displace a claim that waits.

use std::collections::BTreeSet;

use actix::prelude::Context;

use super::Dispatcher;
use crate::claims::Claim;
use crate::effects::Wake;
use crate::projections::Changes;

impl Dispatcher {
    /// Matches a claim with what is there now, and answers it with nothing when it is not served. A claim
    /// of the same agent that waits goes on waiting.
    pub(super) fn match_once(&mut self, claim: Claim, changes: &Changes, ctx: &mut Context<Self>) {
        let (now, agent) = (self.now(), claim.agent.clone());
        let waiting = self.claims.take(&agent);
        self.claims.enter(claim, now);
        self.look_at(changes, ctx);
        if let Some(unserved) = self.claims.take(&agent) {
            self.claims.answer(unserved, Vec::new(), now);
        }
        if let Some(waiting) = waiting {
            let until = waiting.until;
            if self.claims.return_to(waiting, now) {
                self.timers.set(Wake::Claim(agent.clone()), until);
                self.match_waiting(&BTreeSet::from([agent]), ctx);
            }
        }
        self.sleep(ctx);
    }
}
