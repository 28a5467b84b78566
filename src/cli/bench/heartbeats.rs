//! Measures heartbeats: each connection is an agent that says again and again that it lives.

use serde::Serialize;
use serde_json::json;

use super::Plan;
use super::fault::Fault;
use super::load::{Answered, Request, closed_loop, median};
use super::process::{Memory, Process};
use super::server::Server;

/// Heartbeats.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heartbeats {
    /// Agents that beat.
    pub(super) agents: usize,
    #[serde(flatten)]
    pub(super) answered: Answered,
    /// The server's memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
}

/// Measures heartbeats of as many agents as there are connections.
pub(super) async fn measure(plan: &Plan) -> Result<Heartbeats, Fault> {
    let server = Server::of(plan).await?;
    let names: Vec<String> = (0..plan.connections).map(|n| format!("{}-beat-{n}", plan.run)).collect();
    server.register(&names, 1).await?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let requests = names.iter().map(|name| Request {
            path: format!("/api/v1/agents/{name}/heartbeat"),
            body: json!({"incarnation": 1, "metrics": {"cpuUsage": 12.5, "memoryUsage": 40.0}}),
            wanted: 200,
        });
        rounds.push(closed_loop(server.address(), requests.collect(), plan.seconds, server.process()).await?);
    }
    let memory = server.process().and_then(Process::memory);
    server.unregister(&names).await?;
    server.stop().await?;
    let answered = median(rounds).ok_or(Fault::Stuck("no round was measured"))?;
    Ok(Heartbeats { agents: names.len(), answered, memory })
}
