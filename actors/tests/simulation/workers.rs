//! Agents: they claim, begin, report, repeat themselves, come late, fall silent, start anew, leave.

use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use actors::aggregate_actor::DispatchError;
use actors::codec::{KeyUse, Metadata};
use actors::dispatch::task::Granted;
use actors::limiting::LimitError;
use actors::matching::Appetite;
use actors::protocol::{Beat, Directive, LeaseBeat};
use actors::settling::Aftermath;
use domain::agent::event::{Config, Patch, Profile, Status};
use domain::agent::{Agent, Command};
use domain::operation::definition::Location;
use domain::operation::event::StepError;
use domain::operation::{Operation, Rejection, StepWish};
use domain::{AgentId, Json, LeaseId, Timestamp};
use events::dice::Dice;
use serde_json::json;

use crate::world::{Shared, arrive, now, put};

pub(crate) const NAMES: [&str; 4] = ["ada", "bob", "eve", "kim"];
/// Leases that an agent remembers after they were over, to speak of them too late.
const REMEMBERED_MAX: usize = 8;

/// Longest wait for the views.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// One agent's process, and the lives before it.
pub(crate) struct Worker {
    pub(crate) id: AgentId,
    pub(crate) profile: Profile,
    pub(crate) hands: Vec<LeaseId>,
    past: Vec<LeaseId>,
    /// Claims that wait for an answer.
    pub(crate) claims: u32,
    /// Until then it says nothing.
    pub(crate) silent_until: Timestamp,
    pub(crate) beat_at: Timestamp,
    /// Counts starts of the process: what was answered to an earlier one is lost.
    pub(crate) process: u64,
}

impl Worker {
    pub(crate) fn all(dice: &mut Dice) -> Vec<Self> {
        NAMES.iter().map(|name| Self::of(name, dice)).collect()
    }

    fn of(name: &str, dice: &mut Dice) -> Self {
        let account = if dice.chance(300) { "shared" } else { name };
        let config = Config {
            max_concurrent_steps: u32::try_from(dice.between(1, 3)).unwrap(),
            heartbeat_interval_ms: dice.pick(&[0, 1_500, 3_000]),
            labels: [("account".to_owned(), account.to_owned())].into(),
            ..Config::default()
        };
        let own = ["x", "y"].iter().filter(|_| name == "ada" || dice.chance(600));
        let profile = Profile {
            name: name.into(),
            model: "m".into(),
            capabilities: own.map(ToString::to_string).collect(),
            location: Location::Local,
            config,
            metadata: Json::object(),
        };
        Self {
            id: name.parse().unwrap(),
            profile,
            hands: Vec::new(),
            past: Vec::new(),
            claims: 0,
            silent_until: Timestamp::default(),
            beat_at: Timestamp::default(),
            process: 0,
        }
    }

    /// The process starts anew and knows nothing.
    pub(crate) fn forget(&mut self) {
        self.process += 1;
        let hands = std::mem::take(&mut self.hands);
        self.past.extend(hands);
        self.past.drain(..self.past.len().saturating_sub(REMEMBERED_MAX));
    }

    fn drop_lease(&mut self, lease: &LeaseId) {
        if self.hands.contains(lease) {
            self.hands.retain(|held| held != lease);
            self.past.push(lease.clone());
            self.past.drain(..self.past.len().saturating_sub(REMEMBERED_MAX));
        }
    }
}

/// Says who it is; again after a start of its process.
pub(crate) async fn register(world: Shared, core: Arc<Core>, at: usize) {
    let (id, profile) = {
        let mut world = world.borrow_mut();
        let worker = &mut world.workers[at];
        worker.forget();
        let of = (worker.id.clone(), Box::new(worker.profile.clone()));
        world.say(|| format!("{} registers", of.0));
        of
    };
    let command = Command::Register { profile, incarnation: None };
    if put::<Agent>(&world, &core, &id, command, false).await.is_ok() {
        let now = now(&core);
        core.presence.heard(&id, None, now, u64::MAX);
        world.borrow_mut().ledger.signs.heard(&id, now);
    }
}

