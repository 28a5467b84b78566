//! The calls about agents, and those an agent makes to be heard and to get work.

use std::time::Duration;

use reqwest::Method;

use super::{Call, Client, ClientError, written};
use crate::http::agent_request::{ClaimWork, Heartbeat, RegisterAgent, UpdateAgent};
use crate::http::agent_view::{AgentView, ClaimView, HeartbeatView, RegisteredView};
use crate::http::selection::{SelectAgent, SelectionView};

const AGENTS: [&str; 3] = ["api", "v1", "agents"];
/// A heartbeat that takes longer is worth nothing; the next one says the same.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(5);

impl Client {
    /// Agents by id.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn agents(
        &self,
        filters: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<AgentView>, ClientError> {
        self.items(&AGENTS, filters, most).await
    }

    /// One agent.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn agent(&self, id: &str) -> Result<AgentView, ClientError> {
        let [api, version, agents] = AGENTS;
        self.data(Call::get(&[api, version, agents, id])).await
    }

    /// Registers an agent, or its next incarnation.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn register_agent(&self, agent: &RegisterAgent) -> Result<RegisteredView, ClientError> {
        self.data(Call::post(&AGENTS, agent)?).await
    }

    /// Changes an agent.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn update_agent(&self, id: &str, change: &UpdateAgent) -> Result<AgentView, ClientError> {
        let [api, version, agents] = AGENTS;
        let call = Call::post(&[api, version, agents, id], change)?;
        self.data(Call { method: Method::PUT, ..call }).await
    }

    /// Who would be chosen now for a step that asks for this.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn select_agent(&self, wish: &SelectAgent) -> Result<SelectionView, ClientError> {
        let [api, version, agents] = AGENTS;
        self.data(Call::post(&[api, version, agents, "select"], wish)?.question()).await
    }

    /// Unregisters an agent.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn unregister_agent(&self, id: &str) -> Result<AgentView, ClientError> {
        let [api, version, agents] = AGENTS;
        self.data(Call::new(Method::DELETE, &[api, version, agents, id])).await
    }

    /// Says that an agent lives.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn heartbeat(&self, id: &str, heartbeat: &Heartbeat) -> Result<HeartbeatView, ClientError> {
        let [api, version, agents] = AGENTS;
        let call = Call::post(&[api, version, agents, id, "heartbeat"], heartbeat)?;
        self.data(call.within(HEARTBEAT_WITHIN)).await
    }

    /// Waits for work. The same key again gives the same leases, as long as they live.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn claim(
        &self,
        id: &str,
        incarnation: Option<u64>,
        max: u32,
        wait: Duration,
        key: &str,
    ) -> Result<ClaimView, ClientError> {
        let [api, version, agents] = AGENTS;
        let body = ClaimWork { wait: Some(written(wait)), max, actions: None, incarnation };
        self.data(Call::post(&[api, version, agents, id, "claim"], &body)?.key(Some(key)).waits(wait)).await
    }
}
