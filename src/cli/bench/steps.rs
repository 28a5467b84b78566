//! Measures operations end to end: so many are under way, workers claim their steps over HTTP and complete
//! them at once, and an operation counts when the answer to its last step says that it is over.
//!
//! A worker is one agent with one connection that claims and one for each of its slots that reports.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Plan;
use super::fault::Fault;
use super::figures::{median_by, rounded};
use super::load::{Answered, Window};
use super::process::{Memory, Process};
use super::sample::{self, STEPS};
use super::server::Server;
use super::wire::Wire;

/// How long a claim waits; also how long workers need to notice that it is over.
const CLAIM_WAIT: &str = "1s";
/// Longest time that one operation may take.
const OPERATION_MAX: Duration = Duration::from_secs(30);

/// Operations end to end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Steps {
    /// Operations under way.
    pub(super) in_flight: usize,
    /// Agents that work.
    pub(super) workers: usize,
    /// Steps that each may have at once.
    pub(super) slots: usize,
    /// Operations, from the request that creates one to the answer that ends it.
    #[serde(flatten)]
    pub(super) operations: Answered,
    /// Steps completed per second.
    pub(super) steps_per_second: f64,
    /// The server's memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
}

/// Measures on a fresh server, since operations of other measurements would stand in the way.
pub(super) async fn measure(plan: &Plan) -> Result<Steps, Fault> {
    let server = Server::of(plan).await?;
    let slots = plan.in_flight.div_ceil(plan.workers);
    let names: Vec<String> = (0..plan.workers).map(|n| format!("{}-worker-{n}", plan.run)).collect();
    server.register(&names, slots).await?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(plan, &server, &names, slots).await?);
    }
    let memory = server.process().and_then(Process::memory);
    server.unregister(&names).await?;
    server.stop().await?;
    let operations = median_by(rounds, |round: &Answered| round.per_second);
    let operations = operations.ok_or(Fault::Stuck("no round was measured"))?;
    let steps_per_second = rounded(operations.per_second * f64::from(STEPS), 1);
    let (in_flight, workers) = (plan.in_flight, plan.workers);
    Ok(Steps { in_flight, workers, slots, operations, steps_per_second, memory })
}

async fn round(plan: &Plan, server: &Server, names: &[String], slots: usize) -> Result<Answered, Fault> {
    let board = Arc::new(Board::default());
    let address = server.address();
    let mut working = JoinSet::new();
    for name in names {
        let worker = Worker::open(address, name, &plan.claimed(), slots, Arc::clone(&board)).await?;
        working.spawn(worker.run());
    }
    let (opens, closes) = Window::bounds(plan.seconds);
    let mut creating = JoinSet::new();
    for _ in 0..plan.in_flight {
        let wire = Wire::open(address).await?;
        let request = wire.post("/api/v1/operations", &sample::operation(&plan.claimed()))?;
        creating.spawn(create(wire, request, Arc::clone(&board), closes));
    }
    let measured = async {
        let window = Window::watch(opens, closes, server.process()).await;
        let mut answered = Vec::new();
        while let Some(created) = creating.join_next().await {
            answered.append(&mut created.map_err(std::io::Error::other)??);
        }
        window.figures(answered)
    };
    let figures = tokio::select! {
        figures = measured => figures?,
        fault = first_fault(&mut working) => return Err(fault),
    };
    board.over.store(true, Ordering::Relaxed);
    while let Some(worked) = working.join_next().await {
        worked.map_err(std::io::Error::other)??;
    }
    Ok(figures)
}

/// Workers end only when they are told to, or by a fault.
async fn first_fault(working: &mut JoinSet<Result<(), Fault>>) -> Fault {
    match working.join_next().await {
        Some(Ok(Err(fault))) => fault,
        Some(Err(lost)) => std::io::Error::other(lost).into(),
        Some(Ok(Ok(()))) | None => Fault::Stuck("a worker ended too early"),
    }
}

/// Creates operations, one after the end of the other.
async fn create(
    mut wire: Wire,
    request: Vec<u8>,
    board: Arc<Board>,
    until: Instant,
) -> Result<Vec<(Instant, Duration)>, Fault> {
    let mut ended = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(ended);
        }
        let created: Data<Created> = read(wire.exchange(&request, 201).await?)?;
        let Ok(at) = timeout(OPERATION_MAX, board.ended(created.data.id)).await else {
            return Err(Fault::Stuck("an operation did not end"));
        };
        ended.push((at, at - begun));
    }
}

/// Where those who end an operation tell the one who created it. Either may come first.
#[derive(Default)]
struct Board {
    notes: Mutex<HashMap<String, Note>>,
    over: AtomicBool,
}

