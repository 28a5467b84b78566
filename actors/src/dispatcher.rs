//! Brings ready steps and waiting agents together, and wakes what is due. Holds nothing that cannot be
//! rebuilt from the views; decides nothing that an aggregate could refuse.
//!
//! Nothing is looked at again without a reason, so every reason is here. A match becomes possible only
//!
//! * when a step is offered anew: a fact moved it, changed its operation's priority or list of agents, or
//!   made room in its operation (`look_at`, for every fact); its grant was refused (`look_at_lease`); its
//!   back-off or its hold is over (a moment that `Ready::next_change` tells `sleep`);
//! * when an agent is able to take more: it claims; a fact changed its slots, status or profile
//!   (`look_at`); its account's lane opens, by a fact or at its moment (`Wake::Lane`); a grant to it was
//!   refused and its slot is free again (`look_at_lease`), or its claim waits again (`reopen`).
//!
//! Whatever else is to hold work back belongs where room (a pause does) or free slots (a parked lane
//! does) are counted, and its end, if no fact tells it, is one more moment.

mod silence;
mod withdrawal;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use domain::agent::Agent;
use domain::operation::Operation;
use domain::operation::event::StepOfferExpired;
use domain::operation::step::Run;
use domain::operation::{Command, StepWish};
use domain::views::operation_board::LeaseState;
use domain::{AgentId, LaneId, LeaseId, OperationId, Timestamp, agent};
use futures_util::future::join_all;

use crate::aggregate_actor::DispatchError;
use crate::claims::{Claim, Claims};
use crate::codec::Metadata;
use crate::effects::{self, Due, Owed, Wake};
use crate::gateway::Order;
use crate::granting::{Desk, Grant, execute_step, grant};
use crate::in_flight::InFlight;
use crate::matching::{Appetite, Floor, Pick};
use crate::projections::Changes;
use crate::ready::{Ready, Scene};
use crate::supervisor::Vital;
use crate::timers::Timers;

/// How long a command that was not taken waits before it is sent again.
const AGAIN_MS: u64 = 1_000;
/// A wake that comes so late means that the server itself stood still; nobody is blamed for that.
const STALL_MS: u64 = 1_000;
/// How long a claim rests after everything it was matched with was refused.
const REFUSED_MS: u64 = 100;
/// Between two looks for actors that nobody uses and clients that have hung up.
const TIDY_MS: u64 = 1_000;

/// The actor.
pub struct Dispatcher {
    desk: Desk,
    ready: Ready,
    claims: Claims,
    timers: Timers<Wake>,
    /// Wakes that an operation's last look led to, so that those no longer owed can be cleared.
    armed: HashMap<OperationId, HashSet<Wake>>,
    /// Leases that are being granted, and to whom.
    in_flight: InFlight,
    /// Commands that were sent and not answered; one of a kind is enough.
    sent: HashSet<LeaseId>,
    sleeping: Option<(Timestamp, SpawnHandle)>,
    draining: bool,
    _vital: Vital,
}

/// Answers every claim with nothing and takes no more: the server is about to stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

impl Dispatcher {
    /// One that will find its work in the views.
    #[must_use]
    pub fn new(desk: Desk, vital: Vital) -> Self {
        Self {
            claims: Claims::new(Arc::clone(&desk.presence)),
            ready: Ready::new(desk.periods.starvation_ms),
            desk,
            timers: Timers::default(),
            armed: HashMap::new(),
            in_flight: InFlight::default(),
            sent: HashSet::new(),
            sleeping: None,
            draining: false,
            _vital: vital,
        }
    }

    fn now(&self) -> Timestamp {
        self.desk.around.clock.now()
    }

    /// Everything that is owed after a restart is found as after any other change.
    fn look_at_everything(&mut self, ctx: &mut Context<Self>) {
        let views = self.desk.projected.views.read();
        let run = |id| views.operations.get(id).and_then(|row| row.run.as_ref());
        let all = |run: &Run| run.ready.iter().chain(&run.backing_off).copied().collect();
        let open = views.operations.open().iter();
        let changes = Changes {
            operations: open.map(|id| (id.clone(), run(id).map(all).unwrap_or_default())).collect(),
            agents: views.agents.all().map(|(id, _)| id.clone()).collect(),
            lanes: views.lanes.parked(self.now()).map(|(id, _)| id.clone()).collect(),
        };
        drop(views);
        self.look_at(&changes, ctx);
    }

