//! What people and programs ask of operations: random workflows and random wishes.

use std::sync::Arc;

use actors::Core;
use actors::aggregate_actor::DispatchError;
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Priority, Requirements, StepDefinition,
};
use domain::operation::event::Patch;
use domain::operation::retry::RetryPolicy;
use domain::operation::{Command, Intervention, Operation};
use domain::{AgentId, Json, OperationId, Timestamp};
use events::dice::Dice;
use serde_json::json;

use crate::folds::same_operation;
use crate::workers::NAMES;
use crate::world::{Shared, now, put};

/// Operations under way at once; more are not asked for.
pub(crate) const OPEN_MAX: usize = 6;

fn agents(dice: &mut Dice) -> Vec<AgentId> {
    NAMES.iter().filter(|_| dice.chance(600)).map(|name| name.parse().unwrap()).collect()
}

/// How steps hang together.
fn dependencies(dice: &mut Dice, shape: u64, number: u32) -> Vec<u32> {
    match (shape, number) {
        (_, 1) => Vec::new(),
        (0, _) => vec![number - 1],
        (1, _) => vec![1],
        (2, _) => Vec::new(),
        _ => (1..number).filter(|_| dice.chance(350)).collect(),
    }
}

fn step(dice: &mut Dice, number: u32, dependencies: Vec<u32>, agents: &[AgentId]) -> StepDefinition {
    let human = dice.chance(80);
    let before = dependencies.last().copied();
    let when = before.filter(|_| dice.chance(200)).map(|before| match dice.below(3) {
        0 => format!("steps[{before}].status == 'completed'"),
        1 => format!("steps[{before}].result is none"),
        _ => "1 == 2".to_owned(),
    });
    let inputs = match before.filter(|_| dice.chance(200)) {
        Some(before) => json!({"before": {"$expr": format!("steps[{before}].status")}}),
        None => json!({"number": number}),
    };
    let everybody = NAMES.map(|name| name.parse::<AgentId>().unwrap());
    let among = if agents.is_empty() { &everybody[..] } else { agents };
    let agent = (!human && dice.chance(150)).then(|| dice.pick(among));
    let capabilities = ["x", "y"].iter().filter(|_| dice.chance(250)).map(ToString::to_string).collect();
    StepDefinition {
        step: number,
        agent,
        platform: if human { "human" } else { "worker" }.parse().unwrap(),
        action: if human { "approve" } else { dice.pick(&["cut", "glue"]) }.parse().unwrap(),
        title: number.is_multiple_of(3).then(|| format!("number {number} of {{{{ operation.name }}}}")),
        inputs: Json::from(inputs),
        dependencies,
        timeout_ms: dice.between(2_000, 40_000),
        retry: RetryPolicy {
            max_attempts: u32::try_from(dice.between(1, 4)).unwrap(),
            initial_delay_ms: dice.pick(&[0, 10, 700, 4_000]),
            max_delay_ms: 10_000,
            ..RetryPolicy::default()
        },
        requires: Requirements { capabilities, ..Requirements::default() },
        when,
        continue_on_error: dice.chance(200),
        effect: dice.pick(&[EffectClass::Read, EffectClass::Idempotent, EffectClass::Write]),
    }
}

fn definition(dice: &mut Dice, now: Timestamp) -> Definition {
    let listed = if dice.chance(300) { agents(dice) } else { Vec::new() };
    let (shape, steps) = (dice.below(5), u32::try_from(dice.between(1, 8)).unwrap());
    let workflow: Vec<StepDefinition> = (1..=steps)
        .map(|number| {
            let dependencies = dependencies(dice, shape, number);
            step(dice, number, dependencies, &listed)
        })
        .collect();
    Definition {
        name: "simulated".into(),
        description: None,
        priority: dice.pick(&Priority::ALL),
        agents: listed,
        platforms: Vec::new(),
        workflow: workflow.into(),
        deadline: dice.chance(250).then(|| now.plus_ms(dice.between(2_000, 200_000))),
        metadata: Json::object(),
        failure_policy: if dice.chance(500) { FailurePolicy::FailFast } else { FailurePolicy::Continue },
        max_parallel: dice.chance(350).then(|| u32::try_from(dice.between(1, 3)).unwrap()),
        auto_start: dice.chance(900),
    }
}

