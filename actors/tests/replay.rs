//! The same log comes to the same state: as it was decided, folded from its first event on, from snapshots
//! on, and by another process with another time zone, language, number of threads and seed of its hash maps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "../../tests/support/tally.rs"]
mod tally;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::codec::{Durable, Encoded, Metadata};
use actors::gateway::stream_of;
use actors::kept::{keep_all, restore_part};
use actors::past::{Cut, Past};
use actors::standing::Standing;
use domain::agent::{self, Agent};
use domain::operation::definition::Definition;
use domain::operation::event::{Patch, StepError};
use domain::operation::{self, Operation, StepWish};
use domain::world::Everybody;
use domain::{AgentId, Aggregate, Given, Json, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World};
use events::dice::Dice;
use events::{Append, EventLog, Expected, NewEvent, OpenError, Options, Position, SledLog, StreamId};
use futures_util::future;
use support::stage::{agent, operation, profile};
use tally::{Tally, asked};
use uuid::Uuid;

const FOLDER: &str = "ACTORS_REPLAY_FOLDER";
const EVENTS: usize = 5_000;
const AGENTS: [&str; 4] = ["ada", "bob", "eve", "İpek-ğ"];
/// Operations that are under way at a time.
const OPEN: usize = 8;

/// A history in the making, and what it comes to while it is made.
struct Life {
    dice: Dice,
    live: Past,
    world: World,
    now: Timestamp,
    agents: BTreeMap<AgentId, (u64, Option<Agent>)>,
    operations: BTreeMap<OperationId, (u64, Option<Operation>)>,
    created: u128,
    appends: Vec<Append>,
}

