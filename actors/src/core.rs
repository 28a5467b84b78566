//! Photon's core as one value: what routes and tests talk to. Builds the shell around a log, and says
//! when it has caught up with it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use actix::prelude::{Actor, Addr, Arbiter, ArbiterHandle};
use domain::agent::quarantine::Thresholds;
use domain::agent::selection::Weights;
use domain::{Limits, PlatformName, PlatformRule, World};
use events::{EventLog, Position, ReadError};
use parking_lot::Mutex;
use thiserror::Error;

use crate::aggregate_actor::Surroundings;
use crate::clock::Clock;
use crate::dispatch::Settings;
use crate::dispatch::actor::{Dispatcher, Drain, Shell};
use crate::effects::Periods;
use crate::gateway::Gateway;
use crate::keeper::Keeper;
use crate::past::Pasts;
use crate::presence::Presence;
use crate::projections::{Fault, Projected, Projections};
use crate::reader::Reader;
use crate::standing::Standing;
use crate::supervisor::{Supervisor, Vital};
use crate::system::SystemJournal;

/// What a core is built from.
pub struct CoreOptions {
    /// Where facts go.
    pub log: Arc<dyn EventLog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Maxima.
    pub limits: Limits,
    /// Platforms that are available.
    pub platforms: BTreeMap<PlatformName, PlatformRule>,
    /// Durations.
    pub periods: Periods,
    /// Weights of the selection.
    pub weights: Weights,
    /// When an agent is quarantined.
    pub thresholds: Thresholds,
}

/// What a core begins with instead of an empty memory.
#[derive(Default)]
pub struct Start {
    /// What was folded before.
    pub standing: Standing,
    /// Where snapshots are; without it there are none.
    pub keeper: Option<Arc<Keeper>>,
}

/// Why a core does not come up.
#[derive(Debug, Error)]
pub enum CatchUpError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The views cannot follow the log.
    #[error("the views cannot follow the log: {0}")]
    Views(Fault),
}

/// The core.
pub struct Core {
    /// The door to the aggregates.
    pub gateway: Arc<Gateway>,
    /// The views.
    pub projected: Arc<Projected>,
    /// Who was seen when.
    pub presence: Arc<Presence>,
    /// Operations as they stood.
    pub reader: Reader,
    /// The log, the clock, the world.
    pub around: Arc<Surroundings>,
    /// Deaths and quarantine.
    pub supervisor: Arc<Supervisor>,
    /// Where facts about Photon itself are noted.
    pub system: Arc<SystemJournal>,
    /// Durations.
    pub periods: Periods,
    /// How many claims wait for work.
    pub waiting: Arc<AtomicUsize>,
    /// The last look at the past.
    pub(crate) pasts: Arc<Pasts>,
    pub(crate) weights: Weights,
    pub(crate) thresholds: Thresholds,
    /// Claims that were made since the start.
    pub(crate) claims_made: AtomicU64,
    /// The thread of all actors; none when it is the caller's.
    arbiter: Mutex<Option<Arbiter>>,
    handle: ArbiterHandle,
    dispatcher: Mutex<Option<Addr<Dispatcher>>>,
}

impl Core {
    /// Builds the shell and begins to follow the log. Needs a running actix system.
    #[must_use]
    pub fn start(options: CoreOptions) -> Arc<Self> {
        Self::start_from(options, Start::default())
    }

    /// The same from what was folded before: the log is followed from there on.
    #[must_use]
    pub fn start_from(options: CoreOptions, start: Start) -> Arc<Self> {
        let arbiter = Arbiter::new();
        Self::start_on(options, start, arbiter.handle(), Some(arbiter))
    }

