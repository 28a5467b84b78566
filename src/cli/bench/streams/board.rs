//! Owns what all sockets have heard: which event came how often and how late. It must never keep an event
//! itself, but for one sample.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::Utc;
use domain::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::super::figures::rounded;

/// Every socket reads into the same bytes, so that ten thousand of them cost the client little.
const BUFFER_LEN: usize = 64 << 10;
/// How exactly lags are told apart, in microseconds, and how many such steps there are: ten seconds.
const STEP_US: i64 = 100;
const STEPS: usize = 100_000;

/// What was heard in the present phase.
pub(super) struct Board {
    sockets: usize,
    events: RefCell<HashMap<u64, Delivery>>,
    lags: RefCell<Lags>,
    repeated: Cell<u64>,
    /// Events that every socket has.
    complete: Cell<u64>,
    /// Events that the server has acknowledged.
    written: Cell<u64>,
    /// One permit for each event that may be written until more are complete.
    pub(super) free: Semaphore,
    /// What sockets read into.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// The first event of all.
    pub(super) sample: RefCell<Option<Vec<u8>>>,
}

struct Delivery {
    at_us: i64,
    sockets: usize,
}

/// What came of a phase.
pub(super) struct Outcome {
    pub(super) events: usize,
    pub(super) deliveries: u64,
    pub(super) lag: Option<Lag>,
    pub(super) missed: u64,
    pub(super) repeated: u64,
}

/// From the event's own time, which is cut to a millisecond, until a socket had it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lag {
    /// Half of all deliveries took no longer.
    pub(super) p50_ms: f64,
    /// All but one in a hundred.
    pub(super) p99_ms: f64,
    /// The slowest.
    pub(super) max_ms: f64,
}

impl Board {
    /// For so many sockets.
    pub(super) fn new(sockets: usize) -> Self {
        Self {
            sockets,
            events: RefCell::default(),
            lags: RefCell::default(),
            repeated: Cell::default(),
            complete: Cell::default(),
            written: Cell::default(),
            free: Semaphore::new(0),
            buffer: RefCell::new(vec![0; BUFFER_LEN]),
            sample: RefCell::default(),
        }
    }

    /// Begins anew; so many events may be on their way at once.
    pub(super) fn begin(&self, in_flight: usize) {
        self.events.borrow_mut().clear();
        *self.lags.borrow_mut() = Lags::default();
        self.repeated.set(0);
        self.complete.set(0);
        self.written.set(0);
        self.free.forget_permits(Semaphore::MAX_PERMITS);
        self.free.add_permits(in_flight);
    }

    /// The server has acknowledged an event.
    pub(super) fn wrote(&self) {
        self.written.set(self.written.get() + 1);
    }

    /// A socket whose last event was `last` has this one now; gives its sequence.
    pub(super) fn hear(&self, last: u64, json: &str) -> Option<u64> {
        let sequence = field(json, "\"sequence\":\"")?.parse().ok()?;
        if sequence <= last {
            self.repeated.set(self.repeated.get() + 1);
            return Some(last);
        }
        let mut events = self.events.borrow_mut();
        let delivery = match events.entry(sequence) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let at = Timestamp::parse(field(json, "\"time\":\"")?)?;
                self.sample.borrow_mut().get_or_insert_with(|| json.as_bytes().to_vec());
                new.insert(Delivery { at_us: at.as_micros(), sockets: 0 })
            }
        };
        delivery.sockets += 1;
        if delivery.sockets == self.sockets {
            self.complete.set(self.complete.get() + 1);
            self.free.add_permits(1);
        }
        self.lags.borrow_mut().add(Utc::now().timestamp_micros() - delivery.at_us);
        Some(sequence)
    }

    /// Whether every socket has every event.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get() >= self.written.get().max(self.events.borrow().len() as u64)
    }

    /// What came of this phase.
    pub(super) fn outcome(&self) -> Outcome {
        let events = self.events.borrow();
        let deliveries: u64 = events.values().map(|delivery| delivery.sockets as u64).sum();
        let expected = self.written.get().max(events.len() as u64) * self.sockets as u64;
        Outcome {
            events: events.len(),
            deliveries,
            lag: self.lags.borrow().figures(),
            missed: expected - deliveries,
            repeated: self.repeated.get(),
        }
    }
}

/// The text after a key, up to the next quote.
fn field<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(key)?;
    rest.split('"').next()
}

/// How often each lag occurred: millions of them, in little memory.
#[derive(Default)]
struct Lags {
    counts: Vec<u64>,
    max_us: i64,
}

impl Lags {
    fn add(&mut self, lag_us: i64) {
        self.max_us = self.max_us.max(lag_us);
        let step = usize::try_from(lag_us / STEP_US).unwrap_or(0).min(STEPS);
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
    }

    fn figures(&self) -> Option<Lag> {
        let all: u64 = self.counts.iter().sum();
        let at = |share: u64| {
            let mut left = all * share / 100;
            let step = self.counts.iter().position(|count| {
                let found = left < *count;
                left = left.saturating_sub(*count);
                found
            })?;
            Some(rounded((step + 1) as f64 * STEP_US as f64 / 1e3, 1))
        };
        Some(Lag { p50_ms: at(50)?, p99_ms: at(99)?, max_ms: rounded(self.max_us as f64 / 1e3, 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> String {
        format!(r#"{{"specversion":"1.0","time":"2026-01-01T00:00:00.000Z","sequence":"{sequence}"}}"#)
    }

    #[test]
    fn what_one_socket_misses_and_another_gets_twice_is_counted() {
        let board = Board::new(2);
        board.begin(1);
        (0..3).for_each(|_| board.wrote());
        assert_eq!(board.hear(0, &event(4)), Some(4));
        assert_eq!(board.hear(4, &event(7)), Some(7));
        assert!(!board.is_complete());
        assert_eq!(board.hear(0, &event(7)), Some(7));
        assert_eq!(board.hear(7, &event(7)), Some(7));
        let outcome = board.outcome();
        // The third event was heard by nobody.
        assert_eq!((outcome.events, outcome.deliveries), (2, 3));
        assert_eq!((outcome.missed, outcome.repeated), (3, 1));
        assert_eq!(board.free.available_permits(), 2);
    }

    #[test]
    fn lags_keep_their_order() {
        let mut lags = Lags::default();
        assert!(lags.figures().is_none());
        (1..=100).for_each(|n| lags.add(n * 1_000));
        let lag = lags.figures().unwrap();
        assert_eq!((lag.p50_ms, lag.p99_ms, lag.max_ms), (51.1, 100.1, 100.0));
    }
}
