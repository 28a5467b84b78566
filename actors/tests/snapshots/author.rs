//! Random histories of operations, agents and lanes, decided by the domain and written to a log.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::codec::{Durable, KeyUse, Metadata};
use actors::gateway::stream_of;
use domain::agent::event::Outcome;
use domain::agent::selection::{Candidates, Excluded, Weights};
use domain::agent::{self, Agent};
use domain::lane::{self, Lane};
use domain::operation::event::{Patch, StepError};
use domain::operation::{self, Operation, StepWish};
use domain::world::Everybody;
use domain::{AgentId, Given, Json, LaneId, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World};
pub(crate) use events::dice::Dice;
use events::{Append, EventLog, Expected, NewEvent};
use uuid::Uuid;

use super::support::stage::profile;
use super::support::{definition, id};

const AGENTS: u64 = 4;
const LANES: u64 = 3;
const STEPS: u64 = 3;

/// Writes a history.
pub(crate) struct Author {
    dice: Dice,
    /// Operations are numbered from here on.
    first: u32,
    now: Timestamp,
    world: World,
    operations: BTreeMap<OperationId, Option<Operation>>,
    agents: BTreeMap<AgentId, Option<Agent>>,
    lanes: BTreeMap<LaneId, Option<Lane>>,
}

impl Author {
    pub(crate) fn new(seed: u64) -> Self {
        let platforms = ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction));
        Self {
            dice: Dice(seed),
            first: 1,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            world: World {
                limits: Limits::default(),
                platforms: Arc::new(BTreeMap::from(platforms)),
                agents: Arc::new(Everybody),
            },
            operations: BTreeMap::new(),
            agents: BTreeMap::new(),
            lanes: BTreeMap::new(),
        }
    }

    /// One that goes on with a log in which there are fewer operations than this.
    pub(crate) fn numbered_from(seed: u64, first: u32) -> Self {
        Self { first, ..Self::new(seed) }
    }

    /// Makes so many moves; what the domain refuses writes nothing.
    pub(crate) async fn write(&mut self, log: &dyn EventLog, moves: usize) {
        for _ in 0..moves {
            self.now = self.now.plus_ms(self.dice.below(20_000));
            match self.dice.below(20) {
                0..=2 => self.create(log).await,
                3..=4 => self.change_operation(log).await,
                5..=6 => self.change_agent(log).await,
                7 => self.change_lane(log).await,
                8..=12 => self.assign(log).await,
                _ => self.settle(log).await,
            }
        }
    }

    fn agent(&mut self) -> AgentId {
        format!("agent-{}", self.dice.below(AGENTS)).parse().unwrap()
    }

    fn operation(&mut self) -> Option<OperationId> {
        let at = self.dice.below(self.operations.len().max(1) as u64) as usize;
        // Those of late, so that there is something to do for them.
        let skip = self.operations.len().saturating_sub(4);
        self.operations.keys().nth(at.max(skip)).cloned()
    }

    async fn create(&mut self, log: &dyn EventLog) {
        let new = id(self.first + u32::try_from(self.operations.len()).unwrap());
        let mut wish = definition("n");
        let step = wish.workflow[0].clone();
        let shape = self.dice.below(8);
        wish.workflow = (1..=u32::try_from(STEPS).unwrap())
            .map(|number| {
                let mut step = step.clone();
                step.step = number;
                step.dependencies = if shape & 1 == 0 || number == 1 { Vec::new() } else { vec![number - 1] };
                step.continue_on_error = shape & 2 == 0;
                if shape == 7 && number == 2 {
                    (step.platform, step.action) = ("human".parse().unwrap(), "approve".parse().unwrap());
                }
                step
            })
            .collect();
        wish.metadata = serde_json::from_str(r#"{"team":"core","n":1}"#).unwrap();
        self.operations.insert(new.clone(), None);
        self.on_operation(log, &new, &operation::Command::Create(Box::new(wish))).await;
    }

    async fn change_operation(&mut self, log: &dyn EventLog) {
        let Some(id) = self.operation() else { return };
        let by = String::from("eve");
        let command = match self.dice.below(6) {
            0 => operation::Command::Cancel { by },
            1 => operation::Command::Pause { by, reason: None },
            2 | 3 => operation::Command::Resume { by },
            _ => {
                let name = Some(format!("n{}", self.dice.below(5)));
                operation::Command::Update(Box::new(Patch { name, ..Patch::default() }))
            }
        };
        self.on_operation(log, &id, &command).await;
    }

    async fn change_agent(&mut self, log: &dyn EventLog) {
        let id = self.agent();
        let command = match self.dice.below(8) {
            0 => agent::Command::Unregister,
            1 => agent::Command::TimeOut { silent_ms: 30_000 },
            2 => agent::Command::RecordSeen { metrics: Default::default() },
            _ => agent::Command::Register { profile: Box::new(profile(3, &["x"])), incarnation: None },
        };
        self.on_agent(log, &id, &command).await;
    }

    async fn change_lane(&mut self, log: &dyn EventLog) {
        let id: LaneId = format!("account.a{}", self.dice.below(LANES)).parse().unwrap();
        let Some(operation) = self.operation() else { return };
        let until = self.now.plus_ms(self.dice.below(600_000));
        let command = match self.dice.below(4) {
            0 => lane::Command::Open { by: "eve".into() },
            _ => lane::Command::Park { until, lease: LeaseId { operation, step: 1, grant: 1 } },
        };
        let mut state = self.lanes.remove(&id).flatten();
        self.decide(log, &id, &mut state, &command).await;
        self.lanes.insert(id, state);
    }

    /// A slot is taken and the step reserved, mostly both.
    async fn assign(&mut self, log: &dyn EventLog) {
        let (Some(id), agent) = (self.operation(), self.agent()) else { return };
        let step = u32::try_from(1 + self.dice.below(STEPS)).unwrap();
        let grant = self.grant(&id, step) + 1;
        let lease = LeaseId { operation: id.clone(), step, grant };
        self.on_agent(log, &agent, &agent::Command::Reserve { lease }).await;
        if self.dice.below(8) > 0 {
            let candidates =
                Candidates { ranked: Vec::new(), excluded: Excluded::default(), weights: Weights::default() };
            self.wish(log, &id, step, grant, StepWish::Reserve { agent, candidates }).await;
        }
    }

    /// Something becomes of a step, and mostly of the slot.
    async fn settle(&mut self, log: &dyn EventLog) {
        let (Some(id), agent) = (self.operation(), self.agent()) else { return };
        let step = u32::try_from(1 + self.dice.below(STEPS)).unwrap();
        let grant = self.grant(&id, step);
        let error = StepError { code: "flaky".into(), message: "once more".into() };
        let result = || Json::from(serde_json::json!({"n": 7}));
        let (wish, outcome) = match self.dice.below(10) {
            0 => (StepWish::Fail { error, retryable: true, retry_after_ms: None }, Outcome::Failed),
            1 => (StepWish::Release { reason: "r".into(), hold_ms: None }, Outcome::Returned),
            2 => (StepWish::LoseLease { reason: "agent_gone".into() }, Outcome::Lost),
            3 => (StepWish::ExpireOffer { reason: "silence".into() }, Outcome::Untaken),
            4 => (StepWish::Checkpoint(result()), Outcome::Completed),
            5 => (StepWish::Progress { progress: 40, note: None, usage: None }, Outcome::Completed),
            _ => (StepWish::Complete { result: result(), usage: None }, Outcome::Completed),
        };
        let holds = matches!(wish, StepWish::Checkpoint(_) | StepWish::Progress { .. });
        self.wish(log, &id, step, grant, wish).await;
        if !holds {
            let lease = LeaseId { operation: id, step, grant };
            self.on_agent(log, &agent, &agent::Command::Release { lease, outcome }).await;
        }
    }

    fn grant(&self, id: &OperationId, step: u32) -> u64 {
        let operation = self.operations.get(id).and_then(Option::as_ref);
        operation.map_or(0, |operation| {
            let position = operation.run.skeleton.position(step);
            position.map_or(0, |position| operation.run.steps[position].grant)
        })
    }

    async fn wish(&mut self, log: &dyn EventLog, id: &OperationId, step: u32, grant: u64, wish: StepWish) {
        self.on_operation(log, id, &operation::Command::Step { step, grant, wish }).await;
    }

    async fn on_operation(&mut self, log: &dyn EventLog, id: &OperationId, command: &operation::Command) {
        let mut state = self.operations.remove(id).flatten();
        self.decide(log, id, &mut state, command).await;
        self.operations.insert(id.clone(), state);
    }

    async fn on_agent(&mut self, log: &dyn EventLog, id: &AgentId, command: &agent::Command) {
        let mut state = self.agents.remove(id).flatten();
        self.decide(log, id, &mut state, command).await;
        self.agents.insert(id.clone(), state);
    }

    async fn decide<A: Durable>(
        &mut self,
        log: &dyn EventLog,
        id: &A::Id,
        state: &mut Option<A>,
        command: &A::Command,
    ) {
        let given = Given { now: self.now, world: &self.world };
        let Ok(decided) = A::decide(state.as_ref(), id, command, &given) else { return };
        let body = [1; 16];
        let key = (self.dice.below(2) == 0).then(|| KeyUse { key: *Uuid::now_v7().as_bytes(), body });
        let metadata = Metadata { key, ..Metadata::of_photon() }.encode();
        let mut events = Vec::new();
        for event in &decided {
            let encoded = A::encode(event).unwrap();
            events.push(NewEvent {
                id: Uuid::now_v7().into(),
                name: encoded.name.into(),
                schema: encoded.schema,
                time_us: self.now.as_micros(),
                metadata: metadata.clone(),
                body: encoded.body,
            });
            *state = A::evolve(state.take(), event, self.now);
        }
        if !events.is_empty() {
            log.append(Append { stream: stream_of::<A>(id), expected: Expected::Any, events }).await.unwrap();
        }
    }
}
