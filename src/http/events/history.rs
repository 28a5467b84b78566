//! Owns pages of history, oldest or newest first. It must never wait for what has not happened yet.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::recovery::RecoveryError;
use events::{Position, Recorded, Since, StreamId};
use futures_util::StreamExt;

use super::EventFeed;
use super::filter::Filter;
use super::reader::Reader;
use super::shown::Shown;
use crate::http::error::ApiError;

/// Looks for one page, of 256 events at most; a filter that finds fewer gets a cursor to go on from.
const LOOKS_MAX: usize = 400;
/// How far a page of the newest events looks back.
const LOOKED_BACK_MAX: u64 = 20_000;
/// Bytes of events on one page, beyond its first event.
pub(super) const PAGE_BYTES_MAX: usize = 4 << 20;

/// One page of history, and where the next one begins.
#[derive(Default)]
pub(super) struct Found {
    pub(super) events: Vec<Arc<Shown>>,
    /// The last place that was looked at, if more may follow.
    pub(super) resume: Option<u64>,
}

/// A page that is being filled.
#[derive(Default)]
struct Sheet {
    events: Vec<Arc<Shown>>,
    bytes: usize,
}

impl Sheet {
    /// Whether the event found room.
    fn add(&mut self, event: &Arc<Shown>, limit: usize) -> bool {
        self.bytes += event.frame().len();
        let room = self.events.len() < limit && (self.bytes <= PAGE_BYTES_MAX || self.events.is_empty());
        if room {
            self.events.push(Arc::clone(event));
        }
        room
    }

    /// A full page; the next begins behind its last event.
    fn full(self) -> Found {
        let resume = self.events.last().map(|last| last.position.get());
        Found { events: self.events, resume }
    }
}

/// Wanted events after `start` up to and including `head`, oldest first.
pub(super) async fn forwards(
    feed: &Arc<EventFeed>,
    filter: &Filter,
    start: Position,
    head: Position,
    limit: usize,
) -> Result<Found, ApiError> {
    let mut reader = Reader::of_log(feed, filter.clone(), start);
    let mut sheet = Sheet::default();
    for _ in 0..LOOKS_MAX {
        if reader.cursor() >= head {
            return Ok(Found { events: sheet.events, resume: None });
        }
        for event in reader.take().await.map_err(RecoveryError::from)? {
            if event.position > head {
                return Ok(Found { events: sheet.events, resume: None });
            }
            if !sheet.add(&event, limit) {
                return Ok(sheet.full());
            }
        }
    }
    Ok(Found { events: sheet.events, resume: Some(reader.cursor().get()) })
}

/// Wanted events after `floor` up to and including `end`, newest first.
pub(super) async fn backwards(
    feed: &Arc<EventFeed>,
    filter: &Filter,
    floor: Position,
    end: Position,
    limit: usize,
) -> Result<Found, ApiError> {
    match filter.stream() {
        Some(stream) => newest_of(feed, filter, stream, floor, end, limit).await,
        None => newest(feed, filter, floor, end, limit).await,
    }
}

/// Reads the stream and keeps what is newest.
async fn newest_of(
    feed: &Arc<EventFeed>,
    filter: &Filter,
    stream: &StreamId,
    floor: Position,
    end: Position,
    limit: usize,
) -> Result<Found, ApiError> {
    let mut kept: VecDeque<Arc<Recorded>> = VecDeque::new();
    let (mut bytes, mut older) = (0, false);
    let mut history = feed.log.read(stream, Since::Position(floor));
    while let Some(recorded) = history.next().await {
        let recorded = recorded.map_err(RecoveryError::from)?;
        if recorded.position > end {
            break;
        }
        if !filter.admits(&recorded.stream, &recorded.name) {
            continue;
        }
        bytes += recorded.body.len();
        kept.push_back(recorded);
        while kept.len() > limit || (bytes > PAGE_BYTES_MAX && kept.len() > 1) {
            bytes -= kept.pop_front().map_or(0, |oldest| oldest.body.len());
            older = true;
        }
    }
    let mut sheet = Sheet::default();
    for recorded in kept.iter().rev() {
        if !sheet.add(&Arc::new(Shown::of(recorded, &feed.names)), limit) {
            older = true;
            break;
        }
    }
    Ok(if older { sheet.full() } else { Found { events: sheet.events, resume: None } })
}

/// Reads growing windows backwards, since positions may skip.
async fn newest(
    feed: &Arc<EventFeed>,
    filter: &Filter,
    floor: Position,
    end: Position,
    limit: usize,
) -> Result<Found, ApiError> {
    let mut sheet = Sheet::default();
    let (floor, mut end) = (floor.get(), end.get());
    let (mut window, mut looked_back) = (limit as u64 * 2, 0);
    while end > floor {
        let start = end.saturating_sub(window).max(floor);
        let found = forwards(feed, filter, Position::new(start), Position::new(end), usize::MAX).await?;
        if found.resume.is_some() && window > 1 {
            // Too much for one look: a smaller one is enough, and one event always fits.
            window /= 2;
            continue;
        }
        for event in found.events.iter().rev() {
            if !sheet.add(event, limit) {
                return Ok(sheet.full());
            }
        }
        looked_back += window;
        end = start;
        if looked_back >= LOOKED_BACK_MAX && end > floor {
            return Ok(Found { events: sheet.events, resume: Some(end.saturating_add(1)) });
        }
        window = (window * 2).min(LOOKED_BACK_MAX);
    }
    Ok(Found { events: sheet.events, resume: None })
}
