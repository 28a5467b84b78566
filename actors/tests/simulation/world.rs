//! What outlives the crashes of the server: the durable log, who uses it, what they were told, and what was
//! found. Shared by everything that happens on the one thread of a simulation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actors::Core;
use actors::aggregate_actor::{DispatchError, Receipt};
use actors::codec::{KeyUse, Metadata};
use actors::effects::Periods;
use actors::gateway::{Housed, Order, stream_of};
use domain::agent::quarantine::Thresholds;
use domain::operation::definition::Definition;
use domain::{OperationId, Timestamp};
use events::dice::Dice;
use events::{Position, StreamId};

use crate::course::Faults;
use crate::ledger::Ledger;
use crate::storage::{Durable, Weather};
use crate::workers::Worker;

pub(crate) type Shared = Rc<RefCell<World>>;

/// Durations of the simulated server.
pub(crate) const PERIODS: Periods = Periods {
    lease_ms: 12_000,
    offer_ms: 4_000,
    grace_ms: 5_000,
    sample_ms: 15_000,
    idle_ms: 3_000,
    starvation_ms: 20_000,
    views_wait_ms: 2_000,
    retry_elsewhere_ms: 5_000,
};

/// When an agent is quarantined.
pub(crate) const THRESHOLDS: Thresholds = Thresholds { losses: 3, untaken: 5, failures: 5 };

/// When the first server is born; late enough that a clock can be a day behind.
const BEGINNING_US: i64 = 1_700_000_000_000_000;
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 400;

/// How rough this seed is: each disturbance may also be absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roughness {
    pub(crate) weather: Weather,
    /// Per mille of the steps.
    pub(crate) crash: u64,
    pub(crate) panic: u64,
    pub(crate) stall: u64,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) rough: Roughness,
    pub(crate) durable: Durable,
    pub(crate) ledger: Ledger,
    pub(crate) workers: Vec<Worker>,
    /// Every operation that was asked for, with its definition.
    pub(crate) asked: BTreeMap<OperationId, Definition>,
    /// Keys under which something was done, and where its answer lies.
    keys: BTreeMap<[u8; 16], (StreamId, u64)>,
    /// How far each reader of the log has come.
    pub(crate) seen: [Position; 2],
    /// When the last life of the server ended.
    pub(crate) died_at: Timestamp,
    pub(crate) step: usize,
    pub(crate) lives: u64,
    calls: u64,
    pub(crate) answers: u64,
    pub(crate) trace: Vec<String>,
    pub(crate) faults: Faults,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let rough = Roughness::of(&mut dice);
        let durable = Durable::default();
        Self {
            ledger: Ledger::new(durable.clone(), PERIODS, rough.crossing_ms()),
            workers: Worker::all(&mut dice),
            dice,
            rough,
            durable,
            asked: BTreeMap::new(),
            keys: BTreeMap::new(),
            seen: [Position::START; 2],
            died_at: Timestamp::from_micros(BEGINNING_US),
            step: 0,
            lives: 0,
            calls: 0,
            answers: 0,
            trace: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        let line = format!("[{}] {}", self.step, what());
        self.trace.push(line);
        if self.trace.len() > TRACE_MAX {
            self.trace.drain(..TRACE_MAX / 2);
        }
    }

    /// Takes what has become durable.
    pub(crate) fn read(&mut self) {
        self.ledger.read(&mut self.trace, &mut self.faults);
        if self.trace.len() > TRACE_MAX {
            self.trace.drain(..TRACE_MAX / 2);
        }
    }

    /// Metadata of one request of a client, by which its events are found.
    pub(crate) fn call(&mut self) -> Metadata {
        self.calls += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.calls.to_le_bytes());
        let key = self.dice.chance(500).then_some(KeyUse { key, body: [1; 16] });
        let correlation_id = Some(format!("call {}", self.calls));
        Metadata { actor: "client".into(), correlation_id, key, ..Metadata::default() }
    }

    /// Holds an answer against the log and the views.
    pub(crate) fn answered<A: Housed>(
        &mut self,
        core: &Core,
        id: &A::Id,
        key: Option<KeyUse>,
        receipt: &Receipt<A>,
    ) {
        self.answers += 1;
        self.ledger.answered::<A>(id, receipt, &mut self.faults);
        if receipt.position.is_some_and(|position| core.projected.answered() < position) {
            self.faults.push(format!("P6: no later request waits for what {id} was told"));
        }
        if let Some(key) = key.filter(|_| !receipt.events.is_empty()) {
            let at = (stream_of::<A>(id), receipt.version.get());
            self.keys.insert(key.key, at);
            if receipt.position.is_none_or(|position| core.projected.position() >= position) {
                self.check_key(core, &key.key);
            }
        }
    }

    /// The same key leads to the same answer (P2).
    fn check_key(&mut self, core: &Core, key: &[u8; 16]) {
        let (stream, version) = &self.keys[key];
        let keys = core.projected.keys.lock();
        let used = keys.get(key, core.around.clock.now()).map(|used| (&used.stream, used.version));
        // The key of a creation is found by the operation's id.
        let creates = *version <= 2 && used.is_none() && stream.category() == "operation";
        if used != Some((stream, *version)) && !creates {
            self.faults.push(format!("P2: a key led to {stream} at {version} and now to {used:?}"));
        }
    }

    /// All keys after a restart.
    pub(crate) fn check_keys(&mut self, core: &Core) {
        let keys: Vec<[u8; 16]> = self.keys.keys().copied().collect();
        for key in keys {
            self.check_key(core, &key);
        }
    }

    /// Operations that were created and have not ended, by the log.
    pub(crate) fn open(&self) -> Vec<OperationId> {
        let open = self.ledger.courses.values().filter(|course| course.end.is_none());
        open.map(|course| course.id.clone()).collect()
    }
}

