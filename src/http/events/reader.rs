//! Owns the reading of events in their order: first from the log's history, then from the live feed, joined
//! by position. The same reader stands under sockets, server-sent events and pages.
//! It must never be pushed to: what nobody takes costs nothing.

use std::sync::Arc;

use events::live::{State, Taken};
use events::{EventStream, Position, ReadError, Since};
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::feed::EventFeed;
use super::filter::Filter;
use super::shown::Shown;

/// Events of history that are looked at in one go.
const CHUNK: usize = 64;

/// Takes the wanted events after a position, oldest first.
pub struct Reader {
    feed: Arc<EventFeed>,
    filter: Filter,
    cursor: Position,
    state: watch::Receiver<State>,
    history: Option<History>,
    passing: Option<broadcast::Receiver<Arc<Shown>>>,
}

/// An open reading of the log.
struct History {
    events: ReadyChunks<EventStream>,
    /// Whatever the reading had not shown up to here when it was opened will never come.
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
            match self.feed.ring.after(self.cursor) {
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

    async fn past(&mut self) -> Result<Vec<Arc<Shown>>, ReadError> {
        let history =
            self.history.get_or_insert_with(|| History::open(&self.feed, &self.filter, self.cursor));
        let until = history.until;
        let mut wanted = Vec::new();
        let mut over = true;
        if let Some(chunk) = history.events.next().await {
            over = false;
            for recorded in chunk {
                let recorded = recorded?;
                if recorded.position > until {
                    over = true;
                    break;
                }
                self.cursor = recorded.position;
                if self.filter.admits(&recorded.stream, &recorded.name) {
                    wanted.push(Arc::new(Shown::of(&recorded)));
                }
            }
        }
        if over || self.cursor >= until {
            self.cursor = self.cursor.max(until);
            self.history = None;
        }
        Ok(wanted)
    }
}

impl History {
    /// Reads one stream when only that is wanted, else the whole log.
    fn open(feed: &EventFeed, filter: &Filter, after: Position) -> Self {
        // Taken first, so that the reading is sure to hold everything up to here.
        let until = feed.ring.end();
        let events = match filter.stream() {
            Some(stream) => feed.log.read(stream, Since::Position(after)),
            None => feed.log.tail(after),
        };
        Self { events: events.ready_chunks(CHUNK), until }
    }
}
