//! A map of few entries in one sorted list: an operation mostly has one ready step, and there are many
//! operations. A table would take hundreds of bytes for it.

/// Values by key.
#[derive(Debug)]
pub(super) struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.0.iter().map(|(key, _)| *key)
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.place(key).is_ok()
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        self.0.get_mut(place).map(|(_, value)| value)
    }

    /// The value of a key, made now if there is none.
    pub(super) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = self.place(key).unwrap_or_else(|place| {
            self.add(place, (key, V::default()));
            place
        });
        &mut self.0[place].1
    }

    /// Puts a value, in the place of one that is there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.place(key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.add(place, (key, value)),
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.place(key).ok()?;
        Some(self.0.remove(place).1)
    }

    pub(super) fn first(&self) -> Option<K> {
        self.0.first().map(|(key, _)| *key)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.0.drain(..)
    }

    fn place(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn add(&mut self, place: usize, entry: (K, V)) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(place, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_in_the_order_of_its_keys() {
        let mut few = Few::default();
        [3, 1, 2, 3].into_iter().for_each(|key| few.insert(key, key * 10));
        *few.or_default(4) += 1;
        assert_eq!(few.remove(2), Some(20));
        assert_eq!((few.remove(2), few.get_mut(3).copied(), few.first()), (None, Some(30), Some(1)));
        assert!(few.contains(4) && !few.is_empty());
        assert_eq!(few.keys().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(few.drain().collect::<Vec<_>>(), [(1, 10), (3, 30), (4, 1)]);
    }
}
