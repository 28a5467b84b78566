//! The files of a server: who may read them, and what happens when they are moved, shortened or bounded
//! while it runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support;

use support::called::{call, command};
use support::{Photon, free_port, step};

fn creation() -> Value {
    json!({"name": "n", "workflow": [step(1, "work", &[], json!({"text": "x".repeat(3_000)}))]})
}

/// What of a folder others than its owner may use.
fn open_to_others(path: &Path) -> Vec<String> {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    let mut found = Vec::new();
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:03o}", path.display()));
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    found
}

/// A server that a shell starts after it has set something.
struct Started {
    child: std::process::Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Started {
    async fn with(setting: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().to_string();
        let photon = command(["version"]);
        let script = format!("{setting}; exec \"$0\" serve --port {port} --data-dir data");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(photon.get_program()).current_dir(&folder);
        let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let started = Self { child, url, folder };
        let client = reqwest::Client::new();
        let begun = std::time::Instant::now();
        while client.get(format!("{}/health/ready", started.url)).send().await.is_err() {
            assert!(begun.elapsed() < support::PATIENCE, "the server does not answer");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        started
    }

    async fn create(&self) -> u16 {
        let request = reqwest::Client::new().post(format!("{}/api/v1/operations", self.url));
        request.json(&creation()).send().await.unwrap().status().as_u16()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn whatever_the_umask_what_is_stored_is_for_its_owner_alone() {
    let started = Started::with("umask 000").await;
    while started.create().await != 201 {}
    let folder = started.folder.path();
    call(["backup", "create", "copy"]).in_folder(folder).ends_with(0);
    for name in ["data", "copy"] {
        assert_eq!(open_to_others(&folder.join(name)), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_command_of_a_pool_finds_the_umask_of_whoever_started_the_server() {
    let pool = r#"[[pool]]\nname = "p"\ncapability = "c"\nmax = 1\ntarget_queue_seconds = 1\n"#;
    let pool = format!("{pool}{}", r#"command = ["sh", "-c", "umask"]\n"#);
    let started = Started::with(&format!("umask 027; printf '{pool}' > config.toml")).await;
    while started.create().await != 201 {}
    let url = format!("{}/api/v1/operations", started.url);
    let begun = std::time::Instant::now();
    loop {
        let listed: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        if listed["data"][0]["status"] == "completed" {
            let id = listed["data"][0]["id"].as_str().unwrap();
            let shown: Value = reqwest::get(format!("{url}/{id}")).await.unwrap().json().await.unwrap();
            assert!(shown["data"]["results"]["1"].to_string().contains("027"), "{shown}");
            return;
        }
        assert!(begun.elapsed() < support::PATIENCE, "{listed}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_refuses_changes_and_ends_nothing() {
    // In blocks of 512 bytes.
    let started = Started::with("ulimit -f 512").await;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&507) && statuses.len() < 1_000 {
        statuses.push(started.create().await);
    }
    assert_eq!(statuses.last(), Some(&507));
    let listed = reqwest::get(format!("{}/api/v1/operations", started.url)).await.unwrap();
    assert_eq!(listed.status().as_u16(), 200);
}

#[tokio::test]
async fn a_data_folder_that_was_moved_is_missed_and_taken_again_when_it_is_back() {
    let photon = Photon::start().await;
    let (data, elsewhere) = (photon.folder().join("data"), photon.folder().join("elsewhere"));
    photon.post("/api/v1/operations", creation()).await.expect(201);
    fs::rename(&data, &elsewhere).unwrap();
    photon.post("/api/v1/operations", creation()).await.refused(507, "storage_full");
    photon.get("/health/ready").await.refused(507, "storage_full");
    let health = photon.get("/health/detailed").await.expect(503);
    assert!(health.data()["checks"].to_string().contains("was moved or replaced"), "{}", health.body);
    assert!(!data.exists(), "nothing is made in its place");
    fs::rename(&elsewhere, &data).unwrap();
    photon.get("/health/ready").await.expect(200);
    photon.post("/api/v1/operations", creation()).await.expect(201);
}

#[tokio::test]
async fn a_journal_that_was_removed_ends_the_server_with_the_next_change() {
    let mut photon = Photon::start().await;
    photon.post("/api/v1/operations", creation()).await.expect(201);
    fs::remove_file(photon.folder().join("data/gen-000001/journal")).unwrap();
    assert_ne!(photon.post("/api/v1/operations", creation()).await.status, 201);
    assert_eq!(photon.ended().await, 74);
}

#[tokio::test]
async fn a_backup_lies_outside_of_the_data_folder_and_holds_only_files() {
    let photon = Photon::start().await;
    photon.post("/api/v1/operations", creation()).await.expect(201);
    let backup = |arguments: &[&str]| call([&["backup"], arguments].concat()).in_folder(photon.folder());
    for inside in ["data/copy", "data/../data/copy", "data/gen-000001/copy"] {
        let told = backup(&["create", inside]).ends_with(2).stderr;
        assert!(told.contains("choose a folder outside of it"), "{told}");
    }
    for name in ["copy/manifest.json", "copy/log/gen-000001/journal", "copy/log/gen-000001/more"] {
        backup(&["create", "copy"]).ends_with(0);
        let path = photon.folder().join(name);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        for arguments in [&["verify", "copy"][..], &["restore", "copy", "--data-dir", "other"]] {
            let told = backup(arguments).ends_with(65).stderr;
            assert!(told.contains("neither a file nor a folder"), "{told}");
        }
        fs::remove_dir_all(photon.folder().join("copy")).unwrap();
    }
}
