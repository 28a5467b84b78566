//! Measures the log alone, in this process, paired with a plain file that is given the same bytes and one
//! `fdatasync` per commit.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use events::{Append, Beside, EventLog, Expected, NewEvent, Options, SledLog, StreamId};
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Plan;
use super::fault::Fault;
use super::figures::{median_by, ratio, rounded};
use super::server::temporary;

/// Events per commit that are measured; the last is the most that a commit gathers.
const PER_COMMIT: [usize; 3] = [1, 16, 256];
/// Bytes of an event's body.
const BODY_LEN: usize = 300;
/// Events that one stream gets.
const STREAM_EVENTS: u64 = 16;
/// What part of the time of other measurements each of these nine gets.
const SHARE: f64 = 0.3;

/// The log at one number of events per commit.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Commits {
    /// Events per commit.
    pub(super) per_commit: usize,
    /// Events per second when each append holds so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) appends_of: Option<f64>,
    /// Events per second when so many writers append one event each and the log gathers them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writers: Option<f64>,
    /// Events per second of a plain file with one `fdatasync` for so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<f64>,
    /// The first in relation to the file: the median of the rounds' own ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
}

/// Measures the log, the file, or both.
pub(super) async fn measure(plan: &Plan, log: bool, file: bool) -> Result<Vec<Commits>, Fault> {
    let mut commits = Vec::new();
    for per_commit in PER_COMMIT {
        commits.push(at(plan, per_commit, log, file).await?);
    }
    Ok(commits)
}

async fn at(plan: &Plan, per_commit: usize, log: bool, file: bool) -> Result<Commits, Fault> {
    let folder = temporary(plan.folder.as_deref())?;
    let length = Duration::from_secs_f64(plan.seconds * SHARE);
    let (mut whole, mut single, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        if file {
            let path = folder.path().join(format!("file-{round}"));
            let writing = move || write_file(&path, per_commit, length);
            plain.push(tokio::task::spawn_blocking(writing).await.map_err(std::io::Error::other)??);
        }
        if log {
            // A commit gathers no more than 256, so a second writer of 256 only keeps the log from waiting.
            let writers = if per_commit == PER_COMMIT[2] { 2 } else { 1 };
            let path = folder.path().join(format!("whole-{round}"));
            whole.push(append(&path, writers, per_commit, length).await?);
            let path = folder.path().join(format!("single-{round}"));
            single.push(append(&path, per_commit, 1, length).await?);
        }
        if let (Some(whole), Some(plain)) = (whole.last(), plain.last()) {
            ratios.extend(ratio(*whole, *plain));
        }
    }
    let median = |rounds| median_by(rounds, |rate: &f64| *rate);
    Ok(Commits {
        per_commit,
        appends_of: median(whole),
        writers: median(single),
        file: median(plain),
        ratio: median(ratios),
    })
}

/// Events per second of a fresh log to which so many writers append so many events at once.
async fn append(folder: &Path, writers: usize, events: usize, length: Duration) -> Result<f64, Fault> {
    let opened = SledLog::open(folder, Options::default());
    let log = Arc::new(opened.map_err(|fault| Fault::Log(fault.to_string()))?);
    let begun = Instant::now();
    let until = begun + length;
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        let log = Arc::clone(&log);
        writing.spawn(async move {
            let mut appended = 0;
            while Instant::now() < until {
                log.append(sample(writer, appended, events)?).await?;
                appended += events as u64;
            }
            Ok::<u64, Fault>(appended)
        });
    }
    let mut appended = 0;
    while let Some(written) = writing.join_next().await {
        appended += written.map_err(std::io::Error::other)??;
    }
    let rate = appended as f64 / begun.elapsed().as_secs_f64();
    log.close().await.map_err(|fault| Fault::Log(fault.to_string()))?;
    Ok(rounded(rate, 1))
}

/// Events per second of a plain file.
fn write_file(path: &Path, per_commit: usize, length: Duration) -> Result<f64, Fault> {
    let bytes = vec![0x5a; sample(0, 0, per_commit)?.bytes()];
    let mut file = File::create(path)?;
    let (begun, mut written) = (Instant::now(), 0);
    while begun.elapsed() < length {
        file.write_all(&bytes)?;
        file.sync_data()?;
        written += per_commit;
    }
    let rate = written as f64 / begun.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(rounded(rate, 1))
}

fn sample(writer: usize, after: u64, events: usize) -> Result<Append, Fault> {
    let stream = StreamId::new("operation", &format!("op-{writer}-{}", after / STREAM_EVENTS));
    let stream = stream.map_err(|fault| Fault::Log(fault.to_string()))?;
    let body: Vec<u8> = (0..BODY_LEN).map(|index| (index * 31 % 251) as u8).collect();
    let body = Bytes::from(body);
    let event = |_| NewEvent {
        id: Uuid::now_v7().into(),
        name: Cow::Borrowed("step.completed"),
        schema: 1,
        time_us: 0,
        metadata: Bytes::from_static(b"anonymous 0198c0de"),
        body: body.clone(),
        beside: Beside::NONE,
    };
    Ok(Append { stream, expected: Expected::Any, events: (0..events).map(event).collect() })
}
