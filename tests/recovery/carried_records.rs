//! What operations leave that leave the log: how their agents did. From the floor on an agent is shown as it
//! was before, at each position, after several compactions, and whenever a compaction is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use photon::retention;
use serde_json::{Value, json};

use crate::support;

use support::called::call;
use support::dice::Dice;
use support::history::thrown;
use support::tally::{Tally, asked};
use support::{Photon, step};

const CONFIG: &str = "[storage]\ngeneration_max_bytes = 65536\n\
    [agents]\nlease_ms = 1000\noffer_ms = 100\nretry_elsewhere_ms = 0\n";
/// Names the folder that a process of this test compacts.
const FOLDER: &str = "PHOTON_TEST_COMPACTS";

/// An operation that is tried twice and fills a part of a generation.
async fn create(photon: &Photon, agent: &str) -> String {
    let mut one = step(1, "look", &[], json!({"text": "x".repeat(10_000)}));
    one["agent"] = json!(agent);
    one["retryPolicy"] = json!({"initialDelayMs": 1, "maxAttempts": 2});
    photon.operation(json!([one])).await
}

/// Work of one agent that ends as the number says.
async fn perform(photon: &Photon, agent: &str, ending: u64) {
    let id = create(photon, agent).await;
    let mut lease = photon.claim(agent).await;
    match ending {
        0 => {
            let flaky = json!({"code": "flaky", "message": "once more"});
            photon.report(&lease, "fail", flaky).await.expect(200);
            lease = photon.claim(agent).await;
        }
        1 => {
            let broken = json!({"code": "broken", "message": "no", "retryable": false});
            photon.report(&lease, "fail", broken).await.expect(200);
            return;
        }
        // Not taken, and offered again.
        2 => lease = photon.claim(agent).await,
        3 => {
            photon.report(&lease, "ack", json!({})).await.expect(200);
            photon
                .until(&format!("/api/v1/operations/{id}"), |shown| {
                    shown["workflow"][0]["status"] != "running"
                })
                .await;
            lease = photon.claim(agent).await;
        }
        4 => {
            photon.delete(&format!("/api/v1/operations/{id}")).await.expect(200);
            photon.report(&lease, "release", json!({})).await.refused(409, "already_terminal");
            return;
        }
        5 => {
            photon.agent_again(agent).await;
            lease = photon.claim(agent).await;
        }
        _ => {}
    }
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
}

impl Photon {
    /// The next incarnation of an agent.
    async fn agent_again(&self, id: &str) {
        let body = json!({"id": id, "config": {"heartbeatIntervalMs": 0}});
        self.post("/api/v1/agents", body).await.expect(200);
    }
}

/// A part of a history with everything that changes what is shown of agents. It ends with operations that
/// stay, so that what has ended is sealed.
async fn live(photon: &Photon, part: usize, dice: &mut Dice) -> Vec<String> {
    let mut agents: Vec<String> = (0..9).map(|number| format!("w{number}")).collect();
    if part == 0 {
        for agent in &agents {
            photon.agent(agent, &[]).await;
        }
    }
    for ending in 0..9 {
        let agent = dice.pick(&agents);
        perform(photon, &agent, ending).await;
    }
    for agent in &agents {
        perform(photon, agent, dice.pick(&[1, 4, 8, 8])).await;
    }
    // It comes last and has the first name: nobody's record must stand before its registration.
    let late = format!("a{part}");
    photon.agent(&late, &[]).await;
    perform(photon, &late, 8).await;
    agents.push(late);
    for _ in 0..8 {
        create(photon, "w0").await;
    }
    agents
}

/// What is shown of every agent at a position, and the tag of one of them.
async fn shown(photon: &Photon, at: u64) -> (Value, String) {
    let all = photon.get(&format!("/api/v1/agents?at={at}&limit=100")).await.expect(200);
    let agents = all.data().as_array().unwrap().clone();
    let Some(one) = agents.get(usize::try_from(at).unwrap() % agents.len().max(1)) else {
        return (json!([]), String::new());
    };
    let path = format!("/api/v1/agents/{}?at={at}", one["id"].as_str().unwrap());
    let alone = photon.get(&path).await.expect(200);
    assert_eq!(alone.data(), one);
    (json!(agents), alone.header("etag").to_owned())
}

