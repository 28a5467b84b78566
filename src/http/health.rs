//! How the server is: for people, for probes, and in detail.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix_web::web;
use actors::Core;
use domain::system::{Check, Health as State};
use events::{Anchor, Position, SledLog};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::envelope::Reply;
use super::error::{ApiError, Code};
use super::front::{Front, ReachAtOnce};
use super::guard::Phase;
use super::operations::Answer;
use crate::pools::PoolStatus;

/// How durable an answer is: there is no other way.
const DURABILITY: &str = "journal, synced before every answer";
/// Longest answer of the log to a health check.
const LOG_DEADLINE: Duration = Duration::from_secs(2);
/// The views may be behind the log by so many events before that is worth a warning.
const BEHIND_MAX: u64 = 10_000;

/// The disk that holds the log.
#[derive(Clone, Debug)]
pub struct Disk {
    /// A folder on it.
    pub folder: PathBuf,
    /// Below this much free space, in bytes, nothing is stored.
    pub low_water_bytes: u64,
    /// When the folder occupies this much, in bytes, nothing is stored.
    pub max_bytes: u64,
    /// The folder as it was found; none when it was not there.
    pub anchor: Option<Anchor>,
}

impl Disk {
    /// Free space for this process, in bytes; none when the disk does not say.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether there is space for what can be done without.
    #[must_use]
    pub fn is_roomy(&self) -> bool {
        self.is_in_place() && space(self).0.max(share(self).0) == State::Pass
    }

    /// Whether the folder is where it was.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.anchor.as_ref().is_none_or(Anchor::is_in_place)
    }

    /// What the folder occupies, in bytes; none when it cannot be looked at.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        SledLog::occupied(&self.folder).ok()
    }
}

/// Where a start began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// The end of the log.
    pub head: Position,
    /// The end of the snapshot that was used; the log's start when there was none.
    pub snapshot: Position,
}

/// Whether the server lives.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// `ok`.
    pub status: String,
    /// Of Photon.
    pub version: String,
    /// Since the process began.
    pub uptime_ms: u64,
}

/// How the server is, check by check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DetailedHealthView {
    /// `pass`, `warn` or `fail`: the worst of the checks.
    pub status: String,
    /// Of Photon.
    pub version: String,
    /// Since the process began.
    pub uptime_ms: u64,
    /// Which history of the log is shown; absent when that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// How durable an answer is.
    pub durability: String,
    /// Each check.
    pub checks: Vec<CheckView>,
}

/// One check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// What was looked at.
    pub name: String,
    /// `pass`, `warn` or `fail`.
    pub state: String,
    /// How long that took, in milliseconds.
    pub ms: f64,
    /// What was found.
    pub detail: String,
}

impl HealthView {
    /// Of a process that began then.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self {
            status: "ok".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Whether the server lives. Touches no lock.
#[utoipa::path(get, path = "/health", tag = "health",
    responses((status = 200, body = super::envelope::ApiResponse<HealthView>)))]
pub async fn health(front: web::Data<Front>) -> Answer<HealthView> {
    Ok(Reply::ok(HealthView::since(front.started)))
}

/// The same for a liveness probe.
#[utoipa::path(get, path = "/health/live", tag = "health",
    responses((status = 200, body = super::envelope::ApiResponse<HealthView>)))]
pub async fn live(front: web::Data<Front>) -> Answer<HealthView> {
    Ok(Reply::ok(HealthView::since(front.started)))
}

/// Whether requests are taken: the log is open, replay is done, the disk takes writes, and no stop is near.
#[utoipa::path(get, path = "/health/ready", tag = "health",
    responses((status = 200, body = super::envelope::ApiResponse<HealthView>), (status = 503)))]
pub async fn ready(api: ReachAtOnce) -> Answer<HealthView> {
    match api.state.phase() {
        Phase::Recovering => return Err(ApiError::of(Code::Recovering)),
        Phase::ReadOnly => return Err(ApiError::of(Code::ReadOnly)),
        Phase::Draining => return Err(ApiError::of(Code::Draining)),
        Phase::Ready => {}
    }
    match disk(&api) {
        (State::Fail, _) => Err(ApiError::of(Code::StorageFull)),
        _ => Ok(Reply::ok(HealthView::since(api.started))),
    }
}

