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
    FORMAT, FRAME_HEADER_LEN, FrameHeader, Hash, HeaderError, JOURNAL_HEADER_LEN, JournalHeader, Kind, Mark,
};
use crate::journal::record::{RawRecord, records};
use crate::log::Damage;
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
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    Damaged(Damage),
    NewerFormat(u32),
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What must hold for a journal because of the generation before it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) after: u64,
    pub(crate) previous: Hash,
    /// A byte up to which it is known to be durable, or 0: the clean-close marker's word.
    pub(crate) durable: u64,
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

/// Verifies a journal and shows each frame of events to the visitor.
pub(crate) fn scan(folder: &Path, place: Place, visit: &mut Visitor<'_>) -> Result<Scanned, ScanError> {
    let file = File::options().read(true).write(true).open(folder.join(FILE_NAME))?;
    let len = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(READ_LEN, &file);
    let (header, chain) = read_header(&mut reader, len, place)?;
    let mut scan =
        Scan { place, mark: header.mark, len, end: JOURNAL_HEADER_LEN as u64, last: place.after, chain };
    let mut payload = Vec::new();
    while scan.end < len {
        match scan.frame(&mut reader, &mut payload, visit)? {
            Step::Good => {}
            Step::Bad(bad) => {
                scan.judge(&file, bad)?;
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
    let Scan { end, last, chain, .. } = scan;
    Ok(Scanned { file: Arc::new(file), header, end, last, chain })
}

fn read_header(reader: &mut impl Read, len: u64, place: Place) -> Result<(JournalHeader, Hash), ScanError> {
    let what = "the journal's header does not hold";
    let position = Position::new(place.after + 1);
    let damage = ScanError::Damaged(Damage { generation: place.generation, offset: 0, position, what });
    let mut bytes = [0; JOURNAL_HEADER_LEN];
    if len < bytes.len() as u64 {
        return Err(damage);
    }
    reader.read_exact(&mut bytes)?;
    let header = match JournalHeader::decode(&bytes) {
        Ok(header) => header,
        Err(HeaderError::Newer(format)) if format > FORMAT => return Err(ScanError::NewerFormat(format)),
        Err(_) => return Err(damage),
    };
    let Place { generation, after, previous, .. } = place;
    if header != (JournalHeader { generation, after, previous, mark: header.mark }) {
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
        if header.end() > self.len {
            return bad("a frame is cut off");
        }
        payload.resize(header.payload_len as usize, 0);
        reader.read_exact(payload)?;
        let offset = self.end + FRAME_HEADER_LEN as u64;
        let records = match check_records(payload, &header, offset) {
            Ok(records) => records,
            Err(bad) => return Ok(Step::Bad(bad)),
        };
        // A whole frame in the wrong place is no torn tail: somebody moved it.
        if header.after != self.last || header.previous != self.chain {
            let what = "a frame does not follow the one before";
            return Err(self.damage(Bad { offset: self.end, after: self.last, what }));
        }
        if header.kind == Kind::Events {
            let frame = Frame { offset, payload, records: &records };
            visit(&frame)
                .map_err(|(index, what)| self.damage(bad_record(&records, index, offset, self.last, what)))?;
        }
        self.chain = blake3::Hasher::new().update(&header_bytes).update(payload).finalize().into();
        self.end = header.end();
        self.last += u64::from(header.count);
        Ok(Step::Good)
    }

    /// A bad frame is damage if it was durable once: if a good frame follows, or the marker says so.
    fn judge(&self, file: &File, bad: Bad) -> Result<(), ScanError> {
        let mut rest = vec![0; (self.len - self.end) as usize];
        file.read_exact_at(&mut rest, self.end)?;
        let follows = rest.windows(self.mark.len()).enumerate().skip(1).any(|(at, window)| {
            window == self.mark && FrameHeader::decode(&rest[at..], self.mark, self.end + at as u64).is_some()
        });
        if follows || self.end < self.place.durable {
            return Err(self.damage(bad));
        }
        tracing::warn!(
            generation = self.place.generation,
            offset = self.end,
            bytes = rest.len(),
            what = bad.what,
            "cutting off the torn tail of the journal"
        );
        Ok(())
    }

    fn damage(&self, bad: Bad) -> ScanError {
        let position = Position::new(bad.after + 1);
        let Place { generation, .. } = self.place;
        ScanError::Damaged(Damage { generation, offset: bad.offset, position, what: bad.what })
    }
}

fn check_records<'a>(
    payload: &'a [u8],
    header: &FrameHeader,
    offset: u64,
) -> Result<Vec<RawRecord<'a>>, Bad> {
    let mut found = Vec::with_capacity((header.count as usize).min(payload.len() / 64));
    for record in records(payload) {
        match record {
            Ok(record) if record.position().get() == header.after + 1 + found.len() as u64 => {
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
    Bad { offset: offset + before as u64, after: after + index as u64, what }
}
