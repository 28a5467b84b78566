//! Owns how an answer travels: compressed when that is worth it and the client asked for it.
//! It must never look into a body, nor hold one back that is not whole: a stream goes out as it comes.
//! It happens on the thread that serves the connection, in short turns, so that nothing waits in a queue
//! with it.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody, to_bytes};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, Encoding, Header, HeaderMap, HeaderValue,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::answers::Share;

/// A body of so many bytes travels as it is: it fits into a packet or two anyway.
const PLAIN_BYTES_MAX: u64 = 1024;
/// A larger body is compressed piece by piece, and other requests of the thread have their turn between two.
const IN_PLACE_BYTES_MAX: u64 = 32 * 1024;
/// What compressing in pieces holds beside the body itself.
const ENCODER_BYTES: u64 = 2 << 20;
/// The window of zstd, as a power of two: with its own choice an encoder would hold 4 MiB.
const ZSTD_WINDOW_LOG: u32 = 18;
/// zstd's own default: about as small as gzip's and several times as fast.
const ZSTD_LEVEL: i32 = 3;

/// The middleware that compresses whole answers over 1 KiB, within [`super::guard::protect`].
///
/// The `ETag` stays what it is: it names the revision of the thing shown, which `If-Match` must find again
/// however it travelled, and no two answers about one revision have the same bytes anyway.
///
/// # Errors
/// Passes on what the inner service failed with.
pub async fn compress(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let coding = wanted(&request);
    let share = Share::of(request.app_data());
    let (request, mut response) = next.call(request).await?.map_into_boxed_body().into_parts();
    if response.status() == StatusCode::NOT_MODIFIED {
        varies(response.headers_mut());
    } else if is_worth_it(&response) {
        varies(response.headers_mut());
        response = compressed(response, coding, share).await;
    }
    Ok(ServiceResponse::new(request, response))
}

/// What the client likes best of what there is; nothing when that is the plain body, or no choice is left.
fn wanted(request: &ServiceRequest) -> Option<ContentEncoding> {
    let choices = [Encoding::zstd(), Encoding::gzip(), Encoding::identity()];
    match AcceptEncoding::parse(request).ok()?.negotiate(choices.iter())? {
        Encoding::Known(coding) if coding != ContentEncoding::Identity => Some(coding),
        _ => None,
    }
}

/// Whether an answer is one that is compressed when the client asks for it.
fn is_worth_it(response: &HttpResponse) -> bool {
    let headers = response.headers();
    let whole = matches!(response.body().size(), BodySize::Sized(bytes) if bytes > PLAIN_BYTES_MAX);
    whole
        && response.status() != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(header::CONTENT_ENCODING)
        && headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).is_some_and(is_text)
}

/// Whether a media type is text of some kind; images and archives are compressed already.
fn is_text(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = media.strip_prefix("application/").unwrap_or_default();
    (media.starts_with("text/") && media != "text/event-stream")
        || media == "image/svg+xml"
        || matches!(subtype, "json" | "javascript" | "xml")
        || subtype.ends_with("+json")
}

fn varies(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// The same answer, compressed; as it was when nothing holds the compressor, or a short one gets no smaller.
async fn compressed(
    response: HttpResponse,
    coding: Option<ContentEncoding>,
    mut share: Share,
) -> HttpResponse {
    let Some(coding) = coding else { return response };
    let (mut head, body) = response.into_parts();
    let is_short = matches!(body.size(), BodySize::Sized(bytes) if bytes <= IN_PLACE_BYTES_MAX);
    let squeezed = if is_short {
        let Ok(plain) = to_bytes(body).await else { return HttpResponse::InternalServerError().finish() };
        match squeeze(&plain, coding) {
            Ok(squeezed) if squeezed.len() < plain.len() => BoxBody::new(squeezed),
            _ => return head.set_body(plain).map_into_boxed_body(),
        }
    } else {
        let encoder = share.take(ENCODER_BYTES).then(|| Encoder::new(coding).ok()).flatten();
        let Some(encoder) = encoder else { return head.set_body(body) };
        BoxBody::new(Squeezed { plain: body, encoder: Some(encoder), has_had_turn: false, _share: share })
    };
    head.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    head.set_body(squeezed)
}

/// A body that is compressed while it is sent.
struct Squeezed {
    plain: BoxBody,
    /// None once everything is compressed.
    encoder: Option<Encoder>,
    has_had_turn: bool,
    _share: Share,
}

impl MessageBody for Squeezed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.encoder.is_none() {
            return Poll::Ready(None);
        }
        // One piece a turn: whoever else is served by this thread comes first.
        if std::mem::replace(&mut self.has_had_turn, false) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(Pin::new(&mut self.plain).poll_next(context));
        self.has_had_turn = true;
        let squeezed = match piece.transpose()? {
            Some(piece) => self.encoder.as_mut().map(|encoder| encoder.put(&piece)),
            None => self.encoder.take().map(Encoder::finish),
        };
        match squeezed.transpose()? {
            Some(squeezed) if squeezed.is_empty() && self.encoder.is_some() => {
                context.waker().wake_by_ref();
                self.has_had_turn = false;
                Poll::Pending
            }
            squeezed => Poll::Ready(squeezed.map(Ok)),
        }
    }
}

