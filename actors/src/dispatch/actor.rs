//! The actor around the dispatcher: hands it the views, the time and what happened, and performs its actions.
//! Owns the channels of those that wait for an answer; decides nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use domain::views::Views;
use domain::{AgentId, Timestamp};
use tokio::sync::oneshot;

use super::claims::{Claim, ClaimId};
use super::perform::perform;
use super::task::Granted;
use super::{Action, Dispatch, DispatchContext, Input, Settings};
use crate::aggregate_actor::Surroundings;
use crate::gateway::Gateway;
use crate::presence::Presence;
use crate::projections::{Changes, Projected};
use crate::supervisor::Vital;

/// Facts that the dispatcher looks at at once.
const PART: usize = 256;
/// Messages that wait for the dispatcher before senders do.
const MAILBOX: usize = 1_024;

/// What the dispatcher works with.
#[derive(Clone)]
pub struct Shell {
    /// The log, the clock, the world.
    pub around: Arc<Surroundings>,
    /// The door to the aggregates.
    pub gateway: Arc<Gateway>,
    /// The views.
    pub projected: Arc<Projected>,
    /// Which agents were heard when.
    pub presence: Arc<Presence>,
    /// How many claims wait for work, for others to read.
    pub waiting: Arc<AtomicUsize>,
}

/// An agent asks for work.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ask {
    /// What it asks for.
    pub claim: Claim,
    /// Where the answer goes; an empty one when nothing was found.
    pub reply: oneshot::Sender<Vec<Granted>>,
}

/// The client of a claim is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HangUp {
    /// The agent that claimed.
    pub agent: AgentId,
    /// Which claim.
    pub claim: ClaimId,
}

/// Answers every claim with nothing and takes no more: the server is about to stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// The actor.
pub struct Dispatcher {
    dispatch: Dispatch,
    shell: Shell,
    replies: HashMap<ClaimId, oneshot::Sender<Vec<Granted>>>,
    sleeping: Option<(Timestamp, SpawnHandle)>,
    _vital: Vital,
}

impl Dispatcher {
    /// One that will find its work in the views.
    #[must_use]
    pub fn new(settings: Settings, shell: Shell, vital: Vital) -> Self {
        let dispatch = Dispatch::new(settings);
        Self { dispatch, shell, replies: HashMap::new(), sleeping: None, _vital: vital }
    }

    /// Hands over what the views show anew, then an input, and performs what follows.
    fn feed(&mut self, input: Option<Input>, ctx: &mut Context<Self>) {
        self.feed_with(self.shell.projected.changes_now(), input, ctx);
    }

    fn feed_with(&mut self, changes: Changes, input: Option<Input>, ctx: &mut Context<Self>) {
        let shell = self.shell.clone();
        let mut inputs: Vec<Input> = changes.parts(PART).map(Input::Changed).chain(input).collect();
        while !inputs.is_empty() {
            let mut actions = Vec::new();
            {
                let views = shell.projected.views.read();
                let context = DispatchContext {
                    views: &views,
                    // While the views are held they stay there.
                    position: shell.projected.position(),
                    presence: &shell.presence,
                    now: shell.around.clock.now(),
                };
                for input in inputs.drain(..) {
                    actions.append(&mut self.dispatch.on(input, &context));
                }
            }
            inputs.extend(actions.into_iter().flat_map(|action| self.perform(action, ctx)));
        }
        shell.waiting.store(self.dispatch.waiting().count(), Ordering::Relaxed);
    }

    /// Performs one action; returns what is to be told of it at once.
    fn perform(&mut self, action: Action, ctx: &mut Context<Self>) -> Vec<Input> {
        let shell = &self.shell;
        match action {
            Action::Send(task) => {
                let gateway = Arc::clone(&shell.gateway);
                let performing = async move { perform(&gateway, *task).await };
                ctx.spawn(performing.into_actor(self).map(|answered, dispatcher, ctx| {
                    dispatcher.feed(Some(Input::Answered(Box::new(answered))), ctx);
                }));
            }
            Action::Answer(claim, granted) => return self.answer(claim, granted),
            Action::WakeAt(at) => self.wake_at(at, ctx),
            Action::Heard(agent) => {
                shell.presence.heard(&agent, None, shell.around.clock.now(), u64::MAX);
            }
            Action::Waits(agent, waits) => shell.presence.waits(&agent, waits),
            Action::ForgetLease(lease) => shell.presence.forget_lease(&lease),
            Action::RestIdle => return self.tidy(),
        }
        Vec::new()
    }

