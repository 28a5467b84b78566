//! Random histories of operations, agents and lanes: every move is decided by the domain, and folded as it is
//! decided. Knows no log; whoever needs one writes the appends there.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::codec::{Durable, Encoded, KeyUse, Metadata, Stored};
use actors::gateway::stream_of;
use actors::past::Past;
use bytes::Bytes;
use domain::agent::event::ReportedMetrics;
use domain::agent::{self, Agent};
use domain::lane::{self, Lane};
use domain::operation::definition::StepDefinition;
use domain::operation::event::{CloseReason, LeaseEnd, Patch, StepError};
use domain::operation::positions::Positions;
use domain::operation::step::Run;
use domain::operation::{self, Operation, StepWish};
use domain::views::leases::State;
use domain::views::{Stamp, Views};
use domain::world::Everybody;
use domain::{
    AgentId, Given, Json, LaneId, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World, presence,
};
use events::dice::Dice;
use events::{Append, Beside, EventLog, Expected, NewEvent, Position, StreamId};
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
type Show<Id, Event> = fn(&mut Views, &Id, &Event, Stamp);

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
    /// Versions of the streams of presence.
    days: BTreeMap<StreamId, u64>,
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
            days: BTreeMap::new(),
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
            7 => self.close(),
            8..=12 => self.reserve(),
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
            2 => return self.see(&id),
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
        let show: Show<_, _> = |views, id, event, stamp| views.lanes.apply(id, event, stamp.at);
        self.decide::<Lane>(&id, &mut known, &command, show);
        self.lanes.insert(id, known);
    }

    /// A step is reserved, mostly for the incarnation that its agent has.
    fn reserve(&mut self) {
        let (Some(id), agent) = (self.operation(), self.agent()) else { return };
        let Some((step, grant)) = self.step(&id, |run| &run.ready) else { return };
        let state = self.agents.get(&agent).and_then(|known| known.state.as_ref());
        let incarnation = state.map_or(1, |agent| agent.incarnation);
        let incarnation = incarnation.saturating_sub(u64::from(self.dice.below(8) == 0));
        let wish = StepWish::Reserve { agent, incarnation, candidates: Default::default() };
        self.on_operation(&id, &operation::Command::Step { step, grant: grant + 1, wish });
    }

    /// Something becomes of a step.
    fn settle(&mut self) {
        let Some(id) = self.operation() else { return };
        let Some((step, grant)) = self.step(&id, |run| &run.held) else { return };
        let error = StepError { code: "flaky".into(), message: "once more".into() };
        let result = Json::from(serde_json::json!({"n": self.live.events, "part": 1.0 / 3.0, "ß": "é"}));
        let wish = match self.dice.below(14) {
            0 => StepWish::Fail { error, retryable: true, retry_after_ms: None },
            1 => StepWish::Release { reason: "busy".into(), hold_ms: None },
            2 => StepWish::LoseLease { reason: self.dice.pick(&[LeaseEnd::LeaseExpired, LeaseEnd::Revoked]) },
            3 => StepWish::ExpireOffer {
                reason: self.dice.pick(&[LeaseEnd::NoSignOfLife, LeaseEnd::NotHeard]),
            },
            4 => StepWish::Checkpoint(result),
            5 => StepWish::Progress { progress: 40, note: None, usage: None },
            6..=8 => StepWish::Acknowledge,
            _ => StepWish::Complete { result, usage: None },
        };
        self.on_operation(&id, &operation::Command::Step { step, grant, wish });
    }

    /// An agent is done with something that was cancelled under it.
    fn close(&mut self) {
        let closing = self.live.views.leases.all().filter(|(_, lease)| lease.state != State::Held);
        let closing: Vec<LeaseId> = closing.map(|(lease, _)| lease).collect();
        if closing.is_empty() {
            return;
        }
        let LeaseId { operation, step, grant } = self.dice.pick(&closing);
        let wish =
            StepWish::CloseLease { why: self.dice.pick(&[CloseReason::Reported, CloseReason::Revoked]) };
        self.on_operation(&operation, &operation::Command::Step { step, grant, wish });
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
        let show: Show<_, _> = |views, id, event, stamp| _ = views.apply_operation(id, event, stamp);
        self.decide(id, &mut known, command, show);
        if known.state.as_ref().is_some_and(|state| !state.run.is_over()) {
            self.operations.insert(id.clone(), known);
        }
    }

    fn on_agent(&mut self, id: &AgentId, command: &agent::Command) {
        let mut known = self.agents.remove(id).unwrap_or_default();
        self.decide(id, &mut known, command, Views::apply_agent);
        self.agents.insert(id.clone(), known);
    }

    /// An agent is heard, which is noted in the stream of the day.
    fn see(&mut self, agent: &AgentId) {
        let stream = StreamId::lossy(presence::CATEGORY, &presence::day(self.now));
        let version = self.days.entry(stream.clone()).or_default();
        *version += 1;
        let metrics = ReportedMetrics { cpu_usage: Some(self.dice.below(100) as f64), ..Default::default() };
        let event = presence::Event::Seen(presence::Seen { agent: agent.clone(), metrics });
        let stamp = Stamp { revision: *version, position: self.live.events + 1, at: self.now };
        self.live.views.apply_presence(&event, stamp);
        let events = vec![self.record::<presence::Event>(&event, Metadata::of_photon().encode())];
        self.append(stream, events);
    }

    /// Takes the events of one command as one append; one that is refused has none.
    fn decide<A: Durable>(
        &mut self,
        id: &A::Id,
        known: &mut Known<A>,
        command: &A::Command,
        show: Show<A::Id, A::Event>,
    ) where
        A::Event: PartialEq + std::fmt::Debug,
    {
        let given = Given { now: self.now, world: &self.world };
        let Ok(decided) = A::decide(known.state.as_ref(), id, command, &given) else { return };
        if decided.is_empty() {
            return;
        }
        let (key, body) = (Uuid::from_u64_pair(self.dice.roll(), self.dice.roll()).into_bytes(), [1; 16]);
        let key = self.dice.coin().then_some(KeyUse { key, body });
        let metadata = Metadata { key, ..Metadata::of_photon() }.encode();
        let mut events = Vec::new();
        for event in &decided {
            known.version += 1;
            known.state = A::evolve(known.state.take(), event, self.now);
            let (revision, position) = (known.version, self.live.events + 1);
            show(&mut self.live.views, id, event, Stamp { revision, position, at: self.now });
            events.push(self.record::<A>(event, metadata.clone()));
        }
        self.append(stream_of::<A>(id), events);
    }

    fn record<S: Stored>(&mut self, event: &S::Fact, metadata: Bytes) -> NewEvent
    where
        S::Fact: PartialEq + std::fmt::Debug,
    {
        self.live.events += 1;
        let Encoded { name, schema, body } = S::encode(event).unwrap();
        // What travels beside the bytes is what anybody would read from them.
        assert_eq!(S::decode(name, schema, &body).unwrap(), *event, "{name}");
        let id = Uuid::from_u64_pair(self.seed, self.live.events).into();
        let (time_us, beside) = (self.now.as_micros(), Beside::NONE);
        NewEvent { id, name: name.into(), schema, time_us, metadata, body, beside }
    }

    fn append(&mut self, stream: StreamId, events: Vec<NewEvent>) {
        (self.live.position, self.live.time) = (Position::new(self.live.events), self.now);
        self.appends.push(Append { stream, expected: Expected::Any, events });
    }
}
