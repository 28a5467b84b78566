//! Owns the question whether a path still names the folder that it named at first.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder as it was found at its path.
#[derive(Clone, Debug)]
pub struct Anchor {
    path: PathBuf,
    found: (u64, u64),
}

impl Anchor {
    /// Notes which folder has this path now.
    ///
    /// # Errors
    /// When there is none, or it cannot be looked at.
    pub fn of(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let found = number_of(&path)?;
        Ok(Self { path, found })
    }

    /// Whether the path still names this folder: it was not moved, removed or replaced.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        number_of(&self.path).is_ok_and(|now| now == self.found)
    }
}

fn number_of(path: &Path) -> io::Result<(u64, u64)> {
    let about = fs::metadata(path)?;
    Ok((about.dev(), about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_moved_or_replaced_is_told_from_the_one_that_was_there() {
        let parent = tempfile::tempdir().unwrap();
        let (here, there) = (parent.path().join("here"), parent.path().join("there"));
        assert!(Anchor::of(&here).is_err());
        fs::create_dir(&here).unwrap();
        let anchor = Anchor::of(&here).unwrap();
        assert!(anchor.is_in_place());
        fs::rename(&here, &there).unwrap();
        assert!(!anchor.is_in_place());
        fs::create_dir(&here).unwrap();
        assert!(!anchor.is_in_place());
        fs::remove_dir(&here).unwrap();
        fs::rename(&there, &here).unwrap();
        assert!(anchor.is_in_place());
    }
}
