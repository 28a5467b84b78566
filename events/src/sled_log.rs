//! Owns the stored log: the handle that callers hold, in front of one writing thread and the readers.
//! Must never wait for the disk on a caller's thread, except while opening.

mod audit;
mod base;
mod block;
mod fence;
mod folder;
mod generation;
mod heads;
mod identity;
mod keys;
mod ledger;
mod open;
mod prefix;
mod queue;
mod reader;
mod shared;
mod space;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use futures_util::{FutureExt, future};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::epoch::Identity;
use crate::live::{self, History};
use crate::log::{
    Append, AppendError, BoxFuture, Damage, EventLog, EventStream, Head, Marks, ReadError, Refusal, Since,
};
use crate::options::Options;
use crate::record::Recorded;
use crate::sled_log::shared::{Shared, Status};
use crate::stream::{Position, StreamId};

pub use audit::{Audit, EachEvent};
pub use base::{Compaction, Retention};
pub use open::OpenError;
pub use prefix::{Prefix, Seized};

/// A log in a folder: a journal that is synced before every answer, and sled for reading.
///
/// Dropping it closes it in the background; [`SledLog::close`] waits for that.
pub struct SledLog {
    shared: Arc<Shared>,
    /// When it was opened to be read only.
    read_only: Option<ReadOnly>,
}

/// What a log has that nobody writes to.
struct ReadOnly {
    /// Held for as long as the log is open.
    lock: Mutex<Option<File>>,
    damage: Option<Damage>,
}

impl SledLog {
    /// Opens the log in a folder, which is made if it is not there. Verifies the whole log and blocks
    /// meanwhile: about a second for a million small events.
    ///
    /// # Errors
    /// See [`OpenError`]; whatever it says, nothing acknowledged was touched.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let (shared, writer) = open::open(path.as_ref(), options)?;
        let watched = Arc::clone(&shared);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                // First the queue: who hears of the failure must find it closed.
                watched.queue.abort();
                watched.fail(io::Error::other("the writer panicked"));
                watched.end();
            }
        };
        thread::Builder::new().name("log-writer".to_owned()).spawn(work)?;
        Ok(Self { shared, read_only: None })
    }

    /// Opens what is whole of the log in a folder, and changes nothing there: everything before the commit
    /// that holds the first damage, or all of it. Every append is refused as [`Refusal::ReadOnly`]. The
    /// folder must be there.
    ///
    /// # Errors
    /// See [`OpenError`]; damage is none of them.
    pub fn open_read_only(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let (shared, lock, damage) = open::open_read_only(path.as_ref(), options)?;
        Ok(Self { shared, read_only: Some(ReadOnly { lock: Mutex::new(Some(lock)), damage }) })
    }

    /// Verifies the log in a folder that nobody has open, shows each event in order, and changes nothing.
    /// Blocks meanwhile. The folder must be there.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] with the first place that does not hold, or that `each` found fault with.
    pub fn audit(path: impl AsRef<Path>, each: &mut EachEvent<'_>) -> Result<Audit, OpenError> {
        audit::audit(path.as_ref(), each)
    }

    /// Removes streams as a whole from the log in a folder that nobody has open; what stays keeps its places.
    /// Only streams without an event in the newest generation go, and nothing happens when fewer than `worth`
    /// bytes would be freed. Blocks meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`]: then nothing was removed.
    pub fn compact(
        path: impl AsRef<Path>,
        worth: u64,
        retention: &mut dyn Retention,
    ) -> Result<Compaction, OpenError> {
        base::compact(path.as_ref(), worth, retention)
    }

    /// Writes events with the places that they have to a folder that holds no log, and says how many. All
    /// are written or none, and only if they hold together: positions rise, streams are whole. Blocks
    /// meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`]; [`io::ErrorKind::AlreadyExists`] when there is a log already.
    pub fn restore(
        path: impl AsRef<Path>,
        events: &mut dyn Iterator<Item = io::Result<Recorded>>,
    ) -> Result<u64, OpenError> {
        base::restore(path.as_ref(), events)
    }

    /// The whole commits up to a position of the log in a folder, verified on the way; the folder must be
    /// there. A server may run on it: then everything acknowledged before is part of it. Blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] with the first place that does not hold; [`OpenError::Compacted`];
    /// [`io::ErrorKind::InvalidInput`] for a position up to which events were removed,
    /// [`io::ErrorKind::NotFound`] when there is no log.
    pub fn prefix(path: impl AsRef<Path>, until: Position) -> Result<Prefix, OpenError> {
        Prefix::of(path.as_ref(), until)
    }

    /// Keeps everybody from writing to the log in a folder, also whoever holds a lock that does not count.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when somebody has it open.
    pub fn seize(path: impl AsRef<Path>) -> Result<Seized, OpenError> {
        Seized::take(path.as_ref())
    }

    /// Which log lies in a folder, and which of its histories; none when there is no log.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn identity(path: impl AsRef<Path>) -> io::Result<Option<Identity>> {
        identity::of(path.as_ref())
    }

    /// How many bytes the log in a folder occupies, with all that lies there beside it.
    ///
    /// # Errors
    /// When the folder cannot be looked at. One that is not there occupies nothing.
    pub fn occupied(path: impl AsRef<Path>) -> io::Result<u64> {
        space::occupied(path.as_ref())
    }

    /// Where the log is damaged: of one that was opened to be read only, nothing after that can be read; of
    /// another it was found when a generation was sealed, and the next start will be refused.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        let found = self.read_only.as_ref().and_then(|read_only| read_only.damage);
        found.or_else(|| self.shared.sealed_damage())
    }

    /// Refuses new appends, writes those that wait, and closes the folder so that the next start is quick.
    ///
    /// # Errors
    /// When the log has failed, before or now. It is closed all the same.
    pub fn close(&self) -> BoxFuture<'static, Result<(), Arc<io::Error>>> {
        self.shared.queue.close();
        if let Some(read_only) = &self.read_only {
            drop(read_only.lock.lock().take());
            self.shared.end();
        }
        let status = self.shared.status.subscribe();
        async move {
            let end = wait_for(status, |status| status.ended).await;
            end.failure.map_or(Ok(()), Err)
        }
        .boxed()
    }

    /// Waits until the log fails, which it may never do. From then on it refuses appends until it is
    /// opened again; the process should stop (exit 74).
    pub fn failed(&self) -> BoxFuture<'static, Arc<io::Error>> {
        let status = self.shared.status.subscribe();
        async move {
            match wait_for(status, |status| status.failure.is_some()).await.failure {
                Some(error) => error,
                None => future::pending().await,
            }
        }
        .boxed()
    }
}

