//! Which idempotency keys were used lately, and where their answers lie in the log. Folded from the
//! metadata of stored events, so a restart forgets nothing.

use std::collections::{HashMap, VecDeque};

use domain::{LeaseId, Timestamp};
use events::StreamId;

use crate::codec::KeyUse;

/// How long a key is remembered.
pub const KEPT_MS: u64 = 24 * 3_600_000;
/// Keys that are remembered at most. Creations do not count: their key is in the operation's id.
const KEYS_MAX: usize = 200_000;

/// What a key was used for.
#[derive(Clone, Debug)]
pub struct Used {
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

impl Keys {
    /// What a key was used for, if it was used lately.
    #[must_use]
    pub fn get(&self, key: &[u8; 16]) -> Option<&Used> {
        self.used.get(key)
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
            Used { body: key.body, stream: stream.clone(), version, leases: Vec::new() }
        });
        used.leases.extend(lease);
        if used.stream == *stream {
            used.version = version;
        }
    }

    /// Every use that is remembered, the oldest first, and when it was.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (Timestamp, [u8; 16], &Used)> {
        self.by_age.iter().filter_map(|(at, key)| self.used.get(key).map(|used| (*at, *key, used)))
    }

    /// Puts back a use of a snapshot; in the order in which they were.
    pub(crate) fn put(&mut self, at: Timestamp, key: [u8; 16], used: Used) {
        self.by_age.push_back((at, key));
        self.used.insert(key, used);
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.by_age.front()
            && (now.ms_since(*at) > KEPT_MS || self.by_age.len() >= KEYS_MAX)
        {
            if now.ms_since(*at) <= KEPT_MS {
                tracing::warn!(keys_max = KEYS_MAX, "an idempotency key is forgotten before its day is over");
            }
            self.used.remove(key);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_day() {
        let (mut keys, stream) = (Keys::default(), StreamId::new("agent", "a").unwrap());
        let start = Timestamp::from_micros(1);
        keys.add(KeyUse { key: [1; 16], body: [0; 16] }, &stream, 1, None, start);
        keys.add(KeyUse { key: [2; 16], body: [0; 16] }, &stream, 2, None, start.plus_ms(KEPT_MS));
        assert_eq!(keys.get(&[1; 16]).unwrap().version, 1);
        keys.add(KeyUse { key: [3; 16], body: [0; 16] }, &stream, 3, None, start.plus_ms(KEPT_MS + 1));
        assert!(keys.get(&[1; 16]).is_none());
        assert!(keys.get(&[2; 16]).is_some());
    }
}
