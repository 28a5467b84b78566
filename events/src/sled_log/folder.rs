//! Owns the layout of the data folder: the lock, the generations' folders, the clean-close marker.
//! Must never leave a half-made generation under its real name.
//!
//! ```text
//! lock                   held by the one process that has the log open
//! fence-000001           how often it was opened for writing; who finds its own gone writes no more
//! identity               which log it is, and which of its histories
//! gen-000001/journal     the promise
//! gen-000001/sled/       the newest generation's blocks; disposable
//! base-000001/journal    what was kept of the generations up to that number, which are gone; at most one
//! gen-000001/clean       present only after a clean close: the blocks are complete, the journal ends here
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::faults::Faults;
use crate::journal::bytes::{array_at, u32_at, u64_at};
use crate::journal::frame::{Hash, JOURNAL_HEADER_LEN};
use crate::journal::scan::Place;
use crate::journal::{FILE_NAME, Journal, WriteError, is_full};
use crate::planted::Planted;
use crate::sled_log::fence::Fence;

const LOCK: &str = "lock";
const MARKER: &str = "clean";
const PREFIX: &str = "gen-";
const BASE_PREFIX: &str = "base-";
const UNFINISHED: &str = ".new";
/// How much is copied at once.
const COPY_LEN: usize = 1 << 20;
const MARKER_MAGIC: [u8; 8] = *b"photoncl";

/// Makes the folder, durably, if it is not there.
pub(crate) fn create(folder: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing = folder.ancestors().take_while(is_missing).count();
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    folder.ancestors().skip(1).take(missing).try_for_each(sync)
}

/// Takes the lock; none if another holder has it. It is free again when the file is dropped.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    take(OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?)
}

/// Takes the lock without making anything, so that a copy on a medium that takes no writes can be read too.
/// A folder without a lock file was never opened; it is locked itself.
pub(crate) fn lock_as_found(folder: &Path) -> io::Result<Option<File>> {
    match File::open(folder.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => take(File::open(folder)?),
        opened => take(opened?),
    }
}

fn take(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Deletes half-made generations.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| is_ours(name) && name.ends_with(UNFINISHED)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with(BASE_PREFIX)
}

/// Deletes what a base has replaced: the generations up to its number, and older bases. Whoever asks for it
/// has seen that the base is whole.
pub(crate) fn remove_replaced(folder: &Path) -> io::Result<()> {
    let bases = numbers(folder, BASE_PREFIX)?;
    let Some((newest, older)) = bases.split_last() else { return Ok(()) };
    // The rename that put it there may not be durable, if what did it ended at once.
    sync(folder)?;
    sync(&base(folder, *newest))?;
    for number in numbers(folder, PREFIX)?.into_iter().filter(|number| number <= newest) {
        fs::remove_dir_all(generation(folder, number))?;
    }
    older.iter().try_for_each(|number| fs::remove_dir_all(base(folder, *number)))
}

/// The bytes of the journals that are sealed: all but the newest generation's.
pub(crate) fn sealed_bytes(folder: &Path) -> io::Result<u64> {
    let generations = numbers(folder, PREFIX)?;
    let sealed = generations.split_last().map_or(&[][..], |(_, sealed)| sealed);
    let folders = sealed.iter().map(|number| generation(folder, *number));
    let bases = numbers(folder, BASE_PREFIX)?.into_iter().map(|number| base(folder, number));
    folders.chain(bases).map(|folder| Ok(fs::metadata(folder.join(FILE_NAME))?.len())).sum()
}

/// Where the log begins, and the number of its newest generation, or else of its base; 0 if there is
/// nothing.
pub(crate) fn extent(folder: &Path) -> io::Result<(Place, u64)> {
    let base = numbers(folder, BASE_PREFIX)?.last().copied();
    let newest = numbers(folder, PREFIX)?.last().copied().unwrap_or(0);
    Ok((base.map_or(Place::FIRST, Place::of_base), newest.max(base.unwrap_or(0))))
}

