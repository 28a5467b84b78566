//! What becomes of the processes that a step's command starts: they are asked to end and have five seconds
//! for it, wherever they went, and nothing is left of them; also in a namespace, and as its first process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::support;

use support::called::{command, until};
use support::{Photon, step};

/// A child that needs a moment to end well. The shell that started it ends at the first SIGTERM. Neither says
/// so: when the worker is dead, nobody would take it.
const CLEANS_UP: &str = "exec 2> said
(trap 'sleep 0.3; echo > clean; exit' TERM; echo > ready; while :; do sleep 0.05; done) & wait";
/// Starts a process that leaves the group, and waits until it is there.
const SENDS_AWAY: &str = "rm -f away; setsid sh -c 'echo $$ > away; exec sleep 300' >/dev/null 2>&1 &
until [ -s away ]; do sleep 0.01; done; echo 1; [ -e ended ] || sleep 300";
/// A pool that has no worker unless there is work.
const POOL: &str = "[[pool]]
name = \"p\"
capability = \"work\"
max = 1
target_queue_seconds = 1
command = [\"true\"]
";

/// What follows becomes the first process of a PID namespace, which ends with it.
fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--kill-child", "--mount-proc"]);
    command
}

struct Worker {
    child: Child,
    folder: TempDir,
}

impl Worker {
    fn start(photon: &Photon, flags: &[&str], run: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let server = photon.url("");
        let child = command(["worker", "run", "--agent", "a", "--heartbeat", "200ms", "--server", &server])
            .args(flags)
            .arg("--")
            .args(run)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn of_script(photon: &Photon, script: &str) -> Self {
        Self::start(photon, &[], &["sh", "-c", script])
    }

    /// The same as the first process of a PID namespace, its group's number being known outside only, or in a
    /// session of its own as a container is started.
    fn in_namespace(photon: &Photon, wrapped: &[&str], script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let child = namespace()
            .args(wrapped)
            .args([env!("CARGO_BIN_EXE_photon"), "worker", "run", "--agent", "a"])
            .args(["--server", &photon.url(""), "--", "sh", "-c", script])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn until_there(&self, name: &str) {
        until(name, || self.path(name).exists());
    }

    /// The one that `unshare` started.
    fn first_child(&self) -> String {
        let mut first = None;
        until("there is a first process", || {
            first = children_of(&self.child.id().to_string()).into_iter().next();
            first.is_some()
        });
        first.unwrap()
    }

    fn pid_in(&self, name: &str) -> String {
        let mut pid = String::new();
        until("a process id is written", || {
            pid = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            pid.ends_with('\n')
        });
        pid.trim().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children_of(pid: &str) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn until_gone(pid: &str) {
    until("the process is gone", || state_of(pid).is_none_or(|state| state == 'Z'));
}

async fn submit(photon: &Photon) -> String {
    let mut work = step(1, "work", &[], json!({}));
    work["retryPolicy"] = json!({"maxAttempts": 1});
    photon.operation(json!([work])).await
}

async fn until_completed(photon: &Photon, id: &str) {
    let path = format!("/api/v1/operations/{id}");
    let ended = photon.until(&path, |shown| shown["completedAt"] != json!(null)).await;
    assert_eq!(ended["status"], json!("completed"), "{ended}");
}

#[tokio::test]
async fn a_cancel_leaves_every_process_of_the_group_time_to_end() {
    let photon = Photon::start().await;
    let worker = Worker::of_script(&photon, CLEANS_UP);
    let id = submit(&photon).await;
    worker.until_there("ready");
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    worker.until_there("clean");
}

#[tokio::test]
async fn so_does_the_death_of_the_worker() {
    let photon = Photon::start().await;
    let worker = Worker::of_script(&photon, CLEANS_UP);
    submit(&photon).await;
    worker.until_there("ready");
    kill_process(Pid::from_child(&worker.child), Signal::KILL).unwrap();
    worker.until_there("clean");
}

#[tokio::test]
async fn what_has_left_the_group_ends_with_its_step() {
    let photon = Photon::start().await;
    let worker = Worker::of_script(&photon, SENDS_AWAY);
    std::fs::write(worker.path("ended"), "").unwrap();
    let id = submit(&photon).await;
    until_completed(&photon, &id).await;
    until_gone(&worker.pid_in("away"));
    std::fs::remove_file(worker.path("ended")).unwrap();
    std::fs::remove_file(worker.path("away")).unwrap();
    let id = submit(&photon).await;
    let pid = worker.pid_in("away");
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    until_gone(&pid);
}

#[tokio::test]
async fn a_worker_whose_group_is_outside_its_namespace_performs_steps() {
    let photon = Photon::start().await;
    let _worker = Worker::in_namespace(&photon, &[], "echo 1");
    let id = submit(&photon).await;
    until_completed(&photon, &id).await;
}

#[tokio::test]
async fn the_first_process_of_a_namespace_leaves_no_zombies() {
    let photon = Photon::start().await;
    let script = "(setsid sh -c 'sleep 0.2' &) >/dev/null 2>&1; echo 1";
    let worker = Worker::in_namespace(&photon, &["setsid"], script);
    for _ in 0..3 {
        let id = submit(&photon).await;
        until_completed(&photon, &id).await;
    }
    let first = worker.first_child();
    until("nothing is left of the steps", || children_of(&first).is_empty());
}

#[tokio::test]
async fn a_server_that_is_the_first_process_leaves_no_zombies_either() {
    for pool in ["", POOL] {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("config.toml"), pool).unwrap();
        let mut server = namespace();
        server.args([env!("CARGO_BIN_EXE_photon"), "serve"]);
        server.current_dir(&folder).env("PHOTON_PORT", support::free_port().to_string());
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Worker { child: server.spawn().unwrap(), folder };
        let first = server.first_child();
        until("the server is at work", || server.path("data").exists());
        let orphan = Command::new("nsenter")
            .args(["--target", &first, "--pid", "sh", "-c"])
            .arg("(until [ -e end ]; do sleep 0.05; done) >/dev/null 2>&1 &")
            .current_dir(&server.folder)
            .status()
            .unwrap();
        assert!(orphan.success());
        until("the orphan is there", || children_of(&first).len() == 1);
        std::fs::write(server.path("end"), "").unwrap();
        until("nothing is left of it", || children_of(&first).is_empty());
    }
}

#[tokio::test]
async fn a_command_gets_the_variables_that_were_named_and_no_other() {
    let photon = Photon::start().await;
    let folder = TempDir::new().unwrap();
    let worker = Worker {
        child: command(["worker", "run", "--agent", "a", "--server", &photon.url("")])
            .args(["--env", "NAMED", "--env", "SET=by hand", "--", "sh", "-c"])
            .arg(r#"echo "${NAMED-none} ${SET-none} ${A_API_KEY-none} ${OTHER-none} ${PATH:+path}" "#)
            .envs([("NAMED", "named"), ("A_API_KEY", "secret"), ("OTHER", "other")])
            .stderr(std::fs::File::create(folder.path().join("said")).unwrap())
            .spawn()
            .unwrap(),
        folder,
    };
    let id = submit(&photon).await;
    until_completed(&photon, &id).await;
    let shown = photon.shown(&id).await;
    assert_eq!(shown["workflow"][0]["result"], json!("named by hand none none path"));
    let said = std::fs::read_to_string(worker.path("said")).unwrap();
    assert!(said.contains("--env A_API_KEY") && !said.contains("secret"), "{said}");
}
