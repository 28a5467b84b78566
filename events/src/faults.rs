//! Owns the calls whose failure the tests must be able to play: the sync and the write of the journal.
//! Must never have a switch in a build without the feature `testing`; there it is the plain call.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::planted::Planted;

/// The journal's way to the disk, with switches (feature `testing`). Clones share their switches.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    not(any(test, feature = "testing")),
    allow(unreachable_pub, reason = "public only with the feature")
)]
pub struct Faults {
    #[cfg(any(test, feature = "testing"))]
    switches: std::sync::Arc<switches::Switches>,
}

impl Faults {
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        if Planted::SyncRemoved.is_asked_for() {
            return Ok(());
        }
        #[cfg(any(test, feature = "testing"))]
        if let Some(answer) = self.switches.sync() {
            return answer;
        }
        file.sync_data()
    }

    pub(crate) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        self.switches.write(file, bytes, offset)?;
        file.write_all_at(bytes, offset)
    }

    /// Whether the log must end as if killed: no last sync, no marker.
    pub(crate) fn abandoned(&self) -> bool {
        #[cfg(any(test, feature = "testing"))]
        return self.switches.abandoned();
        #[cfg(not(any(test, feature = "testing")))]
        false
    }

    /// Blocks the writer while the log is stalled.
    pub(crate) fn pass(&self) {
        #[cfg(any(test, feature = "testing"))]
        self.switches.pass();
    }
}

#[cfg(any(test, feature = "testing"))]
mod switches {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    use parking_lot::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub(super) struct Switches {
        set: Mutex<Set>,
        released: Condvar,
    }

    #[derive(Debug, Default)]
    struct Set {
        skip_syncs: bool,
        fail_next_sync: bool,
        full: bool,
        refused: u64,
        abandoned: bool,
        stalled: bool,
        panics: bool,
    }

    impl Switches {
        pub(super) fn sync(&self) -> Option<io::Result<()>> {
            let mut set = self.set.lock();
            if std::mem::take(&mut set.fail_next_sync) {
                return Some(Err(io::Error::other("a sync that was made to fail")));
            }
            set.skip_syncs.then_some(Ok(()))
        }

        pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut set = self.set.lock();
            if !set.full {
                return Ok(());
            }
            set.refused += 1;
            // A full disk takes what fits, and then no more.
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            Err(io::ErrorKind::StorageFull.into())
        }

        pub(super) fn abandoned(&self) -> bool {
            self.set.lock().abandoned
        }

        pub(super) fn pass(&self) {
            let mut set = self.set.lock();
            while set.stalled {
                self.released.wait(&mut set);
            }
            assert!(!set.panics, "a writer that was made to panic");
        }
    }

    impl super::Faults {
        /// Syncs claim success and do nothing: a log that lies about durability.
        pub fn skip_syncs(&self) {
            self.switches.set.lock().skip_syncs = true;
        }

        /// The next sync reports an error.
        pub fn fail_next_sync(&self) {
            self.switches.set.lock().fail_next_sync = true;
        }

        /// Writes are cut short and report a full disk, or work again.
        pub fn set_full(&self, full: bool) {
            self.switches.set.lock().full = full;
        }

        /// How many writes were cut short by a full disk.
        #[must_use]
        pub fn refused(&self) -> u64 {
            self.switches.set.lock().refused
        }

        /// The log will end as if the process were killed.
        pub fn abandon(&self) {
            self.switches.set.lock().abandoned = true;
        }

        /// The writer panics at its next commit.
        pub fn panic(&self) {
            self.switches.set.lock().panics = true;
        }

        /// The writer waits before its next commit, or goes on.
        pub fn set_stalled(&self, stalled: bool) {
            self.switches.set.lock().stalled = stalled;
            self.switches.released.notify_all();
        }
    }
}
