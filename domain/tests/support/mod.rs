//! A small workflow language for the tests: `Flow` puts one operation through its life, and folds every
//! event into the operation board and into the views as well, which must never disagree.
#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part of it, and fails with it.

pub(crate) mod crew;
pub(crate) mod fleet;
pub(crate) mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::agent::selection::Candidates;
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Priority, Requirements, StepDefinition,
};
use domain::operation::event::{LeaseEnd, StepError};
use domain::operation::retry::RetryPolicy;
use domain::operation::step::{Run, StepRun};
use domain::operation::{Command, Event, Intervention, Operation, Rejection, StepWish};
use domain::scenario::Scenario;
use domain::views::leases::State;
use domain::views::operation_board::OperationBoard;
use domain::views::{Stamp, Views};
use domain::world::Everybody;
use domain::{AgentId, Json, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World};
use serde_json::Value;

pub(crate) fn operation_id() -> OperationId {
    "op_0123456789abcdef0123456789abcdef".parse().unwrap()
}

pub(crate) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn world() -> World {
    let platforms = BTreeMap::from([
        ("worker".parse().unwrap(), PlatformRule::AnyAction),
        ("cursor".parse().unwrap(), PlatformRule::Actions(vec!["edit".into()])),
        ("human".parse().unwrap(), PlatformRule::Actions(vec!["approve".into()])),
    ]);
    World { limits: Limits::default(), platforms: Arc::new(platforms), agents: Arc::new(Everybody) }
}

pub(crate) fn json(value: Value) -> Json {
    Json::from(value)
}

/// A step that any worker can perform, three attempts, without jitter.
pub(crate) fn step(number: u32, dependencies: &[u32]) -> StepDefinition {
    StepDefinition {
        step: number,
        agent: None,
        platform: "worker".parse().unwrap(),
        action: "do".parse().unwrap(),
        title: None,
        inputs: Json::object(),
        dependencies: dependencies.to_vec(),
        timeout_ms: 60_000,
        retry: RetryPolicy { jitter: 0.0, ..RetryPolicy::default() },
        requires: Requirements::default(),
        when: None,
        continue_on_error: false,
        effect: EffectClass::Idempotent,
    }
}

pub(crate) fn with(mut step: StepDefinition, change: impl FnOnce(&mut StepDefinition)) -> StepDefinition {
    change(&mut step);
    step
}

pub(crate) fn when(number: u32, dependencies: &[u32], condition: &str) -> StepDefinition {
    with(step(number, dependencies), |step| step.when = Some(condition.into()))
}

pub(crate) fn once(number: u32, dependencies: &[u32]) -> StepDefinition {
    with(step(number, dependencies), |step| step.retry.max_attempts = 1)
}

/// A step that asks a person.
pub(crate) fn approval(number: u32, dependencies: &[u32]) -> StepDefinition {
    with(step(number, dependencies), |step| {
        (step.platform, step.action) = ("human".parse().unwrap(), "approve".parse().unwrap());
    })
}

/// A step that must not happen twice.
pub(crate) fn write(number: u32, dependencies: &[u32]) -> StepDefinition {
    with(step(number, dependencies), |step| step.effect = EffectClass::Write)
}

pub(crate) fn definition(workflow: Vec<StepDefinition>) -> Definition {
    Definition {
        name: "Release".into(),
        description: None,
        priority: Priority::Medium,
        agents: Vec::new(),
        platforms: Vec::new(),
        workflow: workflow.into(),
        deadline: None,
        metadata: Json::object(),
        failure_policy: FailurePolicy::FailFast,
        max_parallel: None,
        auto_start: true,
    }
}

pub(crate) fn continuing(workflow: Vec<StepDefinition>) -> Definition {
    Definition { failure_policy: FailurePolicy::Continue, ..definition(workflow) }
}

pub(crate) fn error(code: &str) -> StepError {
    StepError { code: code.into(), message: "it did not work".into() }
}

pub(crate) fn complete(result: Value) -> StepWish {
    StepWish::Complete { result: json(result), usage: None }
}

pub(crate) fn fail(code: &str) -> StepWish {
    StepWish::Fail { error: error(code), retryable: true, retry_after_ms: None }
}

