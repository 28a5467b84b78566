//! Random lives of operations and agents, as commands and reports that come in any order.

use actors::matching::Appetite;
use domain::agent::Command as AgentCommand;
use domain::agent::event::{Patch as AgentPatch, Status, StatusReason};
use domain::operation::definition::{Definition, FailurePolicy, Priority, StepDefinition};
use domain::operation::event::{LeaseEnd, Patch, StepError};
use domain::operation::{Command, StepWish};
use domain::{AgentId, Json, OperationId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::stage::{agent, operation, profile};

pub const AGENTS: [&str; 3] = ["ada", "bob", "eve"];
const OPERATIONS: u128 = 4;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Move {
    Wait(u64),
    Claim(AgentId, Appetite),
    HangUp(AgentId),
    Answer(bool),
    Say(usize, StepWish),
    Operation(OperationId, Command),
    Agent(AgentId, AgentCommand),
    /// The account of this agent takes no calls for so many milliseconds.
    Park(AgentId, u64),
}

fn agents() -> impl Strategy<Value = AgentId> {
    select(AGENTS.to_vec()).prop_map(agent)
}

fn capabilities() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(vec!["x".to_owned(), "y".to_owned()], 0..=2)
}

fn steps() -> impl Strategy<Value = StepDefinition> {
    let asks = (
        proptest::option::weighted(0.2, agents()),
        capabilities(),
        select(vec!["cut", "glue"]),
        select(vec!["worker", "worker", "worker", "human"]),
    );
    let shape = (any::<u32>(), select(vec![0, 100, 20_000]), 1..4_u32);
    (asks, shape).prop_map(|((agent, capabilities, action, platform), (links, delay_ms, attempts))| {
        let mut step = super::definition("n").workflow[0].clone();
        (step.agent, step.requires.capabilities) = (agent, capabilities);
        (step.action, step.platform) = (action.parse().unwrap(), platform.parse().unwrap());
        (step.retry.initial_delay_ms, step.retry.max_attempts) = (delay_ms, attempts);
        step.dependencies = vec![links];
        step
    })
}

fn definitions() -> impl Strategy<Value = Definition> {
    let settings = (
        select(Priority::ALL.to_vec()),
        vec(agents(), 0..3),
        proptest::option::weighted(0.4, 1..3_u32),
        any::<bool>(),
        proptest::bool::weighted(0.9),
    );
    (vec(steps(), 1..7), settings).prop_map(|(mut workflow, settings)| {
        let (priority, mut agents, max_parallel, fast, auto_start) = settings;
        agents.sort();
        agents.dedup();
        for (index, step) in workflow.iter_mut().enumerate() {
            let links = step.dependencies[0];
            step.step = index as u32 + 1;
            step.dependencies = (1..step.step).filter(|other| links >> (2 * other) & 3 == 3).collect();
            // Whoever is asked for must be on the list.
            step.agent = step.agent.take().filter(|asked| agents.is_empty() || agents.contains(asked));
        }
        let failure_policy = if fast { FailurePolicy::FailFast } else { FailurePolicy::Continue };
        Definition {
            priority,
            agents,
            max_parallel,
            failure_policy,
            auto_start,
            workflow: workflow.into(),
            ..super::definition("n")
        }
    })
}

fn wishes() -> impl Strategy<Value = StepWish> {
    let error = || StepError { code: "flaky".into(), message: "it did not work".into() };
    prop_oneof![
        4 => Just(StepWish::Acknowledge),
        4 => Just(StepWish::Complete { result: Json::object(), usage: None }),
        2 => any::<bool>().prop_map(move |retryable| {
            StepWish::Fail { error: error(), retryable, retry_after_ms: None }
        }),
        2 => Just(StepWish::Release { reason: "busy".into(), hold_ms: None }),
        1 => Just(StepWish::LoseLease { reason: LeaseEnd::LeaseExpired }),
        1 => Just(StepWish::ExpireOffer { reason: LeaseEnd::NoSignOfLife }),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let updated = |patch| Command::Update(Box::new(patch));
    prop_oneof![
        6 => definitions().prop_map(|definition| Command::Create(Box::new(definition))),
        1 => Just(Command::Start),
        1 => Just(Command::Cancel { by: "ops".into() }),
        1 => Just(Command::Pause { by: "ops".into(), reason: None }),
        2 => Just(Command::Resume { by: "ops".into() }),
        2 => select(Priority::ALL.to_vec())
            .prop_map(move |priority| updated(Patch { priority: Some(priority), ..Patch::default() })),
        1 => vec(agents(), 0..2)
            .prop_map(move |agents| updated(Patch { agents: Some(agents), ..Patch::default() })),
    ]
}

fn agent_commands() -> impl Strategy<Value = AgentCommand> {
    let registered = (1..4_u32, capabilities()).prop_map(|(slots, capabilities)| {
        let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        AgentCommand::Register { profile: Box::new(profile(slots, &names)), incarnation: None }
    });
    let learned = capabilities().prop_map(|capabilities| AgentCommand::Update {
        patch: Box::new(AgentPatch { capabilities: Some(capabilities), ..AgentPatch::default() }),
        status: None,
    });
    let status = select(vec![Status::Active, Status::Active, Status::Inactive, Status::Error]);
    prop_oneof![
        4 => registered,
        2 => learned,
        2 => status.prop_map(|status| AgentCommand::SetStatus { status, reason: StatusReason::Updated }),
        1 => Just(AgentCommand::Unregister),
    ]
}

fn appetites() -> impl Strategy<Value = Appetite> {
    let actions = select(vec![None, None, Some("cut"), Some("glue")]);
    (1..4_u32, actions)
        .prop_map(|(max, action)| Appetite::of(max, action.map(|action| vec![action.parse().unwrap()])))
}

pub fn moves() -> impl Strategy<Value = Move> {
    let operations = (1..=OPERATIONS).prop_map(operation);
    prop_oneof![
        3 => select(vec![1, 100, 5_000, 10_000, 30_000]).prop_map(Move::Wait),
        6 => (agents(), appetites()).prop_map(|(agent, appetite)| Move::Claim(agent, appetite)),
        1 => agents().prop_map(Move::HangUp),
        6 => proptest::bool::weighted(0.8).prop_map(Move::Answer),
        8 => (any::<usize>(), wishes()).prop_map(|(choice, wish)| Move::Say(choice, wish)),
        4 => (operations, commands()).prop_map(|(id, command)| Move::Operation(id, command)),
        1 => (agents(), select(vec![20, 200, 30_000])).prop_map(|(agent, ms)| Move::Park(agent, ms)),
        2 => (agents(), agent_commands()).prop_map(|(id, command)| Move::Agent(id, command)),
    ]
}
