//! Owns the file that an answer rests on: append-only, checksummed, hash-chained, synced frames.
//! Must never be read to decide anything at run time but what was asked: heads and ids live elsewhere.

pub(crate) mod bytes;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod scan;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::faults::Faults;
use crate::journal::frame::{
    BaseEnd, FRAME_HEADER_LEN, FrameHeader, Hash, JOURNAL_HEADER_LEN, JournalHeader, Kind, Mark,
};
use crate::journal::scan::Place;

/// The name of a journal within its generation's folder.
pub(crate) const FILE_NAME: &str = "journal";

/// A journal that is open for appending.
pub(crate) struct Journal {
    file: Arc<File>,
    faults: Faults,
    header: JournalHeader,
    /// Everything before this byte is durable, and nothing is after it.
    end: u64,
    /// The last position in the log.
    last: u64,
    /// The hash of the last frame, or of the header if there is none.
    chain: Hash,
    /// Whether no frame of events is the last: such a one could pass for a torn tail once it is damaged.
    noted: bool,
}

/// Why a frame was not appended.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The disk is full, and the journal is as it was: certainly not written.
    Full,
    /// Nobody knows what is on the disk: perhaps written, and nothing more may be.
    Failed(io::Error),
}

impl WriteError {
    /// Of something that nobody reads yet: without space it is as if it had not been tried.
    pub(crate) fn before(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Failed(error) }
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Full => io::ErrorKind::StorageFull.into(),
            WriteError::Failed(error) => error,
        }
    }
}

/// Whether a write was refused because there is no space for it.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A frame in the making: room for its header, then records.
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    count: u32,
}

/// A buffer that has grown beyond this is given back after the commit.
const BUFFER_KEPT_MAX: usize = 2 << 20;

impl FrameBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_LEN], count: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(FRAME_HEADER_LEN);
        self.bytes.shrink_to(BUFFER_KEPT_MAX);
        self.count = 0;
    }

    /// Adds a record by letting `encode` append it.
    pub(crate) fn record(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_LEN..]
    }
}

impl Journal {
    /// Writes the file of a new generation and syncs it; syncing the folder is the caller's part.
    pub(crate) fn create(
        folder: &Path,
        generation: u64,
        after: u64,
        previous: Hash,
        faults: Faults,
    ) -> Result<Self, WriteError> {
        let header = JournalHeader { generation, after, mark: new_mark(), previous, base: false };
        Self::begin(folder, header, faults)
    }

    /// The same for a base.
    pub(crate) fn create_base(folder: &Path, generation: u64) -> Result<Self, WriteError> {
        let previous = Hash::default();
        let header = JournalHeader { generation, after: 0, mark: new_mark(), previous, base: true };
        Self::begin(folder, header, Faults::default())
    }

