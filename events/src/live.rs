//! Owns the joint of history and live: the newest items in a bounded ring, and readers that take from the
//! ring while they keep up and from history when they do not. The log's readers are here; whoever shows the
//! log's events in a form of his own keeps a [`Feed`] of that form.
//! Must never buffer for a reader: a reader pulls, and one that stops costs nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{BoxFuture, EventStream, ReadError};
use crate::planted::Planted;
use crate::record::Recorded;
use crate::stream::Position;

/// How many bytes of history the log's own readers fetch at once.
const HISTORY_PAGE_BYTES: u64 = 256 << 10;
/// How many items a reader takes from the ring at once.
const PAGE_EVENTS: usize = 256;

/// Some events, in order.
pub(crate) type Page = Vec<Arc<Recorded>>;

/// What a feed can hold: it has a place in the log.
pub trait Placed {
    /// Its place; that of the next item is later.
    fn position(&self) -> Position;

    /// What it holds in memory, roughly, in bytes.
    fn held_bytes(&self) -> usize;
}

impl Placed for Recorded {
    fn position(&self) -> Position {
        self.position
    }

    fn held_bytes(&self) -> usize {
        let bytes = self.metadata.len() + self.body.len();
        // What travels beside them is about as large again.
        size_of::<Self>() + if self.beside.is_none() { bytes } else { 2 * bytes }
    }
}

/// Everything that is no longer in the ring.
pub(crate) trait History: Send + Sync + 'static {
    /// Starts to fetch some events after a position: about so many bytes, and at least one event if there is
    /// any.
    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'static, Result<Page, ReadError>>;
}

/// The newest items, and the signal that there are more.
pub struct Feed<T> {
    ring: Mutex<Ring<T>>,
    state: watch::Sender<State>,
}

/// How much a ring may hold; the newest item stays whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct RingMax {
    /// Items.
    pub events: usize,
    /// Bytes, by [`Placed::held_bytes`].
    pub bytes: usize,
}

struct Ring<T> {
    /// The ring holds every item after this position.
    base: Position,
    end: Position,
    events: VecDeque<Arc<T>>,
    bytes: usize,
    max: RingMax,
}

/// How far a feed has come. Look at it before [`Feed::after`], so that what is published in between wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The position of the newest item.
    pub end: Position,
    /// Whether no more will come.
    pub closed: bool,
}

/// What a feed has after a position.
#[derive(Debug)]
pub enum Taken<T> {
    /// At least one item, in order.
    Events(Vec<Arc<T>>),
    /// Nothing yet.
    CaughtUp,
    /// The ring has already dropped what comes next: history has it.
    Behind,
}

impl<T: Placed> Feed<T> {
    /// An empty ring for a log that ends at `end`.
    #[must_use]
    pub fn new(end: Position, max: RingMax) -> Self {
        let ring = Ring { base: end, end, events: VecDeque::new(), bytes: 0, max };
        Self { ring: Mutex::new(ring), state: watch::Sender::new(State { end, closed: false }) }
    }

    /// Shows durable items to every reader.
    pub fn publish(&self, events: Vec<Arc<T>>) {
        let Some(end) = events.last().map(|event| event.position()) else { return };
        self.ring.lock().extend(events, end);
        self.state.send_modify(|state| state.end = end);
    }

    /// Moves on without holding anything: readers find what came before in history.
    pub fn skip_to(&self, end: Position) {
        self.ring.lock().skip_to(end);
        self.state.send_modify(|state| state.end = end);
    }

    /// Lets readers end once they have read everything.
    pub fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// The position of the newest published item.
    #[must_use]
    pub fn end(&self) -> Position {
        self.state.borrow().end
    }

    /// Follows how far the feed has come.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The oldest items after a position: 256 at most, and no more than so many bytes beyond the first.
    #[must_use]
    pub fn after(&self, position: Position, bytes_max: usize) -> Taken<T> {
        self.ring.lock().after(position, bytes_max)
    }

    /// Whether the ring has dropped what comes after this position.
    #[must_use]
    pub fn is_behind(&self, after: Position) -> bool {
        after < self.ring.lock().base
    }
}

impl<T: Placed> Ring<T> {
    fn extend(&mut self, events: Vec<Arc<T>>, end: Position) {
        self.end = end;
        for event in events {
            self.bytes += event.held_bytes();
            self.events.push_back(event);
        }
        while self.events.len() > 1 && (self.events.len() > self.max.events || self.bytes > self.max.bytes) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.held_bytes();
                self.base = oldest.position();
            }
        }
    }

    fn skip_to(&mut self, end: Position) {
        (self.base, self.end, self.bytes) = (end, end, 0);
        self.events.clear();
    }

    fn after(&self, position: Position, bytes_max: usize) -> Taken<T> {
        if position >= self.end {
            return Taken::CaughtUp;
        }
        if position < self.base {
            return Taken::Behind;
        }
        let first = self.events.partition_point(|event| event.position() <= position);
        let mut bytes = 0;
        let fits = |event: &&Arc<T>| {
            let first = bytes == 0;
            bytes += event.held_bytes();
            first || bytes <= bytes_max
        };
        Taken::Events(self.events.range(first..).take(PAGE_EVENTS).take_while(fits).cloned().collect())
    }
}

/// All events after a position: history first, then live.
pub(crate) fn tail(feed: Arc<Feed<Recorded>>, history: Arc<dyn History>, after: Position) -> EventStream {
    let state = feed.state.subscribe();
    let skipped = u64::from(Planted::ResumeOffByOne.is_asked_for() && after > Position::START);
    let cursor = Position::new(after.get() + skipped);
    let reader = Reader { feed, history, state, cursor, ahead: None };
    stream::try_unfold(reader, Reader::step)
        .map_ok(|page| stream::iter(page.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

struct Reader {
    feed: Arc<Feed<Recorded>>,
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
            let taken = self.feed.after(self.cursor, usize::MAX);
            match taken {
                Taken::Events(page) => return Ok(self.advance(page)),
                Taken::Behind => return self.history_page().await,
                Taken::CaughtUp if closed => return Err(ReadError::Closed),
                Taken::CaughtUp => self.state.changed().await.map_err(|_| ReadError::Closed)?,
            }
        }
    }

    async fn history_page(&mut self) -> Result<Page, ReadError> {
        let fetch = self.ahead.take().unwrap_or_else(|| self.history.page(self.cursor, HISTORY_PAGE_BYTES));
        let page = fetch.await?;
        if page.is_empty() {
            return Err(io::Error::other("the log's history ends too early").into());
        }
        let page = self.advance(page);
        if self.feed.is_behind(self.cursor) {
            self.ahead = Some(self.history.page(self.cursor, HISTORY_PAGE_BYTES));
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
