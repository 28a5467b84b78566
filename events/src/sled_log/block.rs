//! Owns the sled folder of a generation: records packed into blocks, found by position. A large record is
//! stored once, in the journal; here is only where it lies.
//! Must never be trusted: every failure here means that the reader asks the journal instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::journal::bytes::{u32_at, u64_at};
use crate::journal::record::{RawRecord, records};
use crate::sled_log::keys::{Kind, key};
use crate::stream::Position;

/// The most records of a block; more would make sled's scans hold the whole log in memory.
const RECORDS_MAX: usize = 8;
/// The most bytes of a block; a page of sled holds 16 of them.
const BLOCK_MAX_LEN: usize = 7 << 10;
/// A record of this size stands in no block.
const LARGE_MIN_LEN: usize = 4 << 10;
/// Threads that sled must be able to start: without them it would wait for ever.
const THREADS: usize = 4;
/// Commits above this many bytes are put in as one batch.
const BATCH_MIN_LEN: usize = 64 << 10;
/// What sled may keep in memory, in bytes (a wish: it keeps more).
const CACHE_BYTES: u64 = 16 << 20;
/// How long the lock of a handle that was just dropped may linger.
const LOCK_WAIT: Duration = Duration::from_secs(1);

const FOLDER: &str = "sled";

/// The blocks of one generation.
pub(crate) struct Blocks {
    tree: sled::Db,
    folder: PathBuf,
}

/// Sled failed; what it said.
#[derive(Debug, thiserror::Error)]
#[error("sled: {0}")]
pub(crate) struct BlocksError(String);

impl From<sled::Error> for BlocksError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for BlocksError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Where the bytes of a record are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Here(Bytes),
    InJournal { offset: u64, len: u32 },
}

