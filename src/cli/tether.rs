//! `photon tether`: stands between a worker and the command that it runs, so that the command and all that it
//! started in its process group end when the command ends, and also when the worker is killed and can do
//! nothing any more. It must never look at what the command reads or writes.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, getpgid, getpid, getppid, kill_process_group, setpgid};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::exit::{Complaint, Exit};

/// How often it is checked that the worker lives. Where the system tells of a parent's death this is only
/// the second line.
const PARENT_CHECK: Duration = Duration::from_millis(500);

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
    // The group gets these, the command decides about them; the tether goes when the command has gone.
    let _kept = (
        signal(SignalKind::terminate()).map_err(refused)?,
        signal(SignalKind::interrupt()).map_err(refused)?,
        signal(SignalKind::hangup()).map_err(refused)?,
    );
    let mut orphaned = signal(SignalKind::user_defined1()).map_err(refused)?;
    tell_of_death_of_parent();
    let parent = Pid::from_raw(arguments.parent);
    if getppid() != parent {
        return Ok(Exit::FAILED);
    }
    let (program, rest) = arguments
        .command
        .split_first()
        .map_or((OsString::new(), &[][..]), |(program, rest)| (program.clone(), rest));
    let mut child = Command::new(&program).args(rest).spawn().map_err(|cause| {
        let sentence = format!("{} cannot be started: {cause}.", program.to_string_lossy());
        Complaint::new(Exit::CANNOT_START, sentence)
    })?;
    let mut checks = interval(PARENT_CHECK);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            // The command may send its group the same signal for reasons of its own.
            _ = orphaned.recv() => if getppid() != parent { end_group() },
            _ = checks.tick() => if getppid() != parent { end_group() },
        }
    };
    end_rest_of_group(parent);
    let status =
        status.map_err(|cause| Complaint::new(Exit::FAILED, format!("The command is lost: {cause}.")))?;
    Ok(exit_of(status))
}

#[cfg(target_os = "linux")]
fn tell_of_death_of_parent() {
    // Without it the checks still see it, only later.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::USR1));
}

#[cfg(not(target_os = "linux"))]
fn tell_of_death_of_parent() {}

/// Ends the whole group, itself included. Who started it by hand, in a group of others, is spared.
fn end_group() {
    if getpgid(None).is_ok_and(|group| group == getpid()) {
        let _ = kill_process_group(getpid(), Signal::KILL);
    }
    std::process::exit(1);
}

/// Ends what the command left behind. The tether steps out of the group first; as long as it lives its id,
/// which is also the group's, cannot become somebody else's.
fn end_rest_of_group(parent: Option<Pid>) {
    if !getpgid(None).is_ok_and(|group| group == getpid()) {
        return;
    }
    let outside = getpgid(parent).and_then(|group| setpgid(None, Some(group)));
    if outside.is_ok() {
        let _ = kill_process_group(getpid(), Signal::KILL);
    } else {
        end_group();
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::of(code),
        (None, Some(signal)) => Exit::by_signal(signal),
        (None, None) => Exit::FAILED,
    }
}
