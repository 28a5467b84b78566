//! Owns one step from its grant to its report. A result must never get lost because the server is away: it
//! is reported until the server answers or the lease is lost.

use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use domain::Json;
use domain::operation::definition::EffectClass;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::command::{self, Outcome};
use super::session::{Order, Phase, Session};
use crate::client::Backoff;
use crate::client::ClientError;
use crate::http::agent_view::LeaseGrant;
use crate::http::settlements::{ClaimMore, CompleteLease, FailLease, LeaseFailedView, ReleaseLease};

/// A worker that is asked to end waits so long for a server that is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// A step that is done sooner is never acknowledged.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(2);

type Orders = watch::Receiver<Option<Order>>;

/// What became of a report.
enum Reported<T> {
    Taken(T),
    Refused(ClientError),
    GivenUp,
}

impl<T> Reported<T> {
    /// The sentence about a step of which this was reported.
    fn told(&self, told: &str) -> String {
        match self {
            Self::Taken(_) => told.to_owned(),
            Self::Refused(failure) => format!("{told} The report was refused: {failure}"),
            Self::GivenUp => format!("{told} The server could not be reached."),
        }
    }

    fn taken(self) -> Option<T> {
        match self {
            Self::Taken(answer) => Some(answer),
            Self::Refused(_) | Self::GivenUp => None,
        }
    }
}

/// How a step ended, for people, and the leases that came with the answer to its report.
struct Ended {
    told: String,
    next: Vec<LeaseGrant>,
}

impl Ended {
    fn without_more(told: impl Into<String>) -> Self {
        Self { told: told.into(), next: Vec::new() }
    }
}

/// Begins with leases, each in a task of its own; one that this worker has already is left alone.
pub(super) fn take_up(session: &Rc<Session>, leases: Vec<LeaseGrant>) {
    for lease in leases {
        if let Some(orders) = session.take(&lease.lease_id) {
            rt::spawn(perform(Rc::clone(session), lease, orders));
        }
    }
}

/// Performs one step, and begins with what was claimed with its report.
async fn perform(session: Rc<Session>, lease: LeaseGrant, mut orders: Orders) {
    let step = format!("step {} of {}, attempt {}", lease.step, lease.operation_id, lease.attempt);
    session.say(&format!("begins {} ({step}).", lease.action));
    let ended = match lease.effect {
        // So that an offer that expires proves that nothing was done.
        EffectClass::Write => match begin(&session, &lease.lease_id, &orders).await {
            Reported::Taken(()) => run(&session, &lease, &mut orders).await,
            Reported::Refused(failure) => Ended::without_more(format!("was refused its start: {failure}")),
            Reported::GivenUp => Ended::without_more("was given up before it began."),
        },
        EffectClass::Read | EffectClass::Idempotent => {
            let begun = acknowledged_later(&session, &lease, orders.clone());
            tokio::select! {
                biased;
                ended = run(&session, &lease, &mut orders) => ended,
                never = begun => never,
            }
        }
    };
    session.say(&format!("{step} {}", ended.told));
    match session.phase() {
        // Before this lease is forgotten, so that its slot never seems to be free.
        Phase::Working | Phase::Draining => take_up(&session, ended.next),
        Phase::Stopping(_) => give_back(&session, &ended.next).await,
        Phase::TakenOver => {}
    }
    session.forget(&lease.lease_id);
}

/// Runs the command and reports what came of it.
async fn run(session: &Session, lease: &LeaseGrant, orders: &mut Orders) -> Ended {
    let outcome = command::run(&session.launch, lease, session.result_bytes_max(), orders).await;
    settle(session, &lease.lease_id, outcome, orders).await
}

async fn begin(session: &Session, lease: &str, orders: &Orders) -> Reported<()> {
    report(session, orders, async || session.client.acknowledge(lease).await.map(drop)).await
}

