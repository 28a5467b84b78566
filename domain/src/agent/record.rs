//! How an agent did, as the server measured it: counts, running averages, and its last results. What an
//! agent reports about itself must never enter here.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Results that are kept one by one.
pub const WINDOW_MAX: usize = 50;
/// Weight of the newest sample in a running average.
const NEWEST: f64 = 0.2;
/// Nothing is known of a new agent: it succeeds as often as not.
const NEUTRAL_SUCCESS: f64 = 0.5;

/// An average in which newer samples weigh more, and which has seen nothing at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Running {
    sum: f64,
    /// Of all samples together, 0 before the first and never quite 1.
    weight: f64,
}

impl Running {
    fn add(&mut self, sample: f64) {
        self.sum += NEWEST * (sample - self.sum);
        self.weight += NEWEST * (1.0 - self.weight);
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// The average as if it had begun with this.
    fn beginning_with(&self, prior: f64) -> f64 {
        self.sum + (1.0 - self.weight) * prior
    }
}

/// How a step ended for the agent that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It completed.
    Completed,
    /// The attempt failed.
    Failed,
    /// The lease was lost: the agent had begun, and was not heard in time.
    Lost,
}

/// One result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    outcome: Outcome,
    duration_ms: u64,
    at: Timestamp,
}

/// How an agent did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps completed.
    pub completed: u64,
    /// Steps that failed or were lost.
    pub failed: u64,
    response_ms: Running,
    success: Running,
    last: VecDeque<Ended>,
}

/// The last results of an agent, at most [`WINDOW_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When the oldest of them ended; none without any.
    pub since: Option<Timestamp>,
    /// How many completed.
    pub completed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many leases were lost.
    pub lost: usize,
    /// Half of those that completed took no longer, in milliseconds; none when none completed.
    pub p50_ms: Option<u64>,
    /// Nineteen of twenty that completed took no longer, in milliseconds; none when none completed.
    pub p95_ms: Option<u64>,
}

impl Record {
    /// Takes over a result that came `duration_ms` after the step was begun, or reserved.
    pub fn add(&mut self, outcome: Outcome, duration_ms: u64, at: Timestamp) {
        match outcome {
            Outcome::Completed => {
                self.completed += 1;
                self.response_ms.add(duration_ms as f64);
                self.success.add(1.0);
            }
            Outcome::Failed | Outcome::Lost => {
                self.failed += 1;
                self.success.add(0.0);
            }
        }
        if self.last.len() >= WINDOW_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Ended { outcome, duration_ms, at });
    }

    /// Average duration of the completed steps in milliseconds, newer ones weighing more; none before the
    /// first.
    #[must_use]
    pub fn response_ms(&self) -> Option<f64> {
        self.response_ms.mean()
    }

    /// The same as if it had begun with `prior_ms`: one odd step makes nobody fast or slow.
    #[must_use]
    pub fn response_ms_from(&self, prior_ms: f64) -> f64 {
        self.response_ms.beginning_with(prior_ms)
    }

    /// Share of the steps that completed, 0 to 1; none before the first.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        let all = self.completed + self.failed;
        (all > 0).then(|| self.completed as f64 / all as f64)
    }

    /// How well it is expected to succeed, 0 to 1: newer steps weigh more, and before the first it is one
    /// half.
    #[must_use]
    pub fn success_score(&self) -> f64 {
        self.success.beginning_with(NEUTRAL_SUCCESS)
    }

    /// What the last results say.
    #[must_use]
    pub fn window(&self) -> Window {
        let count = |outcome| self.last.iter().filter(|ended| ended.outcome == outcome).count();
        let completed = self.last.iter().filter(|ended| ended.outcome == Outcome::Completed);
        let mut durations: Vec<u64> = completed.map(|ended| ended.duration_ms).collect();
        durations.sort_unstable();
        Window {
            since: self.last.front().map(|ended| ended.at),
            completed: durations.len(),
            failed: count(Outcome::Failed),
            lost: count(Outcome::Lost),
            p50_ms: percentile(&durations, 50),
            p95_ms: percentile(&durations, 95),
        }
    }
}

impl Window {
    /// Share of them that completed, 0 to 1; none without any.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        let all = self.completed + self.failed + self.lost;
        (all > 0).then(|| self.completed as f64 / all as f64)
    }
}

/// The smallest value that at least so many percent do not exceed.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 95)), (Some(50), Some(95)));
        assert_eq!(
            (percentile(&[7], 50), percentile(&[7], 95), percentile(&[], 50)),
            (Some(7), Some(7), None)
        );
    }

    #[test]
    fn an_average_forgets_what_it_began_with() {
        let mut running = Running::default();
        assert_eq!((running.mean(), running.beginning_with(9.0)), (None, 9.0));
        running.add(4.0);
        assert!((running.mean().unwrap() - 4.0).abs() < 1e-9);
        assert!((running.beginning_with(9.0) - 8.0).abs() < 1e-9);
        for _ in 0..100 {
            running.add(4.0);
        }
        assert!((running.beginning_with(9.0) - 4.0).abs() < 1e-6);
    }
}
