//! Lives and deaths of actors: a panic ends one actor and no other; too many end in quarantine; rest
//! is no death; a log that lies about an append never makes an answer a lie.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::aggregate_actor::DispatchError;
use actors::codec::Stored;
use actors::gateway::stream_of;
use actors::past::Seen;
use actors::recovery::{Recovered, recover};
use domain::operation::Operation;
use domain::system;
use events::faulty_log::{Fault, FaultyLog};
use events::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, MemoryLog, Position, ReadError,
    Recorded, Since, StreamId, Version,
};
use futures_util::{FutureExt, StreamExt};
use support::{core, create, id, rename, until};
use tokio::sync::Semaphore;

#[actix::test]
async fn a_panic_ends_one_actor_which_comes_back_with_its_state() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(Arc::clone(&log)).await;
    create(&core, 1).await;
    create(&core, 2).await;
    rename(&core, 1, "before").await.unwrap();
    core.gateway.sabotage(&id(1));
    until(|| core.supervisor.deaths() == 1).await;
    assert_eq!(rename(&core, 2, "undisturbed").await.unwrap(), 3);
    assert_eq!(rename(&core, 1, "after").await.unwrap(), 4);
    let Seen { state: operation, revision, .. } = core.operation(&id(1)).await.unwrap().unwrap();
    assert_eq!((revision, operation.definition.name.as_str()), (4, "after"));
    assert!(core.supervisor.quarantined().is_empty());
    core.stop();
}

#[actix::test]
async fn too_many_deaths_end_in_quarantine_which_is_recorded() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(Arc::clone(&log)).await;
    create(&core, 1).await;
    create(&core, 2).await;
    for death in 1..=5 {
        // Each life needs a birth.
        rename(&core, 1, &format!("life {death}")).await.unwrap();
        core.gateway.sabotage(&id(1));
        until(|| core.supervisor.deaths() == death).await;
    }
    assert!(matches!(rename(&core, 1, "x").await, Err(DispatchError::Quarantined)));
    assert_eq!(rename(&core, 2, "undisturbed").await.unwrap(), 3);
    assert_eq!(core.supervisor.quarantined(), [stream_of::<Operation>(&id(1))]);
    assert!(core.system.settled(Duration::from_secs(10)).await);
    let recorded = log.read(&actors::system::stream(), Since::BEGINNING).next().await.unwrap().unwrap();
    let told = system::Event::decode(&recorded.name, recorded.schema, &recorded.body).unwrap();
    let stream = stream_of::<Operation>(&id(1)).to_string();
    assert_eq!(told, system::Event::Quarantined(system::Quarantined { stream }));
    // It is still there for readers.
    assert!(core.operation(&id(1)).await.unwrap().is_some());
    core.stop();
}

#[actix::test]
async fn idle_actors_rest_without_dying_and_wake_with_their_state() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(log).await;
    for number in 0..50 {
        create(&core, number).await;
    }
    until(|| core.gateway.actors() == 0).await;
    assert_eq!(core.supervisor.deaths(), 0);
    assert_eq!(rename(&core, 7, "woken").await.unwrap(), 3);
    core.stop();
}

#[actix::test]
async fn commands_that_wait_together_are_decided_one_after_the_other() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(log).await;
    create(&core, 1).await;
    let renames = (0..200).map(|number| {
        let core = Arc::clone(&core);
        async move { rename(&core, 1, &format!("n{number}")).await.unwrap() }
    });
    let mut versions = futures_util::future::join_all(renames).await;
    versions.sort_unstable();
    assert_eq!(versions, (3..203).collect::<Vec<u64>>());
    core.stop();
}

#[actix::test]
async fn what_readers_see_is_what_the_log_folds_to() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(Arc::clone(&log)).await;
    create(&core, 1).await;
    for round in 0..20 {
        let version = rename(&core, 1, &format!("n{round}")).await.unwrap();
        let Seen { state: shown, revision, .. } = core.operation(&id(1)).await.unwrap().unwrap();
        assert_eq!(revision, version);
        let stream = stream_of::<Operation>(&id(1));
        let folded = recover::<Operation>(&*log, &stream, Recovered::default(), &|_| true).await.unwrap();
        assert_eq!(folded.state.unwrap().definition, shown.definition);
    }
    core.stop();
}

