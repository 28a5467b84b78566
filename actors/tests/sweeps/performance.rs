//! One sample put through its life by one agent that knows what it wants, so that each run can be compared
//! with another: it takes all the work there is before it reports on any, in the order of the steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actors::Core;
use actors::aggregate_actor::{DispatchError, Receipt};
use actors::codec::Metadata;
use actors::effects::Periods;
use actors::gateway::{Housed, Order};
use actors::matching::Appetite;
use domain::agent::event::{Config, Profile};
use domain::agent::{self, Agent};
use domain::operation::definition::{Definition, Location};
use domain::operation::event::StepError;
use domain::operation::step::Run;
use domain::operation::{Command, Operation, StepWish};
use domain::{AgentId, Json, LeaseId, OperationId};
use events::faulty_log::{Fault, FaultyLog};
use events::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, MemoryLog, Position, ReadError,
    Recorded, Since, StreamId,
};
use serde_json::json;

use super::samples::Sample;
use super::support::{core_with, id};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// An offer whose answer was lost is free again after this time.
const OFFER_MS: u64 = 150;

/// Which step fails, and how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failing {
    Once(u32),
    ForGood(u32),
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StepEnding {
    pub(super) status: &'static str,
    pub(super) attempts: u32,
    result: Option<Json>,
    error: Option<String>,
}

/// How an operation ended, as far as disturbances must not change it.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: &'static str,
    pub(super) reason: Option<String>,
    pub(super) steps: BTreeMap<u32, StepEnding>,
    progress: u8,
    errors: Vec<String>,
    /// How many appends it took, which they may change.
    pub(super) appends: usize,
}

impl PartialEq for Ending {
    fn eq(&self, other: &Self) -> bool {
        let parts =
            |ending: &Self| (ending.status, ending.reason.clone(), ending.progress, ending.errors.clone());
        parts(self) == parts(other) && self.steps == other.steps
    }
}

/// Counts the appends to the log inside.
struct Counted(FaultyLog<MemoryLog>, AtomicUsize);

impl EventLog for Counted {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.append(append)
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.0.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.0.tail(after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.0.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.0.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.0.head()
    }
}

/// What is to be performed, and how it is disturbed.
pub(super) struct Performance {
    definition: Definition,
    failing: Option<Failing>,
    fault: Option<(usize, Fault)>,
    times: usize,
}

impl Performance {
    pub(super) fn of(sample: &Sample) -> Self {
        Self { definition: sample.definition.clone(), failing: None, fault: None, times: 1 }
    }

    pub(super) fn failing(self, failing: Failing) -> Self {
        Self { failing: Some(failing), ..self }
    }

    /// This befalls the append with this number, counted from 0.
    pub(super) fn with_fault(self, append: usize, fault: Fault) -> Self {
        Self { fault: Some((append, fault)), ..self }
    }

    /// Each command is sent twice.
    pub(super) fn twice(self) -> Self {
        Self { times: 2, ..self }
    }

    pub(super) async fn run(self) -> Ending {
        let script = self.fault.map(|(at, fault)| {
            let mut script = vec![Fault::None; at];
            script.push(fault);
            script
        });
        let inner = FaultyLog::scripted(Arc::new(MemoryLog::new()), script.unwrap_or_default());
        let log = Arc::new(Counted(inner, AtomicUsize::new(0)));
        let periods = Periods { offer_ms: OFFER_MS, grace_ms: 50, ..Periods::default() };
        let core = core_with(log.clone() as Arc<dyn EventLog>, domain::Limits::default(), periods).await;
        let mut stage = Stage { plan: &self, core: &core, hands: BTreeMap::new(), begun: Instant::now() };
        let mut ending = stage.perform().await;
        ending.appends = log.1.load(Ordering::Relaxed);
        core.stop();
        ending
    }
}

/// A lease in the agent's hands, begun.
struct InHand {
    lease: LeaseId,
    attempt: u32,
}

/// One run under way.
struct Stage<'p> {
    plan: &'p Performance,
    core: &'p Core,
    hands: BTreeMap<u32, InHand>,
    begun: Instant,
}

fn operation() -> OperationId {
    id(1)
}

fn performer() -> AgentId {
    "performer".parse().unwrap()
}

fn registration() -> agent::Command {
    let profile = Profile {
        name: "performer".into(),
        model: "none".into(),
        capabilities: Vec::new(),
        location: Location::Local,
        config: Config { max_concurrent_steps: 16, heartbeat_interval_ms: 0, ..Config::default() },
        metadata: Json::object(),
    };
    agent::Command::Register { profile: Box::new(profile), incarnation: None }
}

