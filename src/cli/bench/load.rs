//! Owns the closed loop: so many connections, each with one request under way, for so long. It must never
//! count what was answered outside of the window, nor go on after the first wrong answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fault::Fault;
use super::figures::{Latency, median_by, rounded};
use super::process::{Cpu, Process};
use super::wire::Wire;

/// Before the window: connections, caches and branch predictors settle.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is sent, again and again, on every connection.
pub(super) struct Request {
    /// Where.
    pub(super) path: String,
    /// What.
    pub(super) body: serde_json::Value,
    /// The status it must be answered with.
    pub(super) wanted: u16,
}

/// How requests were answered within a window.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answered {
    /// Answers per second.
    pub(super) per_second: f64,
    /// Answers that were counted.
    pub(super) answers: usize,
    /// From the first byte sent to the last received.
    pub(super) latency: Latency,
    /// What the server spent on one, in microseconds of one core; absent for a server of somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_cpu_us: Option<f64>,
    /// The same by the names of its threads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) server_cpu_us_by_thread: BTreeMap<String, f64>,
    /// What this client spent on one.
    pub(super) client_cpu_us: f64,
    /// Cores that others took meanwhile: the more, the less the rates mean. A server that is not ours
    /// counts as others.
    pub(super) others_cores: f64,
}

impl Answered {
    /// What server and client spent on one, unless the server is somebody else's.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        self.server_cpu_us.map(|server| server + self.client_cpu_us)
    }
}

/// A window of time, with what was spent of the processor meanwhile.
pub(super) struct Window {
    begun: Instant,
    length: Duration,
    client: Cpu,
    server: Option<Cpu>,
    threads: BTreeMap<String, Cpu>,
    machine: Cpu,
}

impl Window {
    /// The instant at which it opens, and the one at which it closes.
    pub(super) fn bounds(seconds: f64) -> (Instant, Instant) {
        let opens = Instant::now() + WARM_UP;
        (opens, opens + Duration::from_secs_f64(seconds))
    }

    /// Waits until the window has passed.
    pub(super) async fn watch(opens: Instant, closes: Instant, server: Option<&Process>) -> Self {
        tokio::time::sleep_until(opens.into()).await;
        let begun = Instant::now();
        let (client, machine) = (Cpu::of_this(), Cpu::of_machine());
        let before = server.map(Process::cpu);
        let threads_before = server.map(Process::threads).unwrap_or_default();
        tokio::time::sleep_until(closes.into()).await;
        let (client, machine) = (Cpu::of_this().since(client), Cpu::of_machine().since(machine));
        let mut threads = server.map(Process::threads).unwrap_or_default();
        for (name, after) in &mut threads {
            *after = after.since(threads_before.get(name).copied().unwrap_or_default());
        }
        let server = server.map(Process::cpu).zip(before).map(|(after, before)| after.since(before));
        Self { begun, length: begun.elapsed(), client, server, threads, machine }
    }

    /// The figures of what was answered in it.
    pub(super) fn figures(&self, answered: Vec<(Instant, Duration)>) -> Result<Answered, Fault> {
        let end = self.begun + self.length;
        let inside = answered.into_iter().filter(|(at, _)| *at >= self.begun && *at < end);
        let durations: Vec<Duration> = inside.map(|(_, duration)| duration).collect();
        let answers = durations.len();
        let latency = Latency::of(durations).ok_or(Fault::Stuck("nothing was answered in time"))?;
        let ours = self.client.seconds() + self.server.unwrap_or_default().seconds();
        let others = (self.machine.seconds() - ours).max(0.0) / self.length.as_secs_f64();
        let each = |cpu: Cpu| rounded(cpu.seconds() * 1e6 / answers as f64, 1);
        Ok(Answered {
            per_second: rounded(answers as f64 / self.length.as_secs_f64(), 1),
            answers,
            latency,
            server_cpu_us: self.server.map(each),
            server_cpu_us_by_thread: self
                .threads
                .iter()
                .map(|(name, cpu)| (name.clone(), each(*cpu)))
                .collect(),
            client_cpu_us: each(self.client),
            others_cores: rounded(others, 2),
        })
    }
}

/// Has the requests sent for a while, request `n` on connection `n`.
pub(super) async fn closed_loop(
    address: SocketAddr,
    requests: Vec<Request>,
    seconds: f64,
    server: Option<&Process>,
) -> Result<Answered, Fault> {
    let mut wires = Vec::with_capacity(requests.len());
    for request in requests {
        let wire = Wire::open(address).await?;
        let bytes = wire.post(&request.path, &request.body)?;
        wires.push((wire, bytes, request.wanted));
    }
    let (opens, closes) = Window::bounds(seconds);
    let mut working = Vec::with_capacity(wires.len());
    for (wire, bytes, wanted) in wires {
        working.push(tokio::spawn(repeat(wire, bytes, wanted, closes)));
    }
    let window = Window::watch(opens, closes, server).await;
    let mut answered = Vec::new();
    for work in working {
        answered.append(&mut work.await.map_err(std::io::Error::other)??);
    }
    window.figures(answered)
}

async fn repeat(
    mut wire: Wire,
    request: Vec<u8>,
    wanted: u16,
    until: Instant,
) -> Result<Vec<(Instant, Duration)>, Fault> {
    let mut answered = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(answered);
        }
        wire.exchange(&request, wanted).await?;
        let at = Instant::now();
        answered.push((at, at - begun));
    }
}

/// The round in the middle.
pub(super) fn median(rounds: Vec<Answered>) -> Option<Answered> {
    median_by(rounds, |round| round.per_second)
}
