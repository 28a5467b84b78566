//! WebSockets: one actor for each connection, which owns frames, limits and closing (RFC 6455). What is said
//! over it is a [`Conversation`]. The only file that knows actix-web-actors.
//! It must never hold more than one turn of a conversation: the connection asks, and only then more is said.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, CloseReason, Message, ProtocolError, WebsocketContext};
use bytes::Bytes;
use futures_util::stream::LocalBoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::ApiError;
use assembly::Assembly;
use measured::Measured;

mod assembly;
mod handshake;
mod measured;

/// Largest message and largest frame, in bytes.
pub const MESSAGE_MAX: usize = 64 << 10;
/// Messages that wait for the conversation; a client that sends more before it is answered is cut off.
const INBOX_MAX: usize = 32;

/// How a socket finds out that its client is gone, although something between the two still acknowledges.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// Time between two pings.
    pub ping: Duration,
    /// A client that sends nothing for this long, not even a pong, is gone.
    pub pong_timeout: Duration,
}

/// What two ends say to each other over a socket.
pub trait Conversation: 'static {
    /// What the server says next, in one turn. Called again once the connection has taken the turn; dropped
    /// while it waits when the connection ends.
    fn next(&mut self, inbox: &mut Inbox) -> impl Future<Output = Vec<Say>>;
}

/// A whole message of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Valid UTF-8.
    Text(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

/// What the client has said and was not answered yet.
pub struct Inbox(mpsc::Receiver<Heard>);

impl Inbox {
    /// The next message; waits for one. May be dropped while it waits.
    pub async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Some(heard) => heard,
            // The socket is about to end, and this wait with it.
            None => std::future::pending().await,
        }
    }
}

/// Something to be said to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// A text message; must be UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// Nothing more.
    Close(CloseCode),
}

/// Why a socket is closed. Numbers: RFC 6455 and the registry of close codes; 4xxx are Photon's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// A frame breaks the protocol.
    Protocol,
    /// A text is not UTF-8.
    NotText,
    /// A message is larger than [`MESSAGE_MAX`].
    TooLarge,
    /// The server stops and will be back.
    Restart,
    /// What is asked for is no longer kept, or of another history.
    Gone,
    /// More messages than are answered.
    TooFast,
    /// Nothing was heard of the client, no pong either.
    Silent,
    /// The server failed.
    Failed,
}

impl CloseCode {
    const fn reason(self) -> (u16, &'static str) {
        match self {
            Self::Protocol => (1002, "a frame breaks the protocol"),
            Self::NotText => (1007, "a text message is not UTF-8"),
            Self::TooLarge => (1009, "a message may have 65536 bytes and 1000 fragments"),
            Self::Restart => (1012, "the server restarts; resume after the last sequence"),
            Self::Gone => (4410, "that place is gone; begin again after the sequence of the error"),
            Self::Silent => (4408, "no ping was answered; resume after the last sequence"),
            Self::TooFast => (4429, "too many messages at a time; wait for the answers"),
            Self::Failed => (4500, "the server failed; resume after the last sequence"),
        }
    }
}