/// What others do to an agent: they drain it, change its slots, let it work again, send it away.
pub(crate) async fn manage(world: Shared, core: Arc<Core>, at: usize) {
    let (id, command) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        let (dice, worker) = (&mut world.dice, &world.workers[at]);
        let slots = u32::try_from(dice.between(1, 4)).unwrap();
        let config = Config { max_concurrent_steps: slots, ..worker.profile.config.clone() };
        let patch = Patch { config: dice.chance(500).then_some(config), ..Patch::default() };
        let status = dice.chance(700).then(|| dice.pick(&[Status::Active, Status::Active, Status::Inactive]));
        let update = Command::Update { patch: Box::new(patch), status };
        let command = if dice.chance(150) { Command::Unregister } else { update };
        (worker.id.clone(), command)
    };
    world.borrow_mut().say(|| format!("{id}: {command:?}"));
    let leaves = matches!(command, Command::Unregister);
    let done = put::<Agent>(&world, &core, &id, command, false).await.is_ok();
    if done && leaves {
        core.presence.forget_agent(&id);
    }
}

/// Notes a sign of life that the server will take as one.
fn heard(world: &Shared, core: &Core, id: &AgentId) {
    if core.projected.views.read().agents.get(id).is_some() {
        world.borrow_mut().ledger.signs.heard(id, now(core));
    }
}

/// Who waits for an answer is not silent: that begins when the answer is given, which the server knows.
fn answered(world: &Shared, core: &Core, id: &AgentId, asked: Timestamp) {
    let seen = core.presence.seen(id).map(|seen| seen.at);
    if let Some(at) = seen.filter(|at| (asked..=now(core)).contains(at)) {
        world.borrow_mut().ledger.signs.heard(id, at);
    }
}

/// Asks for work and waits for it.
pub(crate) async fn claim(world: Shared, core: Arc<Core>, at: usize) {
    let (id, process, appetite, wait_ms, metadata) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        let (dice, worker) = (&mut world.dice, &mut world.workers[at]);
        worker.claims += 1;
        let key = dice.chance(300).then(|| {
            let mut key = [7; 16];
            key[..8].copy_from_slice(&dice.roll().to_le_bytes());
            KeyUse { key, body: [2; 16] }
        });
        let actions = dice.chance(150).then(|| vec!["cut".parse().unwrap()]);
        let appetite = Appetite::of(u32::try_from(dice.between(1, 3)).unwrap(), actions);
        let metadata = Metadata { actor: worker.id.to_string(), key, ..Metadata::default() };
        (worker.id.clone(), worker.process, appetite, dice.pick(&[0, 500, 5_000, 20_000]), metadata)
    };
    arrive(&core).await;
    heard(&world, &core, &id);
    let asked = now(&core);
    let outcome = core.claim(&id, None, appetite.clone(), wait_ms, metadata.clone()).await;
    answered(&world, &core, &id, asked);
    let granted = outcome.unwrap_or_default();
    shown(&world, &core).await;
    take(&world, at, process, &granted);
    if metadata.key.is_some() && !granted.is_empty() {
        arrive(&core).await;
        let asked = now(&core);
        let again = core.claim(&id, None, appetite, 0, metadata).await;
        answered(&world, &core, &id, asked);
        claimed_again(&world, at, process, &granted, again.ok());
    }
    world.borrow_mut().workers[at].claims -= 1;
}

/// Waits, as requests do, until the views show what the answers so far rest on.
async fn shown(world: &Shared, core: &Core) {
    world.borrow_mut().read();
    let head = world.borrow().ledger.position;
    core.projected.reached(head, SHOWN_WITHIN).await;
}

/// The same claim again brings the same leases, as far as they live, and others only if it was not known
/// the first time that they had been granted.
fn claimed_again(world: &Shared, at: usize, process: u64, before: &[Granted], again: Option<Vec<Granted>>) {
    let Some(again) = again else { return };
    let lease = |granted: &Granted| granted.reserved.lease_id.clone();
    let (before, now): (Vec<_>, Vec<_>) =
        (before.iter().map(lease).collect(), again.iter().map(lease).collect());
    let new: Vec<Granted> = again.into_iter().filter(|granted| !before.contains(&lease(granted))).collect();
    take(world, at, process, &new);
    let mut world = world.borrow_mut();
    for lease in before.iter().filter(|lease| !now.contains(lease)) {
        if world.ledger.courses[&lease.operation].holder(lease).is_some() {
            world.faults.push(format!("P2: the claim that led to {lease} leads to {now:?} now"));
        }
    }
}

