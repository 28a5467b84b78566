//! The composition root: opens the log, starts the core, binds the port. The only file that builds
//! the others' parts together.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer, web};
use actors::clock::SystemClock;
use actors::effects::Periods;
use actors::keeper::Keeper;
use actors::own_thread;
use actors::projections::{Fault, Projected};
use actors::standing::Standing;
use actors::{CatchUpError, Core, CoreOptions, Start, system};
use domain::Limits;
use domain::agent::quarantine::Thresholds;
use domain::agent::selection::Weights;
use events::{Compaction, EventLog, OpenError, Options, ReadError, SledLog};
use futures_util::FutureExt;
use platforms::Registry;
use rustix::net::sockopt;
use thiserror::Error;

use crate::exit::Exit;
use crate::http::answers::AnswerBudget;
use crate::http::events::{EventFeed, SYSTEM_METRICS};
use crate::http::front::Front;
use crate::http::guard::{self, Guard, Hosts, Phase, ServiceState};
use crate::http::lease_names::LeaseNames;
use crate::http::metrics::Metrics;
use crate::http::page::CursorKey;
use crate::http::socket::KeepAlive;
use crate::http::{self, Api, compression, context, error, health, routing};
use crate::keeping;
use crate::monitor::{Monitor, Watched};
use crate::pools::{Board, Pools};
use crate::private_files;
use crate::retention;
use crate::settings::Settings;

/// What may wait in a connection for its reader, beyond one turn of a stream.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// What workers of pools may take of the time that a stop has; the rest is for requests.
const POOLS_SHARE: f32 = 0.8;

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --port or stop what uses it")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error("cannot open the log in {folder}: {source}")]
    Open {
        /// Where it lies.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The log cannot be followed.
    #[error("cannot replay the log: {0}")]
    Replay(#[from] CatchUpError),
    /// A bug.
    #[error("cannot start: {0}")]
    Bug(String),
}

impl StartError {
    /// What the process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Bind { .. } | Self::Open { source: OpenError::Locked, .. } => Exit::UNAVAILABLE,
            Self::Open { source, .. } if source.is_of_another_version() => Exit::DAMAGED,
            Self::Open { source: OpenError::Corrupt(_), .. }
            | Self::Replay(
                CatchUpError::Read(ReadError::Corrupt(_))
                | CatchUpError::Views(Fault::Log(ReadError::Corrupt(_))),
            ) => Exit::DAMAGED,
            Self::Replay(CatchUpError::Views(Fault::Ended(_))) => Exit::BUG,
            Self::Open { .. } | Self::Replay(_) => Exit::DISK,
            Self::Bug(_) => Exit::BUG,
        }
    }
}

/// A running server.
pub struct Server {
    api: web::Data<Api>,
    log: Arc<SledLog>,
    address: SocketAddr,
    handle: ServerHandle,
    /// Since the server is ready.
    monitor: OnceLock<Monitor>,
    /// Since then too, when there are any.
    pools: OnceLock<Pools>,
    drain: Duration,
}

