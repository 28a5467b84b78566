//! A small client of event streams, both kinds with one face: what is said is checked against the form that
//! each kind prescribes, and an event is kept as the very text that came.
//! It must never read ahead of its caller by more than one read of the socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::PATIENCE;

/// The key of RFC 6455's own example, and what answers it.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Which of the two kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Socket,
    Sse,
}

/// What a stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An event: its place in the log, if it has one, and its JSON as it came.
    Event(Option<u64>, String),
    /// Anything else in JSON: its type, and the whole of it.
    Control(String, Value),
    /// A sign of life.
    Beat,
    /// The end: a socket's close code, or the regular end of server-sent events.
    End(Option<u16>),
}

/// An answer that is no stream; of server-sent events also one that only says when to come back.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Refusal {
    /// A header's value, trimmed; empty when there is none.
    pub fn header(&self, name: &str) -> String {
        header(&self.head, name).unwrap_or_default()
    }
}

/// How a stream is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub port: u16,
    pub way: Way,
    /// Without the question mark.
    pub query: String,
    pub headers: Vec<(&'static str, String)>,
    /// The kernel's buffer for what was not read yet.
    pub receive_buffer: Option<u32>,
}

impl Asked {
    pub fn new(port: u16, way: Way, query: impl Into<String>) -> Self {
        Self { port, way, query: query.into(), headers: Vec::new(), receive_buffer: None }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Opens the stream; a refusal fails the test.
    pub async fn open(&self) -> Stream {
        self.attempt().await.unwrap().unwrap()
    }

    /// Asks for the stream and expects that it is refused.
    pub async fn refused(&self) -> Refusal {
        match self.attempt().await.unwrap() {
            Ok(_) => panic!("{self:?} was not refused"),
            Err(refusal) => refusal,
        }
    }

    /// Asks for the stream.
    pub async fn attempt(&self) -> io::Result<Result<Stream, Refusal>> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let socket = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await?;
        socket.set_nodelay(true)?;
        let mut stream = Stream { way: self.way, socket, raw: Vec::new(), text: Vec::new(), over: false };
        stream.socket.write_all(self.request().as_bytes()).await?;
        let head = stream.head().await?;
        let status: u16 = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        match (self.way, status) {
            (Way::Socket, 101) => {
                assert_eq!(header(&head, "sec-websocket-accept").as_deref(), Some(KEY.1), "{head}");
            }
            (Way::Sse, 200) => {
                for (name, value) in [
                    ("content-type", "text/event-stream"),
                    ("cache-control", "no-store"),
                    ("x-accel-buffering", "no"),
                    ("transfer-encoding", "chunked"),
                ] {
                    assert_eq!(header(&head, name).as_deref(), Some(value), "{head}");
                }
                let body = stream.block().await?.unwrap_or_default();
                if body != "retry: 2000" {
                    assert_eq!(stream.block().await?, None, "nothing follows");
                    return Ok(Err(Refusal { status, head, body }));
                }
            }
            _ => {
                let length = header(&head, "content-length").and_then(|length| length.parse().ok());
                let body = stream.exactly(length.unwrap_or(0)).await?;
                let body = String::from_utf8(body).map_err(io::Error::other)?;
                return Ok(Err(Refusal { status, head, body }));
            }
        }
        Ok(Ok(stream))
    }

    fn request(&self) -> String {
        let path = match self.way {
            Way::Socket => "/api/v1/events",
            Way::Sse => "/api/v1/events/stream",
        };
        let mut request = format!("GET {path}?{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", self.query, self.port);
        if self.way == Way::Socket {
            request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            request += &format!("Sec-WebSocket-Key: {}\r\n", KEY.0);
        }
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        request + "\r\n"
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    way: Way,
    socket: TcpStream,
    /// What was read and not looked at yet.
    raw: Vec<u8>,
    /// Server-sent events with the chunks of HTTP taken off.
    text: Vec<u8>,
    /// Whether the last chunk was read.
    over: bool,
}

impl Stream {
    /// What the stream says next. An error when the connection breaks.
    pub async fn hear(&mut self) -> io::Result<Said> {
        match self.way {
            Way::Socket => self.message().await,
            Way::Sse => self.frame().await,
        }
    }

    /// What the stream says next, beside signs of life; fails the test when that takes too long.
    pub async fn next(&mut self) -> Said {
        loop {
            match tokio::time::timeout(PATIENCE, self.hear()).await {
                Ok(Ok(Said::Beat)) => {}
                Ok(said) => return said.unwrap(),
                Err(_) => panic!("the stream says nothing"),
            }
        }
    }

    /// The next event. Bookmarks, which come with the time, may stand before it; all else fails the test.
    pub async fn event(&mut self) -> (Option<u64>, String) {
        loop {
            match self.next().await {
                Said::Event(sequence, text) => return (sequence, text),
                Said::Control(kind, _) if kind == "bookmark" => {}
                other => panic!("no event but {other:?}"),
            }
        }
    }

