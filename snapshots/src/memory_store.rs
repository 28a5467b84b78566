//! Snapshots in memory, bounded by weight; the least used go first. Knows no domain type.

use std::sync::Arc;

use events::{StreamId, Version};
use moka::sync::Cache;

/// A state and the version of the stream that it was folded from.
#[derive(Debug)]
pub struct Snapshot<S> {
    /// How many events it was folded from.
    pub version: Version,
    /// The state.
    pub state: Arc<S>,
}

impl<S> Clone for Snapshot<S> {
    fn clone(&self) -> Self {
        Self { version: self.version, state: Arc::clone(&self.state) }
    }
}

/// The newest snapshot of each stream, as far as they fit.
pub struct MemoryStore<S: Send + Sync + 'static> {
    cache: Cache<StreamId, Snapshot<S>>,
}

impl<S: Send + Sync + 'static> MemoryStore<S> {
    /// An empty store for states that weigh up to `bytes_max` together, as `weigh` estimates them.
    #[must_use]
    pub fn new(bytes_max: u64, weigh: fn(&S) -> usize) -> Self {
        let weigher = move |_: &StreamId, snapshot: &Snapshot<S>| {
            u32::try_from(weigh(&snapshot.state)).unwrap_or(u32::MAX)
        };
        Self { cache: Cache::builder().max_capacity(bytes_max).weigher(weigher).build() }
    }

    /// The snapshot of a stream, if it is kept and no newer than `version`.
    #[must_use]
    pub fn get(&self, stream: &StreamId, version: Version) -> Option<Snapshot<S>> {
        self.cache.get(stream).filter(|snapshot| snapshot.version <= version)
    }

    /// Keeps a snapshot instead of the one before.
    pub fn put(&self, stream: &StreamId, snapshot: Snapshot<S>) {
        self.cache.insert(stream.clone(), snapshot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: u64, size: usize) -> Snapshot<Vec<u8>> {
        Snapshot { version: Version::new(version), state: Arc::new(vec![0; size]) }
    }

    #[test]
    fn a_snapshot_that_is_too_new_is_not_given_out() {
        let (store, stream) = (MemoryStore::new(1_000, Vec::len), StreamId::new("test", "a").unwrap());
        store.put(&stream, snapshot(5, 10));
        assert!(store.get(&stream, Version::new(4)).is_none());
        assert_eq!(store.get(&stream, Version::new(9)).unwrap().version, Version::new(5));
    }

    #[test]
    fn the_store_never_outgrows_its_weight() {
        let store = MemoryStore::new(1_000, Vec::len);
        for number in 0..100 {
            store.put(&StreamId::new("test", &number.to_string()).unwrap(), snapshot(1, 100));
        }
        store.cache.run_pending_tasks();
        assert!(store.cache.weighted_size() <= 1_000);
    }
}