impl Stage<'_> {
    async fn perform(&mut self) -> Ending {
        self.put::<Agent>(&performer(), registration()).await;
        let create = Command::Create(Box::new(self.plan.definition.clone()));
        for _ in 0..self.plan.times {
            self.put::<Operation>(&operation(), create.clone()).await;
        }
        while self.gather().await {
            for (step, held) in std::mem::take(&mut self.hands) {
                self.report(&held.lease, self.outcome(step, held.attempt)).await;
            }
        }
        self.until("every slot is free", |core| {
            let views = core.projected.views.read();
            views.agents.get(&performer()).is_some() && views.leases.of_agent(&performer()).next().is_none()
        })
        .await;
        self.ending().await
    }

    fn hurry(&self, what: &str) {
        let name = &self.plan.definition.name;
        assert!(self.begun.elapsed() < PATIENCE, "{name}, {:?}: not in time: {what}", self.plan.fault);
    }

    async fn until(&self, what: &str, holds: impl Fn(&Core) -> bool) {
        while !holds(self.core) {
            self.hurry(what);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Puts a command again and again until it is known what became of it.
    async fn put<A: Housed>(&self, id: &A::Id, command: A::Command)
    where
        A::Command: Clone,
    {
        while let Err(fault) =
            self.core.gateway.execute_shown(id, Order::<A>::of(command.clone(), me())).await
        {
            assert!(may_be_repeated(&fault), "a command was refused");
            self.hurry("a command");
        }
    }

    async fn reported(&self, lease: &LeaseId, wish: &StepWish) -> Result<Receipt<Operation>, String> {
        loop {
            match self.core.report(lease, wish.clone(), me()).await {
                Ok(receipt) => return Ok(receipt),
                Err(DispatchError::Rejected(rejection)) => return Err(format!("{rejection:?}")),
                Err(fault) => assert!(may_be_repeated(&fault), "{fault:?}"),
            }
            self.hurry("a report");
        }
    }

    /// Reports, as often as the plan says. What is said again must change nothing.
    async fn report(&self, lease: &LeaseId, wish: StepWish) -> bool {
        let first = self.reported(lease, &wish).await;
        for _ in 1..self.plan.times {
            match self.reported(lease, &wish).await {
                Ok(again) => assert!(again.events.is_empty(), "{wish:?} again: {:?}", again.events),
                Err(_) => assert!(first.is_err(), "{wish:?} is refused the second time"),
            }
        }
        first.is_ok()
    }

    fn outcome(&self, step: u32, attempt: u32) -> StepWish {
        let retryable = match self.plan.failing {
            Some(Failing::Once(failing)) if failing == step && attempt == 1 => true,
            Some(Failing::ForGood(failing)) if failing == step => false,
            _ => return StepWish::Complete { result: Json::from(json!({"step": step})), usage: None },
        };
        let error = StepError { code: "broken".into(), message: "it broke".into() };
        StepWish::Fail { error, retryable, retry_after_ms: None }
    }

    /// Claims until the agent has all the work there is, and has begun it. False when the operation is over.
    async fn gather(&mut self) -> bool {
        loop {
            let run =
                self.core.projected.views.read().operations.get(&operation()).and_then(|row| row.run.clone());
            let Some(run) = run.filter(|run| !run.status.is_terminal()) else { return false };
            if self.has_all(&run) {
                return true;
            }
            self.hurry("all the work is claimed");
            let appetite = Appetite::of(16, None);
            for granted in self.core.claim(&performer(), None, appetite, 10, me()).await.unwrap() {
                let (lease, attempt) = (granted.reserved.lease_id.clone(), granted.reserved.attempt);
                // One that took too long to reach the agent is offered again.
                if self.report(&lease, StepWish::Acknowledge).await {
                    self.hands.insert(lease.step, InHand { lease, attempt });
                }
            }
        }
    }

    fn has_all(&self, run: &Run) -> bool {
        let full = self.plan.definition.max_parallel.is_some_and(|most| run.held.len() >= most as usize);
        let in_hand = |position: &usize| {
            let held = self.hands.get(&run.skeleton.steps[*position].step);
            held.is_some_and(|held| held.lease.grant == run.steps[*position].grant)
        };
        (full || run.backing_off.is_empty() && run.ready.is_empty()) && run.held.iter().all(in_hand)
    }

    async fn ending(&self) -> Ending {
        let operation = self.core.operation(&operation()).await.unwrap().unwrap().state;
        let run = &operation.run;
        let steps = run.skeleton.steps.iter().zip(&run.steps).map(|(definition, step)| {
            let ending = StepEnding {
                status: step.status.name(),
                attempts: step.attempts,
                result: operation.results.get(&definition.step).cloned(),
                error: step.error.as_ref().map(|error| error.code.clone()),
            };
            (definition.step, ending)
        });
        Ending {
            status: operation.status().name(),
            reason: operation.status_reason.clone(),
            steps: steps.collect(),
            progress: run.progress(),
            errors: operation.errors.clone(),
            appends: 0,
        }
    }
}

fn me() -> Metadata {
    Metadata { actor: "performer".into(), ..Metadata::default() }
}

fn may_be_repeated<A: Housed>(fault: &DispatchError<A>) -> bool {
    matches!(fault, DispatchError::OutcomeUnknown | DispatchError::Overloaded)
}
