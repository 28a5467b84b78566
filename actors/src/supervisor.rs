//! Deaths of actors and what follows: wait longer each time, then quarantine. Ending because idle is
//! no death. Never touches a state: a new actor is always built from the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use domain::Timestamp;
use domain::system::{Event, Quarantined};
use events::StreamId;
use parking_lot::Mutex;

use crate::aggregate_actor::Surroundings;
use crate::projections::{Fault, Projected};
use crate::system::SystemJournal;

/// So many deaths within the window end in quarantine.
pub const DEATHS_MAX: usize = 5;
/// The window, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;
const BACKOFF_FIRST_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 5_000;
/// Streams whose deaths are remembered; older records are dropped first when there are more.
const REMEMBERED_MAX: usize = 10_000;

/// Whether a stream's actor may be born now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// It never died lately.
    Free,
    /// It died: its predecessor's append may still be queued.
    Again,
    /// It died: wait so many milliseconds.
    After(u64),
    /// It died too often.
    Never,
}

#[derive(Debug, Default)]
struct Deaths {
    times: Vec<Timestamp>,
    not_before: Timestamp,
    quarantined: bool,
}

/// Held by an actor that all others depend on: if it ends before its time, the core cannot go on.
pub struct Vital {
    name: &'static str,
    projected: Arc<Projected>,
    supervisor: Arc<Supervisor>,
    may_end: bool,
}

impl Vital {
    /// For the actor of this name.
    #[must_use]
    pub fn new(name: &'static str, projected: &Arc<Projected>, supervisor: &Arc<Supervisor>) -> Self {
        Self { name, projected: Arc::clone(projected), supervisor: Arc::clone(supervisor), may_end: false }
    }

    /// The actor ends on purpose.
    pub fn may_end(&mut self) {
        self.may_end = true;
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.may_end && !self.supervisor.stopping.load(Ordering::Relaxed) {
            tracing::error!(actor = self.name, "an actor that all depend on has ended");
            self.projected.fail(Fault::Ended(self.name));
        }
    }
}

/// Keeps the record of deaths.
pub struct Supervisor {
    around: Arc<Surroundings>,
    system: Arc<SystemJournal>,
    records: Mutex<HashMap<StreamId, Deaths>>,
    stopping: AtomicBool,
    deaths: AtomicU64,
}

impl Supervisor {
    /// Without any record; notes quarantines in this journal.
    #[must_use]
    pub fn new(around: Arc<Surroundings>, system: Arc<SystemJournal>) -> Self {
        Self {
            around,
            system,
            records: Mutex::default(),
            stopping: AtomicBool::new(false),
            deaths: AtomicU64::new(0),
        }
    }

    /// From now on the end of an actor is no death: the process stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Deaths since the start.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    /// Streams that are out of service.
    #[must_use]
    pub fn quarantined(&self) -> Vec<StreamId> {
        let records = self.records.lock();
        let out = records.iter().filter(|(_, record)| record.quarantined);
        out.map(|(stream, _)| stream.clone()).collect()
    }

    /// Whether this stream's actor may be born.
    #[must_use]
    pub fn birth(&self, stream: &StreamId) -> Birth {
        let records = self.records.lock();
        let Some(record) = records.get(stream) else { return Birth::Free };
        let now = self.around.clock.now();
        if record.quarantined {
            Birth::Never
        } else if now < record.not_before {
            Birth::After(record.not_before.ms_since(now) + 1)
        } else {
            Birth::Again
        }
    }

    /// Records the death of an actor. False while the process stops: then its end is no death.
    pub fn died(&self, stream: &StreamId) -> bool {
        if self.stopping.load(Ordering::Relaxed) {
            return false;
        }
        self.deaths.fetch_add(1, Ordering::Relaxed);
        let now = self.around.clock.now();
        let mut records = self.records.lock();
        forget_old(&mut records, now);
        let record = records.entry(stream.clone()).or_default();
        record.times.retain(|time| now.ms_since(*time) < WINDOW_MS);
        record.times.push(now);
        let doublings = u32::try_from(record.times.len() - 1).unwrap_or(u32::MAX);
        let wait_ms = BACKOFF_FIRST_MS.saturating_mul(2_u64.saturating_pow(doublings)).min(BACKOFF_MAX_MS);
        record.not_before = now.plus_ms(wait_ms);
        record.quarantined = record.times.len() >= DEATHS_MAX;
        tracing::error!(%stream, deaths = record.times.len(), wait_ms, "an actor died");
        if record.quarantined {
            // Best effort: the quarantine itself does not depend on it.
            self.system.note(&Event::Quarantined(Quarantined { stream: stream.to_string() }));
        }
        true
    }
}

fn forget_old(records: &mut HashMap<StreamId, Deaths>, now: Timestamp) {
    if records.len() >= REMEMBERED_MAX {
        let recent = |record: &Deaths| record.times.iter().any(|time| now.ms_since(*time) < WINDOW_MS);
        records.retain(|_, record| record.quarantined || recent(record));
    }
}