    fn begin(folder: &Path, header: JournalHeader, faults: Faults) -> Result<Self, WriteError> {
        let bytes = header.encode();
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(FILE_NAME));
        let file = created.map_err(WriteError::before)?;
        faults.write(&file, &bytes, 0).map_err(WriteError::before)?;
        file.sync_all().map_err(WriteError::Failed)?;
        let chain = blake3::hash(&bytes).into();
        let (end, last) = (bytes.len() as u64, header.after);
        Ok(Self { file: Arc::new(file), faults, header, end, last, chain, noted: true })
    }

    /// Goes on with a journal that was scanned; what lies after its end is cut off.
    pub(crate) fn resume(scanned: &scan::Scanned, faults: Faults) -> io::Result<Self> {
        let scan::Scanned { file, header, end, last, chain, noted, .. } = scanned.clone();
        if file.metadata()?.len() != end {
            file.set_len(end)?;
            file.sync_all()?;
        }
        Ok(Self { file, faults, header, end, last, chain, noted })
    }

    /// Writes the frame and syncs it.
    pub(crate) fn append(&mut self, frame: &mut FrameBuffer) -> Result<(), WriteError> {
        let kind = if frame.is_empty() { Kind::Watermark } else { Kind::Events };
        self.put(frame, kind, self.last + u64::from(frame.count))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.faults.sync(&self.file).map_err(WriteError::Failed)
    }

    /// Writes a frame of a base, whose last record has that position. It is durable once the base has an end.
    pub(crate) fn append_kept(&mut self, frame: &mut FrameBuffer, last: u64) -> Result<(), WriteError> {
        self.put(frame, Kind::Events, last)
    }

    /// Ends a base.
    pub(crate) fn end_base(&mut self, end: &BaseEnd) -> Result<(), WriteError> {
        let mut frame = FrameBuffer::new();
        frame.bytes.extend_from_slice(&end.encode());
        self.put(&mut frame, Kind::End, end.last)?;
        self.sync()
    }

    fn put(&mut self, frame: &mut FrameBuffer, kind: Kind, last: u64) -> Result<(), WriteError> {
        let header = FrameHeader {
            offset: self.end,
            after: self.last,
            count: frame.count,
            payload_len: frame.payload().len() as u32,
            previous: self.chain,
            kind,
        };
        frame.bytes[..FRAME_HEADER_LEN].copy_from_slice(&header.encode(self.header.mark));
        self.faults.write(&self.file, &frame.bytes, self.end).map_err(|error| self.undo(error))?;
        self.end = header.end();
        self.last = last;
        self.noted = kind != Kind::Events;
        self.chain = blake3::hash(&frame.bytes).into();
        Ok(())
    }

    /// Whether the file in this folder is still the one that is written to, with all that was written.
    ///
    /// # Errors
    /// When it was removed, replaced or shortened, or nobody can tell: the next start would miss events.
    pub(crate) fn holds(&self, folder: &Path) -> io::Result<()> {
        let open = self.file.metadata()?;
        let is_this = |named: &Metadata| (named.dev(), named.ino()) == (open.dev(), open.ino());
        match fs::metadata(folder.join(FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(named) if is_this(&named) && named.len() >= self.end => Ok(()),
            _ => Err(io::Error::other("the journal was removed, replaced or shortened")),
        }
    }

    /// Notes durably that everything so far is durable, which tells a torn tail from a damaged record.
    pub(crate) fn watermark(&mut self) -> Result<(), WriteError> {
        self.append(&mut FrameBuffer::new())
    }

    /// Whether there is nothing to note.
    pub(crate) fn is_noted(&self) -> bool {
        self.noted
    }

    /// After a write that failed. A full disk leaves part of a frame, which must go before we may say so.
    fn undo(&self, error: io::Error) -> WriteError {
        if !is_full(&error) {
            return WriteError::Failed(error);
        }
        match self.file.set_len(self.end).and_then(|()| self.faults.sync(&self.file)) {
            Ok(()) => WriteError::Full,
            Err(undo) => WriteError::Failed(undo),
        }
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(crate) fn header(&self) -> &JournalHeader {
        &self.header
    }

    /// What must hold for it when it is scanned.
    pub(crate) fn place(&self) -> Place {
        let JournalHeader { generation, after, previous, base, .. } = self.header;
        Place { generation, after, previous, durable: self.end, base }
    }

    /// The durable length, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The hash of the last frame.
    pub(crate) fn chain(&self) -> Hash {
        self.chain
    }

    /// Whether it holds no frame yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == JOURNAL_HEADER_LEN as u64
    }

    /// What the journal would occupy with one more frame, in bytes.
    pub(crate) fn end_with(&self, frame: &FrameBuffer) -> u64 {
        self.end + frame.bytes.len() as u64
    }
}

/// The first bits of those bytes are the uuid's variant, always the same; the rest is random.
fn new_mark() -> Mark {
    let mut mark: Mark = [0; 8];
    mark.copy_from_slice(&Uuid::new_v4().as_bytes()[8..]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_disk_says_for_want_of_space_is_known_and_nothing_else() {
        use io::ErrorKind::{FileTooLarge, Other, QuotaExceeded, StorageFull, TimedOut};
        for full in [StorageFull, QuotaExceeded, FileTooLarge] {
            assert!(is_full(&full.into()) && matches!(WriteError::before(full.into()), WriteError::Full));
        }
        for other in [Other, TimedOut] {
            assert!(!is_full(&other.into()));
        }
    }
}