impl Blocks {
    /// Opens what a clean close left.
    pub(crate) fn open(generation: &Path) -> Result<Self, BlocksError> {
        check_threads()?;
        let folder = generation.join(FOLDER);
        // No background flush: nothing rests on it, and its fsync would hold up the journal's.
        let config = sled::Config::new().path(&folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            // Some damage makes sled panic instead of fail.
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
                .map_err(|_| BlocksError("it panicked while opening".to_owned()))?;
            match opened {
                Ok(tree) => return Ok(Self { tree, folder }),
                Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts with an empty folder.
    pub(crate) fn create(generation: &Path) -> Result<Self, BlocksError> {
        Self::remove(generation)?;
        Self::open(generation)
    }

    /// Deletes the folder, if there is one.
    pub(crate) fn remove(generation: &Path) -> io::Result<()> {
        match fs::remove_dir_all(generation.join(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds the records of one commit, which begin at `offset` of the journal.
    ///
    /// A batch makes sled turn over its write buffer twice and wake its threads, which costs a small commit
    /// more than it saves; a large one would hold more memory without. Nothing rests on its being atomic:
    /// after an unclean end the blocks are made anew from the journal.
    pub(crate) fn put(&self, offset: u64, payload: &[u8]) -> Result<(), BlocksError> {
        let mut batch = (payload.len() > BATCH_MIN_LEN).then(sled::Batch::default);
        for Block { at, bytes } in pack(payload)? {
            let first = RawRecord::position_of(bytes).ok_or_else(cut_off)?;
            let place = (bytes.len() >= LARGE_MIN_LEN && is_one(bytes)).then(|| {
                let place = (offset + at as u64).to_le_bytes();
                [&place[..], &(bytes.len() as u32).to_le_bytes()[..]].concat()
            });
            let kind = if place.is_some() { Kind::Place } else { Kind::Block };
            let (key, value) = (key(first, kind), place.as_deref().unwrap_or(bytes));
            match &mut batch {
                Some(batch) => batch.insert(&key, value),
                None => _ = self.tree.insert(key, value)?,
            }
        }
        match batch {
            Some(batch) => Ok(self.tree.apply_batch(batch)?),
            None => Ok(()),
        }
    }

    /// The bytes of the record at a position, or where they are.
    pub(crate) fn record(&self, wanted: Position) -> Result<Stored, BlocksError> {
        let found = self.tree.range(..=key(wanted, Kind::Place)).next_back();
        let (found, value) = found.ok_or_else(missing)??;
        if found[..] == key(wanted, Kind::Place) {
            let (offset, len) = (u64_at(&value, 0), u32_at(&value, 8));
            return offset
                .zip(len)
                .map(|(offset, len)| Stored::InJournal { offset, len })
                .ok_or_else(missing);
        }
        for record in records(&value) {
            let record = record.map_err(|what| BlocksError(what.to_owned()))?;
            if record.position() == wanted {
                return Ok(Stored::Here(Bytes::copy_from_slice(record.bytes())));
            }
        }
        Err(missing())
    }

    /// Brings everything to the disk and closes the folder. The caller must hold the last handle.
    pub(crate) fn close(self) -> Result<(), BlocksError> {
        let Self { tree, folder } = self;
        tree.flush()?;
        drop(tree);
        // Sled's flush is not a sync.
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_file() {
                fs::File::open(path)?.sync_all()?;
            }
        }
        Ok(fs::File::open(folder)?.sync_all()?)
    }
}

/// Waits for readers to let go of the blocks, so that nothing writes to the folder any more.
pub(crate) fn last_handle(mut blocks: Arc<Blocks>, deadline: Instant) -> Option<Blocks> {
    loop {
        match Arc::try_unwrap(blocks) {
            Ok(blocks) => return Some(blocks),
            Err(_) if Instant::now() > deadline => return None,
            Err(shared) => blocks = shared,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_locked(error: &io::Error) -> bool {
    // Sled wraps the error in words of its own.
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("WouldBlock")
}

fn missing() -> BlocksError {
    BlocksError("a record is missing".to_owned())
}

fn cut_off() -> BlocksError {
    BlocksError("a record is cut off".to_owned())
}

/// Whether the system gives this process as many threads as sled may need at once.
fn check_threads() -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let started = (0..THREADS).try_for_each(|_| {
            let waiting = || drop(gate.lock());
            thread::Builder::new().spawn_scoped(scope, waiting).map(drop)
        });
        drop(closed);
        started
    })
}

/// Records that follow each other.
struct Block<'p> {
    /// Where they begin in the payload.
    at: usize,
    bytes: &'p [u8],
}

fn is_one(block: &[u8]) -> bool {
    RawRecord::len_of(block) == Some(block.len())
}

/// Cuts records into blocks: at most 8 records and 7 KiB each, but at least one record, and a large one
/// alone.
fn pack(payload: &[u8]) -> Result<Vec<Block<'_>>, BlocksError> {
    let mut blocks = Vec::new();
    let (mut start, mut end, mut count) = (0, 0, 0);
    while end < payload.len() {
        let len = RawRecord::len_of(&payload[end..]).filter(|len| end + len <= payload.len());
        let len = len.ok_or_else(cut_off)?;
        let is_large = len >= LARGE_MIN_LEN;
        if count == RECORDS_MAX || (count > 0 && (is_large || end + len - start > BLOCK_MAX_LEN)) {
            blocks.push(Block { at: start, bytes: &payload[start..end] });
            (start, count) = (end, 0);
        }
        end += len;
        // Nothing joins a large one.
        count = if is_large { RECORDS_MAX } else { count + 1 };
    }
    blocks.push(Block { at: start, bytes: &payload[start..] });
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{Names, encode};
    use crate::record::{Beside, Recorded};
    use crate::stream::{StreamId, Version};
    use uuid::Uuid;

    fn payload(first: u64, body_lens: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, len) in body_lens.iter().enumerate() {
            let event = Recorded {
                id: Uuid::from_u128(u128::from(first) + index as u128).into(),
                stream: StreamId::new("test", "a").unwrap(),
                version: Version::new(1),
                position: Position::new(first + index as u64),
                name: "test.happened".into(),
                schema: 1,
                time_us: 0,
                metadata: Bytes::new(),
                body: (0..*len).map(|i| i as u8).collect::<Vec<_>>().into(),
                beside: Beside::NONE,
            };
            encode(&event, Position::START, &mut bytes);
        }
        bytes
    }

    #[test]
    fn records_are_packed_by_count_and_by_size() {
        let lens = |body_lens: &[usize]| {
            let bytes = payload(1, body_lens);
            let blocks = pack(&bytes).unwrap();
            blocks.iter().map(|block| records(block.bytes).count()).collect::<Vec<_>>()
        };
        assert_eq!(lens(&[10; 20]), [8, 8, 4]);
        assert_eq!(lens(&[3000; 5]), [2, 2, 1]);
        assert_eq!(lens(&[10, 50_000, 10]), [1, 1, 1]);
    }

    #[test]
    fn every_record_is_found_again_also_the_large_ones() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = Blocks::create(folder.path()).unwrap();
        let lens = [10, 300, 3_900, 7_000, 100_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4 << 10, 3_000_000, 5];
        let mut journal = vec![0; 77];
        for first in [1, 100] {
            let (offset, payload) = (journal.len() as u64, payload(first, &lens));
            blocks.put(offset, &payload).unwrap();
            journal.extend(payload);
        }
        blocks.close().unwrap();
        let blocks = Blocks::open(folder.path()).unwrap();
        for first in [1, 100] {
            for (index, len) in lens.iter().enumerate() {
                let bytes = match blocks.record(Position::new(first + index as u64)).unwrap() {
                    Stored::Here(bytes) => bytes,
                    Stored::InJournal { offset, len } => {
                        let offset = offset as usize;
                        Bytes::copy_from_slice(&journal[offset..offset + len as usize])
                    }
                };
                let event = RawRecord::first_of(&bytes).unwrap().decode(&bytes, &mut Names::default());
                let event = event.unwrap();
                assert_eq!((event.position.get(), event.body.len()), (first + index as u64, *len));
            }
        }
        let folder = folder.path().join(FOLDER);
        assert!(crate::sled_log::space::occupied(&folder).unwrap() < 3_000_000, "stored once");
        assert!(blocks.record(Position::new(50)).is_err());
        assert!(blocks.record(Position::new(1000)).is_err());
    }
}