/// Takes leases into its hands, unless the process that asked is gone.
pub(crate) fn take(world: &Shared, at: usize, process: u64, granted: &[Granted]) {
    let mut guard = world.borrow_mut();
    let world = &mut *guard;
    world.read();
    for granted in granted {
        let lease = &granted.reserved.lease_id;
        world.say(|| format!("{} gets {lease}", granted.reserved.agent));
        let course = world.ledger.courses.get(&lease.operation);
        if course.is_none_or(|course| course.steps[&lease.step].grant < lease.grant) {
            world.faults.push(format!("P1: {lease} was granted and is not in the log"));
        }
        if granted.reserved.agent != world.workers[at].id {
            world
                .faults
                .push(format!("slots: {} is given {lease}, which is another's", world.workers[at].id));
        }
        let worker = &mut world.workers[at];
        if worker.process == process {
            worker.hands.push(lease.clone());
        }
    }
}

fn said(dice: &mut Dice) -> StepWish {
    let error = |code: &str| StepError { code: code.into(), message: "it did not work".into() };
    match dice.below(20) {
        0..=3 => StepWish::Acknowledge,
        4 | 5 => {
            let progress = u8::try_from(dice.below(101)).unwrap();
            StepWish::Progress { progress, note: None, usage: None }
        }
        6 => StepWish::Checkpoint(Json::from(json!({"at": dice.below(5)}))),
        7..=13 => StepWish::Complete { result: Json::from(json!({"n": dice.below(3)})), usage: None },
        14 | 15 => StepWish::Fail { error: error("flaky"), retryable: true, retry_after_ms: None },
        16 => StepWish::Fail { error: error("invalid"), retryable: true, retry_after_ms: None },
        17 => StepWish::Fail { error: error("unknown_outcome"), retryable: true, retry_after_ms: None },
        _ => StepWish::Release { reason: "busy".into(), hold_ms: None },
    }
}

/// Speaks of a lease that it has, or had; now and then twice.
pub(crate) async fn report(world: Shared, core: Arc<Core>, at: usize) {
    let (id, lease, wish, times, limit, more) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        let (dice, worker) = (&mut world.dice, &world.workers[at]);
        let late = worker.hands.is_empty() || dice.chance(80);
        let from = if late { &worker.past } else { &worker.hands };
        if from.is_empty() {
            return;
        }
        let (lease, wish) = (dice.pick(from), said(dice));
        let times = if dice.chance(250) { 2 } else { 1 };
        let limit = dice.chance(25).then(|| dice.between(500, 15_000));
        let max = u32::try_from(dice.between(1, 3)).unwrap();
        let more = dice.chance(400).then_some((worker.process, max));
        let id = worker.id.clone();
        world.say(|| format!("{id} of {lease}: {wish:?} ×{times} limit {limit:?}"));
        (id, lease, wish, times, limit, more)
    };
    for _ in 0..times {
        let metadata = world.borrow_mut().call();
        if let Some(ms) = limit {
            limited(&world, &core, at, &lease, now(&core).plus_ms(ms), metadata).await;
            continue;
        }
        let settled = say(&world, &core, (at, &id), &lease, wish.clone(), metadata).await;
        if let Some(((process, max), after)) = more.zip(settled) {
            claim_more(&world, &core, (at, &id, process), &after, max).await;
        }
    }
}

/// Asks for more with a report that was taken.
async fn claim_more(
    world: &Shared,
    core: &Arc<Core>,
    (at, id, process): (usize, &AgentId, u64),
    after: &Aftermath,
    max: u32,
) {
    let (asked, metadata) = (now(core), Metadata { actor: id.to_string(), ..Metadata::default() });
    let outcome = core.claim_after(after, Appetite::of(max, None), metadata).await;
    answered(world, core, id, asked);
    take(world, at, process, &outcome.unwrap_or_default());
}

