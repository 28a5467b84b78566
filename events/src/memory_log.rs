//! Owns the reference log: everything in memory, decided on the spot. Tests use it instead of mocks.
//! Must never be clever: where another log differs from this one, the other one is wrong.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, future, stream};
use parking_lot::Mutex;

use crate::live::{self, Feed, History, Page, Placed, RingMax};
use crate::log::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, ReadError, Refusal, Since,
};
use crate::record::{Beside, EventId, NewEvent, Recorded};
use crate::stream::{Position, StreamId, Version};

/// The events in the ring; low, so that tests cross from history to live often.
const RING_MAX: RingMax = RingMax { events: 64, bytes: 1 << 20 };
/// How many events a history page holds.
const PAGE_EVENTS: usize = 256;

/// A log in memory. Clones share their events. It has no queue, so it is never overloaded.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    kept: Mutex<Kept>,
    feed: Arc<Feed<Recorded>>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Arc<Recorded>>,
    streams: HashMap<StreamId, Vec<Arc<Recorded>>>,
    ids: HashMap<EventId, Arc<Recorded>>,
    closed: bool,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        let feed = Arc::new(Feed::new(Position::START, RING_MAX));
        Self { inner: Arc::new(Inner { kept: Mutex::default(), feed }) }
    }

    /// Refuses appends from now on, and lets every `tail` end once it has read everything.
    pub fn close(&self) {
        self.inner.kept.lock().closed = true;
        self.inner.feed.close();
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("end", &self.inner.feed.end()).finish()
    }
}

impl EventLog for MemoryLog {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        let mut kept = self.inner.kept.lock();
        let before = kept.events.len();
        let beside: Vec<Beside> = append.events.iter().map(|event| event.beside.clone()).collect();
        let answer = kept.append(append);
        let new = kept.events[before..].iter().zip(beside);
        let new = new.map(|(event, beside)| Arc::new(Recorded { beside, ..(**event).clone() }));
        // Published under the lock, so that the ring sees the commits in their order.
        self.inner.feed.publish(new.collect());
        future::ready(answer).boxed()
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        let kept = self.inner.kept.lock();
        let events = kept.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let first = events.partition_point(|event| !since.is_before(event.version, event.position));
        stream::iter(events[first..].to_vec()).map(Ok).boxed()
    }

    fn tail(&self, after: Position) -> EventStream {
        live::tail(Arc::clone(&self.inner.feed), Arc::clone(&self.inner) as Arc<dyn History>, after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        History::page(&*self.inner, after, bytes)
    }

    fn marks(&self) -> Marks {
        Marks::NONE
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        future::ready(Ok(self.inner.feed.end())).boxed()
    }
}

impl History for Inner {
    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'static, Result<Page, ReadError>> {
        let kept = self.kept.lock();
        let first = kept.events.partition_point(|event| event.position <= after);
        let mut taken = 0;
        let fits = |event: &&Arc<Recorded>| {
            let room = taken < bytes;
            taken += event.held_bytes() as u64;
            room
        };
        let page = kept.events[first..].iter().take(PAGE_EVENTS).take_while(fits).cloned().collect();
        future::ready(Ok(page)).boxed()
    }
}

impl Kept {
    fn append(&mut self, append: Append) -> Result<Head, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        append.check().map_err(|reason| AppendError::Refused { reason })?;
        if let Some(head) = self.repeated(&append)? {
            return Ok(head);
        }
        let actual = self.streams.get(&append.stream).map_or(Version::NONE, |s| Version::new(s.len() as u64));
        if !append.expected.admits(actual) {
            return Err(AppendError::Conflict { actual });
        }
        let mut head = Head { version: actual, position: Position::START };
        for event in append.events {
            head = self.keep(&append.stream, head.version.next(), event);
        }
        Ok(head)
    }

    /// The original head, if all events are known; an error, if only some are.
    fn repeated(&self, append: &Append) -> Result<Option<Head>, AppendError> {
        let known: Vec<_> = append.events.iter().filter_map(|event| self.ids.get(&event.id)).collect();
        let Some(last) = known.last() else { return Ok(None) };
        if known.len() < append.events.len() || known.iter().any(|event| event.stream != append.stream) {
            return Err(AppendError::Refused { reason: Refusal::IdReused });
        }
        Ok(Some(Head { version: last.version, position: last.position }))
    }

    fn keep(&mut self, stream: &StreamId, version: Version, event: NewEvent) -> Head {
        let position = Position::new(self.events.len() as u64 + 1);
        let last_time_us = self.events.last().map_or(i64::MIN, |event| event.time_us);
        let recorded = Arc::new(Recorded {
            id: event.id,
            stream: stream.clone(),
            version,
            position,
            name: Arc::from(event.name.as_ref()),
            schema: event.schema,
            time_us: event.time_us.max(last_time_us),
            metadata: event.metadata,
            body: event.body,
            // What is read was not written just now.
            beside: Beside::NONE,
        });
        self.ids.insert(event.id, Arc::clone(&recorded));
        self.streams.entry(stream.clone()).or_default().push(Arc::clone(&recorded));
        self.events.push(recorded);
        Head { version, position }
    }
}
