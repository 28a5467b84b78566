//! Owns the joint of history and live: the newest events in a bounded ring, and readers that take from the
//! ring while they keep up and from the log's history when they do not.
//! Must never buffer for a reader: a reader pulls, and one that stops costs nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{BoxFuture, EventStream, ReadError};
use crate::record::Recorded;
use crate::stream::Position;

/// How many events a reader takes from the ring at once.
const PAGE_EVENTS: usize = 256;

/// Some events, in order.
pub(crate) type Page = Vec<Arc<Recorded>>;

/// Everything that is no longer in the ring.
pub(crate) trait History: Send + Sync + 'static {
    /// Starts to fetch some events after a position: at least one, since readers only ask when there are
    /// some.
    fn page(&self, after: Position) -> BoxFuture<'static, Result<Page, ReadError>>;
}

/// The newest events, and the signal that there are more.
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    state: watch::Sender<State>,
}

/// How much the ring may hold; the newest event stays whatever its size.
#[derive(Clone, Copy)]
pub(crate) struct RingMax {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

struct Ring {
    /// The ring holds every event after this position.
    base: Position,
    end: Position,
    events: VecDeque<Arc<Recorded>>,
    bytes: usize,
    max: RingMax,
}

#[derive(Clone, Copy)]
struct State {
    end: Position,
    closed: bool,
}

enum Taken {
    Events(Page),
    /// There is nothing after that position yet.
    CaughtUp,
    /// The ring has already dropped what comes next.
    Behind,
}

impl Feed {
    /// An empty ring for a log that ends at `end`.
    pub(crate) fn new(end: Position, max: RingMax) -> Self {
        let ring = Ring { base: end, end, events: VecDeque::new(), bytes: 0, max };
        Self { ring: Mutex::new(ring), state: watch::Sender::new(State { end, closed: false }) }
    }

    /// Shows durable events to every reader.
    pub(crate) fn publish(&self, events: Page) {
        let Some(end) = events.last().map(|event| event.position) else { return };
        self.ring.lock().extend(events, end);
        self.state.send_modify(|state| state.end = end);
    }

    /// Lets readers end once they have read everything.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// The position of the newest published event.
    pub(crate) fn end(&self) -> Position {
        self.state.borrow().end
    }

    fn is_behind(&self, after: Position) -> bool {
        after < self.ring.lock().base
    }
}

impl Ring {
    fn extend(&mut self, events: Page, end: Position) {
        self.end = end;
        for event in events {
            self.bytes += size(&event);
            self.events.push_back(event);
        }
        while self.events.len() > 1 && (self.events.len() > self.max.events || self.bytes > self.max.bytes) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= size(&oldest);
                self.base = oldest.position;
            }
        }
    }

    fn after(&self, position: Position) -> Taken {
        if position >= self.end {
            return Taken::CaughtUp;
        }
        if position < self.base {
            return Taken::Behind;
        }
        let first = self.events.partition_point(|event| event.position <= position);
        Taken::Events(self.events.iter().skip(first).take(PAGE_EVENTS).cloned().collect())
    }
}

/// What an event holds in memory, roughly, in bytes.
fn size(event: &Recorded) -> usize {
    size_of::<Recorded>() + event.metadata.len() + event.body.len()
}

/// All events after a position: history first, then live.
pub(crate) fn tail(feed: Arc<Feed>, history: Arc<dyn History>, after: Position) -> EventStream {
    let state = feed.state.subscribe();
    let reader = Reader { feed, history, state, cursor: after, ahead: None };
    stream::try_unfold(reader, Reader::step)
        .map_ok(|page| stream::iter(page.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

struct Reader {
    feed: Arc<Feed>,
    history: Arc<dyn History>,
    state: watch::Receiver<State>,
    /// The last position given out; the join of history and live is nothing but this number.
    cursor: Position,
    /// The history page after the cursor, fetched while the caller digests the one before.
    ahead: Option<BoxFuture<'static, Result<Page, ReadError>>>,
}

impl Reader {
    /// Never ends by itself: a tail waits, or fails.
    async fn step(mut self) -> Result<Option<(Page, Self)>, ReadError> {
        Ok(Some((self.page().await?, self)))
    }

    async fn page(&mut self) -> Result<Page, ReadError> {
        loop {
            // Looked at before the ring, so that an event published in between wakes us again.
            let closed = self.state.borrow_and_update().closed;
            let taken = self.feed.ring.lock().after(self.cursor);
            match taken {
                Taken::Events(page) => return Ok(self.advance(page)),
                Taken::Behind => return self.history_page().await,
                Taken::CaughtUp if closed => return Err(ReadError::Closed),
                Taken::CaughtUp => self.state.changed().await.map_err(|_| ReadError::Closed)?,
            }
        }
    }

    async fn history_page(&mut self) -> Result<Page, ReadError> {
        let fetch = self.ahead.take().unwrap_or_else(|| self.history.page(self.cursor));
        let page = fetch.await?;
        if page.is_empty() {
            return Err(io::Error::other("the log's history ends too early").into());
        }
        let page = self.advance(page);
        if self.feed.is_behind(self.cursor) {
            self.ahead = Some(self.history.page(self.cursor));
        }
        Ok(page)
    }

    fn advance(&mut self, page: Page) -> Page {
        if let Some(last) = page.last() {
            self.cursor = last.position;
        }
        page
    }
}
