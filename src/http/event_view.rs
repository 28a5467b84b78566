//! Stored events as CloudEvents 1.0 JSON. The same bytes wherever an event is shown.

use std::sync::Arc;

use actors::codec::{Metadata, Stored, understood};
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use domain::{Aggregate, Timestamp, presence, system, work};
use events::{Recorded, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::lease_names::LeaseNames;

/// An event: CloudEvents 1.0 with `sequence`, `revision` and who asked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// `1.0`.
    pub specversion: String,
    /// Unique.
    pub id: String,
    /// `/photon`.
    pub source: String,
    /// Its name, such as `step.completed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, such as `operation/op_…` or `agent/…`.
    pub subject: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// `application/json`.
    pub datacontenttype: String,
    /// Its place in the whole log; grows, may skip. Left out for an event that is not in the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sequence: String,
    /// Its place in the history of its subject. Left out for an event that is not in the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The request that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlationid: Option<String>,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causationid: Option<String>,
    /// Who asked.
    pub actor: String,
    /// What happened.
    #[schema(value_type = Object)]
    pub data: Value,
}

impl EventView {
    /// Shows a recorded event, with the names that leases have outside. One that is not understood is shown
    /// without its data, never left out.
    #[must_use]
    pub fn of(recorded: &Recorded, names: &LeaseNames) -> Self {
        let Understood { mut data, metadata } = understood_of(recorded);
        names.show(&mut data);
        Self {
            specversion: "1.0".into(),
            id: recorded.id.to_string(),
            source: "/photon".into(),
            kind: recorded.name.to_string(),
            subject: recorded.stream.to_string(),
            time: Timestamp::from_micros(recorded.time_us),
            datacontenttype: "application/json".into(),
            sequence: recorded.position.to_string(),
            revision: recorded.version.to_string(),
            correlationid: metadata.correlation_id.clone(),
            causationid: metadata.causation_id.clone(),
            actor: metadata.actor.clone(),
            data,
        }
    }

    /// Shows an event that passes by and is not in the log.
    #[must_use]
    pub fn passing(id: Uuid, kind: &str, subject: &StreamId, at: Timestamp, data: Value) -> Self {
        Self {
            specversion: "1.0".into(),
            id: id.to_string(),
            source: "/photon".into(),
            kind: kind.to_owned(),
            subject: subject.to_string(),
            time: at,
            datacontenttype: "application/json".into(),
            sequence: String::new(),
            revision: String::new(),
            correlationid: None,
            causationid: None,
            actor: "photon".into(),
            data,
        }
    }
}

/// What happened, as it is stored: without the names that leases have outside.
#[must_use]
pub fn data(recorded: &Recorded) -> Value {
    understood_of(recorded).data
}

/// What is shown of a body, and who asked.
struct Understood {
    data: Value,
    metadata: Arc<Metadata>,
}

fn understood_of(recorded: &Recorded) -> Understood {
    let shown = match recorded.stream.category() {
        Operation::CATEGORY => shown::<Operation>(recorded),
        Agent::CATEGORY => shown::<Agent>(recorded),
        Lane::CATEGORY => shown::<Lane>(recorded),
        work::CATEGORY => shown::<work::Event>(recorded),
        presence::CATEGORY => shown::<presence::Event>(recorded),
        system::CATEGORY => shown::<system::Event>(recorded),
        _ => None,
    };
    shown.unwrap_or_else(|| Understood {
        data: json!({"undecodable": true, "schema": recorded.schema}),
        metadata: Arc::new(Metadata::decode(&recorded.metadata)),
    })
}

fn shown<A: Stored>(recorded: &Recorded) -> Option<Understood> {
    let (event, metadata) = understood::<A>(recorded).ok()?;
    Some(Understood { data: A::json(&event), metadata })
}
