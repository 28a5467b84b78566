//! Owns the live end of every stream: the task that turns each new event into JSON once, the ring that
//! readers take it from, and the seats of open streams.
//! It must never wait for a reader. What it shows, the views show too, unless they lag for seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actors::projections::Projected;
use domain::Timestamp;
use events::live::{Feed, RingMax};
use events::{Damage, EventLog, Position, ReadError, Recorded, StreamId};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast};

use super::super::error::{ApiError, Code};
use super::super::lease_names::LeaseNames;
use super::shown::Shown;
use crate::work_log;

/// What the ring holds; beyond that a reader takes from the log.
const RING_MAX: RingMax = RingMax { events: 8_192, bytes: 16 << 20 };
/// Events that are encoded before they are published.
const CHUNK: usize = 256;
/// Events that only pass by and that a slow reader may still get.
const PASSING_MAX: usize = 1_024;
/// The views follow the log within milliseconds; after so long a wait the events are shown anyway.
const VIEWS_WITHIN: Duration = Duration::from_secs(5);
/// Pages of history that are fetched at the same time, for all readers.
const FETCHES_MAX: usize = 16;
/// How long a client waits that found no seat.
const SEAT_RETRY: Duration = Duration::from_secs(5);

/// The live end of every stream.
pub struct EventFeed {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) names: LeaseNames,
    pub(super) ring: Feed<Shown>,
    /// Where the log is damaged; then its end is the last thing before that.
    pub(super) damage: Option<Damage>,
    passing: broadcast::Sender<Arc<Shown>>,
    fetches: Semaphore,
    seats: Arc<AtomicUsize>,
    seats_max: usize,
    told: AtomicU64,
}

impl EventFeed {
    /// The live end of a log whose newest event is at `end`, for at most so many open streams.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, end: Position, seats_max: usize) -> Self {
        let passing = broadcast::Sender::new(PASSING_MAX);
        let (ring, fetches) = (Feed::new(end, RING_MAX), Semaphore::new(FETCHES_MAX));
        let (damage, seats, told) = (None, Arc::default(), AtomicU64::new(0));
        let names = LeaseNames::of(log.marks().epoch);
        Self { log, names, ring, damage, passing, fetches, seats, seats_max, told }
    }

    /// The same for a log that is damaged behind its end: streams say so when they have come there.
    #[must_use]
    pub fn with_damage(mut self, damage: Option<Damage>) -> Self {
        self.damage = damage;
        self
    }

    /// Follows the log until it is closed. Runs once, beside the server; no stream shows anything new after
    /// its end.
    pub async fn follow(&self, views: &Projected) {
        let mut tail = self.log.tail(self.ring.end()).ready_chunks(CHUNK);
        while let Some(chunk) = tail.next().await {
            let recorded: Result<Vec<Arc<Recorded>>, ReadError> = chunk.into_iter().collect();
            let recorded = match recorded {
                Ok(recorded) => recorded,
                Err(ReadError::Closed) => break,
                Err(fault) => {
                    tracing::error!(%fault, "streams follow the log no more");
                    break;
                }
            };
            let Some(last) = recorded.last().map(|last| last.position) else { continue };
            // What a stream has shown, a read shows too.
            views.reached(last, VIEWS_WITHIN).await;
            views.raise_answered(last);
            work_log::tell(&recorded, views);
            if self.open() == 0 {
                self.ring.skip_to(last);
            } else {
                let shown = recorded.iter().map(|recorded| Arc::new(Shown::of(recorded, &self.names)));
                self.ring.publish(shown.collect());
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

    /// Some history after a position. Waits for its turn, so that many readers that come back at once leave
    /// the disk to the log's writer.
    pub(super) async fn page(&self, after: Position, bytes: u64) -> Result<Vec<Arc<Recorded>>, ReadError> {
        let _turn = self.fetches.acquire().await.map_err(|_| ReadError::Closed)?;
        self.log.page(after, bytes).await
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

    /// How many events all streams have told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) fn count_told(&self, events: usize) {
        self.told.fetch_add(events as u64, Ordering::Relaxed);
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