/// The bytes of the journals from this place to the newest generation, as far as they are there.
pub(crate) fn journal_bytes(folder: &Path, first: &Place, newest: u64) -> u64 {
    let later = numbers(folder, PREFIX).unwrap_or_default();
    let later = later.into_iter().filter(|number| (first.generation + 1..=newest).contains(number));
    let journals = std::iter::once(of(folder, first)).chain(later.map(|number| generation(folder, number)));
    journals.map(|folder| fs::metadata(folder.join(FILE_NAME)).map_or(0, |journal| journal.len())).sum()
}

/// The header of the oldest journal, by its mark unlike any other; none where no log is.
pub(crate) fn first_bytes(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    let (oldest, newest) = match extent(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        extent => extent?,
    };
    if newest == 0 {
        return Ok(None);
    }
    let mut header = Vec::new();
    match File::open(of(folder, &oldest).join(FILE_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        journal => journal?.take(JOURNAL_HEADER_LEN as u64).read_to_end(&mut header)?,
    };
    Ok(Some(header))
}

/// The folder of what has its place there.
pub(crate) fn of(folder: &Path, place: &Place) -> PathBuf {
    if place.base { base(folder, place.generation) } else { generation(folder, place.generation) }
}

fn base(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{BASE_PREFIX}{number:06}"))
}

/// The folder in which a base is made.
pub(crate) fn begin_base(folder: &Path, number: u64) -> io::Result<PathBuf> {
    let unfinished = folder.join(format!("{BASE_PREFIX}{number:06}{UNFINISHED}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir(&unfinished)?;
    Ok(unfinished)
}

/// Lets a base that is complete take the place of the generations up to its number.
pub(crate) fn commit_base(folder: &Path, number: u64) -> io::Result<()> {
    let unfinished = folder.join(format!("{BASE_PREFIX}{number:06}{UNFINISHED}"));
    sync(&unfinished)?;
    let replaced = base(folder, number);
    if replaced.exists() {
        // No generation was sealed since: the file takes the place of the file.
        fs::rename(unfinished.join(FILE_NAME), replaced.join(FILE_NAME))?;
        sync(&replaced)?;
        return fs::remove_dir(unfinished);
    }
    fs::rename(unfinished, replaced)?;
    sync(folder)
}

/// The numbers behind a prefix of names, rising.
pub(crate) fn numbers(folder: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The folder of a generation.
pub(crate) fn generation(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:06}"))
}

/// Makes a generation with an empty journal: complete and durable, or not there.
pub(crate) fn create_generation(
    folder: &Path,
    number: u64,
    after: u64,
    previous: Hash,
    faults: &Faults,
    fence: &Fence,
) -> Result<Journal, WriteError> {
    let journal = begin_generation(folder, number, after, previous, faults)?;
    commit_generation(folder, number, fence).map(|()| journal).map_err(WriteError::Failed)
}

/// Without space for it nothing has happened: it has not its name yet.
fn begin_generation(
    folder: &Path,
    number: u64,
    after: u64,
    previous: Hash,
    faults: &Faults,
) -> Result<Journal, WriteError> {
    let unfinished = folder.join(format!("{PREFIX}{number:06}{UNFINISHED}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(WriteError::Failed)?;
    }
    fs::create_dir(&unfinished).map_err(WriteError::before)?;
    let journal = Journal::create(&unfinished, number, after, previous, faults.clone())?;
    sync(&unfinished).map(|()| journal).map_err(WriteError::Failed)
}

/// Gives it its name, in which the log then perhaps goes on, whatever failed. Whoever takes the log over
/// takes the fence before it deletes what is unfinished.
fn commit_generation(folder: &Path, number: u64, fence: &Fence) -> io::Result<()> {
    fence.holds()?;
    fs::rename(folder.join(format!("{PREFIX}{number:06}{UNFINISHED}")), generation(folder, number))?;
    sync(folder)
}

/// Puts a copy in the place of a journal, so that a former writer, which may have been stopped in the middle
/// of a write, can reach only what nobody reads any more. Without space for it the journal stays.
pub(crate) fn renew_journal(generation: &Path) -> io::Result<()> {
    let (journal, copy) = (generation.join(FILE_NAME), generation.join(format!("{FILE_NAME}{UNFINISHED}")));
    match copy_synced(&journal, &copy, u64::MAX) {
        Ok(()) => {}
        Err(error) if is_full(&error) => {
            tracing::warn!("no space to put the journal out of reach of a former writer");
            // What is read of it and shown must be as durable as the copy would be.
            File::open(&journal)?.sync_all()?;
            // It may not even have been made.
            return remove_if_there(&copy).map(drop);
        }
        Err(error) => return Err(error),
    }
    fs::rename(copy, journal)?;
    sync(generation)
}

/// Copies the first bytes of a file, durably but for its name.
pub(crate) fn copy_synced(from: &Path, to: &Path, len: u64) -> io::Result<()> {
    let mut from = BufReader::with_capacity(COPY_LEN, File::open(from)?.take(len));
    let mut file = File::create(to)?;
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return file.sync_all();
        }
        file.write_all(bytes)?;
        let copied = bytes.len();
        from.consume(copied);
    }
}

/// Notes that a generation was closed cleanly with its journal ending at that byte.
pub(crate) fn write_marker(generation: &Path, end: u64) -> io::Result<()> {
    let mut bytes = MARKER_MAGIC.to_vec();
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let path = generation.join(MARKER);
    fs::write(&path, bytes)?;
    File::open(path)?.sync_all()?;
    sync(generation)
}

/// Where the journal ended at a clean close; none after an unclean end.
pub(crate) fn read_marker(generation: &Path) -> Option<u64> {
    let bytes = fs::read(generation.join(MARKER)).ok()?;
    let sound =
        array_at(&bytes, 0) == Some(MARKER_MAGIC) && u32_at(&bytes, 16) == Some(crc32c::crc32c(&bytes[..16]));
    u64_at(&bytes, 8).filter(|_| sound)
}

/// Durably forgets a clean close, before anything in the folder changes.
pub(crate) fn remove_marker(generation: &Path) -> io::Result<()> {
    if remove_if_there(&generation.join(MARKER))? { sync(generation) } else { Ok(()) }
}

/// Whether there was a file to delete.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Makes names within a folder durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    if Planted::FolderSyncRemoved.is_asked_for() {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_marker_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_marker(folder.path()), None);
        write_marker(folder.path(), 1234).unwrap();
        assert_eq!(read_marker(folder.path()), Some(1234));
        let path = folder.path().join(MARKER);
        let mut bytes = fs::read(&path).unwrap();
        for byte in 0..bytes.len() {
            bytes[byte] ^= 4;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(read_marker(folder.path()), None);
            bytes[byte] ^= 4;
        }
        remove_marker(folder.path()).unwrap();
        remove_marker(folder.path()).unwrap();
        assert_eq!(read_marker(folder.path()), None);
    }

    #[test]
    fn a_half_made_generation_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence::take(folder.path()).unwrap().unwrap();
        create_generation(folder.path(), 1, 0, [0; 32], &Faults::default(), &fence).unwrap();
        fs::create_dir(folder.path().join("gen-000002.new")).unwrap();
        remove_unfinished(folder.path()).unwrap();
        assert_eq!(numbers(folder.path(), PREFIX).unwrap(), [1]);
        assert!(!folder.path().join("gen-000002.new").exists());
    }

    #[test]
    fn a_generation_of_a_former_writer_gets_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let former = Fence::take(folder.path()).unwrap().unwrap();
        drop(begin_generation(folder.path(), 2, 9, [0; 32], &Faults::default()).unwrap());
        let owner = Fence::take(folder.path()).unwrap().unwrap();
        let refused = commit_generation(folder.path(), 2, &former).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert!(!generation(folder.path(), 2).exists());
        create_generation(folder.path(), 2, 7, [0; 32], &Faults::default(), &owner).unwrap();
        assert_eq!(numbers(folder.path(), PREFIX).unwrap(), [2]);
    }
}
