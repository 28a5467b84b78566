//! Owns the sled folder of a generation: records packed into blocks, found by position.
//! Must never be trusted: every failure here means that the reader asks the journal instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use bytes::Bytes;

use crate::journal::record::{RawRecord, records};
use crate::sled_log::keys::{key, position};
use crate::stream::Position;

/// The most records of a block; more would make sled's scans hold the whole log in memory.
const RECORDS_MAX: usize = 8;
/// The most bytes of a value; a page of sled holds 16 of them, and beyond 128 KiB it goes to a file of its
/// own.
const VALUE_MAX_LEN: usize = 7 << 10;
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

impl Blocks {
    /// Opens what a clean close left.
    pub(crate) fn open(generation: &Path) -> Result<Self, BlocksError> {
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

    /// Adds the records of one commit.
    ///
    /// A batch makes sled turn over its write buffer twice and wake its threads, which costs a small commit
    /// more than it saves; a large one would hold more memory without. Nothing rests on its being atomic:
    /// after an unclean end the blocks are made anew from the journal.
    pub(crate) fn put(&self, payload: &[u8]) -> Result<(), BlocksError> {
        let mut batch = (payload.len() > BATCH_MIN_LEN).then(sled::Batch::default);
        for block in pack(payload)? {
            let first = RawRecord::position_of(block).ok_or_else(cut_off)?;
            for (chunk, value) in block.chunks(VALUE_MAX_LEN).enumerate() {
                let key = key(first, chunk as u16);
                match &mut batch {
                    Some(batch) => batch.insert(&key, value),
                    None => _ = self.tree.insert(key, value)?,
                }
            }
        }
        match batch {
            Some(batch) => Ok(self.tree.apply_batch(batch)?),
            None => Ok(()),
        }
    }

    /// The bytes of the record at a position.
    pub(crate) fn record(&self, wanted: Position) -> Result<Bytes, BlocksError> {
        let found = self.tree.range(..=key(wanted, u16::MAX)).next_back();
        let (found, value) = found.ok_or_else(missing)??;
        let first = position(&found).ok_or_else(missing)?;
        if found[..] != key(first, 0) {
            return self.joined(first);
        }
        for record in records(&value) {
            let record = record.map_err(|what| BlocksError(what.to_owned()))?;
            if record.position() == wanted {
                return Ok(Bytes::copy_from_slice(record.bytes()));
            }
        }
        Err(missing())
    }

    /// A record that is spread over several values.
    fn joined(&self, first: Position) -> Result<Bytes, BlocksError> {
        let mut bytes = Vec::new();
        for entry in self.tree.range(key(first, 0)..=key(first, u16::MAX)) {
            bytes.extend_from_slice(&entry?.1);
        }
        Ok(bytes.into())
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

/// Cuts records into blocks: at most 8 records and 7 KiB each, but at least one record.
fn pack(payload: &[u8]) -> Result<Vec<&[u8]>, BlocksError> {
    let mut blocks = Vec::new();
    let (mut start, mut end, mut count) = (0, 0, 0);
    while end < payload.len() {
        let len = RawRecord::len_of(&payload[end..]).filter(|len| end + len <= payload.len());
        let len = len.ok_or_else(cut_off)?;
        if count == RECORDS_MAX || (count > 0 && end + len - start > VALUE_MAX_LEN) {
            blocks.push(&payload[start..end]);
            (start, count) = (end, 0);
        }
        end += len;
        count += 1;
    }
    blocks.push(&payload[start..]);
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
            blocks.iter().map(|block| records(block).count()).collect::<Vec<_>>()
        };
        assert_eq!(lens(&[10; 20]), [8, 8, 4]);
        assert_eq!(lens(&[3000; 5]), [2, 2, 1]);
        assert_eq!(lens(&[10, 50_000, 10]), [1, 1, 1]);
    }

    #[test]
    fn every_record_is_found_again_also_the_large_ones() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = Blocks::create(folder.path()).unwrap();
        let lens = [10, 300, 7_000, 8_000, 100_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7 << 10, 3_000_000, 5];
        blocks.put(&payload(1, &lens)).unwrap();
        blocks.put(&payload(100, &lens)).unwrap();
        blocks.close().unwrap();
        let blocks = Blocks::open(folder.path()).unwrap();
        for first in [1, 100] {
            for (index, len) in lens.iter().enumerate() {
                let bytes = blocks.record(Position::new(first + index as u64)).unwrap();
                let event = RawRecord::first_of(&bytes).unwrap().decode(&bytes, &mut Names::default());
                let event = event.unwrap();
                assert_eq!((event.position.get(), event.body.len()), (first + index as u64, *len));
            }
        }
        assert!(blocks.record(Position::new(50)).is_err());
        assert!(blocks.record(Position::new(1000)).is_err());
    }
}
