//! Owns which snapshots may be used and when one is taken. Nothing depends on it: what is missing, damaged,
//! of another form or of another log is passed over with a warning, and the log is folded instead.
//!
//! A snapshot of the views is folded in the background, from the one before: the views that are looked at are
//! neither locked nor copied for it.

mod streams;
mod verify;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Timestamp;
use domain::views::Views;
use domain::views::ended::block::Block;
use events::{EventLog, Position, ReadError, Recorded};
use parking_lot::Mutex;
use snapshots::{FileStore, Flaw, Found, Hash, Reader, Stamp, Subject};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::kept::{FORM, keep_all, restore_part};
use crate::keys::Keys;
use crate::own_thread::{self, ThreadError};
use crate::projections::Projected;
use crate::standing::Standing;

pub use streams::recall;
pub use verify::{Verdict, Verified, verify};

/// Streams that wait to be kept; of others none is taken this time.
const WAITING_MAX: usize = 16;

/// When snapshots are taken. 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of the views, after so many events.
    pub every_events: u64,
    /// Of a stream, when its actor rests and so many events came since the last one.
    pub stream_events: u64,
}

/// A snapshot, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Of which stream; none for one of the views.
    pub stream: Option<String>,
    /// Version of that stream.
    pub version: Option<u64>,
    /// Position of the event that it ends with.
    pub position: Position,
    /// How many events were folded into it.
    pub events: u64,
    /// Form of the state.
    pub form: u32,
    /// Hash of the state, in hexadecimal digits.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
}

impl Taken {
    fn of(stamp: &Stamp, hash: Hash, bytes: u64) -> Self {
        let stream = match &stamp.subject {
            Subject::Views => None,
            Subject::Stream(name) => Some(name.clone()),
        };
        Self {
            version: stream.is_some().then_some(stamp.version),
            stream,
            position: Position::new(stamp.position),
            events: stamp.events,
            form: stamp.form,
            hash: blake3::Hash::from_bytes(hash).to_hex().to_string(),
            bytes,
            taken_at: Timestamp::from_micros(stamp.taken_at_us),
        }
    }
}

/// Why no snapshot was taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// One is being taken.
    #[error("a snapshot is being taken")]
    Busy,
    /// There is hardly any space left, and the log needs it.
    #[error("there is not enough space for a snapshot")]
    NoRoom,
    /// The log holds no event.
    #[error("there is nothing to take a snapshot of")]
    Empty,
    /// The server is about to stop.
    #[error("the server is about to stop")]
    Stopping,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk did not take it, or the state does not fit into one.
    #[error("the snapshot cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The work itself failed, which is a bug.
    #[error("the snapshot ended early: {0}")]
    Ended(#[from] ThreadError),
}

impl From<String> for TakeError {
    fn from(reason: String) -> Self {
        Self::Io(io::Error::other(reason))
    }
}

