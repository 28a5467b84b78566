//! One generic actor for every aggregate: decide → append → answer. Contains no domain noun.
//!
//! While an append is in flight, commands wait; when it is answered, all that wait are decided one
//! after the other and appended as one. Decisions are made on a state that runs ahead of the log, and
//! every answer of the batch waits for the append: no reader ever sees what a crash can take back.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture,
};
use bytes::Bytes;
use domain::{Given, Timestamp, World};
use events::{
    Append, AppendError, Beside, EventId, EventLog, Expected, Head, NewEvent, Position, StreamId, Version,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock::Clock;
use crate::codec::{Durable, Encoded, Metadata, beside};
use crate::keeper::{Keeper, recall};
use crate::recovery::{Recovered, RecoveryError, recover};

/// Commands that one aggregate lets wait.
pub const WAITING_MAX: usize = 1_024;
/// Commands that are decided as one.
const BATCH_COMMANDS_MAX: usize = 256;
/// Events that are appended as one, unless a single command yields more.
const BATCH_EVENTS_MAX: usize = 256;
/// Bytes of bodies after which no further command joins the batch.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A conflict means that somebody else wrote to the stream; so often it is decided again.
const CONFLICTS_MAX: u32 = 3;

/// What an actor shares with all others.
pub struct Surroundings {
    /// Where facts go.
    pub log: Arc<dyn EventLog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What decisions may know.
    pub world: World,
    /// Where snapshots are, if there are any.
    pub keeper: Option<Arc<Keeper>>,
}

/// The answer to an accepted command.
#[derive(Debug)]
pub struct Receipt<A: Durable> {
    /// Version of the stream after the command.
    pub version: Version,
    /// Position of its last event; none when the command changed nothing.
    pub position: Option<Position>,
    /// What the command led to.
    pub events: Vec<Arc<A::Event>>,
    /// The state right after it, when it was asked for.
    pub state: Option<Arc<A>>,
}

/// Why a command was not carried out, named by what the caller may do next.
#[derive(Debug)]
pub enum DispatchError<A: Durable> {
    /// The domain says no.
    Rejected(A::Rejection),
    /// The stream is not at the version that the caller named.
    OtherVersion {
        /// Where it is.
        actual: Version,
    },
    /// Too many commands wait. Certainly not carried out.
    Overloaded,
    /// The events exceed what the log takes. Certainly not carried out.
    TooLarge,
    /// The disk is full. Certainly not carried out.
    StorageFull,
    /// The log is read-only. Certainly not carried out.
    ReadOnly,
    /// The log takes no more appends.
    Closed,
    /// Perhaps carried out.
    OutcomeUnknown,
    /// The stream cannot be read; the aggregate is out of service.
    Unreadable(RecoveryError),
    /// The aggregate failed too often and is out of service.
    Quarantined,
    /// The aggregate failed while it worked on this. Perhaps carried out.
    Crashed,
}

/// A look at a state.
pub type Glance<A> = Arc<dyn Fn(&A) + Send + Sync>;

/// Asks an actor to carry out a command.
pub struct Execute<A: Durable> {
    /// The wish.
    pub command: A::Command,
    /// Who and why; stored with every event.
    pub metadata: Arc<Metadata>,
    /// Refuse unless the stream is at one of these versions.
    pub if_version: Option<Vec<Version>>,
    /// Whether the receipt shall hold the state.
    pub wants_state: bool,
    /// Looks at the state right after the command, each time that it is decided.
    pub glance: Option<Glance<A>>,
    /// Where the answer goes.
    pub reply: Reply<A>,
}

/// The answer to a command, and where the stream stood: what reads must show before it is passed on. A
/// refusal and a repetition rest on events of others.
pub struct Answer<A: Durable> {
    /// What became of the command.
    pub outcome: Result<Receipt<A>, DispatchError<A>>,
    /// Position of the last event that it rests on.
    pub rests_on: Position,
}

/// Where an answer goes.
pub type Reply<A> = oneshot::Sender<Answer<A>>;

impl<A: Durable> Message for Execute<A> {
    type Result = ();
}

/// Ends an actor that has nothing to do.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retire;

/// Makes an actor panic; only for tests of what happens then.
#[cfg(feature = "testing")]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Sabotage;

/// Told when an actor ends without having been asked to.
pub type OnDeath = Box<dyn FnOnce() + Send>;

enum Phase {
    /// The stream is being read.
    Loading,
    /// Commands are decided.
    Running,
    /// The stream cannot be read.
    Unreadable(RecoveryError),
}

struct Batch<A: Durable> {
    commands: Vec<Execute<A>>,
    events: Vec<NewEvent>,
    answers: Vec<Result<Receipt<A>, DispatchError<A>>>,
    before: Version,
}

/// The actor.
pub struct AggregateActor<A: Durable> {
    id: A::Id,
    stream: StreamId,
    around: Arc<Surroundings>,
    phase: Phase,
    /// Shared with the receipts of those who asked for it.
    state: Option<Arc<A>>,
    version: Version,
    /// The version of its newest snapshot.
    kept: Version,
    /// Where the last event that the log has of it stands.
    position: Position,
    waiting: VecDeque<Execute<A>>,
    in_flight: bool,
    conflicts: u32,
    on_death: Option<OnDeath>,
}

impl<A: Durable> AggregateActor<A> {
    /// An actor that will read its stream first, unless the stream is known to be `new`.
    pub fn new(id: A::Id, stream: StreamId, around: Arc<Surroundings>, new: bool, on_death: OnDeath) -> Self {
        Self {
            id,
            stream,
            around,
            phase: if new { Phase::Running } else { Phase::Loading },
            state: None,
            version: Version::NONE,
            kept: Version::NONE,
            position: Position::default(),
            waiting: VecDeque::new(),
            in_flight: false,
            conflicts: 0,
            on_death: Some(on_death),
        }
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Loading;
        let (around, stream) = (Arc::clone(&self.around), self.stream.clone());
        let reading = async move {
            // An append of this actor, or of one before it that died or was sent to rest while the log took
            // its time, may still be queued: what is read before it is decided would be stale.
            around.log.head().await?;
            let kept = recall::<A>(around.keeper.as_deref(), &*around.log, &stream).await;
            let version = kept.version;
            Ok((version, recover::<A>(&*around.log, &stream, kept, &|_| true).await?))
        };
        ctx.spawn(reading.into_actor(self).map(|outcome, actor, ctx| actor.loaded(outcome, ctx)));
    }

    fn loaded(&mut self, outcome: Result<(Version, Recovered<A>), RecoveryError>, ctx: &mut Context<Self>) {
        match outcome {
            Ok((kept, recovered)) => {
                self.kept = kept;
                (self.state, self.version) = (recovered.state.map(Arc::new), recovered.version);
                self.position = recovered.position;
                self.phase = Phase::Running;
                self.pump(ctx);
            }
            Err(fault) => {
                tracing::error!(stream = %self.stream, fault = %fault, "stream cannot be read");
                for waiting in self.waiting.drain(..) {
                    refuse(waiting, DispatchError::Unreadable(fault.clone()));
                }
                self.phase = Phase::Unreadable(fault);
            }
        }
    }

    /// Leaves a snapshot, if the stream has grown long enough for one. A state that may run ahead of the log
    /// is none.
    fn keep(&mut self) {
        let Some(keeper) = self.around.keeper.clone().filter(|_| !self.in_flight) else { return };
        if let (Phase::Running, Some(state)) = (&self.phase, self.state.take())
            && keeper.is_worth(self.kept, self.version)
        {
            let (log, stream, version) = (Arc::clone(&self.around.log), self.stream.clone(), self.version);
            let now = self.around.clock.now();
            actix::spawn(async move { keeper.keep(&*log, &stream, state, version, now).await });
        }
    }

    /// Decides everything that waits, unless an append is in flight.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        while matches!(self.phase, Phase::Running) && !self.in_flight && !self.waiting.is_empty() {
            let batch = self.decide_waiting();
            if batch.events.is_empty() {
                answer(batch.commands, batch.answers, self.position);
            } else {
                self.append(batch, ctx);
            }
        }
    }

    fn decide_waiting(&mut self) -> Batch<A> {
        let before = self.version;
        let mut batch = Batch { commands: Vec::new(), events: Vec::new(), answers: Vec::new(), before };
        let mut bytes = 0;
        while batch.commands.len() < BATCH_COMMANDS_MAX
            && batch.events.len() < BATCH_EVENTS_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(execute) = self.waiting.pop_front()
        {
            let decided = batch.events.len();
            let answer = self.decide(&execute, &mut batch.events);
            bytes += batch.events[decided..].iter().map(|event| event.body.len()).sum::<usize>();
            batch.commands.push(execute);
            batch.answers.push(answer);
        }
        // Most actors get one command and then rest: they need not keep room for more.
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        batch
    }

    /// Decides one command and folds what follows, ahead of the log.
    fn decide(
        &mut self,
        execute: &Execute<A>,
        events: &mut Vec<NewEvent>,
    ) -> Result<Receipt<A>, DispatchError<A>> {
        let others = |versions: &Vec<Version>| !versions.contains(&self.version);
        // What does not exist has no version: that it does not is what the domain says.
        if self.state.is_some() && execute.if_version.as_ref().is_some_and(others) {
            return Err(DispatchError::OtherVersion { actual: self.version });
        }
        let now = self.around.clock.now();
        let given = Given { now, world: &self.around.world };
        let decided = A::decide(self.state.as_deref(), &self.id, &execute.command, &given);
        let decided = decided.map_err(DispatchError::Rejected)?;
        let decided: Vec<Arc<A::Event>> = decided.into_iter().map(Arc::new).collect();
        events.append(&mut new_events::<A>(&decided, &execute.metadata, now)?);
        if !decided.is_empty() {
            let before = self.state.take().map(Arc::unwrap_or_clone);
            let after = decided.iter().fold(before, |state, event| A::evolve(state, event, now));
            self.state = after.map(Arc::new);
        }
        for _ in &decided {
            self.version = self.version.next();
        }
        if let (Some(glance), Some(state)) = (&execute.glance, &self.state) {
            glance(state);
        }
        let state = self.state.clone().filter(|_| execute.wants_state);
        Ok(Receipt { version: self.version, position: None, events: decided, state })
    }

    fn append(&mut self, mut batch: Batch<A>, ctx: &mut Context<Self>) {
        self.in_flight = true;
        let events = std::mem::take(&mut batch.events);
        let append = Append { stream: self.stream.clone(), expected: Expected::Exact(batch.before), events };
        let around = Arc::clone(&self.around);
        let appending = async move { around.log.append(append).await };
        ctx.spawn(appending.into_actor(self).map(|outcome, actor, ctx| actor.appended(outcome, batch, ctx)));
    }

    fn appended(&mut self, outcome: Result<Head, AppendError>, mut batch: Batch<A>, ctx: &mut Context<Self>) {
        self.in_flight = false;
        match outcome {
            Ok(head) => {
                self.conflicts = 0;
                self.position = head.position;
                for receipt in batch.answers.iter_mut().flatten() {
                    receipt.position = Some(head.position);
                }
                answer(batch.commands, batch.answers, head.position);
                self.pump(ctx);
            }
            Err(AppendError::Conflict { actual }) if self.conflicts < CONFLICTS_MAX => {
                self.conflicts += 1;
                tracing::warn!(stream = %self.stream, %actual, "conflict, deciding again");
                for execute in batch.commands.into_iter().rev() {
                    self.waiting.push_front(execute);
                }
                self.load(ctx);
            }
            Err(fault) => {
                if fault == (AppendError::Refused { reason: events::Refusal::StorageFull }) {
                    let commands = batch.commands.len();
                    tracing::warn!(stream = %self.stream, commands, "refused for want of space");
                }
                for execute in batch.commands {
                    refuse(execute, dispatch_error(&fault));
                }
                // What was folded ahead of the log is discarded: the log is asked what happened.
                self.conflicts = 0;
                self.load(ctx);
            }
        }
    }
}