impl Life {
    fn of(seed: u64) -> Self {
        let platforms = ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction));
        let platforms = Arc::new(BTreeMap::from(platforms));
        Self {
            dice: Dice(seed),
            live: Past::default(),
            world: World { limits: Limits::default(), platforms, agents: Arc::new(Everybody) },
            now: Timestamp::from_micros(1_700_000_000_000_000),
            agents: BTreeMap::new(),
            operations: BTreeMap::new(),
            created: 0,
            appends: Vec::new(),
        }
    }

    fn lead(&mut self) {
        while (self.live.events as usize) < EVENTS {
            self.now = self.now.plus_ms(self.dice.below(400));
            match self.dice.below(20) {
                0 | 1 => self.somebody(),
                2 if self.operations.len() < OPEN => self.begin(),
                3 => self.whole(),
                _ => self.step(),
            }
        }
    }

    /// Takes the events of one command as one append, and into the views.
    fn append(&mut self, stream: StreamId, encoded: Vec<Encoded>) {
        let first = self.live.events;
        let event = |(at, Encoded { name, schema, body })| NewEvent {
            id: Uuid::from_u128(u128::from(first) + at as u128).into(),
            name: name.into(),
            schema,
            time_us: self.now.as_micros(),
            metadata: Metadata::of_photon().encode(),
            body,
        };
        let events: Vec<_> = encoded.into_iter().enumerate().map(event).collect();
        if events.is_empty() {
            return;
        }
        self.live.events += events.len() as u64;
        (self.live.position, self.live.time) = (Position::new(self.live.events), self.now);
        self.appends.push(Append { stream, expected: Expected::Any, events });
    }

    fn agent(&mut self, id: &AgentId, command: &agent::Command) -> bool {
        let given = Given { now: self.now, world: &self.world };
        let (version, state) = self.agents.entry(id.clone()).or_default();
        let Ok(events) = Agent::decide(state.as_ref(), id, command, &given) else { return false };
        for event in &events {
            *version += 1;
            *state = Agent::evolve(state.take(), event, self.now);
            self.live.views.apply_agent(id, event, *version, self.now);
        }
        self.append(stream_of::<Agent>(id), encoded::<Agent>(&events));
        true
    }

    fn operation(&mut self, id: &OperationId, command: &operation::Command) {
        let given = Given { now: self.now, world: &self.world };
        let (version, state) = self.operations.entry(id.clone()).or_default();
        let Ok(events) = Operation::decide(state.as_ref(), id, command, &given) else { return };
        for event in &events {
            *version += 1;
            *state = Operation::evolve(state.take(), event, self.now);
            self.live.views.apply_operation(id, event, *version, self.now);
        }
        let over = state.as_ref().is_some_and(|state| state.run.status.is_terminal());
        self.append(stream_of::<Operation>(id), encoded::<Operation>(&events));
        if over {
            self.operations.remove(id);
        }
    }

    fn somebody(&mut self) {
        let name = AGENTS[self.dice.index(3)];
        let command = match self.dice.below(6) {
            0..3 => agent::Command::Register { profile: Box::new(profile(3, &["x"])), incarnation: None },
            3 => agent::Command::Unregister,
            _ => {
                let patch = agent::event::Patch { name: Some(AGENTS[3].into()), ..Default::default() };
                agent::Command::Update { patch: Box::new(patch), status: None }
            }
        };
        self.agent(&agent(name), &command);
    }

    fn begin(&mut self) {
        self.created += 1;
        let mut definition = support::definition("Größe \u{1F680}");
        let only = definition.workflow[0].clone();
        let steps = 1 + self.dice.below(6) as u32;
        let step = |step| {
            let dependencies = (1..step).filter(|_| self.dice.below(3) == 0).collect();
            operation::definition::StepDefinition { step, dependencies, ..only.clone() }
        };
        definition.workflow = (1..=steps).map(step).collect();
        definition = Definition { metadata: Json::from(serde_json::json!({"share": 0.1})), ..definition };
        let command = operation::Command::Create(Box::new(definition));
        self.operation(&operation(self.created), &command);
    }

    fn any_operation(&mut self) -> Option<OperationId> {
        let at = self.dice.index(self.operations.len());
        self.operations.keys().nth(at).cloned()
    }

    fn whole(&mut self) {
        let Some(id) = self.any_operation() else { return };
        let by = || "ops".to_owned();
        let command = match self.dice.below(12) {
            0 => operation::Command::Cancel { by: by() },
            1..4 => operation::Command::Pause { by: by(), reason: None },
            4..9 => operation::Command::Resume { by: by() },
            _ => {
                let name = format!("n{}", self.live.events);
                operation::Command::Update(Box::new(Patch { name: Some(name), ..Patch::default() }))
            }
        };
        self.operation(&id, &command);
    }

    /// Something about a step: most often what would come next.
    fn step(&mut self) {
        let Some(id) = self.any_operation() else { return };
        let Some(state) = &self.operations[&id].1 else { return };
        let at = self.dice.index(state.run.steps.len());
        let (step, grant) = (state.run.skeleton.steps[at].step, state.run.steps[at].grant);
        let lease = LeaseId { operation: id.clone(), step, grant };
        if state.run.steps[at].status.holder().is_none() && self.dice.below(4) > 0 {
            let lease = LeaseId { grant: grant + 1, ..lease };
            let who = agent(AGENTS[self.dice.index(3)]);
            if self.agent(&who, &agent::Command::Reserve { lease }) {
                let wish = StepWish::Reserve { agent: who, candidates: Default::default() };
                self.operation(&id, &operation::Command::Step { step, grant: grant + 1, wish });
            }
        } else {
            let wish = self.wish();
            self.operation(&id, &operation::Command::Step { step, grant, wish });
        }
        self.free_slots(&id);
    }

    fn wish(&mut self) -> StepWish {
        let error = StepError { code: "flaky".into(), message: "it did not work".into() };
        match self.dice.below(10) {
            0..3 => StepWish::Acknowledge,
            3..7 => {
                let result = serde_json::json!({"n": self.live.events, "part": 1.0 / 3.0, "ß": "é"});
                StepWish::Complete { result: Json::from(result), usage: None }
            }
            7 => StepWish::Fail { error, retryable: true, retry_after_ms: None },
            8 => StepWish::LoseLease { reason: "lease_expired".into() },
            _ => StepWish::Release { reason: "busy".into(), hold_ms: None },
        }
    }

    fn free_slots(&mut self, id: &OperationId) {
        use domain::views::operation_board::LeaseState;
        let working: Vec<_> = self.live.views.agents.working_for(id).cloned().collect();
        for (agent, lease) in working {
            if self.live.views.operations.lease(&lease) != LeaseState::Held {
                let outcome = agent::event::Outcome::Returned;
                self.agent(&agent, &agent::Command::Release { lease, outcome });
            }
        }
    }

    /// Writes it down without waiting for each sync.
    async fn write(&mut self, folder: &Path) {
        let log = open(folder);
        let mut appends = std::mem::take(&mut self.appends).into_iter().peekable();
        while appends.peek().is_some() {
            let some: Vec<_> = appends.by_ref().take(1_000).map(|append| log.append(append)).collect();
            for answer in future::join_all(some).await {
                answer.unwrap();
            }
        }
        log.close().await.unwrap();
    }
}

