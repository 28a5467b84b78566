//! Owns copying the beginning of a log up to a commit: for backups, and back again. The copy holds the very
//! bytes of the journals, so that its hash chain is that of the log, and a note that they are durable.
//! Must never write to the log, nor take what may yet vanish: only what is durable counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::epoch::Identity;
use crate::faults::Faults;
use crate::journal::frame::{FRAME_HEADER_LEN, FrameHeader, JOURNAL_HEADER_LEN, Mark};
use crate::journal::record::RawRecord;
use crate::journal::scan::{Access, Place, Scanned, scan};
use crate::journal::{FILE_NAME, Journal};
use crate::sled_log::fence::Fence;
use crate::sled_log::ledger::Ledger;
use crate::sled_log::open::OpenError;
use crate::sled_log::{folder, identity};
use crate::stream::Position;

/// How long a running server may take to note that its newest commit is durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The whole commits of a log up to a position.
#[derive(Debug)]
pub struct Prefix {
    path: PathBuf,
    parts: Vec<Part>,
    /// The last position in it.
    pub position: Position,
    /// Which log and history.
    pub identity: Identity,
    /// Held when no server runs on the log.
    lock: Option<File>,
    /// The first bytes of the log, which a compaction changes.
    beginning: Option<Vec<u8>>,
}

/// The beginning of one journal.
#[derive(Debug)]
struct Part {
    place: Place,
    len: u64,
}

/// The newest generation, as far as it was read.
struct Newest {
    folder: PathBuf,
    number: u64,
    mark: Mark,
    /// Where its last whole frame ends.
    end: u64,
    /// Whether that frame says that all before it is durable, and nothing else.
    noted: bool,
}

impl Prefix {
    /// Looks for the whole commits up to a position, verifying everything on the way. Beside a running server
    /// too: what was acknowledged before is part of it.
    pub(crate) fn of(path: &Path, until: Position) -> Result<Self, OpenError> {
        Self::within(path, until, DURABLE_WITHIN)
    }