/// Encodes what was decided; what was encoded travels along.
fn new_events<A: Durable>(
    decided: &[Arc<A::Event>],
    metadata: &Arc<Metadata>,
    now: Timestamp,
) -> Result<Vec<NewEvent>, DispatchError<A>> {
    let mut events = Vec::with_capacity(decided.len());
    let bytes = if decided.is_empty() { Bytes::new() } else { metadata.encode() };
    for event in decided {
        let Encoded { name, schema, body } = A::encode(event).map_err(|_| DispatchError::TooLarge)?;
        events.push(NewEvent {
            id: EventId::new(Uuid::now_v7()),
            name: name.into(),
            schema,
            time_us: now.as_micros(),
            metadata: bytes.clone(),
            body,
            // Metadata that cannot be stored is lost for every reader.
            beside: if bytes.is_empty() { Beside::NONE } else { beside::<A>(event, metadata) },
        });
    }
    Ok(events)
}

fn answer<A: Durable>(
    commands: Vec<Execute<A>>,
    answers: Vec<Result<Receipt<A>, DispatchError<A>>>,
    rests_on: Position,
) {
    for (execute, outcome) in commands.into_iter().zip(answers) {
        // Whoever asked may be gone; what was done stays done.
        let _ = execute.reply.send(Answer { outcome, rests_on });
    }
}

