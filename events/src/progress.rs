//! Owns how far the opening of a log is, for whoever watches. Must never decide anything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::stream::Position;

/// How far the opening of a log is: give it to the options, and look at it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of journals.
    all: AtomicU64,
    verified: AtomicU64,
    position: AtomicU64,
}

impl Progress {
    /// Up to where everything is verified.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.position.load(Relaxed))
    }

    /// Whole percent of the stored bytes that are verified; 0 until it is known how many there are.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let (verified, all) = (self.verified.load(Relaxed), self.all.load(Relaxed));
        let percent = verified.min(all).saturating_mul(100).checked_div(all).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    }

    pub(crate) fn begin(&self, bytes: u64) {
        self.all.store(bytes, Relaxed);
    }

    pub(crate) fn verified(&self, bytes: usize, position: Position) {
        self.verified.fetch_add(bytes as u64, Relaxed);
        self.position.store(position.get(), Relaxed);
    }
}
