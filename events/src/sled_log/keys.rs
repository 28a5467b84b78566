//! Owns the keys of the single tree: a position, then the kind of what is found there.
//! Must never use another byte order: sled compares keys as bytes, so that positions sort as numbers.

use crate::stream::Position;

/// A key of the tree.
pub(crate) type Key = [u8; 10];

/// What the value of a key is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Records, of which the first has this position.
    Block = 0,
    /// Where the journal has the record of this position.
    Place = 1,
}

/// The key of a block or a place.
pub(crate) fn key(first: Position, kind: Kind) -> Key {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&first.get().to_be_bytes());
    key[8..].copy_from_slice(&(kind as u16).to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_positions_and_then_by_kind() {
        let keys = [1, 2, 255, 256, 1 << 40].map(Position::new);
        let keys = keys.map(|position| [key(position, Kind::Block), key(position, Kind::Place)]);
        assert!(keys.concat().is_sorted());
    }
}
