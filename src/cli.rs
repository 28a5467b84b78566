//! Owns the command line: which commands there are, and what the process ends with.
//! It must never hold state of its own; whatever a command knows it asks a server or a file for.

mod agent;
mod backup;
mod bench;
mod canvas;
mod config;
mod connection;
mod demo;
mod event;
mod exit;
mod follow;
mod lane;
mod op;
mod output;
mod pick;
mod platform;
mod pool;
mod replay;
mod review;
mod routing;
mod serve;
mod settings_flags;
mod signals;
mod snapshot;
mod story;
mod table;
mod terminal;
mod tether;
mod timeline;
mod waits;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::private_files;
use connection::Connection;
use exit::{Complaint, Exit};

/// How long the end of the process waits for lines that nobody reads.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Photon coordinates AI agents over a durable event log.
#[derive(Debug, Parser)]
#[command(name = "photon", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = Exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::ServeArgs),
    /// Let a team of agents review a folder, to show what Photon does
    Demo(demo::DemoArgs),
    /// Create, list, show, follow and cancel operations
    #[command(subcommand)]
    Op(op::OpCommand),
    /// List, show, register, drain and remove agents
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Show and open the accounts that take no calls for now
    #[command(subcommand)]
    Lane(lane::LaneCommand),
    /// Show the platforms that steps can name
    #[command(subcommand)]
    Platform(platform::PlatformCommand),
    /// Show the pools of workers that the server keeps
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Turn any command into an agent
    #[command(subcommand)]
    Worker(worker::WorkerCommand),
    /// Show what happened
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Copy the log while the server runs, and restore such a copy
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Weigh the choices of agents anew
    #[command(subcommand)]
    Routing(routing::RoutingCommand),
    /// Fold the log of a server up to a position or a time, and show the result
    Replay(replay::ReplayArgs),
    /// Take, list and verify snapshots of what a server knows
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Check and explain the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Exit with 0 when the server takes requests
    Healthcheck(Connection),
    /// Print the version
    Version,
    /// Measure this machine: creations, operations, heartbeats, the log alone, restart; streams
    Bench(bench::Arguments),
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Performs one step of the demo's review: the step on standard input, the result on standard output
    #[command(hide = true)]
    Review(review::ReviewArgs),
    /// Runs a command that must not outlive the worker that started it
    #[command(hide = true)]
    Tether(tether::TetherArgs),
}

impl Command {
    /// Whether what it starts is not of this program and shall find the umask of whoever started it.
    fn runs_commands_of_others(&self) -> bool {
        matches!(self, Self::Worker(_) | Self::Tether(_) | Self::Review(_))
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        output::say("Try 'photon demo' to see Photon at work on your own files, or 'photon --help'.");
        return Exit::USAGE.into();
    };
    if !command.runs_commands_of_others() {
        private_files::begin();
    }
    let serves = matches!(command, Command::Serve(_));
    let system = actix_web::rt::System::new();
    let ended = system.block_on(perform(command));
    if serves {
        // Dropping it would wait for every thread of its pool, also for one that hangs at a disk.
        std::mem::forget(system);
    }
    let exit = ended.unwrap_or_else(|complaint| complaint.voice());
    crate::stderr::flush(LAST_LINES);
    exit.into()
}

async fn perform(command: Command) -> Result<Exit, Complaint> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Op(command) => op::run(command).await,
        Command::Agent(command) => agent::run(command).await,
        Command::Lane(command) => lane::run(command).await,
        Command::Platform(command) => platform::run(command).await,
        Command::Pool(command) => pool::run(command).await,
        Command::Worker(command) => worker::run(command).await,
        Command::Event(command) => event::run(command).await,
        Command::Backup(command) => backup::run(&command),
        Command::Routing(command) => routing::run(command).await,
        Command::Replay(arguments) => replay::run(arguments).await,
        Command::Snapshot(command) => snapshot::run(command).await,
        Command::Config(command) => config::run(&command),
        Command::Healthcheck(connection) => healthcheck(&connection).await,
        Command::Version => output::print(&format!("photon {}", env!("CARGO_PKG_VERSION"))),
        Command::Bench(arguments) => Ok(Exit::of(bench::run(arguments).await)),
        Command::Completion { shell } => completion(shell),
        Command::Review(arguments) => review::run(&arguments),
        Command::Tether(arguments) => tether::run(&arguments).await,
    }
}

async fn healthcheck(connection: &Connection) -> Result<Exit, Complaint> {
    connection.client()?.ready().await?;
    output::say("The server is ready.");
    Ok(Exit::DONE)
}

fn completion(shell: clap_complete::Shell) -> Result<Exit, Complaint> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "photon", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }
}
