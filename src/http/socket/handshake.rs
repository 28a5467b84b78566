//! Owns what a handshake must state beyond what actix-web-actors looks at, and how one is refused.
//! Format: RFC 6455, section 4.2.1. It must never open anything.

use actix_web::http::{Version, header};
use actix_web::{HttpRequest, http::header::HeaderName};
use actix_web_actors::ws::HandshakeError;

use super::super::error::{ApiError, Code};

/// Characters of a key's 16 bytes in Base64, before the two that fill it up.
const KEY_LEN: usize = 22;

/// # Errors
/// 400 for another protocol's version, or a key that is none.
pub(super) fn check(request: &HttpRequest) -> Result<(), ApiError> {
    if request.version() < Version::HTTP_11 {
        return Err(because("HTTP/1.1 is needed"));
    }
    if !super::is_asked_for(request) {
        return Err(because("Upgrade must be websocket"));
    }
    if only(request, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(because("Sec-WebSocket-Version must be 13"));
    }
    if !only(request, &header::SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(because("Sec-WebSocket-Key must be 16 bytes in Base64"));
    }
    Ok(())
}

/// The answer to a handshake that failed later.
pub(super) fn refused(fault: &actix_web::Error) -> ApiError {
    let fault = fault.as_error::<HandshakeError>();
    because(&fault.map_or_else(|| "it is not understood".to_owned(), ToString::to_string))
}

fn because(why: &str) -> ApiError {
    let detail = format!("The WebSocket handshake cannot be answered: {why}.");
    ApiError::new(Code::MalformedRequest, detail).header(header::SEC_WEBSOCKET_VERSION, 13)
}

/// A header's value, when it is sent exactly once.
fn only<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a str> {
    let mut values = request.headers().get_all(name);
    let first = values.next()?;
    values.next().is_none().then(|| first.to_str().ok()).flatten()
}

fn is_key(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==").filter(|digits| digits.len() == KEY_LEN) else { return false };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    // Of the last one only two bits belong to the key; the others are zero.
    digits.bytes().all(is_digit) && digits.ends_with(['A', 'Q', 'g', 'w'])
}
