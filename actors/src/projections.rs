//! The views, folded from the log as it grows. One actor writes them; everybody reads them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, StreamHandler};
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::step::Run;
use domain::operation::{Event as OperationEvent, Operation};
use domain::views::ended::block::Block;
use domain::views::{Stamp, Views};
use domain::{AgentId, AgentRoll, Aggregate, LaneId, LeaseId, OperationId, Timestamp, presence, work};
use events::{EventLog, Position, ReadError, Recorded};
use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::aggregate_actor::Surroundings;
use crate::clock::Clock;
use crate::codec::{CodecError, KeyUse, Metadata, understood};
use crate::effects::Periods;
use crate::keys::Keys;
use crate::past::Past;
use crate::reached::Reached;
use crate::standing::Standing;
use crate::supervisor::{Supervisor, Vital};

/// Events folded under one lock.
const CHUNK: usize = 256;

/// What changed since the dispatcher last looked. Bounded by the number of aggregates and of steps.
#[derive(Debug, Default)]
pub struct Changes {
    /// Operations with new facts, and the positions of their steps that were moved by them.
    pub operations: BTreeMap<OperationId, BTreeSet<usize>>,
    /// Agents with new facts of their own.
    pub agents: BTreeSet<AgentId>,
    /// Agents whose leases changed.
    pub holders: BTreeSet<AgentId>,
    /// Lanes with new facts.
    pub lanes: BTreeSet<LaneId>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.operations.is_empty()
            && self.agents.is_empty()
            && self.holders.is_empty()
            && self.lanes.is_empty()
    }

    /// The same in parts of at most so many aggregates: lanes and agents first.
    pub(crate) fn parts(self, max: usize) -> impl Iterator<Item = Self> {
        let lanes = self.lanes.into_iter().map(|id| Self { lanes: [id].into(), ..Self::default() });
        let agents = self.agents.into_iter().map(|id| Self { agents: [id].into(), ..Self::default() });
        let holders = self.holders.into_iter().map(|id| Self { holders: [id].into(), ..Self::default() });
        let operations = self.operations.into_iter();
        let operations = operations.map(|entry| Self { operations: [entry].into(), ..Self::default() });
        let mut rest = lanes.chain(agents).chain(holders).chain(operations).peekable();
        std::iter::from_fn(move || {
            rest.peek()?;
            Some(rest.by_ref().take(max).fold(Self::default(), Self::and))
        })
    }

    fn and(mut self, more: Self) -> Self {
        for (id, moved) in more.operations {
            self.operations.entry(id).or_default().extend(moved);
        }
        self.agents.extend(more.agents);
        self.holders.extend(more.holders);
        self.lanes.extend(more.lanes);
        self
    }
}

/// Why the core cannot go on: the process must stop.
#[derive(Clone, Debug, Error)]
pub enum Fault {
    /// The log cannot be read.
    #[error(transparent)]
    Log(ReadError),
    /// An actor that all depend on has ended, which is a bug.
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// The views and who waits for them.
pub struct Projected {
    /// What lists and the dispatcher look at.
    pub views: RwLock<Views>,
    /// Idempotency keys.
    pub keys: Mutex<Keys>,
    reached: Reached,
    /// The highest position that anything which left the server rests on.
    answered: AtomicU64,
    /// The longest wait of a request for the views.
    patience: Duration,
    /// How many events were folded, with those of the snapshot that it began with.
    events: AtomicU64,
    fault: watch::Sender<Option<Fault>>,
    /// While it is set, the views follow the log no further; only for tests of what happens then.
    #[cfg(feature = "testing")]
    held: std::sync::atomic::AtomicBool,
    changes: Mutex<Changes>,
    changed: Notify,
    watchers: Mutex<HashMap<OperationId, Arc<Notify>>>,
}

impl Default for Projected {
    fn default() -> Self {
        Self {
            views: RwLock::default(),
            keys: Mutex::default(),
            reached: Reached::default(),
            answered: AtomicU64::new(0),
            patience: Duration::from_millis(Periods::default().views_wait_ms),
            events: AtomicU64::new(0),
            fault: watch::Sender::new(None),
            #[cfg(feature = "testing")]
            held: std::sync::atomic::AtomicBool::default(),
            changes: Mutex::default(),
            changed: Notify::new(),
            watchers: Mutex::default(),
        }
    }
}

impl Projected {
    /// What was folded before, to be gone on with.
    #[must_use]
    pub fn from(standing: Standing) -> Self {
        let Standing { past: Past { views, position, events, .. }, keys } = standing;
        let projected = Self { views: RwLock::new(views), keys: Mutex::new(keys), ..Self::default() };
        projected.events.store(events, Ordering::Relaxed);
        projected.reached.advance(position);
        projected
    }

    /// The same views, for which requests wait no longer than this.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Operations that are over, as the views share them with looks at other moments.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        self.views.read().operations.blocks().to_vec()
    }

