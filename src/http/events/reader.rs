//! Owns the reading of events in their order: first from the log's history, then from the live feed, joined
//! by position. The same reader stands under sockets, server-sent events and pages.
//! It must never be pushed to: what nobody takes costs nothing.

use std::io;
use std::sync::Arc;

use events::live::{State, Taken};
use events::{EventStream, Position, ReadError, Recorded, Since, StreamId};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::feed::EventFeed;
use super::filter::Filter;
use super::shown::Shown;

/// Bytes that are looked at in one go, and so what a reader that has stopped holds.
const LOOK_BYTES: usize = 16 << 10;

/// Takes the wanted events after a position, oldest first.
pub struct Reader {
    feed: Arc<EventFeed>,
    filter: Filter,
    cursor: Position,
    state: watch::Receiver<State>,
    /// The reading of one stream, when only that is wanted.
    history: Option<History>,
    passing: Option<broadcast::Receiver<Arc<Shown>>>,
}

/// An open reading of one stream. The whole log is read by pages instead, of which nothing stays.
struct History {
    events: EventStream,
    /// The reading holds every event up to here.
    until: Position,
}

impl Reader {
    /// One that begins after a position, which must not lie beyond the end of the feed.
    #[must_use]
    pub fn new(feed: &Arc<EventFeed>, filter: Filter, after: Position) -> Self {
        let passing = filter.names_live_only().then(|| feed.passing());
        Self { passing, ..Self::of_log(feed, filter, after) }
    }

    /// As [`Reader::new`], but never with an event that only passes by, whatever the filter names.
    #[must_use]
    pub fn of_log(feed: &Arc<EventFeed>, filter: Filter, after: Position) -> Self {
        let state = feed.ring.state();
        Self { feed: Arc::clone(feed), filter, cursor: after, state, history: None, passing: None }
    }

    /// Every wanted event up to here was taken.
    #[must_use]
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// The next wanted events, in order; waits until there is something to look at. None may be among what it
    /// looked at. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// When the log cannot be read, or is closed and all was taken.
    pub async fn take(&mut self) -> Result<Vec<Arc<Shown>>, ReadError> {
        loop {
            // Looked at before the ring, so that what is published in between wakes us.
            let closed = self.state.borrow_and_update().closed;
            match self.feed.ring.after(self.cursor, LOOK_BYTES) {
                Taken::Events(events) => {
                    self.history = None;
                    return Ok(self.live(events));
                }
                Taken::Behind => return self.past().await,
                Taken::CaughtUp if closed => return Err(ReadError::Closed),
                Taken::CaughtUp => {
                    if let Some(passed_by) = self.wait().await? {
                        return Ok(vec![passed_by]);
                    }
                }
            }
        }
    }

    fn live(&mut self, mut events: Vec<Arc<Shown>>) -> Vec<Arc<Shown>> {
        if let Some(last) = events.last() {
            self.cursor = last.position;
        }
        events.retain(|event| self.filter.admits(&event.stream, &event.name));
        events
    }

    /// Waits for a new event, or for a wanted one that passes by.
    async fn wait(&mut self) -> Result<Option<Arc<Shown>>, ReadError> {
        loop {
            let Some(passing) = &mut self.passing else {
                self.state.changed().await.map_err(|_| ReadError::Closed)?;
                return Ok(None);
            };
            tokio::select! {
                changed = self.state.changed() => {
                    return changed.map(|()| None).map_err(|_| ReadError::Closed);
                }
                passed_by = passing.recv() => match passed_by {
                    Ok(event) if self.filter.admits_live_only(&event.stream, &event.name) => {
                        return Ok(Some(event));
                    }
                    // Too slow for some that only pass by, which promise nothing.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(ReadError::Closed),
                },
            }
        }
    }

    /// Looks at some history.
    async fn past(&mut self) -> Result<Vec<Arc<Shown>>, ReadError> {
        let mut wanted = Vec::new();
        let (looked_at, through) = match self.filter.stream().cloned() {
            Some(stream) => self.some_of(&stream).await?,
            None => self.some_of_all().await?,
        };
        for recorded in looked_at {
            self.cursor = recorded.position;
            if self.filter.admits(&recorded.stream, &recorded.name) {
                wanted.push(Arc::new(Shown::of(&recorded, &self.feed.names)));
            }
        }
        self.cursor = self.cursor.max(through);
        Ok(wanted)
    }

    /// Some events of the whole log, and up to where nothing else is.
    async fn some_of_all(&self) -> Result<(Vec<Arc<Recorded>>, Position), ReadError> {
        let until = self.feed.ring.end();
        let mut page = self.feed.page(self.cursor, LOOK_BYTES as u64).await?;
        if page.is_empty() {
            return Err(io::Error::other("the log's history ends too early").into());
        }
        page.retain(|recorded| recorded.position <= until);
        Ok((page, Position::START))
    }

    /// Some events of one stream, and up to where nothing else is.
    async fn some_of(&mut self, stream: &StreamId) -> Result<(Vec<Arc<Recorded>>, Position), ReadError> {
        let history = self.history.get_or_insert_with(|| History::open(&self.feed, stream, self.cursor));
        let (mut some, mut bytes) = (Vec::new(), 0);
        // Waits for the first only: what was collected would be lost with a wait that is dropped.
        let mut next = history.events.next().await;
        while let Some(recorded) = next {
            let recorded = recorded?;
            if recorded.position > history.until {
                break;
            }
            bytes += recorded.body.len();
            some.push(recorded);
            if bytes >= LOOK_BYTES {
                return Ok((some, Position::START));
            }
            match history.events.next().now_or_never() {
                Some(following) => next = following,
                None => return Ok((some, Position::START)),
            }
        }
        let until = history.until;
        self.history = None;
        Ok((some, until))
    }
}

impl History {
    fn open(feed: &EventFeed, stream: &StreamId, after: Position) -> Self {
        // Taken first, so that the reading is sure to hold everything up to here.
        let until = feed.ring.end();
        Self { events: feed.log.read(stream, Since::Position(after)), until }
    }
}
