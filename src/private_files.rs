//! Owns who may read what this process writes: its owner alone, whatever the umask of whoever started it.
//! Commands of agents that the process starts must get that umask back.

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
