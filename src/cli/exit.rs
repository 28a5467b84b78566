//! Owns what a command ends with: the exit code, and the sentence that says why.

use std::fmt::Display;
use std::process::ExitCode;

use super::output;
use crate::client::ClientError;

/// An exit code. The numbers are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit(u8);

impl Exit {
    pub(super) const DONE: Self = Self(0);
    pub(super) const FAILED: Self = Self(1);
    pub(super) const USAGE: Self = Self(2);
    pub(super) const CONFLICT: Self = Self(5);
    pub(super) const OPERATION_FAILED: Self = Self(6);
    pub(super) const TIMED_OUT: Self = Self(7);
    pub(super) const CONFIGURATION: Self = Self(64);
    pub(super) const BAD_INPUT: Self = Self(65);
    /// It would perhaps be done if it were asked for once more.
    pub(super) const REPEAT: Self = Self(75);
    pub(super) const CANNOT_START: Self = Self(127);
    pub(super) const INTERRUPTED: Self = Self(130);

    /// A code that something else decided; what no process can end with becomes "failed".
    pub(super) fn of(code: i32) -> Self {
        u8::try_from(code).map_or(Self::FAILED, Self)
    }

    /// As shells say that a signal ended a process.
    pub(super) fn by_signal(signal: i32) -> Self {
        Self::of(128 + signal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    exit: Exit,
    sentence: String,
}

impl Complaint {
    pub(super) fn new(exit: Exit, sentence: impl Display) -> Self {
        Self { exit, sentence: sentence.to_string() }
    }

    /// Says it, and gives the exit code back.
    pub(super) fn voice(&self) -> Exit {
        if !self.sentence.is_empty() {
            output::say(&self.sentence);
        }
        self.exit
    }
}

impl From<ClientError> for Complaint {
    fn from(error: ClientError) -> Self {
        Self::new(Exit(error.exit_code()), error)
    }
}
