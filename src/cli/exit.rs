//! Owns the sentence that says why a command did not do what it was asked for.

use std::fmt::Display;

use super::output;
use crate::client::ClientError;
pub(super) use crate::exit::Exit;

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
        Self::new(error.exit(), error)
    }
}