    fn await_changes(&self, ctx: &mut Context<Self>) {
        let projected = Arc::clone(&self.desk.projected);
        let waiting = async move { projected.take_changes().await };
        ctx.spawn(waiting.into_actor(self).map(|changes, dispatcher, ctx| {
            dispatcher.look_at(&changes, ctx);
            dispatcher.await_changes(ctx);
        }));
    }

    fn look_at(&mut self, changes: &Changes, ctx: &mut Context<Self>) {
        let desk = self.desk.clone();
        let views = desk.projected.views.read();
        let now = self.now();
        let mut owed = Vec::new();
        for (id, moved) in &changes.operations {
            self.arm(id, effects::wakes_of_operation(&views, id, &desk.periods), now);
            let scene = Scene { views: &views, in_flight: &self.in_flight, now };
            self.ready.look(scene, id, moved.iter().copied());
            let (wakes, mut more) = effects::of_workers(&views, id, &desk.periods);
            self.set(wakes, now);
            owed.append(&mut more);
        }
        for id in &changes.agents {
            let (wakes, mut more) = effects::of_agent(&views, id, &desk.periods);
            self.set(wakes, now);
            owed.append(&mut more);
        }
        for id in &changes.lanes {
            self.timers.clear(&Wake::Lane(id.clone()));
            if let Some(until) = views.lanes.parked_until(id, now) {
                self.timers.set(Wake::Lane(id.clone()), until);
            }
        }
        drop(views);
        owed.into_iter().for_each(|owed| self.send(owed, ctx));
        let mut able = match changes.lanes.is_empty() {
            true => BTreeSet::new(),
            false => self.members(|lane| changes.lanes.contains(lane)),
        };
        able.extend(changes.agents.iter().cloned());
        self.match_waiting(&able, ctx);
        self.sleep(ctx);
    }

    /// Sets the wakes of one operation and clears those that it is no longer owed.
    fn arm(&mut self, id: &OperationId, wakes: Vec<(Wake, Due)>, now: Timestamp) {
        let before = self.armed.remove(id).unwrap_or_default();
        let after: HashSet<Wake> = wakes.iter().map(|(wake, _)| wake.clone()).collect();
        for wake in before.difference(&after) {
            self.timers.clear(wake);
            if let Some(lease) =
                wake.lease().filter(|lease| !after.iter().any(|wake| wake.lease() == Some(lease)))
            {
                self.desk.presence.forget_lease(lease);
            }
        }
        if !after.is_empty() {
            self.armed.insert(id.clone(), after);
        }
        self.set(wakes, now);
    }

    fn set(&mut self, wakes: Vec<(Wake, Due)>, now: Timestamp) {
        for (wake, due) in wakes {
            match due {
                Due::At(at) => self.timers.set(wake, at),
                Due::In(ms) => self.timers.set_if_absent(wake, now.plus_ms(ms)),
            }
        }
    }

    fn send(&mut self, owed: Owed, ctx: &mut Context<Self>) {
        let (Owed::Release(_, lease, _) | Owed::Lose(lease, _)) = &owed;
        let lease = lease.clone();
        // What is being granted is not yet known to its operation; what was sent needs no second time.
        if self.in_flight.contains(&lease) || !self.sent.insert(lease.clone()) {
            return;
        }
        let (gateway, again) = (Arc::clone(&self.desk.gateway), owed.clone());
        let sending = async move {
            match owed {
                Owed::Release(agent, lease, outcome) => {
                    let command = agent::Command::Release { lease, outcome };
                    settled(
                        &gateway.execute::<Agent>(&agent, Order::of(command, Metadata::of_photon())).await,
                    )
                }
                Owed::Lose(lease, reason) => {
                    let wish = StepWish::LoseLease { reason: reason.into() };
                    settled(&execute_step(&gateway, &lease, wish, Metadata::of_photon()).await)
                }
            }
        };
        ctx.spawn(sending.into_actor(self).map(move |settled, dispatcher, ctx| {
            if settled {
                dispatcher.sent.remove(&lease);
                dispatcher.look_at_lease(&lease, None, ctx);
            } else {
                // It counts as sent until it is sent again, so that no change meanwhile sends it twice.
                let later = Duration::from_millis(AGAIN_MS);
                ctx.run_later(later, move |dispatcher, ctx| dispatcher.send_again(again, &lease, ctx));
            }
        }));
    }

