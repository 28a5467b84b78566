//! The socket code of the product under a test-only echo conversation, against raw frames: what Autobahn's
//! test suite asks in its cases 1 to 7, 9 and 10, and what it does not ask: lengths that are only stated,
//! limits, handshakes. Each case states what must come back.
//!
//! Autobahn's own suite (PyPI, Python 2.7) runs against the same route: `cargo test --test streams -- \
//! --ignored an_echo_for_autobahn`, then `wstest -m fuzzingclient`. What is left out, here and there:
//! - 12 and 13, compression: no extension is ever negotiated.
//! - 9.1.2-6, 9.2.2-6, 9.3, 9.4, 9.5, 9.6: their messages have 256 KiB and more, and the limit is 64 KiB.
//! - 3.2-4, 4.1.3-5, 4.2.3-5 and 5.15 would like a message echoed that comes in one piece with a broken
//!   frame; the close comes first.
//! - 6.4.3 and 6.4.4 want a text refused before its frame is whole: it is refused once the frame is whole.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod client;
mod handshake;

use crate::support;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use photon::http::error::ApiError;
use photon::http::guard::{Guard, Hosts, Phase, ServiceState, protect};
use photon::http::socket::{self, Conversation, Heard, Inbox, KeepAlive, Say};

/// The subprotocol of the echo.
const PROTOCOL: &str = "echo.v1";

struct Echo;

impl Conversation for Echo {
    async fn next(&mut self, inbox: &mut Inbox) -> Vec<Say> {
        vec![match inbox.next().await {
            Heard::Text(text) => Say::Text(text),
            Heard::Binary(bytes) => Say::Binary(bytes),
        }]
    }
}

async fn echo(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let keep_alive = KeepAlive { ping: Duration::from_secs(20), pong_timeout: Duration::from_secs(60) };
    socket::open(&request, payload, PROTOCOL, keep_alive, Echo)
}

/// Serves the echo behind the product's guard until the process ends.
fn serve(address: &str, phase: Phase) -> SocketAddr {
    let (told, heard) = mpsc::channel();
    let address = address.to_owned();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let state = Arc::new(ServiceState::default());
            state.enter(phase);
            let guard = Guard::new(state, Hosts::loopback_and("localhost"), Duration::from_secs(30));
            let guard = web::Data::new(guard);
            let make = move || {
                App::new().app_data(guard.clone()).route("/echo", web::get().to(echo)).wrap(from_fn(protect))
            };
            let server = HttpServer::new(make).workers(1).disable_signals().bind(address).unwrap();
            told.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    heard.recv().unwrap()
}

/// One echo for all the tests.
fn address() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| serve("127.0.0.1:0", Phase::Ready))
}

#[test]
#[ignore = "serves until it is ended, for Autobahn's test suite"]
fn an_echo_for_autobahn() {
    let address = std::env::var("PHOTON_ECHO").unwrap_or_else(|_| "127.0.0.1:9001".into());
    println!("ws://{}/echo", serve(&address, Phase::Ready));
    loop {
        std::thread::park();
    }
}
