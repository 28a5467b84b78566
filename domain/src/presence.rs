//! Traces of agents that were heard: one sample now and then, so that "last seen" survives a restart. They
//! stand in one stream per day, which can be removed as a whole; they are no part of an agent's own history.

use serde::{Deserialize, Serialize};

use crate::agent::event::ReportedMetrics;
use crate::{AgentId, Timestamp};

/// First part of the names of these streams.
pub const CATEGORY: &str = "seen";

/// What was noticed. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Event {
    /// `agent.seen`
    Seen(Seen),
}

/// Body of `agent.seen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The agent that was heard.
    pub agent: AgentId,
    /// What it last reported of itself.
    pub metrics: ReportedMetrics,
}

/// Second part of the name of the stream that a moment belongs to: its day in UTC, as `2026-01-31`.
#[must_use]
pub fn day(at: Timestamp) -> String {
    at.to_string().chars().take_while(|letter| *letter != 'T').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_the_day_in_utc() {
        let at = Timestamp::parse("2026-01-31T23:30:00-02:00").unwrap();
        assert_eq!(day(at), "2026-02-01");
    }
}
