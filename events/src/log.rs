//! Owns the boundary of the log: what can be asked of it, what an answer means, how it may fail.
//! Must never know how or where events are kept.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::BoxStream;

use crate::epoch::Epoch;
use crate::record::{NewEvent, Recorded};
use crate::stream::{Position, StreamId, Version};

/// The most bytes that one append may occupy once written: 16 MiB.
pub const APPEND_MAX_BYTES: usize = 16 << 20;
/// The longest name of an event, in bytes.
pub const NAME_MAX_LEN: usize = 100;
/// What a record occupies besides its stream, name, metadata and body, in bytes.
pub(crate) const RECORD_HEADER_LEN: usize = 66;

/// A future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Events in order. An error is the last item.
pub type EventStream = BoxStream<'static, Result<Arc<Recorded>, ReadError>>;

/// Keeps events for ever, in streams and in one order over all streams.
///
/// Every implementation obeys twelve clauses; `conformance` (feature `testing`) holds a case for each:
///
/// 1. An append is written as a whole or not at all.
/// 2. An answer means that the events are durable at the configured level.
/// 3. The expected version must match, else [`AppendError::Conflict`] with the actual one.
/// 4. The versions of a stream are 1, 2, 3…
/// 5. Positions only grow, and may skip.
/// 6. After an answer, `read` shows the events.
/// 7. `tail` neither loses nor repeats an event across history and live.
/// 8. The same event ids again: the original head, nothing added. Only a recent window is remembered.
/// 9. A full queue refuses at once.
/// 10. A failure says *certainly not written* or *perhaps written*.
/// 11. After a failed sync the log refuses appends until it is opened again.
/// 12. A record that breaks its checksum is an error, never skipped. A log that was opened to be read only
///     shows what comes before it, and refuses every append.
pub trait EventLog: Send + Sync + 'static {
    /// Writes all of `append.events`, or none, and answers with the head of the stream after them.
    ///
    /// The append is queued by the call itself, so appends are decided in the order of the calls. Dropping
    /// the future does not take it back.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>>;

    /// The events of one stream since a place, oldest first; then it ends. Costs what it gives out, however
    /// long the log is.
    fn read(&self, stream: &StreamId, since: Since) -> EventStream;

    /// All events after a position, in order; then it waits for more, for as long as the log is open.
    /// Once the log is closed and all is read, the last item is [`ReadError::Closed`].
    fn tail(&self, after: Position) -> EventStream;

    /// Some events after a position, in order: about so many bytes of them, and at least one if there is
    /// any. For who must hold nothing while it waits for its own reader.
    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>>;

    /// What holds of the log as a whole for as long as it is open.
    fn marks(&self) -> Marks;

    /// The position of the last event. A barrier: it answers when every append queued before it is decided.
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>>;
}

/// What holds of a log as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Up to where events may be missing, of streams that were removed as a whole; behind it all are there.
    pub floor: Floor,
    /// What tells this log from others, as far as it is known: another number for one that began elsewhere,
    /// and after streams were removed.
    pub origin: u64,
    /// Which history of the log this is: equal positions of another may be other events. None for a log that
    /// has only ever one.
    pub epoch: Option<Epoch>,
}

impl Marks {
    /// Of a log of which nothing was removed, and that nobody opens again.
    pub const NONE: Self = Self { floor: Floor::NONE, origin: 0, epoch: None };
}

/// Where the part of a log ends of which streams were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The last position of that part.
    pub position: Position,
    /// The time of its last event, in microseconds since 1970.
    pub time_us: i64,
}

impl Floor {
    /// Of a log of which nothing was removed.
    pub const NONE: Self = Self { position: Position::START, time_us: i64::MIN };
}

/// Where the reading of a stream begins: at the first event after this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Since {
    /// A place in the stream; [`Version::NONE`] for its beginning.
    Version(Version),
    /// A place in the whole log.
    Position(Position),
}

impl Since {
    /// From the stream's first event.
    pub const BEGINNING: Self = Self::Version(Version::NONE);

    /// Whether an event at this place comes after it.
    #[must_use]
    pub fn is_before(self, version: Version, position: Position) -> bool {
        match self {
            Self::Version(after) => version > after,
            Self::Position(after) => position > after,
        }
    }
}

/// Where a stream stands after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The version of the last event of the append.
    pub version: Version,
    /// The position of the last event of the append.
    pub position: Position,
}

/// What the caller believes the stream's version to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Exactly this version; [`Version::NONE`] for a stream that must not exist.
    Exact(Version),
    /// Whatever it is: for streams that only collect.
    Any,
}

impl Expected {
    /// Whether a stream of that version may be appended to.
    #[must_use]
    pub fn admits(self, actual: Version) -> bool {
        match self {
            Self::Exact(version) => version == actual,
            Self::Any => true,
        }
    }
}

