//! Owns the writing of what Photon notes by itself, in the order in which it was noted: facts about itself,
//! in the `system` stream, and traces of agents that were heard, in one stream per day. It must never make
//! anybody wait, and never decide what is worth a note.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::ArbiterHandle;
use domain::presence;
use domain::system::{CATEGORY, Event};
use events::{Append, AppendError, Beside, EventId, EventLog, Expected, NewEvent, Refusal, StreamId};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::clock::Clock;
use crate::codec::{Metadata, Stored};

/// Counts facts that were not recorded.
pub const NOTES_LOST_TOTAL: &str = "photon_system_notes_lost_total";

/// Notes that wait for the log; each is one append.
const WAITING_MAX: usize = 256;
/// So often a note is offered to a log that is overloaded or does not say whether it wrote.
const OFFERS_MAX: u32 = 6;
/// The waits between two offers, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

enum Order {
    Write(StreamId, Vec<NewEvent>),
    /// Answered when all before is written or given up.
    Settle(oneshot::Sender<()>),
}

/// Where facts about Photon itself are noted.
pub struct SystemJournal {
    clock: Arc<dyn Clock>,
    orders: mpsc::Sender<Order>,
    lost: Arc<AtomicU64>,
}

/// The only stream of its category.
#[must_use]
pub fn stream() -> StreamId {
    StreamId::lossy(CATEGORY, CATEGORY)
}

impl SystemJournal {
    /// Begins to write, on this arbiter.
    #[must_use]
    pub fn start(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>, arbiter: &ArbiterHandle) -> Self {
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let writing = write_all(log, waiting, Arc::clone(&lost));
        // Without its arbiter the process is about to end; then every note is lost, and said to be.
        arbiter.spawn(writing);
        Self { clock, orders, lost }
    }

    /// Notes one fact, now. Never waits: when too many wait already, it is lost, which is logged.
    pub fn note(&self, event: &Event) {
        self.note_all(std::slice::from_ref(event));
    }

    /// Notes several facts as one append.
    pub fn note_all(&self, events: &[Event]) {
        self.note_in::<Event>(stream(), events);
    }

    /// Notes that an agent was seen, in the stream of the day.
    pub fn note_presence(&self, event: &presence::Event) {
        let stream = StreamId::lossy(presence::CATEGORY, &presence::day(self.clock.now()));
        self.note_in::<presence::Event>(stream, std::slice::from_ref(event));
    }

    fn note_in<S: Stored>(&self, stream: StreamId, facts: &[S::Fact]) {
        let (time_us, metadata) = (self.clock.now().as_micros(), Metadata::of_photon().encode());
        let mut notes = Vec::with_capacity(facts.len());
        for fact in facts {
            match S::encode(fact) {
                Ok(encoded) => notes.push(NewEvent {
                    id: EventId::new(Uuid::now_v7()),
                    name: encoded.name.into(),
                    schema: encoded.schema,
                    time_us,
                    metadata: metadata.clone(),
                    body: encoded.body,
                    beside: Beside::NONE,
                }),
                Err(fault) => lose(&self.lost, &[S::name(fact)], &fault),
            }
        }
        if notes.is_empty() {
            return;
        }
        if let Err(refused) = self.orders.try_send(Order::Write(stream, notes)) {
            let names: Vec<&str> = facts.iter().map(S::name).collect();
            lose(&self.lost, &names, &refused);
        }
    }

    /// Waits until what was noted so far is written or given up. False when that took too long.
    pub async fn settled(&self, deadline: Duration) -> bool {
        let settle = async {
            let (answer, settled) = oneshot::channel();
            self.orders.send(Order::Settle(answer)).await.is_ok() && settled.await.is_ok()
        };
        tokio::time::timeout(deadline, settle).await.unwrap_or(false)
    }

    /// Facts that were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn write_all(log: Arc<dyn EventLog>, mut waiting: mpsc::Receiver<Order>, lost: Arc<AtomicU64>) {
    while let Some(order) = waiting.recv().await {
        match order {
            Order::Settle(answer) => {
                // Whoever asked may have given up.
                let _ = answer.send(());
            }
            Order::Write(stream, events) => {
                let append = Append { stream, expected: Expected::Any, events };
                if let Err(fault) = write(&*log, &append).await {
                    let names: Vec<&str> = append.events.iter().map(|event| &*event.name).collect();
                    lose(&lost, &names, &fault);
                }
            }
        }
    }
}

/// Offers it until it is written. A full disk is waited for, since what happened then is what somebody will
/// want to read; the queue behind is bounded.
async fn write(log: &dyn EventLog, append: &Append) -> Result<(), AppendError> {
    let (mut offers, mut wait) = (1, FIRST_WAIT);
    loop {
        match log.append(append.clone()).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Refused { reason: Refusal::StorageFull }) => {}
            // The same ids again add nothing if they were written after all.
            Err(AppendError::Overloaded | AppendError::OutcomeUnknown) if offers < OFFERS_MAX => offers += 1,
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn lose(lost: &AtomicU64, names: &[&str], fault: &dyn std::fmt::Display) {
    lost.fetch_add(names.len() as u64, Ordering::Relaxed);
    tracing::error!(events = names.join(","), %fault, "facts about the system were not recorded");
}