async fn head(photon: &Photon) -> u64 {
    photon.get("/health").await.header("photon-position").parse().unwrap()
}

fn verify(photon: &Photon) -> Value {
    let audit = call(["event", "verify", "--data-dir", "data", "-o", "json"]);
    audit.in_folder(photon.folder()).ends_with(0).json()
}

#[tokio::test]
async fn agents_are_shown_as_before_at_each_position_from_the_floor_on() {
    let (mut photon, mut dice) = (Photon::configured(CONFIG).await, thrown());
    let data = photon.folder().join("data");
    let mut floor = 0;
    for part in 0..3 {
        let agents = live(&photon, part, &mut dice).await;
        let last = head(&photon).await;
        let mut before = BTreeMap::new();
        for at in floor..=last {
            before.insert(at, shown(&photon, at).await);
        }
        assert_eq!(photon.stopped().await, 0);
        let done = retention::apply(&data, -1, 0).unwrap();
        assert!(done.streams > 9 && done.floor.get() > floor, "{done:?}");
        floor = done.floor.get();
        verify(&photon);
        photon.restart().await;
        for (at, then) in before.range(floor..) {
            assert_eq!(shown(&photon, *at).await, *then, "at {at}, after compaction {part} up to {floor}");
        }
        let carried = photon.get("/api/v1/events?types=work.carried&limit=500").await.expect(200);
        assert!(carried.data().as_array().unwrap().len() >= agents.len(), "one of each agent");
        for path in ["agents/w0?at", "agents/a0?at", "agents?at"] {
            photon.get(&format!("/api/v1/{path}={}", floor - 1)).await.refused(410, "position_compacted");
        }
    }
    // What happens from now on counts on top of that.
    let count = |shown: &Value| shown["metrics"]["operationsCompleted"].as_u64().unwrap();
    let before = count(photon.get("/api/v1/agents/a2").await.expect(200).data());
    assert_eq!(before, 1);
    perform(&photon, "a2", 8).await;
    photon.until("/api/v1/agents/a2", |agent| count(agent) == before + 1).await;
}

/// Not a test: the process that is killed.
#[test]
fn compactor() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    println!("\nbegun");
    retention::apply(Path::new(&folder), -1, 0).unwrap();
}

/// A process that compacts, and has begun to.
fn compacting(folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "carried_records::compactor", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "begun"));
    child
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => _ = fs::copy(entry.path(), to).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_compaction_that_is_killed_loses_nothing_of_what_agents_did() {
    let tally = Tally::of("P1 P7", "a compaction is killed", asked(10, 200, 2_000));
    let (mut photon, mut dice) = (Photon::configured(CONFIG).await, thrown());
    live(&photon, 0, &mut dice).await;
    let last = head(&photon).await;
    let before = shown(&photon, last).await;
    assert_eq!(photon.stopped().await, 0);
    let (data, kept) = (photon.folder().join("data"), photon.folder().join("kept"));
    copy(&data, &kept);
    let begun = Instant::now();
    assert!(compacting(&data).wait().unwrap().success());
    let whole_us = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let (mut done, mut undone) = (0, 0);
    while !tally.is_done() {
        fs::remove_dir_all(&data).unwrap();
        copy(&kept, &data);
        let mut child = compacting(&data);
        std::thread::sleep(Duration::from_micros(dice.below(whole_us)));
        child.kill().unwrap();
        let in_the_middle = child.wait().unwrap().code().is_none();
        verify(&photon);
        photon.restart().await;
        let compacted = photon.get("/api/v1/agents?at=1").await.status == 410;
        (done, undone) = (done + u64::from(compacted), undone + u64::from(!compacted));
        assert_eq!(shown(&photon, last).await, before, "compacted: {compacted}");
        assert_eq!(photon.stopped().await, 0);
        // Whatever is left of it, the next one does it.
        retention::apply(&data, -1, 0).unwrap();
        photon.restart().await;
        photon.get("/api/v1/agents?at=1").await.refused(410, "position_compacted");
        assert_eq!(shown(&photon, last).await, before, "compacted again");
        assert_eq!(photon.stopped().await, 0);
        tally.add(u64::from(in_the_middle));
    }
    println!("killed compactions: {done} had taken their place, {undone} had not");
}
