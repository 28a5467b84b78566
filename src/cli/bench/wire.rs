//! Owns the bytes between this client and a server: one keep-alive HTTP/1.1 connection, one request at a
//! time. It must never retry: what fails is a fault of the measurement.
//!
//! Why not the client that the other commands use: client and server share the machine, and a client for
//! every purpose would take more of it than the server that is measured. This one knows exactly what the
//! server sends: a status, a length, a body.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fault::Fault;

/// Longest wait for an answer: more than the longest long poll.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest head of an answer, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// Largest body of an answer, in bytes.
const BODY_MAX: usize = 4 << 20;
/// How much of a refusal is shown, in bytes.
const SHOWN_MAX: usize = 300;

/// One connection to a server.
pub(super) struct Wire {
    stream: TcpStream,
    host: String,
    received: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    /// How long it is.
    body_len: usize,
}

impl Wire {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), received: Vec::with_capacity(8 << 10) })
    }

    /// The bytes of a POST with this body.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, Fault> {
        self.with_body("POST", path, body)
    }

    /// The bytes of a request with this body.
    pub(super) fn with_body(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Vec<u8>, Fault> {
        let body = serde_json::to_vec(body).map_err(|_| Fault::Protocol("a body is no JSON"))?;
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// The bytes of a request without a body.
    pub(super) fn plain(&self, method: &str, path: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).into_bytes()
    }

    /// Sends a request and gives the body of its answer, which must have the status that is wanted.
    pub(super) async fn exchange(&mut self, request: &[u8], wanted: u16) -> Result<&[u8], Fault> {
        self.stream.write_all(request).await?;
        let head = match timeout(PATIENCE, self.receive()).await {
            Ok(received) => received?,
            Err(_) => return Err(Fault::Stuck("an answer took longer than a minute")),
        };
        let body = &self.received[head.body..head.body + head.body_len];
        if head.status == wanted {
            return Ok(body);
        }
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let shown = &body[..body.len().min(SHOWN_MAX)];
        Err(Fault::Status {
            what: String::from_utf8_lossy(line).into_owned(),
            status: head.status,
            body: String::from_utf8_lossy(shown).into_owned(),
        })
    }

    /// Posts a body and gives the answer's `data`.
    pub(super) async fn call(
        &mut self,
        path: &str,
        body: &impl Serialize,
        wanted: u16,
    ) -> Result<Value, Fault> {
        let request = self.post(path, body)?;
        let answer = self.exchange(&request, wanted).await?;
        let mut answer: Value =
            serde_json::from_slice(answer).map_err(|_| Fault::Protocol("the body is no JSON"))?;
        Ok(answer.get_mut("data").map(Value::take).unwrap_or_default())
    }

    async fn receive(&mut self) -> Result<Head, Fault> {
        self.received.clear();
        loop {
            if let Some(head) = Head::of(&self.received)? {
                let end = head.body + head.body_len;
                if self.received.len() == end {
                    return Ok(head);
                }
                if self.received.len() > end {
                    return Err(Fault::Protocol("more came than was asked for"));
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(Fault::Protocol("the server closed the connection"));
            }
        }
    }
}

impl Head {
    /// The head at the start of some bytes; none while it is not complete.
    fn of(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() > HEAD_MAX {
                Err(Fault::Protocol("a head without an end"))
            } else {
                Ok(None)
            };
        };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Fault::Protocol("a head is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or(Fault::Protocol("no status"))?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let body_len = length.filter(|length| *length <= BODY_MAX);
        let body_len = body_len.ok_or(Fault::Protocol("no length, or one over 4 MiB"))?;
        Ok(Some(Self { status, body: end + 4, body_len }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-LENGTH: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(
            Head::of(answer).unwrap(),
            Some(Head { status: 201, body: answer.len() - 2, body_len: 2 })
        );
        assert_eq!(Head::of(&answer[..30]).unwrap(), None);
    }

    #[test]
    fn what_this_client_does_not_speak_is_a_fault() {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
        ];
        for answer in answers {
            assert!(Head::of(answer).is_err());
        }
        assert!(Head::of(&[b'x'; HEAD_MAX + 1]).is_err());
    }
}
