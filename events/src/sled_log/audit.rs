//! Owns looking at a log from its first event to its last without changing anything: for an audit, and to
//! show what is whole of a log that is damaged. Must never write, cut or delete, whatever it finds.

use std::path::Path;
use std::sync::Arc;

use crate::journal::frame::Hash;
use crate::journal::record::Names;
use crate::journal::scan::{Access, Place, Scanned, Visitor, scan};
use crate::log::{Damage, Floor};
use crate::record::Recorded;
use crate::sled_log::folder;
use crate::sled_log::generation::{Generation, Index};
use crate::sled_log::ledger::Ledger;
use crate::sled_log::open::OpenError;
use crate::stream::Position;

/// What an audit found: everything holds together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How many generations there are.
    pub generations: u64,
    /// How many events.
    pub events: u64,
    /// How many streams.
    pub streams: u64,
    /// The position of the first event; [`Position::START`] when there is none.
    pub first: Position,
    /// The position of the last one.
    pub last: Position,
    /// The journals' bytes that hold together.
    pub bytes: u64,
    /// What an unfinished write left at the end, in bytes: never acknowledged, cut off by the next start.
    pub torn_bytes: u64,
    /// The head of the hash chain: two logs with the same head hold the same events.
    pub head: [u8; 32],
}

/// Sees each event in order, and may find fault with it.
pub type EachEvent<'a> = dyn FnMut(&Recorded) -> Result<(), &'static str> + 'a;

/// Walks a log that nobody has open, and shows each event. The folder must be there.
pub(crate) fn audit(path: &Path, each: &mut EachEvent<'_>) -> Result<Audit, OpenError> {
    let _lock = folder::lock_as_found(path)?.ok_or(OpenError::Locked)?;
    let mut names = Names::default();
    let mut audit = Audit {
        generations: 0,
        events: 0,
        streams: 0,
        first: Position::START,
        last: Position::START,
        bytes: 0,
        torn_bytes: 0,
        head: Hash::default(),
    };
    let mut walk = Walk::of(path, None)?;
    walk.on(&mut |frame| {
        for (index, record) in frame.records.iter().enumerate() {
            let at = |what| (index, what);
            each(&record.to_recorded(&mut names).map_err(at)?).map_err(at)?;
        }
        audit.events += frame.records.len() as u64;
        if let Some(first) = frame.records.first().filter(|_| audit.first == Position::START) {
            audit.first = first.position();
        }
        Ok(())
    })?;
    let Walk { ledger, generations, torn_bytes, bytes, place, .. } = walk;
    audit.generations = generations.len() as u64;
    audit.streams = ledger.heads().read().len();
    (audit.last, audit.head) = (ledger.last(), place.previous);
    (audit.bytes, audit.torn_bytes) = (bytes, torn_bytes);
    Ok(audit)
}

/// The part of a log that holds together, and what comes after it.
pub(crate) struct Whole {
    pub(crate) generations: Vec<Arc<Generation>>,
    pub(crate) ledger: Ledger,
    pub(crate) damage: Option<Damage>,
    /// Up to here events may be missing that were removed.
    pub(crate) floor: Floor,
}

/// Reads what is whole of a log: everything before the commit that holds the first damage.
pub(crate) fn whole(path: &Path) -> Result<Whole, OpenError> {
    let mut walk = Walk::of(path, None)?;
    let found = match walk.on(&mut |_| Ok(())) {
        Ok(()) => None,
        Err(OpenError::Corrupt(damage)) => Some(damage),
        Err(error) => return Err(error),
    };
    if found.is_some() {
        // From the start again: of the damaged frame something may have been learnt already.
        walk = Walk::of(path, Some(walk.good))?;
        walk.on(&mut |_| Ok(()))?;
    }
    let Walk { generations, ledger, floor, .. } = walk;
    Ok(Whole { generations, ledger, damage: found, floor })
}

