//! Who was seen when, and which leases were renewed: presence, not history. Lives in memory only;
//! after a restart everybody gets one full fresh interval.

use std::collections::{HashMap, HashSet};

use domain::agent::event::ReportedMetrics;
use domain::agent::health;
use domain::views::agent_directory::Row;
use domain::{AgentId, LeaseId, Timestamp};
use parking_lot::Mutex;

/// What is known of an agent's presence.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When it was last heard.
    pub at: Timestamp,
    /// What it then reported.
    pub metrics: ReportedMetrics,
    /// When a sample of it was last recorded.
    pub sampled_at: Timestamp,
}

#[derive(Debug, Default)]
struct Present {
    agents: HashMap<AgentId, Seen>,
    renewed: HashMap<LeaseId, Timestamp>,
    waiting: HashSet<AgentId>,
}

/// The presence of all agents and leases. Bounded by the number of agents and of their slots.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Present>);

impl Presence {
    /// An agent was heard. Says whether a sample is due, one per `sample_ms`.
    pub fn heard(
        &self,
        agent: &AgentId,
        metrics: Option<ReportedMetrics>,
        at: Timestamp,
        sample_ms: u64,
    ) -> bool {
        let mut present = self.0.lock();
        let fresh = Seen { at, metrics: ReportedMetrics::default(), sampled_at: at };
        let seen = present.agents.entry(agent.clone()).or_insert(fresh);
        seen.at = at;
        seen.metrics = metrics.unwrap_or(seen.metrics);
        let due = at.ms_since(seen.sampled_at) >= sample_ms;
        if due {
            seen.sampled_at = at;
        }
        due
    }

    /// When and how an agent was last seen since the start.
    #[must_use]
    pub fn seen(&self, agent: &AgentId) -> Option<Seen> {
        self.0.lock().agents.get(agent).copied()
    }

    /// How fresh its last sign of life is, 0 to 1, and what it last reported. Who was not seen since the
    /// start has a full interval yet.
    #[must_use]
    pub fn freshness(&self, id: &AgentId, row: &Row, now: Timestamp) -> (f64, ReportedMetrics) {
        let Some(seen) = self.seen(id) else { return (1.0, row.reported) };
        // Nothing reported since the start is no news about what was reported before.
        let silent = seen.metrics == ReportedMetrics::default();
        let reported = if silent { row.reported } else { seen.metrics };
        (health::freshness(&row.agent.profile.config, now.ms_since(seen.at)), reported)
    }

    /// An agent waits for work, or does no more.
    pub fn waits(&self, agent: &AgentId, waits: bool) {
        let mut present = self.0.lock();
        if waits {
            present.waiting.insert(agent.clone());
        } else {
            present.waiting.remove(agent);
        }
    }

    /// Whether an agent waits for work.
    #[must_use]
    pub fn is_waiting(&self, agent: &AgentId) -> bool {
        self.0.lock().waiting.contains(agent)
    }

    /// A lease was renewed.
    pub fn renew(&self, lease: &LeaseId, at: Timestamp) {
        self.0.lock().renewed.insert(lease.clone(), at);
    }

    /// When a lease was last renewed since the start.
    #[must_use]
    pub fn renewed(&self, lease: &LeaseId) -> Option<Timestamp> {
        self.0.lock().renewed.get(lease).copied()
    }

    /// Forgets a lease that is over.
    pub fn forget_lease(&self, lease: &LeaseId) {
        self.0.lock().renewed.remove(lease);
    }

    /// Forgets an agent that is gone.
    pub fn forget_agent(&self, agent: &AgentId) {
        self.0.lock().agents.remove(agent);
    }
}
