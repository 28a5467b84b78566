//! Owns one generation, a folder of the log: its journal as seen by readers, and its blocks while it is
//! the newest. Must never write to the journal; only the writer does, and then tells how far readers may
//! look.
//!
//! A sealed generation is read from its journal by way of a sparse index, so that its sled folder can go:
//! it would double the disk, and its pages stay in memory once they were read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::journal::frame::{FRAME_HEADER_LEN, FrameHeader, JournalHeader, Mark};
use crate::journal::record::{Names, RawRecord};
use crate::live::Page;
use crate::log::{Damage, ReadError};
use crate::record::Recorded;
use crate::sled_log::block::{Blocks, Stored};
use crate::stream::Position;

/// At least so many bytes of journal lie between two entries of the index, unless a record is larger.
const INDEX_STEP: u64 = 8 << 10;

/// One generation.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) folder: PathBuf,
    /// The last position of the generations before.
    pub(crate) after: Position,
    pub(crate) mark: Mark,
    /// Whether its positions may skip.
    skips: bool,
    file: Arc<File>,
    index: RwLock<Index>,
    blocks: RwLock<Option<Arc<Blocks>>>,
}

/// Where records begin, sparsely, and how far the journal may be read.
#[derive(Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// Everything before this byte is durable.
    end: u64,
    last: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    position: u64,
    offset: u64,
    /// Where the frame of that record ends.
    frame_end: u64,
}

/// A stretch of journal that begins with a record and ends with one.
struct Stretch {
    from: Entry,
    end: u64,
}

/// A record, and where the one before it in its stream is.
pub(crate) struct Found {
    pub(crate) event: Recorded,
    pub(crate) previous: Position,
}

impl Index {
    /// Notes the records of a durable frame; they begin at `offset` of the journal.
    pub(crate) fn add(&mut self, offset: u64, payload: &[u8]) {
        let frame_end = offset + payload.len() as u64;
        let mut at = 0;
        while let Some(len) = payload.get(at..).and_then(RawRecord::len_of)
            && let Some(position) = RawRecord::position_of(&payload[at..]).map(Position::get)
        {
            let offset = offset + at as u64;
            if self.entries.last().is_none_or(|last| offset - last.offset >= INDEX_STEP) {
                self.entries.push(Entry { position, offset, frame_end });
            }
            self.last = position;
            at += len;
        }
        self.end = frame_end;
    }

    /// The first position behind this one that has an entry.
    fn next(&self, position: u64) -> Option<Position> {
        let next = self.entries.partition_point(|entry| entry.position <= position);
        self.entries.get(next).map(|entry| Position::new(entry.position))
    }

    /// The stretch that holds the record at `position` and then about `bytes_min` bytes more, if there are.
    fn stretch(&self, position: u64, bytes_min: u64) -> Option<Stretch> {
        if position > self.last {
            return None;
        }
        let next = self.entries.partition_point(|entry| entry.position <= position);
        let from = *self.entries.get(next.saturating_sub(1))?;
        let far_enough = |entry: &&Entry| entry.offset >= from.offset + bytes_min;
        let end = self.entries[next..].iter().find(far_enough).map_or(self.end, |entry| entry.offset);
        Some(Stretch { from, end })
    }
}

impl Generation {
    pub(crate) fn new(folder: PathBuf, header: &JournalHeader, file: Arc<File>, index: Index) -> Self {
        let JournalHeader { generation: number, after, mark, base: skips, .. } = *header;
        let (after, index, blocks) = (Position::new(after), RwLock::new(index), RwLock::new(None));
        Self { number, folder, after, mark, skips, file, index, blocks }
    }

    /// Lets readers see the records of one more frame; they begin at `offset` of the journal.
    pub(crate) fn extend(&self, offset: u64, payload: &[u8]) {
        self.index.write().add(offset, payload);
    }

    /// Gives it blocks, or takes them away; returns what it had.
    pub(crate) fn set_blocks(&self, blocks: Option<Arc<Blocks>>) -> Option<Arc<Blocks>> {
        std::mem::replace(&mut *self.blocks.write(), blocks)
    }

    pub(crate) fn blocks(&self) -> Option<Arc<Blocks>> {
        self.blocks.read().clone()
    }

