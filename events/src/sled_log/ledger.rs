//! Owns what the writer must know to decide: heads of streams, recent ids, the last position and time.
//! Must never show what is only staged: a commit that fails leaves no trace here.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::journal::record::{Names, RawRecord};
use crate::journal::scan::Scanned;
use crate::log::{Append, AppendError, Head, Refusal};
use crate::record::{EventId, NewEvent, Recorded};
use crate::sled_log::heads::Heads;
use crate::stream::{Position, StreamId, Version};

const NO_HEAD: Head = Head { version: Version::NONE, position: Position::START };

/// The writer's knowledge: what is durable, and on top what the commit in the making adds.
pub(crate) struct Ledger {
    heads: Arc<RwLock<Heads>>,
    recent: RecentIds,
    last: Position,
    last_time_us: i64,
    staged: Staged,
}

struct Staged {
    heads: HashMap<StreamId, Head>,
    ids: HashMap<EventId, Seen>,
    last: Position,
    last_time_us: i64,
}

/// The event that has an id.
#[derive(Clone, Copy)]
struct Seen {
    head: Head,
    /// A checksum of the stream's name, which is all that is asked of it.
    stream: u32,
}

/// What is to be done with an append.
pub(crate) enum Verdict {
    /// Stage it.
    New,
    /// It is durable already.
    Repeated(Head),
    /// It is part of the commit in the making.
    Staged(Head),
    No(AppendError),
}

impl Ledger {
    /// Knows an empty log.
    pub(crate) fn new(recent_ids: usize) -> Self {
        let (last, last_time_us) = (Position::START, i64::MIN);
        let staged = Staged { heads: HashMap::new(), ids: HashMap::new(), last, last_time_us };
        Self { heads: Arc::default(), recent: RecentIds::new(recent_ids), last, last_time_us, staged }
    }

    pub(crate) fn heads(&self) -> &Arc<RwLock<Heads>> {
        &self.heads
    }

