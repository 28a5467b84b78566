//! The past: aggregates and views as they stood at a position or a time, folded from the log alone. It asks
//! no actor, changes nothing, and does one look at the whole log at a time.

use std::sync::Arc;
use std::time::Duration;

use domain::operation::Operation;
use domain::operation::definition::Priority;
use domain::operation::step::Status;
use domain::views::Views;
use domain::views::ended::block::Block;
use domain::views::listing::Order;
use domain::views::operation_board::Place;
use domain::{AgentId, OperationId, Timestamp};
use events::{EventLog, Position, ReadError, Recorded, Since, StreamId, Version};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::codec::{CodecError, Durable};
use crate::core::Core;
use crate::gateway::stream_of;
use crate::own_thread::{self, ThreadError};
use crate::projections::{Applied, apply};
use crate::recovery::{Recovered, RecoveryError, recover, walk};

/// Differences that a comparison names.
const DIFFERENCES_MAX: usize = 100;
/// Rows that are compared under one lock, so that nobody waits long for the views.
const CHUNK: usize = 256;

/// Aggregates of which the past is folded at once; further requests wait.
const FOLDS_MAX: usize = 4;

/// How long the last look is kept.
const KEPT: Duration = Duration::from_secs(60);

/// Form of the state that hashes are of: rises when a field of it comes, goes or means something else.
pub const STATE_FORM: u32 = 2;

/// Where a look at the past ends; what lies there still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A place in the whole log.
    Position(Position),
    /// A moment. Times never fall along the log, so it cuts the log in two.
    Time(Timestamp),
}

impl Cut {
    /// Whether an event had happened by then.
    #[must_use]
    pub fn admits(self, recorded: &Recorded) -> bool {
        match self {
            Self::Position(position) => recorded.position <= position,
            Self::Time(time) => Timestamp::from_micros(recorded.time_us) <= time,
        }
    }
}

/// The views as they stood.
#[derive(Debug, Default)]
pub struct Past {
    /// What lists and dashboards look at.
    pub views: Views,
    /// Position of the last event that counts.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// How many events count.
    pub events: u64,
}

/// One aggregate as it stands, or stood.
#[derive(Clone, Debug)]
pub struct Seen<A> {
    /// Its state.
    pub state: Arc<A>,
    /// Its revision.
    pub revision: u64,
    /// Whatever happened to it up to there is in the state, and nothing that happened later.
    pub position: Position,
    /// The moment that is looked at; of a position, when the last fact before it happened.
    pub time: Timestamp,
}

/// Why there is no look at the past.
#[derive(Debug, Error)]
pub enum PastError {
    /// Somebody else looks; it takes seconds.
    #[error("another look at the past is under way")]
    Busy,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The look itself failed, which is a bug.
    #[error("the look ended early: {0}")]
    Ended(#[from] ThreadError),
}

/// What a comparison of the past with the present found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Aggregates that have not moved on since, and were compared.
    pub compared: u64,
    /// Aggregates that have a later revision now.
    pub moved_on: u64,
    /// Streams that differ without having moved on, at most a hundred of them.
    pub differing: Vec<String>,
}

/// Keeps the last look that is the same for ever, since a list is read page by page.
pub(crate) struct Pasts {
    permit: Arc<Semaphore>,
    /// Aggregates that are folded at once, each with all that it holds.
    folds: Semaphore,
    last: Mutex<Option<(Cut, Arc<Past>)>>,
}

impl Default for Pasts {
    fn default() -> Self {
        let (permit, folds) = (Arc::new(Semaphore::new(1)), Semaphore::new(FOLDS_MAX));
        Self { permit, folds, last: Mutex::new(None) }
    }
}

impl Pasts {
    /// Keeps a look for a while.
    fn keep(self: &Arc<Self>, cut: Cut, past: &Arc<Past>, runtime: &Handle) {
        *self.last.lock() = Some((cut, Arc::clone(past)));
        let (pasts, shown) = (Arc::clone(self), Arc::downgrade(past));
        runtime.spawn(async move {
            tokio::time::sleep(KEPT).await;
            let mut last = pasts.last.lock();
            if last.as_ref().is_some_and(|(_, kept)| std::ptr::eq(Arc::as_ptr(kept), shown.as_ptr())) {
                *last = None;
            }
        });
    }
}

