//! Owns one worker of a pool: its process, from the start to the last trace of it. It must never outlive its
//! owner, nor decide whether it is needed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use actix_web::rt;
use domain::agent::Agent;
use domain::agent::event::Status;
use domain::{AgentId, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::speech::{LastWords, listen};
use crate::private_files;
use crate::processes::ALWAYS_PASSED;
use crate::settings::Pool;

/// How often a worker says that it lives, and hears whether it shall leave.
const HEARTBEAT: &str = "2s";
/// A worker registers within this time, or is asked to end.
const START_MAX: Duration = Duration::from_secs(30);
/// One that shall leave and has no step left does so within this time, or is asked with a signal.
const LEAVE_MAX: Duration = Duration::from_secs(15);
/// From SIGTERM to SIGKILL: the worker's own grace for its command, and its farewell.
const TERM_MAX: Duration = Duration::from_secs(10);

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not registered yet.
    Starting,
    /// Takes steps.
    Working,
    /// Takes none any more and ends after the one it has.
    Leaving,
}

/// One worker.
pub(super) struct Worker {
    pub(super) agent: AgentId,
    pub(super) stage: Stage,
    /// Steps in its hands at the last look.
    pub(super) held: u64,
    /// Whether its end is wished for.
    pub(super) asked: bool,
    /// Whether it was ever there for steps.
    pub(super) worked: bool,
    pub(super) started_at: Timestamp,
    /// The incarnation that its agent had before it.
    before: u64,
    /// Since when it should have gone on to the next stage.
    since: Instant,
    terminated: Option<Instant>,
    process: Child,
    last_words: LastWords,
    listening: Option<JoinHandle<()>>,
}

/// How to start workers.
pub(super) struct Launch {
    /// This program.
    pub(super) photon: PathBuf,
    /// This server.
    pub(super) server: SocketAddr,
}

impl Launch {
    /// Starts a worker. It ends with the thread that calls this, however that ends.
    pub(super) fn start(
        &self,
        pool: &Pool,
        agent: AgentId,
        before: u64,
        now: Timestamp,
    ) -> io::Result<Worker> {
        let mut process = self.command(pool, &agent).spawn()?;
        let last_words = LastWords::default();
        let listening = process.stderr.take().map(|said| {
            let listening = listen(said, agent.to_string(), last_words.clone());
            rt::spawn(listening)
        });
        Ok(Worker {
            agent,
            stage: Stage::Starting,
            held: 0,
            asked: false,
            worked: false,
            started_at: now,
            before,
            since: Instant::now(),
            terminated: None,
            process,
            last_words,
            listening,
        })
    }

    fn command(&self, pool: &Pool, agent: &AgentId) -> Command {
        let mut command = Command::new(&self.photon);
        command
            .args(["worker", "run", "--agent", agent.as_str(), "--capability", &pool.capability])
            .args(["--max", &pool.max_concurrent_steps.to_string(), "--heartbeat", HEARTBEAT])
            .args(["--location", pool.location.name(), "--server", &format!("http://{}", self.server)])
            .args(["--tied-to", &std::process::id().to_string()]);
        if let Some(model) = &pool.model {
            command.args(["--model", model]);
        }
        if let Some(umask) = private_files::former() {
            command.args(["--umask", &umask]);
        }
        for (key, value) in &pool.labels {
            command.args(["--label", &format!("{key}={value}")]);
        }
        for name in &pool.environment {
            command.args(["--env", name]);
        }
        command.arg("--").args(&pool.command).env_clear();
        for name in ALWAYS_PASSED.into_iter().chain(pool.environment.iter().map(String::as_str)) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // In a group of its own, a Ctrl-C at the terminal reaches only the server, which ends it in order.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

impl Worker {
    /// Takes in how its agent stands, and how many leases it holds.
    pub(super) fn look(&mut self, agent: Option<&Agent>, held: u64) {
        let agent = agent.filter(|agent| agent.incarnation > self.before);
        self.held = agent.map_or(0, |_| held);
        let is_active = agent.is_some_and(|agent| agent.status == Status::Active);
        match self.stage {
            Stage::Starting if agent.is_some() && is_active && !self.asked => self.enter(Stage::Working),
            // Somebody else drained it, or it is stuck and was found silent.
            Stage::Starting | Stage::Working if agent.is_some() && !is_active => self.enter(Stage::Leaving),
            // It was silent for a while and is heard again.
            Stage::Leaving if is_active && !self.asked && self.terminated.is_none() => {
                self.enter(Stage::Working);
            }
            Stage::Leaving if self.held > 0 => self.since = Instant::now(),
            _ => {}
        }
    }

    /// It shall take no more work.
    pub(super) fn ask_to_leave(&mut self) {
        self.asked = true;
        self.enter(Stage::Leaving);
    }

    fn enter(&mut self, stage: Stage) {
        self.worked |= stage == Stage::Working;
        (self.stage, self.since) = (stage, Instant::now());
    }

    /// Makes a worker end that takes too long for what it should do.
    pub(super) fn hurry(&mut self) {
        let most = match self.stage {
            Stage::Starting => START_MAX,
            Stage::Working => return,
            Stage::Leaving => LEAVE_MAX,
        };
        match self.terminated {
            None if self.since.elapsed() > most => self.terminate(),
            Some(at) if at.elapsed() > TERM_MAX => self.kill(),
            _ => {}
        }
    }

    /// SIGTERM: it gives its steps back and ends.
    pub(super) fn terminate(&mut self) {
        self.terminated.get_or_insert_with(Instant::now);
        if let Some(id) = self.process() {
            let _ = kill_process(id, Signal::TERM);
        }
    }

    /// Its process. Without an id its end was seen already, and the number may be somebody else's.
    pub(super) fn process(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// SIGKILL: what it started ends with it.
    pub(super) fn kill(&mut self) {
        let _ = self.process.start_kill();
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) {
        let _ = self.process.wait().await;
    }

    /// Waits until everything it said has been read; to be asked after its end.
    pub(super) async fn silent(&mut self) {
        if let Some(listening) = self.listening.take() {
            let _ = listening.await;
        }
    }

    /// A sentence about its end.
    pub(super) fn obituary(&self, status: ExitStatus) -> String {
        let agent = &self.agent;
        match self.last_words.get() {
            Some(words) => format!("Worker {agent} ended with {status}: {words}"),
            None => format!("Worker {agent} ended with {status}."),
        }
    }
}
