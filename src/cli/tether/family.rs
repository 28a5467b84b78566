//! Owns the command and everything that descends from it: its process group, and what has left that. It must
//! never signal a process of somebody else: the command's end is noted last, so that its id, which is also
//! the group's, stays its own as long as signals are sent to it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpgid, kill_process_group,
    test_kill_process_group, waitid, waitpid,
};
use tokio::time::{Instant, sleep};

use super::super::exit::{Complaint, Exit};
use crate::processes;

/// How long SIGKILL is repeated; only what the system itself holds on to survives it.
const KILL_MAX: Duration = Duration::from_secs(2);
const KILL_AGAIN: Duration = Duration::from_millis(10);

/// The command, and what it started.
pub(super) struct Family {
    /// The command, which leads a group of its own.
    leader: Pid,
    /// How it ended, once that is noted.
    status: Option<WaitStatus>,
}

impl Family {
    pub(super) fn start(command: &[OsString]) -> Result<Self, Complaint> {
        let (program, arguments) = command
            .split_first()
            .map_or((OsString::new(), &[][..]), |(program, arguments)| (program.clone(), arguments));
        let child = Command::new(&program).args(arguments).process_group(0).spawn().map_err(|cause| {
            let sentence = format!("{} cannot be started: {cause}.", program.to_string_lossy());
            Complaint::new(Exit::CANNOT_START, sentence)
        })?;
        Ok(Self { leader: Pid::from_child(&child), status: None })
    }

    /// Whether the command itself has ended. What else has ended is cleared away.
    pub(super) fn has_ended(&self) -> bool {
        processes::bury(&HashSet::from([self.leader]));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error says that there is no such child any more.
        self.status.is_some() || !matches!(waitid(WaitId::Pid(self.leader), options), Ok(None))
    }

    /// Whether anybody lives.
    pub(super) fn is_anyone_left(&mut self) -> bool {
        if let Some(left) = processes::offspring(&HashSet::new()) {
            return !left.is_empty();
        }
        // Once its end is noted, there is a group only if others are in it.
        self.note_end();
        test_kill_process_group(self.leader).is_ok()
    }

    /// SIGTERM, once to each.
    pub(super) fn ask_to_end(&self) {
        let _ = kill_process_group(self.leader, Signal::TERM);
        let mut outside = processes::offspring(&HashSet::new()).unwrap_or_default();
        outside.retain(|process| getpgid(Some(*process)) != Ok(self.leader));
        processes::signal(&outside, Signal::TERM);
    }

    /// SIGKILL, until nobody is left: one that is about to be killed may start another.
    pub(super) async fn kill(&mut self) {
        let begun = Instant::now();
        loop {
            let _ = kill_process_group(self.leader, Signal::KILL);
            processes::signal(&processes::offspring(&HashSet::new()).unwrap_or_default(), Signal::KILL);
            sleep(KILL_AGAIN).await;
            if (self.has_ended() && !self.is_anyone_left()) || begun.elapsed() > KILL_MAX {
                return;
            }
        }
    }

    fn note_end(&mut self) {
        if self.status.is_none() {
            let noted = waitpid(Some(self.leader), WaitOptions::NOHANG).ok().flatten();
            self.status = noted.map(|(_, status)| status);
        }
    }

    /// What the command ended with.
    pub(super) fn exit(mut self) -> Exit {
        self.note_end();
        let status = self.status.map(|status| (status.exit_status(), status.terminating_signal()));
        match status {
            Some((Some(code), _)) => Exit::of(code),
            Some((None, Some(signal))) => Exit::by_signal(signal),
            _ => Exit::FAILED,
        }
    }
}
