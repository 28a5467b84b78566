//! Owns the making of a base: what is kept of the generations up to a number, in one journal that takes their
//! place by a single rename. Must never change a record that stays: they keep position, version, id and time.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::journal::frame::BaseEnd;
use crate::journal::record::{Names, encode};
use crate::journal::scan::{Access, Place, scan};
use crate::journal::{FrameBuffer, Journal};
use crate::log::{APPEND_MAX_BYTES, name_is_valid};
use crate::record::Recorded;
use crate::sled_log::audit::Walk;
use crate::sled_log::fence::Fence;
use crate::sled_log::folder;
use crate::sled_log::identity;
use crate::sled_log::ledger::Ledger;
use crate::sled_log::open::{OpenError, check_format};
use crate::stream::{Position, StreamId};

/// A frame of a base holds at most this much, or one record. Of a damaged base what is before the damaged
/// frame can still be shown.
const FRAME_LEN: usize = 1 << 14;

/// No log gets so far; behind it, positions must still be left.
const POSITION_MAX: Position = Position::new(1 << 53);

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compaction {
    /// How many streams were removed.
    pub streams: u64,
    /// How many events.
    pub events: u64,
    /// The bytes of journal that were freed.
    pub bytes: u64,
    /// Up to here events may be missing now.
    pub floor: Position,
}

/// A base in the making.
struct Base {
    path: PathBuf,
    folder: PathBuf,
    number: u64,
    journal: Journal,
    frame: FrameBuffer,
    last: u64,
    committed: bool,
}

/// What did not take its place is of no use, and takes space.
impl Drop for Base {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Base {
    fn begin(path: &Path, number: u64) -> io::Result<Self> {
        let folder = folder::begin_base(path, number)?;
        let journal = Journal::create_base(&folder, number)?;
        let (path, frame) = (path.to_owned(), FrameBuffer::new());
        Ok(Self { path, folder, number, journal, frame, last: 0, committed: false })
    }

    fn keep(&mut self, position: Position, record: &[u8]) -> io::Result<()> {
        if self.frame.payload().len() + record.len() > FRAME_LEN {
            self.write()?;
        }
        self.frame.record(|bytes| bytes.extend_from_slice(record));
        self.last = position.get();
        Ok(())
    }

    /// Writes an event that begins its stream, in the place of one that goes.
    fn carry(&mut self, event: &Recorded) -> io::Result<()> {
        let mut record = Vec::new();
        encode(event, Position::START, &mut record);
        self.keep(event.position, &record)
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.frame.is_empty() {
            self.journal.append_kept(&mut self.frame, self.last)?;
            self.frame.clear();
        }
        Ok(())
    }

    /// Ends it, reads it once more, and lets it take its place.
    fn commit(mut self, end: impl FnOnce(&Journal) -> BaseEnd) -> Result<u64, OpenError> {
        self.write()?;
        let end = end(&self.journal);
        self.journal.end_base(&end)?;
        let place = Place::of_base(self.number);
        let mut ledger = Ledger::new(1);
        let look = Access::Looking { until: u64::MAX };
        let scanned = scan(&self.folder, place, look, &mut |frame| ledger.learn(frame.records))?;
        place.ends_sealed(&scanned)?;
        // From here on it may be there under its name.
        self.committed = true;
        folder::commit_base(&self.path, self.number)?;
        Ok(scanned.end)
    }
}

/// What a compaction asks of its caller.
pub trait Retention {
    /// Sees every event of the log, in order.
    fn look(&mut self, event: &Recorded);

    /// Which streams may go, after every event was seen.
    /// The log's last event has that time.
    fn choose(&mut self, last_time_us: i64) -> HashSet<StreamId>;

    /// Streams that go too when these do, since what is carried over takes their place. They hold nothing
    /// that is newer.
    fn replaced(&mut self, _going: &HashSet<StreamId>) -> HashSet<StreamId> {
        HashSet::new()
    }

    /// Sees every event of the part of the log that is written anew, in order, once it is known what goes.
    fn fold(&mut self, _event: &Recorded) {}

    /// How many events shall take places of events that go, after every event of that part was folded: of
    /// streams that go or do not exist, one for each, and no more than go. The part ends at `floor`.
    fn carried(&mut self, _going: &HashSet<StreamId>, _floor: Position) -> usize {
        0
    }

    /// The next event that takes the place of one that goes.
    ///
    /// # Errors
    /// When there is none: then nothing goes.
    fn carry(&mut self, _place: Position, _time_us: i64) -> io::Result<Recorded> {
        Err(io::Error::other("nothing is carried over"))
    }

    /// Gets each event that goes, in order, before it goes.
    ///
    /// # Errors
    /// When it cannot be kept elsewhere: then nothing goes.
    fn archive(&mut self, event: &Recorded) -> io::Result<()>;

