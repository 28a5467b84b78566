//! All agents: who each is, folded from its own events, and how it did, folded from the operations'. Never
//! decides; which leases an agent has is told by the leases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Stamp;
use super::leases::Ended;
use crate::agent::event::{ReportedMetrics, Status};
use crate::agent::quarantine::Streaks;
use crate::agent::record::Record;
use crate::agent::{Agent, Event};
use crate::work::Carried;
use crate::{AgentId, Aggregate, Timestamp};

/// How an agent did, as the server measured it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Its results.
    pub record: Record,
    /// How often in a row its work came to nothing.
    pub streaks: Streaks,
    /// When it last had a slot become free; its registration before the first time.
    pub idle_since: Timestamp,
}

/// One agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its state.
    pub agent: Agent,
    /// Version of its stream.
    pub revision: u64,
    /// Position of the last event that changed what is shown of it.
    pub position: u64,
    /// How it did.
    pub work: Work,
    /// Up to this position, `work`, `reported` and `last_seen` were carried over from what left the log.
    pub carried_to: u64,
    /// What it last reported of itself, as far as that was recorded.
    pub reported: ReportedMetrics,
    /// When it was last seen, as far as that was recorded.
    pub last_seen: Timestamp,
}

/// All agents.
#[derive(Clone, Debug, Default)]
pub struct AgentDirectory {
    rows: BTreeMap<AgentId, Row>,
}

impl AgentDirectory {
    /// One agent, unless it is unregistered.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<&Row> {
        self.rows.get(id).filter(|row| row.agent.registered)
    }

    /// One agent, even if it was unregistered.
    #[must_use]
    pub fn ever(&self, id: &AgentId) -> Option<&Row> {
        self.rows.get(id)
    }

    /// All agents that are registered, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Row)> {
        self.rows.iter().filter(|(_, row)| row.agent.registered)
    }

    /// All agents that ever were, by id.
    pub fn all(&self) -> impl Iterator<Item = (&AgentId, &Row)> {
        self.rows.iter()
    }

    /// How many ever registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Puts back a row of a snapshot.
    pub(super) fn put(&mut self, id: AgentId, row: Row) {
        self.rows.insert(id, row);
    }

    /// Folds one fact of one agent.
    pub fn apply(&mut self, id: &AgentId, event: &Event, stamp: Stamp) {
        let before = self.rows.remove(id);
        let was_timed_out = before.as_ref().is_some_and(|row| row.agent.is_timed_out());
        let state = before.as_ref().map(|row| row.agent.clone());
        let Some(agent) = Agent::evolve(state, event, stamp.at) else { return };
        let row = match before {
            Some(row) => Row { agent, ..row },
            None => Row::of(agent, stamp.at),
        };
        let position = row.position.max(stamp.position);
        let mut row = Row { revision: stamp.revision, position, ..row };
        match event {
            _ if row.has_carried(stamp) => {}
            Event::Registered(_) | Event::Reregistered(_) => {
                row.work.streaks = Streaks::default();
                row.last_seen = stamp.at;
            }
            // To be heard again is no proof of work.
            Event::StatusChanged(changed) if changed.to == Status::Active && !was_timed_out => {
                row.work.streaks = Streaks::default();
            }
            Event::StatusChanged(_) | Event::Updated(_) | Event::TimedOut(_) | Event::Unregistered => {}
        }
        self.rows.insert(id.clone(), row);
    }

    /// An agent was given a lease: what is shown of it changed.
    pub(super) fn note_lease(&mut self, id: &AgentId, stamp: Stamp) {
        if let Some(row) = self.rows.get_mut(id) {
            row.position = row.position.max(stamp.position);
        }
    }

    /// A lease of an agent ended.
    pub(super) fn note_end(&mut self, ended: &Ended<'_>, stamp: Stamp) {
        let Some(row) = self.rows.get_mut(&ended.lease.agent) else { return };
        row.position = row.position.max(stamp.position);
        if row.has_carried(stamp) {
            return;
        }
        row.work.idle_since = stamp.at;
        if let Some((outcome, duration_ms)) = ended.result {
            row.work.record.add(outcome, duration_ms, stamp.at);
        }
        // What an earlier incarnation had says nothing of this one.
        if ended.lease.incarnation == row.agent.incarnation {
            row.work.streaks.add(ended.ending, ended.lease.reserved_at, stamp.at);
        }
    }

    /// An agent was seen.
    pub(super) fn note_seen(&mut self, id: &AgentId, metrics: ReportedMetrics, stamp: Stamp) {
        if let Some(row) = self.rows.get_mut(id).filter(|row| !row.has_carried(stamp)) {
            (row.reported, row.last_seen, row.position) = (metrics, stamp.at, stamp.position);
        }
    }

    /// Operations left the log: how their agent did is told as a whole.
    pub(super) fn carry(&mut self, id: &AgentId, carried: &Carried) {
        if let Some(row) = self.rows.get_mut(id) {
            row.work = carried.work.clone();
            (row.reported, row.last_seen) = (carried.reported, carried.last_seen);
            row.position = row.position.max(carried.position);
            row.carried_to = carried.as_of;
        }
    }
}

impl Row {
    /// Whether an event counts already in what was carried over.
    fn has_carried(&self, stamp: Stamp) -> bool {
        stamp.position <= self.carried_to
    }

    /// An agent of which nothing else is known.
    #[must_use]
    pub fn of(agent: Agent, at: Timestamp) -> Self {
        Self {
            agent,
            revision: 0,
            position: 0,
            work: Work { idle_since: at, ..Work::default() },
            carried_to: 0,
            reported: ReportedMetrics::default(),
            last_seen: at,
        }
    }
}
