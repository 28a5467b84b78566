//! The command line as a black box: what is printed where, and what each command ends with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support;

use support::called::{call, command};
use support::{PATIENCE, Photon, Tail, free_port, step};

fn operation(platform_step: &Value) -> String {
    json!({"name": "from the command line", "workflow": [platform_step]}).to_string()
}

#[test]
fn without_a_command_the_demo_is_suggested() {
    let called = call([""; 0]).ends_with(2);
    assert!(called.stderr.contains("photon demo") && called.stderr.contains("--help"), "{}", called.stderr);
    assert_eq!(called.stdout, "");
    assert!(call(["--help"]).ends_with(0).stdout.contains("Exit codes"));
    call(["no-such-command"]).ends_with(2);
}

#[test]
fn version_and_completion_are_data() {
    let version = concat!("photon ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(call(["version"]).ends_with(0).stdout, version);
    assert_eq!(call(["--version"]).ends_with(0).stdout, version);
    for shell in ["bash", "zsh", "fish"] {
        assert!(call(["completion", shell]).ends_with(0).stdout.contains("photon"));
    }
}

#[test]
fn a_server_that_is_away_is_exit_code_9_and_a_bad_address_2() {
    let away = format!("http://127.0.0.1:{}", free_port());
    for arguments in [&["op", "list"][..], &["healthcheck"], &["agent", "get", "a"], &["event", "list"]] {
        let called = call([arguments, &["--server", &away]].concat()).ends_with(9);
        assert!(called.stderr.contains(&away) && called.stderr.contains("photon serve"), "{}", called.stderr);
    }
    call(["op", "list", "--server", "https://localhost"]).ends_with(2);
}

/// A server that takes each request and closes the connection without an answer.
fn silent() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().read(&mut [0; 4096]);
        }
    });
    address
}

#[test]
fn a_lost_answer_is_an_unknown_outcome_only_when_something_may_have_been_changed() {
    let silent = silent();
    let id = "op_00000000000000000000000000000000";
    for arguments in [&["op", "cancel", id][..], &["op", "pause", id], &["agent", "rm", "a"]] {
        let called = call([arguments, &["--server", &silent]].concat()).ends_with(8);
        assert!(called.stderr.contains("unknown") && called.stdout.is_empty(), "{}", called.stderr);
    }
    for arguments in [&["op", "get", id][..], &["agent", "select", "--capability", "x"], &["healthcheck"]] {
        call([arguments, &["--server", &silent]].concat()).ends_with(9);
    }
    let new = operation(&step(1, "go", &[], json!({})));
    for wait in [&[][..], &["--wait", "200ms"]] {
        let create = call([&["op", "create", "-", "--server", &silent], wait].concat()).input(&new);
        let called = create.ends_with(8);
        assert!(called.stderr.contains("With --idempotency-key"), "{}", called.stderr);
    }
}

#[test]
fn a_limit_of_nothing_is_a_usage_error() {
    for list in [["op", "list"], ["agent", "list"], ["event", "list"], ["lane", "list"]] {
        let called = call([&list[..], &["--limit", "0"]].concat()).ends_with(2);
        assert!(called.stderr.contains("--limit"), "{}", called.stderr);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_exit_code_64() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.toml"), "[server]\nprot = 1\n").unwrap();
    for arguments in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        let called = call(arguments).in_folder(folder.path()).ends_with(64);
        assert!(called.stderr.contains("config.toml:2") && called.stderr.contains("server.port"));
    }
    call(["serve", "--port", "many"]).ends_with(64);
    call(["config", "check"]).ends_with(0);
}

