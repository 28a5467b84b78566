//! Owns who may read what this process writes: its owner alone, whatever the umask of whoever started it.
//! Commands of agents that the process starts must get that umask back.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::umask;

/// The umask before.
static FORMER: OnceLock<Mode> = OnceLock::new();

/// From now on every file of this process is its owner's alone, and every folder.
pub fn begin() {
    let former = umask(Mode::RWXG | Mode::RWXO);
    FORMER.get_or_init(|| former);
}

/// Says when others may look into a folder: one that was there before keeps its mode, since it may hold more
/// than ours.
pub fn warn_if_open(folder: &Path) {
    let mode = std::fs::metadata(folder).map_or(0, |about| about.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let (folder, mode) = (folder.display(), format!("{mode:03o}"));
        tracing::warn!(%folder, mode, "other users may look into the data folder: chmod 700 keeps them out");
    }
}

/// The umask before, in octal digits; none when it was left as it was.
#[must_use]
pub fn former() -> Option<String> {
    FORMER.get().map(|former| format!("{:03o}", former.as_raw_mode()))
}

/// Gives this process a umask in octal digits.
///
/// # Errors
/// When it is none.
pub fn give_back(digits: &str) -> Result<(), String> {
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
    let mode =
        mode.ok_or_else(|| format!("--umask must be three octal digits such as 022, not {digits}."))?;
    umask(Mode::from_raw_mode(mode));
    Ok(())
}