    /// Sends what was not taken, unless the lease was granted anew in the meantime.
    fn send_again(&mut self, owed: Owed, lease: &LeaseId, ctx: &mut Context<Self>) {
        self.sent.remove(lease);
        let views = self.desk.projected.views.read();
        let held = |agent| views.operations.lease_of(agent, lease) == LeaseState::Held;
        let stale = matches!(&owed, Owed::Release(agent, ..) if held(agent));
        drop(views);
        if !stale {
            self.send(owed, ctx);
        }
    }

    /// After a loss the slot is to be freed, and after a refused reservation too; the step is offered
    /// again, and `granted_to` may have a slot for another.
    fn look_at_lease(&mut self, lease: &LeaseId, granted_to: Option<&AgentId>, ctx: &mut Context<Self>) {
        let views = self.desk.projected.views.read();
        let holders = views.agents.working_for(&lease.operation).filter(|(_, held)| held == lease);
        let agents = holders.map(|(agent, _)| agent).chain(granted_to).cloned().collect();
        let run = views.operations.get(&lease.operation).and_then(|row| row.run.as_ref());
        let moved = run.and_then(|run| run.skeleton.position(lease.step)).into_iter().collect();
        drop(views);
        let operations = BTreeMap::from([(lease.operation.clone(), moved)]);
        self.look_at(&Changes { operations, agents, ..Changes::default() }, ctx);
    }

    /// Matches what may have become possible: what is freshly offered with everybody who waits, and
    /// whatever is offered with those that have become able to take it.
    fn match_waiting(&mut self, able: &BTreeSet<AgentId>, ctx: &mut Context<Self>) {
        let desk = self.desk.clone();
        let views = desk.projected.views.read();
        let scene = Scene { views: &views, in_flight: &self.in_flight, now: desk.around.clock.now() };
        self.ready.advance(scene);
        let claims: Vec<&Claim> = if self.ready.is_fresh() {
            self.claims.open().collect()
        } else {
            able.iter().filter_map(|agent| self.claims.open_of(agent)).collect()
        };
        if self.draining {
            return;
        }
        let waiting: BTreeMap<_, _> = claims.into_iter().filter_map(|claim| hunger(scene, claim)).collect();
        let able = able.iter().filter(|agent| waiting.contains_key(agent)).collect();
        let floor = Floor { scene, presence: &desk.presence, waiting, able, weights: desk.weights };
        let picks = floor.pass(&mut self.ready);
        drop(views);
        for (agent, picks) in picks {
            self.grant(agent, picks, ctx);
        }
    }

    fn grant(&mut self, agent: AgentId, picks: Vec<Pick>, ctx: &mut Context<Self>) {
        let Some(claim) = self.claims.take(&agent) else { return };
        self.desk.presence.heard(&agent, None, self.now(), u64::MAX);
        self.timers.clear(&Wake::Claim(agent.clone()));
        for pick in &picks {
            self.in_flight.insert(pick.lease.clone(), agent.clone());
        }
        let leases: Vec<LeaseId> = picks.iter().map(|pick| pick.lease.clone()).collect();
        let (desk, metadata, to) = (self.desk.clone(), claim.metadata.clone(), agent.clone());
        let granting =
            async move { join_all(picks.into_iter().map(|pick| grant(&desk, &to, pick, &metadata))).await };
        ctx.spawn(granting.into_actor(self).map(move |grants, dispatcher, ctx| {
            let mut granted = Vec::new();
            for (lease, grant) in leases.iter().zip(grants) {
                if matches!(grant, Grant::Unknown) {
                    dispatcher.withdraw(lease.clone(), agent.clone(), ctx);
                    continue;
                }
                dispatcher.in_flight.remove(lease);
                granted.extend(grant.granted());
            }
            if granted.is_empty() {
                // Not at once: whoever refused would only be asked the same again.
                let later = Duration::from_millis(REFUSED_MS);
                ctx.run_later(later, |dispatcher, ctx| dispatcher.reopen(claim, ctx));
            } else {
                dispatcher.claims.answer(claim, granted, dispatcher.now());
            }
            for lease in &leases {
                dispatcher.look_at_lease(lease, Some(&agent), ctx);
            }
        }));
    }

