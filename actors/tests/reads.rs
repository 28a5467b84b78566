//! A read after an answer shows what the answer rests on, however far the views lag behind the log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use actors::aggregate_actor::DispatchError;
use actors::codec::Metadata;
use actors::gateway::Order;
use domain::operation::{Command, Operation, Rejection, Status};
use events::faulty_log::{Fault, FaultyLog};
use events::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, MemoryLog, Position, ReadError,
    Recorded, Since, StreamId,
};
use futures_util::{FutureExt, StreamExt};
use support::{core, create, definition, id};

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

#[actix::test]
async fn a_repeated_creation_whose_first_answer_was_lost_is_there_to_be_read() {
    let (log, core) = lagging().await;
    log.0.then([Fault::LostAnswer]);
    let again = || Order::of(Command::Create(Box::new(definition("n"))), Metadata::of_photon());
    let lost = core.gateway.execute::<Operation>(&id(1), again()).await;
    assert!(matches!(lost, Err(DispatchError::OutcomeUnknown)));
    let receipt = core.gateway.execute::<Operation>(&id(1), again()).await.unwrap();
    assert!(receipt.events.is_empty());
    assert_eq!(status(&core), Some(Status::InProgress));
    core.stop();
}

#[actix::test]
async fn what_repeats_anothers_wish_is_read_after_it() {
    let (_, core) = lagging().await;
    create(&core, 1).await;
    // The first has not been answered yet when the second comes.
    core.gateway.execute_unseen::<Operation>(&id(1), cancel()).await.unwrap();
    assert_eq!(status(&core), Some(Status::InProgress));
    let receipt = core.gateway.execute::<Operation>(&id(1), cancel()).await.unwrap();
    assert!(receipt.events.is_empty());
    assert_eq!(status(&core), Some(Status::Cancelled));
    core.stop();
}

#[actix::test]
async fn what_a_refusal_rests_on_is_read_after_it() {
    let (_, core) = lagging().await;
    create(&core, 1).await;
    core.gateway.execute_unseen::<Operation>(&id(1), cancel()).await.unwrap();
    let start = Order::of(Command::Start, Metadata::of_photon());
    let refused = core.gateway.execute::<Operation>(&id(1), start).await;
    assert!(matches!(refused, Err(DispatchError::Rejected(Rejection::NotPending { .. }))));
    assert_eq!(status(&core), Some(Status::Cancelled));
    core.stop();
}