    /// How many events were folded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Where the views stand.
    #[must_use]
    pub fn position(&self) -> Position {
        self.reached.position()
    }

    /// Waits until the views have reached a position. False when they have not within the deadline.
    pub async fn reached(&self, position: Position, deadline: Duration) -> bool {
        self.reached.wait_for(position, deadline).await
    }

    /// Notes that something rests on this position. To be called before it leaves the server: from then on
    /// every request that looks at the views waits until they have reached it.
    pub fn raise_answered(&self, position: Position) {
        self.answered.fetch_max(position.get(), Ordering::SeqCst);
    }

    /// The highest position that anything which left the server rests on. The views may not have reached it.
    #[must_use]
    pub fn answered(&self) -> Position {
        Position::new(self.answered.load(Ordering::SeqCst)).max(self.position())
    }

    /// Waits until the views show a position, for as long as a request may wait. False when they do not.
    pub async fn shows(&self, position: Position) -> bool {
        self.reached.wait_for(position, self.patience).await
    }

    /// Why the core cannot go on, once that has happened.
    #[must_use]
    pub fn fault(&self) -> watch::Receiver<Option<Fault>> {
        self.fault.subscribe()
    }

    /// The core cannot go on; the first fault is the one that is told.
    pub fn fail(&self, fault: Fault) {
        self.fault.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert(fault);
            first
        });
    }

    /// Waits until something has changed that nobody has taken.
    pub async fn changed(&self) {
        while self.changes.lock().is_empty() {
            self.changed.notified().await;
        }
    }

    /// Takes what has changed, without waiting.
    #[must_use]
    pub fn changes_now(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock())
    }

    /// Is notified of every later change of an operation. Drop it to stop watching.
    #[must_use]
    pub fn watch(self: &Arc<Self>, operation: &OperationId) -> Watch {
        let notify = Arc::clone(self.watchers.lock().entry(operation.clone()).or_default());
        Watch { projected: Arc::clone(self), operation: operation.clone(), notify }
    }

    /// Holds the views where they are, or lets them go on; only for tests of what happens then.
    #[cfg(feature = "testing")]
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    fn fold(&self, chunk: &[Arc<Recorded>]) {
        let mut touched = Changes::default();
        let mut views = self.views.write();
        for recorded in chunk {
            if let Err(fault) = self.fold_one(&mut views, recorded, &mut touched) {
                let (stream, position) = (&recorded.stream, recorded.position.get());
                tracing::error!(%stream, position, %fault, "an event is not understood and not shown");
            }
        }
        self.events.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if let Some(last) = chunk.last() {
            // Before anybody else may look: who reads the views finds the position that they are of.
            self.reached.advance(last.position);
        }
        drop(views);
        self.tell(touched);
    }

    fn fold_one(
        &self,
        views: &mut Views,
        recorded: &Recorded,
        touched: &mut Changes,
    ) -> Result<(), CodecError> {
        let Some(applied) = apply(views, recorded)? else { return Ok(()) };
        if let Some(key) = applied.key {
            key.note(&mut self.keys.lock(), recorded);
        }
        match applied.about {
            About::Operation(id, agent) => {
                touched.holders.extend(agent);
                let run = views.operations.get(&id).and_then(|row| row.run.as_ref());
                let moved = run.map_or(&[][..], Run::moved);
                touched.operations.entry(id).or_default().extend(moved);
            }
            About::Agent(id) => _ = touched.agents.insert(id),
            About::Lane(id) => _ = touched.lanes.insert(id),
        }
        Ok(())
    }

    fn tell(&self, touched: Changes) {
        let watchers = self.watchers.lock();
        for id in touched.operations.keys() {
            if let Some(notify) = watchers.get(id) {
                notify.notify_waiters();
            }
        }
        drop(watchers);
        let mut changes = self.changes.lock();
        for (id, moved) in touched.operations {
            changes.operations.entry(id).or_default().extend(moved);
        }
        changes.agents.extend(touched.agents);
        changes.holders.extend(touched.holders);
        changes.lanes.extend(touched.lanes);
        drop(changes);
        self.changed.notify_one();
    }
}

/// What came of an event.
pub(crate) struct Applied {
    about: About,
    /// The key that its request was made with. A creation's is found by the operation's id, not in the index.
    pub(crate) key: Option<KeyNote>,
}

/// What an event was about.
enum About {
    /// And the agent whose leases changed, if there is one.
    Operation(OperationId, Option<AgentId>),
    Agent(AgentId),
    Lane(LaneId),
}

/// A use of an idempotency key.
pub(crate) struct KeyNote {
    key: KeyUse,
    lease: Option<LeaseId>,
}

impl KeyNote {
    /// Folds it into the index.
    pub(crate) fn note(self, keys: &mut Keys, recorded: &Recorded) {
        let at = Timestamp::from_micros(recorded.time_us);
        keys.add(self.key, &recorded.stream, recorded.version.get(), self.lease, at);
    }
}