    /// The same on the thread of the caller alone, in whose order everything then happens: only for tests
    /// that must be able to repeat what they saw.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn start_here(options: CoreOptions) -> Arc<Self> {
        Self::start_on(options, Start::default(), Arbiter::current(), None)
    }

    fn start_on(
        options: CoreOptions,
        start: Start,
        handle: ArbiterHandle,
        arbiter: Option<Arbiter>,
    ) -> Arc<Self> {
        let CoreOptions { log, clock, limits, platforms, periods, weights, thresholds } = options;
        let Start { standing, keeper } = start;
        clock.raise_to(standing.past.time);
        let patience = Duration::from_millis(periods.views_wait_ms);
        let projected = Arc::new(Projected::from(standing).with_patience(patience));
        let agents: Arc<dyn domain::AgentRoll> = projected.clone();
        let world = World { limits, platforms: Arc::new(platforms), agents };
        let around = Arc::new(Surroundings { log: log.clone(), clock, world, keeper: keeper.clone() });
        let system = SystemJournal::start(log.clone(), Arc::clone(&around.clock), &handle);
        let system = Arc::new(system);
        let supervisor = Arc::new(Supervisor::new(Arc::clone(&around), Arc::clone(&system)));
        let gateway = Gateway::new(&around, &supervisor, Arc::clone(&projected), &handle);
        let projections = Projections::new(&around, &projected, &supervisor);
        let _ = Projections::start_in_arbiter(&handle, |_| projections);
        Arc::new(Self {
            gateway: Arc::new(gateway),
            projected,
            presence: Arc::default(),
            reader: Reader::new(log, keeper),
            around,
            supervisor,
            system,
            periods,
            waiting: Arc::default(),
            pasts: Arc::default(),
            weights,
            thresholds,
            claims_made: AtomicU64::new(0),
            arbiter: Mutex::new(arbiter),
            handle,
            dispatcher: Mutex::new(None),
        })
    }

    /// Waits until the views show the whole log, then lets work be given out.
    ///
    /// # Errors
    /// When the log cannot be followed.
    pub async fn catch_up(&self) -> Result<Position, CatchUpError> {
        let head = self.show_all().await?;
        let shell = Shell {
            around: Arc::clone(&self.around),
            gateway: Arc::clone(&self.gateway),
            projected: Arc::clone(&self.projected),
            presence: Arc::clone(&self.presence),
            waiting: Arc::clone(&self.waiting),
        };
        let settings = Settings {
            periods: self.periods,
            weights: self.weights,
            thresholds: self.thresholds,
            seed: RandomState::new().hash_one(()),
        };
        let vital = Vital::new("dispatcher", &self.projected, &self.supervisor);
        let dispatcher =
            Dispatcher::start_in_arbiter(&self.handle, move |_| Dispatcher::new(settings, shell, vital));
        *self.dispatcher.lock() = Some(dispatcher);
        Ok(head)
    }

    /// Waits until the views show the whole log: enough for a core that only reads.
    ///
    /// # Errors
    /// When the log cannot be followed.
    pub async fn show_all(&self) -> Result<Position, CatchUpError> {
        let head = self.around.log.head().await?;
        let fault = self.projected.fault();
        while !self.projected.reached(head, Duration::from_millis(200)).await {
            if let Some(fault) = fault.borrow().clone() {
                return Err(CatchUpError::Views(fault));
            }
        }
        Ok(head)
    }

    /// Where claims go; none before the core has caught up.
    #[must_use]
    pub fn dispatcher(&self) -> Option<Addr<Dispatcher>> {
        self.dispatcher.lock().clone()
    }

    /// Gives out no more work.
    pub async fn drain(&self) {
        if let Some(dispatcher) = self.dispatcher() {
            let _ = dispatcher.send(Drain).await;
        }
    }

    /// Ends every actor. What was answered is in the log already.
    pub fn stop(&self) {
        self.supervisor.stop();
        *self.dispatcher.lock() = None;
        if let Some(arbiter) = self.arbiter.lock().take() {
            arbiter.stop();
            let _ = arbiter.join();
        }
    }
}