/// Compresses what it is given piece by piece.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: ContentEncoding) -> io::Result<Self> {
        if coding != ContentEncoding::Zstd {
            return Ok(Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())));
        }
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
        encoder.window_log(ZSTD_WINDOW_LOG)?;
        Ok(Self::Zstd(encoder))
    }

    fn put(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let squeezed = match self {
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(squeezed).into())
    }

    fn finish(self) -> io::Result<Bytes> {
        let squeezed = match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        };
        squeezed.map(Bytes::from)
    }
}

fn squeeze(plain: &Bytes, coding: ContentEncoding) -> io::Result<Vec<u8>> {
    if coding == ContentEncoding::Zstd {
        return zstd::bulk::compress(plain, ZSTD_LEVEL);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderName;
    use actix_web::middleware::from_fn;
    use actix_web::test::{self, TestRequest};
    use actix_web::{App, HttpRequest, web};

    /// Answers with a body of the size, the kind and the status that the query names.
    async fn answer(request: HttpRequest) -> HttpResponse {
        let mut parts = request.query_string().split('&');
        let size: usize = parts.next().unwrap().parse().unwrap();
        let (media, how) = (parts.next().unwrap().to_owned(), parts.next().unwrap_or_default());
        let mut builder = HttpResponse::Ok();
        builder.content_type(media);
        let body = "a".repeat(size);
        match how {
            "encoded" => builder.insert_header((header::CONTENT_ENCODING, "br")).body(body),
            "partial" => builder.status(StatusCode::PARTIAL_CONTENT).body(body),
            "upgrade" => builder.status(StatusCode::SWITCHING_PROTOCOLS).upgrade("x").streaming(stream(body)),
            "stream" => builder.streaming(stream(body)),
            "random" => {
                let noise = (0..size).map(|_| uuid::Uuid::new_v4().into_bytes()[0]);
                builder.body(noise.collect::<Vec<u8>>())
            }
            _ => builder.body(body),
        }
    }

    fn stream(body: String) -> impl futures_util::Stream<Item = Result<Bytes, Error>> {
        futures_util::stream::iter([Ok(Bytes::from(body))])
    }

    /// `Content-Encoding`, `Vary` and the number of bytes.
    async fn sent(query: &str, accepts: Option<&str>) -> (String, String, usize) {
        let app = App::new().route("/", web::get().to(answer)).wrap(from_fn(compress));
        let app = test::init_service(app).await;
        let mut request = TestRequest::get().uri(&format!("/?{query}"));
        if let Some(accepts) = accepts {
            request = request.insert_header((header::ACCEPT_ENCODING, accepts));
        }
        let response = test::call_service(&app, request.to_request()).await;
        let text = |name: HeaderName| {
            let value = response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        let (coding, vary) = (text(header::CONTENT_ENCODING), text(header::VARY));
        (coding, vary, test::read_body(response).await.len())
    }

    #[actix_web::test]
    async fn what_is_over_a_kibibyte_is_compressed() {
        let plain = (String::new(), String::new(), 1024);
        assert_eq!(sent("1024&application/json", Some("gzip, zstd")).await, plain);
        for coding in ["gzip", "zstd"] {
            for size in [1025, IN_PLACE_BYTES_MAX + 1, 3 << 20] {
                let (used, vary, bytes) = sent(&format!("{size}&application/json"), Some(coding)).await;
                assert_eq!((used.as_str(), vary.as_str()), (coding, "Accept-Encoding"));
                assert!(bytes < 200.max(usize::try_from(size / 500).unwrap()), "{bytes}");
            }
        }
        let unasked = (String::new(), "Accept-Encoding".to_owned(), 1025);
        assert_eq!(sent("1025&application/json", None).await, unasked);
    }

    #[actix_web::test]
    async fn the_client_chooses() {
        for (accepts, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "gzip"),
            ("zstd;q=0.5, gzip", "gzip"),
            ("GZIP", "gzip"),
            ("identity, gzip;q=0.5", ""),
            ("gzip;q=0", ""),
            ("br, deflate", ""),
            ("*", ""),
            ("*;q=0", ""),
            ("identity;q=0", ""),
            ("", ""),
            (";;=,", ""),
        ] {
            assert_eq!(sent("9000&application/json", Some(accepts)).await.0, coding, "{accepts}");
        }
    }

    #[actix_web::test]
    async fn streams_and_what_is_compressed_already_stay_as_they_are() {
        for query in [
            "9000&text/event-stream",
            "9000&text/event-stream&stream",
            "9000&application/json&stream",
            "9000&application/json&upgrade",
            "9000&application/json&partial",
            "9000&image/png",
            "9000&application/octet-stream",
        ] {
            let (coding, vary, bytes) = sent(query, Some("gzip, zstd")).await;
            assert_eq!((coding.as_str(), vary.as_str(), bytes), ("", "", 9000), "{query}");
        }
        assert_eq!(sent("9000&text/css&encoded", Some("gzip")).await, ("br".into(), String::new(), 9000));
        let noise = sent("9000&application/json&random", Some("zstd")).await;
        assert_eq!(noise, (String::new(), "Accept-Encoding".into(), 9000));
        for media in ["text/css; charset=utf-8", "application/problem+json", "image/svg+xml", "text/plain"] {
            assert_eq!(sent(&format!("9000&{media}").replace(' ', "%20"), Some("gzip")).await.0, "gzip");
        }
    }
}
