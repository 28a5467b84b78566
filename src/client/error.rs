//! Why a call failed, by what the caller may do next. It must never hide what the server said.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::exit::Exit;
use crate::http::envelope::ApiResponse;
use crate::http::error::Code;

/// What is said of an answer that did not come in time.
pub(super) const LATE: &str = "it did not answer in time";

/// Why a call failed.
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// What was asked for cannot be sent.
    #[error("{0}")]
    Usage(String),
    /// Nothing listens there, or the connection of a question broke: nothing was changed.
    #[error(
        "Photon cannot be reached at {server} ({cause}). Start it with 'photon serve', or name another \
         server with --server."
    )]
    Unreachable {
        /// Where.
        server: String,
        /// What the system said.
        cause: String,
    },
    /// No answer to a question in time.
    #[error("The server at {server} did not answer in time.")]
    TimedOut {
        /// Where.
        server: String,
    },
    /// No answer to a call that may have changed something.
    #[error(
        "The answer of {server} was lost ({cause}), and whether it did what was asked is unknown. Look at \
         the present state before you repeat it."
    )]
    OutcomeUnknown {
        /// Where.
        server: String,
        /// What the system said.
        cause: String,
    },
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer is not one of Photon's.
    #[error("The answer of {server} cannot be read: {cause}.")]
    Unreadable {
        /// Where.
        server: String,
        /// Why not.
        cause: String,
    },
}

/// What the server said no with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// The stable slug.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// Each single fault, with its place.
    pub faults: Vec<String>,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// Whether something may have been changed all the same.
    pub is_unknown: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.sentence)?;
        self.faults.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"))
    }
}

impl Refusal {
    /// Reads the envelope of a refusal; whatever is none is described by its status.
    pub(super) fn of(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let envelope: Option<ApiResponse<Value>> = serde_json::from_slice(body).ok();
        let strange = || format!("The server answered with status {status}, and not in Photon's words.");
        let Some(envelope) = envelope else {
            return Self {
                status,
                code: String::new(),
                sentence: strange(),
                faults: Vec::new(),
                retry_after,
                is_unknown: false,
            };
        };
        let errors = envelope.problem.map(|problem| problem.errors).unwrap_or_default();
        let faults = errors.iter().map(|fault| match &fault.pointer {
            Some(pointer) => format!("{pointer}: {}", fault.detail),
            None => fault.detail.clone(),
        });
        let faults: Vec<String> = faults.collect();
        Self {
            status,
            code: envelope.code.unwrap_or_default(),
            sentence: envelope.error.unwrap_or_else(strange),
            // One fault is the sentence itself.
            faults: if faults.len() > 1 { faults } else { Vec::new() },
            retry_after,
            is_unknown: false,
        }
    }

    /// The same, as the answer to a call that may have changed something before it failed.
    pub(super) fn of_a_change(self) -> Self {
        let is_unknown = matches!(self.status, 500 | 502 | 504);
        Self { is_unknown, ..self }
    }
}

impl ClientError {
    /// What a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::USAGE,
            Self::Unreachable { .. } => Exit::UNREACHABLE,
            Self::TimedOut { .. } => Exit::TIMED_OUT,
            Self::OutcomeUnknown { .. } => Exit::UNKNOWN,
            Self::Unreadable { .. } => Exit::FAILED,
            Self::Refused(refusal) if refusal.is_unknown => Exit::UNKNOWN,
            Self::Refused(refusal) => match refusal.status {
                404 => Exit::NOT_FOUND,
                401 | 403 => Exit::NOT_ALLOWED,
                409 | 410 | 412 => Exit::CONFLICT,
                504 => Exit::TIMED_OUT,
                408 | 429 | 503 => Exit::REPEAT,
                _ => Exit::FAILED,
            },
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::OutcomeUnknown { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500..),
            Self::Usage(_) | Self::Unreadable { .. } => false,
        }
    }

    /// What is the matter with a server that is away, restarts or has too much to do; none when this is no
    /// such failure, and waiting would not help.
    #[must_use]
    pub fn outage(&self) -> Option<&str> {
        match self {
            Self::Unreachable { cause, .. } | Self::OutcomeUnknown { cause, .. } => Some(cause),
            Self::TimedOut { .. } => Some(LATE),
            Self::Refused(refusal) => match refusal.status {
                _ if self.is(Code::Quarantined) || self.is(Code::ReadOnly) => None,
                408 | 429 | 502..=504 => Some(refusal.sentence.trim_end_matches('.')),
                _ => None,
            },
            Self::Usage(_) | Self::Unreadable { .. } => None,
        }
    }

    /// Whether what was asked for may have been done all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.exit() == Exit::UNKNOWN
    }

    /// Whether the server refused with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == code.slug())
    }

    /// When the server wants to be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// The innermost cause, which is the one that says something.
