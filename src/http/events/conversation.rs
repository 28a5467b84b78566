//! The conversation of a socket about events: what a client may say, and how it is answered.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use events::Position;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::body::parsed;
use super::super::error::{ApiError, Code};
use super::super::front::Reach;
use super::super::query::Parameters;
use super::super::socket::{self, CloseCode, Conversation, Heard, Inbox, Say};
use super::EventFeed;
use super::filter::{Filter, Wanted};
use super::telling::{self, Farewell, Telling, Told};

/// The subprotocol of this conversation.
pub const PROTOCOL: &str = "photon.v1";

/// What a client may say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// Turns to other events.
    Subscribe {
        #[serde(default)]
        filter: Wanted,
        #[serde(default)]
        after: Option<String>,
        /// The history that `after` is of.
        #[serde(default)]
        epoch: Option<String>,
    },
    /// Asks for a sign of life.
    Ping {},
}

/// A socket about events.
struct EventConversation {
    feed: Arc<EventFeed>,
    telling: Telling,
    /// Whether where the stream begins was said.
    subscribed: bool,
}

/// Opens a socket; the query is its first subscription.
///
/// # Errors
/// 400 for a query or a handshake that cannot be used, 503 when all seats are taken.
pub(super) async fn open(
    api: Reach,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let parameters = Parameters::of(&request, &["types", "operation", "agent", "after", "epoch"], &[])?;
    let filter = Filter::of(&parameters)?;
    super::check_epoch(&api.feed, parameters.get("epoch"))?;
    let after = super::begin(&api.feed, &filter, parameters.get_u64("after", 0..=u64::MAX)?).await?;
    let telling = Telling::new(&api.feed, &api.state, api.feed.seat()?, filter, after);
    let conversation = EventConversation { feed: Arc::clone(&api.feed), telling, subscribed: false };
    socket::open(&request, payload, PROTOCOL, api.websocket, conversation)
}

impl Conversation for EventConversation {
    async fn next(&mut self, inbox: &mut Inbox) -> Vec<Say> {
        tokio::select! {
            biased;
            heard = inbox.next() => self.answer(heard).await,
            told = self.telling.next() => self.say(told),
        }
    }
}

impl EventConversation {
    fn say(&mut self, told: Told) -> Vec<Say> {
        match told {
            Told::Events(events) => events.iter().map(|event| Say::Text(event.json())).collect(),
            Told::Bookmark(at, _) => {
                let kind = if self.subscribed { "bookmark" } else { "subscribed" };
                self.subscribed = true;
                vec![self.place(kind, at)]
            }
            Told::Gap(damage) => {
                let mut gap = telling::gap(&damage);
                gap["type"] = "gap".into();
                vec![said(&gap)]
            }
            // The socket sends pings of its own.
            Told::Beat => Vec::new(),
            Told::Bye(why, at) => {
                let bye = json!({"type": "bye", "reason": why.name(), "sequence": at.to_string()});
                let code = match why {
                    Farewell::Restarting => CloseCode::Restart,
                    Farewell::Failed => CloseCode::Failed,
                };
                vec![said(&bye), Say::Close(code)]
            }
        }
    }

    async fn answer(&mut self, heard: Heard) -> Vec<Say> {
        let answered = match heard {
            Heard::Binary(_) => Err(ApiError::new(Code::MalformedJson, "Send text, not binary frames.")),
            Heard::Text(text) => self.obey(&text).await,
        };
        match answered {
            Ok(answer) => vec![answer],
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// A mistake costs a stream nothing. Who asks for a place that is gone does not know where it is, and is
    /// told where it can begin again.
    fn refuse(&self, refusal: &ApiError) -> Vec<Say> {
        let mut error = json!({"type": "error", "code": refusal.code.slug(), "detail": refusal.message});
        if !matches!(refusal.code, Code::PositionCompacted | Code::EpochChanged) {
            return vec![said(&error)];
        }
        error["sequence"] = self.feed.log.marks().floor.position.to_string().into();
        vec![said(&error), Say::Close(CloseCode::Gone)]
    }

    /// Does what was asked.
    async fn obey(&mut self, text: &[u8]) -> Result<Say, ApiError> {
        let request: Request = parsed(text).map_err(|refusal| {
            let why = refusal.message.replacen("The body", "It", 1);
            let detail = format!(
                "The message is not understood. {why} Send such as {{\"type\":\"ping\"}} or \
                 {{\"type\":\"subscribe\",\"filter\":{{\"types\":[\"operation.*\"]}},\"after\":\"0\"}}."
            );
            ApiError::new(Code::MalformedJson, detail)
        })?;
        match request {
            Request::Ping {} => {
                Ok(said(&json!({"type": "pong", "sequence": self.telling.told().to_string()})))
            }
            Request::Subscribe { filter, after, epoch } => {
                super::check_epoch(&self.feed, epoch.as_deref())?;
                let filter = Filter::try_from(filter)?;
                let after = after.map(|text| sequence(&text)).transpose()?;
                let after = super::begin(&self.feed, &filter, after).await?;
                self.telling.turn_to(filter, after);
                self.subscribed = true;
                Ok(self.place("subscribed", after))
            }
        }
    }

    /// Says where in which history the stream is.
    fn place(&self, kind: &str, at: Position) -> Say {
        let mut place = telling::place(at, self.telling.epoch());
        place["type"] = kind.into();
        said(&place)
    }
}

fn sequence(text: &str) -> Result<u64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| {
        ApiError::invalid_parameter("after", "after must be the sequence of an event, in decimal digits.")
    })
}

fn said(message: &Value) -> Say {
    Say::Text(Bytes::from(message.to_string()))
}
