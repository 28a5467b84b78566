//! What must be asked, and how, before a socket is opened.

use std::net::SocketAddr;

use photon::http::guard::Phase;

use super::client::ask;
use super::support::Photon;
use super::{address, serve};

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPTED: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A handshake with these headers instead of, or besides, the usual ones; an empty value leaves one out.
pub(crate) fn head(line: &str, changed: &[(&str, &str)]) -> String {
    let usual = [
        ("Host", "localhost"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let kept = usual.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    let headers = kept.chain(changed.iter().filter(|(_, value)| !value.is_empty()));
    let headers: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{headers}\r\n")
}

fn answer_of(address: SocketAddr, line: &str, changed: &[(&str, &str)]) -> String {
    ask(address, &head(line, changed))
        .1
        .to_ascii_lowercase()
        .replace(&ACCEPTED.to_ascii_lowercase(), ACCEPTED)
}

fn answer(changed: &[(&str, &str)]) -> String {
    answer_of(address(), "GET /echo HTTP/1.1", changed)
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[test]
fn a_handshake_is_accepted_in_every_form_that_the_rfc_allows() {
    let forms: &[&[(&str, &str)]] = &[
        &[],
        &[("Upgrade", "WebSocket")],
        &[("Connection", "keep-alive, Upgrade")],
        &[("Connection", "upgrade")],
        &[("Origin", "http://localhost")],
        &[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")],
    ];
    for form in forms {
        let answer = answer(form);
        assert!(answer.starts_with("http/1.1 101") && answer.contains(ACCEPTED), "{form:?}: {answer}");
        assert!(!answer.contains("sec-websocket-extensions"), "{form:?}: {answer}");
        assert!(answer.contains("upgrade: websocket\r\n") && answer.contains("connection: upgrade\r\n"));
    }
}

#[test]
fn a_handshake_that_the_rfc_does_not_allow_is_a_400_which_says_the_version() {
    let forms: &[&[(&str, &str)]] = &[
        &[("Sec-WebSocket-Key", "")],
        &[("Sec-WebSocket-Key", "13")],
        &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")],
        &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSE=")],
        &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")],
        &[("Sec-WebSocket-Key", "*GhlIHNhbXBsZSBub25jZQ==")],
        &[("Sec-WebSocket-Version", "")],
        &[("Sec-WebSocket-Version", "12")],
        &[("Sec-WebSocket-Version", "8")],
        &[("Sec-WebSocket-Version", "13, 8")],
        &[("Sec-WebSocket-Version", "0")],
        &[("Connection", "")],
        &[("Connection", "close")],
        &[("Upgrade", "")],
        &[("Upgrade", "h2c")],
        &[("Upgrade", "notwebsocket")],
    ];
    for form in forms {
        let answer = answer(form);
        assert_eq!(status(&answer), 400, "{form:?}: {answer}");
        assert!(answer.contains("sec-websocket-version: 13\r\n"), "{form:?}: {answer}");
    }
    let old = answer_of(address(), "GET /echo HTTP/1.0", &[]);
    assert_eq!(status(&old), 400, "{old}");
}

#[test]
fn a_subprotocol_is_named_only_when_it_was_offered() {
    let named = |offered: &str| {
        let answer = answer(&[("Sec-WebSocket-Protocol", offered)]);
        assert_eq!(status(&answer), 101, "{answer}");
        answer.contains("sec-websocket-protocol: echo.v1\r\n")
    };
    assert!(named("echo.v1") && named("other, echo.v1") && named("echo.v1,other"));
    assert!(!named("") && !named("other") && !named("echo.v10"));
}

#[test]
fn a_foreign_page_is_refused_before_the_socket_opens() {
    let foreign = [
        "null",
        "http://evil.test",
        "http://localhost.evil.test",
        "https://localhost",
        "http://localhost:81",
    ];
    for origin in foreign {
        assert_eq!(status(&answer(&[("Origin", origin)])), 403, "{origin}");
    }
    for host in ["evil.test", "localhost.evil.test"] {
        assert_eq!(status(&answer(&[("Host", host)])), 403, "{host}");
    }
}

#[test]
fn no_socket_opens_until_the_log_is_read_or_once_the_process_ends() {
    for phase in [Phase::Recovering, Phase::Draining] {
        let answer = answer_of(serve("127.0.0.1:0", phase), "GET /echo HTTP/1.1", &[]);
        assert_eq!(status(&answer), 503, "{phase:?}: {answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
    }
}

#[test]
fn an_upgrade_to_anything_else_is_an_ordinary_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let photon = runtime.block_on(Photon::start());
    let address = SocketAddr::from(([127, 0, 0, 1], photon.port()));
    let changed =
        [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")];
    let history = answer_of(address, "GET /api/v1/events HTTP/1.1", &changed);
    assert!(status(&history) == 200 && history.contains("content-type: application/json"), "{history}");
    let posted = answer_of(address, "POST /api/v1/events HTTP/1.1", &[]);
    assert_eq!(status(&posted), 405, "{posted}");
    let socket =
        answer_of(address, "GET /api/v1/events HTTP/1.1", &[("Sec-WebSocket-Protocol", "photon.v1")]);
    assert!(status(&socket) == 101 && socket.contains("sec-websocket-protocol: photon.v1\r\n"), "{socket}");
}

#[test]
fn a_stream_for_an_old_client_has_no_chunks() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let photon = runtime.block_on(Photon::start());
    let address = SocketAddr::from(([127, 0, 0, 1], photon.port()));
    let plain =
        [("Connection", ""), ("Upgrade", ""), ("Sec-WebSocket-Version", ""), ("Sec-WebSocket-Key", "")];
    let old = answer_of(address, "GET /api/v1/events/stream HTTP/1.0", &plain);
    assert!(status(&old) == 200 && !old.contains("transfer-encoding"), "{old}");
    let new = answer_of(address, "GET /api/v1/events/stream HTTP/1.1", &plain);
    assert!(status(&new) == 200 && new.contains("transfer-encoding: chunked\r\n"), "{new}");
}

#[test]
fn whoever_asks_for_the_head_of_a_stream_takes_no_seat() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let photon = runtime.block_on(Photon::start());
    let address = SocketAddr::from(([127, 0, 0, 1], photon.port()));
    let plain =
        [("Connection", ""), ("Upgrade", ""), ("Sec-WebSocket-Version", ""), ("Sec-WebSocket-Key", "")];
    // Kept open to the end.
    let (_connection, head) = ask(address, &self::head("HEAD /api/v1/events/stream HTTP/1.1", &plain));
    assert!(status(&head) == 200 && head.contains("content-type: text/event-stream\r\n"), "{head}");
    let metrics = runtime.block_on(photon.get("/metrics")).body;
    assert!(metrics.as_str().unwrap().contains("photon_streams_open 0\n"), "{metrics}");
}
