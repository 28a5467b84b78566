//! Over a real port with raw bytes: what a well-behaved client library cannot send.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::http::envelope::Reply;
use crate::http::guard::{Guard, Hosts, Phase, ServiceState, protect};
use crate::http::{context, error::ApiError, routing};
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, Default, Deserialize, Serialize)]
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
    let head = format!("POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n{JSON}\r\n");
    let (answer, closed) = server.talk(&[head.as_bytes()], Duration::ZERO).await;
    assert_eq!((status(&answer), closed), (413, true), "{answer}");
    assert!(answer.contains("body_too_large") && answer.contains("4096"));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = format!("POST /notes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{JSON}\r\n");
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
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
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
async fn the_hash_is_of_what_was_read() {
    let read = |text: &str| hash_of(&parsed::<Value>(text.as_bytes()).unwrap());
    assert_eq!(read(r#"{"a":1,"b":[2]}"#), read(" { \"b\": [ 2 ],\n \"a\": 1 }"));
    assert_ne!(read(r#"{"a":1}"#), read(r#"{"a":2}"#));
    let note = |text: &str| hash_of(&parsed::<Note>(text.as_bytes()).unwrap());
    assert_eq!(note(r#"{"text":"\u0061"}"#), note(r#"{"text":"a"}"#));
}

#[actix_web::test]
async fn two_content_types_are_refused() {
    let server = Server::start();
    let note = br#"{"text":"four"}"#;
    for other in ["application/json", "text/plain"] {
        for path in ["/notes", "/optional"] {
            let headers = format!("{JSON}Content-Type: {other}\r\n");
            let (status, answer) = server.post(path, &headers, note).await;
            assert_eq!(status, 400, "{answer}");
            assert!(answer.contains("Content-Type is given more than once"), "{answer}");
        }
    }
    server.handle.stop(false).await;
}

#[actix_web::test]
async fn the_length_of_a_body_holds_whatever_its_request_would_like_to_be() {
    let server = Server::start();
    let body = r#"{"text":"x"}"#;
    for upgrade in ["Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        for path in ["/notes", "/optional"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\n{JSON}{upgrade}Content-Length: {}\r\n\r\n{body}\
                 GET /later HTTP/1.1\r\n",
                body.len()
            );
            let (answer, closed) = server.talk(&[request.as_bytes()], Duration::ZERO).await;
            assert_eq!((status(&answer), closed), (200, true), "{upgrade} {answer}");
        }
        let empty = format!("POST /optional HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n");
        let (answer, closed) = server.talk(&[empty.as_bytes()], Duration::ZERO).await;
        assert_eq!((status(&answer), closed), (200, true), "{upgrade} {answer}");
    }
    server.handle.stop(false).await;
}
