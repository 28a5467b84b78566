//! The AsyncAPI 3.0 document of the event streams: what may be said over them, and by whom. Names of events
//! come from the tables by which they are stored, so that the document cannot forget one.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use serde_json::{Value, json};
use utoipa::PartialSchema;

use crate::http::event_view::EventView;
use crate::http::events::PROTOCOL;
use crate::http::events::filter::known_types;

/// The document as JSON.
pub async fn asyncapi() -> HttpResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    HttpResponse::Ok().content_type("application/json").body(text.as_str())
}

fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Photon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The streams of events. REST is described by /openapi.json.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/api/v1/events",
                "title": "WebSocket",
                "description": format!(
                    "The query is the first subscription; a client that only reads gets one event in each \
                     text frame. Frames with `specversion` are events, all others have a `type`. \
                     Subprotocol {PROTOCOL}. Close codes: 1002, 1007 and 1009 for frames that break the \
                     rules, 1012 when the server restarts, 4408 when no ping was answered, 4429 for too many \
                     messages at a time, 4500 when the server failed."
                ),
                "bindings": {"ws": {"method": "GET", "query": filter_schema(false)}},
                "messages": references("messages", &[
                    "event", "subscribed", "bookmark", "gap", "pong", "error", "bye", "subscribe", "ping",
                ], "#/components/"),
            },
            "serverSentEvents": {
                "address": "/api/v1/events/stream",
                "title": "Server-sent events",
                "description": "The same events, with the same query; `id` is the sequence, `event` the \
                    type, and Last-Event-ID resumes, or lastEventId in the query. Without room for another \
                    stream the answer says when to come back (retry: 10000) and ends. The data of frames \
                    named bookmark, gap and bye are these messages without their `type`.",
                "messages": references("messages", &["event", "bookmark", "gap", "bye"], "#/components/"),
            },
        },
        "operations": operations(),
        "components": {"messages": messages(), "schemas": {"Event": event_schema()}},
    })
}

fn references(kind: &str, names: &[&str], under: &str) -> Value {
    let reference = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("{under}{kind}/{name}")}));
    Value::Object(names.iter().map(reference).collect())
}

fn operations() -> Value {
    let messages = |channel: &str, names: &[&str]| -> Vec<Value> {
        let one = |name: &&str| json!({"$ref": format!("#/channels/{channel}/messages/{name}")});
        names.iter().map(one).collect()
    };
    let told = ["event", "subscribed", "bookmark", "gap", "pong", "error", "bye"];
    json!({
        "tell": {
            "action": "send",
            "channel": {"$ref": "#/channels/socket"},
            "messages": messages("socket", &told),
        },
        "hear": {
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "messages": messages("socket", &["subscribe", "ping"]),
        },
        "stream": {
            "action": "send",
            "channel": {"$ref": "#/channels/serverSentEvents"},
            "messages": messages("serverSentEvents", &["event", "bookmark", "gap", "bye"]),
        },
    })
}

fn messages() -> Value {
    let control = |kind: &str, summary: &str, more: Value| {
        let mut properties = json!({"type": {"const": kind}});
        if let (Value::Object(all), Value::Object(more)) = (&mut properties, more) {
            all.extend(more);
        }
        json!({"summary": summary, "payload": {"type": "object", "properties": properties}})
    };
    let sequence = || json!({"sequence": {"type": "string", "pattern": "^[0-9]+$"}});
    let epoch = json!({"type": "string", "pattern": "^[0-9a-f]{32}$"});
    let place = || json!({"sequence": {"type": "string", "pattern": "^[0-9]+$"}, "epoch": epoch});
    let bye = json!({"sequence": {"type": "string"}, "reason": {"enum": ["restarting", "failed"]}});
    let gap = json!({
        "position": {"type": "string", "pattern": "^[0-9]+$"}, "generation": {"type": "integer"},
        "offset": {"type": "integer"}, "what": {"type": "string"},
    });
    let error = json!({
        "code": {"type": "string"}, "detail": {"type": "string"},
        "sequence": {"type": "string", "description": "begin again after it; the socket closes with 4410"},
    });
    let subscribe = json!({
        "filter": filter_schema(true), "after": {"type": "string", "pattern": "^[0-9]+$"}, "epoch": epoch,
    });
    json!({
        "event": {
            "summary": "What happened, as a CloudEvent 1.0.",
            "payload": {"$ref": "#/components/schemas/Event"},
        },
        "subscribed": control("subscribed", "Events of this history after this sequence follow.", place()),
        "bookmark": control("bookmark", "Everything up to this sequence was told.", place()),
        "gap": control("gap", "Everything whole of a damaged log was told; here is the damage.", gap),
        "pong": control("pong", "The answer to a ping.", sequence()),
        "error": control("error", "A message was refused; it changed nothing.", error),
        "bye": control("bye", "The last frame; resume after this sequence.", bye),
        "subscribe": control("subscribe", "Other events from now on, instead of those before.", subscribe),
        "ping": control("ping", "Asks for a sign of life.", json!({})),
    })
}

/// What may be asked for; over a socket the types are a list, in a query a text with commas.
fn filter_schema(socket: bool) -> Value {
    let types = if socket {
        json!({"type": "array", "maxItems": 64, "items": {"type": "string"}})
    } else {
        json!({"type": "string", "description": "such as operation.*,agent.timeout"})
    };
    let mut properties = json!({
        "types": types,
        "operation": {"type": "string", "description": "events of this operation"},
        "agent": {"type": "string", "description": "events of this agent"},
    });
    if !socket {
        properties["epoch"] = json!({
            "type": "string",
            "description": "the history that after is of; 410 when the log was restored since",
        });
        properties["after"] = json!({
            "type": "string",
            "description": "a sequence, exclusive; 0 is the beginning, without it only new events are told",
        });
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn event_schema() -> Value {
    let mut schema = serde_json::to_value(EventView::schema()).unwrap_or_default();
    schema["properties"]["type"]["examples"] = json!(known_types());
    schema
}
