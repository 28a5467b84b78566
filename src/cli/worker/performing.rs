//! Owns one step from its grant to its report. A result must never get lost because the server is away: it
//! is reported until the server answers or the lease is lost.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::command::{self, Outcome};
use super::session::{Order, Session};
use crate::client::{Client, ClientError};
use crate::http::agent_view::LeaseGrant;
use crate::http::leases::{CompleteLease, FailLease, ReleaseLease};

/// A worker that is asked to end waits so long for a server that is away.
const PATIENCE: Duration = Duration::from_secs(5);

type Orders = watch::Receiver<Option<Order>>;

/// What became of a report.
enum Reported {
    Taken,
    Refused(ClientError),
    GivenUp,
}

/// Performs one step.
pub(super) async fn perform(session: Rc<Session>, lease: LeaseGrant, mut orders: Orders) {
    let step = format!("step {} of {}, attempt {}", lease.step, lease.operation_id, lease.attempt);
    session.say(&format!("begins {} ({step}).", lease.action));
    let told = match begin(&session, &lease, &mut orders).await {
        Reported::Taken => {
            let outcome = command::run(&session.launch, &lease, &mut orders).await;
            settle(&session, &lease.lease_id, outcome, &mut orders).await
        }
        Reported::Refused(failure) => format!("was refused its start: {failure}"),
        Reported::GivenUp => "was given up before it began.".to_owned(),
    };
    session.say(&format!("{step} {told}"));
    session.forget(&lease.lease_id);
}

async fn begin(session: &Session, lease: &LeaseGrant, orders: &mut Orders) -> Reported {
    let (client, id) = (&session.client, &lease.lease_id);
    report(session, orders, async || client.acknowledge(id).await.map(drop)).await
}

/// Reports the outcome, and says what became of it.
async fn settle(session: &Session, lease: &str, outcome: Outcome, orders: &mut Orders) -> String {
    let client = &session.client;
    let (told, reported) = match outcome {
        Outcome::Result(result) => {
            let report_of = CompleteLease { result, usage: None };
            ("is done.", complete(session, lease, &report_of, orders).await)
        }
        Outcome::Failed(failure) => ("has failed.", fail(session, client, lease, &failure, orders).await),
        Outcome::Ordered(Order::Lose) => return "was lost to somebody else.".to_owned(),
        Outcome::Ordered(Order::Cancel) => {
            // The operation has ended and takes no report; this one only frees the agent's slot.
            let failure = command::failure("cancelled", "the operation has ended", false);
            fail(session, client, lease, &failure, orders).await;
            return "was cancelled.".to_owned();
        }
        Outcome::Ordered(Order::Release | Order::Kill) => {
            let release = ReleaseLease { reason: "the worker is stopping".into(), hold_ms: Some(0) };
            let sent = async || client.release(lease, &release).await.map(drop);
            ("was given back.", report(session, orders, sent).await)
        }
    };
    match reported {
        Reported::Taken => told.to_owned(),
        Reported::Refused(failure) => format!("{told} The report was refused: {failure}"),
        Reported::GivenUp => format!("{told} Nobody could be told."),
    }
}

/// Reports a result. One that the server cannot store has failed the attempt; a report that it cannot read
/// fails it here instead of being tried for ever.
async fn complete(
    session: &Session,
    lease: &str,
    report_of: &CompleteLease,
    orders: &mut Orders,
) -> Reported {
    let client = &session.client;
    let reported = report(session, orders, async || client.complete(lease, report_of).await.map(drop)).await;
    match reported {
        Reported::Refused(ClientError::Refused(refusal)) if refusal.status == 400 => {
            let failure = command::failure(&refusal.code, &refusal.sentence, false);
            fail(session, client, lease, &failure, orders).await;
            Reported::Refused(ClientError::Refused(refusal))
        }
        other => other,
    }
}

async fn fail(
    session: &Session,
    client: &Client,
    lease: &str,
    failure: &FailLease,
    orders: &mut Orders,
) -> Reported {
    report(session, orders, async || client.fail(lease, failure).await.map(drop)).await
}

/// Sends a report until it is answered, the lease is lost, or the worker cannot wait any longer.
async fn report(
    session: &Session,
    orders: &mut Orders,
    send: impl AsyncFn() -> Result<(), ClientError>,
) -> Reported {
    let mut backoff = Backoff::default();
    loop {
        match send().await {
            Ok(()) => return Reported::Taken,
            Err(failure) if !failure.is_passing() => return Reported::Refused(failure),
            Err(failure) => sleep(backoff.next(failure.retry_after())).await,
        }
        let order = *orders.borrow();
        let impatient = session.stopped_at().is_some_and(|since| since.elapsed() > PATIENCE);
        if impatient || matches!(order, Some(Order::Lose | Order::Kill)) {
            return Reported::GivenUp;
        }
    }
}
