//! The journal of the `system` stream: order, patience with a log that refuses, and what becomes of a note
//! that cannot be written.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::Arbiter;
use actors::clock::SystemClock;
use actors::codec::Stored;
use actors::system::{SystemJournal, stream};
use domain::system::{Event, Quarantined};
use events::faulty_log::{Fault, FaultyLog};
use events::{EventLog, MemoryLog, Since};
use futures_util::StreamExt;

const PATIENCE: Duration = Duration::from_secs(20);

fn event(number: usize) -> Event {
    Event::Quarantined(Quarantined { stream: format!("agent/{number}") })
}

fn journal(log: Arc<dyn EventLog>) -> SystemJournal {
    SystemJournal::start(log, Arc::new(SystemClock::start()), &Arbiter::current())
}

async fn written(log: &dyn EventLog) -> Vec<Event> {
    let read = |recorded: Result<Arc<events::Recorded>, _>| {
        let recorded = recorded.unwrap();
        Event::decode(&recorded.name, recorded.schema, &recorded.body).unwrap()
    };
    log.read(&stream(), Since::BEGINNING).map(read).collect().await
}

#[actix::test]
async fn notes_are_written_in_order_and_once_by_a_log_that_refuses_and_forgets_to_answer() {
    let log = Arc::new(MemoryLog::new());
    let script = [Fault::Overloaded, Fault::LostAnswer, Fault::LostAppend, Fault::None, Fault::Overloaded];
    let journal = journal(Arc::new(FaultyLog::scripted(Arc::clone(&log), script)));
    journal.note(&event(1));
    journal.note_all(&[event(2), event(3)]);
    assert!(journal.settled(PATIENCE).await);
    assert_eq!(written(&*log).await, [event(1), event(2), event(3)]);
    assert_eq!(journal.lost(), 0);
}

#[actix::test]
async fn a_note_that_is_refused_for_good_is_lost_and_counted_and_those_behind_it_are_written() {
    let log = Arc::new(MemoryLog::new());
    let journal = journal(Arc::new(FaultyLog::scripted(Arc::clone(&log), [Fault::Overloaded; 6])));
    journal.note_all(&[event(1), event(2)]);
    journal.note(&event(3));
    assert!(journal.settled(PATIENCE).await);
    assert_eq!((written(&*log).await, journal.lost()), (vec![event(3)], 2));
}

#[actix::test]
async fn nobody_waits_when_too_many_notes_wait() {
    let log = Arc::new(MemoryLog::new());
    let journal = journal(Arc::clone(&log) as Arc<dyn EventLog>);
    // The writer lives on this very thread: it gets nothing done meanwhile.
    for number in 0..1_000 {
        journal.note(&event(number));
    }
    assert!(journal.settled(PATIENCE).await);
    let written = written(&*log).await;
    assert_eq!(written.len() as u64 + journal.lost(), 1_000);
    assert!((1..1_000).contains(&written.len()) && written[0] == event(0));
}
