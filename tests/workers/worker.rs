//! `photon worker run` as a black box: results, failures, cancels, signals, and a server that goes away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support;

use support::called::{call, command, full_pipe, until};
use support::{Photon, checker, step};

/// Says that it is at work by writing its process id and that of a child into files, then works for ever.
const WORK_FOR_EVER: &str = "sleep 300 & echo $! > child; echo $$ > shell; wait";

struct Worker {
    child: Child,
    folder: TempDir,
}

impl Worker {
    /// A worker for the capability `work` that runs a shell script in a folder of its own.
    fn start(photon: &Photon, agent: &str, script: &str) -> Self {
        Self::called(photon, agent, &["--heartbeat", "200ms"], script)
    }

    fn called(photon: &Photon, agent: &str, flags: &[&str], script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let server = photon.url("");
        let run = ["worker", "run", "--agent", agent, "--capability", "work", "--server", &server];
        let child = command(run)
            .args(flags)
            .args(["--", "sh", "-c", script])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit(&mut self) -> i32 {
        let mut code = None;
        until("the worker ends", || {
            code = self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code.unwrap()
    }

    /// Waits for the processes of `WORK_FOR_EVER`.
    fn processes(&self) -> [Pid; 2] {
        ["shell", "child"].map(|name| pid_in(&self.path(name)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid_in(file: &Path) -> Pid {
    let mut pid = None;
    until("a process id is written", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pid = text.ends_with('\n').then(|| text.trim().parse().unwrap());
        pid.is_some()
    });
    Pid::from_raw(pid.unwrap()).unwrap()
}

/// Whether none of them runs. One that has ended counts as gone before its parent has taken note of it.
fn are_gone(processes: &[Pid]) -> bool {
    processes.iter().all(|process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"))
    })
}

fn work(attempts: u32) -> Value {
    let mut work = step(1, "work", &[], json!({"question": "why"}));
    work["requires"] = json!({"capabilities": ["work"]});
    work["retryPolicy"] = json!({"maxAttempts": attempts, "initialDelayMs": 50, "jitter": 0.0});
    work
}

async fn submit(photon: &Photon, attempts: u32) -> String {
    photon.operation(json!([work(attempts)])).await
}

async fn until_status(photon: &Photon, id: &str, status: &str) -> Value {
    let path = format!("/api/v1/operations/{id}");
    let shown = photon.until(&path, |operation| operation["workflow"][0]["status"] == status).await;
    shown["workflow"][0].clone()
}

#[tokio::test]
async fn the_step_goes_in_as_json_and_its_result_comes_out_as_json_or_as_a_text() {
    let photon = Photon::start().await;
    let echo = Worker::start(&photon, "echo", "cat");
    let id = submit(&photon, 1).await;
    let done = until_status(&photon, &id, "completed").await;
    let seen = &done["result"];
    assert_eq!(seen["operationId"], json!(id));
    assert_eq!((&seen["step"], &seen["attempt"], &seen["action"]), (&json!(1), &json!(1), &json!("work")));
    assert_eq!(seen["inputs"], json!({"question": "why"}));
    drop(echo);
    photon.delete("/api/v1/agents/echo").await.expect(200);
    let _poet = Worker::start(&photon, "poet", "echo 'because of reasons'");
    let id = submit(&photon, 1).await;
    assert_eq!(until_status(&photon, &id, "completed").await["result"], json!("because of reasons"));
}

#[tokio::test]
async fn an_exit_code_fails_the_attempt_with_the_last_words_as_the_reason() {
    let photon = Photon::start().await;
    let script = r#"if grep -q '"attempt":1'; then echo "no luck" >&2; exit 3; fi; echo '"second"'"#;
    let _worker = Worker::start(&photon, "a", script);
    let id = submit(&photon, 1).await;
    let failed = until_status(&photon, &id, "failed").await;
    assert_eq!((&failed["errorCode"], &failed["error"]), (&json!("exit_3"), &json!("no luck")));
    let id = submit(&photon, 2).await;
    let done = until_status(&photon, &id, "completed").await;
    assert_eq!((&done["result"], &done["attempt"]), (&json!("second"), &json!(2)));
}

#[tokio::test]
async fn bad_input_and_a_result_that_is_too_large_are_not_tried_again() {
    let photon = Photon::start().await;
    for (agent, script, code) in
        [("a", "exit 65", "exit_65"), ("b", "head -c 300000 /dev/zero | tr '\\0' x", "too_large")]
    {
        let _worker = Worker::start(&photon, agent, script);
        let id = submit(&photon, 5).await;
        let failed = until_status(&photon, &id, "failed").await;
        assert_eq!((&failed["errorCode"], &failed["attempt"]), (&json!(code), &json!(1)));
        photon.delete(&format!("/api/v1/agents/{agent}")).await.expect(200);
    }
}

#[tokio::test]
async fn a_worker_takes_as_many_steps_at_once_as_it_may() {
    let photon = Photon::start().await;
    // Each waits for the other, so that both end only when they run at the same time.
    let script = "touch at-$$; until [ $(ls | grep -c at-) = 2 ]; do sleep 0.01; done; echo 1";
    let _worker = Worker::called(&photon, "a", &["--max", "2"], script);
    let first = submit(&photon, 1).await;
    let second = submit(&photon, 1).await;
    until_status(&photon, &first, "completed").await;
    until_status(&photon, &second, "completed").await;
}

#[tokio::test]
async fn a_cancel_ends_every_process_of_the_step_and_frees_the_agent() {
    let photon = Photon::start().await;
    let worker = Worker::start(&photon, "a", WORK_FOR_EVER);
    let id = submit(&photon, 1).await;
    let processes = worker.processes();
    assert!(!are_gone(&processes));
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    until("the processes are gone", || are_gone(&processes));
    photon.until("/api/v1/agents/a/availability", |slots| slots["free"] == 1).await;
}

#[tokio::test]
async fn a_command_that_ignores_the_cancel_is_killed() {
    let photon = Photon::start().await;
    let script = format!("trap '' TERM; {WORK_FOR_EVER}; {WORK_FOR_EVER}");
    let worker = Worker::start(&photon, "a", &script);
    let id = submit(&photon, 1).await;
    let processes = worker.processes();
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    until("the processes are gone", || are_gone(&processes));
}

#[tokio::test]
async fn an_attempt_ends_at_its_hard_deadline() {
    let photon = Photon::start().await;
    let worker = Worker::start(&photon, "a", WORK_FOR_EVER);
    let mut late = work(1);
    late["timeout"] = json!(1_000);
    let id = photon.operation(json!([late])).await;
    let processes = worker.processes();
    let failed = until_status(&photon, &id, "failed").await;
    assert_eq!(failed["errorCode"], json!("timeout"));
    until("the processes are gone", || are_gone(&processes));
}

#[tokio::test]
async fn a_result_survives_that_the_server_was_away_when_it_came() {
    let mut photon = Photon::start().await;
    let script = "echo $$ > shell; until [ -e go ]; do sleep 0.01; done; echo '\"kept\"'";
    let worker = Worker::start(&photon, "a", script);
    let id = submit(&photon, 1).await;
    let shell = pid_in(&worker.path("shell"));
    until_status(&photon, &id, "running").await;
    photon.kill();
    std::fs::write(worker.path("go"), "").unwrap();
    until("the command has ended", || are_gone(&[shell]));
    photon.restart().await;
    let done = until_status(&photon, &id, "completed").await;
    assert_eq!((&done["result"], &done["attempt"]), (&json!("kept"), &json!(1)));
    assert!(!photon.history(&id).await.contains(&"step.lease_lost".to_owned()));
}

#[tokio::test]
async fn a_worker_that_is_asked_to_end_gives_its_step_back_and_leaves_nothing() {
    let photon = Photon::start().await;
    for (agent, signal, exit) in [("a", Signal::TERM, 0), ("b", Signal::INT, 130)] {
        let mut worker = Worker::start(&photon, agent, WORK_FOR_EVER);
        let id = submit(&photon, 1).await;
        let processes = worker.processes();
        until_status(&photon, &id, "running").await;
        worker.signal(signal);
        assert_eq!(worker.exit(), exit);
        assert!(are_gone(&processes));
        assert!(photon.history(&id).await.contains(&"step.released".to_owned()));
        let shown = photon.shown(&id).await;
        assert_eq!(shown["workflow"][0]["status"], json!("ready"));
        let agent = photon.get(&format!("/api/v1/agents/{agent}")).await.expect(200);
        assert_eq!(agent.data()["status"], json!("inactive"));
        photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    }
}

#[tokio::test]
async fn a_killed_worker_leaves_no_process_and_its_step_goes_to_another() {
    let photon = Photon::start().await;
    let mut worker = Worker::start(&photon, "a", WORK_FOR_EVER);
    let id = submit(&photon, 3).await;
    let processes = worker.processes();
    until_status(&photon, &id, "running").await;
    worker.signal(Signal::KILL);
    worker.exit();
    until("the processes are gone", || are_gone(&processes));
    let _other = Worker::start(&photon, "b", "echo '\"done\"'");
    let done = until_status(&photon, &id, "completed").await;
    assert_eq!((&done["assignedAgent"], &done["attempt"]), (&json!("b"), &json!(2)));
    assert!(photon.history(&id).await.contains(&"step.lease_lost".to_owned()));
}

#[tokio::test]
async fn a_worker_that_the_server_forgot_registers_again() {
    let photon = Photon::start().await;
    let _worker = Worker::start(&photon, "a", "echo 1");
    photon.until("/api/v1/agents/a", |agent| agent["status"] == "active").await;
    photon.delete("/api/v1/agents/a").await.expect(200);
    photon.until("/api/v1/agents/a", |agent| agent["incarnation"] == 2).await;
    let id = submit(&photon, 1).await;
    until_status(&photon, &id, "completed").await;
}

#[tokio::test]
async fn of_two_workers_with_one_id_the_older_one_ends() {
    let photon = Photon::start().await;
    let mut older = Worker::start(&photon, "a", WORK_FOR_EVER);
    submit(&photon, 3).await;
    let processes = older.processes();
    let _newer = Worker::start(&photon, "a", "echo 1");
    assert_eq!(older.exit(), 5);
    assert!(are_gone(&processes));
}

#[tokio::test]
async fn a_drained_worker_finishes_and_ends() {
    let photon = Photon::start().await;
    let script = "echo $$ > shell; until [ -e go ]; do sleep 0.01; done; echo 1";
    let mut worker = Worker::start(&photon, "a", script);
    let id = submit(&photon, 1).await;
    pid_in(&worker.path("shell"));
    photon.put("/api/v1/agents/a", json!({"status": "inactive"})).await.expect(200);
    std::fs::write(worker.path("go"), "").unwrap();
    until_status(&photon, &id, "completed").await;
    assert_eq!(worker.exit(), 0);
}

#[test]
fn a_command_that_does_not_exist_is_refused_before_any_server_is_asked() {
    let missing = "no-such-command-anywhere";
    let called = call(["worker", "run", "--agent", "a", "--", missing]).ends_with(2);
    assert!(called.stderr.contains(missing), "{}", called.stderr);
}

#[test]
fn a_command_that_cannot_start_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("agent.sh");
    std::fs::write(&script, "#!/bin/sh\necho 1\n").unwrap();
    let script = script.to_str().unwrap();
    let called = call(["worker", "run", "--agent", "a", "--", script]).ends_with(2);
    assert!(called.stderr.contains(&format!("chmod +x {script}")), "{}", called.stderr);
}

#[tokio::test]
async fn the_server_says_how_large_a_result_may_be() {
    let photon = Photon::configured("[limits]\nmax_result_bytes = 400000\n").await;
    for (agent, bytes, status) in [("a", 390_000, "completed"), ("b", 410_000, "failed")] {
        let _worker = Worker::start(&photon, agent, &format!("head -c {bytes} /dev/zero | tr '\\0' x"));
        let id = submit(&photon, 1).await;
        until_status(&photon, &id, status).await;
        photon.delete(&format!("/api/v1/agents/{agent}")).await.expect(200);
    }
}

/// How many requests of a route there were.
async fn requests(photon: &Photon, route: &str) -> u32 {
    let metrics = photon.get("/metrics").await.expect(200).body;
    let of_route = |line: &&str| line.starts_with("photon_http_requests_total{") && line.contains(route);
    let counts = metrics.as_str().unwrap().lines().filter(of_route);
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[tokio::test]
async fn a_step_is_acknowledged_before_a_write_or_when_it_takes_longer_than_a_moment() {
    let photon = Photon::configured("[agents]\noffer_ms = 3000\n").await;
    // No heartbeat shall be the first sign of life.
    let script = "grep -q wait && until [ -e go ]; do sleep 0.01; done; echo 1";
    let worker = Worker::called(&photon, "a", &["--heartbeat", "60s"], script);
    let one = |effect: &str, action: &str| {
        let mut one = work(1);
        (one["effect"], one["action"]) = (json!(effect), json!(action));
        one
    };
    for effect in ["read", "idempotent"] {
        let id = photon.operation(json!([one(effect, "short")])).await;
        until_status(&photon, &id, "completed").await;
    }
    assert_eq!(requests(&photon, "/ack\"").await, 0);
    let id = photon.operation(json!([one("write", "short")])).await;
    until_status(&photon, &id, "completed").await;
    assert_eq!(requests(&photon, "/ack\"").await, 1);
    let id = photon.operation(json!([one("read", "wait")])).await;
    until_status(&photon, &id, "running").await;
    assert_eq!(requests(&photon, "/ack\"").await, 2);
    std::fs::write(worker.path("go"), "").unwrap();
    until_status(&photon, &id, "completed").await;
}

#[tokio::test]
async fn nobody_needs_to_read_what_a_worker_says() {
    let photon = Photon::start().await;
    for agent in ["unread", "gone"] {
        let (reader, writer) = full_pipe();
        let reader = (agent == "unread").then_some(reader);
        let mut child = command(["worker", "run", "--agent", agent, "--server", &photon.url("")])
            .args(["--", "true"])
            .stderr(writer)
            .spawn()
            .unwrap();
        for _ in 0..3 {
            let id = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
            until_status(&photon, &id, "completed").await;
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        until("the worker ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        drop(reader);
    }
}

#[tokio::test]
async fn the_next_step_comes_with_the_answer_to_the_report() {
    let photon = Photon::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(submit(&photon, 1).await);
    }
    let _worker = Worker::start(&photon, "swift", "echo 1");
    for id in &ids {
        until_status(&photon, id, "completed").await;
    }
    let claims = requests(&photon, "/claim\"").await;
    assert!(claims < 3, "five steps took {claims} claims");
}

/// Which agents each operation's step was given to, in order.
async fn given_to(photon: &Photon, ids: &[String]) -> Vec<Vec<String>> {
    let mut given = Vec::new();
    for id in ids {
        let query = format!("limit=500&operation={id}&types=step.reserved");
        let events = checker::read(photon, &query).await;
        let agents = events.iter().map(|event| event["data"]["agent"].as_str().unwrap().to_owned());
        given.push(agents.collect());
    }
    given
}

#[tokio::test]
async fn a_worker_that_fails_everything_neither_eats_the_queue_nor_fails_an_operation() {
    let photon = Photon::start().await;
    let _good = Worker::start(&photon, "good", "sleep 0.3; echo ok");
    let _bad = Worker::start(&photon, "bad", "echo not logged in >&2; exit 1");
    photon.claims_waiting(2).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(photon.operation(json!([step(1, "work", &[], json!({}))])).await);
    }
    for id in &ids {
        let path = format!("/api/v1/operations/{id}");
        let ended = photon.until(&path, |shown| shown["completedAt"] != json!(null)).await;
        assert_eq!(ended["status"], json!("completed"));
    }
    let given = given_to(&photon, &ids).await;
    let again = given.iter().filter(|agents| agents.len() > 1);
    assert!(again.clone().count() >= 5, "{given:?}");
    for agents in again {
        assert_eq!(agents[..], ["bad", "good"], "a retry goes to another agent than the one that failed");
    }
    let bad = photon.until("/api/v1/agents/bad", |agent| agent["status"] == "error").await;
    assert_eq!(bad["statusReason"], json!("quarantined_failures"));
    // One that it was given before the quarantine was known may be among them.
    let failed = bad["metrics"]["operationsFailed"].as_u64().unwrap();
    assert!((5..=6).contains(&failed), "{failed} failures until it was out of service");
    checker::check_log(&photon).await.must_be_over();
}
