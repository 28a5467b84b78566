//! Owns how a request's body is read: how large, how slow, in which format, and what a refusal says.
//! It must never know what a body means.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Code};

mod fault;

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
    /// The first 16 bytes of the BLAKE3 hash of the raw bytes; zeros unless the request has an idempotency
    /// key.
    pub hash: [u8; 16],
}

/// A JSON body that may be missing: no bytes at all mean `T::default()`.
pub type OptionalBody<T, const MAX: usize = 0> = Body<T, MAX, true>;

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

impl<T: DeserializeOwned, const MAX: usize> FromRequest for Body<T, MAX> {
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
            Ok(Self { value, hash: if keyed { hash_of(&bytes) } else { [0; 16] } })
        })
    }
}

impl<T: DeserializeOwned + Default, const MAX: usize> FromRequest for OptionalBody<T, MAX> {
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
            Ok(Self { value, hash: if keyed { hash_of(&bytes) } else { [0; 16] } })
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
    let payload = payload.take();
    async move {
        match refusal {
            Some(refusal) => Err(refusal),
            None => collect(payload, &limits).await,
        }
    }
}

/// What can be refused before a byte of the body is read.
fn refused_by_headers(headers: &HeaderMap, max: usize) -> Option<ApiError> {
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

async fn collect(mut payload: Payload, limits: &Limits) -> Result<Bytes, ApiError> {
    let end = Instant::now() + limits.deadline;
    let mut window_end = Instant::now() + limits.window;
    let mut in_window = 0;
    let mut collected = BytesMut::new();
    loop {
        match timeout_at(end.min(window_end), payload.next()).await {
            Ok(None) => return Ok(collected.freeze()),
            Ok(Some(chunk)) => {
                let chunk = chunk?;
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

/// The same hash of a body in its canonical form, for a route of which a part of the body does not count.
#[must_use]
pub fn hash_for_key(request: &HttpRequest, body: &impl Serialize) -> [u8; 16] {
    if !has_key(request) {
        return [0; 16];
    }
    // What was read from JSON can be written as JSON.
    serde_json::to_vec(body).map_or([0; 16], |bytes| hash_of(&bytes))
}

fn has_key(request: &HttpRequest) -> bool {
    request.headers().contains_key(IDEMPOTENCY_KEY)
}

fn hash_of(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    //! Over a real port with raw bytes: what a well-behaved client library cannot send.

    use super::*;
    use crate::http::envelope::Reply;
    use crate::http::guard::{Guard, Hosts, Phase, ServiceState, protect};
    use crate::http::{context, error::ApiError, routing};
    use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn};
    use futures_util::future::join_all;
    use serde::Deserialize;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        text: String,
    }

    async fn length(note: Body<Note>) -> Result<Reply<usize>, ApiError> {
        Ok(Reply::ok(note.value.text.len()))
    }

    async fn small(note: Body<Note, 64>) -> Result<Reply<usize>, ApiError> {
        Ok(Reply::ok(note.value.text.len()))
    }

    async fn optional(note: OptionalBody<Note>) -> Result<Reply<usize>, ApiError> {
        Ok(Reply::ok(note.value.text.len()))
    }

    struct Server {
        address: SocketAddr,
        handle: ServerHandle,
    }

    impl Server {
        fn start() -> Self {
            let limits = Limits {
                max_body_bytes: 4096,
                deadline: Duration::from_millis(600),
                window: Duration::from_millis(200),
                window_min_bytes: 100,
            };
            let limits = web::Data::new(limits);
            let state = Arc::new(ServiceState::default());
            state.enter(Phase::Ready);
            let guard = Guard::new(state, Hosts::loopback_and("localhost"), Duration::from_secs(30));
            let guard = web::Data::new(guard);
            let make = move || {
                App::new()
                    .app_data(limits.clone())
                    .app_data(guard.clone())
                    .service(routing::resource("/notes").post(length))
                    .service(routing::resource("/small").post(small))
                    .service(routing::resource("/optional").post(optional))
                    .default_service(web::to(routing::not_found))
                    .wrap(from_fn(protect))
                    .wrap(from_fn(context::enter))
            };
            let server = HttpServer::new(make).workers(1).bind("127.0.0.1:0").unwrap();
            let address = server.addrs()[0];
            let server = server.disable_signals().run();
            let handle = server.handle();
            actix_web::rt::spawn(server);
            Self { address, handle }
        }

        /// Sends the pieces with a pause after each and returns all that comes back until the end or 3 s.
        async fn talk(&self, pieces: &[&[u8]], pause: Duration) -> (String, bool) {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let sending = async {
                for piece in pieces {
                    if writer.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
                // Never closes its half: ending the connection is up to the server.
                std::future::pending::<()>().await;
            };
            let mut answer = Vec::new();
            let reading = async {
                let whole = reader.read_to_end(&mut answer);
                tokio::time::timeout(Duration::from_secs(3), whole).await.is_ok()
            };
            let closed = tokio::select! { closed = reading => closed, () = sending => false };
            (String::from_utf8_lossy(&answer).into_owned(), closed)
        }

        async fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n{headers}\r\n"
            );
            let (answer, _) = self.talk(&[head.as_bytes(), body], Duration::ZERO).await;
            (status(&answer), answer)
        }
    }

    fn status(answer: &str) -> u16 {
        answer.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    const JSON: &str = "Content-Type: application/json\r\n";

    #[actix_web::test]
    async fn json_is_read_and_other_types_are_refused() {
        let server = Server::start();
        let note = br#"{"text":"four"}"#;
        let suffixed = "Content-Type: application/vnd.photon+json; charset=utf-8\r\n";
        assert_eq!(server.post("/notes", JSON, note).await.0, 200);
        assert_eq!(server.post("/notes", suffixed, note).await.0, 200);
        let others = ["", "Content-Type: text/plain\r\n", "Content-Type: application/jsonx\r\n"];
        let refused = others.map(async |other| {
            let (status, answer) = server.post("/notes", other, note).await;
            assert_eq!(status, 415, "{answer}");
            assert!(answer.contains("unsupported_media_type"));
        });
        join_all(refused).await;
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_compressed_body_is_refused_unread() {
        let server = Server::start();
        let refused = ["gzip", "br", "deflate", "identity, gzip", "x"].map(async |encoding| {
            let headers = format!("{JSON}Content-Encoding: {encoding}\r\n");
            assert_eq!(server.post("/notes", &headers, b"\x1f\x8b").await.0, 415, "{encoding}");
        });
        join_all(refused).await;
        let identity = format!("{JSON}Content-Encoding: identity\r\n");
        assert_eq!(server.post("/notes", &identity, br#"{"text":"x"}"#).await.0, 200);
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_body_over_its_limit_is_refused_and_the_connection_closed() {
        let server = Server::start();
        // Announced, and never sent: the answer comes before the body.
        let head =
            format!("POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n{JSON}\r\n");
        let (answer, closed) = server.talk(&[head.as_bytes()], Duration::ZERO).await;
        assert_eq!((status(&answer), closed), (413, true), "{answer}");
        assert!(answer.contains("body_too_large") && answer.contains("4096"));
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        let head =
            format!("POST /notes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{JSON}\r\n");
        let pieces: Vec<&[u8]> = [head.as_bytes()].into_iter().chain([chunk.as_bytes(); 6]).collect();
        let (answer, closed) = server.talk(&pieces, Duration::from_millis(1)).await;
        assert_eq!((status(&answer), closed), (413, true), "{answer}");
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(64));
        assert_eq!(server.post("/small", JSON, long.as_bytes()).await.0, 413);
        assert_eq!(server.post("/notes", JSON, long.as_bytes()).await.0, 200);
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_refused_request_cannot_hold_its_connection_with_a_body_without_end() {
        let server = Server::start();
        let attacks = ["/nothing", "/optional?", "/notes"].map(async |path| {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
            let pieces: Vec<&[u8]> = [head.as_bytes()].into_iter().chain([&b"1\r\nx\r\n"[..]; 20]).collect();
            let (answer, closed) = server.talk(&pieces, Duration::from_millis(100)).await;
            assert!(closed && status(&answer) >= 400, "{path} {answer}");
        });
        join_all(attacks).await;
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_connection_whose_bodies_are_read_is_kept() {
        let server = Server::start();
        let body = r#"{"text":"x"}"#;
        let plain = format!(
            "POST /notes HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let chunked = format!(
            "POST /notes HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let last = plain.replace("Host:", "Connection: close\r\nHost:");
        let pieces = [plain.as_bytes(), chunked.as_bytes(), last.as_bytes()];
        let (answer, _) = server.talk(&pieces, Duration::from_millis(20)).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_slow_body_is_ended_and_the_connection_closed() {
        let server = Server::start();
        let head = format!("POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n{JSON}\r\n");
        // Silent; a byte now and then; fast enough for each window, too slow for the whole.
        let cases: [(&[u8], u64); 3] = [(b"", 1), (b"x", 50), (&[b'x'; 150], 120)];
        let attacks = cases.map(async |(piece, pause_ms)| {
            let pieces: Vec<&[u8]> = [head.as_bytes()].into_iter().chain([piece; 12]).collect();
            let started = Instant::now();
            let (answer, closed) = server.talk(&pieces, Duration::from_millis(pause_ms)).await;
            assert_eq!((status(&answer), closed), (408, true), "{answer}");
            assert!(answer.contains("request_timeout"));
            assert!(started.elapsed() < Duration::from_secs(3));
        });
        join_all(attacks).await;
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn a_missing_body_is_the_default_where_it_may_be_missing() {
        let server = Server::start();
        assert_eq!(server.post("/optional", "", b"").await.0, 200);
        assert_eq!(server.post("/optional", JSON, br#"{"text":"x"}"#).await.0, 200);
        assert_eq!(server.post("/optional", "", br#"{"text":"x"}"#).await.0, 415);
        assert_eq!(server.post("/notes", JSON, b"").await.0, 400);
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn two_meanings_of_one_request_are_refused_and_the_connection_closed() {
        let server = Server::start();
        let cases = [
            "Host: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "Host: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
            "Host: localhost\r\nContent-Length: +4\r\n",
            "Host: localhost\r\nTransfer-Encoding: chunked, identity\r\n",
            "Host: localhost\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n",
            "Content-Length: 4\r\n",
        ];
        for headers in cases {
            let request = format!(
                "POST /notes HTTP/1.1\r\n{headers}{JSON}\r\nnullGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            );
            let (answer, closed) = server.talk(&[request.as_bytes()], Duration::ZERO).await;
            assert_eq!((status(&answer), closed), (400, true), "{headers} {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        }
        server.handle.stop(false).await;
    }

    #[actix_web::test]
    async fn the_hash_is_of_the_raw_bytes() {
        assert_ne!(hash_of(b"{}"), hash_of(b"{ }"));
        assert_eq!(hash_of(b""), blake3::hash(b"").as_bytes()[..16]);
    }
}