/// Folds one event into views; none when they do not show its kind.
pub(crate) fn apply(views: &mut Views, recorded: &Recorded) -> Result<Option<Applied>, CodecError> {
    let at = Timestamp::from_micros(recorded.time_us);
    let id = recorded.stream.id();
    let stamp = Stamp { revision: recorded.version.get(), position: recorded.position.get(), at };
    let keyed = |metadata: &Metadata, lease| metadata.key.map(|key| KeyNote { key, lease });
    Ok(match recorded.stream.category() {
        Operation::CATEGORY => {
            let Ok(id) = id.parse::<OperationId>() else { return Ok(None) };
            let (event, metadata) = understood::<Operation>(recorded)?;
            let agent = views.apply_operation(&id, &event, stamp);
            let key = match &*event {
                OperationEvent::Created(_) => None,
                OperationEvent::StepReserved(reserved) => keyed(&metadata, Some(reserved.lease_id.clone())),
                _ => keyed(&metadata, None),
            };
            Some(Applied { about: About::Operation(id, agent), key })
        }
        Agent::CATEGORY => {
            let Ok(id) = id.parse::<AgentId>() else { return Ok(None) };
            let (event, metadata) = understood::<Agent>(recorded)?;
            views.apply_agent(&id, &event, stamp);
            Some(Applied { about: About::Agent(id), key: keyed(&metadata, None) })
        }
        Lane::CATEGORY => {
            let Ok(id) = id.parse::<LaneId>() else { return Ok(None) };
            let (event, metadata) = understood::<Lane>(recorded)?;
            views.lanes.apply(&id, &event, at);
            Some(Applied { about: About::Lane(id), key: keyed(&metadata, None) })
        }
        work::CATEGORY => {
            let Ok(id) = id.parse::<AgentId>() else { return Ok(None) };
            views.apply_work(&id, &understood::<work::Event>(recorded)?.0);
            None
        }
        presence::CATEGORY => {
            views.apply_presence(&understood::<presence::Event>(recorded)?.0, stamp);
            None
        }
        _ => None,
    })
}

impl AgentRoll for Projected {
    fn is_registered(&self, agent: &AgentId) -> bool {
        self.views.read().agents.get(agent).is_some()
    }
}

/// A watch over one operation.
pub struct Watch {
    projected: Arc<Projected>,
    operation: OperationId,
    notify: Arc<Notify>,
}

impl Watch {
    /// Completes at the next change after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut notified = Box::pin(self.notify.notified());
        // Enabled at once, so that a change between this call and the first poll is not missed.
        notified.as_mut().enable();
        notified
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.projected.watchers.lock();
        // Two are left when nobody else watches: this one and the map's.
        if Arc::strong_count(&self.notify) <= 2 {
            watchers.remove(&self.operation);
        }
    }
}

/// The actor that folds the log into the views.
pub struct Projections {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    projected: Arc<Projected>,
    vital: Vital,
}

impl Projections {
    /// One that has not begun.
    #[must_use]
    pub fn new(around: &Surroundings, projected: &Arc<Projected>, supervisor: &Arc<Supervisor>) -> Self {
        Self {
            log: Arc::clone(&around.log),
            clock: Arc::clone(&around.clock),
            projected: Arc::clone(projected),
            vital: Vital::new("projections", projected, supervisor),
        }
    }
}

impl Actor for Projections {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let chunks = self.log.tail(self.projected.position()).ready_chunks(CHUNK);
        #[cfg(feature = "testing")]
        let chunks = chunks.then({
            let projected = Arc::clone(&self.projected);
            move |chunk| while_held(Arc::clone(&projected), chunk)
        });
        ctx.add_stream(chunks);
    }
}

#[cfg(feature = "testing")]
async fn while_held<T>(projected: Arc<Projected>, chunk: T) -> T {
    while projected.held.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    chunk
}

impl StreamHandler<Vec<Result<Arc<Recorded>, ReadError>>> for Projections {
    fn handle(&mut self, chunk: Vec<Result<Arc<Recorded>, ReadError>>, ctx: &mut Context<Self>) {
        let mut recorded = Vec::with_capacity(chunk.len());
        let mut fault = None;
        for item in chunk {
            match item {
                Ok(event) => recorded.push(event),
                Err(error) => fault = Some(error),
            }
        }
        if let Some(last) = recorded.last() {
            self.clock.raise_to(Timestamp::from_micros(last.time_us));
            self.projected.fold(&recorded);
        }
        match fault {
            None => {}
            Some(ReadError::Closed) => {
                self.vital.may_end();
                ctx.stop();
            }
            Some(fault) => {
                tracing::error!(%fault, "the views follow the log no more");
                self.projected.fail(Fault::Log(fault));
                ctx.stop();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
