//! `photon bench streams`: how events reach thousands of sockets, half of them WebSockets and half
//! server-sent events, beside a bare loop that writes the same bytes to as many sockets.
//!
//! Two phases on the same sockets: events at a steady rate, then as many as the machine can, where the next
//! event is written once one has reached every socket.

mod bare;
mod board;
mod ear;
mod phase;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use domain::Timestamp;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fault::Fault;
use super::figures::{ratio, rounded};
use super::process::{Memory, Process};
use super::report::{Goal, Machine};
use super::server::Server;
use super::wire::Wire;
use super::{failed, loopback, note, output, up_to};
use crate::cli::serve::allow_descriptors;
use crate::http::event_view::EventView;
use board::Board;
use ear::{Ear, Kind};
use phase::{FASTEST, Pace, Phase, Writing};

/// Handshakes under way at once.
const HANDSHAKES: usize = 64;
/// Writers of Photon: some, since each waits until the disk has its event.
const WRITERS: usize = 16;
/// Until the memory of what opening took is given back.
const SETTLE: Duration = Duration::from_secs(2);
/// Sockets from which on the goals hold.
const SOCKETS: usize = 10_000;
/// Resident memory with so many, in MiB.
const MEMORY_MIB: f64 = 512.0;
/// Lag of all but one in a hundred deliveries at the steady rate, in milliseconds.
const LAG_MS: f64 = 1_000.0;

/// How many sockets, how many events.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Loads this server instead of a fresh one; must be on this machine
    #[arg(long, value_name = "URL", value_parser = loopback)]
    server: Option<SocketAddr>,
    /// Sockets that listen
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = up_to(28_000))]
    sockets: u16,
    /// How many of a hundred take server-sent events; the others are WebSockets
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(0..=100))]
    sse: u16,
    /// Events per second of the first phase
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(10_000))]
    rate: u16,
    /// Seconds of the first phase; the second takes as long, but 10 at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = up_to(3600))]
    seconds: u16,
    /// Events of the second phase that are on their way to every socket at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = up_to(1024))]
    in_flight: u16,
    /// Where the temporary folder is made
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How the data looks; only JSON
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "json",
        value_parser = ["json"])]
    output: String,
    /// Is the bare server of the ceiling
    #[arg(long, hide = true)]
    bare_server: bool,
}

/// What is done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    server: Option<SocketAddr>,
    sockets: usize,
    server_sent: usize,
    rate: f64,
    seconds: f64,
    in_flight: usize,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    version: &'static str,
    machine: Machine,
    plan: Plan,
    photon: Option<Broadcast>,
    /// The bare loop.
    bare: Option<Broadcast>,
    /// Deliveries per second in relation to the bare loop's, in the phase without a rate.
    ratio: Option<f64>,
    /// The same by processor time of client and server.
    cpu_ratio: Option<f64>,
    goals: Vec<Goal>,
    faults: Vec<String>,
}

/// One server and all its sockets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Broadcast {
    /// From the first handshake to the last.
    connect_seconds: f64,
    /// Before the first socket, with all of them, and at the end; absent for a server of somebody else.
    memory: Option<[Memory; 3]>,
    /// What an open socket holds, before and after events passed.
    kib_per_socket: Option<[f64; 2]>,
    steady: Phase,
    fastest: Phase,
}

/// Measures, and prints the report.
pub(super) async fn run(arguments: Arguments) -> i32 {
    allow_descriptors();
    if arguments.bare_server {
        return bare::serve().map_or_else(|fault| failed(&fault), |()| super::DONE);
    }
    super::finish(measure(&arguments), |report| report.faults.is_empty()).await
}

async fn measure(arguments: &Arguments) -> Report {
    let sockets = usize::from(arguments.sockets);
    let plan = Plan {
        server: arguments.server,
        sockets,
        server_sent: sockets * usize::from(arguments.sse) / 100,
        rate: arguments.rate.into(),
        seconds: arguments.seconds.into(),
        in_flight: arguments.in_flight.into(),
    };
    let (mut machine, mut faults) = (Machine::look(), Vec::new());
    output::say(&format!("Measuring {sockets} sockets of Photon ..."));
    let measured = of_photon(&plan, arguments).await;
    let (photon, sample) = note("photon", measured, &mut faults).unzip();
    let mut bare = None;
    if let Some(sample) = sample {
        output::say(&format!("Measuring {sockets} sockets of the bare loop ..."));
        bare = note("bare", of_bare(&plan, sample).await, &mut faults);
    }
    machine.look_again();
    let both = photon.as_ref().zip(bare.as_ref());
    let rates = both.map(|(photon, bare)| (&photon.fastest, &bare.fastest));
    Report {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        ratio: rates.and_then(|(one, other)| ratio(one.deliveries_per_second, other.deliveries_per_second)),
        cpu_ratio: rates.and_then(|(one, other)| ratio(other.cpu_us()?, one.cpu_us()?)),
        goals: photon.as_ref().map(|photon| goals(&plan, photon)).unwrap_or_default(),
        plan,
        photon,
        bare,
        faults,
    }
}

