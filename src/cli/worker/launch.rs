//! Owns how a worker starts its command, and what it does about those that it started. It must never leave a
//! process behind, also when what stands between it and the command is killed.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::exit::{Complaint, Exit};
use super::super::tether::GRACE;
use super::environment::Environment;
use super::program;
use crate::processes;

/// What a tether may take beyond the grace that it leaves to the command.
const MARGIN: Duration = Duration::from_secs(3);
/// Between two looks at who is left.
const LOOK: Duration = Duration::from_millis(50);
/// How long SIGKILL is repeated.
const KILL_MAX: Duration = Duration::from_secs(2);

/// What a worker runs.
pub(super) struct Launch {
    /// This program, which also is the tether.
    photon: PathBuf,
    command: Vec<OsString>,
    environment: Environment,
    /// The tethers that run, whose ends are waited for elsewhere.
    tethers: RefCell<HashSet<Pid>>,
}

impl Launch {
    /// Refuses a command that cannot start, before a step fails for it.
    pub(super) fn of(command: &[OsString], environment: Environment) -> Result<Self, Complaint> {
        let photon = std::env::current_exe();
        let photon = photon.map_err(|cause| {
            Complaint::new(Exit::FAILED, format!("This program does not find itself: {cause}."))
        })?;
        let name = command.first().cloned().unwrap_or_default();
        program::check(name.as_ref(), environment.get("PATH"))
            .map_err(|reason| Complaint::new(Exit::USAGE, reason))?;
        Ok(Self { photon, command: command.to_vec(), environment, tethers: RefCell::default() })
    }

    /// Starts the command.
    pub(super) fn spawn(&self) -> std::io::Result<Tethered<'_>> {
        let child = Command::new(&self.photon)
            .args(["tether", "--parent", &std::process::id().to_string(), "--"])
            .args(&self.command)
            .env_clear()
            .envs(self.environment.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        self.tethers.borrow_mut().extend(id);
        Ok(Tethered { launch: self, child, id })
    }

    /// Clears away processes that have ended and that nobody else waits for: what outlived its parent.
    pub(super) fn bury_orphans(&self) {
        processes::bury(&self.tethers.borrow());
    }

    /// Ends what a tether left that was killed itself; the others and what they hold are spared.
    async fn end_orphans(&self) {
        let orphans = || processes::offspring(&self.tethers.borrow()).unwrap_or_default();
        processes::signal(&orphans(), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < GRACE + KILL_MAX {
            let left = orphans();
            if left.is_empty() {
                return;
            }
            if begun.elapsed() > GRACE {
                processes::signal(&left, Signal::KILL);
            }
            sleep(LOOK).await;
            self.bury_orphans();
        }
    }
}

/// A command that runs.
pub(super) struct Tethered<'l> {
    launch: &'l Launch,
    pub(super) child: Child,
    id: Option<Pid>,
}

impl Tethered<'_> {
    /// Waits for the end of the command and of everything that it started.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // A tether that ended by itself has ended the rest. One that was killed could not.
        if status.as_ref().is_ok_and(|status| status.code().is_none()) {
            self.forget();
            self.launch.end_orphans().await;
        }
        status
    }

    /// Ends all of it: asked first, forced after the grace, or at once when `hurry` completes.
    pub(super) async fn end(&mut self, hurry: impl Future<Output = ()>) {
        self.signal(Signal::TERM);
        tokio::select! {
            _ = self.wait() => return,
            () = sleep(GRACE + MARGIN) => {}
            () = hurry => {
                self.signal(Signal::QUIT);
                if timeout(MARGIN, self.wait()).await.is_ok() {
                    return;
                }
            }
        }
        let _ = self.child.start_kill();
        let _ = self.wait().await;
    }

    fn signal(&self, signal: Signal) {
        // Without an id its end was seen already, and the number may be somebody else's.
        if let Some(id) = self.id.filter(|_| self.child.id().is_some()) {
            let _ = kill_process(id, signal);
        }
    }

    fn forget(&self) {
        if let Some(id) = self.id {
            self.launch.tethers.borrow_mut().remove(&id);
        }
    }
}

impl Drop for Tethered<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}