pub(super) fn root_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    // "Connection refused (os error 111)": the number helps nobody.
    let text = error.source().map_or_else(|| error.to_string(), |_| cause.to_string());
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(status: u16, body: &Value) -> ClientError {
        ClientError::Refused(Box::new(Refusal::of(status, None, body.to_string().as_bytes())))
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let table = [
            (400, 1),
            (401, 4),
            (403, 4),
            (404, 3),
            (408, 75),
            (409, 5),
            (410, 5),
            (412, 5),
            (422, 1),
            (429, 75),
            (503, 75),
            (504, 7),
        ];
        for (status, exit) in table {
            assert_eq!(refusal(status, &json!(null)).exit(), Exit::of(exit), "{status}");
        }
    }

    #[test]
    fn a_change_that_failed_within_the_server_has_an_unknown_outcome() {
        for (status, exit) in [(500, 8), (502, 8), (503, 75), (504, 8), (507, 1), (409, 5)] {
            let refusal = Refusal::of(status, None, b"null").of_a_change();
            assert_eq!(ClientError::Refused(Box::new(refusal)).exit(), Exit::of(exit), "{status}");
        }
    }

    #[test]
    fn an_outage_is_what_the_end_of_a_restart_cures() {
        let (server, cause) = ("http://a".to_owned(), "connection refused".to_owned());
        let away = ClientError::Unreachable { server, cause };
        assert_eq!(away.outage(), Some("connection refused"));
        for (status, code, outage) in [
            (503, "draining", true),
            (429, "rate_limited", true),
            (503, "quarantined", false),
            (503, "read_only", false),
            (404, "not_found", false),
            (500, "internal", false),
        ] {
            let body = json!({"success": false, "error": "No.", "code": code, "requestId": "r",
                "timestamp": "t", "processingTime": 1.0});
            assert_eq!(refusal(status, &body).outage().is_some(), outage, "{code}");
        }
    }

    #[test]
    fn only_what_may_pass_is_passing() {
        for (status, passing) in
            [(404, false), (409, false), (422, false), (429, true), (503, true), (507, true)]
        {
            assert_eq!(refusal(status, &json!(null)).is_passing(), passing, "{status}");
        }
    }

    #[test]
    fn the_sentence_of_the_envelope_is_kept_and_many_faults_are_listed() {
        let fault = |pointer: &str| json!({"pointer": pointer, "detail": "is wrong"});
        let problem = |errors: Value| {
            let mut problem = json!({"type": "t", "title": "t", "status": 422, "detail": "d"});
            problem["errors"] = errors;
            problem
        };
        let body = |errors: Value| {
            json!({"success": false, "error": "No.", "code": "invalid_workflow", "requestId": "r",
                "timestamp": "t", "processingTime": 1.0, "problem": problem(errors)})
        };
        let one = refusal(422, &body(json!([fault("/a")])));
        assert_eq!(one.to_string(), "No.");
        assert!(one.is(Code::InvalidWorkflow) && !one.is(Code::NotFound));
        let two = refusal(422, &body(json!([fault("/a"), fault("/b")])));
        assert_eq!(two.to_string(), "No.\n  /a: is wrong\n  /b: is wrong");
    }
}
