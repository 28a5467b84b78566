//! Random histories of operations, agents and lanes: every move is decided by the domain, and folded as it is
//! decided. Knows no log; whoever needs one writes the appends there.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::codec::{Durable, Encoded, KeyUse, Metadata};
use actors::gateway::stream_of;
use actors::past::Past;
use domain::agent::event::Outcome;
use domain::agent::{self, Agent};
use domain::lane::{self, Lane};
use domain::operation::definition::StepDefinition;
use domain::operation::event::{Patch, StepError};
use domain::operation::positions::Positions;
use domain::operation::step::Run;
use domain::operation::{self, Operation, StepWish};
use domain::views::Views;
use domain::views::operation_board::LeaseState;
use domain::world::Everybody;
use domain::{AgentId, Given, Json, LaneId, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World};
use events::dice::Dice;
use events::{Append, Beside, EventLog, Expected, NewEvent, Position};
use uuid::Uuid;

use super::stage::profile;
use super::{definition, id};

const AGENTS: [&str; 4] = ["ada", "bob", "eve", "ida"];
const LANES: u64 = 3;
/// Operations that are under way at a time.
const OPEN: usize = 8;

/// One aggregate as its author knows it.
struct Known<A> {
    version: u64,
    state: Option<A>,
}

impl<A> Default for Known<A> {
    fn default() -> Self {
        Self { version: 0, state: None }
    }
}

/// How the views take an event of one kind of aggregate.
type Show<Id, Event> = fn(&mut Views, &Id, &Event, u64, Timestamp);

/// Makes a history up.
pub struct Author {
    pub dice: Dice,
    /// What has been decided comes to this; the views took the events as they were decided, never encoded.
    pub live: Past,
    /// Tells its events from those of other authors.
    seed: u64,
    /// Operations are numbered from here on.
    first: u32,
    now: Timestamp,
    world: World,
    created: u32,
    /// Those that are not over.
    operations: BTreeMap<OperationId, Known<Operation>>,
    agents: BTreeMap<AgentId, Known<Agent>>,
    lanes: BTreeMap<LaneId, Known<Lane>>,
    appends: Vec<Append>,
}

