//! Owns the end of a connection that gets no answer at all.
//! It must never decide which requests that happens to.
//!
//! An `EventSource` that gets any status but 200 never comes back; one whose connection ends does. Actix
//! drops a connection whose body fails, together with the head that it has not sent yet (`poll_response` in
//! actix-http 3.20).

use std::io;

use actix_web::HttpResponse;
use bytes::Bytes;
use futures_util::stream;

/// An answer of which no byte is sent: its connection is closed instead.
pub(super) fn unanswered() -> HttpResponse {
    let failed: io::Result<Bytes> = Err(io::ErrorKind::TimedOut.into());
    HttpResponse::ServiceUnavailable().streaming(stream::iter([failed]))
}

#[cfg(test)]
mod tests {
    use crate::http::guard::{Guard, Hosts, Phase, ServiceState, protect};
    use actix_web::{App, HttpServer, middleware::from_fn, web};
    use std::{net::SocketAddr, sync::Arc, time::Duration};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn asked(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn serve(state: &Arc<ServiceState>, patience: Duration) -> SocketAddr {
        let guard = Guard::new(Arc::clone(state), Hosts::loopback_and("localhost"), Duration::from_secs(5))
            .patient(|path| path == "/stream", patience);
        let guard = web::Data::new(guard);
        let make = move || {
            let answer = || web::get().to(async || "events");
            let app = App::new().app_data(guard.clone());
            app.route("/stream", answer()).route("/other", answer()).wrap(from_fn(protect))
        };
        let server = HttpServer::new(make).workers(1).bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.disable_signals().run());
        address
    }

    #[actix_web::test]
    async fn a_patient_path_waits_for_the_log_and_is_answered_while_the_process_ends() {
        let state = Arc::new(ServiceState::default());
        let address = serve(&state, Duration::from_secs(30));
        assert!(asked(address, "/other").await.starts_with("HTTP/1.1 503"));
        let held = actix_web::rt::spawn(asked(address, "/stream"));
        // Answered at once if it were answered in this phase, as the other one was.
        assert!(asked(address, "/other").await.starts_with("HTTP/1.1 503") && !held.is_finished());
        state.enter(Phase::Ready);
        assert!(held.await.unwrap().starts_with("HTTP/1.1 200"));
        state.enter(Phase::Draining);
        assert!(asked(address, "/stream").await.starts_with("HTTP/1.1 200"));
        assert!(asked(address, "/other").await.starts_with("HTTP/1.1 503"));
    }

    #[actix_web::test]
    async fn a_patient_path_whose_patience_is_over_gets_no_answer() {
        let address = serve(&Arc::default(), Duration::from_millis(20));
        assert_eq!(asked(address, "/stream").await, "");
    }
}
