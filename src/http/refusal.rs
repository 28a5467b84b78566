//! What the core refuses, as what a client reads. Owns the sentences; the codes are `error`'s.

use std::time::Duration;

use actors::aggregate_actor::DispatchError;
use actors::codec::Durable;
use actors::limiting::LimitError;
use actors::protocol::ProtocolError;
use actors::recovery::RecoveryError;
use domain::agent::Agent;
use domain::lane::{self, Lane};
use domain::operation::Operation;
use domain::operation::workflow::Fault;
use domain::{IdError, agent, operation};
use events::ReadError;

use super::error::{ApiError, Code, FieldError};

/// A rejection of one aggregate as a refusal.
pub trait Refusal: Durable {
    /// Says it to the client.
    fn refusal(rejection: Self::Rejection) -> ApiError;
}

impl Refusal for Operation {
    fn refusal(rejection: operation::Rejection) -> ApiError {
        use operation::Rejection;
        let sentence = sentence(&rejection.to_string());
        match rejection {
            Rejection::Unknown | Rejection::UnknownStep(_) => ApiError::not_found(sentence),
            Rejection::Taken => ApiError::new(Code::IdTaken, sentence),
            Rejection::Invalid(faults) => invalid(&faults),
            Rejection::NotPending { .. } | Rejection::NotReady { .. } | Rejection::NotPossible { .. } => {
                ApiError::conflict(sentence)
            }
            Rejection::Early => {
                ApiError::new(Code::RateLimited, sentence).retry_after(Duration::from_secs(1))
            }
            Rejection::Terminal { .. } | Rejection::AlreadyTerminal { .. } => {
                ApiError::new(Code::AlreadyTerminal, sentence)
            }
            Rejection::LeaseLost => ApiError::new(Code::LeaseLost, sentence),
            Rejection::TooLarge { .. } => ApiError::new(Code::TooLarge, sentence),
            Rejection::Unstorable { what, why } => {
                let field = what.rsplit(' ').next().unwrap_or_default();
                let fault = FieldError::at(format!("/{field}"), rejection.to_string()).code(why.code());
                ApiError::new(Code::InvalidField, sentence).with(fault)
            }
        }
    }
}

impl Refusal for Lane {
    fn refusal(rejection: lane::Rejection) -> ApiError {
        match rejection {
            lane::Rejection::Unknown => ApiError::not_found(sentence(&rejection.to_string())),
        }
    }
}

impl From<LimitError> for ApiError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Lane(fault) => fault.into(),
            LimitError::Step(fault) => fault.into(),
        }
    }
}

/// All faults of a workflow; one that is only about a platform has a code of its own.
pub(super) fn invalid(faults: &[Fault]) -> ApiError {
    let errors = faults.iter().map(|fault| FieldError::at(&fault.pointer, &fault.detail).code(fault.code));
    let mut refusal = ApiError::invalid_workflow(errors.collect());
    if faults.iter().all(|fault| fault.code == "platform_unavailable") {
        refusal.code = Code::PlatformUnavailable;
    }
    refusal
}

impl Refusal for Agent {
    fn refusal(rejection: agent::Rejection) -> ApiError {
        use agent::Rejection;
        let sentence = sentence(&rejection.to_string());
        match rejection {
            Rejection::Unknown => ApiError::not_found(sentence),
            Rejection::StaleIncarnation { .. } => ApiError::new(Code::StaleIncarnation, sentence),
        }
    }
}

impl<A: Refusal> From<DispatchError<A>> for ApiError {
    fn from(error: DispatchError<A>) -> Self {
        match error {
            DispatchError::Rejected(rejection) => A::refusal(rejection),
            DispatchError::OtherVersion { actual } => {
                let actual = actual.get();
                Self::new(
                    Code::RevisionMismatch,
                    format!("The present revision is {actual}; read it again and repeat the change on it."),
                )
            }
            DispatchError::Overloaded => Self::of(Code::Overloaded),
            DispatchError::TooLarge => Self::of(Code::TooLarge),
            DispatchError::StorageFull => Self::of(Code::StorageFull),
            DispatchError::ReadOnly => Self::of(Code::ReadOnly),
            DispatchError::Closed => Self::of(Code::Draining),
            DispatchError::OutcomeUnknown => Self::of(Code::Timeout),
            DispatchError::Quarantined => Self::of(Code::Quarantined),
            DispatchError::Unreadable(fault) => fault.into(),
            DispatchError::Crashed => Self::internal("an actor ended with the command in its hands"),
        }
    }
}

impl From<RecoveryError> for ApiError {
    fn from(fault: RecoveryError) -> Self {
        tracing::error!(%fault, "a stream cannot be read");
        match fault {
            RecoveryError::Read(ReadError::Corrupt(damage)) => {
                let place =
                    format!("The log is damaged: {damage}. Stop the server and see 'photon event verify'.");
                Self::new(Code::Quarantined, place)
            }
            _ => Self::of(Code::Quarantined),
        }
    }
}

impl From<ProtocolError> for ApiError {
    fn from(error: ProtocolError) -> Self {
        let sentence = sentence(&error.to_string());
        match error {
            ProtocolError::UnknownAgent(_) => Self::not_found(sentence),
            ProtocolError::StaleIncarnation { .. } => Self::new(Code::StaleIncarnation, sentence),
            ProtocolError::Draining => Self::of(Code::Draining),
            ProtocolError::Overloaded => Self::of(Code::Overloaded),
        }
    }
}

/// A path segment that is no id names nothing.
impl From<IdError> for ApiError {
    fn from(error: IdError) -> Self {
        Self::not_found(sentence(&format!("{error}; nothing has this id")))
    }
}

/// The core's fragments begin in lower case and have no full stop.
fn sentence(fragment: &str) -> String {
    let mut letters = fragment.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
