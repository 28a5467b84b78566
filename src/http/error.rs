//! Owns every refusal that a client can see: the codes, their status numbers, the way they are written.
//! The only file that knows status numbers of errors. It must never let an internal text out.

use std::fmt::{self, Display};
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::error::{InternalError, PathError, PayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::context::RequestContext;
use super::envelope::ApiResponse;

mod code;

pub use code::Code;

/// How long a client waits before it tries again when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One fault within a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// RFC 6901 pointer into the request's body; the empty string is the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of the query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Stable slug of this fault, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A sentence for people.
    pub detail: String,
}

impl FieldError {
    /// A fault at a JSON pointer of the body.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, code: None, detail: detail.into() }
    }

    /// A fault of a query parameter.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(name.into()), code: None, detail: detail.into() }
    }

    /// Adds a stable slug.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

/// The RFC 9457 form of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A relative URI that names and explains the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words, always the same for one kind.
    pub title: String,
    /// The status number of the answer.
    pub status: u16,
    /// What is wrong with this request, and what to do next.
    pub detail: String,
    /// Each single fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A refusal: a stable code and a sentence that says what to do next.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What clients branch on.
    pub code: Code,
    /// A sentence for people. For a 5xx it never tells what happened inside.
    pub message: String,
    /// Each single fault, the first ones first.
    pub errors: Vec<FieldError>,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A refusal with this sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = code.is_passing().then_some(RETRY_AFTER);
        Self { code, message: message.into(), errors: Vec::new(), retry_after, headers: Vec::new() }
    }

    /// Adds one fault.
    #[must_use]
    pub fn with(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    /// Adds many faults.
    #[must_use]
    pub fn with_all(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.errors.extend(errors);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a header to the answer. A value that no header may hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Display) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.headers.push((name, value));
        }
        self
    }

    /// 404 with this sentence.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// 409 with this sentence.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// 422 for one field of the body, named by its JSON pointer.
    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::new(Code::InvalidField, detail.clone()).with(FieldError::at(pointer, detail))
    }

    /// 422 for all these faults of a workflow; the sentence is the first one.
    #[must_use]
    pub fn invalid_workflow(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map_or("The workflow is not valid.", |error| &error.detail).to_owned();
        let message = match errors.len() {
            0 | 1 => first,
            count => format!("{first} ({count} faults in all; problem.errors lists each.)"),
        };
        Self::new(Code::InvalidWorkflow, message).with_all(errors)
    }

    /// 400 for one query parameter.
    pub fn invalid_parameter(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::new(Code::InvalidParameter, detail.clone()).with(FieldError::parameter(name, detail))
    }

    /// 405 that names what the resource does answer.
    #[must_use]
    pub fn method_not_allowed(method: &str, allow: &str) -> Self {
        let message = format!("{method} is not possible here; this resource answers {allow}.");
        Self::new(Code::MethodNotAllowed, message).header(header::ALLOW, allow)
    }

    /// 500. The cause goes to the log, under the request's id, and nowhere else.
    #[must_use]
    pub fn internal(cause: impl Display) -> Self {
        let request_id = RequestContext::current().request_id;
        tracing::error!(%request_id, %cause, "request failed inside");
        Self::of(Code::Internal)
    }

    /// A refusal with the sentence that fits its code when nothing more is known.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self::new(code, code.advice())
    }

    /// The RFC 9457 form.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem {
            kind: format!("/docs/errors/{}", self.code.slug()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.message.clone(),
            errors: self.errors.clone(),
        }
    }
}

impl Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.slug(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let context = RequestContext::current();
        let mut builder = HttpResponse::build(self.code.status());
        for (name, value) in &self.headers {
            builder.append_header((name.clone(), value.clone()));
        }
        if let Some(after) = self.retry_after {
            builder.insert_header((header::RETRY_AFTER, whole_seconds(after)));
        }
        if self.code.closes() {
            builder.force_close();
        }
        let (media, body) = if context.accepts_problem {
            ("application/problem+json", serde_json::to_vec(&self.problem()))
        } else {
            ("application/json", serde_json::to_vec(&ApiResponse::<()>::failure(self, &context)))
        };
        builder.content_type(media).body(body.unwrap_or_default())
    }
}

