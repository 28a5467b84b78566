//! What is done when a moment has come: offers, leases and attempts that end, silence, claims, lanes. When
//! the server itself stood still, nobody is blamed for it.

use std::collections::BTreeSet;

use domain::operation::StepWish;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::{AgentId, Timestamp};

use super::task::{Origin, Task};
use super::{Action, Dispatch, DispatchContext, TIDY_MS};
use crate::effects::{self, Wake};

/// A wake that comes so late means that the server itself stood still.
const STALL_MS: u64 = 1_000;

impl Dispatch {
    /// Does what is due.
    pub(super) fn wake(&mut self, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        let now = context.now;
        self.told = None;
        let late_ms = self.timers.next().map_or(0, |next| now.ms_since(next));
        while let Some(wake) = self.timers.take_due(now) {
            if let Wake::Lane(opened) = &wake {
                able.extend(self.members(context, |lane| lane == opened));
            }
            if late_ms > STALL_MS && self.forgive(&wake, context) {
                continue;
            }
            self.carry_out(wake, context);
        }
        self.send_again(context, able);
        self.reopen(context, able);
        if self.tidy_at.is_some_and(|at| at <= now) {
            self.tidy_at = Some(now.plus_ms(TIDY_MS));
            self.actions.push(Action::RestIdle);
        }
    }

    /// After a standstill of the server everybody gets one full period again.
    fn forgive(&mut self, wake: &Wake, context: &DispatchContext<'_>) -> bool {
        let periods = &self.settings.periods;
        let ms = match wake {
            Wake::Offer(_) => periods.offer_ms,
            Wake::Lease(_) => periods.lease_ms,
            Wake::Silence(agent) => match silence_limit(agent, context) {
                Some(limit) => limit,
                None => return false,
            },
            _ => return false,
        };
        self.timers.set(wake.clone(), context.now.plus_ms(ms));
        true
    }

    fn carry_out(&mut self, wake: Wake, context: &DispatchContext<'_>) {
        let now = context.now;
        let task = match &wake {
            Wake::Lane(_) => return,
            Wake::Claim(agent) => return self.claim_expired(agent),
            Wake::Silence(id) => match self.notice_silence(id, context) {
                Ok(silent_ms) => Task::TimeOut(id.clone(), silent_ms),
                Err(later) => return later.into_iter().for_each(|at| self.timers.set(wake.clone(), at)),
            },
            Wake::Grace(lease) => {
                Task::Lease(lease.clone(), StepWish::CloseLease { why: CloseReason::GraceExpired })
            }
            Wake::Answer(id, step) => Task::ExpireApproval(id.clone(), *step),
            Wake::Deadline(id) => Task::ExpireDeadline(id.clone()),
            Wake::Offer(lease) => {
                Task::Lease(lease.clone(), StepWish::ExpireOffer { reason: LeaseEnd::NoSignOfLife })
            }
            Wake::Timeout(lease) => Task::Lease(lease.clone(), StepWish::TimeOut),
            Wake::Lease(lease) => {
                let renewed = context.presence.renewed(lease);
                let until = renewed.map(|at| at.plus_ms(self.settings.periods.lease_ms));
                if let Some(until) = until.filter(|until| *until > now) {
                    return self.timers.set(wake.clone(), until);
                }
                Task::Lease(lease.clone(), StepWish::LoseLease { reason: LeaseEnd::LeaseExpired })
            }
        };
        self.send(task, Origin::Wake(wake), now);
    }

    /// How long an agent has been silent, in milliseconds, when that is too long; else when to look again, if
    /// ever.
    fn notice_silence(&self, id: &AgentId, context: &DispatchContext<'_>) -> Result<u64, Option<Timestamp>> {
        let now = context.now;
        let limit = silence_limit(id, context).ok_or(None)?;
        // An agent that waits for an answer of ours is not silent.
        if self.claims.of(id).is_some() || self.in_flight.serves(id) {
            return Err(Some(now.plus_ms(limit)));
        }
        let heard = context.presence.seen(id).map(|seen| seen.at);
        let until = heard.map_or(now, |at| at.plus_ms(limit));
        if until > now { Err(Some(until)) } else { Ok(heard.map_or(limit, |at| now.ms_since(at))) }
    }
}

fn silence_limit(agent: &AgentId, context: &DispatchContext<'_>) -> Option<u64> {
    let row = context.views.agents.get(agent)?;
    effects::silence_limit(context.views, agent, row)
}
