//! Owns how a request's body is read: how large, how slow, in which format, and what a refusal says.
//! It must never know what a body means.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use domain::Json;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Code};

mod fault;
#[cfg(test)]
mod tests;

/// The header by which a request may be repeated.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a body may cost. Registered as `web::Data<Limits>`; without it the defaults hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body, in bytes; a route may set a smaller one.
    pub max_body_bytes: usize,
    /// How long a whole body may take.
    pub deadline: Duration,
    /// The span over which the speed is looked at.
    pub window: Duration,
    /// The fewest bytes that must come within one span.
    pub window_min_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1024 * 1024,
            deadline: Duration::from_secs(30),
            window: Duration::from_secs(10),
            window_min_bytes: 10 * 1024,
        }
    }
}

/// A JSON body, read whole. `MAX` is a limit of this route in bytes; 0 leaves it at the server's.
#[derive(Clone, Debug)]
pub struct Body<T, const MAX: usize = 0, const OPTIONAL: bool = false> {
    /// What was sent.
    pub value: T,
    /// The first 16 bytes of the BLAKE3 hash of what was read, whatever its white space, its order and its
    /// defaults; zeros unless the request has an idempotency key.
    pub hash: [u8; 16],
}

/// A JSON body that may be missing: no bytes at all mean `T::default()`.
pub type OptionalBody<T, const MAX: usize = 0> = Body<T, MAX, true>;

/// A body as it was sent, which may be missing: for a route on which a body that cannot be used counts, too.
#[derive(Debug)]
pub struct RawBody<const MAX: usize>(Result<Bytes, ApiError>);

impl<const MAX: usize> RawBody<MAX> {
    /// What was sent.
    ///
    /// # Errors
    /// When it was not JSON by its headers, too large or too slow.
    pub fn bytes(&self) -> Result<&[u8], ApiError> {
        self.0.as_deref().map_err(Clone::clone)
    }
}

impl<const MAX: usize> FromRequest for RawBody<MAX> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let reading = read::<MAX>(request, payload);
        let is_json = is_json(request.headers());
        Box::pin(async move {
            let bytes = reading.await;
            Ok(Self(
                bytes.and_then(|bytes| if bytes.is_empty() || is_json { Ok(bytes) } else { Err(not_json()) }),
            ))
        })
    }
}

/// Reads JSON, or says what is wrong with it and where.
///
/// # Errors
/// 400 `malformed_json` and `unknown_field`, 422 `invalid_field`.
pub fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    fault::parse(bytes)
}

/// Reads a field that must be an object; serde alone would also take an array, its items by their order.
///
/// # Errors
/// When it is anything else, or not what `T` wants.
pub fn object<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let fields = serde_json::Map::deserialize(deserializer)?;
    fault::within(fields.into()).map_err(de::Error::custom)
}

/// The same for a field that may be absent or null.
///
/// # Errors
/// As [`object`].
pub fn optional_object<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let fields = Option::<serde_json::Map<_, _>>::deserialize(deserializer)?;
    fields.map(|fields| fault::within(fields.into()).map_err(de::Error::custom)).transpose()
}

/// Reads a field of a change: one that is there has a value. Null would look like a wish to remove it.
///
/// # Errors
/// When it is null, or not what `T` wants.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same for a field that must be an object.
///
/// # Errors
/// As [`object`].
pub fn object_present<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

/// The same for free data, which is read without loss.
///
/// # Errors
/// When it is no JSON.
pub fn lossless_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    domain::json::lossless(deserializer).map(Some)
}

impl<T: DeserializeOwned + Serialize, const MAX: usize> FromRequest for Body<T, MAX> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let reading = read::<MAX>(request, payload);
        let is_json = is_json(request.headers());
        let keyed = has_key(request);
        Box::pin(async move {
            // The type first: a form of 900 KiB need not travel before it is refused.
            if !is_json {
                return Err(not_json());
            }
            let bytes = reading.await?;
            let value = fault::parse(&bytes)?;
            let hash = if keyed { hash_of(&value) } else { [0; 16] };
            Ok(Self { value, hash })
        })
    }
}