#[actix::test]
async fn a_lost_answer_is_an_unknown_outcome_and_the_log_is_asked_what_happened() {
    let inner = Arc::new(MemoryLog::new());
    let log = Arc::new(FaultyLog::scripted(inner, []));
    let core = core(log.clone() as Arc<dyn EventLog>).await;
    create(&core, 1).await;
    log.then([Fault::LostAnswer]);
    assert!(matches!(rename(&core, 1, "happened").await, Err(DispatchError::OutcomeUnknown)));
    assert_eq!(rename(&core, 1, "happened").await.unwrap(), 3);
    log.then([Fault::LostAppend]);
    assert!(matches!(rename(&core, 1, "did not").await, Err(DispatchError::OutcomeUnknown)));
    assert_eq!(rename(&core, 1, "did not").await.unwrap(), 4);
    let Seen { state: operation, revision, .. } = core.operation(&id(1)).await.unwrap().unwrap();
    assert_eq!((revision, operation.definition.name.as_str()), (4, "did not"));
    core.stop();
}

#[actix::test]
async fn an_overloaded_log_refuses_and_leaves_nothing_behind() {
    let inner = Arc::new(MemoryLog::new());
    let log = Arc::new(FaultyLog::scripted(inner, []));
    let core = core(log.clone() as Arc<dyn EventLog>).await;
    create(&core, 1).await;
    log.then([Fault::Overloaded]);
    assert!(matches!(rename(&core, 1, "x").await, Err(DispatchError::Overloaded)));
    let Seen { state: operation, revision, .. } = core.operation(&id(1)).await.unwrap().unwrap();
    assert_eq!((revision, operation.definition.name.as_str()), (2, "n"));
    assert_eq!(rename(&core, 1, "x").await.unwrap(), 3);
    core.stop();
}

#[actix::test]
async fn a_conflict_is_decided_again_on_the_newer_state() {
    let inner = Arc::new(MemoryLog::new());
    let log = Arc::new(FaultyLog::scripted(inner, []));
    let core = core(log.clone() as Arc<dyn EventLog>).await;
    create(&core, 1).await;
    log.then([Fault::Conflict(Version::new(2)), Fault::Conflict(Version::new(2))]);
    assert_eq!(rename(&core, 1, "again").await.unwrap(), 3);
    core.stop();
}

/// A log that takes its time while nobody may pass.
struct Gated {
    log: Arc<MemoryLog>,
    gate: Arc<Semaphore>,
    appends: AtomicUsize,
}

async fn pass(gate: Arc<Semaphore>) {
    let _passed = gate.acquire().await.unwrap();
}

impl EventLog for Gated {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let (log, gate) = (Arc::clone(&self.log), Arc::clone(&self.gate));
        // It is not taken back by whoever does not wait for the answer.
        let appending = actix::spawn(async move {
            pass(gate).await;
            log.append(append).await
        });
        appending.map(|appended| appended.unwrap_or(Err(AppendError::OutcomeUnknown))).boxed()
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.log.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.log.tail(after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.log.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.log.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        pass(Arc::clone(&self.gate)).then(|()| self.log.head()).boxed()
    }
}

#[actix::test]
async fn who_follows_an_actor_that_rests_while_its_append_is_under_way_knows_of_it() {
    let gate = Arc::new(Semaphore::new(1));
    let log = Arc::new(Gated { log: Arc::new(MemoryLog::new()), gate, appends: AtomicUsize::new(0) });
    let core = core(Arc::clone(&log) as Arc<dyn EventLog>).await;
    create(&core, 1).await;
    let closed = log.gate.acquire().await.unwrap();
    let before = log.appends.load(Ordering::SeqCst);
    // Whoever asked goes away, and then nobody uses the actor.
    let mut asking = Box::pin(rename(&core, 1, "another"));
    while log.appends.load(Ordering::SeqCst) == before {
        assert!(futures_util::poll!(&mut asking).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(asking);
    core.gateway.rest_idle(core.around.clock.now(), 0);
    // On a state without that append there would be nothing to do.
    let back = rename(&core, 1, "n");
    let (back, ()) = tokio::join!(back, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(closed);
    });
    assert_eq!(back.unwrap(), 4);
    core.stop();
}
