//! A socket whose client is gone although something between the two still acknowledges what is sent to it: it
//! answers no ping, and is closed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use support::Photon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HASTY: &str = "[websocket]\nping_ms = 100\npong_timeout_ms = 600\n[limits]\nmax_streams = 1\n";
/// A masked pong without a payload.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// Opens a socket about events of which there are none.
async fn open(photon: &Photon) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", photon.port())).await.unwrap();
    let head = "GET /api/v1/events?types=stream.quarantined HTTP/1.1\r\nHost: localhost\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    stream
}

/// The next frame of the server, all of which are short here; none at the end of the connection.
async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first =
        tokio::time::timeout(support::PATIENCE, stream.read_u8()).await.expect("a frame in time").ok()?;
    let length = stream.read_u8().await.ok()?;
    assert!(length < 126, "{length}");
    let mut payload = vec![0; usize::from(length)];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_and_its_seat_is_free() {
    let photon = Photon::configured(HASTY).await;
    let mut silent = open(&photon).await;
    let (begun, mut pings) = (Instant::now(), 0);
    let closed = loop {
        match frame(&mut silent).await.expect("a close before the end") {
            (PING, _) => pings += 1,
            (CLOSE, payload) => break payload,
            _ => {}
        }
    };
    assert_eq!(u16::from_be_bytes([closed[0], closed[1]]), 4408, "{}", String::from_utf8_lossy(&closed[2..]));
    assert!(begun.elapsed() >= Duration::from_millis(550) && pings >= 2, "{pings} in {:?}", begun.elapsed());
    while frame(&mut silent).await.is_some() {}
    let metrics = async || photon.get("/metrics").await.expect(200).body.as_str().unwrap().to_owned();
    while !metrics().await.contains("photon_streams_open 0\n") {
        assert!(begun.elapsed() < support::PATIENCE, "the seat is still taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    open(&photon).await;
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let photon = Photon::configured(HASTY).await;
    let mut lively = open(&photon).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        match frame(&mut lively).await.expect("the connection stays open") {
            (PING, _) => lively.write_all(&PONG).await.unwrap(),
            (first, payload) => assert_ne!(first, CLOSE, "{payload:?}"),
        }
    }
}
