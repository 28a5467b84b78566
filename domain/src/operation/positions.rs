//! A set of positions in a workflow, in order. Most workflows have few steps, so it is a sorted list: a tree
//! would take a hundred bytes for one number.

use serde::{Deserialize, Serialize};

/// Positions, each once, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(Vec<usize>);

impl Positions {
    /// An empty set, which takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub fn insert(&mut self, position: usize) {
        if let Err(place) = self.0.binary_search(&position) {
            // Most sets hold one at a time.
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, position);
        }
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, position: usize) {
        if let Ok(place) = self.0.binary_search(&position) {
            self.0.remove(place);
            if self.0.is_empty() {
                self.0 = Vec::new();
            }
        }
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn contains(&self, position: usize) -> bool {
        self.0.binary_search(&position).is_ok()
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in rising order.
    pub fn iter(&self) -> std::slice::Iter<'_, usize> {
        self.0.iter()
    }
}

impl<'p> IntoIterator for &'p Positions {
    type Item = &'p usize;
    type IntoIter = std::slice::Iter<'p, usize>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_each_once_and_in_order() {
        let mut positions = Positions::new();
        [4, 1, 4, 9, 1].into_iter().for_each(|position| positions.insert(position));
        positions.remove(4);
        positions.remove(5);
        assert_eq!(positions.iter().copied().collect::<Vec<_>>(), [1, 9]);
        assert!(positions.contains(9) && !positions.contains(4));
        assert_eq!(serde_json::to_string(&positions).unwrap(), "[1,9]");
        [1, 9].into_iter().for_each(|position| positions.remove(position));
        assert!(positions.is_empty());
    }
}