    fn within(path: &Path, until: Position, patience: Duration) -> Result<Self, OpenError> {
        let lock = folder::lock_as_found(path)?;
        let mut prefix = Self {
            path: path.to_owned(),
            parts: Vec::new(),
            position: Position::START,
            beginning: folder::first_bytes(path)?,
            identity: identity::of(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?,
            lock,
        };
        let read = prefix.read(until).and_then(|newest| match newest {
            Some(newest) if prefix.lock.is_none() => Ok(newest.wait_until_durable(path, patience)?),
            _ => Ok(()),
        });
        prefix.unless_compacted(read)?;
        Ok(prefix)
    }

    /// Without the lock a start or a command may have compacted the log meanwhile: then what was found says
    /// nothing about it, nor is what was copied whole.
    fn unless_compacted<T>(&self, found: Result<T, OpenError>) -> Result<T, OpenError> {
        if self.lock.is_none() && folder::first_bytes(&self.path)? != self.beginning {
            return Err(OpenError::Compacted);
        }
        found
    }

    /// Reads generation by generation; gives the newest one unless the prefix ends before it.
    fn read(&mut self, until: Position) -> Result<Option<Newest>, OpenError> {
        let (mut place, number) = folder::extent(&self.path)?;
        let mut ledger = Ledger::new(1);
        while place.generation <= number {
            let is_newest = place.generation == number && !place.base;
            let folder = folder::of(&self.path, &place);
            if is_newest && self.lock.is_some() {
                place.durable = folder::read_marker(&folder).unwrap_or(0);
            }
            let (mut part, mut beyond) = (Part { place, len: JOURNAL_HEADER_LEN as u64 }, false);
            let mut last = self.position;
            let scanned = scan(&folder, place, Access::Looking { until: u64::MAX }, &mut |frame| {
                ledger.learn(frame.records)?;
                let reached = frame.records.last().map_or(last, RawRecord::position);
                beyond |= reached > until;
                if !beyond {
                    (part.len, last) = (frame.offset + frame.payload.len() as u64, reached);
                }
                Ok(())
            });
            let scanned = scanned.map_err(|error| place.missing_is_damage(error))?;
            check_end(&place, &scanned, is_newest)?;
            if place.base {
                // What it no longer holds cannot be left out again: a base is whole or useless.
                (part.len, last) = (scanned.end, Position::new(scanned.last));
                if last > until {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
                }
            } else if !beyond {
                part.len = scanned.end;
            }
            self.position = last;
            self.parts.push(part);
            if beyond {
                return Ok(None);
            }
            if is_newest {
                let (mark, noted) = (scanned.header.mark, scanned.noted);
                return Ok(Some(Newest { folder, number, mark, end: scanned.end, noted }));
            }
            place = place.next(&scanned);
        }
        Ok(None)
    }

    /// Writes it to an empty folder as a log of that identity, durably but for the folder's own name.
    ///
    /// # Errors
    /// When the disk does not take it, or [`OpenError::Compacted`]; what is there then is not whole.
    pub fn copy_to(&self, target: &Path, identity: &Identity) -> Result<(), OpenError> {
        self.unless_compacted(self.copy(target, identity))
    }

    fn copy(&self, target: &Path, identity: &Identity) -> Result<(), OpenError> {
        for Part { place, len } in &self.parts {
            let (from, to) = (folder::of(&self.path, place), folder::of(target, place));
            fs::create_dir(&to)?;
            folder::copy_synced(&from.join(FILE_NAME), &to.join(FILE_NAME), *len)?;
            folder::sync(&to)?;
        }
        if let Some(Part { place, .. }) = self.parts.last().filter(|part| !part.place.base) {
            note_durable(&folder::of(target, place), *place)?;
        }
        Ok(identity::write(target, identity)?)
    }
}

/// So that damage to the last frame of a copy cannot pass for a torn tail.
fn note_durable(folder: &Path, place: Place) -> Result<(), OpenError> {
    let place = Place { durable: 0, ..place };
    let copy = scan(folder, place, Access::Writing, &mut |_| Ok(()))?;
    Ok(Journal::resume(&copy, Faults::default())?.watermark()?)
}

fn check_end(place: &Place, scanned: &Scanned, is_newest: bool) -> Result<(), OpenError> {
    if !is_newest {
        place.ends_sealed(scanned)?;
    } else if place.durable > 0 {
        place.ends_at(place.durable, scanned)?;
    }
    Ok(())
}

impl Newest {
    /// Waits for the word that everything that was read is durable: the next frame says so, a watermark or
    /// not, and so does the next generation.
    fn wait_until_durable(&self, path: &Path, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let journal = File::open(self.folder.join(FILE_NAME))?;
        if self.noted {
            return Ok(());
        }
        loop {
            let mut header = [0; FRAME_HEADER_LEN];
            let follows = journal.read_exact_at(&mut header, self.end).is_ok()
                && FrameHeader::decode(&header, self.mark, self.end).is_some();
            if follows || folder::extent(path)?.1 > self.number {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let sentence = "the server does not note that its newest events are durable; \
                    repeat it, or stop the server first";
                return Err(io::Error::new(io::ErrorKind::TimedOut, sentence));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// A folder whose log nobody can write to any more, as long as this is held.
#[derive(Debug)]
pub struct Seized {
    _lock: File,
    _fence: Fence,
}

impl Seized {
    /// Takes lock and fence of a folder that is there.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let lock = folder::lock(path)?.ok_or(OpenError::Locked)?;
        let fence = Fence::take(path)?.ok_or(OpenError::Locked)?;
        Ok(Self { _lock: lock, _fence: fence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{append, stream};
    use crate::{EventLog, Expected, Options, SledLog};

    #[tokio::test]
    async fn a_server_that_does_not_note_what_is_durable_is_complained_of_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { idle_ms: 3_600_000, ..Options::default() };
        let log = SledLog::open(folder.path(), options).unwrap();
        log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
        match Prefix::within(folder.path(), Position::new(u64::MAX), Duration::ZERO) {
            Err(OpenError::Io(fault)) => {
                assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
                assert!(fault.to_string().contains("repeat it, or stop the server"), "{fault}");
            }
            other => panic!("{other:?}"),
        }
    }
}
