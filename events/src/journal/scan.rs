//! Owns the verification of a journal when it is opened, frame by frame, and the judgement on what does
//! not hold. Must never repair: it says where a torn tail begins, and names damage.
//!
//! A frame is only begun when everything before it is durable. So a bad frame with a good one after it was
//! durable once and is damaged; a bad frame with nothing good after it is the tail of a write that was not
//! finished.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::journal::FILE_NAME;
use crate::journal::frame::{
    BaseEnd, FRAME_HEADER_LEN, FrameHeader, Hash, HeaderError, JOURNAL_HEADER_LEN, JournalHeader, Kind, Mark,
    OtherFormat,
};
use crate::journal::record::{RawRecord, records};
use crate::log::{Damage, Floor};
use crate::planted::Planted;
use crate::stream::Position;

/// How much is read at once.
const READ_LEN: usize = 1 << 20;

/// A journal that holds together.
#[derive(Clone)]
pub(crate) struct Scanned {
    pub(crate) file: Arc<File>,
    pub(crate) header: JournalHeader,
    /// Where the last good frame ends; what follows is a torn tail.
    pub(crate) end: u64,
    /// The last position.
    pub(crate) last: u64,
    /// The hash of the last frame, or of the header if there is none.
    pub(crate) chain: Hash,
    /// Whether the last frame is none of events, or there is none.
    pub(crate) noted: bool,
    /// The last time of the generations of which a base was kept.
    pub(crate) last_time_us: Option<i64>,
    /// How many events there are.
    events: u64,
    /// What does not hold at the end, if anything follows it.
    torn: Option<Bad>,
}

impl Scanned {
    /// Up to where events may be missing, behind a base. Of some bases nothing was removed.
    pub(crate) fn floor(&self) -> Floor {
        let time_us = self.last_time_us.filter(|_| self.events < self.last);
        let floor = |time_us| Floor { position: Position::new(self.last), time_us };
        time_us.map_or(Floor::NONE, floor)
    }
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    Damaged(Damage),
    /// Another version of the program wrote the journal.
    Format(OtherFormat),
    /// A newer version of the program wrote the record at that position.
    NewerRecord(Position),
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What must hold for a journal because of the generation before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) after: u64,
    pub(crate) previous: Hash,
    /// A byte up to which it is known to be durable, or 0: the clean-close marker's word.
    pub(crate) durable: u64,
    /// Whether it is what was kept of the generations up to this number.
    pub(crate) base: bool,
}

impl Place {
    /// The place of the first generation.
    pub(crate) const FIRST: Self =
        Self { generation: 1, after: 0, previous: [0; 32], durable: 0, base: false };

    /// The place of a base.
    pub(crate) fn of_base(generation: u64) -> Self {
        Self { generation, base: true, ..Self::FIRST }
    }

    /// The place of the generation after this one.
    pub(crate) fn next(&self, scanned: &Scanned) -> Self {
        let Scanned { last, chain, .. } = scanned;
        Self { generation: self.generation + 1, after: *last, previous: *chain, durable: 0, base: false }
    }

    /// Checks that a sealed generation is whole to its last byte.
    pub(crate) fn ends_sealed(&self, scanned: &Scanned) -> Result<(), ScanError> {
        self.ends(
            scanned,
            scanned.file.metadata()?.len(),
            "a sealed generation does not end with a whole frame",
        )?;
        if self.base && scanned.last_time_us.is_none() {
            // Cut off between two frames.
            return self.ends(scanned, u64::MAX, "a base has no end");
        }
        Ok(())
    }

    /// Checks that nothing follows the byte at which the generation was closed.
    pub(crate) fn ends_at(&self, durable: u64, scanned: &Scanned) -> Result<(), ScanError> {
        self.ends(scanned, durable, "the journal goes on after a clean close")
    }

    fn ends(&self, scanned: &Scanned, end: u64, what: &'static str) -> Result<(), ScanError> {
        if scanned.end == end {
            return Ok(());
        }
        let Scanned { end: offset, last: after, torn, .. } = scanned;
        let Bad { offset, after, .. } = torn.unwrap_or(Bad { offset: *offset, after: *after, what });
        let Self { generation, base, .. } = *self;
        let position = Position::new(after + 1);
        Err(ScanError::Damaged(Damage { generation, base, offset, position, what }))
    }

    /// A generation whose journal is gone is a hole in the log, not a fault of the disk.
    pub(crate) fn missing_is_damage(&self, error: ScanError) -> ScanError {
        match error {
            ScanError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                let Self { generation, base, .. } = *self;
                let (position, what) = (Position::new(self.after + 1), "its journal is missing");
                ScanError::Damaged(Damage { generation, base, offset: 0, position, what })
            }
            error => error,
        }
    }
}

