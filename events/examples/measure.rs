//! Measures the stored log: `cargo run --release -p events --example measure -- [events] [folder]`.
//! Prints one line a figure; the numbers in the documents come from here.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use events::{Append, Beside, EventLog, Expected, NewEvent, Options, Position, Since, SledLog, StreamId};
use futures_util::StreamExt;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const BODY_LEN: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    if let Some(end) = arguments.next() {
        return measure_reading(events, Path::new(&parent), &end).await;
    }
    let folder = tempfile::tempdir_in(parent)?;
    for (tasks, per_append, total) in
        [(1, 1, 2_000), (16, 1, 20_000), (64, 1, 50_000), (256, 1, 200_000), (128, 3, 200_000)]
    {
        let folder = folder.path().join(format!("rate-{tasks}-{per_append}"));
        let log = Arc::new(open(&folder)?);
        let seconds = fill(&log, tasks, per_append, total).await?;
        let rate = total as f64 / seconds;
        println!(
            "append, {tasks} tasks of {per_append}: {rate:.0} events/s, {:.3} ms each",
            seconds * 1e3 * tasks as f64 * per_append as f64 / total as f64
        );
        log.close().await?;
    }
    let folder = folder.path().join("large");
    let log = Arc::new(open(&folder)?);
    let seconds = fill(&log, 4, 128, events).await?;
    println!("fill, 4 tasks of 128: {:.0} events/s; {}", events as f64 / seconds, memory());
    println!("disk: {} MiB", disk_bytes(&folder)? >> 20);
    close(log).await?;
    // Reading is measured in processes of their own, for their memory.
    for end in ["clean", "unclean"] {
        let program = std::env::current_exe()?;
        let done = Command::new(program).arg(events.to_string()).arg(&folder).arg(end).status()?;
        if !done.success() {
            return Err("reading failed".into());
        }
    }
    Ok(())
}

/// Opens what another process filled, and reads all of it.
async fn measure_reading(events: u64, folder: &Path, end: &str) -> Result<(), Failure> {
    if end == "unclean" {
        for generation in fs::read_dir(folder)? {
            let _ = fs::remove_file(generation?.path().join("clean"));
        }
    }
    let log = timed_open(end, folder)?;
    read_all(&log, events).await?;
    read_streams(&log, events).await?;
    log.close().await?;
    Ok(())
}

fn open(folder: &Path) -> Result<SledLog, Failure> {
    Ok(SledLog::open(folder, Options::default())?)
}

async fn close(log: Arc<SledLog>) -> Result<(), Failure> {
    let begun = Instant::now();
    log.close().await?;
    println!("close: {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn timed_open(what: &str, folder: &Path) -> Result<SledLog, Failure> {
    let begun = Instant::now();
    let log = open(folder)?;
    println!("open after a {what} end: {:.2} s; {}", begun.elapsed().as_secs_f64(), memory());
    Ok(log)
}

async fn fill(log: &Arc<SledLog>, tasks: u64, per_append: u64, total: u64) -> Result<f64, Failure> {
    let body = Bytes::from((0..BODY_LEN).map(|i| (i * 31) as u8).collect::<Vec<_>>());
    let begun = Instant::now();
    let mut working = Vec::new();
    for task in 0..tasks {
        let (log, body) = (Arc::clone(log), body.clone());
        working.push(tokio::spawn(async move {
            for n in 0..total / tasks / per_append {
                let event = |_| NewEvent {
                    id: Uuid::new_v4().into(),
                    name: Cow::Borrowed("step.completed"),
                    schema: 1,
                    time_us: 0,
                    metadata: Bytes::from_static(b"{\"by\":\"measure\"}"),
                    body: body.clone(),
                    beside: Beside::NONE,
                };
                let stream = StreamId::new("operation", &format!("op-{task}-{}", n * per_append / 50))?;
                let events = (0..per_append).map(event).collect();
                log.append(Append { stream, expected: Expected::Any, events }).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in working {
        task.await??;
    }
    Ok(begun.elapsed().as_secs_f64())
}

async fn read_all(log: &SledLog, events: u64) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut tail = log.tail(Position::START).take((events / 512 * 512) as usize);
    let (mut count, mut bytes) = (0u64, 0usize);
    while let Some(event) = tail.next().await {
        (count, bytes) = (count + 1, bytes + event?.body.len());
    }
    println!(
        "tail: {count} events, {} MiB in {:.2} s; {}",
        bytes >> 20,
        begun.elapsed().as_secs_f64(),
        memory()
    );
    Ok(())
}

async fn read_streams(log: &SledLog, events: u64) -> Result<(), Failure> {
    for (what, round) in [("oldest", 0), ("newest", (events / 4 / 128 * 128 - 128) / 50)] {
        let begun = Instant::now();
        let mut count = 0u64;
        for task in 0..4 {
            let stream = StreamId::new("operation", &format!("op-{task}-{round}"))?;
            count += log.read(&stream, Since::BEGINNING).count().await as u64;
        }
        println!("read 4 {what} streams: {count} events in {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    format!("resident {}, peak {}", line("VmRSS:"), line("VmHWM:"))
}

fn disk_bytes(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.path().is_dir() { disk_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
