//! `photon bench`: loads a server, measures the log and a restart, and prints what was reached as JSON,
//! beside what the same machine does without Photon.
//!
//! Client and server share the machine, so the client is as lean as it can be (see `wire`) and both say how
//! much of the processor they took. Nothing but loopback is ever loaded, and everything is bounded.

mod bare;
mod creates;
mod fault;
mod figures;
mod heartbeats;
mod history;
mod load;
mod log;
mod memory;
mod open_loop;
mod process;
mod report;
mod restart;
mod sample;
mod server;
mod steps;
mod streams;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::output;
use fault::Fault;
use report::Report;

/// Everything was measured.
const DONE: i32 = 0;
/// Something could not be measured; the report says what.
const FAILED: i32 = 1;
/// The user had enough.
const INTERRUPTED: i32 = 130;

/// What to measure, and for how long.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    alone: Option<Alone>,
    /// Loads this server instead of fresh ones; must be on this machine. Its operations stay.
    #[arg(long, value_name = "URL", value_parser = loopback)]
    server: Option<SocketAddr>,
    /// Connections that create operations or send heartbeats
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = up_to(4096))]
    connections: u16,
    /// Operations of three steps under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = up_to(4096))]
    in_flight: u16,
    /// Agents that share their steps
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = up_to(1024))]
    workers: u16,
    /// Seconds of one round
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = up_to(600))]
    seconds: u16,
    /// Rounds of each measurement, of which the one in the middle is reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = up_to(99))]
    rounds: u16,
    /// Events of the log that is restarted
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,
    /// Operations that wait for work when memory is measured
    #[arg(long, value_name = "N", default_value_t = 200_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    open: u64,
    /// Operations that are over when memory is measured
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    ended: u64,
    /// Measure only these, of: creates, open-loop, steps, heartbeats, log, restart, memory, ceilings
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', hide_possible_values = true)]
    only: Vec<Part>,
    /// Where temporary folders are made; the disk that counts
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

/// What is measured only when it is asked for.
#[derive(Clone, Debug, Subcommand)]
enum Alone {
    /// Measures how events reach thousands of sockets, beside a bare loop that writes to as many
    Streams(streams::Arguments),
}

/// One part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    Creates,
    /// Creations at a fixed rate.
    OpenLoop,
    Steps,
    Heartbeats,
    Log,
    Restart,
    Memory,
    /// The bare server and the plain file.
    Ceilings,
}

/// What is done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    server: Option<SocketAddr>,
    connections: usize,
    in_flight: usize,
    workers: usize,
    seconds: f64,
    rounds: usize,
    events: u64,
    open: u64,
    ended: u64,
    #[serde(skip)]
    folder: Option<PathBuf>,
    /// Keeps names of this run apart from those of others.
    run: String,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        let Arguments { server, connections, in_flight, workers, seconds, rounds, .. } = arguments;
        Self {
            server: *server,
            connections: usize::from(*connections),
            in_flight: usize::from(*in_flight),
            workers: usize::from(*workers).min(usize::from(*in_flight)),
            seconds: f64::from(*seconds),
            rounds: usize::from(*rounds),
            events: arguments.events,
            open: arguments.open,
            ended: arguments.ended,
            folder: arguments.folder.clone(),
            run: format!("bench-{}", std::process::id()),
        }
    }

    /// The action of steps that this run performs.
    fn claimed(&self) -> String {
        format!("{}-claimed", self.run)
    }

    /// The action of steps that nobody performs.
    fn unclaimed(&self) -> String {
        format!("{}-unclaimed", self.run)
    }
}

/// Measures, and prints the report.
pub(super) async fn run(arguments: Arguments) -> i32 {
    if let Some(Alone::Streams(arguments)) = arguments.alone {
        return streams::run(arguments).await;
    }
    if arguments.bare_server {
        return match bare::serve().await {
            Ok(()) => DONE,
            Err(fault) => failed(&fault),
        };
    }
    finish(measure(&arguments), |report| report.faults.is_empty()).await
}

