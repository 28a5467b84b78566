//! Pools of workers: looks again and again at the queue of each, starts and drains workers to keep it within
//! its target, and notes every change with its reason. Whatever ends the server ends the workers.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use domain::Timestamp;
use domain::pool::Seen;
use domain::system::ScalingReason;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::processes;
use crate::settings::Pool;

mod crew;
mod queue;
mod speech;
mod worker;

use crew::Crew;
use worker::Launch;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Before everything is begun anew after a bug.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// What killing may take beyond the deadline of a stop.
const KILL_MAX: Duration = Duration::from_secs(2);

/// How a pool stands, for whoever shows it.
#[derive(Clone, Debug)]
pub struct PoolStatus {
    /// What its owner set.
    pub pool: Pool,
    /// Workers that there should be.
    pub wanted: u32,
    /// Workers that take steps, or will.
    pub workers: u32,
    /// Workers that end after the step they have.
    pub leaving: u32,
    /// What the last look found.
    pub seen: Seen,
    /// Queue time with the workers there are; none when there are none.
    pub queue_ms: Option<u64>,
    /// Why it was scaled last.
    pub reason: Option<ScalingReason>,
    /// The same as a sentence.
    pub detail: String,
    /// When it was scaled last, since the server started.
    pub scaled_at: Option<Timestamp>,
    /// Workers that ended by themselves, one after the other.
    pub failures: u32,
    /// Workers that ended by themselves since the server started.
    pub ended: u64,
    /// How the last of them ended.
    pub last_failure: Option<String>,
    /// When the next worker may start after that.
    pub retry_at: Option<Timestamp>,
}

impl PoolStatus {
    fn of(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            wanted: 0,
            workers: 0,
            leaving: 0,
            seen: Seen::default(),
            queue_ms: None,
            reason: None,
            detail: String::new(),
            scaled_at: None,
            failures: 0,
            ended: 0,
            last_failure: None,
            retry_at: None,
        }
    }
}

/// How all pools stand, in the order of the settings.
#[derive(Default)]
pub struct Board(Mutex<Vec<PoolStatus>>);

impl Board {
    /// Of pools that were not looked at yet.
    #[must_use]
    pub fn of(pools: &[Pool]) -> Self {
        Self(Mutex::new(pools.iter().map(PoolStatus::of).collect()))
    }

    /// As it is now.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.0.lock().clone()
    }
}

/// The task that keeps the pools.
pub struct Pools {
    stop: mpsc::Sender<Stopping>,
}

impl Pools {
    /// Begins to keep the pools of a server that takes requests at this address. Workers end with this
    /// thread.
    ///
    /// # Errors
    /// When this program does not find itself.
    pub fn start(
        core: Arc<Core>,
        board: Arc<Board>,
        pools: &[Pool],
        server: SocketAddr,
    ) -> std::io::Result<Self> {
        let launch = Launch { photon: std::env::current_exe()?, server };
        let (stop, mut stopped) = mpsc::channel(1);
        let pools = pools.to_vec();
        actix_web::rt::spawn(async move {
            loop {
                let crews = pools.iter().cloned().map(Crew::new).collect();
                let mut keeping = Keeping { core: &core, board: &board, launch: &launch, crews };
                if AssertUnwindSafe(keeping.run(&mut stopped)).catch_unwind().await.is_ok() {
                    return;
                }
                // The panic was logged by its hook. Workers go with their owner, and new ones come.
                drop(keeping);
                tracing::error!("keeping the pools failed, so that all workers are started anew");
                tokio::time::sleep(AFTER_PANIC).await;
            }
        });
        Ok(Self { stop })
    }

    /// Lets every worker give back what it has and end; those that take longer than this are killed.
    pub async fn stop(&self, within: Duration) {
        let stopping = async {
            let (answer, ended) = oneshot::channel();
            if self.stop.send((Instant::now() + within, answer)).await.is_ok() {
                // An error means that it has ended already, and its workers with it.
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(within + KILL_MAX, stopping).await.is_err() {
            tracing::warn!("the pools do not end");
        }
    }
}

/// Until when to end, and whom to tell of it.
type Stopping = (Instant, oneshot::Sender<()>);

struct Keeping<'k> {
    core: &'k Arc<Core>,
    board: &'k Board,
    launch: &'k Launch,
    crews: Vec<Crew>,
}

impl Keeping<'_> {
    async fn run(&mut self, stop: &mut mpsc::Receiver<Stopping>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look().await,
                stopping = stop.recv() => {
                    let (deadline, answer) = stopping.unzip();
                    let deadline = deadline.unwrap_or_else(Instant::now);
                    let core = self.core;
                    let stops = self.crews.iter_mut().map(|crew| crew.stop(core, deadline));
                    futures_util::future::join_all(stops).await;
                    // Whoever asked may have given up.
                    let _ = answer.map(|answer| answer.send(()));
                    return;
                }
            }
        }
    }

    async fn look(&mut self) {
        let now = self.core.around.clock.now();
        let mut asking = Vec::with_capacity(self.crews.len());
        for crew in &mut self.crews {
            asking.push(crew.muster(self.core, now).await);
        }
        let queues = queue::queues(&self.core.projected.views, &asking, now).await;
        for (crew, queue) in self.crews.iter_mut().zip(queues) {
            crew.follow(self.core, self.launch, queue, now);
        }
        if processes::is_first() {
            processes::bury(&self.crews.iter().flat_map(Crew::processes).collect());
        }
        *self.board.0.lock() = self.crews.iter().map(|crew| crew.status.clone()).collect();
    }
}
