//! Owns what the parts of one worker share: who it is, which leases it holds, and whether it goes on.
//! It must never run a command or decide what a report says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::agent::event::Status;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;

use super::super::exit::Exit;
use super::super::output;
use super::launch::Launch;
use crate::client::{Backoff, Client, ClientError};
use crate::http::agent_request::{Heartbeat, HeartbeatLease, RegisterAgent};

/// Whether the worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes work.
    Working,
    /// Finishes what it has.
    Draining,
    /// Gives back what it has, and ends with this.
    Stopping(Exit),
    /// Another process is the agent now.
    TakenOver,
}

/// What a step is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The operation has ended: stop.
    Cancel,
    /// The lease is somebody else's: stop, and say nothing.
    Lose,
    /// The worker ends: stop, and give the step back.
    Release,
    /// The same at once.
    Kill,
}

/// One worker.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) launch: Launch,
    profile: RegisterAgent,
    incarnation: Cell<u64>,
    /// How often this process registered; two of its parts that see the same refusal register once.
    registrations: Cell<u64>,
    registering: Mutex<()>,
    /// Time between two heartbeats.
    period: Cell<Duration>,
    /// Largest result that the server takes.
    result_bytes_max: Cell<usize>,
    phase: watch::Sender<Phase>,
    stopped_at: Cell<Option<Instant>>,
    held: RefCell<BTreeMap<String, watch::Sender<Option<Order>>>>,
    changed: Notify,
}

impl Session {
    pub(super) fn new(client: Client, profile: RegisterAgent, launch: Launch) -> Self {
        Self {
            client,
            launch,
            profile,
            incarnation: Cell::new(0),
            registrations: Cell::new(0),
            registering: Mutex::new(()),
            period: Cell::new(Duration::from_secs(10)),
            result_bytes_max: Cell::new(0),
            phase: watch::Sender::new(Phase::Working),
            stopped_at: Cell::new(None),
            held: RefCell::new(BTreeMap::new()),
            changed: Notify::new(),
        }
    }

    pub(super) fn agent(&self) -> &str {
        &self.profile.id
    }

    pub(super) fn period(&self) -> Duration {
        self.period.get()
    }

    pub(super) fn result_bytes_max(&self) -> usize {
        self.result_bytes_max.get()
    }

    /// Says something about this agent.
    pub(super) fn say(&self, sentence: &str) {
        output::say(&format!("{}: {sentence}", self.agent()));
    }

    /// Registers for the first time; waits for a server that is away.
    pub(super) async fn register(&self) -> Result<(), ClientError> {
        let mut backoff = Backoff::default();
        loop {
            match self.register_after(0).await {
                Err(failure) if failure.is_passing() => {
                    if backoff.is_fresh() {
                        self.say(&format!("{failure} It is asked again until it answers."));
                    }
                    sleep(backoff.next(failure.retry_after())).await;
                }
                settled => return settled,
            }
        }
    }

    /// The incarnation of this process.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.get()
    }

    /// How often this process has registered so far; to be handed to [`Session::register_after`].
    pub(super) fn registrations(&self) -> u64 {
        self.registrations.get()
    }

    /// Registers anew, unless that has happened since `seen`.
    pub(super) async fn register_after(&self, seen: u64) -> Result<(), ClientError> {
        let _turn = self.registering.lock().await;
        if self.registrations.get() != seen {
            return Ok(());
        }
        let registered = self.client.register_agent(&self.profile).await?;
        self.incarnation.set(registered.agent.incarnation);
        self.registrations.set(seen + 1);
        // A lease is renewed by heartbeats, so that they must come more often than it ends.
        let longest = Duration::from_millis(registered.lease_ms) / 3;
        let wanted = Duration::from_millis(registered.heartbeat_interval_ms);
        self.period.set(if wanted.is_zero() { longest } else { wanted.min(longest) });
        self.result_bytes_max.set(registered.max_result_bytes);
        self.say(&format!("registered, incarnation {}.", registered.agent.incarnation));
        Ok(())
    }

    /// A sign of life with everything it holds.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        let held = self.held.borrow();
        let leases = held.keys().map(|lease| HeartbeatLease {
            lease_id: lease.clone(),
            progress: None,
            note: None,
            checkpoint: None,
        });
        let leases = leases.collect();
        Heartbeat { incarnation: Some(self.incarnation.get()), leases, ..Heartbeat::default() }
    }

    /// Says that it takes no more work, so that nobody waits for its silence.
    pub(super) async fn say_farewell(&self) -> Result<(), ClientError> {
        let farewell = Heartbeat { status: Some(Status::Inactive), ..self.heartbeat() };
        self.client.heartbeat(self.agent(), &farewell).await.map(drop)
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Completes when the worker takes no more work.
    pub(super) async fn ends(&self) {
        // The sender lives as long as this, so that there is no error to handle.
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Working).await;
    }

    /// Completes when the worker takes no more work and has none.
    pub(super) async fn over(&self) {
        self.ends().await;
        while !self.held.borrow().is_empty() {
            self.changed.notified().await;
        }
    }

    /// Ends the worker; asked twice, at once.
    pub(super) fn stop(&self, exit: Exit) {
        let again = matches!(self.phase(), Phase::Stopping(_));
        if !again {
            self.stopped_at.set(Some(Instant::now()));
            self.phase.send_replace(Phase::Stopping(exit));
        }
        self.order_all(if again { Order::Kill } else { Order::Release });
    }

    /// Since when it is stopping.
    pub(super) fn stopped_at(&self) -> Option<Instant> {
        self.stopped_at.get()
    }

    pub(super) fn drain(&self) {
        if self.phase() == Phase::Working {
            self.say("told to finish what it has and take no more.");
            self.phase.send_replace(Phase::Draining);
        }
    }

    pub(super) fn taken_over(&self) {
        if !matches!(self.phase(), Phase::Stopping(_)) {
            self.phase.send_replace(Phase::TakenOver);
        }
        self.order_all(Order::Lose);
    }

    /// Steps that it may take now.
    pub(super) fn free(&self) -> u32 {
        let held = u32::try_from(self.held.borrow().len()).unwrap_or(u32::MAX);
        self.profile.config.max_concurrent_steps.saturating_sub(held)
    }

    /// Waits until a lease is taken or given up.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes a lease; none when it has it already.
    pub(super) fn take(&self, lease: &str) -> Option<watch::Receiver<Option<Order>>> {
        let mut held = self.held.borrow_mut();
        if held.contains_key(lease) {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        held.insert(lease.to_owned(), sender);
        Some(receiver)
    }

    /// Gives a lease up.
    pub(super) fn forget(&self, lease: &str) {
        self.held.borrow_mut().remove(lease);
        self.changed.notify_waiters();
    }

    /// Tells one step what to do. What it was told first stays, except that it may be told to hurry.
    pub(super) fn order(&self, lease: &str, order: Order) {
        if let Some(orders) = self.held.borrow().get(lease) {
            give(orders, order);
        }
    }

    fn order_all(&self, order: Order) {
        self.held.borrow().values().for_each(|orders| give(orders, order));
    }
}

fn give(orders: &watch::Sender<Option<Order>>, order: Order) {
    orders.send_if_modified(|given| {
        let takes = given.is_none() || (order == Order::Kill && *given != Some(Order::Kill));
        if takes {
            *given = Some(order);
        }
        takes
    });
}
