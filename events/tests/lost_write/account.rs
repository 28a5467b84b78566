//! Reads the account that the shim kept, and takes back what no sync covered.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::appender::Dice;

const PAGE: usize = 4096;
const SECTOR: u64 = 512;
const ENTRY_LEN: usize = 64;

const WRITE: u64 = 1;
const TRUNCATION: u64 = 2;
const SYNC: u64 = 3;
const NAME: u64 = 4;
const FOLDER_SYNC: u64 = 5;

/// What happens to the writes that no sync covers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// They vanish.
    All,
    /// Each page of 4 KiB vanishes or stays, and the last write may be torn between two sectors.
    Random,
    /// The last write of each file is torn between two sectors; the others stay.
    Torn,
    /// Names vanish; what was written to files stays.
    Names,
}

/// What no sync covers.
#[derive(Default)]
pub(crate) struct Account {
    changes: HashMap<u64, Vec<Change>>,
    names: Vec<Name>,
    path: PathBuf,
}

struct Change {
    /// Where in the account it stands.
    at: u64,
    offset: u64,
    length: u64,
    size: u64,
    old: Vec<u8>,
}

struct Name {
    at: u64,
    folder: u64,
    /// Of what has the name now.
    inode: u64,
    path: PathBuf,
}

impl Account {
    /// Reads an account; an entry that the kill cut off belongs to a write that was not made.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut account = Self { path: path.to_owned(), ..Self::default() };
        let mut at = 0;
        while let Some(entry) = bytes.get(at..at + ENTRY_LEN) {
            let field = |n: usize| u64::from_ne_bytes(entry[n * 8..n * 8 + 8].try_into().unwrap());
            let data_len = field(6) as usize;
            let Some(data) = bytes.get(at + ENTRY_LEN..at + ENTRY_LEN + data_len) else { break };
            let (kind, inode, offset, length, covers) = (field(0), field(2), field(3), field(4), field(7));
            let place = at as u64;
            match kind {
                WRITE | TRUNCATION => {
                    let change = Change { at: place, offset, length, size: field(5), old: data.to_vec() };
                    account.changes.entry(inode).or_default().push(change);
                }
                SYNC => account.changes.entry(inode).or_default().retain(|change| change.at >= covers),
                FOLDER_SYNC => account.names.retain(|name| name.folder != inode || name.at >= covers),
                NAME => {
                    // A file that is new has none of the history of a deleted one with the same inode.
                    if length == 1 {
                        account.changes.remove(&offset);
                    }
                    let path = PathBuf::from(std::str::from_utf8(data).unwrap());
                    account.names.push(Name { at: place, folder: inode, inode: offset, path });
                }
                kind => panic!("an entry of kind {kind}"),
            }
            at += ENTRY_LEN + data_len;
        }
        account
    }

    /// Takes back what no sync covered, in all files below a folder; returns how many bytes differ now.
    pub(crate) fn lose(&self, folder: &Path, loss: Loss, dice: &mut Dice) -> usize {
        let mut lost = 0;
        let written = if loss == Loss::Names { Vec::new() } else { files(folder) };
        for path in written {
            let inode = fs::metadata(&path).unwrap().ino();
            if let Some(changes) = self.changes.get(&inode).filter(|changes| !changes.is_empty()) {
                lost += lose_in(&path, changes, loss, dice);
            }
        }
        for name in self.names.iter().rev() {
            if matches!(loss, Loss::All | Loss::Names) || dice.coin() {
                let removed = if name.path.is_dir() {
                    fs::remove_dir_all(&name.path)
                } else {
                    fs::remove_file(&name.path)
                };
                // It may have been deleted by the process, or together with its folder.
                lost += usize::from(removed.is_ok());
                let replaced = format!("{}.{}", self.path.display(), name.inode);
                if removed.is_ok() && fs::exists(&replaced).unwrap() {
                    fs::rename(replaced, &name.path).unwrap();
                }
            }
        }
        lost
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn lose_in(path: &Path, changes: &[Change], loss: Loss, dice: &mut Dice) -> usize {
    let new = fs::read(path).unwrap();
    let old = undone(new.clone(), changes);
    let left = match loss {
        Loss::All => old,
        Loss::Random => mixed(&old, &new, changes, dice),
        Loss::Torn | Loss::Names => torn(&old, new.clone(), changes, dice),
    };
    let differs =
        left.iter().zip(&new).filter(|(left, new)| left != new).count() + left.len().abs_diff(new.len());
    fs::write(path, left).unwrap();
    differs
}

/// The file as if the changes had not been made.
fn undone(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes.iter().rev() {
        bytes.resize(change.size as usize, 0);
        let from = change.offset as usize;
        if !change.old.is_empty() {
            bytes[from..from + change.old.len()].copy_from_slice(&change.old);
        }
    }
    bytes
}

/// The file with each page either old or new, and the last write perhaps torn.
fn mixed(old: &[u8], new: &[u8], changes: &[Change], dice: &mut Dice) -> Vec<u8> {
    let old_at = |at: usize| old.get(at).copied().unwrap_or(0);
    // The length is lost or kept for itself, like a page.
    let len = if dice.coin() { new.len() } else { old.len() };
    let mut mixed: Vec<_> = (0..len).map(|at| new.get(at).copied().unwrap_or_else(|| old_at(at))).collect();
    for page in 0..mixed.len().div_ceil(PAGE) {
        if dice.coin() {
            let end = mixed.len().min((page + 1) * PAGE);
            for (at, byte) in mixed[..end].iter_mut().enumerate().skip(page * PAGE) {
                *byte = old_at(at);
            }
        }
    }
    if dice.coin() { torn(old, mixed, changes, dice) } else { mixed }
}

/// The file with its last write torn between two sectors.
fn torn(old: &[u8], mut left: Vec<u8>, changes: &[Change], dice: &mut Dice) -> Vec<u8> {
    if let Some(last) = changes.last().filter(|last| last.length > 0) {
        let torn = (last.offset + dice.below(last.length)).next_multiple_of(SECTOR);
        let end = left.len().min((last.offset + last.length) as usize);
        for (at, byte) in left[..end].iter_mut().enumerate().skip(torn as usize) {
            *byte = old.get(at).copied().unwrap_or(0);
        }
    }
    left
}
