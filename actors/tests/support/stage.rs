//! Views, index and claims without actors: commands are decided and folded on the spot, and a pass is
//! made when the test says so. Keeps the plain model beside the index, which must always agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actors::in_flight::InFlight;
use actors::matching::{Appetite, Floor, Pick};
use actors::presence::Presence;
use actors::ready::{Ready, Scene};
use domain::agent::event::{Config, Profile};
use domain::agent::selection::Weights;
use domain::agent::{self, Agent};
use domain::operation::definition::{Definition, Location};
use domain::operation::event::CloseReason;
use domain::operation::{self, Operation, StepWish};
use domain::views::{Stamp, Views};
use domain::world::Everybody;
use domain::{
    AgentId, Aggregate, Given, Json, LaneId, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World,
    lane,
};

use super::model::Model;

/// A ready step that waited so long rises one class.
pub const STARVATION_MS: u64 = 10_000;
/// A due retry is kept so long from the agent that failed it, while another one could take it.
pub const ELSEWHERE_MS: u64 = 20_000;

pub struct Stage {
    pub views: Views,
    pub ready: Ready,
    pub model: Model,
    pub in_flight: InFlight,
    pub now: Timestamp,
    pub waiting: BTreeMap<AgentId, Appetite>,
    able: BTreeSet<AgentId>,
    operations: BTreeMap<OperationId, Option<Operation>>,
    agents: BTreeMap<AgentId, Option<Agent>>,
    world: World,
}

pub fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

pub fn operation(number: u128) -> OperationId {
    OperationId::from_bits(number)
}

pub fn profile(slots: u32, capabilities: &[&str]) -> Profile {
    Profile {
        name: "n".into(),
        model: "m".into(),
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        location: Location::Local,
        config: Config { max_concurrent_steps: slots, ..Config::default() },
        metadata: Json::object(),
    }
}

/// What the index and the model look at.
pub fn scene<'s>(views: &'s Views, in_flight: &'s InFlight, now: Timestamp) -> Scene<'s> {
    Scene { views, in_flight, now, elsewhere_ms: ELSEWHERE_MS }
}

/// Steps without dependencies, each of which needs this.
pub fn wide(steps: u32, needs: &str) -> Definition {
    let mut definition = super::definition("wide");
    let mut step = definition.workflow[0].clone();
    step.requires.capabilities = vec![needs.into()];
    let step = |number| operation::definition::StepDefinition { step: number, ..step.clone() };
    definition.workflow = (1..=steps).map(step).collect();
    definition
}