/// How far the start is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartupView {
    /// `verifying` the log, then `folding` it into what is shown, and `ok` from then on.
    pub status: String,
    /// Of Photon.
    pub version: String,
    /// Since the process began.
    pub uptime_ms: u64,
    /// How many events are folded, with those of the snapshot.
    pub events: u64,
    /// Position up to which the log is verified or, later, folded.
    pub position: String,
    /// Where the log ended when the start began; none until it is verified.
    pub head: Option<String>,
    /// Position of the snapshot that the start began with; none when the log is folded from its beginning.
    pub snapshot_position: Option<String>,
    /// Whole percent of what is verified or, later, folded.
    pub progress: u8,
}

impl StartupView {
    fn of(front: &Front) -> Self {
        let HealthView { version, uptime_ms, .. } = HealthView::since(front.started);
        let Some(api) = front.api() else {
            return Self {
                status: "verifying".into(),
                version,
                uptime_ms,
                events: 0,
                position: front.progress.position().to_string(),
                head: None,
                snapshot_position: None,
                progress: front.progress.percent(),
            };
        };
        let Began { head, snapshot } = api.began;
        let position = api.core.projected.position();
        let percent = position.get().min(head.get()).saturating_mul(100).checked_div(head.get());
        let starting = front.state.phase() == Phase::Recovering;
        Self {
            status: if starting { "folding" } else { "ok" }.into(),
            version,
            uptime_ms,
            events: api.core.projected.events(),
            position: position.to_string(),
            head: Some(head.to_string()),
            snapshot_position: (snapshot > Position::START).then(|| snapshot.to_string()),
            progress: percent.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(100),
        }
    }
}

/// Whether the start is over, and how far it is.
#[utoipa::path(get, path = "/health/startup", tag = "health",
    responses((status = 200, body = super::envelope::ApiResponse<StartupView>), (status = 503)))]
pub async fn startup(front: web::Data<Front>) -> Answer<StartupView> {
    let view = StartupView::of(&front);
    Ok(match view.status.as_str() {
        "ok" => Reply::ok(view),
        doing => {
            let error = format!("The server is {doing} its log: {} % are done.", view.progress);
            Reply::failing(Code::Recovering, view, error)
        }
    })
}

/// What a look at everything found.
pub struct Examined {
    /// The worst of the checks.
    pub worst: State,
    /// Each check, and how long it took in milliseconds.
    pub checks: Vec<(Check, f64)>,
}

/// Looks at everything: the one list of checks, for `/health/detailed` and for the monitor.
pub async fn examine(api: &Api) -> Examined {
    let mut examined = Examined { worst: State::Pass, checks: Vec::new() };
    let mut add = |name: &str, begun: Instant, (state, detail): (State, String)| {
        examined.worst = examined.worst.max(state);
        let ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        examined.checks.push((Check { name: name.into(), state, detail }, ms));
    };
    let begun = Instant::now();
    add("phase", begun, phase(api));
    let begun = Instant::now();
    let (log, head) = log(&api.core).await;
    add("log", begun, (api.damage)().map_or(log, |damage| (State::Fail, damage.to_string())));
    let begun = Instant::now();
    add("views", begun, views(&api.core, head));
    let begun = Instant::now();
    add("disk", begun, disk(api));
    let begun = Instant::now();
    add("actors", begun, actors(&api.core));
    let pools = api.pools.pools();
    if !pools.is_empty() {
        add("pools", Instant::now(), of_pools(&pools));
    }
    examined
}

/// Every check; 503 when any fails.
#[utoipa::path(get, path = "/health/detailed", tag = "health",
    responses((status = 200, body = super::envelope::ApiResponse<DetailedHealthView>), (status = 503)))]
pub async fn detailed(api: ReachAtOnce) -> Answer<DetailedHealthView> {
    let Examined { worst, checks } = examine(&api).await;
    let shown =
        |(Check { name, state, detail }, ms)| CheckView { name, state: state.name().into(), ms, detail };
    let checks = checks.into_iter().map(shown).collect();
    let HealthView { version, uptime_ms, .. } = HealthView::since(api.started);
    let status = worst.name().into();
    let epoch = api.core.around.log.marks().epoch.map(|epoch| epoch.to_string());
    let view =
        DetailedHealthView { status, version, uptime_ms, epoch, durability: DURABILITY.into(), checks };
    Ok(match worst {
        State::Fail => Reply::failing(Code::Overloaded, view, "A check fails; see data.checks."),
        State::Pass | State::Warn => Reply::ok(view),
    })
}