/// Keeps snapshots of one log.
pub struct Keeper {
    store: FileStore,
    policy: Policy,
    room: Box<dyn Fn() -> bool + Send + Sync>,
    taking: Semaphore,
    stopping: AtomicBool,
    /// How many events the newest one of the views has.
    newest: Mutex<u64>,
    queue: Semaphore,
    writing: tokio::sync::Mutex<()>,
    listing: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// A keeper over a store. `room` says whether there is space for a snapshot, beside what the log needs.
    #[must_use]
    pub fn new(
        store: FileStore,
        policy: Policy,
        room: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            policy,
            room: Box::new(room),
            taking: Semaphore::new(1),
            stopping: AtomicBool::new(false),
            newest: Mutex::new(0),
            queue: Semaphore::new(WAITING_MAX),
            writing: tokio::sync::Mutex::new(()),
            listing: tokio::sync::Mutex::new(()),
        })
    }

    /// What the newest snapshot of the views holds that is whole and of this log; nothing when there is none.
    pub async fn newest(self: &Arc<Self>, log: &Arc<dyn EventLog>) -> Standing {
        let (keeper, log) = (Arc::clone(self), Arc::clone(log));
        let reading =
            own_thread::run("snapshot-reader", move || async move { keeper.newest_of(&*log, &[]).await });
        let standing = reading.await.unwrap_or_else(|fault| {
            tracing::error!(%fault, "the snapshots were not read, the log is folded from its beginning");
            Standing::default()
        });
        *self.newest.lock() = standing.past.events;
        standing
    }

    async fn newest_of(&self, log: &dyn EventLog, blocks: &[Block]) -> Standing {
        let found = match self.store.views() {
            Ok(found) => found,
            Err(fault) => {
                tracing::warn!(%fault, "the snapshots cannot be looked at");
                return Standing::default();
            }
        };
        for Found { name, opened } in found {
            let restored = match opened {
                Ok(reader) => restored(reader, log, blocks).await,
                Err(flaw) => Err(flaw),
            };
            match restored {
                Ok(standing) => return standing,
                Err(flaw) => tracing::warn!(snapshot = name, %flaw, "a snapshot is passed over"),
            }
        }
        Standing::beside(blocks)
    }

    /// Takes one of the views, of all that the log holds now. What came since the last is folded in the
    /// background, beside blocks of ended operations that are in memory anyway: equal ones are shared.
    ///
    /// # Errors
    /// When none was taken.
    pub async fn take(
        self: &Arc<Self>,
        log: &Arc<dyn EventLog>,
        blocks: Vec<Block>,
        now: Timestamp,
    ) -> Result<Taken, TakeError> {
        if !(self.room)() {
            return Err(TakeError::NoRoom);
        }
        let end = log.head().await?;
        let (keeper, log) = (Arc::clone(self), Arc::clone(log));
        // The permit goes with the work, which is not given up when whoever asked has gone.
        let taking = own_thread::run("snapshot-writer", move || async move {
            let _permit = keeper.taking.try_acquire().map_err(|_| TakeError::Busy)?;
            keeper.fold_and_take(&*log, &blocks, end, now).await
        });
        taking.await?
    }

    async fn fold_and_take(
        &self,
        log: &dyn EventLog,
        blocks: &[Block],
        end: Position,
        now: Timestamp,
    ) -> Result<Taken, TakeError> {
        let mut standing = self.newest_of(log, blocks).await;
        let go_on = || !self.stopping.load(Ordering::Relaxed);
        standing.fold_up_to(log, end, &go_on).await?;
        if !go_on() {
            return Err(TakeError::Stopping);
        }
        let Standing { past, keys } = &standing;
        let stamp = stamp_of(log, past.position, past.events, now).await?;
        self.write(&past.views, keys, &stamp)
    }

    /// Takes one of the views as they are, at the end: nobody writes any more.
    ///
    /// # Errors
    /// When none was taken.
    pub async fn take_last(
        &self,
        log: &dyn EventLog,
        projected: &Projected,
        now: Timestamp,
    ) -> Result<Taken, TakeError> {
        self.stopping.store(true, Ordering::Relaxed);
        if !(self.room)() {
            return Err(TakeError::NoRoom);
        }
        // One under way gives up soon.
        let permit = tokio::time::timeout(STOPPING_WITHIN, self.taking.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(TakeError::Busy) };
        let (position, events) = (projected.position(), projected.events());
        if projected.fault().borrow().is_some() {
            return Err(TakeError::Stopping);
        }
        let stamp = stamp_of(log, position, events, now).await?;
        self.write(&projected.views.read(), &projected.keys.lock(), &stamp)
    }

    /// Writes one, which makes older ones needless.
    fn write(&self, views: &Views, keys: &Keys, stamp: &Stamp) -> Result<Taken, TakeError> {
        let mut writer = self.store.begin(stamp)?;
        keep_all::<TakeError>(views, keys, &mut |part| Ok(writer.piece(part)?))?;
        let (hash, bytes) = writer.finish()?;
        let taken = Taken::of(stamp, hash, bytes);
        self.store.tidy_views(taken.position);
        *self.newest.lock() = taken.events;
        let Taken { position, events, bytes, .. } = &taken;
        tracing::info!(%position, events, bytes, "a snapshot was taken");
        Ok(taken)
    }

    /// Whether so many events came since the last snapshot of the views that it is time for another.
    #[must_use]
    pub fn is_due(&self, events: u64) -> bool {
        let every = self.policy.every_events;
        every > 0 && events.saturating_sub(*self.newest.lock()) >= every
    }

    /// Waits for the next turn, although none was taken in this one.
    pub fn put_off(&self, events: u64) {
        *self.newest.lock() = events;
    }

    /// All that are whole and of the form that is read, those of the views first. Whether each is of this log
    /// is looked at when it is used.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub async fn list(self: &Arc<Self>) -> Result<Vec<Taken>, TakeError> {
        let _turn = self.listing.lock().await;
        let keeper = Arc::clone(self);
        let listing = own_thread::run("snapshot-list", move || async move {
            let opened = keeper.store.all()?.filter_map(|found| found.opened.ok());
            let known = opened.filter(|reader| reader.stamp().form == FORM);
            Ok(known.map(|reader| Taken::of(reader.stamp(), reader.state(), reader.bytes())).collect())
        });
        listing.await?
    }
}

