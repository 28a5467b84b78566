//! One life of the server after the other: each begins on what the one before left durable and ends by a
//! crash, which drops every actor and every task wherever it stands. All of it on one thread, in tokio's
//! paused time.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::System;
use actors::clock::Clock;
use actors::{Core, CoreOptions};
use domain::agent::selection::Weights;
use domain::{Limits, PlatformRule, Timestamp};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use crate::clock::SimulatedClock;
use crate::folds::{check_agent, check_reader, check_recovery, check_row};
use crate::follower::follow;
use crate::storage::Storage;
use crate::world::{PERIODS, Roughness, Shared, THRESHOLDS, now};
use crate::{clients, quiet, workers};

/// Steps between two looks for what is late.
const LATE_STEPS: usize = 32;
/// Looks at everything that is ready within one moment; most moments need a few dozen.
const POLLS_MAX: u32 = 2_000;

/// Lets a server live until it crashes, or until so many steps are done.
pub(crate) fn live_once(world: &Shared, steps: usize) {
    in_a_life(world, |world, core| async move {
        while world.borrow().step < steps {
            if step(&world, &core).await {
                break;
            }
        }
    });
}

/// Lets a server live without any disturbance until all has ended.
pub(crate) fn end_well(world: &Shared) {
    world.borrow_mut().rough = Roughness::calm();
    in_a_life(world, |world, core| async move { quiet::wind_up(&world, &core).await });
}

fn in_a_life<F: Future<Output = ()>>(world: &Shared, living: impl FnOnce(Shared, Arc<Core>) -> F) {
    let runner = System::with_tokio_rt(|| {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    });
    let shared = Rc::clone(world);
    let living = async move {
        let core = be_born(&shared).await;
        living(Rc::clone(&shared), Arc::clone(&core)).await;
        let mut world = shared.borrow_mut();
        world.died_at = now(&core);
        world.say(|| format!("the server ends at {}", now(&core)));
        // A crash is no series of deaths.
        core.supervisor.stop();
    };
    if !runner.block_on(ends(living)) {
        world.borrow_mut().faults.push("liveness: the server works without end and no time passes".into());
    }
    drop(runner);
    world.borrow_mut().read();
}

/// Says whether it ends: false once so much was done that no time can pass any more.
async fn ends(living: impl Future<Output = ()>) -> bool {
    let (mut living, mut moment, mut polls) = (std::pin::pin!(living), Instant::now(), 0);
    poll_fn(|context| {
        polls = if Instant::now() == moment { polls + 1 } else { 0 };
        moment = Instant::now();
        if polls > POLLS_MAX { Poll::Ready(false) } else { living.as_mut().poll(context).map(|()| true) }
    })
    .await
}

async fn be_born(world: &Shared) -> Arc<Core> {
    let (clock, log) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        world.lives += 1;
        world.workers.iter_mut().for_each(|worker| worker.claims = 0);
        // The wall clock of the next machine may be behind, even behind the log.
        let base = match world.dice.below(4) {
            0 => Timestamp::from_micros(world.died_at.as_micros() - 86_400_000_000),
            1 => world.died_at,
            _ => world.died_at.plus_ms(world.dice.below(20_000)),
        };
        let (seed, weather) = (world.dice.roll(), world.rough.weather);
        let storage = Storage::new(world.durable.clone(), seed, weather);
        (Arc::new(SimulatedClock::start(base)), Arc::new(storage))
    };
    let core = Core::start_here(CoreOptions {
        log,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        limits: Limits { release_hold_ms: 3_000, ..Limits::default() },
        platforms: ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction)).into(),
        periods: PERIODS,
        weights: Weights::default(),
        thresholds: THRESHOLDS,
    });
    core.catch_up().await.unwrap();
    let mut guard = world.borrow_mut();
    guard.read();
    guard.ledger.signs.restarted(clock.now());
    guard.check_keys(&core);
    guard.say(|| format!("the server lives at {}", clock.now()));
    drop(guard);
    follow(world, &core);
    core
}

/// Does one thing, lets some time pass, and checks. True when the server crashes.
async fn step(world: &Shared, core: &Arc<Core>) -> bool {
    world.borrow_mut().step += 1;
    beat(world, core);
    act(world, core).await;
    let (crashes, yields, ms) = {
        let mut world = world.borrow_mut();
        let crash = world.rough.crash;
        let dice = &mut world.dice;
        let ms = match dice.below(100) {
            0..=49 => 0,
            50..=91 => dice.between(1, 150),
            _ => dice.between(150, 3_000),
        };
        (dice.chance(crash), dice.between(1, 30), ms)
    };
    for _ in 0..yields {
        yield_now().await;
    }
    if ms > 0 && !crashes {
        sleep(Duration::from_millis(ms)).await;
    }
    check(world, core).await;
    crashes || !world.borrow().faults.is_empty()
}