    /// Lets a claim wait whose grants were all refused.
    fn reopen(&mut self, claim: Claim, ctx: &mut Context<Self>) {
        let (now, agent, until) = (self.now(), claim.agent.clone(), claim.until);
        if self.draining {
            self.claims.answer(claim, Vec::new(), now);
        } else if self.claims.return_to(claim, now) {
            self.timers.set(Wake::Claim(agent.clone()), until);
            self.match_waiting(&BTreeSet::from([agent]), ctx);
            self.sleep(ctx);
        }
    }

    /// Sleeps until the next wake is due.
    fn sleep(&mut self, ctx: &mut Context<Self>) {
        self.desk.waiting.store(self.claims.len(), Ordering::Relaxed);
        let now = self.now();
        let Some(until) = self.timers.next().into_iter().chain(self.ready.next_change()).min() else {
            return;
        };
        if let Some((before, handle)) = self.sleeping.take() {
            // One that is due already will fire: to put it off again and again would starve it.
            if before <= until {
                self.sleeping = Some((before, handle));
                return;
            }
            ctx.cancel_future(handle);
        }
        let micros = u64::try_from(until.as_micros() - now.as_micros()).unwrap_or(0);
        let handle = ctx.run_later(Duration::from_micros(micros), |dispatcher, ctx| {
            dispatcher.sleeping = None;
            dispatcher.wake(ctx);
        });
        self.sleeping = Some((until, handle));
    }

    fn wake(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let late_ms = self.timers.next().map_or(0, |next| now.ms_since(next));
        let mut able = BTreeSet::new();
        while let Some(wake) = self.timers.take_due(now) {
            if let Wake::Lane(opened) = &wake {
                able.extend(self.members(|lane| lane == opened));
            }
            if late_ms > STALL_MS && self.forgive(&wake, now) {
                continue;
            }
            self.carry_out(&wake, now, ctx);
        }
        // What is offered from this moment on, and to whom.
        self.match_waiting(&able, ctx);
        self.sleep(ctx);
    }

    /// Agents that wait for work in such a lane.
    fn members(&self, lane: impl Fn(&LaneId) -> bool) -> BTreeSet<AgentId> {
        let views = self.desk.projected.views.read();
        let waiting = self.claims.open().map(|claim| &claim.agent);
        let members = waiting.filter(|id| {
            let row = views.agents.get(id);
            row.is_some_and(|row| lane(&LaneId::of_agent(id, &row.agent.profile.config)))
        });
        members.cloned().collect()
    }

    /// Sends idle actors to rest, and forgets claims that nobody waits for any more.
    fn tidy(&mut self) {
        let now = self.now();
        self.desk.gateway.rest_idle(now, self.desk.periods.idle_ms);
        self.claims.forget_closed(now);
        self.desk.waiting.store(self.claims.len(), Ordering::Relaxed);
    }