impl Roughness {
    fn of(dice: &mut Dice) -> Self {
        let mut some = |most: u64| if dice.chance(500) { dice.below(most + 1) } else { 0 };
        let small = |number: u64| u32::try_from(number).unwrap();
        let weather = Weather {
            odds: events::faulty_log::Odds {
                lost_answer: small(some(40)),
                lost_append: small(some(40)),
                overloaded: small(some(60)),
                late_answer: small(some(100)),
                delay_max_ms: 1 + some(400),
            },
            slow: some(400),
            slow_max_ms: 1 + some(60),
            hang: some(3),
            hang_ms: 3_000 + some(12_000),
            conflict: some(20),
        };
        Self { weather, crash: some(8), panic: some(10), stall: some(6) }
    }

    /// How long a command may be under way: what its answer rests on may have changed since.
    fn crossing_ms(&self) -> u64 {
        if self.weather.hang > 0 { 2 * self.weather.hang_ms } else { 2_500 }
    }

    /// Nothing disturbs any more.
    pub(crate) fn calm() -> Self {
        Self { weather: Weather::default(), crash: 0, panic: 0, stall: 0 }
    }
}

/// Puts a command of a client, and holds its answer against the log.
pub(crate) async fn put<A: Housed>(
    world: &Shared,
    core: &Arc<Core>,
    id: &A::Id,
    command: A::Command,
    new: bool,
) -> Result<Receipt<A>, DispatchError<A>> {
    let metadata = world.borrow_mut().call();
    let key = metadata.key;
    let order = Order::<A> { new, ..Order::of(command, metadata).with_state() };
    // One without a key is not repeated, and need not see what others were told.
    if key.is_some() {
        arrive(core).await;
    }
    let outcome = core.gateway.execute::<A>(id, order).await;
    if let Ok(receipt) = &outcome {
        world.borrow_mut().answered(core, id, key, receipt);
    }
    outcome
}

/// Waits for the views as a request does that looks at them. One that is then refused is not sent: the next
/// one waits again.
pub(crate) async fn arrive(core: &Core) {
    let answered = core.projected.answered();
    while !core.projected.shows(answered).await && core.projected.fault().borrow().is_none() {}
}

/// Now, by the server's clock.
pub(crate) fn now(core: &Core) -> Timestamp {
    core.around.clock.now()
}