/// Heartbeats come by themselves.
pub(crate) fn beat(world: &Shared, core: &Arc<Core>) {
    let now = now(core);
    for at in 0..workers::NAMES.len() {
        let due = {
            let worker = &mut world.borrow_mut().workers[at];
            let interval = worker.profile.config.heartbeat_interval_ms;
            let due = interval > 0 && worker.beat_at <= now && worker.silent_until <= now;
            if due {
                worker.beat_at = now.plus_ms(interval);
            }
            due
        };
        if due {
            actix::spawn(workers::beat(Rc::clone(world), Arc::clone(core), at));
        }
    }
}

async fn act(world: &Shared, core: &Arc<Core>) {
    let (panics, stalls, which, at) = {
        let mut world = world.borrow_mut();
        let Roughness { panic, stall, .. } = world.rough;
        let dice = &mut world.dice;
        (dice.chance(panic), dice.chance(stall), dice.below(1_000), dice.index(workers::NAMES.len()))
    };
    if panics {
        sabotage(world, core);
    }
    if stalls {
        stand_still(world, core).await;
    }
    let (shared, core) = (Rc::clone(world), Arc::clone(core));
    let (open, silent, claims) = {
        let world = world.borrow();
        let worker = &world.workers[at];
        (world.open().len(), worker.silent_until > now(&core), worker.claims)
    };
    match which {
        0..120 if open < clients::OPEN_MAX => _ = actix::spawn(clients::create(shared, core)),
        0..270 => _ = actix::spawn(clients::steer(shared, core)),
        270..290 => _ = actix::spawn(workers::register(shared, core, at)),
        290..305 => _ = actix::spawn(workers::manage(shared, core, at)),
        305..315 => {
            let mut world = world.borrow_mut();
            let until = now(&core).plus_ms(world.dice.between(3_000, 40_000));
            world.workers[at].silent_until = until;
            world.say(|| format!("{} is silent until {until}", workers::NAMES[at]));
        }
        _ if silent => {}
        315..560 if claims < 2 => _ = actix::spawn(workers::claim(shared, core, at)),
        _ => _ = actix::spawn(workers::report(shared, core, at)),
    }
}

fn sabotage(world: &Shared, core: &Arc<Core>) {
    let mut world = world.borrow_mut();
    let open = world.open();
    if !open.is_empty() {
        let id = world.dice.pick(&open);
        world.say(|| format!("the actor of {id} panics"));
        core.gateway.sabotage(&id);
    }
}

/// The whole process is not run for a while; then everything is late.
async fn stand_still(world: &Shared, core: &Arc<Core>) {
    let ms = {
        let (from, mut world) = (now(core), world.borrow_mut());
        let ms = world.dice.pick(&[300, 2_500, 9_000, 60_000]);
        world.say(|| format!("the server stands still for {ms} ms"));
        world.ledger.signs.stalled(from, from.plus_ms(ms));
        ms
    };
    advance(Duration::from_millis(ms)).await;
}

/// Holds everything that can be seen at this moment against the log.
#[expect(clippy::await_holding_refcell_ref, reason = "a read of the memory log is never pending")]
pub(crate) async fn check(world: &Shared, core: &Arc<Core>) {
    let mut guard = world.borrow_mut();
    let world = &mut *guard;
    world.read();
    if let Some(fault) = core.projected.fault().borrow().as_ref() {
        world.faults.push(format!("the core cannot go on: {fault}"));
    }
    if core.projected.position() == world.ledger.position {
        for id in std::mem::take(&mut world.ledger.touched) {
            let fold = &world.ledger.operations[&id];
            check_row(core, &id, &fold.state, fold.version, &mut world.faults);
            if world.dice.chance(60) {
                check_reader(core, &id, &fold.state, &mut world.faults).await;
            }
            if world.dice.chance(15) {
                check_recovery(&world.durable, &id, &fold.state, &mut world.faults).await;
            }
        }
        for id in std::mem::take(&mut world.ledger.touched_agents) {
            let fold = &world.ledger.agents[&id];
            check_agent(core, &id, &fold.state, fold.version, &mut world.faults);
        }
    }
    if world.step.is_multiple_of(LATE_STEPS) {
        let quarantined = core.supervisor.quarantined();
        world.ledger.nothing_is_late(now(core), &quarantined, &mut world.faults);
    }
}
