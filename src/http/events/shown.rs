//! Owns an event in the form that every reader gets: its JSON, made once and shared.
//! It must never be changed after it was made.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use domain::Timestamp;
use events::live::Placed;
use events::{Position, Recorded, StreamId};
use serde_json::Value;
use uuid::Uuid;

use super::super::event_view::EventView;
use super::super::lease_names::LeaseNames;

/// An event as JSON, within the frame in which server-sent events carry it.
#[derive(Debug)]
pub struct Shown {
    /// Its place in the log; [`Position::START`] for one that only passes by.
    pub position: Position,
    /// What it is about.
    pub stream: StreamId,
    /// Its type.
    pub name: Arc<str>,
    frame: Bytes,
    json: Range<usize>,
}

impl Shown {
    /// An event of the log.
    #[must_use]
    pub fn of(recorded: &Recorded, names: &LeaseNames) -> Self {
        let view = EventView::of(recorded, names);
        Self::framed(&view, recorded.position, &recorded.stream, &recorded.name)
    }

    /// An event that passes by and is not in the log.
    #[must_use]
    pub fn passing(name: &str, stream: &StreamId, at: Timestamp, data: Value) -> Self {
        let view = EventView::passing(Uuid::now_v7(), name, stream, at, data);
        Self::framed(&view, Position::START, stream, &Arc::from(name))
    }

    fn framed(view: &EventView, position: Position, stream: &StreamId, name: &Arc<str>) -> Self {
        let mut frame = Vec::with_capacity(640);
        if position > Position::START {
            frame.extend_from_slice(format!("id: {position}\n").as_bytes());
        }
        frame.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
        let start = frame.len();
        // JSON text holds no line feed, so that one `data` line carries it whole.
        if let Err(fault) = serde_json::to_writer(&mut frame, view) {
            tracing::error!(%fault, %position, "an event cannot be shown");
        }
        let json = start..frame.len();
        frame.extend_from_slice(b"\n\n");
        Self { position, stream: stream.clone(), name: Arc::clone(name), frame: frame.into(), json }
    }

    /// The event as JSON.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.json.clone())
    }

    /// The event as a frame of server-sent events.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }
}

impl Placed for Shown {
    fn position(&self) -> Position {
        self.position
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.frame.len()
    }
}
