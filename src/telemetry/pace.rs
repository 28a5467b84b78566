//! Owns how many warnings and errors of one kind are written: what a client can cause again and again is told
//! in full a few times, and then as one line with a count. It must never hold back what is not a warning.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How long lines of one kind are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one kind that are written in that time.
const LINES_MAX: u32 = 10;

/// Lines that were held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) count: u64,
}

/// How many of each kind there were lately. A kind is a place in the code, so that there are not many.
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<Identifier, Kind>>);

struct Kind {
    begun: Instant,
    written: u32,
    held: HeldBack,
}

impl Pace {
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let mut kinds = self.0.lock();
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| {
            let (level, target) = (*metadata.level(), metadata.target());
            let held = HeldBack { level, target, message: message_of(event), count: 0 };
            Kind { begun: now, written: 0, held }
        });
        let is_written = kind.written < LINES_MAX;
        if is_written {
            kind.written += 1;
        } else {
            kind.held.count += 1;
        }
        is_written
    }

    /// What was held back in windows that are over; they begin anew with the next line.
    pub(super) fn take(&self, now: Instant) -> Vec<HeldBack> {
        let mut over = Vec::new();
        self.0.lock().retain(|_, kind| {
            let goes_on = now.duration_since(kind.begun) < WINDOW;
            if !goes_on && kind.held.count > 0 {
                over.push(kind.held.clone());
            }
            goes_on
        });
        over
    }
}

/// The layer that asks it.
pub(super) struct Paced(pub(super) &'static Pace);

impl<S: Subscriber> Layer<S> for Paced {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        self.0.admits(event, Instant::now())
    }
}

fn message_of(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // A text takes what is written to it.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn what_comes_again_and_again_is_told_as_one_line_with_a_count() {
        let pace: &'static Pace = Box::leak(Box::default());
        let noise = || tracing::warn!("turned away");
        let begun = Instant::now();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Paced(pace)), || {
            for _ in 0..LINES_MAX + 7 {
                noise();
                tracing::info!("work");
            }
            tracing::error!("another kind");
        });
        assert_eq!(pace.take(begun), []);
        let held = pace.take(begun + 2 * WINDOW);
        let message = "turned away".to_owned();
        let expected = HeldBack { level: Level::WARN, target: module_path!(), message, count: 7 };
        assert_eq!(held, [expected]);
        assert_eq!(pace.take(begun + 2 * WINDOW), []);
    }
}
