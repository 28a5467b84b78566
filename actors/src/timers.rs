//! Moments to wake at. A plain queue: it knows neither what a key means nor what time it is.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use domain::Timestamp;

/// At most one moment per key.
#[derive(Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    by_key: HashMap<K, Timestamp>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Timers<K> {
    /// Wakes `key` at this moment instead of any other.
    pub fn set(&mut self, key: K, at: Timestamp) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Wakes `key` at this moment unless it is to be woken before.
    pub fn set_no_later(&mut self, key: K, at: Timestamp) {
        if self.by_key.get(&key).is_none_or(|before| at < *before) {
            self.set(key, at);
        }
    }

    /// Does not wake `key`.
    pub fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The next moment.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a key whose moment has come.
    pub fn take_due(&mut self, now: Timestamp) -> Option<K> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_wake_in_the_order_of_their_moments_and_once() {
        let at = |ms| Timestamp::default().plus_ms(ms);
        let mut timers = Timers::default();
        timers.set("a", at(30));
        timers.set("b", at(20));
        timers.set("a", at(10));
        timers.set_no_later("b", at(21));
        timers.set("c", at(5));
        timers.clear(&"c");
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.take_due(at(25)), Some("a"));
        assert_eq!(timers.take_due(at(25)), Some("b"));
        assert_eq!(timers.take_due(at(25)), None);
    }
    #[test]
    fn a_period_that_runs_is_not_begun_again_and_ends_even_late() {
        let at = |ms| Timestamp::default().plus_ms(ms);
        let mut timers = Timers::default();
        timers.set_no_later("offer", at(10));
        for later in 1..=50 {
            timers.set_no_later("offer", at(10 + later));
            timers.set_no_later("other", at(40));
        }
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_due(at(60)), Some("offer"));
        // Taken, it may begin anew; what was due besides it comes next.
        timers.set_no_later("offer", at(70));
        assert_eq!((timers.take_due(at(60)), timers.take_due(at(60))), (Some("other"), None));
        assert_eq!(timers.next(), Some(at(70)));
        // A shorter period ends sooner, though the longer one runs.
        timers.set_no_later("offer", at(65));
        assert_eq!((timers.take_due(at(66)), timers.next()), (Some("offer"), None));
    }
}
