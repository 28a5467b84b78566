//! Owns one phase: who writes events and when, and what came of it. It must never end before the last socket
//! has the last event, unless that takes too long.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::{sleep, sleep_until, timeout_at};

use super::super::fault::Fault;
use super::super::figures::rounded;
use super::super::process::{Cpu, Process};
use super::super::wire::Wire;
use super::board::{Board, Lag};

/// How long a phase without a rate is at most.
pub(super) const FASTEST: Duration = Duration::from_secs(10);
/// Longest wait for the last events of a phase.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events per second that one connection writes with ease.
const RATE_OF_ONE: f64 = 20.0;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// When an event is written.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// So many in a second.
    Rate(f64),
    /// Once an earlier one has reached every socket.
    Free,
}

/// What came of one phase.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    events: usize,
    deliveries: u64,
    events_per_second: f64,
    pub(super) deliveries_per_second: f64,
    pub(super) lag: Option<Lag>,
    pub(super) missed: u64,
    pub(super) repeated: u64,
    /// Per delivery, in microseconds of one core; absent for a server of somebody else.
    server_cpu_us: Option<f64>,
    client_cpu_us: f64,
    /// Cores that others took meanwhile.
    others_cores: f64,
}

impl Phase {
    /// What server and client spent on one delivery.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        self.server_cpu_us.map(|server| server + self.client_cpu_us)
    }
}

/// Those who write, and what with.
pub(super) struct Writing<'a, W> {
    pub(super) board: &'a Board,
    pub(super) process: Option<&'a Process>,
    pub(super) in_flight: usize,
    pub(super) address: SocketAddr,
    /// At most so many connections that write.
    pub(super) writers: usize,
    /// The request of a writer for an event.
    pub(super) write: W,
    /// Events so far, over all phases.
    pub(super) events: Cell<u64>,
}

impl<W: Fn(&Wire, usize, u64) -> Result<Vec<u8>, Fault>> Writing<'_, W> {
    /// Has events written for so long, and waits until all have arrived.
    pub(super) async fn phase(&self, pace: Pace, length: Duration) -> Result<Phase, Fault> {
        let Self { board, process, in_flight, address, write, events, .. } = self;
        let writers = match pace {
            // No more than are needed: a server gives up on connections that say nothing.
            Pace::Rate(rate) => self.writers.min((rate / RATE_OF_ONE).ceil() as usize),
            Pace::Free => self.writers,
        };
        let mut wires = try_join_all((0..writers).map(|_| Wire::open(*address))).await?;
        board.begin(*in_flight);
        let (client, machine) = (Cpu::of_this(), Cpu::of_machine());
        let server = process.map(Process::cpu);
        let begun = Instant::now();
        let until = begun + length;
        let writing = wires.iter_mut().enumerate().map(async |(writer, wire)| {
            for turn in 0.. {
                let due = match pace {
                    Pace::Rate(rate) => {
                        let due = begun + Duration::from_secs_f64((turn * writers + writer) as f64 / rate);
                        sleep_until(due.min(until).into()).await;
                        due
                    }
                    Pace::Free => match timeout_at(until.into(), board.free.acquire()).await {
                        Ok(Ok(permit)) => {
                            permit.forget();
                            begun
                        }
                        _ => until,
                    },
                };
                if due.max(Instant::now()) >= until {
                    break;
                }
                let request = write(wire, writer, events.replace(events.get() + 1))?;
                wire.exchange(&request, 200).await?;
                board.wrote();
            }
            Ok::<(), Fault>(())
        });
        try_join_all(writing).await?;
        while !board.is_complete() && Instant::now() < until + PATIENCE {
            sleep(LOOK_EVERY).await;
        }
        let took = begun.elapsed().as_secs_f64();
        let (client, machine) = (Cpu::of_this().since(client), Cpu::of_machine().since(machine));
        let server = process.map(Process::cpu).zip(server).map(|(after, before)| after.since(before));
        Ok(figures(board, took, client, server, machine))
    }
}

fn figures(board: &Board, took: f64, client: Cpu, server: Option<Cpu>, machine: Cpu) -> Phase {
    let outcome = board.outcome();
    let each = |cpu: Cpu| rounded(cpu.seconds() * 1e6 / outcome.deliveries.max(1) as f64, 2);
    let others = machine.seconds() - client.seconds() - server.unwrap_or_default().seconds();
    Phase {
        events: outcome.events,
        deliveries: outcome.deliveries,
        events_per_second: rounded(outcome.events as f64 / took, 1),
        deliveries_per_second: rounded(outcome.deliveries as f64 / took, 1),
        lag: outcome.lag,
        missed: outcome.missed,
        repeated: outcome.repeated,
        server_cpu_us: server.map(each),
        client_cpu_us: each(client),
        others_cores: rounded(others.max(0.0) / took, 2),
    }
}
