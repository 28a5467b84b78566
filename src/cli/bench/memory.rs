//! Measures what operations cost in memory: those that wait for work, once their actors rest, and those that
//! are over; and how long lists, counts, a snapshot and a look at the past take among the latter.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use super::Plan;
use super::fault::Fault;
use super::figures::rounded;
use super::history;
use super::process::{Memory, Process};
use super::sample;
use super::server::temporary;
use super::wire::Wire;

/// Until actors rest that nobody uses, and freed memory has gone back.
const RESTED_AFTER: Duration = Duration::from_secs(15);
/// After a start, or an answer.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at whether another snapshot is done, and how many there are.
const BUSY_WAIT: Duration = Duration::from_millis(100);
const BUSY_MAX: u32 = 600;
/// Settings of a server that may hold more than a gigabyte.
const ROOMY: &str = "[limits]\nmax_disk_bytes = 1125899906842624\n";
/// Events of one operation of three steps, about.
const EVENTS_EACH: u64 = 21;
/// What is asked for among operations that are over, and under which name.
const LOOKS: [(&str, &str); 6] = [
    ("page", "limit=50"),
    ("page by status and agent", "status=failed&agent=bench-agent-7&limit=50"),
    ("page that nothing is on", "status=cancelled&agent=bench-agent-7&limit=50"),
    ("count", "count=true&limit=1"),
    ("count by agent", "agent=bench-agent-7&count=true&limit=1"),
    ("text that nothing holds", "q=nothing&limit=50"),
];

/// Memory by what an operation is doing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    /// Of a server without any.
    pub(super) empty: Option<Memory>,
    /// Of three steps each, of which one waits for an agent.
    pub(super) open: Share,
    /// That are over but for one in a hundred.
    pub(super) ended: Share,
    /// Milliseconds of lists among those.
    pub(super) looks_ms: Vec<(&'static str, f64)>,
    /// Seconds until a snapshot of them was taken, and memory afterwards.
    pub(super) snapshot: (f64, Option<Memory>),
    /// Seconds until the first page of a look at the past was there, and memory afterwards.
    pub(super) past: (f64, Option<Memory>),
}

/// What some operations take.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Share {
    /// How many there were.
    pub(super) operations: u64,
    /// The whole process.
    pub(super) memory: Option<Memory>,
    /// What the second half of them added, for one of them: a log of any length takes memory too.
    pub(super) bytes_each: f64,
}

impl Share {
    fn of(half: (u64, Option<Memory>), all: (u64, Option<Memory>)) -> Self {
        let resident = |memory: Option<Memory>| memory.map_or(0.0, |memory| memory.rss_mib);
        let more = (resident(all.1) - resident(half.1)) * f64::from(1 << 20);
        let bytes_each = rounded(more / all.0.saturating_sub(half.0).max(1) as f64, 0);
        Self { operations: all.0, memory: all.1, bytes_each }
    }
}

/// Measures both on servers of our own.
pub(super) async fn measure(plan: &Plan) -> Result<Held, Fault> {
    let (empty, open) = measure_open(plan).await?;
    let (process, folder) = with_ended(plan, plan.ended / 2).await?;
    let mut wire = Wire::open(process.address()).await?;
    let half = (total(&mut wire).await?, process.memory());
    process.stop().await?;
    folder.close()?;

    let (process, folder) = with_ended(plan, plan.ended).await?;
    let mut wire = Wire::open(process.address()).await?;
    let ended = Share::of(half, (total(&mut wire).await?, process.memory()));
    let mut looks_ms = Vec::new();
    for (what, query) in LOOKS {
        looks_ms.push((what, rounded(look(&mut wire, query).await? * 1e3, 1)));
    }
    let begun = Instant::now();
    take_snapshot(&mut wire).await?;
    let snapshot = (rounded(begun.elapsed().as_secs_f64(), 2), settled(&process).await);
    // In the middle of the history.
    let middle = plan.ended * EVENTS_EACH / 2;
    let at = look(&mut wire, &format!("at={middle}&limit=1")).await?;
    let past = (rounded(at, 2), settled(&process).await);
    process.stop().await?;
    folder.close()?;
    Ok(Held { empty, open, ended, looks_ms, snapshot, past })
}

