//! `photon worker run`: turns any command into an agent. Owns the life of the worker's process, from its
//! registration to its last report; what it is told to do comes from the server and from signals.

mod claiming;
mod command;
mod environment;
mod launch;
mod performing;
mod program;
mod pulse;
mod session;

use std::ffi::OsString;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use clap::{Args, Subcommand};
use rustix::process::{Pid, getppid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};

use super::agent::ProfileArgs;
use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output;
use super::serve::{detach, watched};
use super::signals::Signals;
use crate::{private_files, processes};
use environment::{Environment, Passed};
use launch::Launch;
use session::{Phase, Session};

/// How long the farewell may take; a server that is away learns of it by the silence.
const FAREWELL: Duration = Duration::from_secs(2);
const PARENT_CHECK: Duration = Duration::from_millis(500);

/// What to do as an agent.
#[derive(Debug, Subcommand)]
pub(super) enum WorkerCommand {
    /// Runs a command once for each step: the step as JSON on its standard input, the result on its output
    ///
    /// An exit code other than 0 fails the attempt, with the end of the standard error as the reason; 64 and
    /// 65 say that another attempt would not help. When the step is cancelled, the command and all that it
    /// started get SIGTERM, and SIGKILL five seconds later; so do processes that outlive their command.
    ///
    /// Of the worker's environment the command gets PATH, HOME, USER, LANG, LC_ALL, TZ, TMPDIR, and what is
    /// named with --env.
    Run(RunArgs),
}

/// Which agent, and what it runs.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Id of the agent
    #[arg(long, value_name = "ID")]
    agent: String,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    connection: Connection,
    /// Passes a variable on to the command, or sets one; may be repeated. A value that is given here can be
    /// seen in the list of processes: of a key give the name alone
    #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = Passed::read)]
    environment: Vec<Passed>,
    /// Ends with the process of this id, its parent
    #[arg(long, value_name = "PID", hide = true)]
    tied_to: Option<i32>,
    /// Umask of the command, in octal digits
    #[arg(long, value_name = "OCTAL", hide = true)]
    umask: Option<String>,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(command: WorkerCommand) -> Result<Exit, Complaint> {
    let WorkerCommand::Run(arguments) = command;
    detach()?;
    let mut signals = watched()?;
    let parent = tied(arguments.tied_to)?;
    if let Some(umask) = &arguments.umask {
        private_files::give_back(umask).map_err(|sentence| Complaint::new(Exit::USAGE, sentence))?;
    }
    let launch = Launch::of(&arguments.command, environment(&arguments.environment))?;
    processes::adopt_orphans();
    let client = arguments.connection.client()?;
    let session = Rc::new(Session::new(client, arguments.profile.request(&arguments.agent), launch));
    tokio::select! {
        registered = session.register() => registered?,
        exit = signals.next() => return Ok(exit),
    }
    let beating = rt::spawn(pulse::run(Rc::clone(&session)));
    let claiming = rt::spawn(claiming::run(Rc::clone(&session)));
    let burying = rt::spawn(bury_orphans(Rc::clone(&session)));
    until_over(&session, &mut signals, parent).await;
    burying.abort();
    claiming.abort();
    beating.abort();
    match session.phase() {
        Phase::TakenOver => {
            let sentence = "Another process has registered this agent, so that this one ends.";
            Err(Complaint::new(Exit::CONFLICT, sentence))
        }
        Phase::Stopping(exit) => {
            // Whether it is heard or not, the process ends.
            let _ = timeout(FAREWELL, session.say_farewell()).await;
            Ok(exit)
        }
        Phase::Working | Phase::Draining => Ok(Exit::DONE),
    }
}

/// What the command gets of this process's environment. Says which keys it does not get: a worker may have
/// them for other reasons, so that this is no error.
fn environment(passed: &[Passed]) -> Environment {
    let environment = Environment::of(passed, |name| std::env::var_os(name));
    let there = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in environment.missed(there) {
        output::say(&format!("{name} is not passed on to the command: to do so, add '--env {name}'."));
    }
    environment
}

/// Clears away what outlived its parent: as the first process of a container nobody else does.
async fn bury_orphans(session: Rc<Session>) {
    // Without the signal they stay until the worker ends.
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        session.launch.bury_orphans();
    }
}

/// Waits until the worker is told to end and has no step left.
async fn until_over(session: &Rc<Session>, signals: &mut Signals, parent: Option<Pid>) {
    let mut checks = interval(PARENT_CHECK);
    loop {
        tokio::select! {
            exit = signals.next() => session.stop(exit),
            _ = checks.tick() => if parent.is_some() && getppid() != parent { session.stop(Exit::FAILED) },
            () = session.over() => return,
        }
    }
}

/// Makes the system end this process with its parent, where the system can.
fn tied(parent: Option<i32>) -> Result<Option<Pid>, Complaint> {
    let Some(parent) = parent.and_then(Pid::from_raw) else { return Ok(None) };
    #[cfg(target_os = "linux")]
    {
        // If it fails, the checks above still see the parent's end.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    if getppid() == Some(parent) {
        return Ok(Some(parent));
    }
    Err(Complaint::new(Exit::FAILED, "The process that started this worker has gone."))
}
