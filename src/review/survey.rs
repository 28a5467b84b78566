//! The one walk over the folder that every action shares, so that all of them see the same files.
//! It honours `.gitignore` (also outside a checkout) and includes other dotfiles, but never `.git`; it skips
//! binaries, links and large files and counts them. It must never follow a link or leave the folder.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::{DirEntry, WalkBuilder};
use serde::Serialize;

/// Larger files are data rather than source; a review of them would say little and cost much.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Beyond this many entries the walk ends and says so: someone may point the demo at a whole disk.
const ENTRIES_MAX: usize = 200_000;
/// A NUL byte this near to the start makes a file binary; git decides alike.
const HEAD_BYTES: u64 = 8 * 1024;

/// A text file of the folder.
pub(super) struct File {
    /// Relative to the folder, with `/` between its parts.
    pub(super) path: String,
    pub(super) bytes: u64,
    place: PathBuf,
}

impl File {
    /// The content, or nothing when the file vanished since the walk.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        read_up_to(&self.place, FILE_BYTES_MAX).ok()
    }

    /// Says whether the file's place speaks of tests or examples, where oddities are often meant.
    pub(super) fn is_sample(&self) -> bool {
        let mut words = self.path.split(|c: char| !c.is_alphanumeric());
        words.any(|word| {
            let word = word.to_lowercase();
            let word = word.strip_suffix('s').unwrap_or(&word);
            matches!(word, "test" | "testdata" | "example" | "fixture" | "sample" | "mock" | "spec")
        })
    }
}

/// How many entries were passed over, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Skipped {
    /// Entries that `.gitignore` excludes; an excluded folder counts once, since nobody looks into it.
    pub(super) ignored: usize,
    pub(super) binary: usize,
    pub(super) links: usize,
    pub(super) too_large: usize,
    pub(super) unreadable: usize,
}

/// What one walk saw.
pub(super) struct Survey {
    pub(super) folder: PathBuf,
    pub(super) is_git_checkout: bool,
    /// In order of their paths, folder by folder.
    pub(super) files: Vec<File>,
    pub(super) skipped: Skipped,
    /// True when the folder has more entries than one review looks at.
    pub(super) truncated: bool,
}

/// Walks the folder, which is absolute and free of links.
pub(super) fn survey(folder: &Path) -> Survey {
    let is_git_checkout = folder.ancestors().any(|ancestor| ancestor.join(".git").exists());
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        // A `.gitignore` above the folder speaks for it only when both belong to one checkout; the crate
        // sees where a checkout ends only when it requires one.
        .require_git(is_git_checkout)
        .parents(is_git_checkout)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_name(Ord::cmp)
        .build();
    let folder = folder.to_owned();
    let mut survey =
        Survey { folder, is_git_checkout, files: Vec::new(), skipped: Skipped::default(), truncated: false };
    let mut folders = Vec::new();
    let mut seen = HashSet::new();
    for entry in walk {
        if seen.len() >= ENTRIES_MAX {
            survey.truncated = true;
            break;
        }
        let Ok(entry) = entry else {
            survey.skipped.unreadable += 1;
            continue;
        };
        seen.insert(entry.path().to_owned());
        match entry.file_type() {
            Some(kind) if kind.is_dir() => folders.push(entry.into_path()),
            Some(kind) if kind.is_symlink() => survey.skipped.links += 1,
            Some(kind) if kind.is_file() => survey.look_at(&entry),
            // A pipe or a socket: reading it could wait for ever.
            Some(_) | None => survey.skipped.unreadable += 1,
        }
    }
    if !survey.truncated {
        survey.skipped.ignored = folders.iter().map(|folder| unseen_children(folder, &seen)).sum();
    }
    survey
}

impl Survey {
    /// Takes a regular file in, or counts why not.
    fn look_at(&mut self, entry: &DirEntry) {
        let head = entry.metadata().map(|metadata| metadata.len());
        let Ok(bytes) = head else {
            self.skipped.unreadable += 1;
            return;
        };
        if bytes > FILE_BYTES_MAX {
            self.skipped.too_large += 1;
            return;
        }
        match read_up_to(entry.path(), HEAD_BYTES) {
            Err(_) => self.skipped.unreadable += 1,
            Ok(head) if head.contains(&0) => self.skipped.binary += 1,
            Ok(_) => {
                let relative = entry.path().strip_prefix(&self.folder).unwrap_or(entry.path());
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                self.files.push(File { path: parts.join("/"), bytes, place: entry.path().to_owned() });
            }
        }
    }
}

