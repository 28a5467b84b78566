//! Owns why a measurement has no figure. A fault is part of the report, never a panic.

use std::io;

use events::AppendError;

/// Why a measurement has no figure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Files, sockets or processes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer is not one that this client understands.
    #[error("an answer is not understood: {0}")]
    Protocol(&'static str),
    /// The server refused, or failed.
    #[error("{what} was answered with {status}: {body}")]
    Status {
        /// Which request.
        what: String,
        /// The answer's status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// A server process is not there.
    #[error("{0}")]
    Process(String),
    /// The log did not take an append.
    #[error("the log did not take an append: {0}")]
    Append(#[from] AppendError),
    /// The log of its own cannot be used.
    #[error("the log cannot be used: {0}")]
    Log(String),
    /// Something took too long, or nothing was measured.
    #[error("{0}")]
    Stuck(&'static str),
}