impl<T: DeserializeOwned + Serialize + Default, const MAX: usize> FromRequest for OptionalBody<T, MAX> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let reading = read::<MAX>(request, payload);
        let is_json = is_json(request.headers());
        let keyed = has_key(request);
        Box::pin(async move {
            let bytes = reading.await?;
            let value = match (bytes.is_empty(), is_json) {
                (true, _) => T::default(),
                (false, true) => fault::parse(&bytes)?,
                (false, false) => return Err(not_json()),
            };
            let hash = if keyed { hash_of(&value) } else { [0; 16] };
            Ok(Self { value, hash })
        })
    }
}

fn read<const MAX: usize>(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<MAX> {
    let mut limits = match request.app_data::<web::Data<Limits>>() {
        Some(limits) => limits.as_ref().clone(),
        None => Limits::default(),
    };
    if MAX > 0 {
        limits.max_body_bytes = limits.max_body_bytes.min(MAX);
    }
    let refusal = refused_by_headers(request.headers(), limits.max_body_bytes);
    let end = end_despite_upgrade(request.headers());
    let payload = payload.take();
    async move {
        match refusal {
            Some(refusal) => Err(refusal),
            None => collect(payload, &limits, end).await,
        }
    }
}

/// Where the body of a request ends that states `Upgrade`. Actix takes everything that follows for its body;
/// but a request that has a body is none that may be upgraded, so that its length holds (RFC 9110, section
/// 7.8).
fn end_despite_upgrade(headers: &HeaderMap) -> Option<usize> {
    if !headers.contains_key(header::UPGRADE) || headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    Some(length.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// What can be refused before a byte of the body is read.
fn refused_by_headers(headers: &HeaderMap, max: usize) -> Option<ApiError> {
    if headers.get_all(header::CONTENT_TYPE).count() > 1 {
        let message = "Content-Type is given more than once; send it once, as application/json.";
        return Some(ApiError::new(Code::MalformedRequest, message));
    }
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    let plain = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !encodings.into_iter().all(plain) {
        let message = "A request's body must not be compressed; send it without a Content-Encoding.";
        return Some(ApiError::new(Code::UnsupportedMediaType, message));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (length > u64::try_from(max).unwrap_or(u64::MAX)).then(|| too_large(max))
}

/// Reads a body to its end, or up to `length` if that is known better than by the payload.
async fn collect(mut payload: Payload, limits: &Limits, length: Option<usize>) -> Result<Bytes, ApiError> {
    let end = Instant::now() + limits.deadline;
    let mut window_end = Instant::now() + limits.window;
    let mut in_window = 0;
    let mut collected = BytesMut::new();
    while length.is_none_or(|length| collected.len() < length) {
        match timeout_at(end.min(window_end), payload.next()).await {
            Ok(None) => return Ok(collected.freeze()),
            Ok(Some(chunk)) => {
                let mut chunk = chunk?;
                chunk.truncate(length.map_or(usize::MAX, |length| length - collected.len()));
                in_window += chunk.len();
                if collected.len() + chunk.len() > limits.max_body_bytes {
                    return Err(too_large(limits.max_body_bytes));
                }
                collected.extend_from_slice(&chunk);
            }
            Err(_) if Instant::now() < end && in_window >= limits.window_min_bytes => {
                in_window = 0;
                window_end = Instant::now() + limits.window;
            }
            Err(_) => return Err(ApiError::of(Code::RequestTimeout)),
        }
    }
    Ok(collected.freeze())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffixed = media.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    media == "application/json" || suffixed
}

fn not_json() -> ApiError {
    let message = "This resource takes JSON; send the body with Content-Type: application/json.";
    ApiError::new(Code::UnsupportedMediaType, message)
}

fn too_large(max: usize) -> ApiError {
    let message =
        format!("The body is larger than the {max} bytes that this resource takes; send less at once.");
    ApiError::new(Code::BodyTooLarge, message)
}

/// The same hash of a body of which a part does not count and was taken out.
#[must_use]
pub fn hash_for_key(request: &HttpRequest, body: &impl Serialize) -> [u8; 16] {
    if has_key(request) { hash_of(body) } else { [0; 16] }
}

fn has_key(request: &HttpRequest) -> bool {
    request.headers().contains_key(IDEMPOTENCY_KEY)
}

fn hash_of(body: &impl Serialize) -> [u8; 16] {
    // What was read from JSON can be written as JSON.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    short
}