    /// Learns durable records, when the log is opened; says which one does not follow from those before.
    pub(crate) fn learn(&mut self, records: &[RawRecord<'_>]) -> Result<(), (usize, &'static str)> {
        let mut heads = self.heads.write();
        for (index, record) in records.iter().enumerate() {
            let head = Head { version: record.version(), position: record.position() };
            let last = heads.get(record.stream()).unwrap_or(NO_HEAD);
            if head.version != last.version.next() || record.previous() != last.position {
                return Err((index, "a record does not follow the one before in its stream"));
            }
            let stream = StreamId::parse(record.stream());
            heads.put(&stream.map_err(|_| (index, "a record has an impossible stream"))?, head);
            self.recent.insert(record.id(), Seen { head, stream: checksum(record.stream()) });
            self.last = head.position;
            self.last_time_us = self.last_time_us.max(record.time_us());
        }
        (self.staged.last, self.staged.last_time_us) = (self.last, self.last_time_us);
        Ok(())
    }

    /// Goes on where a journal ends, which a base does behind the last of its records.
    pub(crate) fn reached(&mut self, scanned: &Scanned) {
        self.last = self.last.max(Position::new(scanned.last));
        self.last_time_us = self.last_time_us.max(scanned.last_time_us.unwrap_or(i64::MIN));
        (self.staged.last, self.staged.last_time_us) = (self.last, self.last_time_us);
    }

    /// Decides about an append, as if everything staged were durable.
    pub(crate) fn judge(&self, append: &Append) -> Verdict {
        let stream = checksum(append.stream.as_str());
        let (mut durable, mut staged, mut elsewhere, mut last) = (0, 0, 0, NO_HEAD);
        for event in &append.events {
            let seen = match (self.recent.get(event.id), self.staged.ids.get(&event.id)) {
                (Some(seen), _) => {
                    durable += 1;
                    seen
                }
                (None, Some(seen)) => {
                    staged += 1;
                    seen
                }
                (None, None) => continue,
            };
            elsewhere += usize::from(seen.stream != stream);
            last = seen.head;
        }
        let count = append.events.len();
        match (durable, staged) {
            (0, 0) => {
                let actual = self.head(&append.stream).version;
                if append.expected.admits(actual) {
                    Verdict::New
                } else {
                    Verdict::No(AppendError::Conflict { actual })
                }
            }
            (durable, 0) if durable == count && elsewhere == 0 => Verdict::Repeated(last),
            (0, staged) if staged == count && elsewhere == 0 => Verdict::Staged(last),
            _ => Verdict::No(AppendError::Refused { reason: Refusal::IdReused }),
        }
    }

    /// Gives versions, positions and times to the events of an append, and hands each on with the position
    /// of the record before it in its stream.
    pub(crate) fn stage(
        &mut self,
        append: Append,
        names: &mut Names,
        mut each: impl FnMut(Recorded, Position),
    ) -> Head {
        let Append { stream, events, .. } = append;
        let checksum = checksum(stream.as_str());
        let mut head = self.head(&stream);
        let staged = &mut self.staged;
        for event in events {
            let NewEvent { id, name, schema, time_us, metadata, body, beside } = event;
            let previous = head.position;
            // This log gives out every number; that is its own affair, others may skip.
            staged.last = Position::new(staged.last.get() + 1);
            staged.last_time_us = staged.last_time_us.max(time_us);
            head = Head { version: head.version.next(), position: staged.last };
            staged.ids.insert(id, Seen { head, stream: checksum });
            let Head { version, position } = head;
            let (stream, name, time_us) = (stream.clone(), names.share(&name), staged.last_time_us);
            each(
                Recorded { id, stream, version, position, name, schema, time_us, metadata, body, beside },
                previous,
            );
        }
        staged.heads.insert(stream, head);
        head
    }

    /// What was staged is durable: shows it.
    pub(crate) fn commit(&mut self) {
        let mut heads = self.heads.write();
        for (stream, head) in self.staged.heads.drain() {
            heads.put(&stream, head);
        }
        drop(heads);
        for (id, seen) in self.staged.ids.drain() {
            self.recent.insert(id, seen);
        }
        (self.last, self.last_time_us) = (self.staged.last, self.staged.last_time_us);
    }

    /// What was staged is not to be.
    pub(crate) fn discard(&mut self) {
        self.staged.heads.clear();
        self.staged.ids.clear();
        (self.staged.last, self.staged.last_time_us) = (self.last, self.last_time_us);
    }

    /// The last durable position.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// The time of the last event, in microseconds since 1970.
    pub(crate) fn last_time_us(&self) -> i64 {
        self.last_time_us
    }

    fn head(&self, stream: &StreamId) -> Head {
        match self.staged.heads.get(stream) {
            Some(head) => *head,
            None => self.heads.read().get(stream.as_str()).unwrap_or(NO_HEAD),
        }
    }
}

fn checksum(stream: &str) -> u32 {
    crc32c::crc32c(stream.as_bytes())
}

/// The ids of the newest events, in two halves: when the newer half is full, the older one is forgotten.
struct RecentIds {
    newer: HashMap<EventId, Seen>,
    older: HashMap<EventId, Seen>,
    half: usize,
}

impl RecentIds {
    fn new(half: usize) -> Self {
        Self { newer: HashMap::new(), older: HashMap::new(), half: half.max(1) }
    }

    fn get(&self, id: EventId) -> Option<&Seen> {
        self.newer.get(&id).or_else(|| self.older.get(&id))
    }

    fn insert(&mut self, id: EventId, seen: Seen) {
        if self.newer.len() >= self.half {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(id, seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{append, stream};
    use crate::log::Expected;

    fn stage(ledger: &mut Ledger, first: u64, count: u64) -> Head {
        ledger.stage(append(&stream("a"), Expected::Any, first, count), &mut Names::default(), |_, _| {})
    }

    fn is_repeated(ledger: &Ledger, id: u64) -> bool {
        matches!(ledger.judge(&append(&stream("a"), Expected::Any, id, 1)), Verdict::Repeated(_))
    }

    #[test]
    fn a_commit_that_fails_leaves_no_trace() {
        let mut ledger = Ledger::new(100);
        let first = stage(&mut ledger, 0, 3);
        assert!(matches!(ledger.judge(&append(&stream("a"), Expected::Any, 0, 3)), Verdict::Staged(_)));
        ledger.discard();
        assert!(matches!(ledger.judge(&append(&stream("a"), Expected::Any, 0, 3)), Verdict::New));
        assert_eq!(stage(&mut ledger, 0, 3), first);
        ledger.commit();
        assert!(is_repeated(&ledger, 1));
    }

    #[test]
    fn at_least_the_promised_number_of_ids_is_remembered_and_at_most_twice_as_many() {
        let mut ledger = Ledger::new(10);
        for n in 0..100 {
            stage(&mut ledger, n, 1);
            ledger.commit();
            assert!((n.saturating_sub(9)..=n).all(|id| is_repeated(&ledger, id)));
        }
        assert!((0..80).all(|id| !is_repeated(&ledger, id)));
    }
}