impl Stage {
    pub fn new() -> Self {
        let platforms = ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction));
        let platforms = Arc::new(BTreeMap::from(platforms));
        Self {
            views: Views::default(),
            ready: Ready::new(STARVATION_MS, 7),
            model: Model::default(),
            in_flight: InFlight::default(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            waiting: BTreeMap::new(),
            able: BTreeSet::new(),
            operations: BTreeMap::new(),
            agents: BTreeMap::new(),
            world: World { limits: Limits::default(), platforms, agents: Arc::new(Everybody) },
        }
    }

    pub fn scene(&self) -> Scene<'_> {
        scene(&self.views, &self.in_flight, self.now)
    }

    /// Puts a command to an agent. Says whether it was taken.
    pub fn agent(&mut self, id: &AgentId, command: &agent::Command) -> bool {
        let given = Given { now: self.now, world: &self.world };
        let state = self.agents.entry(id.clone()).or_default();
        let Ok(events) = Agent::decide(state.as_ref(), id, command, &given) else { return false };
        for event in &events {
            *state = Agent::evolve(state.take(), event, self.now);
            self.views.apply_agent(id, event, Stamp { revision: 1, position: 1, at: self.now });
        }
        self.able.insert(id.clone());
        // Who is preferred to whom may be another now.
        self.ready.refresh_avoided();
        true
    }

    /// Puts a command to an operation. Agents whose leases it ended are able to take more.
    pub fn operation(&mut self, id: &OperationId, command: &operation::Command) -> bool {
        let given = Given { now: self.now, world: &self.world };
        let state = self.operations.entry(id.clone()).or_default();
        let Ok(events) = Operation::decide(state.as_ref(), id, command, &given) else { return false };
        let mut moved = BTreeSet::new();
        for event in &events {
            *state = Operation::evolve(state.take(), event, self.now);
            let stamp = Stamp { revision: 1, position: 1, at: self.now };
            self.able.extend(self.views.apply_operation(id, event, stamp));
            let run = self.views.operations.get(id).and_then(|row| row.run.as_ref());
            moved.extend(run.into_iter().flat_map(|run| run.moved().iter().copied()));
        }
        self.look(id, moved);
        self.close(id);
        true
    }

    /// Agents stop at once when what they work on is cancelled.
    fn close(&mut self, id: &OperationId) {
        let leases = self.views.leases.of_operation(id).map(|(lease, _)| lease);
        let closing: Vec<LeaseId> = leases.filter(|lease| self.views.leases.is_closing(lease)).collect();
        for lease in closing {
            self.say(&lease, StepWish::CloseLease { why: CloseReason::Reported });
        }
    }

    fn look(&mut self, id: &OperationId, moved: BTreeSet<usize>) {
        let scene = scene(&self.views, &self.in_flight, self.now);
        self.ready.look(scene, id, moved);
        self.model.look(scene, id);
    }

    pub fn register(mut self, id: &str, slots: u32, capabilities: &[&str]) -> Self {
        let profile = Box::new(profile(slots, capabilities));
        assert!(self.agent(&agent(id), &agent::Command::Register { profile, incarnation: None }));
        self
    }

    pub fn create(mut self, number: u128, definition: Definition) -> Self {
        assert!(self.operation(&operation(number), &operation::Command::Create(Box::new(definition))));
        self
    }

    /// An agent waits for work, or for more or other work than before.
    pub fn claim(&mut self, id: &AgentId, appetite: Appetite) {
        self.waiting.insert(id.clone(), appetite);
        self.able.insert(id.clone());
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        let then = self.now;
        self.now = self.now.plus_ms(ms);
        let parked = |at: Timestamp| self.views.lanes.parked(at).map(|(id, _)| id.clone()).collect();
        let (before, after): (BTreeSet<LaneId>, BTreeSet<LaneId>) = (parked(then), parked(self.now));
        self.enable(|lane| before.contains(lane) && !after.contains(lane));
        let scene = scene(&self.views, &self.in_flight, self.now);
        self.ready.advance(scene);
        self.model.advance(scene, then);
    }

    /// The account of an agent takes no calls for so many milliseconds.
    pub fn park(&mut self, agent: &AgentId, ms: u64) {
        let lease_id = LeaseId { operation: OperationId::from_bits(1), step: 1, grant: 1 };
        let parked = lane::Parked { until: self.now.plus_ms(ms), wait_ms: ms, lease_id };
        let lane = LaneId::of_worker(agent);
        self.views.lanes.apply(&lane, &lane::Event::Parked(parked), self.now);
        // Whoever is held back is preferred to nobody.
        self.ready.refresh_avoided();
        self.enable(|changed| *changed == lane);
    }

    /// Who works in such a lane may be able to take more than before.
    fn enable(&mut self, lane: impl Fn(&LaneId) -> bool) {
        let agents = self.views.agents.iter();
        let members = agents.filter(|(id, row)| lane(&LaneId::of_agent(id, &row.agent.profile.config)));
        self.able.extend(members.map(|(id, _)| id.clone()));
    }

    /// One pass over what may have become possible, held against the model's over everything.
    pub fn pass(&mut self) -> Vec<(AgentId, Pick)> {
        let scene = scene(&self.views, &self.in_flight, self.now);
        self.ready.advance(scene);
        let hungry = self.waiting.iter().filter_map(|(id, appetite)| {
            let free = self.in_flight.free_slots(id, &self.views.agents.get(id)?.agent, &self.views.leases);
            let appetite = Appetite { max: appetite.max.min(free), ..appetite.clone() };
            (appetite.max > 0).then_some((id, appetite))
        });
        let hungry: BTreeMap<&AgentId, Appetite> = hungry.collect();
        let expected = self.model.pass(scene, &hungry, STARVATION_MS);
        let able = std::mem::take(&mut self.able);
        let able: BTreeSet<&AgentId> = able.iter().filter(|id| hungry.contains_key(id)).collect();
        let mut waiting = hungry;
        if !self.ready.is_fresh() {
            waiting.retain(|id, _| able.contains(id));
        }
        let presence = Presence::default();
        let floor = Floor { scene, presence: &presence, waiting, able, weights: Weights::default() };
        let picks = floor.pass(&mut self.ready).into_iter();
        let picks = picks.flat_map(|(agent, picks)| picks.into_iter().map(move |pick| (agent.clone(), pick)));
        let picks: Vec<_> = picks.collect();
        assert_eq!(told(&picks), told(&expected));
        for (agent, pick) in &picks {
            self.waiting.remove(agent);
            let incarnation = self.views.agents.get(agent).unwrap().agent.incarnation;
            self.in_flight.insert(pick.lease.clone(), agent.clone(), incarnation);
        }
        picks
    }

    /// Carries a grant out, or lets it be refused.
    pub fn answer(&mut self, agent: &AgentId, pick: &Pick, granted: bool) {
        let LeaseId { operation, step, grant } = pick.lease.clone();
        if granted {
            let incarnation = self.views.agents.ever(agent).unwrap().agent.incarnation;
            let (agent, candidates) = (agent.clone(), pick.candidates.clone());
            let wish = StepWish::Reserve { agent, incarnation, candidates };
            self.operation(&operation, &operation::Command::Step { step, grant, wish });
        }
        self.in_flight.remove(&pick.lease);
        let run = self.views.operations.get(&operation).and_then(|row| row.run.as_ref());
        let position = run.and_then(|run| run.skeleton.position(step));
        self.look(&operation, position.into_iter().collect());
        self.able.insert(agent.clone());
    }

    /// The newest lease of a step that somebody has.
    pub fn held(&self, choice: usize) -> Option<LeaseId> {
        let mut held = Vec::new();
        for id in self.views.operations.open() {
            let Some(run) = self.views.operations.get(id).and_then(|row| row.run.as_ref()) else { continue };
            held.extend(run.held.iter().map(|position| LeaseId {
                operation: id.clone(),
                step: run.skeleton.steps[*position].step,
                grant: run.steps[*position].grant,
            }));
        }
        let choice = choice.checked_rem(held.len())?;
        held.into_iter().nth(choice)
    }

    /// Says something about a lease.
    pub fn say(&mut self, lease: &LeaseId, wish: StepWish) -> bool {
        let LeaseId { operation, step, grant } = lease.clone();
        self.operation(&operation, &operation::Command::Step { step, grant, wish })
    }
}

/// Who gets what and why, in the order of agents and then of picks.
fn told(picks: &[(AgentId, Pick)]) -> Vec<String> {
    let mut told: Vec<_> = picks.iter().collect();
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    told.into_iter().map(|(agent, pick)| format!("{agent} {} {:?}", pick.lease, pick.candidates)).collect()
}