/// Events for one stream, to be written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The stream to extend.
    pub stream: StreamId,
    /// What its version must be.
    pub expected: Expected,
    /// At least one event, at most 16 MiB in all, no id twice.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// What the append would occupy once written, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fixed = RECORD_HEADER_LEN + self.stream.as_str().len();
        let event = |e: &NewEvent| fixed + e.name.len() + e.metadata.len() + e.body.len();
        self.events.iter().map(event).sum()
    }

    /// Checks what can be checked without the log.
    ///
    /// # Errors
    /// When there is no event, an id twice, a name outside the rules, or more than 16 MiB.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.events.is_empty() {
            return Err(Refusal::Empty);
        }
        let bytes = self.bytes();
        if bytes > APPEND_MAX_BYTES {
            return Err(Refusal::TooLarge { bytes });
        }
        let mut ids = HashSet::new();
        for event in &self.events {
            if !name_is_valid(&event.name) {
                return Err(Refusal::InvalidName);
            }
            // The usual append has one event, which needs no set.
            if self.events.len() > 1 && !ids.insert(event.id) {
                return Err(Refusal::IdReused);
            }
        }
        Ok(())
    }
}

pub(crate) fn name_is_valid(name: &str) -> bool {
    (1..=NAME_MAX_LEN).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Why an append brought no head. Named by what the caller may do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Not written: the stream is elsewhere. Reload and decide again.
    #[error("the stream is at version {actual}")]
    Conflict {
        /// The version the stream really has.
        actual: Version,
    },
    /// Not written: too much is waiting. Come back later.
    #[error("the log is overloaded")]
    Overloaded,
    /// Not written, and the same append will not be later either (but see [`Refusal::StorageFull`]).
    #[error("refused: {reason}")]
    Refused {
        /// What is wrong with it.
        reason: Refusal,
    },
    /// Perhaps written: read the stream, or append the same ids again.
    #[error("perhaps written")]
    OutcomeUnknown,
    /// Not written: the log is closed, or a sync has failed and it must be opened again.
    #[error("the log is closed")]
    Closed,
}

/// What is wrong with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It holds no event.
    #[error("an append needs at least one event")]
    Empty,
    /// It is over [`APPEND_MAX_BYTES`].
    #[error("{bytes} bytes are over the maximum of {APPEND_MAX_BYTES}")]
    TooLarge {
        /// What it would occupy.
        bytes: usize,
    },
    /// An event's name breaks the rules.
    #[error("an event name has 1 to {NAME_MAX_LEN} characters of [A-Za-z0-9._-]")]
    InvalidName,
    /// Some of its ids belong to other events, or one occurs twice.
    #[error("an event id is already taken")]
    IdReused,
    /// The disk is full, or nearly, or the log occupies as much as it may. The same append may succeed once
    /// there is space.
    #[error("the storage is full")]
    StorageFull,
    /// The log was opened to be read only.
    #[error("the log is read-only")]
    ReadOnly,
}

/// Why events cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was written.
    #[error("corrupt log: {0}")]
    Corrupt(Damage),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The disk did not answer.
    #[error("cannot read the log: {0}")]
    Io(Arc<io::Error>),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Where the log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The number of the generation (`gen-000001` is 1).
    pub generation: u64,
    /// Whether it is what was kept of the generations up to that number (`base-000001`).
    pub base: bool,
    /// The byte of its journal where the damaged frame or record begins.
    pub offset: u64,
    /// The first position that cannot be trusted.
    pub position: Position,
    /// What does not hold.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, base, offset, position, what } = self;
        let part = if *base { "base" } else { "generation" };
        write!(f, "{what} in {part} {generation} at byte {offset}, position {position}")
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn append(name: &'static str, ids: &[u128], body_len: usize) -> Append {
        let event = |id: &u128| NewEvent {
            id: Uuid::from_u128(*id).into(),
            name: Cow::Borrowed(name),
            schema: 1,
            time_us: 0,
            metadata: Bytes::new(),
            body: Bytes::from(vec![0; body_len]),
            beside: crate::record::Beside::NONE,
        };
        let stream = StreamId::new("test", "a").unwrap();
        Append { stream, expected: Expected::Any, events: ids.iter().map(event).collect() }
    }

    #[test]
    fn an_append_that_could_not_be_stored_is_refused() {
        assert_eq!(append("a.b", &[1, 2], 0).check(), Ok(()));
        assert_eq!(append("a.b", &[], 0).check(), Err(Refusal::Empty));
        assert_eq!(append("a.b", &[1, 1], 0).check(), Err(Refusal::IdReused));
        assert_eq!(append("", &[1], 0).check(), Err(Refusal::InvalidName));
        assert_eq!(append("a b", &[1], 0).check(), Err(Refusal::InvalidName));
        assert!(matches!(append("a", &[1], APPEND_MAX_BYTES).check(), Err(Refusal::TooLarge { .. })));
    }
}