    fn carry_out(&mut self, wake: &Wake, now: Timestamp, ctx: &mut Context<Self>) {
        match wake {
            Wake::Lane(_) => {}
            Wake::Claim(agent) => {
                if let Some(claim) = self.claims.take(agent) {
                    self.claims.answer(claim, Vec::new(), now);
                }
            }
            Wake::Grace(agent, lease) => {
                let outcome = agent::event::Outcome::Cancelled;
                self.send(Owed::Release(agent.clone(), lease.clone(), outcome), ctx);
            }
            Wake::Silence(id) => self.notice_silence(wake, id, now, ctx),
            Wake::Answer(id, step) => {
                self.command(wake.clone(), id.clone(), Command::ExpireApproval { step: *step }, ctx);
            }
            Wake::Deadline(id) => self.command(wake.clone(), id.clone(), Command::ExpireDeadline, ctx),
            Wake::Offer(lease) => {
                let wish = StepWish::ExpireOffer { reason: StepOfferExpired::NO_SIGN_OF_LIFE.into() };
                self.step(wake, lease, wish, ctx);
            }
            Wake::Timeout(lease) => self.step(wake, lease, StepWish::TimeOut, ctx),
            Wake::Lease(lease) => {
                let renewed =
                    self.desk.presence.renewed(lease).map(|at| at.plus_ms(self.desk.periods.lease_ms));
                match renewed {
                    Some(until) if until > now => self.timers.set(wake.clone(), until),
                    _ => self.step(wake, lease, StepWish::LoseLease { reason: "lease_expired".into() }, ctx),
                }
            }
        }
    }

    fn step(&mut self, wake: &Wake, lease: &LeaseId, wish: StepWish, ctx: &mut Context<Self>) {
        let command = Command::Step { step: lease.step, grant: lease.grant, wish };
        self.command(wake.clone(), lease.operation.clone(), command, ctx);
    }

    /// Sends a command to an operation; wakes again soon when it could not be taken.
    fn command(&mut self, wake: Wake, id: OperationId, command: Command, ctx: &mut Context<Self>) {
        let gateway = Arc::clone(&self.desk.gateway);
        let sending = async move {
            settled(&gateway.execute::<Operation>(&id, Order::of(command, Metadata::of_photon())).await)
        };
        ctx.spawn(sending.into_actor(self).map(|settled, dispatcher, ctx| {
            if !settled {
                let at = dispatcher.now().plus_ms(AGAIN_MS);
                dispatcher.timers.set_if_absent(wake, at);
                dispatcher.sleep(ctx);
            }
        }));
    }
}

/// What a claim would take, as far as its agent has free slots.
fn hunger<'c>(scene: Scene<'_>, claim: &'c Claim) -> Option<(&'c AgentId, Appetite)> {
    let agent = &scene.views.agents.get(&claim.agent)?.agent;
    if scene.views.lanes.holds_back(&claim.agent, agent, scene.now) {
        return None;
    }
    let free = scene.in_flight.free_slots(&claim.agent, agent);
    let appetite = Appetite { max: claim.appetite.max.min(free), ..claim.appetite.clone() };
    (appetite.max > 0).then_some((&claim.agent, appetite))
}

/// Whether a command needs no second time: carried out, or refused by the domain.
fn settled<A: crate::codec::Durable, T>(outcome: &Result<T, DispatchError<A>>) -> bool {
    matches!(outcome, Ok(_) | Err(DispatchError::Rejected(_)))
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look_at_everything(ctx);
        self.await_changes(ctx);
        ctx.run_interval(Duration::from_millis(TIDY_MS), |dispatcher, _| dispatcher.tidy());
    }
}

impl Handler<Claim> for Dispatcher {
    type Result = ();

    fn handle(&mut self, claim: Claim, ctx: &mut Context<Self>) {
        let now = self.now();
        if self.draining {
            self.claims.answer(claim, Vec::new(), now);
            return;
        }
        // A report that was just answered may have freed this agent's slot or readied a step.
        let mut changes = self.desk.projected.changes_now();
        self.timers.set(Wake::Claim(claim.agent.clone()), claim.until);
        changes.agents.insert(claim.agent.clone());
        self.claims.enter(claim, now);
        self.look_at(&changes, ctx);
    }
}

impl Handler<Drain> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {
        self.draining = true;
        let now = self.now();
        for claim in self.claims.take_all() {
            self.claims.answer(claim, Vec::new(), now);
        }
    }
}