impl Author {
    pub fn new(seed: u64) -> Self {
        let platforms = ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction));
        let platforms = Arc::new(BTreeMap::from(platforms));
        Self {
            dice: Dice(seed),
            live: Past::default(),
            seed,
            first: 1,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            world: World { limits: Limits::default(), platforms, agents: Arc::new(Everybody) },
            created: 0,
            operations: BTreeMap::new(),
            agents: BTreeMap::new(),
            lanes: BTreeMap::new(),
            appends: Vec::new(),
        }
    }

    /// One that goes on with a log in which there are fewer operations than this.
    pub fn numbered_from(seed: u64, first: u32) -> Self {
        Self { first, ..Self::new(seed) }
    }

    /// Makes so many moves and writes them.
    pub async fn write(&mut self, log: &dyn EventLog, moves: usize) {
        for _ in 0..moves {
            for append in self.make_move() {
                log.append(append).await.unwrap();
            }
        }
    }

    /// Makes one move; what the domain refuses writes nothing.
    pub fn make_move(&mut self) -> Vec<Append> {
        self.now = self.now.plus_ms(self.dice.below(20_000));
        match self.dice.below(20) {
            0..=1 if self.operations.len() < OPEN => self.create(),
            2..=3 => self.change_operation(),
            4..=5 => self.change_agent(),
            6 => self.change_lane(),
            7 => self.free_slots(),
            8..=12 => self.assign(),
            _ => self.settle(),
        }
        std::mem::take(&mut self.appends)
    }

    fn agent(&mut self) -> AgentId {
        AGENTS[self.dice.index(AGENTS.len())].parse().unwrap()
    }

    fn operation(&mut self) -> Option<OperationId> {
        let at = self.dice.index(self.operations.len());
        self.operations.keys().nth(at).cloned()
    }

    fn create(&mut self) {
        let new = id(self.first + self.created);
        self.created += 1;
        let mut wish = definition("Größe \u{1F680}");
        let only = wish.workflow[0].clone();
        let (steps, shape) = (1 + self.dice.below(6) as u32, self.dice.below(8));
        wish.workflow = (1..=steps)
            .map(|number| {
                let dependencies = (1..number).filter(|_| self.dice.below(3) == 0).collect();
                let continue_on_error = shape & 2 == 0;
                let mut step =
                    StepDefinition { step: number, dependencies, continue_on_error, ..only.clone() };
                if shape == 7 && number == 2 {
                    (step.platform, step.action) = ("human".parse().unwrap(), "approve".parse().unwrap());
                }
                step
            })
            .collect();
        wish.metadata = Json::from(serde_json::json!({"team": "core", "n": 1, "share": 0.1}));
        self.on_operation(&new, &operation::Command::Create(Box::new(wish)));
    }

    fn change_operation(&mut self) {
        let Some(id) = self.operation() else { return };
        let by = String::from("eve");
        let command = match self.dice.below(12) {
            0 => operation::Command::Cancel { by },
            1..4 => operation::Command::Pause { by, reason: None },
            4..9 => operation::Command::Resume { by },
            _ => {
                let name = Some(format!("n{}", self.dice.below(5)));
                operation::Command::Update(Box::new(Patch { name, ..Patch::default() }))
            }
        };
        self.on_operation(&id, &command);
    }

    fn change_agent(&mut self) {
        let id = self.agent();
        let command = match self.dice.below(8) {
            0 => agent::Command::Unregister,
            1 => agent::Command::TimeOut { silent_ms: 30_000 },
            2 => agent::Command::RecordSeen { metrics: Default::default() },
            3 | 4 => {
                let patch = agent::event::Patch { name: Some("İpek-ğ".into()), ..Default::default() };
                agent::Command::Update { patch: Box::new(patch), status: None }
            }
            _ => agent::Command::Register { profile: Box::new(profile(3, &["x"])), incarnation: None },
        };
        self.on_agent(&id, &command);
    }

    fn change_lane(&mut self) {
        let id: LaneId = format!("account.a{}", self.dice.below(LANES)).parse().unwrap();
        let Some(operation) = self.operation() else { return };
        let until = self.now.plus_ms(self.dice.below(600_000));
        let command = match self.dice.below(4) {
            0 => lane::Command::Open { by: "eve".into() },
            _ => lane::Command::Park { until, lease: LeaseId { operation, step: 1, grant: 1 } },
        };
        let mut known = self.lanes.remove(&id).unwrap_or_default();
        let show: Show<_, _> = |views, id, event, _, at| views.lanes.apply(id, event, at);
        self.decide::<Lane>(&id, &mut known, &command, show);
        self.lanes.insert(id, known);
    }

    /// A slot is taken and the step reserved, mostly both or neither.
    fn assign(&mut self) {
        let (Some(id), agent) = (self.operation(), self.agent()) else { return };
        let Some((step, grant)) = self.step(&id, |run| &run.ready) else { return };
        let grant = grant + 1;
        let lease = LeaseId { operation: id.clone(), step, grant };
        let taken = self.on_agent(&agent, &agent::Command::Reserve { lease });
        if taken != (self.dice.below(8) == 0) {
            let wish = StepWish::Reserve { agent, candidates: Default::default() };
            self.on_operation(&id, &operation::Command::Step { step, grant, wish });
        }
    }

    /// Something becomes of a step, and mostly of the slot.
    fn settle(&mut self) {
        let (Some(id), agent) = (self.operation(), self.agent()) else { return };
        let Some((step, grant)) = self.step(&id, |run| &run.held) else { return };
        let error = StepError { code: "flaky".into(), message: "once more".into() };
        let result = Json::from(serde_json::json!({"n": self.live.events, "part": 1.0 / 3.0, "ß": "é"}));
        let (wish, outcome) = match self.dice.below(14) {
            0 => (StepWish::Fail { error, retryable: true, retry_after_ms: None }, Some(Outcome::Failed)),
            1 => (StepWish::Release { reason: "busy".into(), hold_ms: None }, Some(Outcome::Returned)),
            2 => (StepWish::LoseLease { reason: "agent_gone".into() }, Some(Outcome::Lost)),
            3 => (StepWish::ExpireOffer { reason: "silence".into() }, Some(Outcome::Untaken)),
            4 => (StepWish::Checkpoint(result), None),
            5 => (StepWish::Progress { progress: 40, note: None, usage: None }, None),
            6..=8 => (StepWish::Acknowledge, None),
            _ => (StepWish::Complete { result, usage: None }, Some(Outcome::Completed)),
        };
        self.on_operation(&id, &operation::Command::Step { step, grant, wish });
        let Some(outcome) = outcome else { return };
        let lease = LeaseId { operation: id, step, grant };
        // Mostly by the agent that has it, sometimes by one that has not.
        let holder = self.live.views.agents.working_for(&lease.operation).find(|held| held.1 == lease);
        let holder = holder.map(|held| held.0.clone()).filter(|_| self.dice.below(8) > 0);
        self.on_agent(&holder.unwrap_or(agent), &agent::Command::Release { lease, outcome });
    }

    /// An agent gives back what no operation wants it to do any more.
    fn free_slots(&mut self) {
        let id = self.agent();
        let Some(agent) = self.agents.get(&id).and_then(|known| known.state.as_ref()) else { return };
        let held = |lease: &&LeaseId| self.live.views.operations.lease(lease) == LeaseState::Held;
        let over: Vec<_> = agent.assignments.keys().filter(|lease| !held(lease)).cloned().collect();
        for lease in over {
            self.on_agent(&id, &agent::Command::Release { lease, outcome: Outcome::Returned });
        }
    }

    /// A step and its grant: mostly one of those to which something can happen next.
    fn step(&mut self, id: &OperationId, likely: fn(&Run) -> &Positions) -> Option<(u32, u64)> {
        let run = &self.operations.get(id)?.state.as_ref()?.run;
        let likely = likely(run);
        let position = if likely.is_empty() || self.dice.below(4) == 0 {
            self.dice.index(run.steps.len())
        } else {
            *likely.iter().nth(self.dice.index(likely.len()))?
        };
        Some((run.skeleton.steps[position].step, run.steps[position].grant))
    }

    fn on_operation(&mut self, id: &OperationId, command: &operation::Command) {
        let mut known = self.operations.remove(id).unwrap_or_default();
        self.decide(id, &mut known, command, Views::apply_operation);
        if known.state.as_ref().is_some_and(|state| !state.run.status.is_terminal()) {
            self.operations.insert(id.clone(), known);
        }
    }

    fn on_agent(&mut self, id: &AgentId, command: &agent::Command) -> bool {
        let mut known = self.agents.remove(id).unwrap_or_default();
        let agreed = self.decide(id, &mut known, command, Views::apply_agent);
        self.agents.insert(id.clone(), known);
        agreed
    }

    /// Takes the events of one command as one append. False when it is refused.
    fn decide<A: Durable>(
        &mut self,
        id: &A::Id,
        known: &mut Known<A>,
        command: &A::Command,
        show: Show<A::Id, A::Event>,
    ) -> bool
    where
        A::Event: PartialEq + std::fmt::Debug,
    {
        let given = Given { now: self.now, world: &self.world };
        let Ok(decided) = A::decide(known.state.as_ref(), id, command, &given) else { return false };
        if decided.is_empty() {
            return true;
        }
        let (key, body) = (Uuid::from_u64_pair(self.dice.roll(), self.dice.roll()).into_bytes(), [1; 16]);
        let key = self.dice.coin().then_some(KeyUse { key, body });
        let metadata = Metadata { key, ..Metadata::of_photon() }.encode();
        let mut events = Vec::new();
        for event in &decided {
            known.version += 1;
            known.state = A::evolve(known.state.take(), event, self.now);
            show(&mut self.live.views, id, event, known.version, self.now);
            self.live.events += 1;
            let Encoded { name, schema, body } = A::encode(event).unwrap();
            // What travels beside the bytes is what anybody would read from them.
            assert_eq!(A::decode(name, schema, &body).unwrap(), *event, "{name}");
            events.push(NewEvent {
                id: Uuid::from_u64_pair(self.seed, self.live.events).into(),
                name: name.into(),
                schema,
                time_us: self.now.as_micros(),
                metadata: metadata.clone(),
                body,
                beside: Beside::NONE,
            });
        }
        (self.live.position, self.live.time) = (Position::new(self.live.events), self.now);
        self.appends.push(Append { stream: stream_of::<A>(id), expected: Expected::Any, events });
        true
    }
}