impl Core {
    /// One operation as it stands. None when there is none.
    ///
    /// # Errors
    /// When its stream cannot be read.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<Seen<Operation>>, RecoveryError> {
        let (row, position) = {
            let views = self.projected.views.read();
            // While they are held it stands still.
            (views.operations.find(id).map(|row| row.revision), self.projected.position())
        };
        let Some(revision) = row else { return Ok(None) };
        let state = self.reader.at(id, revision).await?;
        let time = self.around.clock.now();
        Ok(state.map(|state| Seen { state, revision, position, time }))
    }

    /// One aggregate as it stood. None when it did not exist yet.
    ///
    /// # Errors
    /// When its stream cannot be read.
    pub async fn aggregate_at<A: Durable>(
        &self,
        id: &A::Id,
        cut: Cut,
    ) -> Result<Option<Seen<A>>, RecoveryError> {
        let (log, stream) = (&*self.around.log, stream_of::<A>(id));
        // It is never closed.
        let _permit = self.pasts.folds.acquire().await;
        let recovered =
            recover::<A>(log, &stream, Recovered::default(), &|recorded| cut.admits(recorded)).await?;
        let position = match cut {
            Cut::Position(position) => position,
            Cut::Time(_) => recovered.position,
        };
        let revision = recovered.version.get();
        let time = match cut {
            Cut::Position(_) => self.time_of(&stream, revision).await?.unwrap_or_default(),
            Cut::Time(time) => time.min(self.around.clock.now()),
        };
        // The log may be further than the views.
        self.projected.raise_answered(recovered.position);
        Ok(recovered.state.map(|state| Seen { state: Arc::new(state), revision, position, time }))
    }

    /// When the event of this version of a stream happened. None when there is none.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub async fn time_of(&self, stream: &StreamId, version: u64) -> Result<Option<Timestamp>, RecoveryError> {
        let before = Since::Version(Version::new(version.saturating_sub(1)));
        let event = self.around.log.read(stream, before).next().await.transpose()?;
        Ok(event.map(|event| Timestamp::from_micros(event.time_us)))
    }

    /// The views as they stood, folded from the beginning of the log.
    ///
    /// # Errors
    /// When somebody else looks, or the log cannot be read.
    pub async fn past(&self, cut: Cut) -> Result<Arc<Past>, PastError> {
        let past = match self.kept(cut) {
            Some(kept) => kept,
            None => self.past_beside(cut, self.projected.blocks()).await?,
        };
        self.projected.raise_answered(past.position);
        Ok(past)
    }

    /// The same, from the log as it is now: for a comparison with it, what was read before proves nothing.
    ///
    /// # Errors
    /// As [`Core::past`].
    pub async fn past_anew(&self, cut: Cut) -> Result<Arc<Past>, PastError> {
        self.past_beside(cut, Vec::new()).await
    }

    /// The same beside blocks that are in memory anyway: those that the fold comes to as well are shared.
    async fn past_beside(&self, cut: Cut, blocks: Vec<Block>) -> Result<Arc<Past>, PastError> {
        let permit = Arc::clone(&self.pasts.permit).try_acquire_owned().map_err(|_| PastError::Busy)?;
        let (log, pasts) = (Arc::clone(&self.around.log), Arc::clone(&self.pasts));
        // Folding is work: it must not keep the thread of the requests. Who asked may be gone before it is
        // done; the permit is given back when it is, and what was found is kept for who asks again.
        let runtime = Handle::current();
        let folding = own_thread::run("past", move || async move {
            let _permit = permit;
            let (past, met_a_later_event) = Past::look(&*log, cut, &blocks).await?;
            let past = Arc::new(past);
            if met_a_later_event || matches!(cut, Cut::Position(_)) {
                pasts.keep(cut, &past, &runtime);
            }
            Ok(past)
        });
        folding.await?
    }

    /// The last look, if it is the same.
    fn kept(&self, cut: Cut) -> Option<Arc<Past>> {
        let last = self.pasts.last.lock();
        last.as_ref().filter(|(kept, _)| *kept == cut).map(|(_, past)| Arc::clone(past))
    }

    /// Compares the past with the present, aggregate by aggregate; those that moved on are only counted.
    #[must_use]
    pub fn compare(&self, past: &Past) -> Comparison {
        let mut found = Comparison::default();
        let mut operations = past.views.operations.rows(Order::OldestFirst, None);
        loop {
            let rows: Vec<_> = operations.by_ref().take(CHUNK).collect();
            if rows.is_empty() {
                break;
            }
            let views = self.projected.views.read();
            for (id, then) in &rows {
                let now = views.operations.find(id);
                let moved = has_moved_on(Some(then.revision), now.as_ref().map(|row| row.revision));
                let equal = || now.is_some_and(|now| hash(then) == hash(&*now));
                found.note(moved, equal, || format!("operation/{id}"));
            }
        }
        self.phantoms(past, &mut found);
        let agents: Vec<&AgentId> = past.views.agents.all().map(|(id, _)| id).collect();
        for ids in agents.chunks(CHUNK) {
            let views = self.projected.views.read();
            for id in ids {
                let (then, now) = (past.views.agents.ever(id), views.agents.ever(id));
                let moved = has_moved_on(then.map(|row| row.position), now.map(|row| row.position));
                found.note(moved, || hash(&then) == hash(&now), || format!("agent/{id}"));
            }
        }
        self.whole(past, &mut found);
        found
    }

    /// What has no revision can only be compared while nothing has happened since.
    fn whole(&self, past: &Past, found: &mut Comparison) {
        let (then, now) = (&past.views, self.projected.views.read());
        if self.projected.position() != past.position {
            return;
        }
        let lanes = |views: &Views| hash(&views.lanes.parked(past.time).collect::<Vec<_>>());
        found.differs_unless(lanes(then) == lanes(&now), || "the parked lanes".into());
        let leases = |views: &Views| hash(&views.leases.all().collect::<Vec<_>>());
        found.differs_unless(leases(then) == leases(&now), || "which agent holds which lease".into());
        let open = then.operations.open() == now.operations.open();
        found.differs_unless(open, || "which operations are open".into());
        found.differs_unless(counts(then) == counts(&now), || {
            "how many operations there are by status and priority".into()
        });
    }

    /// Finds operations that are shown and were never created. What was created since comes later.
    fn phantoms(&self, past: &Past, found: &mut Comparison) {
        let mut after: Option<Place> = None;
        loop {
            let views = self.projected.views.read();
            let shown = views.operations.rows(Order::OldestFirst, after.as_ref()).take(CHUNK);
            let shown: Vec<Place> = shown.map(|(id, row)| (row.created_at, id)).collect();
            drop(views);
            for (created_at, id) in &shown {
                if *created_at < past.time && past.views.operations.find(id).is_none() {
                    found.note(false, || false, || format!("operation/{id}"));
                }
            }
            match shown.last() {
                Some(last) if last.0 < past.time => after = Some(last.clone()),
                _ => return,
            }
        }
    }
}

