//! A writer that is stopped while another process takes the log over, and then goes on: it must not append,
//! nobody may be told that it did, and what the other one wrote stays as it is (P10).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use events::{
    Append, AppendError, Beside, EventLog, Expected, NewEvent, OpenError, Options, SledLog, StreamId,
};
use rustix::process::{Pid, Signal, kill_process};

mod support;
use support::appender::{self, Ack, Dice, Judge, Start, append_here, options, parse, spawn};
use support::tally::{Tally, asked};

const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test: the process that is stopped.
#[test]
fn appender() {
    appender::run_if_asked();
}

#[tokio::test]
async fn a_writer_that_was_stopped_while_another_took_over_appends_nothing_more() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let (mut dice, mut judge, mut first) = (Dice(seed), Judge::default(), 0);
    let folder = tempfile::tempdir().unwrap();
    let tally = Tally::of("P10", "a stopped writer whose log was taken over", asked(20, 500, 5_000));
    for round in 0..tally.asked() {
        tally.add(1);
        first = take_over(folder.path(), &mut judge, &mut dice, first)
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    let audit = SledLog::audit(folder.path(), &mut |_| Ok(())).unwrap();
    assert!(audit.events > 0 && audit.torn_bytes == 0, "{audit:?}");
}

async fn take_over(folder: &Path, judge: &mut Judge, dice: &mut Dice, first: u64) -> Result<u64, String> {
    let mut child = spawn(&Start { folder, first, skip_syncs: false, preload: None });
    let acks = heard(&mut child);
    let mut all = Vec::new();
    for _ in 0..=dice.below(60) {
        all.push(acks.recv_timeout(PATIENCE).expect("the first writer appends"));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    until(|| stands_still(&child));
    assert!(matches!(SledLog::open(folder, options()), Err(OpenError::Locked)), "the lock holds");
    // As on a file system that grants it twice.
    fs::remove_file(folder.join("lock")).unwrap();
    let log = SledLog::open(folder, options()).unwrap();
    let mine = first + 1_000_000;
    for number in mine..=mine + dice.below(20) {
        judge.hear(vec![append_here(&log, number).await]);
    }
    kill_process(pid, Signal::CONT).unwrap();
    until(|| child.try_wait().unwrap().is_some());
    all.extend(acks.iter());
    judge.hear(all);
    judge.hear(vec![append_here(&log, mine + 100).await]);
    log.close().await.map_err(|error| error.to_string())?;
    drop(log);
    judge.compare(folder, dice.coin()).await
}

/// The acknowledgements of the process, as they come, until its end.
fn heard(child: &mut Child) -> mpsc::Receiver<Ack> {
    let (said, acks) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    thread::spawn(move || {
        lines.map_while(Result::ok).filter_map(|line| parse(&line)).try_for_each(|ack| said.send(ack))
    });
    acks
}

fn stands_still(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    status.rsplit_once(") ").unwrap().1.starts_with('T')
}

#[track_caller]
fn until(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "it does not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_log_that_was_taken_over_says_so_and_closes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let former = SledLog::open(folder.path(), Options::default()).unwrap();
    former.append(one(1)).await.unwrap();
    fs::remove_file(folder.path().join("lock")).unwrap();
    let owner = SledLog::open(folder.path(), Options::default()).unwrap();
    owner.append(one(2)).await.unwrap();
    assert_eq!(former.append(one(3)).await, Err(AppendError::Closed));
    let why = former.failed().await;
    assert_eq!(why.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(why.to_string().contains("another process has taken over the log"), "{why}");
    assert!(former.close().await.is_err());
    assert!(!folder.path().join("gen-000001/clean").exists(), "only its owner closes a log");
    owner.append(one(4)).await.unwrap();
    owner.close().await.unwrap();
    assert_eq!(SledLog::audit(folder.path(), &mut |_| Ok(())).unwrap().events, 3);
}

fn one(id: u128) -> Append {
    let event = NewEvent {
        id: uuid::Uuid::from_u128(id).into(),
        name: "fence.tested".into(),
        schema: 1,
        time_us: 0,
        metadata: Default::default(),
        body: Default::default(),
        beside: Beside::NONE,
    };
    Append { stream: StreamId::new("test", "a").unwrap(), expected: Expected::Any, events: vec![event] }
}
