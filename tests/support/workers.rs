//! Workers in the test's own process: calls that survive a server that is away, claims, and whole shifts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Photon;

/// What came back: the status and the body.
pub type Heard = (u16, Value);

/// How long a worker waits before it calls again when nobody answers.
const AWAY: Duration = Duration::from_millis(20);

/// Calls a server which may be killed and started again meanwhile.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    base: String,
}

impl Caller {
    pub fn of(photon: &Photon) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { client, base: photon.url("") }
    }

    /// None when no answer came.
    pub async fn post(&self, path: &str, body: Value) -> Option<Heard> {
        let answer = self.client.post(format!("{}{path}", self.base)).json(&body).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// What is shown there; none when no answer came.
    pub async fn get(&self, path: &str) -> Option<Value> {
        self.client.get(format!("{}{path}", self.base)).send().await.ok()?.json().await.ok()
    }

    /// The leases that an agent gets; none when there is no work, or no answer.
    pub async fn claim(&self, agent: &str, max: usize) -> Vec<Value> {
        let body = json!({"wait": "200ms", "max": max});
        let heard = self.post(&format!("/api/v1/agents/{agent}/claim"), body).await;
        let Some((_, body)) = heard else {
            tokio::time::sleep(AWAY).await;
            return Vec::new();
        };
        body["data"]["leases"].as_array().cloned().unwrap_or_default()
    }

    /// Reports about a lease.
    pub async fn report(&self, lease: &Value, what: &str, body: Value) -> Option<Heard> {
        let id = lease["leaseId"].as_str().unwrap();
        self.post(&format!("/api/v1/leases/{id}/{what}"), body).await
    }
}

/// Claims and completes one step after the other until told to stop; a server that is away is no reason to.
async fn work(caller: Caller, agent: String, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        for lease in caller.claim(&agent, 1).await {
            let result = json!({"by": agent, "step": lease["step"]});
            caller.report(&lease, "complete", json!({"result": result})).await;
        }
    }
}

/// Agents at work: `agent-0`, `agent-1` and so on.
pub struct Shift {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Shift {
    /// So many new agents.
    pub async fn begin(photon: &Photon, agents: usize) -> Self {
        for number in 0..agents {
            photon.agent(&format!("agent-{number}"), &[]).await;
        }
        Self::resume(photon, agents)
    }

    /// So many agents that the server knows already.
    pub fn resume(photon: &Photon, agents: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number| work(Caller::of(photon), format!("agent-{number}"), Arc::clone(&stop));
        let workers = (0..agents).map(|number| tokio::spawn(worker(number))).collect();
        Self { stop, workers }
    }

    /// Lets each of them end what it does.
    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}
