//! Facts of the domain as stored bytes and back. Written names and schema numbers are promises: they are
//! spelled out here, never derived. A body of another form gets another number, and from the first release on
//! the former one is read for ever; until now there is only one form of each.

use std::sync::Arc;

use bincode::Options;
use bytes::Bytes;
use domain::{Aggregate, agent::Agent, lane::Lane, operation::Operation, presence, system, work};
use events::{Beside, Recorded};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::kept::Kept;

/// No stored body is larger; checked when written, so that nothing is stored that cannot be read.
pub const BODY_MAX_BYTES: u64 = 8 << 20;

/// Why a stored event cannot be understood.
#[derive(Debug, Clone, Error)]
pub enum CodecError {
    /// This version of Photon does not know such an event.
    #[error("unknown event {name} with schema {schema}")]
    Unknown {
        /// Its written name.
        name: String,
        /// Its schema number.
        schema: u16,
    },
    /// The bytes are not of the form that the name and schema promise.
    #[error("event {name} with schema {schema} does not decode: {reason}")]
    Undecodable {
        /// Its written name.
        name: String,
        /// Its schema number.
        schema: u16,
        /// What the decoder said.
        reason: String,
    },
    /// The body exceeds [`BODY_MAX_BYTES`].
    #[error("event {name} is too large to be stored: {reason}")]
    TooLarge {
        /// Its written name.
        name: &'static str,
        /// What the encoder said.
        reason: String,
    },
}

/// An event ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its written name.
    pub name: &'static str,
    /// Its schema number.
    pub schema: u16,
    /// Its body.
    pub body: Bytes,
}

/// Something whose facts can be stored: an aggregate, or the system itself.
pub trait Stored {
    /// What is stored of it.
    type Fact: Send + Sync + 'static;

    /// Every (name, schema) that is written today.
    const WRITTEN: &'static [(&'static str, u16)];

    /// Turns a fact into bytes.
    ///
    /// # Errors
    /// When the body is too large to be read again.
    fn encode(fact: &Self::Fact) -> Result<Encoded, CodecError>;

    /// Turns bytes into a fact, by the schema they were written with.
    ///
    /// # Errors
    /// When the name or schema is unknown, or the bytes are not of its form.
    fn decode(name: &str, schema: u16, body: &[u8]) -> Result<Self::Fact, CodecError>;

    /// The body of a fact as JSON.
    fn json(fact: &Self::Fact) -> serde_json::Value;

    /// The written name of a fact.
    fn name(fact: &Self::Fact) -> &'static str;
}

/// An aggregate whose events can be stored: what an actor can be of.
pub trait Durable: Aggregate + Stored<Fact = <Self as Aggregate>::Event> + Kept {}

impl<A: Aggregate + Stored<Fact = <A as Aggregate>::Event> + Kept> Durable for A {}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(BODY_MAX_BYTES).reject_trailing_bytes()
}

fn to_bytes<T: Serialize>(name: &'static str, body: &T) -> Result<Bytes, CodecError> {
    let bytes = options().serialize(body);
    bytes.map(Bytes::from).map_err(|fault| CodecError::TooLarge { name, reason: fault.to_string() })
}

fn from_bytes<T: DeserializeOwned>(name: &str, schema: u16, body: &[u8]) -> Result<T, CodecError> {
    options().deserialize(body).map_err(|fault| CodecError::Undecodable {
        name: name.to_owned(),
        schema,
        reason: fault.to_string(),
    })
}

/// Lists the stored facts of something: variant, whether it has a body, written name, schema.
macro_rules! stored {
    ($owner:ty, $fact:path {
        $($variant:ident => $name:literal, $schema:literal;)*
        ; without body: $($bare:ident => $bare_name:literal, $bare_schema:literal;)*
    }) => {
        impl Stored for $owner {
            type Fact = $fact;

            const WRITTEN: &'static [(&'static str, u16)] =
                &[$(($name, $schema),)* $(($bare_name, $bare_schema),)*];

            fn encode(fact: &Self::Fact) -> Result<Encoded, CodecError> {
                use $fact as Fact;
                Ok(match fact {
                    $(Fact::$variant(body) => {
                        Encoded { name: $name, schema: $schema, body: to_bytes($name, body)? }
                    })*
                    $(Fact::$bare => {
                        Encoded { name: $bare_name, schema: $bare_schema, body: Bytes::new() }
                    })*
                })
            }

            fn decode(name: &str, schema: u16, body: &[u8]) -> Result<Self::Fact, CodecError> {
                use $fact as Fact;
                match (name, schema) {
                    $(($name, $schema) => from_bytes(name, schema, body).map(Fact::$variant),)*
                    $(($bare_name, $bare_schema) => Ok(Fact::$bare),)*
                    _ => Err(CodecError::Unknown { name: name.to_owned(), schema }),
                }
            }

            fn json(fact: &Self::Fact) -> serde_json::Value {
                use $fact as Fact;
                let body = match fact {
                    $(Fact::$variant(body) => serde_json::to_value(body),)*
                    $(Fact::$bare => Ok(serde_json::Value::Object(serde_json::Map::new())),)*
                };
                body.unwrap_or_default()
            }

            fn name(fact: &Self::Fact) -> &'static str {
                use $fact as Fact;
                match fact {
                    $(Fact::$variant(_) => $name,)*
                    $(Fact::$bare => $bare_name,)*
                }
            }
        }
    };
}