    /// Every event that goes was given: what was kept elsewhere must be durable after this.
    ///
    /// # Errors
    /// As [`Retention::archive`].
    fn archived(&mut self) -> io::Result<()>;
}

/// Removes streams as a whole from the sealed generations of a log that nobody has open. Those that have an
/// event in the newest generation stay, and so does that with the newest event: the history that readers get
/// reaches the end of the log. Nothing is done when fewer than `worth` bytes would be freed.
pub(crate) fn compact(
    path: &Path,
    worth: u64,
    retention: &mut dyn Retention,
) -> Result<Compaction, OpenError> {
    let _lock = folder::lock(path)?.ok_or(OpenError::Locked)?;
    check_format(path)?;
    folder::remove_unfinished(path)?;
    if folder::sealed_bytes(path)? < worth {
        return Ok(Compaction::default());
    }
    let mut names = Names::default();
    let mut sizes: HashMap<StreamId, u64> = HashMap::new();
    let mut walk = Walk::of(path, None)?;
    walk.on(&mut |frame| {
        for (index, record) in frame.records.iter().enumerate() {
            let event = record.to_recorded(&mut names).map_err(|what| (index, what))?;
            *sizes.entry(event.stream.clone()).or_default() += record.len() as u64;
            retention.look(&event);
        }
        Ok(())
    })?;
    folder::remove_replaced(path)?;
    let (sealed, newest) = (walk.sealed_end(), walk.ledger.last());
    let mut going = retention.choose(walk.ledger.last_time_us());
    let heads = walk.ledger.heads().read();
    let may_go = |position| position <= sealed && position != newest;
    let is_sealed = |stream: &StreamId| heads.get(stream.as_str()).is_some_and(|head| may_go(head.position));
    going.retain(&is_sealed);
    if !going.is_empty() {
        going.extend(retention.replaced(&going).into_iter().filter(&is_sealed));
    }
    drop(heads);
    let bytes = going.iter().filter_map(|stream| sizes.get(stream)).sum();
    if going.is_empty() || bytes < worth {
        return Ok(Compaction::default());
    }
    // A base begins with other bytes, and yet it is the same history.
    identity::keep(path)?;
    let _fence = Fence::take(path)?.ok_or(OpenError::Locked)?;
    let events = rewrite(path, &going, retention)?;
    folder::remove_replaced(path)?;
    Ok(Compaction { streams: going.len() as u64, events, bytes, floor: sealed })
}

/// Makes a base of the sealed generations without some streams; says how many events went.
fn rewrite(path: &Path, going: &HashSet<StreamId>, retention: &mut dyn Retention) -> Result<u64, OpenError> {
    let carried_from = carried_from(path, going, retention)?;
    let mut walk = Walk::of_sealed(path)?;
    let mut base = Base::begin(path, walk.newest())?;
    let (mut names, mut gone, mut failed) = (Names::default(), 0, None);
    let walked = walk.on(&mut |frame| {
        for (index, record) in frame.records.iter().enumerate() {
            let done = if going.contains(record.stream()) {
                gone += 1;
                let event = record.to_recorded(&mut names).map_err(|what| (index, what))?;
                retention.archive(&event).and_then(|()| match event.position >= carried_from {
                    true => base.carry(&retention.carry(event.position, event.time_us)?),
                    false => Ok(()),
                })
            } else {
                base.keep(record.position(), record.bytes())
            };
            done.map_err(|error| {
                failed = Some(error);
                (index, "it could not be written elsewhere")
            })?;
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    walked?;
    retention.archived()?;
    let last_time_us = walk.ledger.last_time_us();
    let (last, chain) = walk.end();
    base.commit(|_| BaseEnd { last, last_time_us, chain })?;
    Ok(gone)
}

/// From which position on events that go are replaced by what is carried over: the last ones of them.
fn carried_from(
    path: &Path,
    going: &HashSet<StreamId>,
    retention: &mut dyn Retention,
) -> Result<Position, OpenError> {
    let mut walk = Walk::of_sealed(path)?;
    let (mut names, mut places) = (Names::default(), Vec::new());
    walk.on(&mut |frame| {
        for (index, record) in frame.records.iter().enumerate() {
            if going.contains(record.stream()) {
                places.push(record.position());
            }
            retention.fold(&record.to_recorded(&mut names).map_err(|what| (index, what))?);
        }
        Ok(())
    })?;
    let carried = retention.carried(going, Position::new(walk.end().0));
    let enough = places.len().checked_sub(carried);
    let first = enough.ok_or_else(|| io::Error::other("more is carried over than goes"))?;
    Ok(places.get(first).copied().unwrap_or(POSITION_MAX))
}

/// Writes events that have their places already to a folder that has no log: all of them, or none.
pub(crate) fn restore(
    path: &Path,
    events: &mut dyn Iterator<Item = io::Result<Recorded>>,
) -> Result<u64, OpenError> {
    folder::create(path)?;
    let _lock = folder::lock(path)?.ok_or(OpenError::Locked)?;
    folder::remove_unfinished(path)?;
    if folder::extent(path)?.1 > 0 {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    let mut base = Base::begin(path, 1)?;
    let mut heads: HashMap<StreamId, Position> = HashMap::new();
    let (mut count, mut last_time_us) = (0, i64::MIN);
    for event in events {
        let event = event?;
        let previous = heads.insert(event.stream.clone(), event.position).unwrap_or(Position::START);
        let mut record = Vec::new();
        encode(&event, previous, &mut record);
        check(&event, record.len(), last_time_us)?;
        base.keep(event.position, &record)?;
        (count, last_time_us) = (count + 1, event.time_us);
    }
    let last = base.last;
    base.commit(|journal| BaseEnd { last, last_time_us, chain: journal.chain() })?;
    Ok(count)
}

/// Whether an event of so many bytes can stand behind one of that time.
fn check(event: &Recorded, bytes: usize, last_time_us: i64) -> io::Result<()> {
    let what = if event.position > POSITION_MAX {
        "has an impossible position"
    } else if event.time_us < last_time_us {
        "is older than the event before it"
    } else if !name_is_valid(&event.name) {
        "has an impossible name"
    } else if bytes > APPEND_MAX_BYTES {
        "is too large"
    } else {
        return Ok(());
    };
    let sentence = format!("the event at position {} {what}", event.position);
    Err(io::Error::new(io::ErrorKind::InvalidData, sentence))
}