fn goals(plan: &Plan, photon: &Broadcast) -> Vec<Goal> {
    let phases = [&photon.steady, &photon.fastest];
    let wrong: u64 = phases.iter().map(|phase| phase.missed + phase.repeated).sum();
    let mut goals = vec![Goal::less("streams: missed or repeated events", 1.0, wrong as f64)];
    if plan.sockets >= SOCKETS {
        let peak = photon.memory.as_ref().map(|[.., last]| last.peak_mib);
        goals.extend(peak.map(|peak| Goal::less("streams: peak memory in MiB", MEMORY_MIB, peak)));
        let lag = photon.steady.lag.map(|lag| lag.p99_ms);
        goals.extend(lag.map(|lag| Goal::less("streams: p99 lag in ms at the steady rate", LAG_MS, lag)));
    }
    goals
}

/// The figures, and an event as Photon sends it.
async fn of_photon(plan: &Plan, arguments: &Arguments) -> Result<(Broadcast, EventView), Fault> {
    let server = Server::at(plan.server, arguments.folder.as_deref()).await?;
    let name = |writer| format!("bench-{}-writer-{writer}", std::process::id());
    let names: Vec<String> = (0..WRITERS).map(name).collect();
    server.register(&names, 1).await?;
    let board = Rc::new(Board::new(plan.sockets));
    // The cheapest durable event: an agent changes its name.
    let write = |wire: &Wire, writer: usize, event: u64| {
        let path = format!("/api/v1/agents/{}", names[writer]);
        wire.with_body("PUT", &path, &json!({"name": format!("writer of event {event}")}))
    };
    let measured = broadcast(plan, server.address(), server.process(), &board, WRITERS, write).await?;
    server.unregister(&names).await?;
    server.stop().await?;
    let sample = board.sample.take().and_then(|json| serde_json::from_slice(&json).ok());
    Ok((measured, sample.ok_or(Fault::Stuck("no event was heard"))?))
}

async fn of_bare(plan: &Plan, sample: EventView) -> Result<Broadcast, Fault> {
    let server = Process::bare(&["streams"]).await?;
    let board = Rc::new(Board::new(plan.sockets));
    let write = |wire: &Wire, _: usize, event: u64| {
        let time = Timestamp::from_micros(chrono::Utc::now().timestamp_micros());
        wire.post("/", &EventView { sequence: (event + 1).to_string(), time, ..sample.clone() })
    };
    // One writer, so that events keep their order.
    broadcast(plan, server.address(), Some(&server), &board, 1, write).await
}

/// Opens the sockets of one server, and has the events of both phases written to it.
async fn broadcast(
    plan: &Plan,
    address: SocketAddr,
    process: Option<&Process>,
    board: &Rc<Board>,
    writers: usize,
    write: impl Fn(&Wire, usize, u64) -> Result<Vec<u8>, Fault>,
) -> Result<Broadcast, Fault> {
    let before = process.and_then(Process::memory);
    let begun = Instant::now();
    let kind = |number| if number < plan.server_sent { Kind::ServerSent } else { Kind::WebSocket };
    let opening = (0..plan.sockets).map(|number| Ear::open(address, kind(number)));
    let ears: Vec<Ear> = stream::iter(opening).buffer_unordered(HANDSHAKES).try_collect().await?;
    let connect_seconds = rounded(begun.elapsed().as_secs_f64(), 2);
    let mut listening = JoinSet::new();
    for ear in ears {
        listening.spawn_local(ear.listen(Rc::clone(board)));
    }
    sleep(SETTLE).await;
    let open = process.and_then(Process::memory);
    let in_flight = plan.in_flight;
    let writing = Writing { board, process, in_flight, address, writers, write, events: 0.into() };
    let length = Duration::from_secs_f64(plan.seconds);
    let phases = async {
        let steady = writing.phase(Pace::Rate(plan.rate), length).await?;
        Ok::<_, Fault>((steady, writing.phase(Pace::Free, length.min(FASTEST)).await?))
    };
    let (steady, fastest) = tokio::select! {
        phases = phases => phases?,
        lost = listening.join_next() => return Err(match lost {
            Some(Ok(fault)) => fault,
            _ => Fault::Stuck("a socket ended too early"),
        }),
    };
    let end = process.and_then(Process::memory);
    let memory = before.zip(open).zip(end).map(|((before, open), end)| [before, open, end]);
    let kib_per_socket = memory.map(|[before, open, end]| {
        [open, end].map(|now| rounded((now.rss_mib - before.rss_mib) * 1024.0 / plan.sockets as f64, 1))
    });
    Ok(Broadcast { connect_seconds, memory, kib_per_socket, steady, fastest })
}