impl Server {
    /// Takes the port, opens the log, replays it; returns when requests are taken. Needs a running actix
    /// system.
    ///
    /// # Errors
    /// Why it did not start; nothing runs then.
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        let kept_ms = settings.retention.keep_ended_ms;
        let open = move |path: &Path, options: Options| {
            retain(path, kept_ms, options.generation_bytes_max / 4)?;
            SledLog::open(path, options)
        };
        let server = Self::behind(settings, open, keeping::keeper).await?;
        if let Err(fault) = server.work(settings).await {
            let _ = server.stop().await;
            return Err(fault);
        }
        tracing::info!(address = %server.address, "ready");
        Ok(server)
    }

    /// The same for a log that is damaged: only what is whole of it is shown, and nothing is changed, neither
    /// by requests nor by the passing of time.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_read_only(settings: &Settings) -> Result<Self, StartError> {
        let open = |path: &Path, options: Options| SledLog::open_read_only(path, &options);
        let server = Self::behind(settings, open, |_| None).await?;
        let damage = server.log.damage();
        if let Err(fault) = server.api.core.show_all().await {
            let _ = server.stop().await;
            return Err(fault.into());
        }
        server.follow_log();
        server.api.state.enter(Phase::ReadOnly);
        match damage {
            Some(damage) => tracing::error!(%damage, "read-only: what is whole before the damage is shown"),
            None => tracing::warn!("read-only, and yet nothing is damaged: start without --quarantine"),
        }
        Ok(server)
    }

    /// Answers from the first moment on, opens the log, and begins to follow it.
    async fn behind(
        settings: &Settings,
        open: impl FnOnce(&Path, Options) -> Result<SledLog, OpenError> + Send + 'static,
        keeper: impl FnOnce(&Settings) -> Option<Arc<Keeper>>,
    ) -> Result<Self, StartError> {
        let options = log_options(settings);
        let front = web::Data::new(Front::of(Arc::clone(&options.progress)));
        // Before anything is read: two servers that want the same port must not both work on a log.
        let (handle, address) = listen(settings, &front)?;
        let opened = async {
            let log = opened(settings, options, open).await?;
            // Under the log's lock: nobody else works in the folder now.
            let api = web::Data::new(Self::api(settings, &front, &log, keeper(settings)).await?);
            front.open(api.clone());
            Ok((log, api))
        };
        let (log, api) = match opened.await {
            Ok(opened) => opened,
            Err(fault) => {
                handle.stop(false).await;
                return Err(fault);
            }
        };
        let drain = Duration::from_millis(settings.server.shutdown_timeout_ms);
        Ok(Self { api, log, address, handle, monitor: OnceLock::new(), pools: OnceLock::new(), drain })
    }

    /// Everything that routes can reach, around an open log.
    async fn api(
        settings: &Settings,
        front: &Front,
        log: &Arc<SledLog>,
        keeper: Option<Arc<Keeper>>,
    ) -> Result<Api, StartError> {
        let end = log.head().await.map_err(CatchUpError::from)?;
        let seats = settings.limits.max_streams;
        let feed = EventFeed::new(Arc::clone(log) as Arc<dyn EventLog>, end, seats);
        let feed = Arc::new(feed.with_damage(log.damage()));
        let standing = match &keeper {
            Some(keeper) => keeper.newest(&(Arc::clone(log) as Arc<dyn EventLog>)).await,
            None => Standing::default(),
        };
        let began = health::Began { head: end, snapshot: standing.past.position };
        let start = Start { standing, keeper: keeper.clone() };
        let options = core_options(settings, Arc::clone(log) as Arc<dyn EventLog>);
        let core = Core::start_from(options, start);
        let metrics = Metrics::register().map_err(|fault| StartError::Bug(fault.to_string()))?;
        let disk = keeping::disk(settings);
        let examined = Arc::clone(log);
        Ok(Api {
            core,
            feed,
            lease_names: LeaseNames::of(log.marks().epoch),
            platforms: Registry::built(),
            cursors: CursorKey::of_folder(&settings.storage.data_dir),
            turns: http::intent::Turns::default(),
            plans: Arc::new(tokio::sync::Semaphore::new(http::planning::PLANS_MAX)),
            long_reads: http::reading::LongReads::default(),
            state: Arc::clone(&front.state),
            metrics,
            watched: Watched::default(),
            pools: Arc::new(Board::of(&settings.pools)),
            started: front.started,
            began,
            keeper,
            max_agents: settings.limits.max_agents,
            websocket: KeepAlive {
                ping: Duration::from_millis(settings.websocket.ping_ms),
                pong_timeout: Duration::from_millis(settings.websocket.pong_timeout_ms),
            },
            max_idempotency_keys: settings.limits.max_idempotency_keys,
            damage: Box::new(move || examined.damage()),
            disk,
        })
    }

    /// Waits until the views show everything, then takes requests and gives out work.
    async fn work(&self, settings: &Settings) -> Result<(), StartError> {
        let Api { core, feed, state, .. } = &**self.api;
        core.catch_up().await?;
        self.follow_log();
        state.enter(Phase::Ready);
        let (clock, feed) = (Arc::clone(&core.around.clock), Arc::clone(feed));
        let on_sample =
            Box::new(move |sample| feed.pass(SYSTEM_METRICS, &system::stream(), clock.now(), || sample));
        self.monitor.get_or_init(|| Monitor::start(self.api.clone(), settings.monitoring.clone(), on_sample));
        if let Some(keeper) = &self.api.keeper {
            actix_web::rt::spawn(keeping::follow(Arc::clone(core), Arc::clone(keeper), Arc::clone(state)));
        }
        self.keep_pools(settings)
    }

    fn follow_log(&self) {
        let Api { core, feed, state, .. } = &**self.api;
        actix_web::rt::spawn(follow(Arc::clone(feed), Arc::clone(&core.projected), Arc::clone(state)));
    }

    fn keep_pools(&self, settings: &Settings) -> Result<(), StartError> {
        if settings.pools.is_empty() {
            return Ok(());
        }
        let (core, board) = (Arc::clone(&self.api.core), Arc::clone(&self.api.pools));
        let pools = Pools::start(core, board, &settings.pools, self.address);
        let pools = pools.map_err(|fault| StartError::Bug(format!("this program is not found: {fault}")))?;
        self.pools.get_or_init(|| pools);
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when the process must stop by itself, with its exit code: the disk failed a sync, or
    /// the views cannot follow the log.
    pub async fn failed(&self) -> Exit {
        let mut fault = self.api.core.projected.fault();
        tokio::select! {
            fault = self.log.failed() => {
                tracing::error!(%fault, "the log failed and takes no more appends");
                lost(&fault)
            }
            fault = fault.wait_for(Option::is_some) => match fault.as_deref() {
                Ok(Some(Fault::Ended(_))) | Err(_) => Exit::BUG,
                Ok(Some(Fault::Log(ReadError::Corrupt(_)))) => Exit::DAMAGED,
                Ok(_) => Exit::DISK,
            },
        }
    }

    /// The pools' workers sent home, not ready, claims answered empty, requests finished, the log synced.
    ///
    /// # Errors
    /// What the process must end with when the log was not closed cleanly.
    pub async fn stop(&self) -> Result<(), Exit> {
        let begun = Instant::now();
        if let Some(pools) = self.pools.get() {
            // Before anything is refused: workers give back what they have.
            pools.stop(self.drain.mul_f32(POOLS_SHARE)).await;
        }
        self.api.state.enter(Phase::Draining);
        self.api.core.drain().await;
        if tokio::time::timeout(self.drain.saturating_sub(begun.elapsed()), self.handle.stop(true))
            .await
            .is_err()
        {
            self.handle.stop(false).await;
        }
        if let Some(monitor) = self.monitor.get() {
            monitor.stop().await;
        }
        keeping::stop(&self.api.core, self.api.keeper.as_deref()).await;
        let closed = self.log.close().await;
        tracing::info!("stopped");
        closed.map_err(|fault| {
            tracing::error!(%fault, "the log was not closed cleanly");
            lost(&fault)
        })
    }
}

