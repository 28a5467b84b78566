//! Owns what an open stream says and when: events, signs of life, bookmarks, the farewell. Sockets and
//! server-sent events differ only in how they write it.
//! It must never know how it is written.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use events::{Damage, Epoch, Position, ReadError};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::super::guard::ServiceState;
use super::EventFeed;
use super::feed::Seat;
use super::filter::Filter;
use super::reader::Reader;
use super::shown::Shown;

/// A sign of life at least so often.
const BEAT: Duration = Duration::from_secs(15);
/// Every so many signs of life a bookmark, so that a quiet filter does not fall behind.
const BEATS_PER_BOOKMARK: u32 = 2;

/// What an open stream says.
#[derive(Debug)]
pub(super) enum Told {
    /// At least one event.
    Events(Vec<Arc<Shown>>),
    /// Everything up to here was told, of this history.
    Bookmark(Position, Option<Epoch>),
    /// Everything that can be told was told: what came after is damaged.
    Gap(Damage),
    /// Nothing but that the connection lives.
    Beat,
    /// The last word, and up to where everything was told.
    Bye(Farewell, Position),
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The server stops and will be back.
    Restarting,
    /// The log cannot be read.
    Failed,
}

impl Farewell {
    /// As clients read it.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Restarting => "restarting",
            Self::Failed => "failed",
        }
    }
}

/// One open stream.
pub(super) struct Telling {
    feed: Arc<EventFeed>,
    reader: Reader,
    /// Everything up to here was told.
    told: Position,
    begun: bool,
    gap_told: bool,
    beat: Interval,
    beats: u32,
    draining: Pin<Box<dyn Future<Output = ()>>>,
    _seat: Seat,
}

impl Telling {
    /// A stream that begins after a position.
    #[must_use]
    pub(super) fn new(
        feed: &Arc<EventFeed>,
        state: &Arc<ServiceState>,
        seat: Seat,
        filter: Filter,
        after: Position,
    ) -> Self {
        let mut beat = interval_at(tokio::time::Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = Arc::clone(state);
        Self {
            feed: Arc::clone(feed),
            reader: Reader::new(feed, filter, after),
            told: after,
            begun: false,
            gap_told: false,
            beat,
            beats: 0,
            draining: Box::pin(async move { state.draining().await }),
            _seat: seat,
        }
    }

    /// Everything up to here was told.
    #[must_use]
    pub(super) fn told(&self) -> Position {
        self.told
    }

    /// Tells other events from now on. Whoever turns it says where they begin.
    pub(super) fn turn_to(&mut self, filter: Filter, after: Position) {
        self.begun = true;
        self.reader = Reader::new(&self.feed, filter, after);
        self.told = after;
        self.gap_told = false;
    }

    /// What to say next; a new stream says first where it begins. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Told {
        if !self.begun {
            self.begun = true;
            return self.bookmark();
        }
        loop {
            if let Some(damage) = self.feed.damage.filter(|_| !self.gap_told && self.told >= self.feed.end())
            {
                self.gap_told = true;
                return Told::Gap(damage);
            }
            tokio::select! {
                biased;
                () = &mut self.draining => return self.bye(Farewell::Restarting),
                taken = self.reader.take() => match taken {
                    Ok(events) => {
                        self.told = self.reader.cursor();
                        if !events.is_empty() {
                            self.feed.count_told(events.len());
                            return Told::Events(events);
                        }
                    }
                    Err(ReadError::Closed) => return self.bye(Farewell::Restarting),
                    Err(fault) => {
                        tracing::error!(%fault, "a stream ends because the log cannot be read");
                        return self.bye(Farewell::Failed);
                    }
                },
                _ = self.beat.tick() => {
                    self.beats += 1;
                    let bookmark = self.beats.is_multiple_of(BEATS_PER_BOOKMARK);
                    return if bookmark { self.bookmark() } else { Told::Beat };
                }
            }
        }
    }

    /// Which history is told.
    #[must_use]
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.feed.log.marks().epoch
    }

    fn bookmark(&self) -> Told {
        Told::Bookmark(self.told, self.epoch())
    }

    fn bye(&self, why: Farewell) -> Told {
        Told::Bye(why, self.told)
    }
}

/// What is said about a place in the log, beside its type.
pub(super) fn place(at: Position, epoch: Option<Epoch>) -> Value {
    let mut place = json!({"sequence": at.to_string()});
    if let Some(epoch) = epoch {
        place["epoch"] = epoch.to_string().into();
    }
    place
}

/// What is said about a gap, beside its type.
pub(super) fn gap(damage: &Damage) -> Value {
    let Damage { generation, offset, position, what, .. } = damage;
    json!({"position": position.to_string(), "generation": generation, "offset": offset, "what": what})
}
