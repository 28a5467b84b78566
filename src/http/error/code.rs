//! Owns the table of error codes: slug, status, title, advice. It must never learn how an error is written.

use actix_web::http::StatusCode;
use serde::{Serialize, Serializer};

struct Row {
    status: u16,
    slug: &'static str,
    title: &'static str,
    advice: &'static str,
}

/// One table for the enum and all that is said about a code, so that none can be forgotten.
macro_rules! codes {
    ($($name:ident = $status:literal $slug:literal, $title:literal, $advice:literal;)*) => {
        /// What clients branch on. The slugs are a contract; they are never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!($title, " (", $status, ", `", $slug, "`).")] $name,)*
        }

        const ROWS: &[Row] = &[
            $(Row { status: $status, slug: $slug, title: $title, advice: $advice },)*
        ];

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    MalformedRequest = 400 "malformed_request", "The request cannot be read",
        "The request could not be read; correct it and send it again.";
    MalformedJson = 400 "malformed_json", "The body is not valid JSON",
        "The body is not valid JSON; correct it and send it again.";
    UnknownParameter = 400 "unknown_parameter", "Unknown query parameter",
        "A query parameter is not known here; correct its name or leave it out.";
    InvalidParameter = 400 "invalid_parameter", "Invalid query parameter",
        "A query parameter has a value that cannot be used; correct it.";
    UnknownField = 400 "unknown_field", "Unknown field",
        "A field of the body is not known here; correct its name or leave it out.";
    Forbidden = 403 "forbidden", "Not allowed",
        "This is not allowed; use a caller who may do it.";
    HostNotAllowed = 403 "host_not_allowed", "Host not allowed",
        "The Host header names another server; use the address that this server is configured for.";
    OriginNotAllowed = 403 "origin_not_allowed", "Origin not allowed",
        "Pages of another origin may not use this server; call it without an Origin header.";
    NotFound = 404 "not_found", "Not found",
        "There is nothing here; GET /openapi.json lists every path.";
    MethodNotAllowed = 405 "method_not_allowed", "Method not allowed",
        "This resource does not know the method; the Allow header lists those it knows.";
    RequestTimeout = 408 "request_timeout", "The request arrived too slowly",
        "The body arrived too slowly; send it again over a faster connection.";
    Conflict = 409 "conflict", "Conflict with the present state",
        "The present state does not allow this; read the resource again and decide anew.";
    AlreadyTerminal = 409 "already_terminal", "Already ended",
        "This has already ended and cannot change any more.";
    StaleIncarnation = 409 "stale_incarnation", "A newer incarnation is registered",
        "Another process registered this agent later; register again to take over.";
    IdTaken = 409 "id_taken", "The id is taken",
        "The id is in use; choose another one or leave it out.";
    LeaseLost = 410 "lease_lost", "The lease is lost",
        "The lease has ended; stop this work and claim again.";
    EpochChanged = 410 "epoch_changed", "The log has another history now",
        "The log was restored: equal positions may be other events; begin again from the start.";
    PositionCompacted = 410 "position_compacted", "The position is no longer kept",
        "Events this old are no longer kept; start again from a newer position.";
    RevisionMismatch = 412 "revision_mismatch", "The revision has changed",
        "It has changed since it was read; read it again and repeat the change on that revision.";
    BodyTooLarge = 413 "body_too_large", "The body is too large",
        "The body is larger than this resource takes; send less at once.";
    UriTooLong = 414 "uri_too_long", "The URI is too long",
        "The URI is longer than 8 KiB; use fewer or shorter parameters.";
    UnsupportedMediaType = 415 "unsupported_media_type", "Unsupported media type",
        "Send the body as plain application/json without a Content-Encoding.";
    InvalidWorkflow = 422 "invalid_workflow", "The workflow is not valid",
        "The workflow breaks a rule; problem.errors lists each.";
    InvalidField = 422 "invalid_field", "A field is not valid",
        "A field of the body cannot be used; problem.errors names it.";
    IdempotencyKeyReused = 422 "idempotency_key_reused", "Idempotency key used again",
        "This Idempotency-Key was used with another body; use a fresh key.";
    PlatformUnavailable = 422 "platform_unavailable", "The platform is not available",
        "The platform cannot take this now; GET /api/v1/platforms says which ones can.";
    TooLarge = 422 "too_large", "Too large",
        "A value is larger than its limit; make it smaller.";
    RateLimited = 429 "rate_limited", "Too many requests",
        "Too many requests; wait as long as Retry-After says.";
    HeadersTooLarge = 431 "headers_too_large", "The headers are too large",
        "The headers are larger than 16 KiB in all; send fewer or shorter ones.";
    Internal = 500 "internal", "Internal error",
        "The server failed at this request; its log says more under this request id.";
    Overloaded = 503 "overloaded", "Overloaded",
        "The server has too much to do; try again after the time in Retry-After.";
    Recovering = 503 "recovering", "Recovering",
        "The server is still reading its log; try again after the time in Retry-After.";
    Draining = 503 "draining", "Stopping",
        "The server is about to stop; try again after the time in Retry-After.";
    ReadOnly = 503 "read_only", "Read-only",
        "The log is damaged: what is whole can be read, and nothing can be changed; ask an operator to look.";
    Quarantined = 503 "quarantined", "Quarantined",
        "This one could not be rebuilt from the log and is set aside; ask an operator to look.";
    Timeout = 504 "timeout", "Took too long",
        "The server could not answer in time, and the outcome is unknown; read the state, then repeat.";
    StorageFull = 507 "storage_full", "The disk is full",
        "Nothing can be stored: the disk or the server's share of it is full, or the data folder is not in \
         its place. Reading works; GET /health/detailed says which, and what is missing.";
}

impl Code {
    /// The stable name.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        ROWS[self as usize].slug
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(ROWS[self as usize].status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The kind of problem in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        ROWS[self as usize].title
    }

    /// What to do next, when nothing more special is known.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        ROWS[self as usize].advice
    }

    /// Whether the same request may succeed later, so that the answer says when.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(ROWS[self as usize].status, 429 | 503)
    }

    /// Whether the connection is closed: what is left of the request's body is not worth reading.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(ROWS[self as usize].status, 408 | 413 | 414 | 431)
    }

    /// The code for an error that only has a status.
    #[must_use]
    pub fn nearest(status: StatusCode) -> Self {
        match status.as_u16() {
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            413 => Self::BodyTooLarge,
            414 => Self::UriTooLong,
            415 => Self::UnsupportedMediaType,
            431 => Self::HeadersTooLarge,
            503 => Self::Overloaded,
            504 => Self::Timeout,
            400..=499 => Self::MalformedRequest,
            _ => Self::Internal,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slugs_are_distinct_and_plain() {
        let slugs: HashSet<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        assert_eq!(slugs.len(), Code::ALL.len());
        assert!(slugs.iter().all(|slug| slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn every_advice_is_a_sentence() {
        for code in Code::ALL {
            assert!(code.advice().ends_with('.'), "{code:?}");
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
