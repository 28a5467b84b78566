//! Owns the one shape of every JSON answer, and the headers that go with it.
//! It must never know what the data means.

use std::fmt::Display;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::header::{self, EntityTag, Header, HeaderName, HeaderValue, IfNoneMatch};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use chrono::{SecondsFormat, Utc};
use events::Position;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers;
use super::context::RequestContext;
use super::error::{self, ApiError, Code, Problem};
use super::page::{self, Page};

mod precondition;

pub use precondition::Precondition;

/// The header that says which position of the log an answer reflects.
pub const POSITION: HeaderName = HeaderName::from_static("photon-position");
/// The header that marks an answer given again for the same `Idempotency-Key`.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The one shape of every JSON answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiResponse<T> {
    /// Whether the request did what it asked for.
    pub success: bool,
    /// What was asked for.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    /// A sentence for people that says what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The stable slug of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The error in RFC 9457 form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Where this page of a list stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
    /// The id of this request, also in the server's log.
    pub request_id: String,
    /// When the answer was written, RFC 3339 in UTC with milliseconds.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// How long the server worked on it, in milliseconds.
    pub processing_time: f64,
}

impl<T> ApiResponse<T> {
    fn new(success: bool, context: &RequestContext) -> Self {
        Self {
            success,
            data: None,
            error: None,
            code: None,
            problem: None,
            page: None,
            request_id: context.request_id.as_ref().to_owned(),
            timestamp: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            processing_time: context.elapsed_ms(),
        }
    }

    pub(super) fn failure(error: &ApiError, context: &RequestContext) -> Self {
        Self {
            error: Some(error.message.clone()),
            code: Some(error.code.slug().to_owned()),
            problem: Some(error.problem()),
            ..Self::new(false, context)
        }
    }
}

/// An answer with data: `Reply::created(view, location).etag(revision).position(position)`.
#[derive(Debug)]
pub struct Reply<T> {
    status: StatusCode,
    data: T,
    etag: Option<Tag>,
    page: Option<Page>,
    failing: Option<ApiError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl<T: Serialize> Reply<T> {
    /// 200.
    #[must_use]
    pub fn ok(data: T) -> Self {
        let headers = Vec::new();
        Self { status: StatusCode::OK, data, etag: None, page: None, failing: None, headers }
    }

    /// 201, with the path of what was made.
    #[must_use]
    pub fn created(data: T, location: impl Display) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(data) }.header(header::LOCATION, location)
    }

    /// The status of this refusal, but with data: a health report that is red.
    #[must_use]
    pub fn failing(code: Code, data: T, error: impl Into<String>) -> Self {
        let reply =
            Self { status: code.status(), failing: Some(ApiError::new(code, error)), ..Self::ok(data) };
        if code.is_passing() { reply.retry_after(Duration::from_secs(1)) } else { reply }
    }

    /// The revision of what is shown; a GET with the same one in `If-None-Match` gets 304.
    #[must_use]
    pub fn etag(mut self, tag: impl Into<Tag>) -> Self {
        self.etag = Some(tag.into());
        self
    }

    /// The position of the log that this answer reflects, if it is known better than by the head.
    #[must_use]
    pub fn position(self, position: impl Into<Option<Position>>) -> Self {
        match position.into() {
            Some(position) => self.header(POSITION, position),
            None => self,
        }
    }

    /// Where this page of a list stands. The answer gets a `Link` to the next one.
    #[must_use]
    pub fn page(mut self, page: Page) -> Self {
        self.page = Some(page);
        self
    }

    /// Marks the answer as one given before for the same `Idempotency-Key`.
    #[must_use]
    pub fn replayed(self) -> Self {
        self.header(REPLAYED, "true")
    }

    /// When to come back.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        self.header(header::RETRY_AFTER, error::whole_seconds(after))
    }

    /// Adds or replaces a header. A value that no header may hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Display) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.headers.retain(|(present, _)| present != name);
            self.headers.push((name, value));
        }
        self
    }

    fn is_unchanged(&self, request: &HttpRequest) -> bool {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let Some(tag) = self.etag.filter(|_| reading && self.status == StatusCode::OK) else {
            return false;
        };
        let tag = tag.entity_tag();
        match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => request.headers().contains_key(header::IF_NONE_MATCH),
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|sent| sent.weak_eq(&tag)),
            Err(_) => false,
        }
    }
}

impl<T: Serialize> Responder for Reply<T> {
    type Body = BoxBody;

