//! The server's own log: it tells of the work, and a line that cannot be written costs the line only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use support::called::{command, full_pipe, until};
use support::{PATIENCE, free_port, step};

/// A server whose standard error is given.
struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
    client: Client,
}

impl Server {
    async fn start(level: &str, stderr: impl Into<Stdio>, config: &str) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let child = command(["serve"])
            .current_dir(&folder)
            .env("PHOTON_PORT", port.to_string())
            .env("PHOTON_LOG_LEVEL", level)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut server = Self { child, port, _folder: folder, client: Client::new() };
        let begun = Instant::now();
        while server.call("GET", "/health/ready", None).await.is_none_or(|(status, _)| status != 200) {
            assert!(server.child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(begun.elapsed() < PATIENCE, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, String)> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        let request = body.iter().fold(request, RequestBuilder::json);
        let answer = request.timeout(PATIENCE).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.call("POST", path, Some(body)).await.expect("an answer");
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str::<Value>(&text).unwrap()["data"].take()
    }

    async fn operation(&self) -> String {
        let body = json!({"name": "n", "workflow": [step(1, "work", &[], json!({}))]});
        self.post("/api/v1/operations", body).await["id"].as_str().unwrap().to_owned()
    }

    async fn claim(&self, agent: &str) -> String {
        let claimed = self.post(&format!("/api/v1/agents/{agent}/claim"), json!({"wait": "20s"})).await;
        claimed["leases"][0]["leaseId"].as_str().unwrap().to_owned()
    }

    async fn register(&self, agent: &str) {
        let config = json!({"heartbeatIntervalMs": 0, "labels": {"account": "team"}});
        self.post("/api/v1/agents", json!({"id": agent, "config": config})).await;
    }

    fn stop(&mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        until("the server ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Work of which the log tells several lines.
async fn work(server: &Server) {
    server.register("a").await;
    for _ in 0..5 {
        server.operation().await;
        let lease = server.claim("a").await;
        server.post(&format!("/api/v1/leases/{lease}/complete"), json!({"result": 1})).await;
    }
    server.post("/api/v1/snapshots", json!({})).await;
}

async fn dropped(server: &Server) -> u64 {
    let (_, metrics) = server.call("GET", "/metrics", None).await.expect("the metrics");
    let line = metrics.lines().find(|line| line.starts_with("photon_log_lines_dropped_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_the_work_nor_the_end() {
    let (_reader, writer) = full_pipe();
    let mut server = Server::start("trace", writer, "").await;
    work(&server).await;
    assert_eq!(server.stop(), 0);
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_or_whose_disk_is_full_costs_lines_which_are_counted() {
    let (reader, writer) = full_pipe();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(writer), Stdio::from(full)] {
        let mut server = Server::start("info", stderr, "").await;
        work(&server).await;
        assert!(dropped(&server).await > 0);
        assert_eq!(server.stop(), 0);
    }
}

#[tokio::test]
async fn the_log_tells_how_operations_end_which_leases_are_lost_and_who_waits() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let mut server = Server::start("info", log, "[log]\nformat = \"json\"\n").await;
    server.register("a").await;
    let done = server.operation().await;
    let lease = server.claim("a").await;
    server.post(&format!("/api/v1/leases/{lease}/complete"), json!({"result": 1})).await;
    let lost = server.operation().await;
    let lease = server.claim("a").await;
    server.post(&format!("/api/v1/leases/{lease}/ack"), json!({})).await;
    server.register("a").await;
    let lease = server.claim("a").await;
    let limited = json!({"code": "rate_limited", "message": "429", "retryAfterMs": 60_000});
    server.post(&format!("/api/v1/leases/{lease}/fail"), limited).await;
    server.call("DELETE", &format!("/api/v1/operations/{lost}"), None).await.expect("an answer");
    assert_eq!(server.stop(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |message: &str, operation: &str| {
        let is_it = |line: &&Value| line["message"] == message && line["operation"] == operation;
        let found: Vec<&Value> = lines.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{message} of {operation} in {text}");
        found[0].clone()
    };
    let ended = told("operation ended", &done);
    assert_eq!((&ended["level"], &ended["status"]), (&json!("INFO"), &json!("completed")));
    assert!(ended["duration_ms"].is_u64(), "{ended}");
    assert_eq!(told("operation ended", &lost)["status"], json!("cancelled"));
    let lease = told("lease lost", &lost);
    assert_eq!((&lease["agent"], &lease["reason"]), (&json!("a"), &json!("new_incarnation")));
    assert!(
        lines.iter().any(|line| line["message"] == "account parked" && line["wait_ms"].is_u64()),
        "{text}"
    );
    let own = ["photon", "actors", "events"];
    let is_own = |line: &Value| own.iter().any(|own| line["target"].as_str().unwrap().starts_with(own));
    assert!(lines.iter().all(is_own), "a library says more than warnings: {text}");
}
