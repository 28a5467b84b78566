//! Owns the end of a connection whose request was answered before its body was read.
//! It must never read a byte on its own account.
//!
//! Actix drains a chunked body that nobody reads, at the sender's pace and without a deadline, so that a
//! refused request could hold its connection for ever. While anyone holds the payload it closes instead
//! (`should_close_for_unread_payload` in actix-http 3.20). So the answer's body holds it to the end.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::{HttpMessage, HttpResponse};
use bytes::Bytes;
use futures_util::Stream;

/// The request's payload, shared between the handler that may read it and the answer that holds it.
#[derive(Clone)]
pub(super) struct Unread(Rc<RefCell<Payload>>);

impl Unread {
    /// Puts a shared handle in the place of the payload. Nothing for a request without a body.
    pub(super) fn share(request: &mut ServiceRequest) -> Option<Self> {
        match request.take_payload() {
            Payload::None => None,
            payload => {
                let shared = Self(Rc::new(RefCell::new(payload)));
                request.set_payload(Payload::Stream { payload: Box::pin(shared.clone()) });
                Some(shared)
            }
        }
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}

struct Holding {
    body: BoxBody,
    _unread: Unread,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// The same answer, whose body holds the payload.
pub(super) fn held(response: HttpResponse, unread: Option<Unread>) -> HttpResponse {
    match unread {
        None => response,
        Some(unread) => response.map_body(|_, body| Holding { body, _unread: unread }.boxed()),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::guard::{Guard, Hosts, Phase, ServiceState, protect};
    use actix_web::{App, HttpResponse, HttpServer, middleware::from_fn, web};
    use std::{sync::Arc, time::Duration};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn echo(payload: web::Payload) -> HttpResponse {
        HttpResponse::SwitchingProtocols().upgrade("websocket").streaming(payload)
    }

    #[actix_web::test]
    async fn an_upgraded_connection_flows_both_ways_until_its_client_goes() {
        let state = Arc::new(ServiceState::default());
        state.enter(Phase::Ready);
        let hosts = Hosts::loopback_and("localhost");
        let guard = web::Data::new(Guard::new(state, hosts, Duration::from_millis(50)));
        let make = move || {
            App::new().app_data(guard.clone()).route("/echo", web::get().to(echo)).wrap(from_fn(protect))
        };
        let server = HttpServer::new(make).workers(1).bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.disable_signals().run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head =
            "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        for word in ["one", "two", "three"] {
            // Longer in all than the deadline of a request: an open stream is none.
            tokio::time::sleep(Duration::from_millis(30)).await;
            stream.write_all(word.as_bytes()).await.unwrap();
            let reading = async {
                while !String::from_utf8_lossy(&seen).ends_with(word) {
                    assert_ne!(
                        stream.read_buf(&mut seen).await.unwrap(),
                        0,
                        "{}",
                        String::from_utf8_lossy(&seen)
                    );
                }
            };
            tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap();
        }
        assert!(String::from_utf8_lossy(&seen).starts_with("HTTP/1.1 101"));
        stream.shutdown().await.unwrap();
        let ending = stream.read_to_end(&mut seen);
        tokio::time::timeout(Duration::from_secs(5), ending).await.unwrap().unwrap();
        handle.stop(false).await;
    }
}
