//! Which idempotency keys were used lately, and where their answers lie in the log. Folded from the
//! metadata of stored events, so a restart forgets nothing.
//!
//! No key is forgotten before its day is over: the shell asks [`Keys::check_room`] before a new key is used.

use std::collections::{HashMap, VecDeque};

use domain::{LeaseId, Timestamp};
use events::StreamId;

use crate::codec::KeyUse;

/// How long a key is remembered.
pub const KEPT_MS: u64 = 24 * 3_600_000;
/// Longest time after which a caller is told to try again, although no key may have ended by then.
const RETRY_MAX_MS: u64 = 3_600_000;

/// What a key was used for.
#[derive(Clone, Debug)]
pub struct Used {
    /// When it was used first.
    pub at: Timestamp,
    /// Of the request's body.
    pub body: [u8; 16],
    /// The stream that was written.
    pub stream: StreamId,
    /// Its version after the last event of the request.
    pub version: u64,
    /// Leases that were granted by the request.
    pub leases: Vec<LeaseId>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Keys {
    used: HashMap<[u8; 16], Used>,
    by_age: VecDeque<(Timestamp, [u8; 16])>,
}

/// Whether something that was done then is still remembered for its key.
#[must_use]
pub fn is_remembered(at: Timestamp, now: Timestamp) -> bool {
    now.ms_since(at) <= KEPT_MS
}

impl Keys {
    /// What a key was used for, if that was within the last day.
    #[must_use]
    pub fn get(&self, key: &[u8; 16], now: Timestamp) -> Option<&Used> {
        self.used.get(key).filter(|used| is_remembered(used.at, now))
    }

    /// Whether a new key may be used when at most `most` are remembered.
    ///
    /// # Errors
    /// After how many milliseconds the oldest key ends, one hour at most.
    pub fn check_room(&mut self, most: usize, now: Timestamp) -> Result<(), u64> {
        self.forget(now);
        match self.by_age.front() {
            Some((at, _)) if self.by_age.len() >= most => {
                let ends_in_ms = (KEPT_MS + 1).saturating_sub(now.ms_since(*at));
                Err(ends_in_ms.min(RETRY_MAX_MS))
            }
            _ => Ok(()),
        }
    }

    /// Folds one use.
    pub fn add(
        &mut self,
        key: KeyUse,
        stream: &StreamId,
        version: u64,
        lease: Option<LeaseId>,
        at: Timestamp,
    ) {
        self.forget(at);
        let used = self.used.entry(key.key).or_insert_with(|| {
            self.by_age.push_back((at, key.key));
            Used { at, body: key.body, stream: stream.clone(), version, leases: Vec::new() }
        });
        used.leases.extend(lease);
        if used.stream == *stream {
            used.version = version;
        }
    }

    /// Every use that is remembered, the oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = ([u8; 16], &Used)> {
        self.by_age.iter().filter_map(|(_, key)| self.used.get(key).map(|used| (*key, used)))
    }

    /// Puts back a use of a snapshot; in the order in which they were.
    pub(crate) fn put(&mut self, key: [u8; 16], used: Used) {
        self.by_age.push_back((used.at, key));
        self.used.insert(key, used);
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.by_age.front()
            && !is_remembered(*at, now)
        {
            self.used.remove(key);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn use_of(key: u8) -> KeyUse {
        KeyUse { key: [key; 16], body: [0; 16] }
    }

    #[test]
    fn a_key_is_remembered_for_a_day() {
        let (mut keys, stream) = (Keys::default(), StreamId::new("agent", "a").unwrap());
        let start = Timestamp::from_micros(1);
        let (last, after) = (start.plus_ms(KEPT_MS), start.plus_ms(KEPT_MS + 1));
        keys.add(use_of(1), &stream, 1, None, start);
        keys.add(use_of(2), &stream, 2, None, last);
        assert_eq!(keys.get(&[1; 16], last).unwrap().version, 1);
        assert!(keys.get(&[1; 16], after).is_none());
        keys.add(use_of(3), &stream, 3, None, after);
        assert_eq!(keys.oldest_first().count(), 2);
        assert!(keys.get(&[2; 16], after).is_some());
    }

    #[test]
    fn no_key_takes_the_room_of_another() {
        let (mut keys, stream) = (Keys::default(), StreamId::new("agent", "a").unwrap());
        let start = Timestamp::from_micros(1);
        for key in 1..=3 {
            assert_eq!(keys.check_room(3, start), Ok(()));
            keys.add(use_of(key), &stream, 1, None, start);
        }
        assert_eq!(keys.check_room(3, start), Err(RETRY_MAX_MS));
        assert_eq!(keys.check_room(3, start.plus_ms(KEPT_MS - 9)), Err(10));
        assert!(keys.get(&[1; 16], start.plus_ms(KEPT_MS)).is_some());
        assert_eq!(keys.check_room(3, start.plus_ms(KEPT_MS + 1)), Ok(()));
        // More than the bound may be there after a restart with a smaller one: all of them are kept.
        keys.add(use_of(4), &stream, 1, None, start.plus_ms(KEPT_MS + 1));
        keys.add(use_of(5), &stream, 1, None, start.plus_ms(KEPT_MS + 1));
        assert!(keys.check_room(1, start.plus_ms(KEPT_MS + 2)).is_err());
        assert_eq!(keys.oldest_first().count(), 2);
    }
}
