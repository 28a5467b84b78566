//! Owns what follows when a result is refused for what it says: its attempt fails, so that no step waits for
//! a report that can never be taken. It must never refuse anything itself.

use actors::codec::Metadata;
use domain::LeaseId;
use domain::operation::StepWish;
use domain::operation::event::StepError;

use super::Api;
use super::error::{ApiError, Code, FieldError};

/// Fails the attempt whose report was refused for what it says: nothing else could end it, since the report
/// can never be taken. A client that sends it again is refused again, so no key is remembered.
pub(super) async fn fail_attempt(
    api: &Api,
    lease: &LeaseId,
    code: &str,
    refusal: ApiError,
    metadata: Metadata,
) -> ApiError {
    let error = StepError { code: code.into(), message: refusal.message.clone() };
    let wish = StepWish::Fail { error, retryable: true, retry_after_ms: None };
    match api.core.settle(lease, wish, Metadata { key: None, ..metadata }).await {
        Ok(_) => refusal,
        Err(fault) => fault.into(),
    }
}

/// With which code an attempt fails when this was said of the body that reports its result.
pub(super) fn code_of(refusal: &ApiError) -> Option<&'static str> {
    let of_result = |error: &FieldError| error.pointer.as_deref() == Some("/result");
    match refusal.code {
        Code::BodyTooLarge => Some("too_large"),
        Code::InvalidField if refusal.errors.iter().any(of_result) => Some("invalid_result"),
        _ => None,
    }
}
