//! Owns what one request knows about itself: its id, when it began, which error format it wants.
//! It must never hold data of the domain or decide whether a request is allowed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::Error;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use bytes::Bytes;
use uuid::Uuid;

use super::error;

/// The header that carries the request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const REQUEST_ID_MAX: usize = 128;

tokio::task_local! {
    static CONTEXT: RequestContext;
}

/// What one request knows about itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The caller's `X-Request-Id` when it is well formed, else a fresh UUIDv7.
    pub request_id: Arc<str>,
    /// When the server began to work on it.
    pub started: Instant,
    /// The W3C `traceparent` header, when it is well formed.
    pub traceparent: Option<Arc<str>>,
    /// Whether errors shall be a bare RFC 9457 problem instead of the envelope.
    pub accepts_problem: bool,
}

impl RequestContext {
    /// The context of the request being answered, or a fresh one outside of any request.
    #[must_use]
    pub fn current() -> Self {
        CONTEXT.try_with(Clone::clone).unwrap_or_else(|_| Self::fresh())
    }

    /// Runs a future as part of this request; work that a handler spawns needs it to keep the id.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CONTEXT.scope(self, work).await
    }

    /// Milliseconds since the request began, with microsecond grain.
    #[must_use]
    pub fn elapsed_ms(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1_000_000.0).round() / 1_000.0
    }

    fn fresh() -> Self {
        Self {
            request_id: Uuid::now_v7().to_string().into(),
            started: Instant::now(),
            traceparent: None,
            accepts_problem: false,
        }
    }

    fn of(headers: &HeaderMap) -> Self {
        let mut context = Self::fresh();
        if let Some(id) = text(headers, &REQUEST_ID).filter(|id| is_request_id(id)) {
            context.request_id = id.into();
        }
        let traceparent = HeaderName::from_static("traceparent");
        context.traceparent = text(headers, &traceparent).filter(|t| is_traceparent(t)).map(Into::into);
        context.accepts_problem = accepts(headers, "application/problem+json");
        context
    }
}

/// The outermost middleware: `App::wrap(middleware::from_fn(context::enter))`, wrapped last.
///
/// Every answer that leaves it carries `X-Request-Id`, and every error is in the house's format.
///
/// # Errors
/// Passes on what the inner service failed with, as a finished answer.
pub async fn enter(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let context = RequestContext::of(request.headers());
    let request_id = HeaderValue::from_str(&context.request_id).ok();
    let only_head = request.method() == Method::HEAD;
    let answer = async move {
        match next.call(request).await {
            Ok(response) => {
                let (request, response) = response.map_into_boxed_body().into_parts();
                let response = stamped(error::normalized(response), request_id);
                Ok(ServiceResponse::new(request, if only_head { without_body(response) } else { response }))
            }
            // Here the request is gone (timed out or panicked); outside of this scope its id would be too.
            Err(failure) => {
                let response = error::normalized(HttpResponse::from_error(failure));
                let response = stamped(response, request_id);
                Err(error::finished(if only_head { without_body(response) } else { response }))
            }
        }
    };
    context.scope(answer).await
}

fn stamped(mut response: HttpResponse, request_id: Option<HeaderValue>) -> HttpResponse {
    if let Some(id) = request_id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The same answer without its body, but with the length of it. Actix leaves the body of an answer out by the
/// method of the request that it has read last, which is a later one when requests are pipelined.
fn without_body(response: HttpResponse) -> HttpResponse {
    let BodySize::Sized(length) = response.body().size() else { return response };
    let mut response = response.map_body(|_, body| BoxBody::new(Unwritten { _body: body }));
    response.head_mut().no_chunking(true);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A body that ends at once; as a stream, so that the length is not taken from it. It holds what the body
/// held.
struct Unwritten {
    _body: BoxBody,
}

impl MessageBody for Unwritten {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_request_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

/// Version 00: `00-<32 hex>-<16 hex>-<2 hex>`, in lower case, no id all zero.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    lengths == [2, 32, 16, 2]
        && parts[0] == "00"
        && parts.iter().all(hex)
        && !zero(parts[1])
        && !zero(parts[2])
}

/// Whether a media type is asked for by its own name, and not by `q=0` refused.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut pieces = range.split(';').map(str::trim);
        let named = pieces.next().unwrap_or_default();
        named.eq_ignore_ascii_case(media) && !pieces.any(is_refusal)
    })
}

/// Whether a parameter of a media range is the weight 0.
fn is_refusal(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.and_then(|(_, weight)| weight.trim().parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{App, middleware::from_fn, test, web};

    async fn echo() -> String {
        RequestContext::current().request_id.to_string()
    }

    async fn id_for(sent: Option<&str>) -> (String, String) {
        let app = App::new().wrap(from_fn(enter)).route("/", web::get().to(echo));
        let app = test::init_service(app).await;
        let mut request = test::TestRequest::get().uri("/");
        if let Some(sent) = sent {
            request = request.insert_header((REQUEST_ID, sent));
        }
        let response = test::call_service(&app, request.to_request()).await;
        let stamped = response.headers().get(REQUEST_ID).unwrap().to_str().unwrap().to_owned();
        let seen = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        (stamped, seen)
    }

    #[actix_web::test]
    async fn a_well_formed_request_id_is_kept() {
        assert_eq!(id_for(Some("ci-42_a.b")).await, ("ci-42_a.b".into(), "ci-42_a.b".into()));
    }

    #[actix_web::test]
    async fn a_malformed_request_id_is_replaced() {
        for bad in ["", "a b", "a/b", "<script>", &"x".repeat(129)] {
            let (stamped, seen) = id_for(Some(bad)).await;
            assert_eq!(stamped, seen);
            assert!(Uuid::parse_str(&stamped).is_ok(), "{bad:?} became {stamped}");
        }
    }

    #[actix_web::test]
    async fn outside_of_a_request_there_is_a_safe_default() {
        let context = RequestContext::current();
        assert!(!context.accepts_problem && context.traceparent.is_none());
    }

    #[actix_web::test]
    async fn a_traceparent_is_kept_only_when_well_formed() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert!(is_traceparent(&format!("00-{trace}-00f067aa0ba902b7-01")));
        assert!(!is_traceparent(&format!("01-{trace}-00f067aa0ba902b7-01")));
        assert!(!is_traceparent(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))));
        assert!(!is_traceparent("00-xyz"));
    }

    #[actix_web::test]
    async fn a_media_type_is_sent_only_to_clients_that_ask_for_it() {
        let asked = |values: &[&str]| {
            let request = values.iter().fold(test::TestRequest::get(), |request, value| {
                request.append_header((header::ACCEPT, *value))
            });
            accepts(request.to_http_request().headers(), "application/problem+json")
        };
        assert!(asked(&["application/problem+json"]));
        assert!(asked(&["text/html, Application/Problem+JSON; q=0.9"]));
        assert!(asked(&["text/html", "application/problem+json;charset=utf-8;q=0.001"]));
        assert!(!asked(&[]) && !asked(&["*/*"]) && !asked(&["text/html;x=application/problem+json"]));
        for refused in ["q=0", "Q=0", "q=0.0", " q=0.000 ", "charset=utf-8; q=0"] {
            let range = format!("application/problem+json;{refused}, application/json");
            assert!(!asked(&[&range]), "{range}");
        }
    }
}
