//! The lanes that are parked. One that is open again is forgotten at the next event about any lane, so
//! that there are never more rows than windows under way.

use std::collections::BTreeMap;

use crate::agent::Agent;
use crate::lane::{Event, Lane};
use crate::{AgentId, Aggregate, LaneId, Timestamp};

/// All lanes that are parked.
#[derive(Clone, Debug, Default)]
pub struct Lanes(BTreeMap<LaneId, Lane>);

impl Lanes {
    /// Folds one fact of one lane.
    pub fn apply(&mut self, id: &LaneId, event: &Event, at: Timestamp) {
        let before = self.0.remove(id);
        self.0.retain(|_, lane| lane.is_parked(at));
        if let Some(lane) = Lane::evolve(before, event, at).filter(|lane| lane.is_parked(at)) {
            self.0.insert(id.clone(), lane);
        }
    }

    /// All that are remembered, by id.
    pub(super) fn all(&self) -> impl Iterator<Item = (&LaneId, &Lane)> {
        self.0.iter()
    }

    /// Puts back a lane of a snapshot.
    pub(super) fn put(&mut self, id: LaneId, lane: Lane) {
        self.0.insert(id, lane);
    }

    /// Until when nobody may call in this lane; none when it is open.
    #[must_use]
    pub fn parked_until(&self, id: &LaneId, now: Timestamp) -> Option<Timestamp> {
        self.0.get(id).filter(|lane| lane.is_parked(now)).map(|lane| lane.until)
    }

    /// Whether the account that an agent works with takes no calls now.
    #[must_use]
    pub fn holds_back(&self, id: &AgentId, agent: &Agent, now: Timestamp) -> bool {
        // Most of the time none is parked, and no name has to be made.
        !self.0.is_empty() && self.parked_until(&LaneId::of_agent(id, &agent.profile.config), now).is_some()
    }

    /// The lanes that are parked at this moment, by id.
    pub fn parked(&self, now: Timestamp) -> impl Iterator<Item = (&LaneId, &Lane)> {
        self.0.iter().filter(move |(_, lane)| lane.is_parked(now))
    }
}
