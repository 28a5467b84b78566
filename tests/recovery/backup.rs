//! Backups as a black box: made under load, verified, restored whole or up to a place, and never by halves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support;

use support::called::{Call, call, command};
use support::streams::{Asked, Said, Way};
use support::{Photon, step};

fn backup(photon: &Photon, arguments: &[&str]) -> Call {
    call([&["backup"], arguments].concat()).in_folder(photon.folder())
}

#[track_caller]
fn told(photon: &Photon, arguments: &[&str]) -> Value {
    backup(photon, &[arguments, &["-o", "json"]].concat()).ends_with(0).json()
}

#[track_caller]
fn refused(photon: &Photon, arguments: &[&str], exit: i32) -> String {
    backup(photon, arguments).ends_with(exit).stderr
}

async fn hash(photon: &Photon, to: Option<&str>) -> String {
    let path = to.map_or("/api/v1/replay".to_owned(), |to| format!("/api/v1/replay?to={to}"));
    photon.get(&path).await.expect(200).data()["hash"].as_str().unwrap().to_owned()
}

fn digest(folder: &Path) -> Option<String> {
    let verify = ["event", "verify", "-o", "json", "--data-dir", folder.to_str().unwrap()];
    let found: Value = serde_json::from_str(&call(verify).run().stdout).ok()?;
    Some(found["digest"].as_str().unwrap().to_owned())
}

