//! The end of every simulation: nothing disturbs any more and everybody means well. Then every operation
//! ends, every slot is free, and nothing waits without a cause.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use actors::codec::Metadata;
use actors::matching::Appetite;
use domain::agent::event::{Patch, Status};
use domain::agent::{Agent, Command as AgentCommand};
use domain::operation::{Command, Intervention, Operation, StepWish};
use domain::{Json, OperationId, Timestamp};
use tokio::time::sleep;

use crate::course::Course;
use crate::folds::{check_reader, check_recovery};
use crate::follower::all_seen;
use crate::life::{beat, check};
use crate::workers::{self, NAMES};
use crate::world::{Shared, World, arrive, now, put};

/// Nothing may take longer when all mean well: the longest wait of the workflows, several times.
const PATIENCE_MS: u64 = 900_000;

pub(crate) async fn wind_up(world: &Shared, core: &Arc<Core>) {
    if !world.borrow().faults.is_empty() {
        return;
    }
    for at in 0..NAMES.len() {
        {
            // Nobody else could do what asks for one agent and for what that agent cannot do.
            let worker = &mut world.borrow_mut().workers[at];
            worker.silent_until = Timestamp::default();
            worker.profile.capabilities = vec!["x".into(), "y".into()];
        }
        workers::register(Rc::clone(world), Arc::clone(core), at).await;
        let id = world.borrow().workers[at].id.clone();
        let patch = Box::new(Patch::default());
        let command = AgentCommand::Update { patch, status: Some(Status::Active) };
        let _ = put::<Agent>(world, core, &id, command, false).await;
    }
    let until = now(core).plus_ms(PATIENCE_MS);
    while world.borrow().faults.is_empty() && !is_over(&world.borrow()) {
        if now(core) > until {
            let mut world = world.borrow_mut();
            let left = left(&world, core);
            return world.faults.push(format!("liveness: this has not ended: {left}"));
        }
        answer_for_people(world, core).await;
        for at in 0..NAMES.len() {
            work(world, core, at).await;
        }
        beat(world, core);
        sleep(Duration::from_millis(250)).await;
        world.borrow_mut().step += 1;
        check(world, core).await;
    }
    check_everything(world, core).await;
}

/// Every operation has ended, every slot is free, every reader has seen it.
fn is_over(world: &World) -> bool {
    world.open().is_empty()
        && world.ledger.courses.values().all(|course| course.slots().next().is_none())
        && all_seen(&world.seen, world.ledger.position)
}

fn left(world: &World, core: &Core) -> String {
    let views = core.projected.views.read();
    let now = core.around.clock.now();
    let causes = |id: &OperationId| views.operations.get(id).map(|row| row.causes(now));
    let open: Vec<_> = world.open().into_iter().map(|id| format!("{id} {:?}", causes(&id))).collect();
    let taken: Vec<_> = world.ledger.courses.values().flat_map(Course::slots).collect();
    format!("operations {open:?}, slots {taken:?}, readers at {:?}", world.seen)
}

async fn answer_for_people(world: &Shared, core: &Arc<Core>) {
    let by = || "ops".to_owned();
    let open = world.borrow().open();
    for id in open {
        let commands: Vec<Command> = {
            let world = world.borrow();
            let course = &world.ledger.courses[&id];
            let say =
                |step: u32, intervention| Command::Intervene { step, by: by(), reason: None, intervention };
            let words = course.steps.iter().filter_map(|(number, step)| {
                let done = || Intervention::Complete(Json::object());
                let approves = step.answer_by.map(|_| say(*number, Intervention::Approve));
                approves.or_else(|| step.attention.then(|| say(*number, done())))
            });
            let start = (!course.started).then_some(Command::Start);
            let resume = course.paused.then(|| Command::Resume { by: by() });
            words.chain(start).chain(resume).collect()
        };
        for command in commands {
            let _ = put::<Operation>(world, core, &id, command, false).await;
        }
    }
}

/// Finishes what it has and asks for more.
async fn work(world: &Shared, core: &Arc<Core>, at: usize) {
    let (id, hands) = {
        let worker = &world.borrow().workers[at];
        (worker.id.clone(), worker.hands.clone())
    };
    let wishes = [StepWish::Acknowledge, StepWish::Complete { result: Json::object(), usage: None }];
    for lease in hands {
        for wish in wishes.clone() {
            let metadata = world.borrow_mut().call();
            workers::say(world, core, (at, &id), &lease, wish, metadata).await;
        }
    }
    arrive(core).await;
    let asks = core.claim(&id, None, Appetite::of(3, None), 0, Metadata::default()).await;
    let process = world.borrow().workers[at].process;
    workers::take(world, at, process, &asks.unwrap_or_default());
}

#[expect(clippy::await_holding_refcell_ref, reason = "a read of the memory log is never pending")]
async fn check_everything(world: &Shared, core: &Arc<Core>) {
    let mut guard = world.borrow_mut();
    let world = &mut *guard;
    world.check_keys(core);
    for (id, fold) in &world.ledger.operations {
        if world.dice.chance(100) {
            check_reader(core, id, &fold.state, &mut world.faults).await;
            check_recovery(&world.durable, id, &fold.state, &mut world.faults).await;
        }
    }
}