/// Acknowledges a step that takes longer than a moment; one that is over by then is reported without, which
/// saves the server an append.
async fn acknowledged_later<T>(session: &Session, lease: &LeaseGrant, orders: Orders) -> T {
    sleep(ACKNOWLEDGE_AFTER.min(Duration::from_millis(lease.ack_within_ms) / 3)).await;
    if let Reported::Refused(failure) = begin(session, &lease.lease_id, &orders).await {
        session.say(&format!("the start of step {} was refused: {failure}", lease.step));
        session.order(&lease.lease_id, Order::Lose);
    }
    std::future::pending().await
}

/// Gives leases back that nobody has begun with. If that is not heard, their offers expire.
async fn give_back(session: &Session, leases: &[LeaseGrant]) {
    for lease in leases {
        let _ = session.client.release(&lease.lease_id, &stopping()).await;
    }
}

fn stopping() -> ReleaseLease {
    ReleaseLease { reason: "the worker is stopping".into(), hold_ms: Some(0), claim: None }
}

/// Reports the outcome, and says what became of it.
async fn settle(session: &Session, lease: &str, outcome: Outcome, orders: &Orders) -> Ended {
    let client = &session.client;
    match outcome {
        Outcome::Result(result) => complete(session, lease, result, orders).await,
        Outcome::Failed(failure) => {
            let reported = fail(session, lease, failure, orders).await;
            let told = reported.told("has failed.");
            let next = reported.taken().and_then(|view| view.claimed.leases).unwrap_or_default();
            Ended { told, next }
        }
        Outcome::Ordered(Order::Lose) => Ended::without_more("was lost to somebody else."),
        Outcome::Ordered(Order::Cancel) => {
            // The operation has ended and takes no report; this one only frees the agent's slot.
            let failure = command::failure("cancelled", "the operation has ended", false);
            let _ = report(session, orders, async || client.fail(lease, &failure, None).await).await;
            Ended::without_more("was cancelled.")
        }
        Outcome::Ordered(Order::Release | Order::Kill) => {
            let release = stopping();
            let reported = report(session, orders, async || client.release(lease, &release).await).await;
            Ended::without_more(reported.told("was given back."))
        }
    }
}

/// Reports a result. One that the server cannot store has failed the attempt; a report that it cannot read
/// fails it here instead of being tried for ever.
async fn complete(session: &Session, lease: &str, result: Json, orders: &Orders) -> Ended {
    let (client, key) = (&session.client, Uuid::new_v4().to_string());
    let body = CompleteLease { result, usage: None, claim: more(session) };
    let reported = report(session, orders, async || client.complete(lease, &body, Some(&key)).await).await;
    if let Reported::Refused(ClientError::Refused(refusal)) = &reported
        && matches!(refusal.status, 400 | 413 | 422)
    {
        let failure = command::failure(&refusal.code, &refusal.sentence, false);
        let failed = fail(session, lease, failure, orders).await;
        let next = failed.taken().and_then(|view| view.claimed.leases).unwrap_or_default();
        return Ended { told: reported.told("is done."), next };
    }
    let told = reported.told("is done.");
    let next = reported.taken().and_then(|view| view.claimed.leases).unwrap_or_default();
    Ended { told, next }
}

async fn fail(
    session: &Session,
    lease: &str,
    failure: FailLease,
    orders: &Orders,
) -> Reported<LeaseFailedView> {
    let (client, key) = (&session.client, Uuid::new_v4().to_string());
    let body = FailLease { claim: more(session), ..failure };
    report(session, orders, async || client.fail(lease, &body, Some(&key)).await).await
}

/// The slot that a report frees asks for the next step with it, unless the worker takes no more.
fn more(session: &Session) -> Option<ClaimMore> {
    (session.phase() == Phase::Working).then(ClaimMore::default)
}

/// Sends a report until it is answered, the lease is lost, or the worker cannot wait any longer.
async fn report<T>(
    session: &Session,
    orders: &Orders,
    send: impl AsyncFn() -> Result<T, ClientError>,
) -> Reported<T> {
    let mut backoff = Backoff::default();
    loop {
        match send().await {
            Ok(answer) => return Reported::Taken(answer),
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
