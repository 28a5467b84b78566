//! Owns the keys of the single tree: the position of a block's first record, then the number of the chunk.
//! Must never use another byte order: sled compares keys as bytes, so that positions sort as numbers.

use crate::stream::Position;

/// A key of the tree.
pub(crate) type Key = [u8; 10];

/// The key of a block, or of one chunk of a record that is too large for a block.
pub(crate) fn key(first: Position, chunk: u16) -> Key {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&first.get().to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The position in a key.
pub(crate) fn position(key: &[u8]) -> Option<Position> {
    key.first_chunk().map(|bytes| Position::new(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_positions_and_then_as_chunks() {
        let keys = [(1, 0), (1, 1), (1, 256), (2, 0), (255, 9), (256, 0), (1 << 40, 0)];
        let keys = keys.map(|(first, chunk)| key(Position::new(first), chunk));
        assert!(keys.is_sorted());
        assert_eq!(position(&keys[4]), Some(Position::new(255)));
    }
}