fn phase(api: &Api) -> (State, String) {
    match api.state.phase() {
        Phase::Recovering => (State::Fail, "the log is being read".into()),
        Phase::Ready => (State::Pass, "requests are taken".into()),
        Phase::ReadOnly => (State::Fail, "only what changes nothing is answered".into()),
        Phase::Draining => (State::Fail, "the server is about to stop".into()),
    }
}

/// Asks the log's writer where it stands: an answer means that it works.
async fn log(core: &Core) -> ((State, String), Option<u64>) {
    match tokio::time::timeout(LOG_DEADLINE, core.around.log.head()).await {
        Ok(Ok(head)) => ((State::Pass, format!("at position {head}")), Some(head.get())),
        Ok(Err(_)) => ((State::Fail, "the log takes no more appends".into()), None),
        Err(_) => ((State::Fail, "the log did not answer in 2 s".into()), None),
    }
}

fn views(core: &Core, head: Option<u64>) -> (State, String) {
    let at = core.projected.position().get();
    let behind = head.unwrap_or(at).saturating_sub(at);
    let state = if core.projected.fault().borrow().is_some() {
        State::Fail
    } else if behind > BEHIND_MAX {
        State::Warn
    } else {
        State::Pass
    };
    (state, format!("at position {at}, {behind} behind the log"))
}

fn disk(api: &Api) -> (State, String) {
    if !api.disk.is_in_place() {
        let folder = api.disk.folder.display();
        let detail = format!("{folder} was moved or replaced: nothing is stored until it is back");
        return (State::Fail, detail);
    }
    let ((space, free), (share, used)) = (space(&api.disk), share(&api.disk));
    (space.max(share), format!("{free}; {used}"))
}

/// The free space that is kept in reserve.
fn space(disk: &Disk) -> (State, String) {
    let needed = disk.low_water_bytes;
    match disk.free_bytes() {
        None => (State::Warn, "the disk does not say how much space is free".into()),
        Some(free) if free < needed => (State::Fail, format!("{free} bytes are free, {needed} are needed")),
        // A word in time: once it fails, nothing can be stored about it.
        Some(free) if free / 2 < needed => {
            (State::Warn, format!("{free} bytes are free, below {needed} nothing is stored"))
        }
        Some(free) => (State::Pass, format!("{free} bytes are free")),
    }
}

/// How much the folder may occupy.
fn share(disk: &Disk) -> (State, String) {
    let most = disk.max_bytes;
    match disk.used_bytes() {
        None => (State::Warn, "the data folder cannot be measured".into()),
        Some(used) if used >= most => (State::Fail, format!("{used} bytes are used, {most} are allowed")),
        Some(used) if used >= most / 10 * 9 => {
            (State::Warn, format!("{used} bytes are used, from {most} on nothing is stored"))
        }
        Some(used) => (State::Pass, format!("{used} of {most} bytes are used")),
    }
}

/// One worker that ended by itself is replaced; a second one in a row is worth a word.
fn of_pools(pools: &[PoolStatus]) -> (State, String) {
    let wanted: u32 = pools.iter().map(|status| status.wanted).sum();
    let workers: u32 = pools.iter().map(|status| status.workers).sum();
    let detail = format!("{workers} workers, {wanted} wanted");
    let ill = pools.iter().filter(|status| status.failures > 1);
    let names: Vec<&str> = ill.map(|status| status.pool.name.as_str()).take(5).collect();
    if names.is_empty() {
        return (State::Pass, detail);
    }
    (State::Warn, format!("{detail}; workers end by themselves in {}", names.join(", ")))
}

fn actors(core: &Core) -> (State, String) {
    let quarantined = core.supervisor.quarantined();
    let detail = format!("{} live, {} died since the start", core.gateway.actors(), core.supervisor.deaths());
    if quarantined.is_empty() {
        return (State::Pass, detail);
    }
    let names: Vec<&str> = quarantined.iter().take(5).map(events::StreamId::as_str).collect();
    (State::Warn, format!("{detail}; {} in quarantine: {}", quarantined.len(), names.join(", ")))
}