/// How many operations there are of each status and priority.
fn counts(views: &Views) -> Vec<usize> {
    let every = Status::ALL.into_iter().flat_map(|status| Priority::ALL.map(|priority| (status, priority)));
    every.map(|(status, priority)| views.operations.count(status, priority)).collect()
}

/// Whether there is a later revision now. One that has gone, or gone back, has not moved on.
fn has_moved_on(then: Option<u64>, now: Option<u64>) -> bool {
    then < now
}

impl Comparison {
    fn note(&mut self, moved: bool, equal: impl FnOnce() -> bool, name: impl FnOnce() -> String) {
        if moved {
            self.moved_on += 1;
            return;
        }
        self.compared += 1;
        self.differs_unless(equal(), name);
    }

    fn differs_unless(&mut self, equal: bool, name: impl FnOnce() -> String) {
        if !equal && self.differing.len() < DIFFERENCES_MAX {
            self.differing.push(name());
        }
    }
}

/// The hash of what stands: of its canonical JSON, whose fields stand in the order of their declaration and
/// whose maps and sets in the order of their keys.
fn hash(state: &impl Serialize) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    // A hasher takes every byte, and no state has what JSON cannot say.
    let _ = serde_json::to_writer(&mut hasher, state);
    hasher.finalize()
}

impl Past {
    /// Folds the next event of the log.
    ///
    /// # Errors
    /// When it is not understood; it counts all the same, and is not shown, then as now.
    pub fn take(&mut self, recorded: &Recorded) -> Result<(), CodecError> {
        self.apply(recorded).map(drop)
    }

    /// The same, and what it was about.
    pub(crate) fn apply(&mut self, recorded: &Recorded) -> Result<Option<Applied>, CodecError> {
        (self.position, self.time) = (recorded.position, Timestamp::from_micros(recorded.time_us));
        self.events += 1;
        apply(&mut self.views, recorded)
    }

    /// Folds a log from its beginning.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn fold(log: &dyn EventLog, cut: Cut) -> Result<Self, ReadError> {
        Ok(Self::look(log, cut, &[]).await?.0)
    }

    /// The same, and whether an event was met that comes later: without one, more may come that counts.
    async fn look(log: &dyn EventLog, cut: Cut, blocks: &[Block]) -> Result<(Self, bool), ReadError> {
        let (mut past, mut later) = (Self::default(), false);
        past.views.operations.share(blocks);
        walk(log, Position::START, &mut |recorded| {
            later = !cut.admits(recorded);
            if !later {
                // What is not understood is told where the log is followed live.
                let _ = past.take(recorded);
            }
            !later
        })
        .await?;
        Ok((past, later))
    }

    /// One hash for all operations, agents, leases and parked lanes: equal for equal histories, on any
    /// machine.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut all = blake3::Hasher::new();
        let mut take = |name: String, hash: blake3::Hash| {
            all.update(name.as_bytes()).update(hash.as_bytes());
        };
        for (id, row) in self.views.operations.rows(Order::OldestFirst, None) {
            take(format!("operation/{id}"), hash(&*row));
        }
        for (id, row) in self.views.agents.all() {
            take(format!("agent/{id}"), hash(row));
        }
        for (id, lease) in self.views.leases.all() {
            take(format!("lease/{id}"), hash(lease));
        }
        for (id, lane) in self.views.lanes.parked(self.time) {
            take(format!("lane/{id}"), hash(lane));
        }
        all.finalize().to_hex().to_string()
    }
}
