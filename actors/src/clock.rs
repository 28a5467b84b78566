//! The one clock. Wall time at the start plus monotonic time since, never below the log's last event:
//! a jump of the wall clock moves nothing.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never less than what an earlier call said.
    fn now(&self) -> Timestamp;

    /// No later call says less than `floor`.
    fn raise_to(&self, floor: Timestamp);
}

/// The real clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// What the clock said when it was started, in microseconds.
    base_us: AtomicI64,
}

impl SystemClock {
    /// Starts at the wall clock's time.
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let base_us = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Self { started: Instant::now(), base_us: AtomicI64::new(base_us) }
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.base_us.load(Ordering::Relaxed).saturating_add(self.elapsed_us()))
    }

    fn raise_to(&self, floor: Timestamp) {
        let base = floor.as_micros().saturating_sub(self.elapsed_us());
        self.base_us.fetch_max(base, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_below_its_floor() {
        let clock = SystemClock::start();
        let ahead = clock.now().plus_ms(1_000_000);
        clock.raise_to(ahead);
        assert!(clock.now() >= ahead);
        clock.raise_to(Timestamp::default());
        assert!(clock.now() >= ahead);
    }
}