/// Whether a request asks for a socket.
#[must_use]
pub fn is_asked_for(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|protocols| {
        protocols.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

/// Answers the handshake and begins a conversation.
///
/// # Errors
/// 400 for a handshake that RFC 6455 does not allow.
pub fn open<C: Conversation>(
    request: &HttpRequest,
    payload: web::Payload,
    protocol: &str,
    keep_alive: KeepAlive,
    conversation: C,
) -> Result<HttpResponse, ApiError> {
    handshake::check(request)?;
    let (heard, inbox) = mpsc::channel(INBOX_MAX);
    let (oversize, asked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let turns = stream::unfold((conversation, Inbox(inbox)), |(mut conversation, mut inbox)| async move {
        let said = conversation.next(&mut inbox).await;
        Some((said, (conversation, inbox)))
    });
    let turns = Paced { turns: turns.boxed_local(), asked: Rc::clone(&asked) };
    let socket = Socket {
        turns: Some(turns),
        heard,
        assembly: Assembly::default(),
        oversize: Rc::clone(&oversize),
        keep_alive,
        heard_at: Instant::now(),
    };
    let frames = Measured::new(payload, MESSAGE_MAX, oversize);
    let builder = ws::WsResponseBuilder::new(socket, request, frames);
    let protocols = [protocol];
    let builder = builder.protocols(&protocols).frame_size(MESSAGE_MAX);
    let response = builder.start().map_err(|fault| handshake::refused(&fault))?;
    Ok(response.map_body(|_, written| Asking { written, asked }.boxed()))
}

/// The actor of one connection.
struct Socket {
    /// Until the actor has started.
    turns: Option<Paced>,
    heard: mpsc::Sender<Heard>,
    assembly: Assembly,
    oversize: Rc<Cell<bool>>,
    keep_alive: KeepAlive,
    /// When the client was last heard.
    heard_at: Instant,
}

impl Actor for Socket {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(turns) = self.turns.take() {
            ctx.add_stream(turns);
        }
        ctx.run_interval(self.keep_alive.ping, |_, ctx| ctx.ping(b""));
        self.listen(ctx);
    }
}

impl Socket {
    /// Closes the socket when its client has been silent for too long, else looks again when it may have
    /// been.
    fn listen(&self, ctx: &mut WebsocketContext<Self>) {
        let left = self.keep_alive.pong_timeout.saturating_sub(self.heard_at.elapsed());
        if left.is_zero() {
            return close(ctx, CloseCode::Silent);
        }
        ctx.run_later(left, |socket, ctx| socket.listen(ctx));
    }
}

impl StreamHandler<Vec<Say>> for Socket {
    fn handle(&mut self, turn: Vec<Say>, ctx: &mut Self::Context) {
        for said in turn {
            match said {
                Say::Text(text) => match text.try_into() {
                    Ok(text) => ctx.write_raw(Message::Text(text)),
                    Err(_) => return close(ctx, CloseCode::Failed),
                },
                Say::Binary(bytes) => ctx.binary(bytes),
                Say::Close(code) => return close(ctx, code),
            }
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Socket {
    fn handle(&mut self, received: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        self.heard_at = Instant::now();
        let message = match received {
            Ok(Message::Ping(bytes)) => return ctx.pong(&bytes),
            Ok(Message::Pong(_) | Message::Nop) => return,
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                return ctx.stop();
            }
            Ok(Message::Text(text)) => Ok(Some(Heard::Text(text.into_bytes()))),
            Ok(Message::Binary(bytes)) => Ok(Some(Heard::Binary(bytes))),
            Ok(Message::Continuation(fragment)) => self.assembly.add(fragment),
            Err(_) if self.oversize.get() => Err(CloseCode::TooLarge),
            Err(fault) => Err(broken(&fault)),
        };
        match message {
            Ok(None) => {}
            Ok(Some(heard)) => {
                if self.heard.try_send(heard).is_err() {
                    close(ctx, CloseCode::TooFast);
                }
            }
            Err(code) => close(ctx, code),
        }
    }
}

/// actix-web-actors tells a text that is not UTF-8 as an input error of the kind `Other`, reserved bits as
/// `InvalidData`.
fn broken(fault: &ProtocolError) -> CloseCode {
    match fault {
        ProtocolError::Overflow => CloseCode::TooLarge,
        ProtocolError::Io(fault) if fault.kind() == io::ErrorKind::Other => CloseCode::NotText,
        _ => CloseCode::Protocol,
    }
}

fn close(ctx: &mut WebsocketContext<Socket>, code: CloseCode) {
    let (number, reason) = code.reason();
    ctx.close(Some(CloseReason { code: number.into(), description: Some(reason.into()) }));
    ctx.stop();
}

/// Lets one turn through each time the connection asks for more: whatever waits for a slow reader waits where
/// it came from.
struct Paced {
    turns: LocalBoxStream<'static, Vec<Say>>,
    asked: Rc<Cell<bool>>,
}

impl Stream for Paced {
    type Item = Vec<Say>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<Say>>> {
        // Whoever asks polls again, so that no waker is kept here.
        if !self.asked.get() {
            return Poll::Pending;
        }
        let turn = self.turns.poll_next_unpin(context);
        // A turn in which nothing is said leaves the connection waiting for one.
        let said = matches!(&turn, Poll::Ready(Some(said)) if !said.is_empty());
        self.asked.set(!said);
        turn
    }
}

/// The answer's body, which the connection polls only while it has room.
struct Asking {
    written: BoxBody,
    asked: Rc<Cell<bool>>,
}

impl MessageBody for Asking {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.written.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.asked.set(true);
        Pin::new(&mut self.written).poll_next(context)
    }
}
