//! No process of a step outlives it: more than 200 runs of commands whose children ignore every polite
//! signal, ended in every way a run can end. Looks for survivors by a mark in their environment.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support;

use support::called::command;
use support::{PATIENCE, Photon, step};

const MARK: &str = "MARK_OF_GROUPS";
const WORKERS: usize = 5;
const SLOTS: usize = 7;
/// As many as all workers can have at once.
const AT_ONCE: usize = WORKERS * SLOTS;
/// Processes of one run that shall be gone, beside the tether: the shell and five `sleep`.
const PROCESSES: usize = 6;

/// So many starts at once can keep a worker from its heartbeat, and an agent that falls silent would lose
/// its steps before they end as they should; a cancel is heard with the next one.
const HEARTBEAT: &str = "3s";

/// A command that ends as its inputs say. Before that it starts a child, two grandchildren whose parent
/// stays, and one whose parent has gone; all of them ignore what can be ignored, and hold the output open.
const COMMAND: &str = r#"
trap '' TERM HUP INT USR1 USR2 PIPE
input=$(cat)
sleep 300 &
(sleep 300 & sleep 300 & wait) &
((sleep 300 &) &)
case "$input" in
    *'"end":"completed"'*) echo '"done"'; exit 0 ;;
    *'"end":"failed"'*) echo 'no luck' >&2; exit 3 ;;
    *'"end":"killed"'*) kill -9 $$ ;;
    *'"end":"untied"'*) kill -9 $PPID; sleep 300 ;;
    *'"end":"flood"'*) yes >&2 & yes ;;
esac
sleep 300
"#;

/// Workers that bear a mark, as all that they start.
struct Crew {
    mark: String,
    workers: Vec<Child>,
}

impl Crew {
    fn start(photon: &Photon) -> Self {
        let mark = Uuid::new_v4().to_string();
        let worker = |number: usize| {
            command(["worker", "run", "--agent", &format!("worker-{number}"), "--server", &photon.url("")])
                .args(["--heartbeat", HEARTBEAT, "--max", &SLOTS.to_string(), "--env", MARK])
                .args(["--", "sh", "-c", COMMAND])
                .env(MARK, &mark)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { mark, workers }
    }

    /// Every process that bears the mark, except the workers themselves. One that has ended bears none, even
    /// before its parent has taken note of it.
    fn marked(&self) -> BTreeSet<u32> {
        let mark = format!("{MARK}={}", self.mark);
        let bears = |id: &u32| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let workers: Vec<u32> = self.workers.iter().map(Child::id).collect();
        let all = std::fs::read_dir("/proc").unwrap();
        let ids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        ids.filter(|id| !workers.contains(id)).filter(bears).collect()
    }

    fn until_nothing_is_left(&self, ending: &str) {
        let begun = Instant::now();
        loop {
            let left = self.marked();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{ending}: {} processes are left: {left:?}", left.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_all_run(&self) {
        let begun = Instant::now();
        while self.marked().len() < AT_ONCE * PROCESSES {
            assert!(begun.elapsed() < PATIENCE, "only {} processes run", self.marked().len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends every worker without a chance to clean up.
    fn kill(&mut self) {
        for worker in &mut self.workers {
            worker.kill().unwrap();
        }
        for worker in &mut self.workers {
            worker.wait().unwrap();
        }
    }
}

impl Drop for Crew {
    /// What a failed test leaves shall trouble no other.
    fn drop(&mut self) {
        for left in self.marked().into_iter().filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(left, Signal::KILL);
        }
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// An operation of so many steps at once, each of which ends as said, and none of which is tried again.
async fn submit(photon: &Photon, count: usize, end: &str, timeout_ms: u64) -> String {
    let steps = (1..=count).map(|number| {
        let mut step = step(u32::try_from(number).unwrap(), "run", &[], json!({"end": end}));
        step["retryPolicy"] = json!({"maxAttempts": 1});
        step["timeout"] = json!(timeout_ms);
        step
    });
    let body = json!({"name": end, "workflow": steps.collect::<Vec<Value>>(), "failurePolicy": "continue"});
    let answer = photon.post("/api/v1/operations", body).await.expect(201);
    answer.data()["id"].as_str().unwrap().to_owned()
}

/// Waits until every step has ended, and tells their error codes, each once.
async fn ended(photon: &Photon, id: &str) -> BTreeSet<String> {
    let over = |operation: &Value| {
        let status = operation["status"].as_str().unwrap();
        matches!(status, "completed" | "failed")
    };
    let shown = photon.until(&format!("/api/v1/operations/{id}"), over).await;
    let steps = shown["workflow"].as_array().unwrap();
    steps.iter().map(|step| step["errorCode"].as_str().unwrap_or("none").to_owned()).collect()
}

#[tokio::test]
async fn no_process_is_left_after_two_hundred_runs_however_they_end() {
    let _alone = support::alone();
    // That one operation after the other fails is what is wanted here, and no reason for a quarantine.
    let photon = Photon::configured("[agents]\nfailures_in_a_row = 0\n").await;
    let mut crew = Crew::start(&photon);
    let of_itself = [
        ("completed", "none"),
        ("failed", "exit_3"),
        ("killed", "exit_137"),
        // What stands between the worker and the command is gone, and the command is not.
        ("untied", "signal_9"),
        ("flood", "too_large"),
    ];
    for (end, code) in of_itself {
        let id = submit(&photon, AT_ONCE, end, 60_000).await;
        assert_eq!(ended(&photon, &id).await, BTreeSet::from([code.to_owned()]), "{end}");
        crew.until_nothing_is_left(end);
    }
    let id = submit(&photon, AT_ONCE, "never", 1_000).await;
    assert_eq!(ended(&photon, &id).await, BTreeSet::from(["timeout".to_owned()]));
    crew.until_nothing_is_left("timeout");
    let id = submit(&photon, AT_ONCE, "never", 120_000).await;
    crew.until_all_run();
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    crew.until_nothing_is_left("cancelled");
    submit(&photon, AT_ONCE, "never", 120_000).await;
    crew.until_all_run();
    crew.kill();
    crew.until_nothing_is_left("the workers were killed");
}