/// Any report is a sign of life while the lease is held.
fn renewed(world: &Shared, core: &Core, lease: &LeaseId) {
    if let Some((agent, _)) = core.holder(lease) {
        let (now, mut world) = (now(core), world.borrow_mut());
        world.ledger.signs.renewed(lease, now);
        world.ledger.signs.heard(&agent, now);
    }
}

/// Says something about a step. Tells how the operation stood when it was taken and the attempt is over.
pub(crate) async fn say(
    world: &Shared,
    core: &Arc<Core>,
    (at, _id): (usize, &AgentId),
    lease: &LeaseId,
    wish: StepWish,
    metadata: Metadata,
) -> Option<Aftermath> {
    let (key, ends) = (metadata.key, ends(&wish));
    if !ends || key.is_some() {
        arrive(core).await;
    }
    renewed(world, core, lease);
    let outcome = match ends {
        true => {
            core.settle(lease, wish, metadata).await.map(|settled| (settled.receipt, Some(settled.after)))
        }
        false => core.report(lease, wish, metadata).await.map(|receipt| (receipt, None)),
    };
    let mut world = world.borrow_mut();
    match outcome {
        Ok((receipt, after)) => {
            world.answered::<Operation>(core, &lease.operation, key, &receipt);
            if ends {
                world.workers[at].drop_lease(lease);
            }
            return after;
        }
        Err(DispatchError::Rejected(Rejection::LeaseLost | Rejection::AlreadyTerminal { .. })) => {
            world.workers[at].drop_lease(lease);
        }
        // Not carried out, or perhaps: it will be said again.
        Err(_) => {}
    }
    None
}

fn ends(wish: &StepWish) -> bool {
    matches!(wish, StepWish::Complete { .. } | StepWish::Fail { .. } | StepWish::Release { .. })
}

async fn limited(
    world: &Shared,
    core: &Arc<Core>,
    at: usize,
    lease: &LeaseId,
    until: Timestamp,
    metadata: Metadata,
) {
    let key = metadata.key;
    let error = StepError { code: "rate_limited".into(), message: "later".into() };
    arrive(core).await;
    let outcome = core.report_limit(lease, until, error, true, metadata).await;
    let mut world = world.borrow_mut();
    match outcome {
        Ok(settled) => {
            world.answered::<Operation>(core, &lease.operation, key, &settled.receipt);
            world.workers[at].drop_lease(lease);
        }
        Err(LimitError::Step(DispatchError::Rejected(_))) => world.workers[at].drop_lease(lease),
        Err(_) => {}
    }
}

/// Says that it lives and what it works on.
pub(crate) async fn beat(world: Shared, core: Arc<Core>, at: usize) {
    let (id, beat) = {
        let mut guard = world.borrow_mut();
        let world = &mut *guard;
        let (dice, worker) = (&mut world.dice, &world.workers[at]);
        let leases = worker.hands.iter().map(|lease| LeaseBeat {
            lease: lease.clone(),
            progress: dice.chance(200).then(|| u8::try_from(dice.below(101)).unwrap()),
            note: None,
            checkpoint: None,
        });
        let leases = leases.collect();
        let status = dice.chance(150).then_some(Status::Active);
        (worker.id.clone(), Beat { leases, status, ..Beat::default() })
    };
    core.note_presence(&id, &beat);
    heard(&world, &core, &id);
    arrive(&core).await;
    let (begun, metadata) = (now(&core), Metadata { actor: id.to_string(), ..Metadata::default() });
    let Ok(pulse) = core.heartbeat(&id, beat, &metadata).await else { return };
    let mut world = world.borrow_mut();
    for renewed in &pulse.renewed {
        world.ledger.signs.renewed(&renewed.lease, begun);
    }
    for directive in &pulse.directives {
        if let Directive::Cancel(lease) | Directive::Lost(lease) = directive {
            world.workers[at].drop_lease(lease);
        }
    }
}
