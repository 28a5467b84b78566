//! Owns the live end of every stream: the task that turns each new event into JSON once, the ring that
//! readers take it from, and the seats of open streams.
//! It must never wait for a reader, and never show what the views do not show yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::projections::Projected;
use domain::Timestamp;
use events::live::{Feed, RingMax};
use events::{EventLog, Position, ReadError, Recorded, StreamId};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::broadcast;

use super::super::error::{ApiError, Code};
use super::shown::Shown;

/// What the ring holds; beyond that a reader takes from the log.
const RING_MAX: RingMax = RingMax { events: 8_192, bytes: 16 << 20 };
/// Events that are encoded before they are published.
const CHUNK: usize = 256;
/// Events that only pass by and that a slow reader may still get.
const PASSING_MAX: usize = 1_024;
/// The views follow the log within milliseconds; after so long a wait the events are shown anyway.
const VIEWS_WITHIN: Duration = Duration::from_secs(5);
/// How long a client waits that found no seat.
const SEAT_RETRY: Duration = Duration::from_secs(5);

/// The live end of every stream.
pub struct EventFeed {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) ring: Feed<Shown>,
    passing: broadcast::Sender<Arc<Shown>>,
    seats: Arc<AtomicUsize>,
    seats_max: usize,
}

impl EventFeed {
    /// The live end of a log whose newest event is at `end`, for at most so many open streams.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, end: Position, seats_max: usize) -> Self {
        let passing = broadcast::Sender::new(PASSING_MAX);
        Self { log, ring: Feed::new(end, RING_MAX), passing, seats: Arc::default(), seats_max }
    }

    /// Follows the log until it is closed. Runs once, beside the server.
    pub async fn follow(&self, views: &Projected) {
        let mut tail = self.log.tail(self.ring.end()).ready_chunks(CHUNK);
        while let Some(chunk) = tail.next().await {
            let recorded: Result<Vec<Arc<Recorded>>, ReadError> = chunk.into_iter().collect();
            let Ok(recorded) = recorded else { break };
            let Some(last) = recorded.last().map(|last| last.position) else { continue };
            // What a stream has shown, a read shows too.
            views.reached(last, VIEWS_WITHIN).await;
            if self.open() == 0 {
                self.ring.skip_to(last);
            } else {
                self.ring.publish(recorded.iter().map(|recorded| Arc::new(Shown::of(recorded))).collect());
            }
        }
        self.ring.close();
    }

    /// Shows an event that is not kept to whoever wants it now. Costs nothing when nobody does.
    pub fn pass(&self, name: &str, stream: &StreamId, at: Timestamp, data: impl FnOnce() -> Value) {
        if self.passing.receiver_count() > 0 {
            // The last receiver may have gone in between.
            let _ = self.passing.send(Arc::new(Shown::passing(name, stream, at, data())));
        }
    }

    pub(super) fn passing(&self) -> broadcast::Receiver<Arc<Shown>> {
        self.passing.subscribe()
    }

    /// The position of the newest event that streams show.
    #[must_use]
    pub fn end(&self) -> Position {
        self.ring.end()
    }

    /// Waits until streams show everything up to a position. False when they do not within the deadline.
    pub async fn reached(&self, position: Position, deadline: Duration) -> bool {
        let mut state = self.ring.state();
        let reached = state.wait_for(|state| state.end >= position);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// How many streams are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    /// Takes a seat for a new stream.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub fn seat(&self) -> Result<Seat, ApiError> {
        let seat = Seat(Arc::clone(&self.seats));
        if self.seats.fetch_add(1, Ordering::Relaxed) < self.seats_max {
            return Ok(seat);
        }
        let detail = format!("{} streams are open, which is the most; try again later.", self.seats_max);
        Err(ApiError::new(Code::Overloaded, detail).retry_after(SEAT_RETRY))
    }
}

/// The right to one open stream, until it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::MemoryLog;

    #[test]
    fn a_seat_is_free_again_once_it_is_dropped_and_a_refusal_takes_none() {
        let feed = EventFeed::new(Arc::new(MemoryLog::new()), Position::START, 2);
        let (first, _second) = (feed.seat().unwrap(), feed.seat().unwrap());
        let refusal = feed.seat().unwrap_err();
        assert_eq!((refusal.code, feed.open()), (Code::Overloaded, 2));
        assert!(refusal.retry_after.is_some());
        drop(first);
        assert!(feed.seat().is_ok());
    }
}
