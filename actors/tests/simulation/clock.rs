//! Owns the time of a simulated server: tokio's paused clock on a base that a restart may move, even back.

use std::sync::atomic::{AtomicI64, Ordering};

use actors::clock::Clock;
use domain::Timestamp;
use tokio::time::Instant;

pub(crate) struct SimulatedClock {
    started: Instant,
    base_us: AtomicI64,
}

impl SimulatedClock {
    /// Starts at this moment, within a runtime whose time is paused.
    pub(crate) fn start(base: Timestamp) -> Self {
        Self { started: Instant::now(), base_us: AtomicI64::new(base.as_micros()) }
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.base_us.load(Ordering::Relaxed) + self.elapsed_us())
    }

    fn raise_to(&self, floor: Timestamp) {
        self.base_us.fetch_max(floor.as_micros() - self.elapsed_us(), Ordering::Relaxed);
    }
}
