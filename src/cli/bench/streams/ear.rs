//! Owns one socket that listens: the handshake, and what the server sends over it. It knows just enough of
//! WebSockets (RFC 6455) and of server-sent events over chunks (RFC 9112) to read what Photon writes.
//! It must never ask for anything again: what fails is a fault of the measurement.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::super::fault::Fault;
use super::board::Board;

/// How every event begins, and nothing else that a stream says.
const EVENT: &str = r#"{"specversion""#;
/// Any 16 bytes.
const KEY: &str = "cGhvdG9uLmJlbmNoLjAwMQ==";
const HEAD_MAX: usize = 16 << 10;

/// How events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    WebSocket,
    ServerSent,
}

/// One listening socket.
pub(super) struct Ear {
    stream: TcpStream,
    kind: Kind,
    /// The beginning of what is not whole yet.
    rest: Vec<u8>,
    /// The last event.
    last: u64,
}

impl Ear {
    /// Connects, and has the stream begin with the next event.
    pub(super) async fn open(address: SocketAddr, kind: Kind) -> Result<Self, Fault> {
        let mut stream = TcpStream::connect(address).await?;
        let (request, wanted) = match kind {
            Kind::WebSocket => (
                format!(
                    "GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
                ),
                "HTTP/1.1 101",
            ),
            Kind::ServerSent => {
                (format!("GET /api/v1/events/stream HTTP/1.1\r\nHost: {address}\r\n\r\n"), "HTTP/1.1 200")
            }
        };
        stream.write_all(request.as_bytes()).await?;
        let mut rest = Vec::new();
        let end = loop {
            if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if rest.len() > HEAD_MAX || stream.read_buf(&mut rest).await? == 0 {
                return Err(Fault::Protocol("a stream without a head"));
            }
        };
        if !rest.starts_with(wanted.as_bytes()) {
            return Err(Fault::Protocol("a stream was refused"));
        }
        let rest = rest[end..].to_vec();
        Ok(Self { stream, kind, rest, last: 0 })
    }

    /// Tells the board of every event; ends only with a fault.
    pub(super) async fn listen(mut self, board: Rc<Board>) -> Fault {
        loop {
            match poll_fn(|context| self.poll_read(context, &board)).await {
                Ok(true) => {}
                // A masked pong without a payload.
                Ok(false) => {
                    if let Err(fault) = self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await {
                        return fault.into();
                    }
                }
                Err(fault) => return fault,
            }
        }
    }

    /// Takes in what has come; false when the server wants a sign of life.
    fn poll_read(&mut self, context: &mut Context<'_>, board: &Board) -> Poll<Result<bool, Fault>> {
        let mut buffer = board.buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(Fault::Protocol("the server closed a stream")));
        }
        let mut silent = true;
        if self.rest.is_empty() {
            let used = self.take(read.filled(), board, &mut silent)?;
            self.rest.extend_from_slice(&read.filled()[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(read.filled());
            let used = self.take(&rest, board, &mut silent)?;
            self.rest.extend_from_slice(&rest[used..]);
        }
        Poll::Ready(Ok(silent))
    }

    /// Gives how many bytes were whole messages.
    fn take(&mut self, bytes: &[u8], board: &Board, silent: &mut bool) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let found = if self.kind == Kind::WebSocket { frame(rest)? } else { chunk(rest)? };
            let Some(Message { payload, len, is_ping }) = found else { return Ok(used) };
            *silent &= !is_ping;
            let text = std::str::from_utf8(payload).map_err(|_| Fault::Protocol("an event is no text"))?;
            let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
            for event in lines.filter(|line| line.starts_with(EVENT)) {
                let heard = board.hear(self.last, event);
                self.last = heard.ok_or(Fault::Protocol("an event without sequence or time"))?;
            }
            used += len;
        }
    }
}

/// One message, and how many bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) payload: &'a [u8],
    len: usize,
    is_ping: bool,
}

/// The frame at the start of some bytes; none while it is not whole. A server does not mask.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Message<'_>>, Fault> {
    let is_ping = match bytes.first() {
        Some(0x81) => false,
        Some(0x89) => true,
        Some(_) => return Err(Fault::Protocol("a frame that is neither text nor ping")),
        None => return Ok(None),
    };
    let (begin, len) = match bytes.get(1) {
        Some(126) => match bytes.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Ok(None),
        },
        Some(len @ 0..126) => (2, usize::from(*len)),
        Some(_) => return Err(Fault::Protocol("a frame of over 64 KiB")),
        None => return Ok(None),
    };
    let message = |payload| Message { payload, len: begin + len, is_ping };
    Ok(bytes.get(begin..begin + len).map(message))
}

/// The chunk at the start of some bytes; none while it is not whole.
pub(super) fn chunk(bytes: &[u8]) -> Result<Option<Message<'_>>, Fault> {
    let Some(begin) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
    let len = std::str::from_utf8(&bytes[..begin]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let len = len.filter(|len| (1..1 << 30).contains(len)).ok_or(Fault::Protocol("a stream has ended"))?;
    let begin = begin + 2;
    let whole = bytes.len() >= begin + len + 2;
    let message = || Message { payload: &bytes[begin..begin + len], len: begin + len + 2, is_ping: false };
    Ok(whole.then(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256]].concat();
        let cases: [(&[u8], usize); 3] = [(b"\x81\x02hi", 2), (&long, 256), (b"\x89\x00", 0)];
        for (bytes, len) in cases {
            assert_eq!(frame(bytes).unwrap().unwrap().payload.len(), len);
            assert!((0..bytes.len()).all(|end| frame(&bytes[..end]).unwrap().is_none()));
        }
        let bytes = b"a\r\n: nothing\n\r\n";
        assert_eq!(chunk(bytes).unwrap().unwrap().payload, b": nothing\n");
        assert!((0..bytes.len()).all(|end| chunk(&bytes[..end]).unwrap().is_none()));
    }

    #[test]
    fn the_end_of_a_stream_is_a_fault() {
        assert!(frame(&[0x88, 2, 3, 0xe8]).is_err());
        assert!(chunk(b"0\r\n\r\n").is_err());
    }
}