enum Note {
    Ended(Instant),
    Awaited(oneshot::Sender<Instant>),
}

impl Board {
    fn end(&self, id: String) {
        let at = Instant::now();
        let mut notes = self.notes.lock();
        match notes.remove(&id) {
            Some(Note::Awaited(waiting)) => drop(waiting.send(at)),
            _ => drop(notes.insert(id, Note::Ended(at))),
        }
    }

    async fn ended(&self, id: String) -> Instant {
        let (sender, waiting) = oneshot::channel();
        {
            let mut notes = self.notes.lock();
            if let Some(Note::Ended(at)) = notes.remove(&id) {
                return at;
            }
            notes.insert(id, Note::Awaited(sender));
        }
        // The sender lies on the board, which is held here.
        waiting.await.unwrap_or_else(|_| Instant::now())
    }
}

/// One agent.
struct Worker {
    claiming: Wire,
    /// The claim for one step, for two, and so on.
    claims: Vec<Vec<u8>>,
    /// The only action that it performs.
    action: Arc<str>,
    /// Connections that nobody reports on now, or why one was lost.
    idle: mpsc::UnboundedReceiver<Result<Wire, Fault>>,
    back: mpsc::UnboundedSender<Result<Wire, Fault>>,
    board: Arc<Board>,
}

impl Worker {
    async fn open(
        address: SocketAddr,
        name: &str,
        action: &str,
        slots: usize,
        board: Arc<Board>,
    ) -> Result<Self, Fault> {
        let claiming = Wire::open(address).await?;
        let path = format!("/api/v1/agents/{name}/claim");
        let claim = |max| json!({"wait": CLAIM_WAIT, "max": max, "actions": [action]});
        let claims = (1..=slots).map(|max| claiming.post(&path, &claim(max)));
        let claims = claims.collect::<Result<Vec<_>, Fault>>()?;
        let (back, idle) = mpsc::unbounded_channel();
        for _ in 0..slots {
            let _ = back.send(Ok(Wire::open(address).await?));
        }
        Ok(Self { claiming, claims, action: action.into(), idle, back, board })
    }

    async fn run(mut self) -> Result<(), Fault> {
        let mut free: Vec<Wire> = Vec::new();
        while !self.board.over.load(Ordering::Relaxed) {
            if free.is_empty()
                && let Some(wire) = self.idle.recv().await
            {
                free.push(wire?);
            }
            while let Ok(wire) = self.idle.try_recv() {
                free.push(wire?);
            }
            let claim = free.len().checked_sub(1).and_then(|index| self.claims.get(index));
            let claim = claim.ok_or(Fault::Stuck("a worker has no connection left"))?;
            let granted: Data<Granted> = read(self.claiming.exchange(claim, 200).await?)?;
            for lease in granted.data.leases {
                let wire = free.pop().ok_or(Fault::Protocol("more steps than were asked for"))?;
                let (back, board) = (self.back.clone(), Arc::clone(&self.board));
                let action = Arc::clone(&self.action);
                tokio::spawn(async move { back.send(complete(wire, lease, &action, &board).await) });
            }
        }
        Ok(())
    }
}

/// Performs a step, which takes no time, reports it and goes on with the next one, until there is none.
async fn complete(mut wire: Wire, lease: Lease, action: &str, board: &Board) -> Result<Wire, Fault> {
    let mut next = Some(lease);
    while let Some(lease) = next {
        let path = format!("/api/v1/leases/{}/complete", lease.lease_id);
        let more = !board.over.load(Ordering::Relaxed);
        let claim = more.then(|| json!({"max": 1, "actions": [action]}));
        let request = wire.post(&path, &json!({"result": sample::result(), "claim": claim}))?;
        let mut settled: Data<Settled> = read(wire.exchange(&request, 200).await?)?;
        if settled.data.operation_status == "completed" {
            board.end(lease.operation_id);
        }
        next = settled.data.leases.pop();
    }
    Ok(wire)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|_| Fault::Protocol("a body is not of its form"))
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[derive(Deserialize)]
struct Granted {
    leases: Vec<Lease>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lease {
    lease_id: String,
    operation_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    operation_status: String,
    #[serde(default)]
    leases: Vec<Lease>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn an_end_is_heard_whether_it_comes_before_or_after_the_question() {
        let board = Arc::new(Board::default());
        board.end("early".into());
        board.ended("early".into()).await;
        let waiting = tokio::spawn({
            let board = Arc::clone(&board);
            async move { board.ended("late".into()).await }
        });
        while board.notes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        board.end("late".into());
        waiting.await.unwrap();
        assert!(board.notes.lock().is_empty());
    }
}