/// Longest wait for a snapshot under way to give up.
const STOPPING_WITHIN: Duration = Duration::from_secs(2);

/// What tells an event from every other: of another log, or written in the same place later.
fn hash_of(recorded: &Recorded) -> Hash {
    let Recorded { id, stream, version, position, name, schema, time_us, metadata, body, beside: _ } =
        recorded;
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.get().as_bytes()).update(&version.get().to_le_bytes());
    hasher.update(&position.get().to_le_bytes()).update(&schema.to_le_bytes());
    hasher.update(&time_us.to_le_bytes());
    for bytes in [stream.as_str().as_bytes(), name.as_bytes(), metadata, body] {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    *hasher.finalize().as_bytes()
}

/// The stamp of a snapshot of the views that ends at this position of the log.
async fn stamp_of(
    log: &dyn EventLog,
    position: Position,
    events: u64,
    now: Timestamp,
) -> Result<Stamp, TakeError> {
    let end = event_at(log, position).await?.ok_or(TakeError::Empty)?;
    Ok(Stamp {
        form: FORM,
        subject: Subject::Views,
        version: 0,
        position: end.position.get(),
        events,
        time_us: end.time_us,
        end: hash_of(&end),
        origin: log.marks().origin,
        taken_at_us: now.as_micros(),
    })
}

/// The event at exactly this position.
async fn event_at(log: &dyn EventLog, position: Position) -> Result<Option<Arc<Recorded>>, ReadError> {
    let Some(before) = position.get().checked_sub(1) else { return Ok(None) };
    let page = log.page(Position::new(before), 1).await?;
    Ok(page.into_iter().next().filter(|recorded| recorded.position == position))
}

/// Whether a stamp is of a form that is read, and of this log.
async fn belongs(stamp: &Stamp, log: &dyn EventLog) -> Result<(), Flaw> {
    if stamp.form != FORM {
        return Err(Flaw::OtherForm { found: stamp.form, wanted: FORM });
    }
    if stamp.subject != Subject::Views {
        return Err(Flaw::Damaged("it is not of the views"));
    }
    if stamp.origin != log.marks().origin {
        return Err(Flaw::OtherLog("this one began elsewhere, or something was removed from it"));
    }
    let end = event_at(log, Position::new(stamp.position)).await;
    match end.map_err(|fault| Flaw::Io(io::Error::other(fault)))? {
        Some(end) if hash_of(&end) == stamp.end => Ok(()),
        Some(_) => Err(Flaw::OtherLog("another event stands where it ends")),
        None => Err(Flaw::OtherLog("it ends behind the log, or where no event stands")),
    }
}

async fn restored(mut reader: Reader, log: &dyn EventLog, blocks: &[Block]) -> Result<Standing, Flaw> {
    belongs(reader.stamp(), log).await?;
    let mut standing = Standing::beside(blocks);
    let mut part = Vec::new();
    while reader.piece(&mut part)? {
        let put = restore_part(&part, &mut standing.past.views, &mut standing.keys);
        put.ok_or(Flaw::Damaged("a part of it is not understood"))?;
    }
    let stamp = reader.stamp();
    standing.past.position = Position::new(stamp.position);
    standing.past.time = Timestamp::from_micros(stamp.time_us);
    standing.past.events = stamp.events;
    Ok(standing)
}
