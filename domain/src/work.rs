//! What operations that left the log leave of the agents that worked for them: one record for each agent,
//! written when they leave. It stands in a stream of its own, and the next one takes its place.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::agent::event::ReportedMetrics;
use crate::views::agent_directory::Work;

/// First part of the names of these streams; the second is the agent's id.
pub const CATEGORY: &str = "work";

/// What was carried over. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Event {
    /// `work.carried`
    Carried(Box<Carried>),
}

/// Body of `work.carried`: how an agent did up to a position, those operations included that left the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// Every event up to this position counts, whether it is still in the log or not.
    pub as_of: u64,
    /// Position of the last event that changed what is shown of the agent.
    pub position: u64,
    /// How the agent did.
    pub work: Work,
    /// What it last reported of itself, as far as that was recorded.
    pub reported: ReportedMetrics,
    /// When it was last seen, as far as that was recorded.
    pub last_seen: Timestamp,
}
