//! Owns the question whether more may be stored: the free space that is kept in reserve on the disk, and how
//! much the folder may occupy. Must never be asked for each append in vain: it looks now and then.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::options::Options;

/// How often the disk and the folder are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// What the last look found.
#[derive(Default)]
pub(crate) struct Space {
    checked: Option<Instant>,
    low: bool,
    /// What the folder may grow by.
    left: u64,
}

impl Space {
    /// Whether nothing more may be stored.
    pub(crate) fn is_low(&mut self, folder: &Path, options: &Options) -> bool {
        if self.checked.is_none_or(|checked| checked.elapsed() >= CHECK_EVERY) {
            self.checked = Some(Instant::now());
            // A disk that does not say is taken to have space; a full one will speak up when written to.
            self.low = rustix::fs::statvfs(folder)
                .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < options.disk_low_water_bytes);
            self.left = options.disk_max_bytes.saturating_sub(occupied(folder).unwrap_or(0));
        }
        self.low || self.left == 0
    }

    /// Counts what was written since the last look.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

/// The bytes of all files in a folder and in those below it. What vanishes meanwhile counts as nothing.
pub(crate) fn occupied(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in gone_is_none(fs::read_dir(folder))?.into_iter().flatten() {
        let entry = entry?;
        if let Some(about) = gone_is_none(entry.metadata())? {
            bytes += if about.is_dir() { occupied(&entry.path())? } else { about.len() };
        }
    }
    Ok(bytes)
}

fn gone_is_none<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_a_folder_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(occupied(folder.path()).unwrap(), 0);
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("one"), [0; 10]).unwrap();
        fs::write(folder.path().join("a/b/two"), [0; 300]).unwrap();
        assert_eq!(occupied(folder.path()).unwrap(), 310);
        assert_eq!(occupied(&folder.path().join("missing")).unwrap(), 0);
    }

    #[test]
    fn what_was_written_since_the_last_look_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        (options.disk_low_water_bytes, options.disk_max_bytes) = (0, 100);
        let mut space = Space::default();
        assert!(!space.is_low(folder.path(), &options));
        space.wrote(99);
        assert!(!space.is_low(folder.path(), &options));
        space.wrote(1);
        assert!(space.is_low(folder.path(), &options));
    }
}