/// Every file below a folder, with its bytes.
fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.to_string_lossy().into_owned(), Vec::new());
            found.extend(everything(&path));
        } else {
            found.insert(path.to_string_lossy().into_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

/// One operation of one step, performed to its end.
async fn perform(photon: &Photon) -> String {
    let id = photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    let lease = photon.claim("scout").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    // What follows from it is in the log too.
    photon.until("/api/v1/agents/scout", |agent| agent["currentOperations"] == json!([])).await;
    id
}

#[tokio::test]
async fn a_backup_under_load_restores_to_the_state_that_was_there_at_its_position() {
    let mut photon = Photon::configured("[storage]\ngeneration_max_bytes = 65536\n").await;
    photon.agent("scout", &[]).await;
    let made = AtomicU64::new(0);
    let rounds = 5;
    let load = async {
        while made.load(Ordering::Acquire) < rounds {
            perform(&photon).await;
        }
    };
    let backups = async {
        let mut found = Vec::new();
        for round in 0..rounds {
            let acknowledged = photon.get("/health").await.header("photon-position").parse::<u64>().unwrap();
            let create = backup(&photon, &["create", &format!("copy-{round}"), "-o", "json"]);
            let manifest = tokio::task::spawn_blocking(|| create.ends_with(0).json()).await.unwrap();
            assert!(manifest["position"].as_u64().unwrap() >= acknowledged);
            found.push(manifest);
            made.fetch_add(1, Ordering::AcqRel);
        }
        found
    };
    let ((), manifests) = tokio::join!(load, backups);
    for (round, manifest) in manifests.iter().enumerate() {
        assert_eq!(&told(&photon, &["verify", &format!("copy-{round}")]), manifest);
        let at = manifest["position"].to_string();
        assert_eq!(manifest["stateHash"].as_str().unwrap(), hash(&photon, Some(&at)).await);
    }
    assert!(refused(&photon, &["create", "copy-0"], 5).contains("there already"));
    assert_eq!(photon.stopped().await, 0);
    let (first, before) = (&manifests[0], digest(&photon.folder().join("data")));
    let done = told(&photon, &["restore", "copy-0", "--replace"]);
    assert_eq!(done["plan"]["present"]["sameHistory"], true);
    assert!(done["plan"]["present"]["lost"]["events"].as_u64().unwrap() > 0, "{done}");
    let aside = done["done"]["movedTo"].as_str().unwrap();
    assert_eq!(digest(Path::new(aside)), before, "what was there is kept");
    photon.restart().await;
    // What was under way at that position goes on at once.
    let at = first["position"].to_string();
    assert_eq!(hash(&photon, Some(&at)).await, first["stateHash"].as_str().unwrap());
    photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    assert_eq!(photon.stopped().await, 0);
}

#[tokio::test]
async fn a_restore_ends_at_a_position_or_a_time_and_says_what_is_lost() {
    let mut photon = Photon::start().await;
    photon.agent("scout", &[]).await;
    let kept = perform(&photon).await;
    let place = photon.get("/health").await.header("photon-position").to_owned();
    let there = hash(&photon, Some(&place)).await;
    let events = photon.get("/api/v1/events?order=desc&limit=1").await;
    let time = events.data()[0]["time"].as_str().unwrap().to_owned();
    let later = Instant::now();
    while later.elapsed() < Duration::from_millis(5) {
        tokio::task::yield_now().await;
    }
    let gone = perform(&photon).await;
    photon.agent("second", &[]).await;
    told(&photon, &["create", "copy"]);
    perform(&photon).await;
    photon.put("/api/v1/agents/scout", json!({"name": "Scout"})).await.expect(200);
    let end = photon.get("/health").await.header("photon-position").parse::<u64>().unwrap();
    assert!(refused(&photon, &["restore", "copy", "--replace"], 69).contains("running server"));
    assert!(refused(&photon, &["restore", "copy", "--dry-run"], 69).contains("running server"));
    assert_eq!(photon.stopped().await, 0);

    let before = everything(photon.folder());
    for at in [&place, &time] {
        let plan = told(&photon, &["restore", "copy", "--dry-run", "--at", at]);
        assert_eq!((&plan["done"], plan["plan"]["position"].to_string()), (&Value::Null, place.clone()));
        assert_eq!(plan["plan"]["stateHash"].as_str().unwrap(), there);
        let out = &plan["plan"]["leftOut"];
        assert_eq!((&out["operationsGone"], &out["agentsGone"]), (&json!(1), &json!(1)), "{plan}");
        let present = &plan["plan"]["present"];
        assert_eq!((&present["sameHistory"], present["position"].as_u64()), (&json!(true), Some(end)));
        assert_eq!(present["lost"]["operationsGone"], 2);
        assert_eq!(present["lost"]["agentsBack"], 1, "scout has another name since");
    }
    assert!(refused(&photon, &["restore", "copy"], 5).contains("--replace"));
    assert!(refused(&photon, &["restore", "copy", "--at", "99999"], 2).contains("ends at position"));
    refused(&photon, &["restore", "copy", "--at", "yesterday"], 2);
    assert!(everything(photon.folder()) == before, "nothing was changed");

    told(&photon, &["restore", "copy", "--replace", "--at", &time]);
    photon.restart().await;
    assert_eq!(hash(&photon, None).await, there);
    assert_eq!(photon.shown(&kept).await["status"], "completed");
    photon.get(&format!("/api/v1/operations/{gone}")).await.refused(404, "not_found");
    assert_eq!(photon.stopped().await, 0);
    let data = photon.folder().join("data");
    fs::remove_dir_all(&data).unwrap();
    let done = told(&photon, &["restore", "copy"]);
    assert_eq!((&done["plan"]["present"], &done["done"]["movedTo"]), (&Value::Null, &Value::Null));
    assert_eq!(
        digest(&data).as_ref(),
        told(&photon, &["verify", "copy"])["digest"].as_str().map(String::from).as_ref()
    );
}

#[tokio::test]
async fn a_damaged_or_unfinished_backup_is_named_and_not_restored() {
    let mut photon = Photon::start().await;
    photon.operation(json!([step(1, "marked-action", &[], json!({}))])).await;
    told(&photon, &["create", "copy"]);
    assert_eq!(photon.stopped().await, 0);
    let data = photon.folder().join("data");
    let (journal, manifest) =
        (photon.folder().join("copy/log/gen-000001/journal"), photon.folder().join("copy/manifest.json"));
    let (bytes, text) = (fs::read(&journal).unwrap(), fs::read_to_string(&manifest).unwrap());
    let before = everything(&data);
    let mut flipped = bytes.clone();
    let at = bytes.windows(13).position(|window| window == b"marked-action").unwrap();
    flipped[at] ^= 1;
    let shorter = bytes[..72].to_vec();
    for (damaged, names) in [(flipped, "in generation 1 at byte "), (shorter, "its position is 0, not ")] {
        fs::write(&journal, damaged).unwrap();
        for arguments in [&["verify", "copy"][..], &["restore", "copy", "--replace"]] {
            let said = refused(&photon, arguments, 65);
            assert!(said.contains(names), "{said}");
        }
    }
    fs::write(&journal, &bytes).unwrap();
    let place = text.find("\"createdAt\": \"20").unwrap() + 15;
    let mut changed = text.clone();
    changed.replace_range(place..place + 1, "1");
    fs::write(&manifest, changed).unwrap();
    assert!(refused(&photon, &["verify", "copy"], 65).contains("checksum"));
    fs::remove_file(&manifest).unwrap();
    assert!(refused(&photon, &["verify", "copy"], 65).contains("no manifest"));
    assert!(everything(&data) == before, "nothing was changed");
    fs::write(&manifest, text).unwrap();
    told(&photon, &["verify", "copy"]);
}

#[tokio::test]
async fn a_restore_that_is_killed_leaves_the_old_log_or_the_new_one() {
    let mut photon = Photon::start().await;
    for _ in 0..20 {
        photon.operation(json!([step(1, "look", &[], json!({"text": "x".repeat(50_000)}))])).await;
    }
    told(&photon, &["create", "copy"]);
    photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    assert_eq!(photon.stopped().await, 0);
    let data = photon.folder().join("data");
    let new = told(&photon, &["verify", "copy"])["digest"].as_str().unwrap().to_owned();
    let old = digest(&data).unwrap();
    // How long one takes that is not killed.
    let begun = Instant::now();
    told(&photon, &["restore", "copy", "--data-dir", "elsewhere"]);
    let takes = begun.elapsed().as_micros() as u64 + 5_000;
    let (mut replaced, tries, mut dice) = (0, 40, 7_u64);
    for round in 0..tries {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = Duration::from_micros((dice >> 33) % takes);
        let mut restore = command(["backup", "restore", "copy", "--replace"]);
        restore.current_dir(photon.folder()).stderr(Stdio::null());
        let mut child = restore.spawn().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = digest(&data).unwrap_or_else(|| panic!("round {round}: neither is there"));
        assert!(found == old || found == new, "round {round}");
        if found == new {
            replaced += 1;
            let kept = fs::read_dir(photon.folder()).unwrap().map(|entry| entry.unwrap().path());
            let mut kept = kept.filter(|path| path.to_string_lossy().contains("data."));
            let aside =
                kept.find(|path| digest(path).as_ref() == Some(&old)).expect("what was there is kept");
            fs::remove_dir_all(&data).unwrap();
            fs::rename(aside, &data).unwrap();
        }
    }
    println!("{replaced} of {tries} had come to their end");
    told(&photon, &["restore", "copy", "--replace"]);
    assert_eq!(digest(&data), Some(new));
    photon.restart().await;
}

#[tokio::test]
async fn a_restored_folder_is_open_to_nobody_to_whom_the_former_was_not() {
    let mut photon = Photon::start().await;
    photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    told(&photon, &["create", "copy"]);
    assert_eq!(photon.stopped().await, 0);
    let data = photon.folder().join("data");
    let mode = |folder: &Path| fs::metadata(folder).unwrap().mode() & 0o7777;
    // Only root may give something away.
    let _ = chown(&data, Some(4_321), Some(4_321));
    let owner = fs::metadata(&data).unwrap().uid();
    for kept in [0o700, 0o750, 0o755] {
        fs::set_permissions(&data, Permissions::from_mode(kept)).unwrap();
        told(&photon, &["restore", "copy", "--replace"]);
        assert_eq!(mode(&data), kept);
        for path in [data.clone(), data.join("identity"), data.join("gen-000001/journal")] {
            assert_eq!(fs::metadata(path).unwrap().uid(), owner);
        }
    }
    told(&photon, &["restore", "copy", "--data-dir", "new"]);
    assert_eq!(mode(&photon.folder().join("new")), 0o700);
    let before = everything(photon.folder());
    let said = refused(&photon, &["restore", "copy", "--data-dir", "missing/new"], 64);
    assert!(said.contains("no folder missing"), "{said}");
    assert!(everything(photon.folder()) == before, "nothing was changed");
}

/// The first words of a stream that begins at the beginning.
async fn first_words(photon: &Photon) -> Value {
    let mut stream = photon.request("GET", "/api/v1/events/stream?after=0").send().await.unwrap();
    let mut told = String::new();
    while !told.contains("event: bookmark\n") || !told.ends_with("\n\n") {
        let chunk = stream.chunk().await.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let data = told.split("event: bookmark\ndata: ").nth(1).unwrap().lines().next().unwrap();
    serde_json::from_str(data).unwrap()
}

#[tokio::test]
async fn whoever_resumes_in_a_former_history_is_told_the_new_one() {
    let mut photon = Photon::start().await;
    photon.agent("scout", &[]).await;
    told(&photon, &["create", "copy"]);
    let health = photon.get("/health/detailed").await.expect(200);
    let former = health.data()["epoch"].as_str().unwrap().to_owned();
    assert_eq!(first_words(&photon).await, json!({"sequence": "0", "epoch": former}));
    let known = format!("after=1&epoch={former}");
    let page = photon.get(&format!("/api/v1/events?{known}")).await.expect(200);
    assert_eq!(page.header("photon-epoch"), former);
    assert_eq!(photon.stopped().await, 0);
    photon.restart().await;
    assert_eq!(first_words(&photon).await["epoch"], json!(former), "a restart changes no history");
    assert_eq!(photon.stopped().await, 0);

    let done = told(&photon, &["restore", "copy", "--replace"]);
    let epoch = done["done"]["epoch"].as_str().unwrap().to_owned();
    photon.restart().await;
    assert!(epoch != former);
    assert_eq!(photon.get("/health/detailed").await.data()["epoch"], json!(epoch));
    assert_eq!(first_words(&photon).await["epoch"], json!(epoch));
    for path in ["/api/v1/events", "/api/v1/events/stream"] {
        let answer = photon.get(&format!("{path}?{known}")).await;
        assert_eq!(answer.header("photon-epoch"), epoch);
        answer.refused(410, "epoch_changed");
        photon.get(&format!("{path}?after=1&epoch=7")).await.refused(400, "invalid_parameter");
    }
    let socket = photon.request("GET", &format!("/api/v1/events?{known}"));
    let socket = socket.header("connection", "upgrade").header("upgrade", "websocket");
    photon.send(socket).await.refused(410, "epoch_changed");
    let mut socket = Asked::new(photon.port(), Way::Socket, "").open().await;
    socket.begun().await;
    socket.say(&json!({"type": "subscribe", "after": "1", "epoch": former}).to_string()).await;
    assert_eq!(socket.control("error").await, 0);
    assert_eq!(socket.next().await, Said::End(Some(4410)));
    photon.get(&format!("/api/v1/events?after=1&epoch={epoch}")).await.expect(200);
    assert_eq!(photon.stopped().await, 0);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_with_a_sentence() {
    let photon = Photon::start().await;
    let second = call(["serve", "--port", "0", "--data-dir", "data"]).in_folder(photon.folder());
    assert!(second.ends_with(69).stderr.contains("another process has the log open"));
}

/// Every report about a lease, and its revocation, is answered with 410.
async fn nothing_is_taken(photon: &Photon, lease: &str) {
    let reports = [
        ("ack", json!({})),
        ("progress", json!({"progress": 50, "checkpoint": {"at": 1}})),
        ("complete", json!({"result": "of before"})),
        ("fail", json!({"code": "x", "message": "of before"})),
        ("fail", json!({"code": "rate_limited", "message": "of before"})),
        ("release", json!({})),
    ];
    for (report, body) in reports {
        let told = photon.post(&format!("/api/v1/leases/{lease}/{report}"), body).await;
        let problem = told.refused(410, "lease_lost");
        assert!(problem.body.to_string().contains("before the log was restored"), "{}", problem.body);
    }
    photon.delete(&format!("/api/v1/leases/{lease}")).await.refused(410, "lease_lost");
}

#[tokio::test]
async fn a_lease_of_before_a_restore_settles_nothing_even_when_a_new_grant_has_its_number() {
    let mut photon = Photon::start().await;
    photon.agent("holder", &[]).await;
    let held = photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    let held_before = photon.claim("holder").await["leaseId"].as_str().unwrap().to_owned();
    let waiting = photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    told(&photon, &["create", "copy"]);
    photon.agent("scout", &[]).await;
    let granted_before = photon.claim("scout").await["leaseId"].as_str().unwrap().to_owned();
    assert_eq!(photon.stopped().await, 0);
    let done = told(&photon, &["restore", "copy", "--replace"]);
    photon.restart().await;

    let tag = done["done"]["epoch"].as_str().unwrap()[..6].to_owned();
    let named = |operation: &str| format!("ls_{tag}_{}_1_1", operation.trim_start_matches("op_"));
    photon.agent("scout", &[]).await;
    let again = photon.claim("scout").await;
    assert_eq!(again["leaseId"], json!(named(&waiting)));
    assert_eq!(granted_before[9..], named(&waiting)[9..], "only the tag tells them apart");
    assert_eq!(held_before[9..], named(&held)[9..]);
    for before in [&granted_before, &held_before] {
        nothing_is_taken(&photon, before).await;
        let beat = json!({"leases": [{"leaseId": before, "progress": 7}]});
        let pulse = photon.post("/api/v1/agents/scout/heartbeat", beat).await.expect(200).data().clone();
        assert_eq!(pulse["renewed"], json!([]), "{pulse}");
        let told = &pulse["directives"][0];
        assert_eq!((&told["type"], &told["leaseId"]), (&json!("lost"), &json!(before)), "{pulse}");
    }
    // Wherever a lease is shown it has the name by which it can be settled.
    let events = photon.get("/api/v1/events?types=step.reserved").await.expect(200).data().clone();
    let reserved: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["data"]["leaseId"]).collect();
    assert_eq!(reserved, [&json!(named(&held)), &json!(named(&waiting))]);
    let leases = photon.get("/api/v1/leases").await.expect(200).data().clone();
    let leases: Vec<_> = leases.as_array().unwrap().iter().map(|lease| &lease["leaseId"]).collect();
    assert_eq!(leases, reserved);
    photon.report(&again, "complete", json!({"result": "of now"})).await.expect(200);
    assert_eq!(photon.shown(&waiting).await["status"], "completed");
    assert_eq!(photon.shown(&held).await["status"], "in_progress");
}
