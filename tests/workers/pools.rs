//! Pools of workers as a black box: they follow the queue, say why, replace who dies, and leave nobody.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support;

use support::called::until;
use support::{Photon, step};

const POOLS: &str = "/api/v1/pools";
const SCALED: &str = "/api/v1/events?types=pool.scaled&limit=500";

/// A pool named `crew` that runs this shell script for each step.
fn pool(options: &str, script: &str) -> String {
    format!(
        "[[pool]]\nname = \"crew\"\ncapability = \"work\"\ntarget_queue_seconds = 1\n{options}\n\
         command = [\"sh\", \"-c\", {script:?}]\n"
    )
}

async fn submit(photon: &Photon, count: u32) -> String {
    let steps = (1..=count).map(|number| {
        let mut step = step(number, "work", &[], json!({}));
        step["requires"] = json!({"capabilities": ["work"]});
        step["retryPolicy"] = json!({"maxAttempts": 3, "initialDelayMs": 50, "jitter": 0.0});
        step
    });
    photon.operation(steps.collect()).await
}

async fn until_completed(photon: &Photon, id: &str) -> Value {
    photon.until(&format!("/api/v1/operations/{id}"), |operation| operation["status"] == "completed").await
}

/// The bodies of all `pool.scaled`, oldest first.
async fn scaled(photon: &Photon) -> Vec<Value> {
    let events = photon.get(SCALED).await.expect(200).data().clone();
    events.as_array().unwrap().iter().map(|event| event["data"].clone()).collect()
}

/// Every scaling goes on where the one before stopped, and says why.
fn assert_told(events: &[Value]) {
    let mut before = 0;
    for event in events {
        assert_eq!(event["pool"], json!("crew"));
        assert_eq!(event["from"], json!(before), "{events:?}");
        before = event["to"].as_u64().unwrap();
        assert!(!event["detail"].as_str().unwrap().is_empty() && event["reason"].is_string(), "{event}");
    }
}

fn reasons(events: &[Value]) -> BTreeSet<&str> {
    events.iter().map(|event| event["reason"].as_str().unwrap()).collect()
}

/// Every process but this one of which something holds. One that has ended is none any more, even before its
/// parent has taken note of it.
fn processes(holds: impl Fn(&str) -> bool) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let ids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| holds(&format!("/proc/{id}"))).collect()
}

/// The server, its workers and all that they started: they work in its folder.
fn everybody(photon: &Photon) -> Vec<i32> {
    let folder = photon.folder().canonicalize().unwrap();
    processes(|of| std::fs::read_link(format!("{of}/cwd")).is_ok_and(|at| at == folder))
}

/// Workers of a server are told apart by its address, which stands in their arguments.
fn workers(photon: &Photon) -> Vec<i32> {
    let mark = format!("--server\0{}\0", photon.url(""));
    let bears = |text: Vec<u8>| text.windows(mark.len()).any(|part| part == mark.as_bytes());
    processes(|of| std::fs::read(format!("{of}/cmdline")).is_ok_and(bears))
}

