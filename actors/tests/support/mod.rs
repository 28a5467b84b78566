//! A core on a log in memory, and what tests of it do with it. Waits for conditions, never for a time.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod author;
pub mod model;
pub mod moves;
pub mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::aggregate_actor::DispatchError;
use actors::clock::SystemClock;
use actors::codec::Metadata;
use actors::effects::Periods;
use actors::gateway::Order;
use actors::{Core, CoreOptions};
use domain::operation::definition::{Definition, EffectClass, FailurePolicy, Priority, StepDefinition};
use domain::operation::event::Patch;
use domain::operation::retry::RetryPolicy;
use domain::operation::{Command, Operation};
use domain::{Json, OperationId, PlatformRule};
use events::EventLog;

pub fn definition(name: &str) -> Definition {
    Definition {
        name: name.into(),
        description: None,
        priority: Priority::Medium,
        agents: Vec::new(),
        platforms: Vec::new(),
        workflow: vec![StepDefinition {
            step: 1,
            agent: None,
            platform: "worker".parse().unwrap(),
            action: "work".parse().unwrap(),
            title: None,
            inputs: Json::object(),
            dependencies: Vec::new(),
            timeout_ms: 1_000,
            retry: RetryPolicy::default(),
            requires: domain::operation::definition::Requirements::default(),
            when: None,
            continue_on_error: false,
            effect: EffectClass::Idempotent,
        }]
        .into(),
        deadline: None,
        metadata: Json::object(),
        failure_policy: FailurePolicy::FailFast,
        max_parallel: None,
        auto_start: true,
    }
}

pub fn id(number: u32) -> OperationId {
    format!("op_{number:032x}").parse().unwrap()
}

pub async fn core(log: Arc<dyn EventLog>) -> Arc<Core> {
    core_within(log, domain::Limits::default()).await
}

pub async fn core_within(log: Arc<dyn EventLog>, limits: domain::Limits) -> Arc<Core> {
    core_with(log, limits, Periods { idle_ms: 100, ..Periods::default() }).await
}

pub async fn core_with(log: Arc<dyn EventLog>, limits: domain::Limits, periods: Periods) -> Arc<Core> {
    let core = Core::start(CoreOptions {
        log,
        clock: Arc::new(SystemClock::start()),
        limits,
        platforms: ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction)).into(),
        periods,
        weights: domain::agent::selection::Weights::default(),
        thresholds: domain::agent::quarantine::Thresholds::default(),
    });
    core.catch_up().await.unwrap();
    core
}

pub async fn create(core: &Core, number: u32) {
    let command = Command::Create(Box::new(definition("n")));
    let order = Order::<Operation>::of(command, Metadata::of_photon());
    core.gateway.execute_shown(&id(number), order).await.unwrap();
}

pub async fn rename(core: &Core, number: u32, name: &str) -> Result<u64, DispatchError<Operation>> {
    let patch = Patch { name: Some(name.into()), ..Patch::default() };
    let order = Order::<Operation>::of(Command::Update(Box::new(patch)), Metadata::of_photon());
    core.gateway.execute_shown(&id(number), order).await.map(|receipt| receipt.version.get())
}

pub async fn until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "it did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
