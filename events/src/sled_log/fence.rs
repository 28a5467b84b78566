//! Owns the fence: which of those who have ever opened the log for writing is the last. Each of them makes a
//! file with the next number and deletes the files before; whoever's file is gone must not write any more.
//! Must never rest on the lock, which some file systems grant twice and a deleted lock file gives away.
//!
//! The files are empty, so that a full disk has room for them.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sled_log::folder;

const PREFIX: &str = "fence-";

/// The right to write, until somebody else takes it.
#[derive(Debug)]
pub(crate) struct Fence {
    file: File,
    /// How often the log was opened for writing.
    number: u64,
}

impl Fence {
    /// Takes the right to write from whoever had it; none when somebody takes it at the same moment.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        Self::take_behind(path, folder::numbers(path, PREFIX)?)
    }

    /// Takes it from those who were found to have had it.
    fn take_behind(path: &Path, former: Vec<u64>) -> io::Result<Option<Self>> {
        let number = former.last().copied().unwrap_or(0).saturating_add(1);
        let file = match File::create_new(path.join(name(number))) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            created => created?,
        };
        // Since they were looked for, two others may have come, the second of which has deleted the file of
        // the first: its name was free again.
        if folder::numbers(path, PREFIX)?.iter().any(|other| *other > number) {
            folder::remove_if_there(&path.join(name(number)))?;
            return Ok(None);
        }
        for number in former {
            folder::remove_if_there(&path.join(name(number)))?;
        }
        folder::sync(path)?;
        Ok(Some(Self { file, number }))
    }

    /// Whether the right is still there.
    ///
    /// # Errors
    /// When somebody else has taken it, or nobody can tell.
    pub(crate) fn holds(&self) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let sentence = format!("another process has taken over the log from opening {}", self.number);
        Err(io::Error::new(io::ErrorKind::ResourceBusy, sentence))
    }
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:06}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_last_who_took_it_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Fence::take(folder.path()).unwrap().unwrap();
        first.holds().unwrap();
        let second = Fence::take(folder.path()).unwrap().unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(first.holds().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        second.holds().unwrap();
        assert_eq!(folder::numbers(folder.path(), PREFIX).unwrap(), [2]);
    }

    #[test]
    fn whoever_looked_before_two_others_took_it_does_not_get_it() {
        let folder = tempfile::tempdir().unwrap();
        drop(Fence::take(folder.path()).unwrap().unwrap());
        let seen = folder::numbers(folder.path(), PREFIX).unwrap();
        drop(Fence::take(folder.path()).unwrap().unwrap());
        let last = Fence::take(folder.path()).unwrap().unwrap();
        assert!(Fence::take_behind(folder.path(), seen).unwrap().is_none());
        last.holds().unwrap();
        assert_eq!(folder::numbers(folder.path(), PREFIX).unwrap(), [3]);
    }

    #[test]
    fn a_fence_that_was_deleted_is_held_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence::take(folder.path()).unwrap().unwrap();
        fs::remove_file(folder.path().join(name(1))).unwrap();
        assert!(fence.holds().is_err());
    }
}
