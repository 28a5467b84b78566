//! Owns how long requests took since the last sample, in buckets of fixed number. It must never block a
//! request, and never know what a request was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per doubling: a figure is at most a sixteenth too high.
const PER_DOUBLING: u64 = 16;
/// Exact up to 15 µs, then 32 doublings, which is 19 hours.
const BUCKETS: usize = 33 * 16;

/// Durations since the last sample.
pub struct Latencies {
    answered: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { answered: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

/// What the last sample was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Requests answered.
    pub count: u64,
    /// 95 % of those that did not wait on purpose took so many microseconds at most; none without any.
    pub p95_us: Option<u64>,
}

impl Latencies {
    /// One request was answered; without a duration when it waited on purpose.
    pub fn add(&self, took: Option<Duration>) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what was counted, and begins anew.
    #[must_use]
    pub fn take(&self) -> Answered {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        let timed: u64 = counts.iter().sum();
        let rank = timed.saturating_mul(95).div_ceil(100);
        let mut below = 0;
        let reached = counts.iter().position(|count| {
            below += count;
            rank > 0 && below >= rank
        });
        Answered { count: self.answered.swap(0, Ordering::Relaxed), p95_us: reached.map(highest) }
    }
}

/// Like a floating-point number: a doubling and a part of it.
fn bucket(us: u64) -> usize {
    let index = if us < PER_DOUBLING {
        us
    } else {
        let exponent = u64::from(us.ilog2()) - 3;
        exponent * PER_DOUBLING + (us >> (exponent - 1)) % PER_DOUBLING
    };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The largest number that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match bucket / PER_DOUBLING {
        0 => bucket,
        exponent => ((PER_DOUBLING + bucket % PER_DOUBLING + 1) << (exponent - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_a_bucket_that_is_a_sixteenth_wide() {
        let mut last = 0;
        for us in (0..100_000).chain((17..36).map(|power| (1 << power) - 1)) {
            let (bucket, highest) = (bucket(us), highest(bucket(us)));
            assert!(
                bucket >= last && highest >= us && highest - us <= us / 16,
                "{us} in {bucket}: {highest}"
            );
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_percentile_is_of_what_did_not_wait_since_the_last_sample() {
        let latencies = Latencies::default();
        assert_eq!(latencies.take(), Answered::default());
        for ms in 1..=100 {
            latencies.add(Some(Duration::from_millis(ms)));
        }
        latencies.add(None);
        let taken = latencies.take();
        assert_eq!(taken.count, 101);
        assert!((95_000..=101_000).contains(&taken.p95_us.unwrap()), "{taken:?}");
        latencies.add(None);
        assert_eq!(latencies.take(), Answered { count: 1, p95_us: None });
    }
}
