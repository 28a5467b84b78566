//! A read after an answer shows what the answer rests on, however far the views lag behind the log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use actors::aggregate_actor::{DispatchError, Receipt};
use actors::codec::{Metadata, understood};
use actors::effects::Periods;
use actors::gateway::{Order, stream_of};
use domain::Limits;
use domain::operation::{Command, Operation, Rejection, Status};
use events::faulty_log::{Fault, FaultyLog};
use events::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, MemoryLog, Options, Position,
    ReadError, Recorded, Since, SledLog, StreamId, Version,
};
use futures_util::future::join;
use futures_util::{FutureExt, StreamExt};
use support::{core, core_with, definition, id};

/// A log whose followers hear of each event a while after it happened.
struct Lagging(FaultyLog<MemoryLog>);

const LAG: Duration = Duration::from_millis(100);

impl EventLog for Lagging {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        self.0.append(append)
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.0.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.0.tail(after).then(|event| tokio::time::sleep(LAG).map(move |()| event)).boxed()
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.0.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.0.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.0.head()
    }
}

fn cancel() -> Order<Operation> {
    Order::of(Command::Cancel { by: "ops".into() }, Metadata::of_photon())
}

fn status(core: &Core) -> Option<Status> {
    core.projected.views.read().operations.find(&id(1)).map(|row| row.status)
}

async fn lagging() -> (Arc<Lagging>, Arc<Core>) {
    let log = Arc::new(Lagging(FaultyLog::scripted(Arc::new(MemoryLog::new()), [])));
    let core = core(log.clone() as Arc<dyn EventLog>).await;
    (log, core)
}

async fn create(core: &Core, number: u32) -> Receipt<Operation> {
    let command = Command::Create(Box::new(definition("n")));
    core.gateway.execute(&id(number), Order::of(command, Metadata::of_photon())).await.unwrap()
}

/// Waits until the views show everything that was answered so far, as a request does that looks at them.
async fn shown(core: &Core) {
    assert!(core.projected.shows(core.projected.answered()).await);
}

#[actix::test]
async fn a_command_is_answered_before_the_views_show_it_and_a_later_request_waits() {
    let (_, core) = lagging().await;
    let receipt = create(&core, 1).await;
    assert_eq!((status(&core), core.projected.position()), (None, Position::START));
    assert_eq!(core.projected.answered(), receipt.position.unwrap());
    shown(&core).await;
    assert_eq!(status(&core), Some(Status::InProgress));
    core.stop();
}

#[actix::test]
async fn a_repeated_creation_whose_first_answer_was_lost_is_there_to_be_read() {
    let (log, core) = lagging().await;
    log.0.then([Fault::LostAnswer]);
    let again = || Order::of(Command::Create(Box::new(definition("n"))), Metadata::of_photon());
    let lost = core.gateway.execute::<Operation>(&id(1), again()).await;
    assert!(matches!(lost, Err(DispatchError::OutcomeUnknown)));
    // Nobody was told anything of it, and yet a request that is sent again must find what it led to.
    let answered = core.projected.answered();
    assert!(answered > core.projected.position());
    let receipt = core.gateway.execute::<Operation>(&id(1), again()).await.unwrap();
    assert!(receipt.events.is_empty());
    shown(&core).await;
    assert_eq!(status(&core), Some(Status::InProgress));
    core.stop();
}

#[actix::test]
async fn what_repeats_anothers_wish_is_read_after_it() {
    let (_, core) = lagging().await;
    create(&core, 1).await;
    shown(&core).await;
    // The first has not been answered yet when the second comes.
    let one = id(1);
    let (first, second) =
        join(core.gateway.answer(&one, cancel()), core.gateway.answer(&one, cancel())).await;
    assert!(second.outcome.unwrap().events.is_empty());
    assert_eq!((second.rests_on, core.projected.answered()), (first.rests_on, first.rests_on));
    assert_eq!(status(&core), Some(Status::InProgress));
    shown(&core).await;
    assert_eq!(status(&core), Some(Status::Cancelled));
    core.stop();
}

#[actix::test]
async fn what_a_refusal_rests_on_is_read_after_it() {
    let (_, core) = lagging().await;
    create(&core, 1).await;
    let cancelled = core.gateway.answer(&id(1), cancel()).await;
    let start = Order::of(Command::Start, Metadata::of_photon());
    let refused = core.gateway.answer::<Operation>(&id(1), start).await;
    assert!(matches!(refused.outcome, Err(DispatchError::Rejected(Rejection::NotPending { .. }))));
    assert_eq!(refused.rests_on, cancelled.rests_on);
    shown(&core).await;
    assert_eq!(status(&core), Some(Status::Cancelled));
    core.stop();
}

#[actix::test]
async fn a_command_that_must_be_seen_is_back_when_it_is() {
    let (_, core) = lagging().await;
    create(&core, 1).await;
    core.gateway.execute_shown(&id(1), cancel()).await.unwrap();
    assert_eq!(status(&core), Some(Status::Cancelled));
    core.stop();
}

#[actix::test]
async fn a_change_of_a_revision_is_judged_by_the_aggregate_and_of_nothing_is_unknown() {
    let (_, core) = lagging().await;
    let version = create(&core, 1).await.version;
    let at = |version| Order::<Operation> { if_version: Some(vec![Version::new(99), version]), ..cancel() };
    let nothing = core.gateway.execute(&id(2), at(version)).await;
    assert!(matches!(nothing, Err(DispatchError::Rejected(Rejection::Unknown))));
    let other = core.gateway.execute(&id(1), at(version.next())).await;
    assert!(matches!(other, Err(DispatchError::OtherVersion { actual }) if actual == version));
    core.gateway.execute(&id(1), at(version)).await.unwrap();
    core.stop();
}

#[actix::test]
async fn a_request_waits_no_longer_than_it_may() {
    let log: Arc<dyn EventLog> = Arc::new(Lagging(FaultyLog::scripted(Arc::new(MemoryLog::new()), [])));
    let periods = Periods { views_wait_ms: 1, ..Periods::default() };
    let core = core_with(log, Limits::default(), periods).await;
    create(&core, 1).await;
    assert!(!core.projected.shows(core.projected.answered()).await);
    core.stop();
}

/// What travels beside the bytes is the very event that was decided; what is read has nothing beside it and
/// is decoded to the same.
async fn travels(log: Arc<dyn EventLog>) {
    let core = core(Arc::clone(&log)).await;
    let mut tail = log.tail(Position::START);
    let decided = create(&core, 1).await.events;
    let mut history = log.read(&stream_of::<Operation>(&id(1)), Since::BEGINNING);
    for event in &decided {
        let live = tail.next().await.unwrap().unwrap();
        let (known, metadata) = understood::<Operation>(&live).unwrap();
        assert!(Arc::ptr_eq(&known, event));
        let read = history.next().await.unwrap().unwrap();
        assert!(read.beside.is_none() && read == live);
        let decoded = understood::<Operation>(&read).unwrap();
        assert_eq!((&*decoded.0, &decoded.1), (&**event, &metadata));
    }
    core.stop();
}

#[actix::test]
async fn an_event_that_this_process_wrote_is_not_decoded_again() {
    travels(Arc::new(MemoryLog::new())).await;
    let folder = tempfile::tempdir().unwrap();
    travels(Arc::new(SledLog::open(folder.path(), Options::default()).unwrap())).await;
}
