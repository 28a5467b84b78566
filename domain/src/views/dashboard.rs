//! Figures over time: how many operations ended per minute, and how long they took.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::agent::record::percentile;

/// Durations that percentiles are taken from.
const SAMPLES_MAX: usize = 1_024;
/// Minutes that are remembered.
const MINUTES_MAX: usize = 60;
/// Seconds that are remembered.
const SECONDS_MAX: usize = 60;
const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;

/// What happened in a span of time: a second or a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Spans of this length since 1970.
    pub span: i64,
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
    seconds: VecDeque<Counts>,
    minutes: VecDeque<Counts>,
    /// From an operation's creation to its end.
    pub operations: Durations,
    /// From an attempt's start to its success.
    pub steps: Durations,
}

impl Dashboard {
    /// Counts what happened at this moment.
    pub fn count(&mut self, at: Timestamp, add: impl Fn(&mut Counts)) {
        add(newest(&mut self.seconds, at.as_micros() / SECOND_US, SECONDS_MAX));
        add(newest(&mut self.minutes, at.as_micros() / MINUTE_US, MINUTES_MAX));
    }

    /// What happened in the sixty seconds up to and including that of `now`, oldest first.
    pub fn last_minute(&self, now: Timestamp) -> impl Iterator<Item = &Counts> {
        let first = now.as_micros() / SECOND_US - SECONDS_MAX as i64 + 1;
        self.seconds.iter().filter(move |second| second.span >= first)
    }

    /// What happened in the `count` minutes up to and including that of `now`, oldest first.
    pub fn last_minutes(&self, now: Timestamp, count: i64) -> impl Iterator<Item = &Counts> {
        let first = now.as_micros() / MINUTE_US - count + 1;
        self.minutes.iter().filter(move |minute| minute.span >= first)
    }
}

/// The span that is counted up now, after those of before.
fn newest(spans: &mut VecDeque<Counts>, span: i64, max: usize) -> &mut Counts {
    if spans.back().is_none_or(|last| last.span < span) {
        if spans.len() == max {
            spans.pop_front();
        }
        spans.push_back(Counts { span, ..Counts::default() });
    }
    let last = spans.len() - 1;
    &mut spans[last]
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
    fn the_last_minute_has_sixty_seconds_wherever_it_begins() {
        let mut dashboard = Dashboard::default();
        let at = |second: i64| Timestamp::from_micros(second * SECOND_US + 400_000);
        for second in 0..200 {
            dashboard.count(at(second), |counts| counts.created += 1);
            let counted: u64 = dashboard.last_minute(at(second)).map(|counts| counts.created).sum();
            assert_eq!(counted, 60.min(second as u64 + 1));
        }
        assert_eq!(dashboard.last_minute(at(258)).count(), 1);
        assert_eq!(dashboard.last_minute(at(259)).count(), 0);
    }

    #[test]
    fn only_an_hour_is_remembered() {
        let mut dashboard = Dashboard::default();
        for minute in 0..100 {
            dashboard.count(Timestamp::from_micros(minute * MINUTE_US), |counts| counts.created += 1);
        }
        let now = Timestamp::from_micros(99 * MINUTE_US);
        assert_eq!(dashboard.last_minutes(now, 1_000).count(), MINUTES_MAX);
        assert_eq!(dashboard.last_minutes(now, 5).map(|minute| minute.created).sum::<u64>(), 5);
    }
}