/// The first status that fits, or the last one ever.
async fn wait_for(mut status: watch::Receiver<Status>, fits: impl FnMut(&Status) -> bool + Send) -> Status {
    // An error means that the log is gone, and its last status is the final one.
    let found = status.wait_for(fits).await.map(|status| status.clone());
    found.unwrap_or_else(|_| status.borrow().clone())
}

impl EventLog for SledLog {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        let (answer, heard) = oneshot::channel();
        let queued = match append.check() {
            Ok(()) if self.read_only.is_some() => Err(AppendError::Refused { reason: Refusal::ReadOnly }),
            Ok(()) => self.shared.queue.push(append, answer),
            Err(reason) => Err(AppendError::Refused { reason }),
        };
        match queued {
            // Without an answer the writer has gone down with the append in its hands.
            Ok(()) => heard.map(|heard| heard.unwrap_or(Err(AppendError::OutcomeUnknown))).boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        reader::read(Arc::clone(&self.shared), stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        live::tail(Arc::clone(&self.shared.feed), Arc::clone(&self.shared) as Arc<dyn History>, after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        History::page(&*self.shared, after, bytes)
    }

    fn marks(&self) -> Marks {
        let Shared { floor, identity, .. } = &*self.shared;
        let epoch = identity.map(|identity| identity.epoch);
        Marks { floor: *floor, origin: self.shared.origin(), epoch }
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        if self.read_only.is_some() {
            return future::ready(Ok(self.shared.feed.end())).boxed();
        }
        let (answer, heard) = oneshot::channel();
        if !self.shared.queue.push_barrier(answer) {
            return future::ready(Err(ReadError::Closed)).boxed();
        }
        heard.map(|heard| heard.map(|()| self.shared.feed.end()).map_err(|_| ReadError::Closed)).boxed()
    }
}

impl Drop for SledLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        if self.read_only.is_some() {
            self.shared.end();
        }
    }
}

impl fmt::Debug for SledLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { folder, feed, .. } = &*self.shared;
        f.debug_struct("SledLog").field("folder", folder).field("end", &feed.end()).finish_non_exhaustive()
    }
}