/// A byte of a journal.
#[derive(Clone, Copy)]
pub(crate) struct Byte {
    generation: u64,
    offset: u64,
}

/// A walk over a log, from its oldest generation on.
pub(crate) struct Walk<'a> {
    path: &'a Path,
    newest: u64,
    /// Whether the walk ends before the generation that is still written to.
    sealed: bool,
    /// Where to stop instead of at the end.
    stop: Option<Byte>,
    place: Place,
    floor: Floor,
    pub(crate) ledger: Ledger,
    generations: Vec<Arc<Generation>>,
    /// Everything before this byte holds together.
    good: Byte,
    bytes: u64,
    torn_bytes: u64,
}

impl<'a> Walk<'a> {
    /// A walk over all that is sealed: nothing is, in a log of one generation.
    pub(crate) fn of_sealed(path: &'a Path) -> Result<Self, OpenError> {
        let walk = Self::of(path, None)?;
        Ok(Self { newest: walk.newest.saturating_sub(1), sealed: true, ..walk })
    }

    /// The number of its last generation.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The last position that is sealed, after a walk over everything.
    pub(crate) fn sealed_end(&self) -> Position {
        self.generations.last().map_or(Position::START, |newest| newest.after)
    }

    /// The last position, and the hash of the last frame.
    pub(crate) fn end(&self) -> (u64, Hash) {
        (self.place.after, self.place.previous)
    }

    pub(crate) fn of(path: &'a Path, stop: Option<Byte>) -> Result<Self, OpenError> {
        let (place, newest) = folder::extent(path)?;
        Ok(Self {
            path,
            newest: stop.map_or(newest, |stop| stop.generation),
            sealed: false,
            stop,
            place,
            floor: Floor::NONE,
            // Nothing will be appended: no id has to be recognised.
            ledger: Ledger::new(1),
            generations: Vec::new(),
            good: Byte { generation: place.generation, offset: 0 },
            bytes: 0,
            torn_bytes: 0,
        })
    }

    pub(crate) fn on(&mut self, each: &mut Visitor<'_>) -> Result<(), OpenError> {
        while self.place.generation <= self.newest {
            let place = self.place;
            self.good = Byte { generation: place.generation, offset: 0 };
            let stop = self.stop.filter(|stop| stop.generation == place.generation).map(|stop| stop.offset);
            if stop == Some(0) {
                return Ok(());
            }
            self.generation(stop, each)?;
        }
        Ok(())
    }

    fn generation(&mut self, stop: Option<u64>, each: &mut Visitor<'_>) -> Result<(), OpenError> {
        let folder = folder::of(self.path, &self.place);
        let is_newest = self.place.generation == self.newest && !self.place.base && !self.sealed;
        let closed = if is_newest && stop.is_none() { folder::read_marker(&folder) } else { None };
        let place = Place { durable: closed.unwrap_or(0), ..self.place };
        let mut index = Index::default();
        let access = Access::Looking { until: stop.unwrap_or(u64::MAX) };
        let (ledger, good) = (&mut self.ledger, &mut self.good);
        let scanned = scan(&folder, place, access, &mut |frame| {
            ledger.learn(frame.records)?;
            each(frame)?;
            index.add(frame.offset, frame.payload);
            good.offset = frame.offset + frame.payload.len() as u64;
            Ok(())
        });
        let scanned = scanned.map_err(|error| place.missing_is_damage(error))?;
        match closed {
            _ if stop.is_some() => {}
            Some(durable) => place.ends_at(durable, &scanned)?,
            None if is_newest => self.torn_bytes = scanned.file.metadata()?.len() - scanned.end,
            None => place.ends_sealed(&scanned)?,
        }
        self.bytes += scanned.end;
        self.ledger.reached(&scanned);
        if place.base {
            self.floor = scanned.floor();
        }
        self.place = place.next(&scanned);
        let Scanned { file, header, .. } = scanned;
        self.generations.push(Arc::new(Generation::new(folder, &header, file, index)));
        Ok(())
    }
}