/// One good frame, as the visitor gets it.
pub(crate) struct Frame<'a> {
    /// Where its records begin in the file.
    pub(crate) offset: u64,
    pub(crate) payload: &'a [u8],
    pub(crate) records: &'a [RawRecord<'a>],
}

/// Sees each good frame of events, and may find fault with a record, by its index.
pub(crate) type Visitor<'a> = dyn FnMut(&Frame<'_>) -> Result<(), (usize, &'static str)> + 'a;

/// What may be done with a journal's file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// It will be written to, or cut.
    Writing,
    /// Nothing but looking at it, and not beyond this byte.
    Looking { until: u64 },
}

/// Verifies a journal and shows each frame of events to the visitor.
pub(crate) fn scan(
    folder: &Path,
    place: Place,
    access: Access,
    visit: &mut Visitor<'_>,
) -> Result<Scanned, ScanError> {
    let (writing, until) = match access {
        Access::Writing => (true, u64::MAX),
        Access::Looking { until } => (false, until),
    };
    let file = File::options().read(true).write(writing).open(folder.join(FILE_NAME))?;
    let len = file.metadata()?.len().min(until);
    let mut reader = BufReader::with_capacity(READ_LEN, &file);
    let (header, chain) = read_header(&mut reader, len, place)?;
    let (mark, end, last) = (header.mark, JOURNAL_HEADER_LEN as u64, place.after);
    let mut scan = Scan { place, mark, len, end, last, chain, noted: true, last_time_us: None, events: 0 };
    let (mut payload, mut torn) = (Vec::new(), None);
    while scan.end < len {
        match scan.frame(&mut reader, &mut payload, visit)? {
            Step::Good => {}
            Step::Bad(bad) => {
                scan.judge(&file, bad)?;
                torn = Some(bad);
                break;
            }
        }
    }
    if scan.end < place.durable {
        return Err(scan.damage(Bad {
            offset: scan.end,
            after: scan.last,
            what: "durable frames are missing",
        }));
    }
    let Scan { end, last, chain, noted, last_time_us, events, .. } = scan;
    Ok(Scanned { file: Arc::new(file), header, end, last, chain, noted, last_time_us, events, torn })
}

fn read_header(reader: &mut impl Read, len: u64, place: Place) -> Result<(JournalHeader, Hash), ScanError> {
    let what = "the journal's header does not hold";
    let position = Position::new(place.after + 1);
    let damage = ScanError::Damaged(Damage {
        generation: place.generation,
        base: place.base,
        offset: 0,
        position,
        what,
    });
    let mut bytes = [0; JOURNAL_HEADER_LEN];
    if len < bytes.len() as u64 {
        return Err(damage);
    }
    reader.read_exact(&mut bytes)?;
    let header = match JournalHeader::decode(&bytes) {
        Ok(header) => header,
        Err(HeaderError::Other(format)) => return Err(ScanError::Format(format)),
        Err(HeaderError::Damaged) => return Err(damage),
    };
    let Place { generation, after, previous, base, .. } = place;
    if header != (JournalHeader { generation, after, previous, base, mark: header.mark }) {
        return Err(damage);
    }
    Ok((header, blake3::hash(&bytes).into()))
}

struct Scan {
    place: Place,
    mark: Mark,
    len: u64,
    end: u64,
    last: u64,
    chain: Hash,
    noted: bool,
    last_time_us: Option<i64>,
    events: u64,
}

enum Step {
    Good,
    Bad(Bad),
}

/// Something that does not hold.
#[derive(Clone, Copy)]
struct Bad {
    offset: u64,
    /// The last position that can be trusted.
    after: u64,
    what: &'static str,
}