/// Counts lines as people do: a last line without a line feed is one.
pub(super) fn lines(content: &[u8]) -> usize {
    let feeds = content.iter().filter(|byte| **byte == b'\n').count();
    feeds + usize::from(content.last().is_some_and(|byte| *byte != b'\n'))
}

/// The walk does not say what it left out, so what lies in a folder is compared with what was seen.
fn unseen_children(folder: &Path, seen: &HashSet<PathBuf>) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let children = entries.flatten().filter(|entry| entry.file_name() != ".git");
    children.filter(|entry| !seen.contains(&entry.path())).count()
}

fn read_up_to(place: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(place)?.take(bytes_max).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files; parents are made.
    pub(crate) fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let place = folder.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        folder
    }

    /// Surveys a folder as `perform` does.
    pub(crate) fn survey_of(folder: &tempfile::TempDir) -> Survey {
        survey(&folder.path().canonicalize().unwrap())
    }

    fn paths(survey: &Survey) -> Vec<&str> {
        survey.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn gitignore_is_honoured_without_a_checkout_and_dotfiles_are_seen() {
        let folder = folder_with(&[
            (".gitignore", b"*.log\n/target\n"),
            (".env", b"a"),
            ("a.log", b"a"),
            ("target/deep/b", b"b"),
            ("sub/.gitignore", b"c\n!d.log\n"),
            ("sub/c", b"c"),
            ("sub/d.log", b"d"),
        ]);
        let survey = survey_of(&folder);
        assert_eq!(paths(&survey), [".env", ".gitignore", "sub/.gitignore", "sub/d.log"]);
        assert_eq!(survey.skipped, Skipped { ignored: 3, ..Skipped::default() });
        assert!(!survey.is_git_checkout);
    }

    #[test]
    fn a_gitignore_above_counts_only_within_one_checkout() {
        let outer = folder_with(&[(".gitignore", b"a\n"), ("inner/a", b"a"), ("inner/b", b"b")]);
        let inner = outer.path().canonicalize().unwrap().join("inner");
        assert_eq!(paths(&survey(&inner)), ["a", "b"]);
        fs::create_dir(outer.path().join(".git")).unwrap();
        assert_eq!(paths(&survey(&inner)), ["b"]);
        fs::create_dir(inner.join(".git")).unwrap();
        assert_eq!(paths(&survey(&inner)), ["a", "b"]);
    }

    #[test]
    fn git_binaries_and_large_files_are_skipped_and_counted() {
        let late_nul = [vec![b'a'; 8 * 1024], vec![0]].concat();
        let largest = vec![b'a'; 1024 * 1024];
        let too_large = vec![b'a'; 1024 * 1024 + 1];
        let folder = folder_with(&[
            (".git/config", b"a"),
            ("sub/.git", b"gitdir: elsewhere"),
            ("binary", b"a\0b"),
            ("late-nul", &late_nul),
            ("largest", &largest),
            ("too-large", &too_large),
        ]);
        let survey = survey_of(&folder);
        assert_eq!(paths(&survey), ["largest", "late-nul"]);
        assert_eq!(survey.skipped, Skipped { binary: 1, too_large: 1, ..Skipped::default() });
        assert!(survey.is_git_checkout);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_counted_and_never_followed() {
        let outside = folder_with(&[("secret", b"s")]);
        let folder = folder_with(&[("a", b"a")]);
        for (target, link) in [(outside.path().join("secret"), "file"), (outside.path().into(), "folder")] {
            std::os::unix::fs::symlink(target, folder.path().join(link)).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        let survey = survey_of(&folder);
        assert_eq!(paths(&survey), ["a"]);
        assert_eq!(survey.skipped, Skipped { links: 3, ..Skipped::default() });
    }

    #[test]
    fn a_last_line_without_a_line_feed_counts() {
        for (content, expected) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(lines(content.as_bytes()), expected, "{content:?}");
            assert_eq!(content.lines().count(), expected, "{content:?}");
        }
    }
}