fn encoded<A: Durable>(events: &[A::Event]) -> Vec<Encoded> {
    events.iter().map(|event| A::encode(event).unwrap()).collect()
}

/// Opens the log. Until its exec, a process that another thread is just starting holds a copy of the lock.
fn open(folder: &Path) -> SledLog {
    let mut options = Options::default();
    options.disk_low_water_bytes = 0;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match SledLog::open(folder, options.clone()) {
            Err(OpenError::Locked) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Takes the fold apart at some places as a snapshot does, puts it together again, and goes on from there.
async fn folded_from_snapshots(folder: &Path, places: [u64; 3]) -> (u64, String) {
    let log = open(folder);
    let mut standing = Standing::default();
    for place in places {
        standing.fold_up_to(&log, Position::new(place), &|| true).await.unwrap();
        let mut again =
            Standing { past: Past { views: Default::default(), ..standing.past }, keys: Default::default() };
        keep_all::<String>(&standing.past.views, &standing.keys, &mut |part| {
            restore_part(part, &mut again.past.views, &mut again.keys).unwrap();
            Ok(())
        })
        .unwrap();
        standing = again;
    }
    standing.fold_up_to(&log, log.head().await.unwrap(), &|| true).await.unwrap();
    log.close().await.unwrap();
    (standing.past.events, standing.past.hash())
}

async fn folded(folder: &Path) -> (u64, String) {
    let log = open(folder);
    let past = Past::fold(&log, Cut::Position(log.head().await.unwrap())).await.unwrap();
    log.close().await.unwrap();
    (past.events, past.hash())
}

/// Not a test: the other process.
#[test]
fn folder() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(5).enable_all().build().unwrap();
    let (events, hash) = runtime.block_on(folded(Path::new(&folder)));
    println!("\nfolded {events} {hash}");
}

fn folded_elsewhere(folder: &Path) -> (u64, String) {
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "folder", "--nocapture"])
        .env(FOLDER, folder)
        .envs([("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("folded "));
    let (events, hash) = line.unwrap_or_else(|| panic!("{said}")).split_once(' ').unwrap();
    (events.parse().unwrap(), hash.to_owned())
}

#[test]
fn what_was_decided_is_what_is_folded_here_and_in_another_process() {
    let first = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let tally = Tally::of(
        "P4 P5 P11",
        "random logs of 5,000 events folded again, from snapshots, elsewhere",
        asked(200, 5_000, 50_000),
    );
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let tally = &tally;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                for seed in
                    (0..tally.asked()).filter(|number| number % 2 == lane).map(|number| first + number)
                {
                    let mut life = Life::of(seed);
                    life.lead();
                    let folder = tempfile::tempdir().unwrap();
                    runtime.block_on(life.write(folder.path()));
                    let lived = (life.live.events, life.live.hash());
                    assert_eq!(runtime.block_on(folded(folder.path())), lived, "seed {seed}");
                    let mut places = [(); 3].map(|()| life.dice.below(EVENTS as u64));
                    places.sort_unstable();
                    let from_snapshots = runtime.block_on(folded_from_snapshots(folder.path(), places));
                    assert_eq!(from_snapshots, lived, "seed {seed}, snapshots at {places:?}");
                    assert_eq!(folded_elsewhere(folder.path()), lived, "seed {seed}, elsewhere");
                    tally.add(1);
                }
            });
        }
    });
}
