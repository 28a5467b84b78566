//! Workers in the test's own process: calls that survive a server that is away, and claims.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

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