/// Memory of a server without operations, and of those that wait for work.
async fn measure_open(plan: &Plan) -> Result<(Option<Memory>, Share), Fault> {
    let folder = temporary(plan.folder.as_deref())?;
    fs::write(folder.path().join("config.toml"), ROOMY)?;
    let (process, _) = Process::serve(folder.path()).await?;
    let empty = settled(&process).await;
    let half = plan.open / 2;
    create(&process, plan, half).await?;
    tokio::time::sleep(RESTED_AFTER).await;
    let before = (half, process.memory());
    create(&process, plan, plan.open - half).await?;
    tokio::time::sleep(RESTED_AFTER).await;
    let open = Share::of(before, (plan.open, process.memory()));
    process.stop().await?;
    folder.close()?;
    Ok((empty, open))
}

/// A server that was started on a log of so many operations, most of them over.
async fn with_ended(plan: &Plan, ended: u64) -> Result<(Process, TempDir), Fault> {
    let folder = temporary(plan.folder.as_deref())?;
    fs::write(folder.path().join("config.toml"), ROOMY)?;
    history::fill(&folder.path().join("data"), ended * EVENTS_EACH).await?;
    let (process, _) = Process::serve(folder.path()).await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    Ok((process, folder))
}

/// Memory once freed memory has gone back.
async fn settled(process: &Process) -> Option<Memory> {
    tokio::time::sleep(SETTLED_AFTER).await;
    process.memory()
}

/// Creates operations that nobody performs.
async fn create(process: &Process, plan: &Plan, count: u64) -> Result<(), Fault> {
    let connections = plan.connections as u64;
    let mut creating = Vec::new();
    for connection in 0..connections {
        let mut wire = Wire::open(process.address()).await?;
        let request = wire.post("/api/v1/operations", &sample::operation(&plan.unclaimed()))?;
        let share = count / connections + u64::from(connection < count % connections);
        creating.push(tokio::spawn(async move {
            for _ in 0..share {
                wire.exchange(&request, 201).await?;
            }
            Ok::<(), Fault>(())
        }));
    }
    for creating in creating {
        creating.await.map_err(|_| Fault::Stuck("a connection ended early"))??;
    }
    Ok(())
}

/// How many operations a server has.
async fn total(wire: &mut Wire) -> Result<u64, Fault> {
    let request = wire.plain("GET", "/api/v1/operations?count=true&limit=1");
    let answer = wire.exchange(&request, 200).await?;
    let answer: serde_json::Value =
        serde_json::from_slice(answer).map_err(|_| Fault::Protocol("the body is no JSON"))?;
    answer["page"]["total"].as_u64().ok_or(Fault::Protocol("the page has no total"))
}

/// Takes a snapshot, once the one that the server may be taking by itself is done.
async fn take_snapshot(wire: &mut Wire) -> Result<(), Fault> {
    for _ in 0..BUSY_MAX {
        match wire.call("/api/v1/snapshots", &serde_json::json!({}), 201).await {
            Err(Fault::Status { status: 503, .. }) => tokio::time::sleep(BUSY_WAIT).await,
            taken => return taken.map(drop),
        }
    }
    Err(Fault::Stuck("another snapshot was being taken all the time"))
}

/// Seconds that a list takes: the median of five, or once if it takes long.
async fn look(wire: &mut Wire, query: &str) -> Result<f64, Fault> {
    let request = wire.plain("GET", &format!("/api/v1/operations?{query}"));
    let mut took = Vec::new();
    while took.len() < 5 {
        let begun = Instant::now();
        wire.exchange(&request, 200).await?;
        took.push(begun.elapsed().as_secs_f64());
        if query.starts_with("at=") {
            break;
        }
    }
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}