/// Asks for an operation: for a new one, or again for one that was asked for already.
pub(crate) async fn create(world: Shared, core: Arc<Core>) {
    let (id, definition, new) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        let again = !world.asked.is_empty() && world.dice.chance(150);
        let (id, new) = if again {
            let at = world.dice.index(world.asked.len());
            (world.asked.keys().nth(at).unwrap().clone(), false)
        } else {
            (OperationId::from_bits(u128::from(world.dice.roll())), world.dice.chance(500))
        };
        let now = now(&core);
        let definition = match world.asked.get(&id) {
            Some(definition) => definition.clone(),
            None => definition(&mut world.dice, now),
        };
        world.asked.insert(id.clone(), definition.clone());
        world.say(|| format!("create {id} again {again}"));
        (id, definition, new)
    };
    let existed = world.borrow().ledger.courses.contains_key(&id);
    let outcome = put::<Operation>(&world, &core, &id, Command::Create(Box::new(definition)), new).await;
    let mut world = world.borrow_mut();
    match outcome {
        Ok(receipt) if existed && !receipt.events.is_empty() => {
            world.faults.push(format!("P2: {id} was created and is created again"));
        }
        Err(DispatchError::Rejected(domain::operation::Rejection::Taken)) => {
            world.faults.push(format!("P2: {id} is said to be another operation"));
        }
        _ => {}
    }
}

fn word(dice: &mut Dice) -> Intervention {
    match dice.below(10) {
        0..=3 => Intervention::Approve,
        4 => Intervention::Reject,
        5 | 6 => Intervention::Retry,
        7 => Intervention::Skip,
        8 => Intervention::Complete(Json::from(json!({"by": "hand"}))),
        _ => Intervention::Fail,
    }
}

fn patch(dice: &mut Dice, now: Timestamp) -> Patch {
    let mut patch = Patch::default();
    match dice.below(4) {
        0 => patch.priority = Some(dice.pick(&Priority::ALL)),
        1 => patch.name = Some(format!("renamed {}", dice.below(100))),
        2 => patch.deadline = Some(dice.chance(700).then(|| now.plus_ms(dice.between(1_000, 120_000)))),
        _ => patch.agents = Some(agents(dice)),
    }
    patch
}

/// Anything that may be asked of an operation under way.
fn wish(world: &Shared, core: &Core, id: &OperationId) -> Command {
    let mut guard = world.borrow_mut();
    let world = &mut *guard;
    let (by, dice) = ("ops".to_owned(), &mut world.dice);
    let course = &world.ledger.courses[id];
    match dice.below(20) {
        0..=2 => Command::Pause { by, reason: None },
        3..=7 if course.paused => Command::Resume { by },
        3..=5 => Command::Update(Box::new(patch(dice, now(core)))),
        6 => Command::Cancel { by },
        7 => Command::Start,
        _ => {
            // Those that wait for a person come first.
            let asks = course.steps.iter().filter(|(_, step)| step.answer_by.is_some() || step.attention);
            let asks: Vec<u32> = asks.map(|(number, _)| *number).collect();
            let all: Vec<u32> = course.steps.keys().copied().collect();
            let step = if asks.is_empty() { dice.pick(&all) } else { dice.pick(&asks) };
            Command::Intervene { step, by, reason: None, intervention: word(dice) }
        }
    }
}

/// Puts a wish to an operation under way, now and then twice at once.
pub(crate) async fn steer(world: Shared, core: Arc<Core>) {
    let open = world.borrow().open();
    if open.is_empty() {
        return;
    }
    let id = world.borrow_mut().dice.pick(&open);
    let command = wish(&world, &core, &id);
    world.borrow_mut().say(|| format!("{id}: {command:?}"));
    command_and_compare(&world, &core, &id, command).await;
}

/// The state that an answer shows is the fold of the log at its version (P4).
pub(crate) async fn command_and_compare(
    world: &Shared,
    core: &Arc<Core>,
    id: &OperationId,
    command: Command,
) {
    let Ok(receipt) = put::<Operation>(world, core, id, command, false).await else { return };
    let mut guard = world.borrow_mut();
    let world = &mut *guard;
    world.read();
    if let (Some(fold), Some(state)) = (world.ledger.operations.get(id), &receipt.state)
        && fold.version == receipt.version.get()
    {
        same_operation(state, &fold.state, &format!("the answer of {id}"), &mut world.faults);
    }
}