/// What a process ends with that lost its log: to another one, or to a disk that failed.
fn lost(fault: &std::io::Error) -> Exit {
    if fault.kind() == std::io::ErrorKind::ResourceBusy { Exit::UNAVAILABLE } else { Exit::DISK }
}

/// Streams that show nothing new any more must not look as if nothing happened: the process stops.
async fn follow(feed: Arc<EventFeed>, projected: Arc<Projected>, state: Arc<ServiceState>) {
    // A panic was logged by its hook; here it is an end like any other.
    let _ = AssertUnwindSafe(feed.follow(&projected)).catch_unwind().await;
    if state.phase() != Phase::Draining {
        projected.fail(Fault::Ended("event feed"));
    }
}

/// Lets go what ended long ago, before anything is read. A disk without space for that is no reason not to
/// start; one that does not do as it is told is.
fn retain(folder: &Path, kept_ms: u64, worth: u64) -> Result<(), OpenError> {
    let kept_us = i64::try_from(kept_ms.saturating_mul(1_000)).ok().filter(|kept| *kept > 0);
    let Some(kept_us) = kept_us.filter(|_| folder.exists()) else { return Ok(()) };
    match retention::apply(folder, kept_us, worth) {
        Ok(Compaction { streams, events, bytes, floor }) if streams > 0 => {
            tracing::info!(operations = streams, events, bytes, %floor, "removed what ended long ago");
            Ok(())
        }
        Err(OpenError::Io(fault)) if events::is_full(&fault) => {
            tracing::warn!("nothing was removed from the log: there is no space for what is kept of it");
            Ok(())
        }
        done => done.map(drop),
    }
}

/// Opening reads and may rebuild: not on a thread that serves, nor on one that the end of the process waits
/// for.
async fn opened(
    settings: &Settings,
    options: Options,
    open: impl FnOnce(&Path, Options) -> Result<SledLog, OpenError> + Send + 'static,
) -> Result<Arc<SledLog>, StartError> {
    let folder = settings.storage.data_dir.clone();
    let path = folder.clone();
    let opened = own_thread::run("log-opener", move || async move { open(&path, options) }).await;
    let opened = opened.unwrap_or_else(|fault| Err(std::io::Error::other(fault).into()));
    private_files::warn_if_open(&folder);
    opened.map(Arc::new).map_err(|source| StartError::Open { folder, source })
}

