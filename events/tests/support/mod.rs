//! What the tests of the stored log share: reaching into its files.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod appender;
#[path = "../../../tests/support/tally.rs"]
pub(crate) mod tally;

use std::fs;
use std::path::{Path, PathBuf};

/// The journals of a log, oldest first.
pub(crate) fn journals(folder: &Path) -> Vec<PathBuf> {
    let generations = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("journal"));
    let mut journals: Vec<_> = generations.filter(|journal| journal.exists()).collect();
    journals.sort();
    journals
}

/// Where some bytes are stored.
pub(crate) fn find(folder: &Path, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    journals(folder).into_iter().find_map(|journal| {
        let stored = fs::read(&journal).unwrap();
        let at = stored.windows(bytes.len()).position(|window| window == bytes)?;
        Some((journal, at))
    })
}

/// Flips a bit within the stored copy of some bytes.
pub(crate) fn flip_stored_byte(folder: &Path, bytes: &[u8]) -> bool {
    let Some((journal, at)) = find(folder, bytes) else { return false };
    let mut stored = fs::read(&journal).unwrap();
    stored[at + bytes.len() / 2] ^= 4;
    fs::write(journal, stored).unwrap();
    true
}