stored!(Operation, domain::operation::Event {
    Created => "operation.created", 1;
    Updated => "operation.updated", 1;
    Cancelled => "operation.cancelled", 1;
    Progressed => "operation.progressed", 1;
    Failed => "operation.failed", 1;
    StepReserved => "step.reserved", 1;
    StepOfferExpired => "step.offer_expired", 1;
    StepReleased => "step.released", 1;
    StepStarted => "step.started", 1;
    StepProgressed => "step.progressed", 1;
    StepCheckpointed => "step.checkpointed", 1;
    StepCompleted => "step.completed", 1;
    StepFailed => "step.failed", 1;
    StepRetryScheduled => "step.retry_scheduled", 1;
    StepLeaseLost => "step.lease_lost", 1;
    StepsSkipped => "steps.skipped", 1;
    StepsCancelled => "steps.cancelled", 1;
    Paused => "operation.paused", 1;
    Resumed => "operation.resumed", 1;
    StepApprovalRequested => "step.approval_requested", 1;
    StepApproved => "step.approved", 1;
    StepRejected => "step.rejected", 1;
    StepNeedsAttention => "step.needs_attention", 1;
    StepResolved => "step.resolved", 1;
    StepLimited => "step.limited", 1;
    LeaseClosed => "lease.closed", 1;
    ; without body:
    Started => "operation.started", 1;
    Completed => "operation.completed", 1;
});

/// Ends of operations, after which nothing begins again: for who must know that without reading the body.
pub const ENDS: [&str; 3] = ["operation.completed", "operation.failed", "operation.cancelled"];

/// Events that open leases, cut them short, and close them: for readers of those alone.
pub const LEASES: [&str; 3] = ["step.reserved", "steps.cancelled", "lease.closed"];

stored!(Agent, domain::agent::Event {
    Registered => "agent.registered", 1;
    Reregistered => "agent.reregistered", 1;
    Updated => "agent.updated", 1;
    StatusChanged => "agent.status_changed", 1;
    TimedOut => "agent.timeout", 1;
    ; without body:
    Unregistered => "agent.unregistered", 1;
});

stored!(Lane, domain::lane::Event {
    Parked => "lane.parked", 1;
    Opened => "lane.opened", 1;
    ; without body:
});

stored!(presence::Event, presence::Event {
    Seen => "agent.seen", 1;
    ; without body:
});

stored!(work::Event, work::Event {
    Carried => "work.carried", 1;
    ; without body:
});

stored!(system::Event, system::Event {
    Quarantined => "stream.quarantined", 1;
    HealthChanged => "system.health_changed", 1;
    Alert => "performance.alert", 1;
    Security => "security.event", 1;
    PoolScaled => "pool.scaled", 1;
    ; without body:
});

/// Checks that this program understands a stored event of any stream.
///
/// # Errors
/// When it does not.
pub fn check(category: &str, name: &str, schema: u16, body: &[u8]) -> Result<(), CodecError> {
    match category {
        Operation::CATEGORY => Operation::decode(name, schema, body).map(drop),
        Agent::CATEGORY => Agent::decode(name, schema, body).map(drop),
        Lane::CATEGORY => Lane::decode(name, schema, body).map(drop),
        work::CATEGORY => work::Event::decode(name, schema, body).map(drop),
        presence::CATEGORY => presence::Event::decode(name, schema, body).map(drop),
        system::CATEGORY => system::Event::decode(name, schema, body).map(drop),
        _ => Err(CodecError::Unknown { name: name.to_owned(), schema }),
    }
}

/// An event as this process knew it before it was encoded. It travels beside the bytes to the views and to
/// the feed, which need not decode it again.
struct Original<F> {
    fact: Arc<F>,
    metadata: Arc<Metadata>,
}

/// What travels beside the bytes of a fact. Whatever is decoded from those must be equal to it.
#[must_use]
pub fn beside<A: Stored>(fact: &Arc<A::Fact>, metadata: &Arc<Metadata>) -> Beside {
    let (fact, metadata) = (Arc::clone(fact), Arc::clone(metadata));
    Beside::of(Arc::new(Original::<A::Fact> { fact, metadata }))
}

/// A recorded fact and its metadata: as they were known before they were encoded, else decoded.
///
/// # Errors
/// As [`Stored::decode`].
pub fn understood<A: Stored>(recorded: &Recorded) -> Result<(Arc<A::Fact>, Arc<Metadata>), CodecError> {
    if let Some(original) = recorded.beside.get::<Original<A::Fact>>() {
        return Ok((Arc::clone(&original.fact), Arc::clone(&original.metadata)));
    }
    let fact = A::decode(&recorded.name, recorded.schema, &recorded.body)?;
    Ok((Arc::new(fact), Arc::new(Metadata::decode(&recorded.metadata))))
}

/// A key by which a caller may repeat a request: hashes, since the key itself is the caller's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyUse {
    /// Of caller, path and key.
    pub key: [u8; 16],
    /// Of the request's body.
    pub body: [u8; 16],
}

/// What is stored beside an event: who, why, and on whose behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Who asked, such as `anonymous` or `photon`.
    pub actor: String,
    /// The request that this belongs to.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The key by which the request may be repeated.
    pub key: Option<KeyUse>,
}

impl Metadata {
    /// Of something that Photon does by itself.
    #[must_use]
    pub fn of_photon() -> Self {
        Self { actor: "photon".into(), ..Self::default() }
    }

    /// The stored form. Empty when it cannot be stored, since it must never lose the event.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        to_bytes("metadata", self).unwrap_or_default()
    }

    /// Reads the stored form; a form that is not understood reads as empty.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        from_bytes("metadata", 1, bytes).unwrap_or_default()
    }
}
