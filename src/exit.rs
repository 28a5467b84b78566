//! Owns what the process ends with. The numbers are a contract with scripts.

use std::process::ExitCode;

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// All is well.
    pub const DONE: Self = Self(0);
    /// It did not work.
    pub const FAILED: Self = Self(1);
    /// The command cannot be understood, or a value is out of its bounds.
    pub const USAGE: Self = Self(2);
    /// What is asked for is not there.
    pub const NOT_FOUND: Self = Self(3);
    /// The caller may not do that.
    pub const NOT_ALLOWED: Self = Self(4);
    /// Something else stands in the way.
    pub const CONFLICT: Self = Self(5);
    /// The operation that was waited for failed.
    pub const OPERATION_FAILED: Self = Self(6);
    /// It took too long.
    pub const TIMED_OUT: Self = Self(7);
    /// The answer was lost: whether it was done is unknown.
    pub const UNKNOWN: Self = Self(8);
    /// The server was not reached: nothing was done.
    pub const UNREACHABLE: Self = Self(9);
    /// The settings are wrong.
    pub const CONFIGURATION: Self = Self(64);
    /// A log, a backup or a file is damaged or not what it should be.
    pub const DAMAGED: Self = Self(65);
    /// The port or the data folder is used by another process.
    pub const UNAVAILABLE: Self = Self(69);
    /// A bug.
    pub const BUG: Self = Self(70);
    /// The disk failed.
    pub const DISK: Self = Self(74);
    /// Nothing was done; it may be if it is asked for once more.
    pub const REPEAT: Self = Self(75);
    /// A worker's command cannot be started, as shells say it.
    pub const CANNOT_START: Self = Self(127);
    /// A signal asked for it.
    pub const INTERRUPTED: Self = Self(130);

    /// For people, below the help of the program.
    pub const HELP: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict, \
        6 the operation failed, 7 timed out, 8 the outcome is unknown, 9 not reached, 64 configuration, \
        65 damaged or bad input, 69 used by another process, 70 a bug, 74 the disk failed, \
        75 nothing was done and may be repeated, 130 interrupted.";

    /// A code that something else decided; what no process can end with becomes "failed".
    #[must_use]
    pub fn of(code: i32) -> Self {
        u8::try_from(code).map_or(Self::FAILED, Self)
    }

    /// As shells say that a signal ended a process.
    #[must_use]
    pub fn by_signal(signal: i32) -> Self {
        Self::of(128 + signal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code_that_is_not_somebody_elses() {
        let failures = [Exit::FAILED, Exit::USAGE, Exit::NOT_FOUND, Exit::NOT_ALLOWED, Exit::CONFLICT];
        let waits = [Exit::OPERATION_FAILED, Exit::TIMED_OUT, Exit::INTERRUPTED];
        let answers = [Exit::UNKNOWN, Exit::UNREACHABLE];
        let server =
            [Exit::CONFIGURATION, Exit::DAMAGED, Exit::UNAVAILABLE, Exit::BUG, Exit::DISK, Exit::REPEAT];
        for Exit(code) in [Exit::DONE].into_iter().chain(failures).chain(waits).chain(answers).chain(server) {
            assert!(Exit::HELP.contains(&format!(" {code} ")), "{code}");
        }
    }
}
