//! A client that sends whatever bytes it is told to, and a case that says what must come back.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Cases at a time: the server lingers on each connection after its close, for its client to read it.
const AT_A_TIME: usize = 32;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The last, or only, fragment.
pub(crate) const FIN: u8 = 0x80;

/// A frame of the server: its first byte and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame(pub(crate) u8, pub(crate) Vec<u8>);

/// A header that states this length, with the mask's bit.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..=65_535 => {
            header.push(0x80 | 126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header.extend_from_slice(&MASK);
    header
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A close frame with a code and a reason.
pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// What must come of a case.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// These messages and pongs, and then the socket still closes in order.
    Lives(Vec<Frame>),
    /// A close frame with this code, and the end of the connection. What was right before it may be answered.
    Closed(u16),
    /// A close frame without a code, and the end of the connection.
    ClosedBare,
}

/// Bytes, and what must come of them.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    name: String,
    sent: Vec<u8>,
    chop: usize,
    outcome: Outcome,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, frames: &[Vec<u8>], outcome: Outcome) -> Self {
        Self { name: name.into(), sent: frames.concat(), chop: usize::MAX, outcome }
    }

    /// The same case, sent in pieces of this many bytes.
    pub(crate) fn chopped(&self, chop: usize) -> Self {
        Self { name: format!("{} in chops of {chop}", self.name), chop, ..self.clone() }
    }

    fn fault(&self) -> Option<String> {
        let mut client = Client::open();
        client.send(&self.sent, self.chop);
        let fault = match &self.outcome {
            Outcome::Lives(expected) => client.lives(expected),
            Outcome::Closed(code) => client.ends_with(&code.to_be_bytes()),
            Outcome::ClosedBare => client.ends_with(&[]),
        };
        fault.err().map(|fault| format!("{}: {fault}", self.name))
    }
}

/// Runs cases, each over a socket of its own, and fails with all that went wrong.
pub(crate) fn run(cases: &[Case]) {
    let share = cases.len().div_ceil(AT_A_TIME).max(1);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let faults_of = |share: &[Case]| share.iter().filter_map(Case::fault).collect::<Vec<_>>();
        let threads = cases.chunks(share).map(|share| scope.spawn(move || faults_of(share)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    println!("{} cases", cases.len());
}

/// Sends a request's head and gives the connection and the answer's head.
pub(crate) fn ask(address: std::net::SocketAddr, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1..) => answer.push(byte[0]),
            ended => panic!("{ended:?} after {}", String::from_utf8_lossy(&answer)),
        }
    }
    (stream, String::from_utf8(answer).unwrap())
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    fn open() -> Self {
        let (stream, head) = ask(super::address(), &super::handshake::head("GET /echo HTTP/1.1", &[]));
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self { stream, unread: Vec::new() }
    }

    /// The server may end the connection before it has read everything.
    fn send(&mut self, bytes: &[u8], chop: usize) {
        for piece in bytes.chunks(chop) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    /// The next frame; nothing at the end of the connection.
    fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some((frame, length)) = parse(&self.unread)? {
                self.unread.drain(..length);
                return Ok(Some(frame));
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) if self.unread.is_empty() => return Ok(None),
                Ok(0) => return Err("the connection ends within a frame".into()),
                Ok(length) => self.unread.extend_from_slice(&piece[..length]),
                Err(fault) if fault.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(fault) => return Err(format!("nothing comes: {fault}")),
            }
        }
    }

    /// Pongs and messages each come in their order; between them there is none.
    fn lives(&mut self, expected: &[Frame]) -> Result<(), String> {
        let is_control = |frame: &&Frame| frame.0 & 0x08 != 0;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.push(self.next()?.ok_or("the connection ended")?);
        }
        for wanted in [true, false] {
            let of = |frames: &[Frame]| {
                let frames = frames.iter().filter(|frame| is_control(frame) == wanted);
                frames.cloned().collect::<Vec<_>>()
            };
            if of(&seen) != of(expected) {
                return Err(format!("came {}, expected {}", shown(&seen), shown(expected)));
            }
        }
        self.send(&close(1000, b""), usize::MAX);
        self.ends_with(&1000_u16.to_be_bytes())
    }

    fn ends_with(&mut self, code: &[u8]) -> Result<(), String> {
        loop {
            match self.next()? {
                Some(Frame(first, payload)) if first == FIN | CLOSE => {
                    if payload.get(..2).unwrap_or(&payload) != code {
                        return Err(format!("closed with {payload:?}, expected {code:?}"));
                    }
                    return match self.next()? {
                        None => Ok(()),
                        Some(more) => Err(format!("after the close came {}", shown(&[more]))),
                    };
                }
                Some(_) => {}
                None => return Err("the connection ended without a close frame".into()),
            }
        }
    }
}

fn shown(frames: &[Frame]) -> String {
    let shown = frames.iter().map(|Frame(first, payload)| {
        let begin = String::from_utf8_lossy(&payload[..payload.len().min(24)]).into_owned();
        format!("{first:#x} of {} bytes {begin:?}", payload.len())
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
}

/// A whole frame and how many bytes it took. A server masks nothing.
fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err("the server masks".into());
    }
    let wide = |length: usize| bytes.get(2..2 + length).map(|wide| (2 + length, wide));
    let (begin, length) = match second {
        126 => match wide(2) {
            Some((begin, wide)) => (begin, u16::from_be_bytes(wide.try_into().unwrap()) as usize),
            None => return Ok(None),
        },
        127 => match wide(8) {
            Some((begin, wide)) => (begin, u64::from_be_bytes(wide.try_into().unwrap()) as usize),
            None => return Ok(None),
        },
        short => (2, short as usize),
    };
    let payload = bytes.get(begin..begin + length);
    Ok(payload.map(|payload| (Frame(first, payload.to_vec()), begin + length)))
}
