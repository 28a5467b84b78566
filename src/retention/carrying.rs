//! How agents did in operations that leave the log: folded from the part of the log that is written anew, and
//! carried over in one event for each agent. Chooses nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use actors::codec::{Metadata, Stored};
use domain::agent::Agent;
use domain::operation::Operation;
use domain::views::{Stamp, Views};
use domain::work::{self, Carried};
use domain::{AgentId, Aggregate, Timestamp, presence};
use events::{Beside, Position, Recorded, StreamId, Version};
use uuid::Uuid;

/// The agents of the part of the log that is written anew.
#[derive(Default)]
pub(super) struct Carrying {
    views: Views,
    /// Where each agent registered for the first time.
    registered: HashMap<AgentId, Position>,
    /// Those whose records are to be carried over.
    agents: VecDeque<AgentId>,
    floor: Position,
}

/// The stream in which an agent's record is carried over.
pub(super) fn stream_of(agent: &AgentId) -> StreamId {
    StreamId::lossy(work::CATEGORY, agent.as_str())
}

impl Carrying {
    /// Folds one event.
    pub(super) fn fold(&mut self, recorded: &Recorded) {
        let stamp = Stamp {
            revision: recorded.version.get(),
            position: recorded.position.get(),
            at: Timestamp::from_micros(recorded.time_us),
        };
        // What is not understood is shown nowhere, and so counts for nobody.
        let (name, schema, body) = (&*recorded.name, recorded.schema, &recorded.body);
        match recorded.stream.category() {
            Operation::CATEGORY => {
                if let (Ok(id), Ok(event)) =
                    (recorded.stream.id().parse(), Operation::decode(name, schema, body))
                {
                    self.views.apply_leases(&id, &event, stamp);
                }
            }
            Agent::CATEGORY => {
                if let (Ok(id), Ok(event)) = (recorded.stream.id().parse(), Agent::decode(name, schema, body))
                {
                    self.views.apply_agent(&id, &event, stamp);
                    self.registered.entry(id).or_insert(recorded.position);
                }
            }
            work::CATEGORY => {
                if let (Ok(id), Ok(event)) =
                    (recorded.stream.id().parse(), work::Event::decode(name, schema, body))
                {
                    self.views.apply_work(&id, &event);
                }
            }
            presence::CATEGORY => {
                if let Ok(event) = presence::Event::decode(name, schema, body) {
                    self.views.apply_presence(&event, stamp);
                }
            }
            _ => {}
        }
    }

    /// Everything up to the floor is folded: these agents are to be carried over. In the order in which they
    /// registered, since a record is of no agent before that: of each one an event goes that is later, and
    /// the places are those of the last events that go.
    pub(super) fn begin(&mut self, agents: HashSet<AgentId>, floor: Position) -> usize {
        let mut agents: Vec<AgentId> =
            agents.into_iter().filter(|agent| self.views.agents.ever(agent).is_some()).collect();
        agents.sort_by_key(|agent| self.registered.get(agent).copied());
        (self.agents, self.floor) = (agents.into(), floor);
        self.agents.len()
    }

    /// The event of the next agent, in this place.
    pub(super) fn next(&mut self, position: Position, time_us: i64) -> io::Result<Recorded> {
        let agent =
            self.agents.pop_front().ok_or_else(|| io::Error::other("nothing is left to carry over"))?;
        let row = self.views.agents.ever(&agent).ok_or_else(|| io::Error::other("an agent is unknown"))?;
        let carried = Carried {
            as_of: self.floor.get(),
            position: row.position,
            work: row.work.clone(),
            reported: row.reported,
            last_seen: row.last_seen,
        };
        let event = work::Event::Carried(Box::new(carried));
        let encoded = work::Event::encode(&event).map_err(io::Error::other)?;
        Ok(Recorded {
            id: Uuid::now_v7().into(),
            stream: stream_of(&agent),
            version: Version::NONE.next(),
            position,
            name: Arc::from(encoded.name),
            schema: encoded.schema,
            time_us,
            metadata: Metadata::of_photon().encode(),
            body: encoded.body,
            beside: Beside::NONE,
        })
    }
}