pub(crate) fn progress(percent: u8) -> StepWish {
    StepWish::Progress { progress: percent, note: None, usage: None }
}

pub(crate) fn lose(reason: LeaseEnd) -> StepWish {
    StepWish::LoseLease { reason }
}

pub(crate) fn expire(reason: LeaseEnd) -> StepWish {
    StepWish::ExpireOffer { reason }
}

pub(crate) fn release() -> StepWish {
    StepWish::Release { reason: "not now".into(), hold_ms: None }
}

pub(crate) fn reserve(who: AgentId, incarnation: u64) -> StepWish {
    StepWish::Reserve { agent: who, incarnation, candidates: Candidates::default() }
}

/// Where the event of this number of a stream stands, in a log of that stream alone.
pub(crate) fn stamp(revision: u64, at: Timestamp) -> Stamp {
    Stamp { revision, position: revision, at }
}

/// The names of events, as the variants are called.
pub(crate) fn names(events: &[Event]) -> Vec<String> {
    let name = |event| {
        let text = format!("{event:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    };
    events.iter().map(name).collect()
}

/// The leases of the views are those of the steps that an agent has, or had when they were cancelled.
pub(crate) fn leases_agree(id: &OperationId, run: &Run, views: &Views) {
    let taken = run.held.iter().map(|at| (*at, true)).chain(run.closing.iter().map(|at| (*at, false)));
    let mut wanted: Vec<_> = taken
        .map(|(at, held)| {
            let (number, step) = (run.skeleton.steps[at].step, &run.steps[at]);
            (number, step.grant, step.agent.clone(), held)
        })
        .collect();
    wanted.sort_unstable();
    let shown = views.leases.of_operation(id).map(|(lease, shown)| {
        assert_eq!((&lease.operation, lease.grant), (id, shown.grant));
        assert_eq!(views.leases.get(&lease), Some(shown));
        assert_eq!(views.leases.is_closing(&lease), shown.state != State::Held);
        (lease.step, lease.grant, Some(shown.agent.clone()), shown.state == State::Held)
    });
    assert_eq!(shown.collect::<Vec<_>>(), wanted);
}

/// One operation on its way.
pub(crate) struct Flow {
    pub(crate) scenario: Scenario<Operation>,
    pub(crate) board: OperationBoard,
    pub(crate) views: Views,
    /// Of the last event in the views.
    pub(crate) position: u64,
}

impl Flow {
    pub(crate) fn of(definition: Definition) -> Self {
        let mut flow = Self::new();
        flow.put(&Command::Create(Box::new(definition))).unwrap();
        flow
    }

    pub(crate) fn new() -> Self {
        let scenario = Scenario::new(operation_id(), world());
        Self { scenario, board: OperationBoard::default(), views: Views::default(), position: 0 }
    }

    pub(crate) fn put(&mut self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let before = self.scenario.history.len();
        let events = self.scenario.when(command)?;
        for (index, (event, at)) in self.scenario.history[before..].iter().enumerate() {
            let stood = self.stands();
            self.position += 1;
            let stamp = Stamp { position: self.position, ..stamp((before + index + 1) as u64, *at) };
            self.board.apply(&self.scenario.id, event, stamp);
            self.views.apply_operation(&self.scenario.id, event, stamp);
            self.tells_what_moved(&stood);
        }
        self.agree();
        Ok(events)
    }

    /// Where the steps of a workflow of ordinary size stand.
    fn stands(&self) -> Vec<StepRun> {
        let run = self.board.get(&self.scenario.id).and_then(|row| row.run.as_ref());
        let ordinary = run.filter(|run| run.steps.len() <= 100);
        ordinary.map(|run| run.steps.clone()).unwrap_or_default()
    }

    /// The run names every step that stands elsewhere, or is kept from somebody else, since one fact ago.
    fn tells_what_moved(&self, stood: &[StepRun]) {
        let stands = self.stands();
        let changed = (0..stood.len()).filter(|at| {
            (&stood[*at].status, &stood[*at].held_from) != (&stands[*at].status, &stands[*at].held_from)
        });
        let run = self.board.get(&self.scenario.id).and_then(|row| row.run.as_ref()).unwrap();
        assert!(changed.into_iter().all(|at| run.moved().contains(&at)), "moved: {:?}", run.moved());
    }

    /// The aggregate and the board say the same of every step.
    fn agree(&self) {
        let (run, row) = (&self.operation().run, self.board.get(&self.scenario.id).unwrap());
        let shown = row.run.as_ref().unwrap();
        assert_eq!((&run.steps, run.status, run.settled), (&shown.steps, shown.status, shown.settled));
        assert_eq!((&run.ready, &run.held), (&shown.ready, &shown.held));
        assert_eq!((&run.backing_off, &run.failed), (&shown.backing_off, &shown.failed));
        assert_eq!((&run.with_people, run.paused), (&shown.with_people, shown.paused));
        assert_eq!((run.progress(), run.status), (row.progress, row.status));
        assert_eq!(run.closing, shown.closing);
        assert_eq!(row.revision, self.scenario.history.len() as u64);
        let kept = self.views.operations.get(&self.scenario.id).and_then(|row| row.run.as_ref());
        let open = (!run.is_over()).then_some(&run.steps);
        assert_eq!(kept.map(|run| &run.steps), open);
        leases_agree(&self.scenario.id, run, &self.views);
    }

    pub(crate) fn operation(&self) -> &Operation {
        self.scenario.state.as_ref().unwrap()
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.scenario.wait(ms);
    }

    pub(crate) fn position(&self, step: u32) -> usize {
        self.operation().run.skeleton.position(step).unwrap()
    }

    pub(crate) fn status(&self, step: u32) -> &'static str {
        self.operation().run.steps[self.position(step)].status.name()
    }

    pub(crate) fn statuses(&self) -> Vec<&'static str> {
        self.operation().run.steps.iter().map(|step| step.status.name()).collect()
    }

    pub(crate) fn grant(&self, step: u32) -> u64 {
        self.operation().run.steps[self.position(step)].grant
    }

    pub(crate) fn lease(&self, step: u32) -> LeaseId {
        LeaseId { operation: operation_id(), step, grant: self.grant(step) }
    }

    /// Something about a step under the newest grant.
    pub(crate) fn wish(&mut self, step: u32, wish: StepWish) -> Result<Vec<Event>, Rejection> {
        let grant = self.grant(step);
        self.wish_under(step, grant, wish)
    }

    pub(crate) fn wish_under(
        &mut self,
        step: u32,
        grant: u64,
        wish: StepWish,
    ) -> Result<Vec<Event>, Rejection> {
        self.put(&Command::Step { step, grant, wish })
    }

    /// Offers a step under a new grant.
    pub(crate) fn offer(&mut self, step: u32, name: &str) -> Result<Vec<Event>, Rejection> {
        let grant = self.grant(step) + 1;
        self.wish_under(step, grant, reserve(agent(name), 1))
    }

    /// Offered to Ada, and taken.
    pub(crate) fn begin(&mut self, step: u32) {
        self.offer(step, "ada").unwrap();
        self.wish(step, StepWish::Acknowledge).unwrap();
    }

    /// A person's word about a step.
    pub(crate) fn say(&mut self, step: u32, intervention: Intervention) -> Result<Vec<Event>, Rejection> {
        let (by, reason) = ("ops".to_owned(), Some("I looked".to_owned()));
        self.put(&Command::Intervene { step, by, reason, intervention })
    }

    /// Begun and completed.
    pub(crate) fn done(&mut self, step: u32, result: Value) -> Vec<Event> {
        self.begin(step);
        self.wish(step, complete(result)).unwrap()
    }

    /// Begun and failed for good.
    pub(crate) fn broken(&mut self, step: u32) -> Vec<Event> {
        self.begin(step);
        let wish = StepWish::Fail { error: error("broken"), retryable: false, retry_after_ms: None };
        self.wish(step, wish).unwrap()
    }

    /// The inputs that a step was reserved with.
    pub(crate) fn inputs(&self, step: u32) -> Value {
        self.operation().inputs[&step].value()
    }
}
