//! Owns the agents of the demo: who they are, and their processes. It must never leave one of these behind.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A part of the team.
pub(super) struct Role {
    pub(super) agent: &'static str,
    /// Actions of the review that it can perform.
    pub(super) actions: &'static [&'static str],
}

/// The specialists, and one who can do what most of them do, only less well: a specialist is preferred.
pub(super) const ROLES: [Role; 8] = [
    Role { agent: "scout", actions: &["manifest"] },
    Role { agent: "marker", actions: &["todo-marks"] },
    Role { agent: "twin-finder", actions: &["duplicates"] },
    Role { agent: "linkcheck", actions: &["broken-links"] },
    Role { agent: "guard", actions: &["secrets"] },
    Role { agent: "historian", actions: &["churn"] },
    Role { agent: "editor", actions: &["report"] },
    Role { agent: "understudy", actions: &["todo-marks", "duplicates", "broken-links", "secrets", "churn"] },
];

/// The action whose first worker is killed in the middle.
pub(super) const VICTIM_ACTION: &str = "duplicates";
/// How long the first attempt of that action holds before it begins. It stands for work that takes longer
/// than a look at a few files: a process can only be killed in the middle when there is a middle. The kill
/// comes long before the hold is over; the second attempt does not hold.
const HOLD_MS: u64 = 3_000;
/// How often the agents say that they live, so that a silence is noticed soon.
const HEARTBEAT: &str = "500ms";
/// How long the agents may take to leave.
const LEAVING: Duration = Duration::from_secs(4);

/// The capability that a step requires for an action.
pub(super) fn capability(action: &str) -> String {
    format!("review:{action}")
}

/// The running team.
pub(super) struct Team {
    members: Vec<Member>,
}

struct Member {
    agent: &'static str,
    process: Child,
}

impl Team {
    /// Starts every agent as a process of its own, in a group of its own, so that a Ctrl-C at the terminal
    /// reaches only the demo, which then ends them in order.
    pub(super) fn assemble(server: &str, log: &Path) -> io::Result<Self> {
        let photon = std::env::current_exe()?;
        let mut team = Self { members: Vec::new() };
        for role in &ROLES {
            let process = start(role, &photon, server, log)?;
            team.members.push(Member { agent: role.agent, process });
        }
        Ok(team)
    }

    /// An agent whose process has ended though nobody asked it to.
    pub(super) fn lost(&mut self) -> Option<&'static str> {
        let mut members = self.members.iter_mut();
        members.find_map(|member| matches!(member.process.try_wait(), Ok(Some(_))).then_some(member.agent))
    }

    /// Kills an agent's process group with SIGKILL and tells the process id; none when it has ended already.
    pub(super) async fn kill(&mut self, agent: &str) -> Option<i32> {
        let at = self.members.iter().position(|member| member.agent == agent)?;
        let mut member = self.members.swap_remove(at);
        let group = member.group()?;
        kill_process_group(group, Signal::KILL).ok()?;
        // A killed process ends at once; what is waited for is only that the system says so.
        let _ = member.process.wait().await;
        Some(group.as_raw_nonzero().get())
    }

    /// Asks every agent to leave, and makes those leave that do not.
    pub(super) async fn dismiss(&mut self) {
        self.signal(Signal::TERM);
        let members = &mut self.members;
        let all_left = async {
            for member in members.iter_mut() {
                let _ = member.process.wait().await;
            }
        };
        let _ = timeout(LEAVING, all_left).await;
        self.signal(Signal::KILL);
        for member in &mut self.members {
            let _ = member.process.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        for group in self.members.iter().filter_map(Member::group) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Member {
    /// Its process group; none once its end has been seen, since the number may be somebody else's then.
    fn group(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }
}

fn start(role: &Role, photon: &PathBuf, server: &str, log: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(photon);
    command.args(["worker", "run", "--agent", role.agent, "--server", server, "--heartbeat", HEARTBEAT]);
    command.args(["--label", "team=review", "--tied-to", &std::process::id().to_string()]);
    for action in role.actions {
        command.args(["--capability", &capability(action)]);
    }
    command.arg("--").arg(photon).args(["review", "--hold-action", VICTIM_ACTION]);
    command.args(["--hold-ms", &HOLD_MS.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn()
}
