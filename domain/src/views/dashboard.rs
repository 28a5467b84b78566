//! Figures over time: how many operations ended per minute, and how long they took.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::agent::record::percentile;

/// Durations that percentiles are taken from.
const SAMPLES_MAX: usize = 1_024;
/// Minutes that are remembered.
const MINUTES_MAX: usize = 60;
const MINUTE_US: i64 = 60_000_000;

/// What happened in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minute {
    /// Minutes since 1970.
    pub minute: i64,
    /// Operations created.
    pub created: u64,
    /// Operations completed.
    pub completed: u64,
    /// Operations failed.
    pub failed: u64,
    /// Steps completed.
    pub steps: u64,
    /// Attempts that were scheduled after one that failed or was lost.
    pub retries: u64,
}

/// A window of durations, newest last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Durations(VecDeque<u64>);

impl Durations {
    /// Adds one, in milliseconds.
    pub fn add(&mut self, duration_ms: u64) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(duration_ms);
    }

    /// The given percentiles (0 to 100) in milliseconds by nearest rank; none without samples.
    #[must_use]
    pub fn percentiles<const N: usize>(&self, wanted: [usize; N]) -> Option<[u64; N]> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let last = *sorted.last()?;
        Some(wanted.map(|percent| percentile(&sorted, percent).unwrap_or(last)))
    }
}

/// Figures over time, by the times of the events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dashboard {
    minutes: VecDeque<Minute>,
    /// From an operation's creation to its end.
    pub operations: Durations,
    /// From an attempt's start to its success.
    pub steps: Durations,
}

impl Dashboard {
    /// The minute that `at` lies in, to be counted up.
    pub fn minute(&mut self, at: Timestamp) -> &mut Minute {
        let minute = at.as_micros() / MINUTE_US;
        let newest = self.minutes.back().map(|last| last.minute);
        if newest.is_none_or(|newest| newest < minute) {
            if self.minutes.len() == MINUTES_MAX {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Minute { minute, ..Minute::default() });
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last]
    }

    /// What happened in the `count` minutes up to and including that of `now`, oldest first.
    pub fn last_minutes(&self, now: Timestamp, count: i64) -> impl Iterator<Item = &Minute> {
        let first = now.as_micros() / MINUTE_US - count + 1;
        self.minutes.iter().filter(move |minute| minute.minute >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut durations = Durations::default();
        assert_eq!(durations.percentiles([50]), None);
        (1..=100).rev().for_each(|ms| durations.add(ms));
        assert_eq!(durations.percentiles([50, 95, 99]), Some([50, 95, 99]));
    }

    #[test]
    fn only_an_hour_is_remembered() {
        let mut dashboard = Dashboard::default();
        for minute in 0..100 {
            dashboard.minute(Timestamp::from_micros(minute * MINUTE_US)).created += 1;
        }
        let now = Timestamp::from_micros(99 * MINUTE_US);
        assert_eq!(dashboard.last_minutes(now, 1_000).count(), MINUTES_MAX);
        assert_eq!(dashboard.last_minutes(now, 5).map(|minute| minute.created).sum::<u64>(), 5);
    }
}
