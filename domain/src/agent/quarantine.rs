//! When an agent is put out of service: leases lost, offers not taken, or steps failed, in a row. Counts,
//! and says when it is enough; it must never know who puts the agent out of service.

use serde::{Deserialize, Serialize};

use crate::agent::event::{Config, StatusReason};
use crate::{OperationId, Timestamp};

/// Most failures in a row that a configuration may ask for.
pub const FAILURES_MAX: u32 = 100;

/// How many in a row are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Leases lost.
    pub losses: u32,
    /// Offers not taken.
    pub untaken: u32,
    /// Steps failed, of agents whose configuration names no number; 0 is never enough.
    pub failures: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { losses: 3, untaken: 5, failures: 5 }
    }
}

/// How a lease ended, as far as rows are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending<'e> {
    /// The step completed.
    Completed,
    /// The step failed, for a reason that may lie with the agent.
    Failed(&'e OperationId),
    /// The step failed, for a reason that says nothing of the agent.
    Excused,
    /// The lease was lost.
    Lost,
    /// The offer was not taken.
    Untaken,
    /// Nothing that says whether anybody worked on it.
    Other,
}

/// Ends of one kind, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    count: u32,
    /// When the last of them was counted.
    last: Option<Timestamp>,
}

impl Row {
    /// What was under way together ends together: only what began after the last end follows it.
    fn one_more(self, since: Timestamp, at: Timestamp) -> Self {
        let follows = self.last.is_none_or(|last| since >= last);
        if follows { Self { count: self.count.saturating_add(1), last: Some(at) } } else { self }
    }
}

/// How often in a row an agent lost its leases, did not take its offers, and failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streaks {
    lost: Row,
    untaken: Row,
    /// Operations whose steps failed, each once, since one broken operation says nothing of an agent; at
    /// most [`FAILURES_MAX`].
    failed: Vec<OperationId>,
}

impl Streaks {
    /// Takes over how a lease that was reserved at `since` has ended at `at`.
    pub fn add(&mut self, ending: Ending<'_>, since: Timestamp, at: Timestamp) {
        match ending {
            Ending::Completed => *self = Self::default(),
            Ending::Failed(operation) => {
                (self.lost, self.untaken) = (Row::default(), Row::default());
                if self.failed.len() < FAILURES_MAX as usize && !self.failed.contains(operation) {
                    self.failed.push(operation.clone());
                }
            }
            Ending::Excused => (self.lost, self.untaken) = (Row::default(), Row::default()),
            // What is lost was taken before.
            Ending::Lost => (self.lost, self.untaken) = (self.lost.one_more(since, at), Row::default()),
            Ending::Untaken => self.untaken = self.untaken.one_more(since, at),
            Ending::Other => {}
        }
    }

    /// Leases lost in a row.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost.count
    }

    /// Offers in a row that were not taken.
    #[must_use]
    pub fn untaken(&self) -> u32 {
        self.untaken.count
    }

    /// Operations in a row of which a step failed.
    #[must_use]
    pub fn failed(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }

    /// Why an agent of this configuration is to be put out of service, if it is.
    #[must_use]
    pub fn verdict(&self, config: &Config, thresholds: &Thresholds) -> Option<StatusReason> {
        let failures = config.failures_in_a_row.unwrap_or(thresholds.failures);
        let rows = [
            (self.lost(), thresholds.losses, StatusReason::QuarantinedLosses),
            (self.untaken(), thresholds.untaken, StatusReason::QuarantinedUntaken),
            (self.failed(), failures, StatusReason::QuarantinedFailures),
        ];
        rows.into_iter().find(|(count, enough, _)| *enough > 0 && count >= enough).map(|(.., reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn verdict(streaks: &Streaks) -> Option<StatusReason> {
        streaks.verdict(&Config::default(), &Thresholds::default())
    }

    #[test]
    fn leases_that_were_under_way_together_count_once() {
        let mut streaks = Streaks::default();
        for _ in 0..8 {
            streaks.add(Ending::Lost, at(1), at(30));
        }
        assert_eq!((streaks.lost(), verdict(&streaks)), (1, None));
        streaks.add(Ending::Lost, at(30), at(60));
        streaks.add(Ending::Lost, at(61), at(90));
        assert_eq!((streaks.lost(), verdict(&streaks)), (3, Some(StatusReason::QuarantinedLosses)));
    }

    #[test]
    fn failures_count_once_for_each_operation_and_a_completion_ends_the_row() {
        let operation = OperationId::from_bits;
        let mut streaks = Streaks::default();
        for _ in 0..9 {
            streaks.add(Ending::Failed(&operation(1)), at(1), at(2));
        }
        assert_eq!(streaks.failed(), 1);
        (2..=4).for_each(|number| streaks.add(Ending::Failed(&operation(number)), at(1), at(2)));
        streaks.add(Ending::Excused, at(1), at(2));
        assert_eq!((streaks.failed(), verdict(&streaks)), (4, None));
        streaks.add(Ending::Failed(&operation(5)), at(1), at(2));
        assert_eq!(verdict(&streaks), Some(StatusReason::QuarantinedFailures));
        let never = Config { failures_in_a_row: Some(0), ..Config::default() };
        assert_eq!(streaks.verdict(&never, &Thresholds::default()), None);
        streaks.add(Ending::Completed, at(1), at(2));
        assert_eq!(streaks, Streaks::default());
    }
}
