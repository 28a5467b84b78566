//! A real server process on a real port, and a client for it. Waits for conditions, never for a time.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub mod alone;
pub mod called;
pub mod checker;
#[path = "../../events/src/dice.rs"]
pub mod dice;
pub mod history;
pub mod streams;
pub mod tally;
pub mod workers;

#[allow(unused_imports, reason = "not every binary has such tests")]
pub use alone::alone;

/// The events that the specification names.
pub const SPECIFIED_EVENTS: [&str; 11] = [
    "operation.started",
    "operation.progressed",
    "operation.completed",
    "operation.failed",
    "agent.registered",
    "agent.status_changed",
    "agent.heartbeat",
    "agent.timeout",
    "system.health_changed",
    "performance.alert",
    "security.event",
];

/// Longest wait for any condition.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server process.
pub struct Photon {
    child: Child,
    port: u16,
    folder: TempDir,
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
    client: Client,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// Fails the test unless the status and the code are these.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.body);
        assert_eq!(self.body["success"], json!(false));
        self
    }
}

impl Photon {
    /// A server with the default settings on a fresh folder.
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// A server with this config.toml on a fresh folder.
    pub async fn configured(config: &str) -> Self {
        Self::surrounded(config, Vec::new()).await
    }

    /// The same with these environment variables besides, in every life.
    pub async fn surrounded(config: &str, environment: Vec<(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, config).unwrap();
        let port = free_port();
        let child = spawn(port, folder.path(), &path, &environment);
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let mut photon = Self { child, port, folder, config: Some(path), environment, client };
        photon.ready().await;
        photon
    }

    /// Ends the process without a chance to clean up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a process on the same folder and port.
    pub async fn restart(&mut self) {
        let config = self.config.clone().unwrap();
        self.child = spawn(self.port, self.folder.path(), &config, &self.environment);
        self.ready().await;
    }

    /// Starts a process on the same folder and port that lives; it may not be ready for a while.
    pub async fn begin_restart(&mut self) {
        let config = self.config.clone().unwrap();
        self.child = spawn(self.port, self.folder.path(), &config, &self.environment);
        self.answering("/health/live").await;
    }

    /// Starts a process on the same folder and port that cannot become ready.
    pub async fn restart_unready(&mut self) {
        let config = self.config.clone().unwrap();
        self.child = spawn(self.port, self.folder.path(), &config, &self.environment);
        self.answering("/health/startup").await;
    }

    /// Gives the next process another config.toml.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.config.as_ref().unwrap(), config).unwrap();
    }

    /// Starts a process on the same folder and port that shows what is whole of the log.
    pub async fn restart_read_only(&mut self) {
        let config = self.config.clone().unwrap();
        let mut command = serving(self.port, self.folder.path(), &config, &self.environment);
        self.child = command.arg("--quarantine").spawn().unwrap();
        self.answering("/health/startup").await;
    }

    /// What a process ends with that cannot start on this folder, and what it says.
    pub fn refused_start(&self) -> (i32, String) {
        let config = self.config.clone().unwrap();
        let mut command = serving(self.port, self.folder.path(), &config, &self.environment);
        let output = command.stderr(Stdio::piped()).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Asks the process to stop, and waits for its end.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Asks the process to stop, and lets the test go on until its end.
    pub async fn stopped(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for a process that ends by itself.
    pub async fn ended(&mut self) -> i32 {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(started.elapsed() < PATIENCE, "the server does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Memory of the process that is in use, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn ready(&mut self) {
        self.answering("/health/ready").await;
    }

    async fn answering(&mut self, path: &str) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}");
            }
            let answer = self.client.get(self.url(path)).send().await;
            if answer.is_ok_and(|answer| answer.status().as_u16() == 200) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the server did not become ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request("POST", path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request("PUT", path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request("DELETE", path)).await
    }

    /// Registers an agent with these capabilities that needs no heartbeat.
    pub async fn agent(&self, id: &str, capabilities: &[&str]) {
        let config = json!({"heartbeatIntervalMs": 0});
        let body = json!({"id": id, "capabilities": capabilities, "config": config});
        self.post("/api/v1/agents", body).await.expect(201);
    }

    /// Creates an operation with these steps and returns its id.
    pub async fn operation(&self, workflow: Value) -> String {
        let body = json!({"name": "test", "workflow": workflow});
        let answer = self.post("/api/v1/operations", body).await.expect(201);
        answer.data()["id"].as_str().unwrap().to_owned()
    }

    /// Claims one step, waiting for it.
    pub async fn claim(&self, agent: &str) -> Value {
        let path = format!("/api/v1/agents/{agent}/claim");
        let answer = self.post(&path, json!({"wait": "20s"})).await.expect(200);
        let leases = answer.data()["leases"].as_array().unwrap().clone();
        assert_eq!(leases.len(), 1, "nothing to claim for {agent}");
        leases[0].clone()
    }

    /// Reports about a lease.
    pub async fn report(&self, lease: &Value, what: &str, body: Value) -> Answer {
        let id = lease["leaseId"].as_str().unwrap();
        self.post(&format!("/api/v1/leases/{id}/{what}"), body).await
    }

    /// The operation as it stands.
    pub async fn shown(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/operations/{id}")).await.expect(200).data().clone()
    }

    /// Names of an operation's events, in order.
    pub async fn history(&self, id: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v1/operations/{id}/events?limit=500")).await.expect(200);
        let events = answer.data().as_array().unwrap().clone();
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until so many agents wait for work.
    pub async fn claims_waiting(&self, count: usize) {
        let started = Instant::now();
        let wanted = format!("photon_claims_waiting {count}\n");
        while !self.get("/metrics").await.body.as_str().unwrap().contains(&wanted) {
            assert!(started.elapsed() < PATIENCE, "there are not {count} claims waiting");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a condition on the answer to a GET holds.
    pub async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.get(path).await;
            if answer.status == 200 && holds(answer.data()) {
                return answer.data().clone();
            }
            assert!(started.elapsed() < PATIENCE, "{path} is still {}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Photon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &Path, config: &Path, environment: &[(String, String)]) -> Child {
    serving(port, folder, config, environment).spawn().unwrap()
}

fn serving(port: u16, folder: &Path, config: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_photon"));
    command
        .arg("serve")
        .env("PHOTON_PORT", port.to_string())
        .env("PHOTON_DATA_DIR", folder.join("data"))
        .env("PHOTON_CONFIG", config)
        .current_dir(folder)
        .envs(environment.iter().cloned())
        .env("PHOTON_LOG_LEVEL", std::env::var("PHOTON_TEST_LOG").unwrap_or_else(|_| "error".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A step for a worker.
#[allow(clippy::needless_pass_by_value, reason = "callers write the inputs in place")]
pub fn step(number: u32, action: &str, dependencies: &[u32], inputs: Value) -> Value {
    json!({"step": number, "platform": "worker", "action": action, "inputs": inputs,
        "dependencies": dependencies})
}

/// A running `photon event tail`, and the lines that it prints. Ends with its owner.
pub struct Tail {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Tail {
    /// From the beginning, of these types.
    pub fn start(photon: &Photon, types: &str) -> Self {
        let arguments = ["event", "tail", "--after", "0", "-o", "jsonl", "--types", types];
        let mut child = called::command(arguments)
            .args(["--server", &photon.url("")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (seen, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| seen.send(line)));
        Self { child, lines }
    }

    /// The next event, waiting for it.
    pub fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    /// Ends it; how many events it had printed that nobody asked for.
    pub fn end(mut self) -> usize {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().count()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