    fn answer(&mut self, claim: Box<Claim>, granted: Vec<Granted>) -> Vec<Input> {
        match self.replies.remove(&claim.id).map(|reply| reply.send(granted)) {
            Some(Ok(())) | None => Vec::new(),
            Some(Err(granted)) => vec![Input::Undelivered(claim, granted)],
        }
    }

    /// Sends idle actors to rest, and finds clients that have hung up without a word.
    fn tidy(&mut self) -> Vec<Input> {
        self.shell.gateway.rest_idle(self.shell.around.clock.now(), self.dispatch.idle_ms());
        let gone = self
            .dispatch
            .claims()
            .filter(|claim| self.replies.get(&claim.id).is_none_or(oneshot::Sender::is_closed));
        gone.map(|claim| Input::HungUp(claim.agent.clone(), claim.id)).collect()
    }

    fn wake_at(&mut self, until: Timestamp, ctx: &mut Context<Self>) {
        if let Some((before, handle)) = self.sleeping.take() {
            // One that is due already will fire: to put it off again and again would starve it.
            if before <= until {
                self.sleeping = Some((before, handle));
                return;
            }
            ctx.cancel_future(handle);
        }
        let now = self.shell.around.clock.now();
        let micros = u64::try_from(until.as_micros() - now.as_micros()).unwrap_or(0);
        let handle = ctx.run_later(Duration::from_micros(micros), |dispatcher, ctx| {
            dispatcher.sleeping = None;
            dispatcher.feed(Some(Input::Woke), ctx);
        });
        self.sleeping = Some((until, handle));
    }

    fn await_changes(&self, ctx: &mut Context<Self>) {
        let projected = Arc::clone(&self.shell.projected);
        let waiting = async move { projected.changed().await };
        ctx.spawn(waiting.into_actor(self).map(|(), dispatcher, ctx| {
            dispatcher.feed(None, ctx);
            dispatcher.await_changes(ctx);
        }));
    }
}

/// Everything that is owed after a restart is found as after any other change.
fn everything(views: &Views, now: Timestamp) -> Changes {
    let all = |id| {
        let run = views.operations.get(id).and_then(|row| row.run.as_ref());
        run.map(|run| run.ready.iter().chain(&run.backing_off).copied().collect()).unwrap_or_default()
    };
    let open = views.operations.open().iter().map(|id| (id.clone(), all(id)));
    let closing = views.leases.operations().map(|id| (id.clone(), all(id)));
    Changes {
        operations: open.chain(closing).collect(),
        agents: views.agents.all().map(|(id, _)| id.clone()).collect(),
        holders: BTreeSet::new(),
        lanes: views.lanes.parked(now).map(|(id, _)| id.clone()).collect(),
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        let changes = everything(&self.shell.projected.views.read(), self.shell.around.clock.now());
        self.feed_with(changes, None, ctx);
        self.await_changes(ctx);
    }
}

impl Handler<Ask> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Ask { claim, reply }: Ask, ctx: &mut Context<Self>) {
        self.replies.insert(claim.id, reply);
        self.feed(Some(Input::Claimed(claim)), ctx);
    }
}

impl Handler<HangUp> for Dispatcher {
    type Result = ();

    fn handle(&mut self, HangUp { agent, claim }: HangUp, ctx: &mut Context<Self>) {
        self.feed(Some(Input::HungUp(agent, claim)), ctx);
    }
}

impl Handler<Drain> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Context<Self>) {
        self.feed(Some(Input::Drain), ctx);
    }
}
