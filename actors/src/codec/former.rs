//! Bodies as earlier versions of Photon wrote them, and what they are today. Written no more, read for
//! ever: nothing here may change but what it is turned into.

use std::sync::Arc;

use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Priority, Requirements, StepDefinition,
};
use domain::operation::event::StepCompleted;
use domain::operation::retry::RetryPolicy;
use domain::{ActionName, AgentId, Json, PlatformName, Timestamp, operation, system};
use serde::Deserialize;

use super::{CodecError, from_bytes};

/// Schema 1 was the bare name of the stream. The name itself never held anything but ASCII.
pub(super) fn quarantined_1(body: &[u8]) -> Result<system::Event, CodecError> {
    let stream = String::from_utf8_lossy(body).into_owned();
    Ok(system::Event::Quarantined(system::Quarantined { stream }))
}

/// A step before it said what it does to the world.
#[derive(Deserialize)]
struct Step1 {
    step: u32,
    agent: Option<AgentId>,
    platform: PlatformName,
    action: ActionName,
    inputs: Json,
    dependencies: Vec<u32>,
    timeout_ms: u64,
    retry: RetryPolicy,
    requires: Requirements,
    when: Option<String>,
    continue_on_error: bool,
}

#[derive(Deserialize)]
struct Definition1 {
    name: String,
    description: Option<String>,
    priority: Priority,
    agents: Vec<AgentId>,
    platforms: Vec<PlatformName>,
    workflow: Vec<Step1>,
    deadline: Option<Timestamp>,
    metadata: Json,
    failure_policy: FailurePolicy,
    max_parallel: Option<u32>,
    auto_start: bool,
}

impl From<Step1> for StepDefinition {
    fn from(former: Step1) -> Self {
        Self {
            step: former.step,
            agent: former.agent,
            platform: former.platform,
            action: former.action,
            title: None,
            inputs: former.inputs,
            dependencies: former.dependencies,
            timeout_ms: former.timeout_ms,
            retry: former.retry,
            requires: former.requires,
            when: former.when,
            continue_on_error: former.continue_on_error,
            effect: EffectClass::Idempotent,
        }
    }
}

pub(super) fn created_1(body: &[u8]) -> Result<operation::Event, CodecError> {
    let former: Definition1 = from_bytes("operation.created", 1, body)?;
    let workflow: Arc<[StepDefinition]> = former.workflow.into_iter().map(StepDefinition::from).collect();
    Ok(operation::Event::Created(Box::new(Definition {
        name: former.name,
        description: former.description,
        priority: former.priority,
        agents: former.agents,
        platforms: former.platforms,
        workflow,
        deadline: former.deadline,
        metadata: former.metadata,
        failure_policy: former.failure_policy,
        max_parallel: former.max_parallel,
        auto_start: former.auto_start,
    })))
}

/// A completion when only agents could complete a step.
#[derive(Deserialize)]
struct StepCompleted1 {
    step: u32,
    grant: u64,
    attempt: u32,
    agent: AgentId,
    result: Json,
    usage: Option<Json>,
    duration_ms: u64,
}

pub(super) fn step_completed_1(body: &[u8]) -> Result<operation::Event, CodecError> {
    let former: StepCompleted1 = from_bytes("step.completed", 1, body)?;
    Ok(operation::Event::StepCompleted(StepCompleted {
        step: former.step,
        grant: former.grant,
        attempt: former.attempt,
        agent: Some(former.agent),
        result: former.result,
        usage: former.usage,
        duration_ms: former.duration_ms,
    }))
}