impl Scan {
    fn frame(
        &mut self,
        reader: &mut impl Read,
        payload: &mut Vec<u8>,
        visit: &mut Visitor<'_>,
    ) -> Result<Step, ScanError> {
        let bad = |what| Ok(Step::Bad(Bad { offset: self.end, after: self.last, what }));
        if self.len - self.end < FRAME_HEADER_LEN as u64 {
            return bad("a frame is cut off");
        }
        let mut header_bytes = [0; FRAME_HEADER_LEN];
        reader.read_exact(&mut header_bytes)?;
        let Some(header) = FrameHeader::decode(&header_bytes, self.mark, self.end) else {
            return bad("a frame's header does not hold");
        };
        let offset = self.end + FRAME_HEADER_LEN as u64;
        // Of a frame that is cut off, the records that are there say where.
        let payload_len = u64::from(header.payload_len).min(self.len - offset);
        payload.resize(payload_len as usize, 0);
        reader.read_exact(payload)?;
        let whole = header.end() <= self.len;
        if header.kind == Kind::End && whole && self.place.base && self.last_time_us.is_none() {
            return Ok(self.end_base(&header, payload));
        }
        let records = match check_records(payload, &header, offset, self.place.base) {
            Ok(_) if !whole => return bad("a frame is cut off"),
            Ok(_) if self.last_time_us.is_some() || header.kind == Kind::End => {
                return bad("a frame is out of place");
            }
            Ok(records) => records,
            Err(bad) => return Ok(Step::Bad(bad)),
        };
        // A whole frame in the wrong place is no torn tail: somebody moved it.
        if header.after != self.last || header.previous != self.chain {
            let what = "a frame does not follow the one before";
            return Err(self.damage(Bad { offset: self.end, after: self.last, what }));
        }
        // What this version cannot read it must not cut off as a torn tail, nor call damaged.
        if let Some(newer) = records.iter().find(|record| record.unknown_flags().is_some()) {
            return Err(ScanError::NewerRecord(newer.position()));
        }
        if header.kind == Kind::Events {
            let frame = Frame { offset, payload, records: &records };
            visit(&frame)
                .map_err(|(index, what)| self.damage(bad_record(&records, index, offset, self.last, what)))?;
        }
        self.chain = blake3::Hasher::new().update(&header_bytes).update(payload).finalize().into();
        self.end = header.end();
        self.noted = header.kind != Kind::Events;
        self.events += records.len() as u64;
        self.last = records.last().map_or(self.last, |record| record.position().get());
        Ok(Step::Good)
    }

    /// Takes over where the generations ended of which a base was kept.
    fn end_base(&mut self, header: &FrameHeader, payload: &[u8]) -> Step {
        let follows = header.previous == self.chain && header.after == self.last;
        match BaseEnd::decode(payload).filter(|end| follows && end.last >= self.last) {
            Some(BaseEnd { last, last_time_us, chain }) => {
                (self.last, self.chain, self.last_time_us) = (last, chain, Some(last_time_us));
                self.end = header.end();
                Step::Good
            }
            None => {
                Step::Bad(Bad { offset: self.end, after: self.last, what: "the end of a base does not hold" })
            }
        }
    }

    /// A bad frame is damage if it was durable once: if a good frame follows, or the marker says so.
    fn judge(&self, file: &File, bad: Bad) -> Result<(), ScanError> {
        if self.place.base {
            // It was read once more before it took its place: nothing of it was ever unfinished.
            return Err(self.damage(bad));
        }
        let mut rest = vec![0; (self.len - self.end) as usize];
        file.read_exact_at(&mut rest, self.end)?;
        let follows = rest.windows(self.mark.len()).enumerate().skip(1).any(|(at, window)| {
            window == self.mark && FrameHeader::decode(&rest[at..], self.mark, self.end + at as u64).is_some()
        });
        let was_durable = follows || self.end < self.place.durable;
        if was_durable != Planted::TornTailRuleReversed.is_asked_for() {
            return Err(self.damage(bad));
        }
        tracing::warn!(
            generation = self.place.generation,
            offset = self.end,
            bytes = rest.len(),
            what = bad.what,
            "the journal ends in a torn tail, which was never acknowledged"
        );
        Ok(())
    }

    fn damage(&self, bad: Bad) -> ScanError {
        let position = Position::new(bad.after + 1);
        let Place { generation, base, .. } = self.place;
        ScanError::Damaged(Damage { generation, base, offset: bad.offset, position, what: bad.what })
    }
}

fn check_records<'a>(
    payload: &'a [u8],
    header: &FrameHeader,
    offset: u64,
    may_skip: bool,
) -> Result<Vec<RawRecord<'a>>, Bad> {
    let mut found: Vec<RawRecord<'a>> = Vec::with_capacity((header.count as usize).min(payload.len() / 64));
    let mut last = header.after;
    for record in records(payload) {
        match record {
            Ok(record)
                if record.position().get() == last + 1 || (may_skip && record.position().get() > last) =>
            {
                last = record.position().get();
                found.push(record);
            }
            Ok(_) => {
                return Err(bad_record(
                    &found,
                    found.len(),
                    offset,
                    header.after,
                    "a record is out of place",
                ));
            }
            Err(what) => return Err(bad_record(&found, found.len(), offset, header.after, what)),
        }
    }
    if found.len() == header.count as usize {
        return Ok(found);
    }
    Err(bad_record(&found, found.len(), offset, header.after, "a frame has too few records"))
}

fn bad_record(records: &[RawRecord<'_>], index: usize, offset: u64, after: u64, what: &'static str) -> Bad {
    let before: usize = records[..index].iter().map(RawRecord::len).sum();
    // Where positions skip, the next one is not known: it is after the last good one.
    let after = index.checked_sub(1).map_or(after, |last| records[last].position().get());
    Bad { offset: offset + before as u64, after, what }
}
