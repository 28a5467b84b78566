//! When an agent is put out of service: leases lost, or offers not taken, in a row. Counts, and says when
//! it is enough; it must never know what a lease was for.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::agent::event::Outcome;

/// So many leases lost in a row put an agent out of service.
pub const LOST_MAX: u32 = 3;
/// So many offers in a row that it did not take do the same.
pub const UNTAKEN_MAX: u32 = 5;

/// Why an agent whose leases are lost again and again is out of service.
const LOST: &str = "quarantined: three leases lost in a row";
/// Why an agent that takes none of its offers is out of service.
const UNTAKEN: &str = "quarantined: five offers in a row not taken";

/// Whether a status stands for this reason.
#[must_use]
pub fn is_reason(reason: &str) -> bool {
    [LOST, UNTAKEN].contains(&reason)
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

/// How often in a row an agent lost its leases, and did not take its offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streaks {
    lost: Row,
    untaken: Row,
}

impl Streaks {
    /// The same after an assignment that began at `since` has ended at `at`.
    #[must_use]
    pub fn after(self, outcome: Outcome, since: Timestamp, at: Timestamp) -> Self {
        match outcome {
            Outcome::Completed | Outcome::Failed => Self::default(),
            // What is lost was taken before.
            Outcome::Lost => Self { lost: self.lost.one_more(since, at), untaken: Row::default() },
            Outcome::Untaken => Self { untaken: self.untaken.one_more(since, at), ..self },
            // Neither says whether anybody worked on it.
            Outcome::Returned | Outcome::Cancelled => self,
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

    /// Why the agent is to be put out of service, if it is.
    #[must_use]
    pub fn verdict(&self) -> Option<&'static str> {
        if self.lost.count >= LOST_MAX {
            Some(LOST)
        } else {
            (self.untaken.count >= UNTAKEN_MAX).then_some(UNTAKEN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn what_was_under_way_together_counts_once() {
        let mut streaks = Streaks::default();
        for _ in 0..8 {
            streaks = streaks.after(Outcome::Lost, at(1), at(30));
        }
        assert_eq!((streaks.lost(), streaks.verdict()), (1, None));
        streaks = streaks.after(Outcome::Lost, at(30), at(60)).after(Outcome::Lost, at(61), at(90));
        assert_eq!((streaks.lost(), streaks.verdict()), (3, Some(LOST)));
    }
}
