//! Measures a restart: from the start of the process until it is ready, and its memory then; after a clean
//! end and after one without any goodbye. There are no snapshots: the whole log is replayed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Plan;
use super::fault::Fault;
use super::figures::{median_by, rounded};
use super::history;
use super::process::{Memory, Process};
use super::server::temporary;

/// After it was ready: freed memory has gone back by then, if it ever does.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Restarts on the same log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restart {
    /// Events in the log.
    pub(super) events: u64,
    /// What the log occupies, in MiB.
    pub(super) disk_mib: f64,
    /// Events per second while it was filled.
    pub(super) filled_per_second: f64,
    /// After a clean end.
    pub(super) clean: Start,
    /// After SIGKILL.
    pub(super) unclean: Start,
}

/// One start.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    /// Until `/health/ready` was answered with 200.
    pub(super) ready_seconds: f64,
    /// Processor time until then, in seconds of one core.
    pub(super) cpu_seconds: f64,
    /// Memory when it was ready.
    pub(super) ready: Option<Memory>,
    /// Memory two seconds later.
    pub(super) settled: Option<Memory>,
}

/// Fills a log and starts servers on it.
pub(super) async fn measure(plan: &Plan) -> Result<Restart, Fault> {
    let folder = temporary(plan.folder.as_deref())?;
    let data = folder.path().join("data");
    let begun = Instant::now();
    let events = history::fill(&data, plan.events).await?;
    let filled_per_second = rounded(events as f64 / begun.elapsed().as_secs_f64(), 0);
    let disk_mib = rounded(disk_bytes(&data)? as f64 / f64::from(1 << 20), 1);
    let (mut clean, mut unclean) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let (process, start) = timed(folder.path()).await?;
        clean.push(start);
        process.kill().await?;
        let (process, start) = timed(folder.path()).await?;
        unclean.push(start);
        process.stop().await?;
    }
    let median = |starts| median_by(starts, |start: &Start| start.ready_seconds);
    let nothing = || Fault::Stuck("no restart was measured");
    let (clean, unclean) = (median(clean).ok_or_else(nothing)?, median(unclean).ok_or_else(nothing)?);
    folder.close()?;
    Ok(Restart { events, disk_mib, filled_per_second, clean, unclean })
}

async fn timed(folder: &Path) -> Result<(Process, Start), Fault> {
    let (process, took) = Process::serve(folder).await?;
    let (cpu, ready) = (process.cpu(), process.memory());
    tokio::time::sleep(SETTLED_AFTER).await;
    let ready_seconds = rounded(took.as_secs_f64(), 3);
    let start =
        Start { ready_seconds, cpu_seconds: rounded(cpu.seconds(), 2), ready, settled: process.memory() };
    Ok((process, start))
}

fn disk_bytes(folder: &Path) -> Result<u64, Fault> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.path().is_dir() { disk_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
