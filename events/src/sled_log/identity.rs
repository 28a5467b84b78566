//! Owns the file that says which log lies in a folder, and which of its histories.
//! Must never be needed to read the log, nor be guessed where a guess may be wrong: without it the log
//! follows from the first bytes of the oldest journal, and the history is one that there never was.
//!
//! 52 bytes: magic `photonid`, u32 format, 16 bytes log, 16 bytes epoch, u32 zero, u32 CRC32C of the 48 bytes
//! before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::epoch::{Epoch, Identity};
use crate::journal::bytes::{array_at, u32_at};
use crate::sled_log::folder;

const NAME: &str = "identity";
const MAGIC: [u8; 8] = *b"photonid";
const FORMAT: u32 = 1;
const LEN: usize = 52;

/// Which log and history it is; none where no log is. A file that does not hold counts as none, and without
/// one it is another history each time: clients are rather told of a change that was none than of none where
/// there was one.
pub(crate) fn of(path: &Path) -> io::Result<Option<Identity>> {
    Ok(match stored(path)? {
        Some(stored) => Some(stored),
        None => derived(path)?,
    })
}

/// The same, and from now on it is kept in the file.
pub(crate) fn keep(path: &Path) -> io::Result<Option<Identity>> {
    if let Some(stored) = stored(path)? {
        return Ok(Some(stored));
    }
    let derived = derived(path)?;
    if let Some(identity) = &derived {
        write(path, identity)?;
    }
    Ok(derived)
}

/// Notes it durably, or not at all.
pub(crate) fn write(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(identity.log.as_bytes());
    bytes.extend_from_slice(identity.epoch.as_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let unfinished = path.join(format!("{NAME}.new"));
    let mut file = File::create(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path.join(NAME))?;
    folder::sync(path)
}

fn stored(path: &Path) -> io::Result<Option<Identity>> {
    let bytes = match fs::read(path.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let found = decode(&bytes);
    if found.is_none() {
        tracing::warn!("the file that says which history of the log this is does not hold");
    }
    Ok(found)
}

fn decode(bytes: &[u8]) -> Option<Identity> {
    let sound = bytes.len() == LEN
        && array_at(bytes, 0)? == MAGIC
        && u32_at(bytes, 8)? == FORMAT
        && u32_at(bytes, 48)? == crc32c::crc32c(&bytes[..48]);
    let epoch = |at| array_at(bytes, at).map(Epoch::from_bytes);
    Some(Identity { log: epoch(12)?, epoch: epoch(28)? }).filter(|_| sound)
}

/// From the header of the oldest journal, which is random and never changes while no stream is removed. A
/// restore keeps it, so it does not say which history it is.
fn derived(path: &Path) -> io::Result<Option<Identity>> {
    let Some(header) = folder::first_bytes(path)? else { return Ok(None) };
    let hash: [u8; 32] = blake3::hash(&header).into();
    let log = array_at(&hash, 0).map(Epoch::from_bytes);
    Ok(log.map(|log| Identity { log, epoch: Epoch::fresh() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;
    use crate::sled_log::fence::Fence;

    fn create_generation(path: &Path) {
        let fence = Fence::take(path).unwrap().unwrap();
        folder::create_generation(path, 1, 0, [0; 32], &Faults::default(), &fence).unwrap();
    }

    #[test]
    fn a_log_without_the_file_has_a_name_of_its_own_and_its_history_stays_when_it_is_kept() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(of(one.path()).unwrap(), None);
        assert_eq!(of(&one.path().join("missing")).unwrap(), None);
        for folder in [&one, &other] {
            create_generation(folder.path());
        }
        let log = |folder: &Path| of(folder).unwrap().unwrap().log;
        assert!(log(one.path()) == log(one.path()) && log(one.path()) != log(other.path()));
        let found = keep(one.path()).unwrap();
        assert_eq!(found.map(|found| found.log), Some(log(one.path())));
        fs::remove_dir_all(one.path().join("gen-000001")).unwrap();
        assert_eq!(of(one.path()).unwrap(), found);
    }

    #[test]
    fn a_file_that_is_lost_or_does_not_hold_brings_no_former_history_back() {
        let folder = tempfile::tempdir().unwrap();
        create_generation(folder.path());
        let former = keep(folder.path()).unwrap().unwrap();
        let restored = Identity { log: former.log, epoch: Epoch::fresh() };
        let losses: [fn(&Path); 2] =
            [|file| fs::remove_file(file).unwrap(), |file| fs::write(file, [0; LEN]).unwrap()];
        for lose in losses {
            write(folder.path(), &restored).unwrap();
            lose(&folder.path().join(NAME));
            let seen = of(folder.path()).unwrap().unwrap();
            let kept = keep(folder.path()).unwrap().unwrap();
            assert_eq!(of(folder.path()).unwrap(), Some(kept));
            for found in [seen, kept] {
                assert_eq!(found.log, former.log);
                assert!(found.epoch != former.epoch && found.epoch != restored.epoch);
            }
        }
    }

    #[test]
    fn a_file_with_any_bit_flipped_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { log: Epoch::fresh(), epoch: Epoch::fresh() };
        write(folder.path(), &identity).unwrap();
        assert_eq!(of(folder.path()).unwrap(), Some(identity));
        let mut bytes = fs::read(folder.path().join(NAME)).unwrap();
        for byte in 0..bytes.len() {
            bytes[byte] ^= 16;
            assert_eq!(decode(&bytes), None, "byte {byte}");
            bytes[byte] ^= 16;
        }
        assert_eq!(decode(&bytes), Some(identity));
    }
}
