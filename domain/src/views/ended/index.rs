//! Finds an ended operation by its id: a table of row numbers, four bytes each, at most three quarters full.
//! It holds no ids; whoever asks compares with the row itself.

use std::hash::{BuildHasher, RandomState};

use crate::OperationId;

const SLOTS_MIN: usize = 16;
/// No row is here. Row numbers stay below it.
const VACANT: u32 = u32::MAX;

/// Row numbers by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    slots: Vec<u32>,
    rows: usize,
    /// Differs between processes, so that nobody can choose ids that collide.
    hashing: RandomState,
}

impl Index {
    /// The row for which `is` holds, among those that an id may be in.
    pub(super) fn find(&self, id: &OperationId, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.probe(id).map(|slot| self.slots[slot]).take_while(|row| *row != VACANT).find(|row| is(*row))
    }

    /// Adds a row. `id_of` says the id of a row that is here already, when the table grows.
    pub(super) fn add(&mut self, id: &OperationId, row: u32, id_of: impl Fn(u32) -> Option<OperationId>) {
        if (self.rows + 1) * 4 > self.slots.len() * 3 {
            let slots = (self.slots.len() * 2).max(SLOTS_MIN);
            let before = std::mem::replace(&mut self.slots, vec![VACANT; slots]);
            for row in before.into_iter().filter(|row| *row != VACANT) {
                if let Some(id) = id_of(row) {
                    self.put(&id, row);
                }
            }
        }
        self.put(id, row);
        self.rows += 1;
    }

    fn put(&mut self, id: &OperationId, row: u32) {
        let vacant = self.probe(id).find(|slot| self.slots[*slot] == VACANT);
        if let Some(slot) = vacant {
            self.slots[slot] = row;
        }
    }

    /// Slots in the order in which an id is looked for.
    fn probe(&self, id: &OperationId) -> impl Iterator<Item = usize> + use<> {
        let count = self.slots.len();
        let first = if count == 0 { 0 } else { self.hashing.hash_one(id) as usize % count };
        (0..count).map(move |step| (first + step) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_no_other() {
        let (mut index, id) = (Index::default(), |row: u32| OperationId::from_bits(u128::from(row) << 64));
        for row in 0..5_000 {
            index.add(&id(row), row, |row| Some(id(row)));
            assert!(index.slots.len() >= SLOTS_MIN && (index.rows * 4) <= index.slots.len() * 3);
        }
        for row in 0..10_000 {
            let found = index.find(&id(row), |at| id(at) == id(row));
            assert_eq!(found, (row < 5_000).then_some(row));
        }
    }
}
