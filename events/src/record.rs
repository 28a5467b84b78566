//! Owns the two shapes of an event: as offered to the log, and as recorded by it.
//! Must never look into a body; what it means is the caller's business.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::stream::{Position, StreamId, Version};

/// The identity of one event. Offering the same ids again adds nothing (clause 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// Wraps a uuid; the caller chooses which kind.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The plain uuid.
    #[must_use]
    pub const fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a caller lets travel beside an event's bytes to the readers of this process, so that they need not
/// decode what it has just encoded. It is no part of the event: it is not stored, and makes no two events
/// differ.
#[derive(Clone, Default)]
pub struct Beside(Option<Arc<dyn Any + Send + Sync>>);

impl Beside {
    /// Nothing.
    pub const NONE: Self = Self(None);

    /// This value.
    #[must_use]
    pub fn of<T: Any + Send + Sync>(value: Arc<T>) -> Self {
        Self(Some(value))
    }

    /// The value, if there is one of this type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone()?.downcast().ok()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Beside {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Beside {}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "nothing" } else { "something" })
    }
}

/// An event as it is offered to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Chosen by the caller, once per event and for ever.
    pub id: EventId,
    /// The written name, such as `agent.registered`: 1 to 100 characters of `[A-Za-z0-9._-]`.
    pub name: Cow<'static, str>,
    /// The number of the body's format.
    pub schema: u16,
    /// Microseconds since 1970 UTC. The log stores the later of this and the previous event's time (P6).
    pub time_us: i64,
    /// Bytes about the event: who, why, on whose behalf.
    pub metadata: Bytes,
    /// The event itself.
    pub body: Bytes,
    /// What travels to the live readers of this process.
    pub beside: Beside,
}

/// An event as the log recorded it.
///
/// `metadata` and `body` may be slices of a larger shared buffer (up to about 1 MiB): whoever keeps them for
/// long should copy them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// As offered.
    pub id: EventId,
    /// The stream that the event belongs to.
    pub stream: StreamId,
    /// The event's number within its stream.
    pub version: Version,
    /// The event's place in the whole log.
    pub position: Position,
    /// As offered; shared between events of the same name.
    pub name: Arc<str>,
    /// As offered.
    pub schema: u16,
    /// Microseconds since 1970 UTC; never less than that of any event before.
    pub time_us: i64,
    /// As offered.
    pub metadata: Bytes,
    /// As offered.
    pub body: Bytes,
    /// As offered, when the event was written by this process and comes from the live end of the log; an
    /// event that was read has nothing beside it.
    pub beside: Beside,
}