/// Prints a report once it is there; says what the process ends with.
async fn finish<R: Serialize>(measured: impl Future<Output = R>, is_whole: fn(&R) -> bool) -> i32 {
    // Dropping the work ends every process that it started.
    let report = tokio::select! {
        report = measured => report,
        _ = tokio::signal::ctrl_c() => return INTERRUPTED,
    };
    match serde_json::to_string_pretty(&report) {
        Ok(text) if output::print(&text).is_ok() && is_whole(&report) => DONE,
        _ => FAILED,
    }
}

fn failed(fault: &Fault) -> i32 {
    output::say(&format!("The bare server failed: {fault}."));
    FAILED
}

async fn measure(arguments: &Arguments) -> Report {
    let plan = Plan::of(arguments);
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut report = Report::new(plan.clone());
    if report.is_debug() {
        output::say("This is a debug build: its figures mean nothing.");
    }
    let ceilings = wants(Part::Ceilings);
    if wants(Part::Creates) || ceilings {
        output::say("Measuring creations ...");
        let measured = creates::measure(&plan, wants(Part::Creates), ceilings).await;
        report.creates = note("creates", measured, &mut report.faults);
    }
    if wants(Part::OpenLoop) {
        output::say(&format!("Measuring {} creations per second ...", open_loop::RATE));
        report.open_loop = note("openLoop", open_loop::measure(&plan).await, &mut report.faults);
    }
    if wants(Part::Steps) {
        output::say("Measuring operations of three steps ...");
        report.steps = note("steps", steps::measure(&plan).await, &mut report.faults);
    }
    if wants(Part::Heartbeats) {
        output::say("Measuring heartbeats ...");
        report.heartbeats = note("heartbeats", heartbeats::measure(&plan).await, &mut report.faults);
    }
    if wants(Part::Log) || ceilings {
        output::say("Measuring the log ...");
        let measured = log::measure(&plan, wants(Part::Log), ceilings).await;
        report.log = note("log", measured, &mut report.faults).unwrap_or_default();
    }
    if wants(Part::Restart) {
        output::say(&format!("Measuring restarts with {} events ...", plan.events));
        report.restart = note("restart", restart::measure(&plan).await, &mut report.faults);
    }
    if wants(Part::Memory) {
        output::say("Measuring memory ...");
        report.memory = note("memory", memory::measure(&plan).await, &mut report.faults);
    }
    report.judge();
    report
}

/// The figures, or a note of why there are none.
fn note<T>(what: &str, measured: Result<T, Fault>, faults: &mut Vec<String>) -> Option<T> {
    measured
        .inspect_err(|fault| {
            output::say(&format!("No figures for {what}: {fault}."));
            faults.push(format!("{what}: {fault}"));
        })
        .ok()
}

/// A number from 1 to this one.
fn up_to(most: i64) -> RangedI64ValueParser<u16> {
    RangedI64ValueParser::new().range(1..=most)
}

/// An address of this machine; others must not be loaded.
fn loopback(url: &str) -> Result<SocketAddr, String> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let address = authority.replace("localhost", "127.0.0.1");
    let address: SocketAddr =
        address.parse().map_err(|_| "an address must be such as http://127.0.0.1:8080".to_owned())?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ok(address),
        IpAddr::V6(ip) if ip.is_loopback() => Ok(address),
        _ => Err("only a server on this machine may be loaded".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loaded() {
        for url in ["http://127.0.0.1:8080", "http://localhost:1/", "127.0.0.1:80", "http://[::1]:80"] {
            assert!(loopback(url).is_ok(), "{url}");
        }
        for url in ["http://10.0.0.1:80", "http://example.org:80", "https://127.0.0.1:1", "127.0.0.1", ""] {
            assert!(loopback(url).is_err(), "{url}");
        }
    }
}
