//! Measures a restart: from the start of the process until it is ready, and its memory then; after a clean
//! end and after one without any goodbye, both without snapshots, so that the whole log is folded; and after
//! a clean end that left a snapshot.

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
use crate::keeping;

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
    /// After a clean end, without a snapshot.
    pub(super) clean: Start,
    /// After SIGKILL, without a snapshot.
    pub(super) unclean: Start,
    /// After a clean end, with the snapshot that it left.
    pub(super) snapshot: Start,
    /// What that occupies, in MiB.
    pub(super) snapshot_mib: f64,
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
    let snapshots = data.join(keeping::FOLDER);
    let (mut clean, mut unclean, mut snapshot, mut snapshot_mib) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for _ in 0..plan.rounds {
        remove(&snapshots)?;
        let (process, start) = timed(folder.path()).await?;
        clean.push(start);
        process.kill().await?;
        remove(&snapshots)?;
        let (process, start) = timed(folder.path()).await?;
        unclean.push(start);
        process.stop().await?;
        let (process, start) = timed(folder.path()).await?;
        snapshot.push(start);
        process.stop().await?;
        // There are two: that of this stop, and the one that was measured.
        snapshot_mib = rounded(disk_bytes(&snapshots)? as f64 / 2.0 / f64::from(1 << 20), 1);
    }
    let median = |starts| {
        let nothing = || Fault::Stuck("no restart was measured");
        median_by(starts, |start: &Start| start.ready_seconds).ok_or_else(nothing)
    };
    let (clean, unclean, snapshot) = (median(clean)?, median(unclean)?, median(snapshot)?);
    folder.close()?;
    Ok(Restart { events, disk_mib, filled_per_second, clean, unclean, snapshot, snapshot_mib })
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

fn remove(folder: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(folder) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault.into()),
        _ => Ok(()),
    }
}

fn disk_bytes(folder: &Path) -> Result<u64, Fault> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.path().is_dir() { disk_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
