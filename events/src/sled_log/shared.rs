//! Owns what the writer, the readers and the handle share.
//! Must never show anything that is not durable.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use crate::epoch::Identity;
use crate::journal::scan::{Access, Place, ScanError, scan};
use crate::live::Feed;
use crate::log::{Damage, Floor, ReadError};
use crate::record::Recorded;
use crate::sled_log::generation::Generation;
use crate::sled_log::heads::Heads;
use crate::sled_log::queue::Queue;
use crate::stream::Position;

/// Reads of one kind that are under way at once.
const READS_MAX: usize = 16;

/// The open log.
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) queue: Queue,
    pub(crate) heads: Arc<RwLock<Heads>>,
    pub(crate) feed: Arc<Feed<Recorded>>,
    pub(crate) status: watch::Sender<Status>,
    /// Up to here events may be missing.
    pub(crate) floor: Floor,
    /// Which log and history; none when nothing is whole of it.
    pub(crate) identity: Option<Identity>,
    /// Turns to read pages of the whole log, for streams and lists.
    pub(crate) page_reads: Arc<Semaphore>,
    /// Turns to read single streams: actors and requests never wait for readers of the whole log.
    pub(crate) stream_reads: Arc<Semaphore>,
    /// What was found when a generation was sealed.
    sealed_damage: OnceLock<Damage>,
    /// Oldest first; empty only when nothing is whole of a log that was opened to be read only.
    generations: RwLock<Vec<Arc<Generation>>>,
}

/// Whether the log still works.
#[derive(Clone, Default)]
pub(crate) struct Status {
    pub(crate) failure: Option<Arc<io::Error>>,
    pub(crate) ended: bool,
}

impl Shared {
    pub(crate) fn new(
        folder: PathBuf,
        queue: Queue,
        heads: Arc<RwLock<Heads>>,
        feed: Feed<Recorded>,
        generations: Vec<Arc<Generation>>,
        floor: Floor,
        identity: Option<Identity>,
    ) -> Self {
        let (feed, status) = (Arc::new(feed), watch::Sender::default());
        Self {
            folder,
            queue,
            heads,
            feed,
            status,
            floor,
            identity,
            page_reads: Arc::new(Semaphore::new(READS_MAX)),
            stream_reads: Arc::new(Semaphore::new(READS_MAX)),
            sealed_damage: OnceLock::new(),
            generations: RwLock::new(generations),
        }
    }

    /// Reads the journal of a generation that was just sealed: what the disk gives back must be what was
    /// written. Damage stops nothing, since what comes later is not touched by it, but it is told.
    pub(crate) fn look_at_sealed(&self, sealed: &Generation, place: Place) {
        let look = Access::Looking { until: u64::MAX };
        let read = scan(&sealed.folder, place, look, &mut |_| Ok(()));
        match read.and_then(|scanned| place.ends_sealed(&scanned)) {
            Ok(()) => {}
            Err(ScanError::Damaged(damage)) => {
                tracing::error!(%damage, "a sealed generation is not what was written");
                // The first one is what matters.
                let _ = self.sealed_damage.set(damage);
            }
            Err(fault) => tracing::warn!(?fault, "a sealed generation cannot be looked at"),
        }
    }

    /// Damage of a generation that was sealed since the log was opened.
    pub(crate) fn sealed_damage(&self) -> Option<Damage> {
        self.sealed_damage.get().copied()
    }

    /// Shows a new generation to readers.
    pub(crate) fn push(&self, generation: Arc<Generation>) {
        self.generations.write().push(generation);
    }

    /// The mark of the oldest journal: a new one whenever a log begins or something was removed from it.
    pub(crate) fn origin(&self) -> u64 {
        let generations = self.generations.read();
        generations.first().map_or(0, |oldest| u64::from_le_bytes(oldest.mark))
    }

    /// The generation that holds the first event after a position.
    pub(crate) fn generation_after(&self, position: Position) -> Result<Arc<Generation>, ReadError> {
        let generations = self.generations.read();
        let next = generations.partition_point(|generation| generation.after <= position);
        let found = next.checked_sub(1).and_then(|index| generations.get(index));
        found.cloned().ok_or_else(|| io::Error::other("no generation holds that position").into())
    }

    /// The generations in which the first event after a position can be, in order: where positions skip, it
    /// may be in the one behind.
    pub(crate) fn generations_after(&self, position: Position) -> Vec<Arc<Generation>> {
        let generations = self.generations.read();
        let next = generations.partition_point(|generation| generation.after <= position);
        generations.iter().skip(next.saturating_sub(1)).take(2).cloned().collect()
    }

    /// From now on appends are refused.
    pub(crate) fn fail(&self, error: io::Error) {
        tracing::error!(%error, "the log has failed and refuses appends until it is opened again");
        self.status.send_modify(|status| status.failure = Some(Arc::new(error)));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.status.borrow().failure.is_some()
    }

    /// Lets readers and whoever closes the log go.
    pub(crate) fn end(&self) {
        self.feed.close();
        self.status.send_modify(|status| status.ended = true);
    }
}