    /// The record at a position.
    pub(crate) fn record(&self, position: Position, names: &mut Names) -> Result<Found, ReadError> {
        if let Some(found) = self.blocks().and_then(|blocks| self.try_blocks(&blocks, position, names)) {
            return Ok(found);
        }
        let mut found = None;
        self.walk(position, 1, |_, bytes, at| {
            if at == position {
                // A copy, so that one event does not keep its neighbours in memory.
                let bytes = Bytes::copy_from_slice(bytes);
                found = Some(decode(&bytes, &bytes, at, names)?);
            }
            Ok(())
        })?;
        found.ok_or_else(|| self.damage(0, position, "a record is missing"))
    }

    /// Blocks that fail once are put aside: the next start builds new ones.
    fn try_blocks(&self, blocks: &Blocks, position: Position, names: &mut Names) -> Option<Found> {
        let found = blocks
            .record(position)
            .map_err(|error| error.to_string())
            .and_then(|stored| self.bytes_of(stored).map_err(|error| error.to_string()))
            .and_then(|bytes| decode(&bytes, &bytes, position, names).map_err(str::to_owned));
        found
            .inspect_err(|error| {
                tracing::warn!(%position, error, "reads of this generation use the journal from now on");
                self.set_blocks(None);
            })
            .ok()
    }

    fn bytes_of(&self, stored: Stored) -> io::Result<Bytes> {
        match stored {
            Stored::Here(bytes) => Ok(bytes),
            Stored::InJournal { offset, len } => {
                if offset + u64::from(len) > self.index.read().end {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut bytes = vec![0; len as usize];
                self.file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }

    /// The records after a position, about `bytes_min` bytes of them; empty if there are none.
    pub(crate) fn page(&self, after: Position, bytes_min: u64) -> Result<Page, ReadError> {
        let mut page = Page::new();
        let mut names = Names::default();
        let from = Position::new(after.max(self.after).get() + 1);
        let mut look = Some(from);
        while let Some(place) = look.filter(|_| page.is_empty()) {
            self.walk(place, bytes_min, |buffer, bytes, at| {
                if at >= from {
                    page.push(Arc::new(decode(buffer, bytes, at, &mut names)?.event));
                }
                Ok(())
            })?;
            // Where positions skip, the stretch before may hold nothing that is wanted.
            look = self.index.read().next(place.get());
        }
        Ok(page)
    }

    /// Reads the stretch that begins at or shortly before a position, and shows it record by record.
    fn walk(
        &self,
        from: Position,
        bytes_min: u64,
        mut visit: impl FnMut(&Bytes, &[u8], Position) -> Result<(), &'static str>,
    ) -> Result<(), ReadError> {
        let Some(Stretch { from, end }) = self.index.read().stretch(from.get(), bytes_min) else {
            return Ok(());
        };
        let mut buffer = vec![0; (end - from.offset) as usize];
        self.file.read_exact_at(&mut buffer, from.offset)?;
        let buffer = Bytes::from(buffer);
        let (mut at, mut frame_end) = (0, (from.frame_end - from.offset) as usize);
        let mut position = from.position;
        while at < buffer.len() {
            let fault = |what| self.damage(from.offset + at as u64, Position::new(position), what);
            if at == frame_end {
                let offset = from.offset + at as u64;
                let header = FrameHeader::decode(&buffer[at..], self.mark, offset);
                let header = header.ok_or_else(|| fault("a frame's header does not hold"))?;
                frame_end = (header.end() - from.offset) as usize;
                at += FRAME_HEADER_LEN;
                continue;
            }
            let len = RawRecord::len_of(&buffer[at..]).filter(|len| at + len <= buffer.len());
            let bytes = &buffer[at..at + len.ok_or_else(|| fault("a record is cut off"))?];
            let claimed = RawRecord::position_of(bytes).map_or(0, Position::get);
            let follows = claimed == position || (self.skips && claimed > position);
            position = if follows { claimed } else { position };
            visit(&buffer, bytes, Position::new(position))
                .map_err(|what| self.damage(from.offset + at as u64, Position::new(position), what))?;
            at += bytes.len();
            position += 1;
        }
        Ok(())
    }

    /// Damage of this generation.
    pub(crate) fn damage(&self, offset: u64, position: Position, what: &'static str) -> ReadError {
        ReadError::Corrupt(Damage { generation: self.number, base: self.skips, offset, position, what })
    }
}

fn decode(buffer: &Bytes, bytes: &[u8], at: Position, names: &mut Names) -> Result<Found, &'static str> {
    let record = RawRecord::first_of(bytes)?;
    if record.position() != at {
        return Err("a record is out of place");
    }
    Ok(Found { event: record.decode(buffer, names)?, previous: record.previous() })
}
