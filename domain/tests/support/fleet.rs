//! Agents and operations side by side, folded into the views in the order in which things happened. The
//! fleet does for its agents what the dispatcher does: it loses, closes and quarantines.

use std::collections::BTreeMap;

use bincode::Options;
use domain::agent::event::{Profile, StatusReason};
use domain::agent::quarantine::Thresholds;
use domain::agent::{self, Agent};
use domain::operation::definition::Definition;
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::{Command, Event, Operation, Rejection, StepWish};
use domain::scenario::Scenario;
use domain::views::agent_directory::Row;
use domain::views::leases::{Lease, State};
use domain::views::pieces::Piece;
use domain::views::{Stamp, Views};
use domain::{AgentId, LeaseId, OperationId, Timestamp};

use super::crew::{profile, quarantine, register};
use super::{agent, leases_agree, reserve, world};

/// Something that happened, to an agent or to an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Agent(AgentId, agent::Event),
    Operation(OperationId, Event),
}

pub(crate) struct Fleet {
    pub(crate) agents: BTreeMap<AgentId, Scenario<Agent>>,
    pub(crate) operations: BTreeMap<OperationId, Scenario<Operation>>,
    pub(crate) views: Views,
    /// Everything that happened, in order.
    pub(crate) log: Vec<(Fact, Stamp)>,
    pub(crate) now: Timestamp,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let (agents, operations) = (BTreeMap::new(), BTreeMap::new());
        Self { agents, operations, views: Views::default(), log: Vec::new(), now }
    }

    /// Ada alone, with so many slots.
    pub(crate) fn of(slots: u32) -> Self {
        let mut fleet = Self::new();
        fleet.hire("ada", profile(slots, &["rust"]));
        fleet
    }

    pub(crate) fn hire(&mut self, name: &str, profile: Profile) {
        self.agents.insert(agent(name), Scenario::new(agent(name), world()));
        self.tell(name, &register(profile)).unwrap();
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    fn note(&mut self, fact: Fact, revision: usize) {
        let stamp = Stamp { revision: revision as u64, position: self.log.len() as u64 + 1, at: self.now };
        apply(&mut self.views, &fact, stamp);
        self.log.push((fact, stamp));
    }

    /// Puts a command to an agent.
    pub(crate) fn tell(
        &mut self,
        name: &str,
        command: &agent::Command,
    ) -> Result<Vec<agent::Event>, agent::Rejection> {
        let scenario = self.agents.get_mut(&agent(name)).unwrap();
        scenario.now = self.now;
        let before = scenario.history.len();
        let events = scenario.when(command)?;
        for (at, event) in events.iter().enumerate() {
            self.note(Fact::Agent(agent(name), event.clone()), before + at + 1);
        }
        Ok(events)
    }

    /// A new operation.
    pub(crate) fn create(&mut self, definition: Definition) -> OperationId {
        let id = OperationId::from_bits(self.operations.len() as u128 + 1);
        self.operations.insert(id.clone(), Scenario::new(id.clone(), world()));
        self.put(&id, &Command::Create(Box::new(definition))).unwrap();
        id
    }

    /// Puts a command to an operation.
    pub(crate) fn put(&mut self, id: &OperationId, command: &Command) -> Result<Vec<Event>, Rejection> {
        let scenario = self.operations.get_mut(id).unwrap();
        scenario.now = self.now;
        let before = scenario.history.len();
        let events = scenario.when(command)?;
        for (at, event) in events.iter().enumerate() {
            self.note(Fact::Operation(id.clone(), event.clone()), before + at + 1);
        }
        Ok(events)
    }

    pub(crate) fn operation(&self, id: &OperationId) -> &Operation {
        self.operations[id].state.as_ref().unwrap()
    }

    pub(crate) fn grant(&self, id: &OperationId, step: u32) -> u64 {
        let run = &self.operation(id).run;
        run.steps[run.skeleton.position(step).unwrap()].grant
    }

    pub(crate) fn lease_id(&self, id: &OperationId, step: u32) -> LeaseId {
        LeaseId { operation: id.clone(), step, grant: self.grant(id, step) }
    }

    pub(crate) fn lease(&self, id: &OperationId, step: u32) -> Option<&Lease> {
        self.views.leases.get(&self.lease_id(id, step))
    }

    /// Something about a step under its newest grant.
    pub(crate) fn wish(
        &mut self,
        id: &OperationId,
        step: u32,
        wish: StepWish,
    ) -> Result<Vec<Event>, Rejection> {
        let grant = self.grant(id, step);
        self.put(id, &Command::Step { step, grant, wish })
    }

    /// Offers a step to an agent as it is.
    pub(crate) fn offer(&mut self, id: &OperationId, step: u32, name: &str) -> Result<Vec<Event>, Rejection> {
        let incarnation = self.agents[&agent(name)].state.as_ref().unwrap().incarnation;
        let grant = self.grant(id, step) + 1;
        self.put(id, &Command::Step { step, grant, wish: reserve(agent(name), incarnation) })
    }

    /// Offered, and taken.
    pub(crate) fn begin(&mut self, id: &OperationId, step: u32, name: &str) {
        self.offer(id, step, name).unwrap();
        self.wish(id, step, StepWish::Acknowledge).unwrap();
    }

    pub(crate) fn row(&self, name: &str) -> &Row {
        self.views.agents.ever(&agent(name)).unwrap()
    }

    /// How many were lost, left untaken and failed in a row.
    pub(crate) fn rows(&self, name: &str) -> [u32; 3] {
        let streaks = &self.row(name).work.streaks;
        [streaks.lost(), streaks.untaken(), streaks.failed()]
    }

    pub(crate) fn free_slots(&self, name: &str) -> u32 {
        self.views.free_slots(&agent(name), &self.row(name).agent)
    }

    /// Quarantines the agent if its rows are long enough. Says why, if it is so.
    pub(crate) fn judge(&mut self, name: &str) -> Option<StatusReason> {
        let row = self.row(name);
        let verdict = row.work.streaks.verdict(&row.agent.profile.config, &Thresholds::default());
        let reason = verdict.filter(|_| row.agent.is_in_service())?;
        let events = self.tell(name, &quarantine(reason)).unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        Some(reason)
    }

    /// Ends the leases that the agent can no longer carry out.
    pub(crate) fn settle(&mut self, name: &str) {
        let owed: Vec<LeaseId> = self.views.leases.of_agent(&agent(name)).map(|(id, _)| id).collect();
        for id in owed {
            // One loss may fail an operation: what else the agent has of it is closing then.
            let Some(lease) = self.views.leases.get(&id).cloned() else { continue };
            let Some(reason) = self.row(name).agent.loss(lease.incarnation) else { continue };
            let wish = match lease.state {
                State::Held => StepWish::LoseLease { reason },
                State::Closing(_) => StepWish::CloseLease { why: closed_by(reason) },
            };
            let (step, grant) = (id.step, id.grant);
            let events = self.put(&id.operation, &Command::Step { step, grant, wish }).unwrap();
            assert!(!events.is_empty(), "{id} was to be ended: {reason:?}");
            assert_eq!(self.views.leases.get(&id), None);
        }
    }

    /// What the view of the leases says is what the operations say, for every incarnation of every agent.
    pub(crate) fn leases_agree(&self) {
        for (id, scenario) in &self.operations {
            leases_agree(id, &scenario.state.as_ref().unwrap().run, &self.views);
        }
        let all: Vec<(LeaseId, &Lease)> =
            self.operations.keys().flat_map(|id| self.views.leases.of_operation(id)).collect();
        for (name, scenario) in &self.agents {
            let of_agent = || all.iter().filter(|(_, lease)| lease.agent == *name);
            let mut shown: Vec<LeaseId> = self.views.leases.of_agent(name).map(|(id, _)| id).collect();
            shown.sort_unstable();
            assert_eq!(shown, of_agent().map(|(id, _)| id.clone()).collect::<Vec<_>>());
            let newest = scenario.state.as_ref().unwrap().incarnation;
            for incarnation in 0..=newest + 1 {
                let counted = of_agent().filter(|(_, lease)| lease.incarnation == incarnation).count();
                assert_eq!(self.views.leases.taken(name, incarnation) as usize, counted, "{name}");
            }
            let (agent, taken) = (&self.views.agents.ever(name).unwrap().agent, newest);
            let taken = self.views.leases.taken(name, taken);
            assert_eq!(self.views.free_slots(name, agent), agent.slots().saturating_sub(taken));
        }
    }

    /// The views folded from the log again, and put together from their pieces, are the views.
    pub(crate) fn views_survive(&self) {
        let mut again = Views::default();
        self.log.iter().for_each(|(fact, stamp)| apply(&mut again, fact, *stamp));
        let stored = stored(&self.views);
        assert_eq!(stored, self::stored(&again));
        let put_together = put_together(&stored);
        assert_eq!(stored, self::stored(&put_together));
        let restored = Self { views: put_together, ..self.copied() };
        restored.leases_agree();
    }

    fn copied(&self) -> Self {
        let Self { agents, operations, views, log, now } = self;
        let (agents, operations, log) = (agents.clone(), operations.clone(), log.clone());
        Self { agents, operations, views: views.clone(), log, now: *now }
    }
}

fn closed_by(reason: LeaseEnd) -> CloseReason {
    match reason {
        LeaseEnd::AgentUnregistered => CloseReason::AgentUnregistered,
        LeaseEnd::NewIncarnation => CloseReason::NewIncarnation,
        _ => CloseReason::AgentTimeout,
    }
}

fn apply(views: &mut Views, fact: &Fact, stamp: Stamp) {
    match fact {
        Fact::Agent(id, event) => views.apply_agent(id, event, stamp),
        Fact::Operation(id, event) => _ = views.apply_operation(id, event, stamp),
    }
}

/// The pieces of the views, as a snapshot holds them.
pub(crate) fn stored(views: &Views) -> Vec<Vec<u8>> {
    views.pieces().map(|piece| bincode::DefaultOptions::new().serialize(&piece).unwrap()).collect()
}

/// The views that such pieces make.
pub(crate) fn put_together(stored: &[Vec<u8>]) -> Views {
    let mut views = Views::default();
    for bytes in stored {
        views.put(bincode::DefaultOptions::new().deserialize::<Piece<'_>>(bytes).unwrap());
    }
    views
}
