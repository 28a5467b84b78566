//! When what is looked at again and again is worth a word: a value over its threshold, a health that
//! changed. Pure: it is told each look, and knows neither what is measured nor what time it is.

use crate::system::{AlertState, Check, Health, HealthChanged};

/// So many samples in a row raise an alert, and so many clear it.
const SAMPLES: u8 = 2;

/// One watched value: calm or raised, and how long it has looked otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    raised: bool,
    against: u8,
}

impl Alarm {
    /// Whether the alert is raised.
    #[must_use]
    pub const fn is_raised(self) -> bool {
        self.raised
    }

    /// The alarm after one more sample, and what there is to say.
    ///
    /// Raised by two samples in a row over the threshold, cleared by two in a row under 80 % of it: between
    /// the two it stays as it is. Nothing measured is no reason to raise it, nor to doubt it the less; a
    /// raised one is cleared by it.
    #[must_use]
    pub fn after(self, sample: Option<u64>, threshold: u64) -> (Self, Option<AlertState>) {
        let over = |value: u64| value > threshold;
        let under = |value: u64| u128::from(value) * 5 < u128::from(threshold) * 4;
        let speaks_against = match (self.raised, sample) {
            (false, None) => return (self, None),
            (false, Some(value)) => over(value),
            (true, value) => value.is_none_or(under),
        };
        let against = if speaks_against { self.against + 1 } else { 0 };
        if against < SAMPLES {
            return (Self { against, ..self }, None);
        }
        let state = if self.raised { AlertState::Cleared } else { AlertState::Raised };
        (Self { raised: !self.raised, against: 0 }, Some(state))
    }
}

/// Folds one look after the other: what is worth a word since the last one.
#[derive(Clone, Debug, Default)]
pub struct HealthRecord {
    worst: Health,
    told: Vec<Check>,
}

impl HealthRecord {
    /// Takes in a look at everything. Says what changed when the worst of it did.
    ///
    /// Before the first look all is taken to be well, so that what is ill from the start is told.
    pub fn look(&mut self, checks: &[Check]) -> Option<HealthChanged> {
        let to = checks.iter().map(|check| check.state).max().unwrap_or_default();
        if to == self.worst {
            return None;
        }
        let before = |check: &Check| {
            let told = self.told.iter().find(|told| told.name == check.name);
            told.map_or(Health::Pass, |told| told.state)
        };
        let changed = checks.iter().filter(|check| before(check) != check.state).cloned().collect();
        self.told = checks.to_vec();
        Some(HealthChanged { from: std::mem::replace(&mut self.worst, to), to, checks: changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(samples: &[Option<u64>], threshold: u64) -> Vec<Option<AlertState>> {
        let mut alarm = Alarm::default();
        let after = |sample: &Option<u64>| {
            let (next, said) = alarm.after(*sample, threshold);
            alarm = next;
            said
        };
        samples.iter().map(after).collect()
    }

    #[test]
    fn two_in_a_row_raise_and_two_in_a_row_clear() {
        let (raised, cleared) = (Some(AlertState::Raised), Some(AlertState::Cleared));
        let some = |values: &[u64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(said(&some(&[101, 100, 101, 102]), 100), [None, None, None, raised]);
        assert_eq!(said(&some(&[200, 200, 79, 80, 79, 79]), 100), [None, raised, None, None, None, cleared]);
        assert_eq!(said(&some(&[2, 2, 0, 0]), 1), [None, raised, None, cleared], "the least threshold");
    }

    #[test]
    fn nothing_measured_raises_nothing_and_clears() {
        let (raised, cleared) = (Some(AlertState::Raised), Some(AlertState::Cleared));
        assert_eq!(said(&[None; 5], 0), [None; 5]);
        assert_eq!(said(&[Some(9), None, None, Some(9)], 5), [None, None, None, raised]);
        assert_eq!(said(&[Some(9), Some(9), None, None], 5), [None, raised, None, cleared]);
    }

    fn check(name: &str, state: Health) -> Check {
        Check { name: name.into(), state, detail: String::new() }
    }

    #[test]
    fn only_a_change_of_the_worst_state_is_told_with_what_changed() {
        let (good, bad) = (check("log", Health::Pass), check("disk", Health::Fail));
        let mut record = HealthRecord::default();
        assert_eq!(record.look(&[good.clone(), check("disk", Health::Pass)]), None);
        let told = record.look(&[good.clone(), bad.clone()]).unwrap();
        assert_eq!((told.from, told.to, told.checks), (Health::Pass, Health::Fail, vec![bad.clone()]));
        assert_eq!(record.look(&[check("log", Health::Warn), bad]), None);
        let told = record.look(&[check("log", Health::Warn), check("disk", Health::Pass)]).unwrap();
        assert_eq!((told.from, told.to, told.checks.len()), (Health::Fail, Health::Warn, 2));
    }

    #[test]
    fn what_is_ill_from_the_start_is_told() {
        let told = HealthRecord::default().look(&[check("disk", Health::Warn)]).unwrap();
        assert_eq!((told.from, told.to), (Health::Pass, Health::Warn));
    }

    proptest! {
        /// By the words alone: an alert is said only after two samples that agree, in turns, and a value
        /// between 80 % and 100 % never says anything.
        #[test]
        fn what_is_said_follows_from_the_last_two_readings(
            threshold in 1_u64..1_000,
            samples in proptest::collection::vec(proptest::option::of(0_u64..2_000), 0..200),
        ) {
            let said = said(&samples, threshold);
            let mut is_raised = false;
            for (at, said) in said.iter().enumerate() {
                match said {
                    None => {}
                    Some(AlertState::Raised) => {
                        prop_assert!(!is_raised);
                        let read: Vec<u64> = samples[..=at].iter().rev().flatten().take(2).copied().collect();
                        prop_assert!(read.len() == 2 && read.iter().all(|value| *value > threshold));
                        is_raised = true;
                    }
                    Some(AlertState::Cleared) => {
                        prop_assert!(is_raised);
                        let low = |value: &Option<u64>| value.is_none_or(|value| value * 5 < threshold * 4);
                        prop_assert!(samples[at - 1..=at].iter().all(low));
                        is_raised = false;
                    }
                }
            }
        }
    }
}