#[test]
fn config_show_says_where_each_value_came_from() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.toml"), "[agents]\nlease_ms = 5000\n").unwrap();
    let call = call(["config", "show", "--port", "81", "-o", "json"]).in_folder(folder.path());
    let call = call.with("PHOTON_LOG_LEVEL", "warn").with("PHOTON_LOG_LEVLE", "warn");
    let called = call.with("PHOTON_SERVER", "x").ends_with(0);
    let values = called.json();
    let find = |key: &str| values.as_array().unwrap().iter().find(|one| one["key"] == key).unwrap().clone();
    assert_eq!(find("server.port"), json!({"key": "server.port", "value": 81, "source": "--port"}));
    assert_eq!(find("log.level")["source"], json!("PHOTON_LOG_LEVEL"));
    assert!(find("agents.lease_ms")["source"].as_str().unwrap().ends_with("config.toml:2"));
    assert_eq!(find("server.host")["source"], json!("default"));
    assert!(called.stderr.contains("PHOTON_LOG_LEVLE") && !called.stderr.contains("PHOTON_SERVER"));
}

#[tokio::test]
async fn a_second_server_on_the_same_port_does_not_start() {
    let photon = Photon::start().await;
    let called = call(["serve", "--port", &photon.port().to_string()]).ends_with(69);
    assert!(called.stderr.contains("--port"), "{}", called.stderr);
    assert_eq!(call(["healthcheck"]).with("PHOTON_SERVER", photon.url("")).ends_with(0).stdout, "");
}

#[tokio::test]
async fn an_operation_is_created_listed_shown_and_cancelled() {
    let photon = Photon::start().await;
    let new = operation(&step(1, "go", &[], json!({})));
    let made =
        photon.call(["op", "create", "-", "-o", "json", "--idempotency-key", "k"]).input(&new).ends_with(0);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let again =
        photon.call(["op", "create", "-", "-o", "json", "--idempotency-key", "k"]).input(&new).ends_with(0);
    assert_eq!(again.json()["id"], json!(id));
    let list = photon.call(["op", "list", "-o", "json"]).ends_with(0).json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["id"]), (1, &json!(id)));
    let lines = photon.call(["op", "list", "-o", "jsonl"]).ends_with(0).stdout;
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(photon.call(["op", "list", "--status", "failed"]).ends_with(0).stdout, "");
    let shown = photon.call(["op", "get", &id]).ends_with(0).stdout;
    assert!(shown.contains("waits for an agent") && !shown.contains('\u{1b}'), "{shown}");
    photon.call(["op", "create", "-", "--wait", "100ms"]).input(&new).ends_with(7);
    photon.call(["op", "cancel", &id]).ends_with(0);
    let watched = photon.call(["op", "watch", &id]).ends_with(6).stdout;
    assert!(watched.contains("cancelled by"), "{watched}");
    let story = photon.call(["event", "list", "--operation", &id, "-o", "jsonl"]).ends_with(0).stdout;
    assert!(story.lines().last().unwrap().contains("steps.cancelled"), "{story}");
}

