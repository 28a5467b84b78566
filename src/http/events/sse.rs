//! Server-sent events: every event as a frame, over plain HTTP.
//! Format: WHATWG HTML, section 9.2, "Server-sent events".

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::Version;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use events::Position;
use futures_util::{Stream, StreamExt, stream};

use super::super::error::ApiError;
use super::super::front::ReachAtOnce;
use super::super::query::Parameters;
use super::filter::Filter;
use super::telling::{self, Telling, Told};

/// Where events are streamed.
pub const PATH: &str = "/api/v1/events/stream";
/// Where a client that comes back left off; browsers send it by themselves.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps nginx from holding events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How soon a browser comes back after the stream has ended, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";
/// How soon it comes back when there is no room for its stream now.
const RETRY_LATER: Duration = Duration::from_secs(10);
const BEAT: &[u8] = b":\n\n";

/// Streams events as they happen, or from a position on. When there is no room for another stream the
/// answer is 200 with `retry: 10000` and ends, since an `EventSource` gives up for good at a 503; for the
/// same reason a request is held while the log is read at a start, and its connection is closed when that
/// takes too long.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "events",
    params(("types" = Option<String>, Query, description = "such as operation.*,agent.timeout"),
        ("operation" = Option<String>, Query), ("agent" = Option<String>, Query),
        ("after" = Option<u64>, Query, description = "sequence, exclusive; without it only new events"),
        ("epoch" = Option<String>, Query, description = "the history that `after` is of"),
        ("lastEventId" = Option<u64>, Query,
            description = "as `after`, and wins over it: for clients that cannot send the header"),
        ("Last-Event-ID" = Option<u64>, Header, description = "as `lastEventId`, and wins over it")),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 400), (status = 410)))]
pub async fn stream(api: ReachAtOnce, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    match open(api, &request).await {
        Err(refusal) if refusal.code.is_passing() => {
            let later = format!("retry: {}\n: {}\n\n", RETRY_LATER.as_millis(), refusal.message);
            Ok(streamed(&request, stream::iter([Ok(Bytes::from(later))])))
        }
        answer => answer,
    }
}

async fn open(api: ReachAtOnce, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    const NAMES: &[&str] = &["types", "operation", "agent", "after", "epoch", "lastEventId"];
    let api = api.shown().await?;
    let parameters = Parameters::of(request, NAMES, &[])?;
    let filter = Filter::of(&parameters)?;
    super::check_epoch(&api.feed, parameters.get("epoch"))?;
    let after = last_event_id(request, &parameters)?.or(parameters.get_u64("after", 0..=u64::MAX)?);
    let after = super::begin(&api.feed, &filter, after).await?;
    let telling = Telling::new(&api.feed, &api.state, api.feed.seat()?, filter, after);
    let frames = stream::unfold(Some(telling), |telling| async move {
        let mut telling = telling?;
        let told = telling.next().await;
        let open = !matches!(told, Told::Bye(..));
        Some((Ok(frame(&told)), open.then_some(telling)))
    });
    let retry = stream::iter([Ok(Bytes::from_static(RETRY.as_bytes()))]);
    Ok(streamed(request, retry.chain(frames)))
}

/// A stream of frames, as browsers and proxies want it.
fn streamed(
    request: &HttpRequest,
    frames: impl Stream<Item = Result<Bytes, Infallible>> + 'static,
) -> HttpResponse {
    let mut response = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/event-stream")))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((X_ACCEL_BUFFERING, HeaderValue::from_static("no")))
        .streaming(frames);
    // Chunks are unknown to HTTP/1.0: there the connection's end is the body's.
    response.head_mut().no_chunking(request.version() < Version::HTTP_11);
    response
}

fn last_event_id(request: &HttpRequest, parameters: &Parameters) -> Result<Option<u64>, ApiError> {
    let header = request.headers().get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?"));
    let read = |name: &str, text: Option<&str>| {
        // A browser that has seen no id yet sends an empty one, or none.
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
            ApiError::invalid_parameter(name, format!("{name} must be the sequence of an event."))
        })
    };
    Ok(read("Last-Event-ID", header)?.or(read("lastEventId", parameters.get("lastEventId"))?))
}

fn frame(told: &Told) -> Bytes {
    match told {
        Told::Events(events) => match events.as_slice() {
            [event] => event.frame().clone(),
            events => {
                let mut frames =
                    BytesMut::with_capacity(events.iter().map(|event| event.frame().len()).sum());
                events.iter().for_each(|event| frames.extend_from_slice(event.frame()));
                frames.freeze()
            }
        },
        Told::Bookmark(at, epoch) => named("bookmark", *at, &telling::place(*at, *epoch).to_string()),
        // Without an id: one resumes behind the last event.
        Told::Gap(damage) => format!("event: gap\ndata: {}\n\n", telling::gap(damage)).into(),
        Told::Beat => Bytes::from_static(BEAT),
        Told::Bye(why, at) => {
            named("bye", *at, &format!(r#"{{"reason":"{}","sequence":"{at}"}}"#, why.name()))
        }
    }
}

/// A frame that is no event of the log. Its id lets a client resume from there.
fn named(name: &str, at: Position, data: &str) -> Bytes {
    format!("id: {at}\nevent: {name}\ndata: {data}\n\n").into()
}