    /// The sequence of the control message that comes next.
    pub async fn control(&mut self, kind: &str) -> u64 {
        match self.next().await {
            Said::Control(said, message) if said == kind => sequence_of(&message).unwrap(),
            other => panic!("no {kind} but {other:?}"),
        }
    }

    /// Where the stream begins, which it says first.
    pub async fn begun(&mut self) -> u64 {
        self.control(if self.way == Way::Socket { "subscribed" } else { "bookmark" }).await
    }

    /// Gives the kernel room for what was not read yet, for one that will read on.
    pub fn widen(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.socket, 4 << 20).unwrap();
    }

    /// Sends a text message over a socket.
    pub async fn say(&mut self, text: &str) {
        self.write(1, text.as_bytes()).await.unwrap();
    }

    async fn write(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(short @ 0..126) => frame.push(0x80 | short.to_be_bytes()[1]),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.socket.write_all(&frame).await
    }

    /// One message of a WebSocket. Photon sends each in one frame, and does not mask.
    async fn message(&mut self) -> io::Result<Said> {
        loop {
            let Some((header, length)) = frame_size(&self.raw) else {
                self.more().await?;
                continue;
            };
            if self.raw.len() < header + length {
                self.more().await?;
                continue;
            }
            let opcode = self.raw[0];
            let payload: Vec<u8> = self.raw.drain(..header + length).skip(header).collect();
            match opcode {
                0x81 => return Ok(said(String::from_utf8(payload).map_err(io::Error::other)?)),
                0x89 => {
                    self.write(10, &payload).await?;
                    return Ok(Said::Beat);
                }
                0x88 => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    // The server may have gone already.
                    let _ = self.write(8, &payload).await;
                    return Ok(Said::End(code));
                }
                other => panic!("an unexpected frame begins with {other:#x}"),
            }
        }
    }

    /// One frame of server-sent events.
    async fn frame(&mut self) -> io::Result<Said> {
        Ok(self.block().await?.map_or(Said::End(None), |block| framed(&block)))
    }

    /// The lines up to the next empty one; none at the end.
    async fn block(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).take(end).collect();
                return String::from_utf8(block).map(Some).map_err(io::Error::other);
            } else if self.over {
                assert!(self.text.is_empty(), "the stream ends within a frame");
                return Ok(None);
            } else if !self.unchunk() {
                self.more().await?;
            }
        }
    }

    /// Takes one chunk of HTTP out of what was read.
    fn unchunk(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") else { return false };
        let size = std::str::from_utf8(&self.raw[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if self.raw.len() < line + 2 + size + 2 {
            return false;
        }
        self.over = size == 0;
        self.text.extend(self.raw.drain(..line + 2 + size + 2).skip(line + 2).take(size));
        true
    }

    async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..end + 4).collect();
                return String::from_utf8(head).map_err(io::Error::other);
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.raw.len() < length {
            self.more().await?;
        }
        Ok(self.raw.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = self.socket.read_buf(&mut self.raw).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Waits until the server has ended the connection, whatever it still says.
    pub async fn ended(mut self) {
        let end = async {
            loop {
                self.raw.clear();
                if self.more().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), end).await.unwrap();
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// The sizes of a frame's header and payload, once the header is there.
fn frame_size(raw: &[u8]) -> Option<(usize, usize)> {
    match *raw.get(1)? {
        126 => Some((4, u16::from_be_bytes(raw.get(2..4)?.try_into().unwrap()).into())),
        127 => {
            let length = u64::from_be_bytes(raw.get(2..10)?.try_into().unwrap());
            Some((10, usize::try_from(length).unwrap()))
        }
        short => Some((2, short.into())),
    }
}

/// The number in a message's or an event's `sequence`.
pub fn sequence_of(message: &Value) -> Option<u64> {
    let text = message["sequence"].as_str()?;
    Some(text.parse().unwrap())
}

fn said(text: String) -> Said {
    let message: Value = serde_json::from_str(&text).unwrap();
    if message.get("specversion").is_some() {
        Said::Event(sequence_of(&message), text)
    } else {
        Said::Control(message["type"].as_str().unwrap().to_owned(), message)
    }
}

/// Reads a frame as a browser would, and holds its lines against the event within.
fn framed(frame: &str) -> Said {
    if frame == ":" {
        return Said::Beat;
    }
    let lines: Vec<(&str, &str)> = frame.split('\n').map(|line| line.split_once(": ").unwrap()).collect();
    let of = |name: &str| lines.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    let (event, data) = (of("event").unwrap(), of("data").unwrap());
    let message: Value = serde_json::from_str(data).unwrap();
    let sequence = sequence_of(&message);
    assert_eq!(of("id"), sequence.map(|number| number.to_string()).as_deref(), "{frame}");
    assert_eq!(lines.len(), 2 + usize::from(sequence.is_some()), "{frame}");
    if message.get("specversion").is_some() {
        assert_eq!(message["type"], event, "{frame}");
        return Said::Event(sequence, data.to_owned());
    }
    Said::Control(event.to_owned(), message)
}