fn listen(settings: &Settings, front: &web::Data<Front>) -> Result<(ServerHandle, SocketAddr), StartError> {
    let (host, port) = (settings.server.host.clone(), settings.server.port);
    let deadline = Duration::from_millis(settings.server.request_timeout_ms);
    let (counted, refused, reached) = (front.clone(), front.clone(), front.clone());
    let guard = Guard::new(Arc::clone(&front.state), Hosts::loopback_and(&host), deadline)
        .exempt(http::waits)
        .on_panic(move || counted.api().iter().for_each(|api| api.metrics.count_panic()))
        .on_offence(move |kind, peer, asked| {
            let Some(api) = refused.api() else { return };
            api.metrics.count_offence(kind);
            api.watched.offences.count(kind, peer, asked);
        })
        .position(move || reached.api().map(|api| api.core.projected.answered().get()));
    let guard = web::Data::new(guard);
    let limits = http::body::Limits { max_body_bytes: settings.limits.max_body_bytes, ..Default::default() };
    let limits = web::Data::new(limits);
    let answers = web::Data::new(AnswerBudget::new(settings.limits.max_answer_bytes));
    let front = front.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(front.clone())
            .app_data(guard.clone())
            .app_data(limits.clone())
            .app_data(answers.clone())
            .app_data(error::path_config())
            .configure(http::routes)
            .default_service(web::to(routing::not_found))
            .wrap(from_fn(http::metrics::measure))
            .wrap(from_fn(compression::compress))
            .wrap(from_fn(guard::protect))
            .wrap(from_fn(context::enter))
    });
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    // A reader that takes nothing freezes its connection's timers with it: only the kernel ends that.
    let stall_ms = u32::try_from(settings.limits.stall_timeout_ms).unwrap_or(u32::MAX);
    let server = server
        .on_connect(move |connection, _| {
            if let Some(socket) = connection.downcast_ref::<TcpStream>()
                && let Err(fault) = sockopt::set_tcp_user_timeout(socket, stall_ms)
            {
                tracing::debug!(%fault, "a stalled reader of this connection will not be noticed");
            }
        })
        // A client that has gone ends its long poll or its quiet stream at once, not with the next write.
        .h1_allow_half_closed(false)
        // With 10 000 streams each kept byte counts.
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .workers(workers)
        .tcp_nodelay(true)
        .max_connections((settings.server.max_connections + settings.limits.max_streams).div_ceil(workers))
        .keep_alive(Duration::from_millis(settings.server.keep_alive_timeout_ms))
        .shutdown_timeout(settings.server.shutdown_timeout_ms / 1_000)
        .disable_signals()
        .bind((host.as_str(), port))
        .map_err(|source| StartError::Bind { address: format!("{host}:{port}"), source })?;
    let address = server.addrs().first().copied();
    let address = address.ok_or_else(|| StartError::Bug("nothing is listened on".into()))?;
    let running = server.run();
    let handle = running.handle();
    actix_web::rt::spawn(running);
    Ok((handle, address))
}

fn log_options(settings: &Settings) -> Options {
    let mut options = Options::default();
    options.queue_appends_max = settings.storage.queue_max;
    options.queue_bytes_max = settings.storage.queue_max_bytes;
    options.generation_bytes_max = settings.storage.generation_max_bytes;
    options.generation_events_max = settings.storage.generation_max_events;
    options.disk_low_water_bytes = settings.limits.disk_low_water_bytes;
    options.disk_max_bytes = settings.limits.max_disk_bytes;
    options
}

fn core_options(settings: &Settings, log: Arc<dyn EventLog>) -> CoreOptions {
    let (limits, agents, selection) = (&settings.limits, &settings.agents, &settings.selection);
    CoreOptions {
        log,
        clock: Arc::new(SystemClock::start()),
        limits: Limits {
            max_steps: limits.max_steps,
            max_edges: limits.max_edges,
            max_definition_bytes: limits.max_inputs_bytes,
            max_result_bytes: limits.max_result_bytes,
            max_results_bytes: limits.max_results_bytes,
            max_checkpoint_bytes: limits.max_checkpoint_bytes,
            step_timeout_ms: limits.step_timeout_ms,
            approval_timeout_ms: limits.approval_timeout_ms,
            release_hold_ms: agents.release_hold_ms,
        },
        platforms: Registry::built().rules(),
        periods: Periods {
            lease_ms: agents.lease_ms,
            offer_ms: agents.offer_ms,
            grace_ms: agents.cancel_grace_ms,
            sample_ms: agents.heartbeat_sample_interval_ms,
            idle_ms: limits.idle_actor_ms,
            starvation_ms: limits.starvation_ms,
            retry_elsewhere_ms: agents.retry_elsewhere_ms,
            views_wait_ms: limits.views_wait_ms,
        },
        thresholds: Thresholds {
            losses: agents.losses_in_a_row,
            untaken: agents.untaken_in_a_row,
            failures: agents.failures_in_a_row,
        },
        weights: Weights {
            capability: selection.capability,
            performance: selection.performance,
            availability: selection.availability,
            location: selection.location,
        },
    }
}