#[tokio::test]
async fn what_is_missing_is_3_and_what_conflicts_5_and_what_is_wrong_1() {
    let photon = Photon::start().await;
    for arguments in [["op", "get"], ["op", "watch"], ["op", "cancel"], ["agent", "get"], ["agent", "rm"]] {
        let nobody = if arguments[0] == "op" { "op_00000000000000000000000000000000" } else { "nobody" };
        let called = photon.call([&arguments[..], &[nobody]].concat()).ends_with(3);
        assert!(
            called.stderr.contains(nobody) && called.stdout.is_empty(),
            "{arguments:?}: {}",
            called.stderr
        );
    }
    let wrong = photon.call(["op", "create", "-"]).input(r#"{"name": "x", "workflow": [], "priorty": 1}"#);
    assert!(wrong.ends_with(1).stderr.contains("'priority'"));
    assert!(photon.call(["op", "create", "-"]).input("{").ends_with(1).stderr.contains("not valid JSON"));
    photon.call(["op", "create", "no-such-file"]).ends_with(1);
    photon.call(["agent", "register", "a", "--capability", "go"]).ends_with(0);
    let agents = photon.call(["agent", "list"]).ends_with(0).stdout;
    assert!(agents.starts_with("ID") && agents.contains("active"), "{agents}");
    let id = photon.operation(json!([step(1, "go", &[], json!({}))])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    photon.call(["op", "cancel", &id]).ends_with(5);
    photon.call(["op", "watch", &id]).ends_with(0);
    let shown = photon.call(["op", "get", &id]).ends_with(0).stdout;
    assert!(shown.contains("a 0.") && shown.contains("capability 0.40 + performance"), "{shown}");
}

#[tokio::test]
async fn an_operation_that_fails_is_exit_code_6() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut once = step(1, "go", &[], json!({}));
    once["retryPolicy"] = json!({"maxAttempts": 1});
    let fail = async {
        let lease = photon.claim("a").await;
        photon.report(&lease, "fail", json!({"code": "bad", "message": "It broke."})).await.expect(200);
    };
    let new = operation(&once);
    let create = async {
        let url = photon.url("");
        let call = move || {
            let folder = TempDir::new().unwrap();
            let file = folder.path().join("operation.json");
            std::fs::write(&file, new).unwrap();
            let file = file.to_str().unwrap();
            call(["op", "create", file, "--wait", "30s", "--server", &url]).ends_with(6)
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    };
    let (called, ()) = tokio::join!(create, fail);
    assert!(called.stdout.contains("bad: It broke."), "{}", called.stdout);
}

#[tokio::test]
async fn an_operation_is_named_by_a_part_of_its_id_or_as_the_last() {
    let photon = Photon::start().await;
    photon.call(["op", "get", "@last"]).ends_with(3);
    let first = photon.operation(json!([step(1, "go", &[], json!({}))])).await;
    let last = photon.operation(json!([step(1, "go", &[], json!({}))])).await;
    let shown = |named: &str| {
        let id = photon.call(["op", "get", named, "-o", "json"]).ends_with(0).json()["id"].clone();
        id.as_str().unwrap().to_owned()
    };
    assert_eq!((shown("@last"), shown(&first[20..])), (last.clone(), first.clone()));
    // Ids begin with the time: both were created within the same moments.
    let several = photon.call(["op", "get", &first[..8]]).ends_with(2);
    assert!(several.stderr.contains(&first) && several.stderr.contains(&last), "{}", several.stderr);
    photon.call(["op", "get", "abc"]).ends_with(2);
    photon.call(["op", "cancel", "@last"]).ends_with(0);
    photon.agent("reviewer-1", &[]).await;
    photon.call(["agent", "drain", "reviewer"]).ends_with(0);
    assert_eq!(photon.call(["agent", "get", "er-1", "-o", "json"]).ends_with(0).json()["status"], "inactive");
    photon.call(["agent", "get", "nobody"]).ends_with(3);
}

#[tokio::test]
async fn lists_are_filtered_by_several_statuses_a_time_and_metadata() {
    let photon = Photon::start().await;
    let new = json!({"name": "n", "metadata": {"team": "core"}, "workflow": [step(1, "go", &[], json!({}))]});
    photon.call(["op", "create", "-"]).input(&new.to_string()).ends_with(0);
    photon.call(["op", "cancel", "@last"]).ends_with(0);
    let count = |arguments: &[&str]| {
        let list = photon.call([&["op", "list", "-o", "json"], arguments].concat()).ends_with(0).json();
        list.as_array().unwrap().len()
    };
    assert_eq!(count(&["--status", "failed,cancelled"]), 1);
    assert_eq!(count(&["--status", "failed,completed"]), 0);
    assert_eq!((count(&["--metadata", "team=core"]), count(&["--metadata", "team=other"])), (1, 0));
    assert_eq!((count(&["--created-after", "1h"]), count(&["--created-before", "1h"])), (1, 0));
    for wrong in [["--status", "runing"], ["--created-after", "yesterday"], ["--metadata", "team"]] {
        photon.call([&["op", "list"], &wrong[..]].concat()).ends_with(2);
    }
    assert!(photon.call(["platform", "list"]).ends_with(0).stdout.contains("human"));
}

#[tokio::test]
async fn an_operation_tells_its_attempts_notes_questions_and_results() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut ask = step(2, "approve", &[1], json!({"text": "ship it?"}));
    ask["platform"] = json!("human");
    let mut go = step(1, "go", &[], json!({}));
    go["retryPolicy"] = json!({"initialDelayMs": 10, "maxAttempts": 2});
    photon.operation(json!([go, ask])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "fail", json!({"code": "bad", "message": "It broke."})).await.expect(200);
    let lease = photon.claim("a").await;
    photon.report(&lease, "progress", json!({"progress": 40, "note": "page 2"})).await.expect(200);
    let result = json!({"result": {"pages": 3}});
    photon.report(&lease, "complete", result).await.expect(200);
    let shown = photon.call(["op", "get", "@last"]).ends_with(0).stdout;
    for part in [
        "failed for now: It broke (bad)",
        "last note at 40 %: page 2",
        r#"result: {"pages":3}"#,
        r#"asks: {"text":"ship it?"}"#,
        "photon op approve op_",
    ] {
        assert!(shown.contains(part), "'{part}' is missing in {shown}");
    }
    let list = photon.call(["event", "list"]).ends_with(0).stdout;
    assert!(list.contains("Agent a is registered.") && list.contains("Step 2 asks for approval"), "{list}");
}

#[tokio::test]
async fn who_watches_hears_at_once_that_no_agent_fits() {
    let photon = Photon::start().await;
    let mut picky = step(1, "go", &[], json!({}));
    picky["requires"] = json!({"capabilities": ["rare"]});
    photon.operation(json!([picky])).await;
    // Before it would be said of an agent that fits and does not ask for work.
    let watched = photon.call(["op", "watch", "@last", "--wait", "1s"]).ends_with(7);
    assert!(watched.stdout.contains("no registered agent fits"), "{}", watched.stdout);
    assert!(watched.stderr.contains("has not ended within"), "{}", watched.stderr);
}

#[test]
fn bench_streams_brings_every_event_to_every_socket() {
    let _alone = support::alone();
    let few = ["bench", "streams", "--sockets", "8", "--seconds", "1", "--rate", "5"];
    let report = call(few).ends_with(0).json();
    for (server, phase) in
        [("photon", "steady"), ("photon", "fastest"), ("bare", "steady"), ("bare", "fastest")]
    {
        let phase = &report[server][phase];
        assert!(phase["events"].as_u64().unwrap() >= 4, "{server}: {phase}");
        assert_eq!(phase["deliveries"].as_u64(), phase["events"].as_u64().map(|events| events * 8));
        assert_eq!((&phase["missed"], &phase["repeated"]), (&json!(0), &json!(0)), "{server}");
    }
    assert!(report["ratio"].is_number() && report["photon"]["memory"].is_array());
}

#[tokio::test]
async fn a_tail_goes_on_where_it_was_when_the_server_comes_back() {
    let mut photon = Photon::start().await;
    let tail = Tail::start(&photon, "agent.registered");
    let mut told = Vec::new();
    for round in 0..3 {
        for number in 0..3 {
            photon.agent(&format!("a-{round}-{number}"), &[]).await;
        }
        // Shown at least in part, so that there is something to go on from.
        told.push(tail.next());
        photon.kill();
        photon.restart().await;
    }
    while told.len() < 9 {
        told.push(tail.next());
    }
    assert_eq!(tail.end(), 0, "nothing is told twice");
    let history = photon.get("/api/v1/events?types=agent.registered").await.expect(200);
    assert_eq!(&json!(told), history.data());
}

#[tokio::test]
async fn a_tail_says_what_is_wrong_and_ends_with_its_reader() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let wrong = photon.call(["event", "tail", "--after", "99"]).ends_with(1);
    assert!(wrong.stderr.contains("after is 99"), "{}", wrong.stderr);
    call(["event", "tail", "--server", &format!("http://127.0.0.1:{}", free_port())]).ends_with(9);
    let arguments = ["event", "tail", "--after", "0", "--server", &photon.url("")];
    let mut tail = command(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("agent.registered") && first.contains("agent/a"), "{first}");
    // Its reader is gone: the next event ends it.
    let started = std::time::Instant::now();
    let mut number = 0;
    while tail.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "the tail goes on without a reader");
        photon.agent(&format!("b-{number}"), &[]).await;
        number += 1;
    }
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}