/// Answers that a command was not, or perhaps not, decided: that rests on nothing.
fn refuse<A: Durable>(execute: Execute<A>, fault: DispatchError<A>) {
    let _ = execute.reply.send(Answer { outcome: Err(fault), rests_on: Position::default() });
}

fn dispatch_error<A: Durable>(fault: &AppendError) -> DispatchError<A> {
    match fault {
        AppendError::Overloaded | AppendError::Conflict { .. } => DispatchError::Overloaded,
        AppendError::Refused { reason: events::Refusal::StorageFull } => DispatchError::StorageFull,
        AppendError::Refused { reason: events::Refusal::ReadOnly } => DispatchError::ReadOnly,
        AppendError::Refused { .. } => DispatchError::TooLarge,
        AppendError::OutcomeUnknown => DispatchError::OutcomeUnknown,
        AppendError::Closed => DispatchError::Closed,
    }
}

impl<A: Durable> Actor for AggregateActor<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(WAITING_MAX);
        if matches!(self.phase, Phase::Loading) {
            self.load(ctx);
        }
    }
}

impl<A: Durable> Handler<Execute<A>> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, execute: Execute<A>, ctx: &mut Context<Self>) {
        if let Phase::Unreadable(fault) = &self.phase {
            refuse(execute, DispatchError::Unreadable(fault.clone()));
        } else if self.waiting.len() >= WAITING_MAX {
            refuse(execute, DispatchError::Overloaded);
        } else {
            self.waiting.push_back(execute);
            self.pump(ctx);
        }
    }
}

impl<A: Durable> Handler<Retire> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Context<Self>) {
        self.on_death = None;
        self.keep();
        ctx.stop();
    }
}

#[cfg(feature = "testing")]
impl<A: Durable> Handler<Sabotage> for AggregateActor<A> {
    type Result = ();

    #[allow(clippy::panic, reason = "this is what the message is for")]
    fn handle(&mut self, _: Sabotage, _: &mut Context<Self>) {
        panic!("sabotage");
    }
}

impl<A: Durable> Drop for AggregateActor<A> {
    fn drop(&mut self) {
        if let Some(on_death) = self.on_death.take() {
            on_death();
        }
    }
}