/// `Retry-After` has no fractions, and "0" would invite a storm.
pub(super) fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0 || after.is_zero())
}

/// Rewrites an error that was not made here (by actix, or by a library) into the house's format.
pub(super) fn normalized(response: HttpResponse) -> HttpResponse {
    let foreign = response.error().is_some_and(|error| {
        error.as_error::<ApiError>().is_none() && error.as_error::<InternalError<Answered>>().is_none()
    });
    if !foreign {
        return response;
    }
    let code = Code::nearest(response.status());
    if code == Code::Internal
        && let Some(cause) = response.error()
    {
        let request_id = RequestContext::current().request_id;
        tracing::error!(%request_id, %cause, "request failed inside");
    }
    let mut rewritten = ApiError::of(code).error_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        rewritten.headers_mut().insert(header::ALLOW, allow.clone());
    }
    rewritten
}

/// Marks an answer that is finished already.
#[derive(Debug)]
struct Answered;

impl Display for Answered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("answered")
    }
}

/// Wraps a finished answer as an error, for where actix wants an error because the request is gone.
pub(super) fn finished(response: HttpResponse) -> actix_web::Error {
    InternalError::from_response(Answered, response).into()
}

/// Faults of path parameters in the house's format: `App::app_data(error::path_config())`.
#[must_use]
pub fn path_config() -> web::PathConfig {
    web::PathConfig::default().error_handler(|_: PathError, _: &HttpRequest| {
        ApiError::not_found("No resource has this path; GET /openapi.json lists every path.").into()
    })
}

impl From<PayloadError> for ApiError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::of(Code::BodyTooLarge),
            _ => Self::of(Code::MalformedRequest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use serde_json::{Value, json};

    async fn json_of(response: HttpResponse) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap()
    }

    #[actix_web::test]
    async fn an_error_is_the_envelope_with_a_problem() {
        let error = ApiError::invalid_field("/name", "The name is missing.");
        let response = error.error_response();
        assert_eq!(response.status(), 422);
        let body = json_of(response).await;
        assert_eq!(body["success"], json!(false));
        assert_eq!(body["code"], json!("invalid_field"));
        assert_eq!(body["error"], json!("The name is missing."));
        assert_eq!(body["problem"]["type"], json!("/docs/errors/invalid_field"));
        assert_eq!(body["problem"]["status"], json!(422));
        let fault = json!([{"pointer": "/name", "detail": "The name is missing."}]);
        assert_eq!(body["problem"]["errors"], fault);
        assert!(body["requestId"].is_string() && body["processingTime"].is_number());
        assert!(body.get("data").is_none());
    }

    #[actix_web::test]
    async fn who_asks_for_a_problem_gets_it_bare() {
        let context = RequestContext { accepts_problem: true, ..RequestContext::current() };
        let answer = context.scope(async { ApiError::conflict("Read it again.").error_response() }).await;
        assert_eq!(answer.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
        let body = json_of(answer).await;
        assert_eq!(body["detail"], json!("Read it again."));
        assert!(body.get("success").is_none());
    }

    #[actix_web::test]
    async fn an_internal_cause_stays_inside() {
        let body = json_of(ApiError::internal("sled: /var/lib/secret broke").error_response()).await;
        assert!(!body.to_string().contains("sled"), "{body}");
    }

    #[actix_web::test]
    async fn passing_trouble_says_when_to_come_back() {
        let answer = ApiError::of(Code::Overloaded).error_response();
        assert_eq!(answer.headers().get(header::RETRY_AFTER).unwrap(), "1");
        let later = ApiError::of(Code::RateLimited).retry_after(Duration::from_millis(2_100));
        assert_eq!(later.error_response().headers().get(header::RETRY_AFTER).unwrap(), "3");
    }

    #[actix_web::test]
    async fn a_foreign_error_is_rewritten() {
        let foreign = actix_web::error::ErrorBadRequest("src/secret.rs: broke");
        let answer = normalized(HttpResponse::from_error(foreign));
        let body = json_of(answer).await;
        assert_eq!(body["code"], json!("malformed_request"));
        assert!(!body.to_string().contains("secret"));
    }
}
