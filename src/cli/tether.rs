//! `photon tether`: stands between a worker and the command that it runs, so that the command and all that it
//! started end when the command ends, when the worker says so, and also when the worker is killed and can do
//! nothing any more. It must never look at what the command reads or writes.

mod family;

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::exit::{Complaint, Exit};
use crate::processes;
use family::Family;

/// Between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often it is checked that the worker lives. Where the system tells of a parent's death this is only
/// the second line.
const PARENT_CHECK: Duration = Duration::from_millis(500);
/// How often it is checked who is left, once everybody shall end.
const END_CHECK: Duration = Duration::from_millis(20);
/// What to run, and for whom.
#[derive(Debug, Args)]
pub(super) struct TetherArgs {
    /// Process id of the worker
    #[arg(long)]
    parent: i32,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) async fn run(arguments: &TetherArgs) -> Result<Exit, Complaint> {
    let refused = |cause| Complaint::new(Exit::CANNOT_START, format!("Signals cannot be received: {cause}."));
    let mut heard = Heard::watch().map_err(refused)?;
    tell_of_death_of_parent();
    processes::adopt_orphans();
    let parent = Pid::from_raw(arguments.parent);
    if getppid() != parent {
        return Ok(Exit::FAILED);
    }
    let mut family = Family::start(&arguments.command)?;
    let mut deadline: Option<Instant> = None;
    loop {
        let pause = if deadline.is_some() { END_CHECK } else { PARENT_CHECK };
        let asked = tokio::select! {
            asked = heard.next() => asked,
            () = sleep(pause) => None,
        };
        let has_ended = family.has_ended();
        if has_ended && !family.is_anyone_left() {
            break;
        }
        if let Some(grace) = asked.or((has_ended || getppid() != parent).then_some(GRACE)) {
            let end = Instant::now() + grace;
            if deadline.is_none() {
                family.ask_to_end();
            }
            deadline = Some(deadline.map_or(end, |earlier| earlier.min(end)));
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            family.kill().await;
            break;
        }
    }
    Ok(family.exit())
}

#[cfg(target_os = "linux")]
fn tell_of_death_of_parent() {
    // Without it the checks still see it, only later.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::USR1));
}

#[cfg(not(target_os = "linux"))]
fn tell_of_death_of_parent() {}

/// The signals that mean something here.
struct Heard {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    orphaned: Signal,
    child: Signal,
}

impl Heard {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            orphaned: signal(SignalKind::user_defined1())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// The next one; within which grace everybody shall end, if that is what it asks for.
    async fn next(&mut self) -> Option<Duration> {
        tokio::select! {
            _ = self.terminate.recv() => Some(GRACE),
            _ = self.interrupt.recv() => Some(GRACE),
            _ = self.hangup.recv() => Some(GRACE),
            _ = self.quit.recv() => Some(Duration::ZERO),
            // The command may send the same signal for reasons of its own.
            _ = self.orphaned.recv() => None,
            _ = self.child.recv() => None,
        }
    }
}