    fn respond_to(mut self, request: &HttpRequest) -> HttpResponse {
        let context = RequestContext::current();
        let unchanged = self.is_unchanged(request);
        let status = if unchanged { StatusCode::NOT_MODIFIED } else { self.status };
        let mut builder = HttpResponse::build(status);
        for (name, value) in self.headers.drain(..) {
            builder.insert_header((name, value));
        }
        if let Some(tag) = self.etag {
            builder.insert_header((header::ETAG, tag.entity_tag().to_string()));
        }
        if unchanged {
            return builder.finish();
        }
        if let Some(cursor) = self.page.as_ref().and_then(|page| page.next_cursor.as_deref()) {
            builder.insert_header((header::LINK, page::next_link(request, cursor)));
        }
        let envelope = ApiResponse {
            data: Some(self.data),
            error: self.failing.as_ref().map(|failing| failing.message.clone()),
            code: self.failing.as_ref().map(|failing| failing.code.slug().to_owned()),
            problem: self.failing.as_ref().map(ApiError::problem),
            page: self.page,
            ..ApiResponse::new(self.failing.is_none(), &context)
        };
        match answers::body_of(&envelope, request) {
            Ok(body) => builder.content_type("application/json").body(body),
            Err(refusal) => refusal.error_response(),
        }
    }
}

/// What an entity tag is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    revision: u64,
    /// Where what is shown changed last, when that is not told by the revision.
    position: Option<u64>,
}

impl Tag {
    /// Of something that shows more than its own history: `"revision.position"`.
    #[must_use]
    pub fn shown_since(revision: u64, position: u64) -> Self {
        Self { revision, position: Some(position) }
    }

    fn entity_tag(self) -> EntityTag {
        let Self { revision, position } = self;
        EntityTag::new_strong(match position {
            Some(position) => format!("{revision}.{position}"),
            None => revision.to_string(),
        })
    }
}

impl From<u64> for Tag {
    fn from(revision: u64) -> Self {
        Self { revision, position: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use serde_json::{Value, json};

    async fn body(response: HttpResponse) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap_or_default()
    }

    fn sent(name: HeaderName, value: &str) -> HttpRequest {
        TestRequest::get().insert_header((name, value)).to_http_request()
    }

    #[actix_web::test]
    async fn a_creation_says_where_and_which_revision() {
        let reply = Reply::created(json!({"id": "op_1"}), "/api/v1/operations/op_1")
            .etag(1)
            .position(Position::new(7));
        let response = reply.replayed().respond_to(&TestRequest::post().to_http_request());
        assert_eq!(response.status(), StatusCode::CREATED);
        let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("location"), "/api/v1/operations/op_1");
        assert_eq!((header("etag"), header("photon-position")), ("\"1\"".into(), "7".into()));
        assert_eq!(header("idempotency-replayed"), "true");
        let body = body(response).await;
        assert_eq!((&body["success"], &body["data"]["id"]), (&json!(true), &json!("op_1")));
        let absent = ["error", "code", "problem", "page"];
        assert!(absent.iter().all(|name| body.get(name).is_none()));
    }

    #[actix_web::test]
    async fn the_timestamp_is_utc_with_milliseconds() {
        let body = body(Reply::ok(1).respond_to(&TestRequest::get().to_http_request())).await;
        let stamp = body["timestamp"].as_str().unwrap();
        assert!(stamp.ends_with('Z') && stamp.len() == "2026-11-23T01:00:00.000Z".len(), "{stamp}");
        assert!(chrono::DateTime::parse_from_rfc3339(stamp).is_ok());
        assert!(body["processingTime"].is_number());
    }

    #[actix_web::test]
    async fn the_same_revision_is_not_sent_twice() {
        for (tag, expected) in
            [("\"7\"", 304), ("W/\"7\"", 304), ("\"1\", \"7\"", 304), ("*", 304), ("\"8\"", 200)]
        {
            let response = Reply::ok("x").etag(7).respond_to(&sent(header::IF_NONE_MATCH, tag));
            assert_eq!(response.status(), expected, "{tag}");
            assert_eq!(response.headers().get(header::ETAG).unwrap(), "\"7\"");
        }
        let plain = Reply::ok("x").etag(7).respond_to(&TestRequest::get().to_http_request());
        assert_eq!(plain.status(), 200);
    }

    #[actix_web::test]
    async fn a_page_links_to_the_next_one() {
        let request = TestRequest::get().uri("/things?limit=1").to_http_request();
        let response = Reply::ok([1]).page(Page::new(1, Some("abc".into()))).respond_to(&request);
        assert_eq!(
            response.headers().get(header::LINK).unwrap(),
            "</things?limit=1&cursor=abc>; rel=\"next\""
        );
        assert_eq!(body(response).await["page"]["nextCursor"], json!("abc"));
    }

    #[actix_web::test]
    async fn a_client_reads_what_the_server_wrote() {
        let response = Reply::failing(Code::Overloaded, 5, "The disk is slow.")
            .respond_to(&TestRequest::get().to_http_request());
        assert_eq!(response.status(), 503);
        let bytes = to_bytes(response.into_body()).await.unwrap();
        let read: ApiResponse<u8> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (read.success, read.data, read.error.as_deref()),
            (false, Some(5), Some("The disk is slow."))
        );
    }
}