fn kill(process: i32) {
    kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_burst_makes_the_pool_grow_to_its_maximum_and_it_goes_back_to_its_minimum() {
    let options = "min = 1\nmax = 4\nidle_seconds = 1\nlabels = { team = \"core\" }";
    let photon = Photon::configured(&pool(options, "sleep 0.4; echo 1")).await;
    photon.until(POOLS, |pools| pools[0]["workers"]["idle"] == 1).await;
    let id = submit(&photon, 40).await;
    photon.until(POOLS, |pools| pools[0]["actual"] == 4 && pools[0]["workers"]["busy"] == 4).await;
    assert_eq!(workers(&photon).len(), 4);
    let agent = photon.get("/api/v1/agents/crew-4").await.expect(200);
    assert_eq!(agent.data()["config"]["labels"], json!({"team": "core"}));
    let done = until_completed(&photon, &id).await;
    assert!(done["workflow"].as_array().unwrap().iter().all(|step| step["attempt"] == 1), "nothing was lost");
    photon.until(POOLS, |pools| pools[0]["wanted"] == 1 && pools[0]["workers"]["leaving"] == 0).await;
    assert_eq!(workers(&photon).len(), 1);
    let events = scaled(&photon).await;
    assert_told(&events);
    assert_eq!(reasons(&events), BTreeSet::from(["idle", "minimum", "queue"]), "{events:?}");
    assert_eq!(events.last().unwrap()["to"], json!(1));
    assert!(events.iter().all(|event| event["wanted"].as_u64().unwrap() <= 4));
    let metrics = photon.get("/metrics").await.body;
    let shown = metrics.as_str().unwrap();
    assert!(shown.contains("photon_pool_wanted{pool=\"crew\"} 1\n"), "{shown}");
    assert!(shown.contains("photon_pool_workers{pool=\"crew\",state=\"idle\"} 1\n"), "{shown}");
}

#[tokio::test]
async fn a_pool_without_a_minimum_starts_for_a_step_and_ends_after_it() {
    let options = "max = 2\nidle_seconds = 0";
    let photon = Photon::configured(&pool(options, "echo 1")).await;
    photon.until(POOLS, |pools| pools[0]["wanted"] == 0).await;
    assert_eq!(scaled(&photon).await, Vec::<Value>::new());
    let elsewhere = json!({"capabilities": ["other"]});
    let mut other = step(1, "work", &[], json!({}));
    other["requires"] = elsewhere;
    photon.operation(json!([other])).await;
    let whatever = photon.operation(json!([step(1, "work", &[], json!({}))])).await;
    until_completed(&photon, &whatever).await;
    // What none of its workers can take is still ready, and does not count.
    photon.until(POOLS, |pools| pools[0]["queue"]["readySteps"] == 0).await;
    let id = submit(&photon, 1).await;
    until_completed(&photon, &id).await;
    photon.until(POOLS, |pools| pools[0]["actual"] == 0 && pools[0]["workers"]["leaving"] == 0).await;
    assert_eq!(workers(&photon), Vec::<i32>::new());
    assert_told(&scaled(&photon).await);
    // The same agents come back; nobody else was registered meanwhile.
    let agents = photon.get("/api/v1/agents").await.expect(200);
    let ids: Vec<_> = agents.data().as_array().unwrap().iter().map(|agent| agent["id"].clone()).collect();
    assert!(ids.iter().all(|id| id == "crew-1" || id == "crew-2"), "{ids:?}");
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_and_its_step_done_by_another() {
    let options = "min = 2\nmax = 2";
    let script = "if grep -q '\"attempt\":1'; then sleep 300; fi; echo 1";
    let photon = Photon::configured(&pool(options, script)).await;
    let id = submit(&photon, 2).await;
    let is_running = |step: &Value| step["status"] == "running";
    let path = format!("/api/v1/operations/{id}");
    photon.until(&path, |shown| shown["workflow"].as_array().unwrap().iter().all(is_running)).await;
    let before = workers(&photon);
    before.iter().copied().for_each(kill);
    let done = until_completed(&photon, &id).await;
    assert!(done["workflow"].as_array().unwrap().iter().all(|step| step["attempt"] == 2));
    photon.until(POOLS, |pools| pools[0]["workers"]["idle"] == 2).await;
    let after = workers(&photon);
    assert!(after.len() == 2 && after.iter().all(|worker| !before.contains(worker)));
    let events = scaled(&photon).await;
    assert_told(&events);
    let ended = events.iter().find(|event| event["reason"] == "worker_ended").unwrap();
    assert!(ended["detail"].as_str().unwrap().contains("signal: 9"), "{ended}");
    assert!(reasons(&events).contains("worker_replaced"), "{events:?}");
    let metrics = photon.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains("photon_pool_workers_ended_total{pool=\"crew\"} 2\n"));
}

/// Ignores what can be ignored, as does all that it starts.
const STUBBORN: &str = "trap '' TERM HUP INT; sleep 300 & (sleep 300 &) ; sleep 300";

#[tokio::test]
async fn a_server_that_is_asked_to_stop_leaves_no_process_and_gives_the_steps_back() {
    let mut photon = Photon::configured(&pool("min = 2\nmax = 2", STUBBORN)).await;
    let id = submit(&photon, 2).await;
    photon.until(POOLS, |pools| pools[0]["workers"]["busy"] == 2).await;
    until("every process runs", || everybody(&photon).len() > 10);
    assert_eq!(photon.stopped().await, 0);
    until("nothing is left", || everybody(&photon).is_empty());
    photon.restart().await;
    let history = photon.history(&id).await;
    assert_eq!(history.iter().filter(|event| *event == "step.released").count(), 2, "{history:?}");
    let events = scaled(&photon).await;
    let stopping = events.iter().find(|event| event["reason"] == "stopping").unwrap();
    assert_eq!((&stopping["from"], &stopping["to"]), (&json!(2), &json!(0)));
    // The same agents, as new incarnations, go on.
    photon.until(POOLS, |pools| pools[0]["workers"]["busy"] == 2).await;
    assert_eq!(photon.get("/api/v1/agents").await.data().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_process_and_no_agent_that_blocks() {
    let script = "if [ -e killed ]; then echo 1; else trap '' TERM HUP INT; sleep 300 & sleep 300; fi";
    let mut photon = Photon::configured(&pool("min = 2\nmax = 2", script)).await;
    let id = submit(&photon, 2).await;
    photon.until(POOLS, |pools| pools[0]["workers"]["busy"] == 2).await;
    until("every process runs", || everybody(&photon).len() > 8);
    std::fs::write(photon.folder().join("killed"), "").unwrap();
    photon.kill();
    until("nothing is left", || everybody(&photon).is_empty());
    photon.restart().await;
    until_completed(&photon, &id).await;
    photon.until(POOLS, |pools| pools[0]["workers"]["idle"] == 2).await;
    assert_eq!(photon.get("/api/v1/agents").await.data().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_moment_leaves_no_process() {
    let mut photon = Photon::configured(&pool("min = 4\nmax = 4", STUBBORN)).await;
    for most in 1..=12 {
        // Anew each time: a kill spends an attempt of those at work.
        submit(&photon, 4).await;
        // From the first worker that begins to start to all of them at work.
        until("so many processes run", || everybody(&photon).len() > most);
        photon.kill();
        until("nothing is left", || everybody(&photon).is_empty());
        photon.restart().await;
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_is_tried_ever_more_rarely_and_says_so() {
    let config = "[[pool]]\nname = \"crew\"\ncapability = \"work\"\nmin = 1\nmax = 3\n\
                  target_queue_seconds = 1\ncommand = [\"no-such-command-anywhere\", \"secret-argument\"]\n";
    let photon = Photon::configured(config).await;
    let failed = |pools: &Value| pools[0]["trouble"]["failures"].as_u64().is_some_and(|count| count >= 3);
    let pools = photon.until(POOLS, failed).await;
    let trouble = &pools[0]["trouble"];
    let words = trouble["lastFailure"].as_str().unwrap();
    assert!(words.contains("There is no command 'no-such-command-anywhere'"), "{words}");
    assert!(trouble["retryAt"].is_string() && pools[0]["actual"] == json!(0));
    let health = photon.get("/health/detailed").await.expect(200);
    let check = health.data()["checks"].as_array().unwrap().last().unwrap();
    assert_eq!((&check["name"], &check["state"]), (&json!("pools"), &json!("warn")), "{check}");
    let events = scaled(&photon).await;
    assert_told(&events);
    assert_eq!(events.len(), 2, "the tries after the first are not told one by one: {events:?}");
    assert_eq!(events[1]["reason"], json!("worker_ended"));
    assert!(events[1]["detail"].as_str().unwrap().contains("The next one starts in 0.5 s."), "{events:?}");
    let all = [photon.get(POOLS).await.body, json!(events)].map(|shown| shown.to_string()).concat();
    assert!(!all.contains("secret-argument"));
    let listed = photon.call(["pool", "list"]).ends_with(0).stdout;
    assert!(listed.contains("crew") && listed.contains("1 to 3"), "{listed}");
}

#[tokio::test]
async fn a_pool_without_a_command_is_only_measured() {
    let config = "[[pool]]\nname = \"theirs\"\ncapability = \"work\"\nmax = 5\ntarget_queue_seconds = 1\n\
                  idle_seconds = 0\n";
    let photon = Photon::configured(config).await;
    let id = submit(&photon, 9).await;
    let pools = photon.until(POOLS, |pools| pools[0]["wanted"] == 5).await;
    assert_eq!((&pools[0]["managed"], &pools[0]["actual"]), (&json!(false), &json!(0)));
    assert_eq!(pools[0]["queue"]["readySteps"], json!(9));
    photon.agent("somebody", &["work"]).await;
    photon.agent("somebody-else", &["other"]).await;
    photon.until(POOLS, |pools| pools[0]["actual"] == 1).await;
    photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
    photon.until(POOLS, |pools| pools[0]["wanted"] == 0).await;
    let metrics = photon.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains("photon_pool_wanted{pool=\"theirs\"} 0\n"));
    assert_eq!(workers(&photon), Vec::<i32>::new());
}

#[tokio::test]
async fn what_no_worker_of_the_pool_could_take_does_not_count() {
    let config = "[[pool]]\nname = \"theirs\"\ncapability = \"work\"\nmax = 5\ntarget_queue_seconds = 1\n\
                  labels = { zone = \"lab\" }\n";
    let photon = Photon::configured(config).await;
    let requiring = |what: Value| {
        let mut step = step(1, "work", &[], json!({}));
        step["requires"] = what;
        json!([step])
    };
    photon.operation(requiring(json!({"capabilities": ["work", "more"]}))).await;
    photon.operation(requiring(json!({"labels": {"zone": "roof"}}))).await;
    photon.operation(requiring(json!({"model": "another"}))).await;
    photon.agent("somebody-else", &["other"]).await;
    let mut named = step(1, "work", &[], json!({}));
    named["agent"] = json!("somebody-else");
    photon.operation(json!([named])).await;
    let late = json!({"name": "late", "workflow": requiring(json!({})), "autoStart": false});
    photon.post("/api/v1/operations", late).await.expect(201);
    let steps: Vec<Value> = (1..=9).map(|number| step(number, "work", &[], json!({}))).collect();
    let narrow = json!({"name": "narrow", "workflow": steps, "maxParallel": 2});
    photon.post("/api/v1/operations", narrow).await.expect(201);
    let mut after = step(2, "work", &[1], json!({}));
    after["requires"] = json!({"capabilities": ["work"], "labels": {"zone": "lab"}});
    photon.operation(json!([step(1, "work", &[], json!({})), after])).await;
    // Two of the narrow one, and the first of the last.
    photon.until(POOLS, |pools| pools[0]["queue"]["readySteps"] == 3).await;
    photon.until(POOLS, |pools| pools[0]["queue"]["oldestWaitMs"].as_u64() >= Some(500)).await;
    let pools = photon.get(POOLS).await.expect(200);
    assert_eq!(pools.data()[0]["queue"]["readySteps"], json!(3));
}

#[tokio::test]
async fn a_command_gets_only_the_variables_that_it_is_allowed() {
    let options = "max = 1\nenvironment = [\"CARGO_PKG_NAME\"]";
    let photon = Photon::configured(&pool(options, "env -u PWD | sort; cat >/dev/null")).await;
    let id = submit(&photon, 1).await;
    let done = until_completed(&photon, &id).await;
    let result = done["workflow"][0]["result"].as_str().unwrap();
    let names: BTreeSet<&str> = result.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains("CARGO_PKG_NAME") && names.contains("PATH"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("PHOTON_")), "{names:?}");
}
