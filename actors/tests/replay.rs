//! The same log comes to the same state: as it was decided, folded from its first event on, from snapshots
//! on, and by another process with another time zone, language, number of threads and seed of its hash maps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "../../tests/support/tally.rs"]
mod tally;

use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use actors::kept::{keep_all, restore_part};
use actors::past::{Cut, Past};
use actors::standing::Standing;
use events::{EventLog, OpenError, Options, Position, SledLog};
use futures_util::future;
use support::author::Author;
use tally::{Tally, asked};

const FOLDER: &str = "ACTORS_REPLAY_FOLDER";
const EVENTS: usize = 5_000;

/// Makes a history up of that many events, and writes it without waiting for each sync.
async fn write(author: &mut Author, folder: &Path) {
    let mut appends = Vec::new();
    while (author.live.events as usize) < EVENTS {
        appends.extend(author.make_move());
    }
    let log = open(folder);
    let mut appends = appends.into_iter().peekable();
    while appends.peek().is_some() {
        let some: Vec<_> = appends.by_ref().take(1_000).map(|append| log.append(append)).collect();
        for answer in future::join_all(some).await {
            answer.unwrap();
        }
    }
    log.close().await.unwrap();
}

/// Opens the log. Until its exec, a process that another thread is just starting holds a copy of the lock.
fn open(folder: &Path) -> SledLog {
    let mut options = Options::default();
    options.disk_low_water_bytes = 0;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match SledLog::open(folder, options.clone()) {
            Err(OpenError::Locked) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// What a log comes to: as a look at the past shows it, and as a snapshot keeps it, which is with all keys.
type Come = (String, String);

fn shown(past: &Past) -> String {
    format!("{}-{}", past.events, past.hash())
}

fn kept(standing: &Standing) -> String {
    let mut kept = blake3::Hasher::new();
    keep_all::<String>(&standing.past.views, &standing.keys, &mut |part| {
        kept.update(part);
        Ok(())
    })
    .unwrap();
    kept.finalize().to_hex().to_string()
}

/// Takes the fold apart at some places as a snapshot does, puts it together again, and goes on from there.
async fn folded(folder: &Path, places: &[u64]) -> Come {
    let log = open(folder);
    let mut standing = Standing::default();
    for place in places {
        standing.fold_up_to(&log, Position::new(*place), &|| true).await.unwrap();
        let mut again =
            Standing { past: Past { views: Default::default(), ..standing.past }, keys: Default::default() };
        keep_all::<String>(&standing.past.views, &standing.keys, &mut |part| {
            restore_part(part, &mut again.past.views, &mut again.keys).unwrap();
            Ok(())
        })
        .unwrap();
        standing = again;
    }
    standing.fold_up_to(&log, log.head().await.unwrap(), &|| true).await.unwrap();
    log.close().await.unwrap();
    let kept = kept(&standing);
    (shown(&standing.past), kept)
}

async fn looked_at(folder: &Path) -> String {
    let log = open(folder);
    let past = Past::fold(&log, Cut::Position(log.head().await.unwrap())).await.unwrap();
    log.close().await.unwrap();
    shown(&past)
}

/// Not a test: the other process.
#[test]
fn folder() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(5).enable_all().build().unwrap();
    let (shown, kept) = runtime.block_on(folded(Path::new(&folder), &[]));
    println!("\nfolded {shown} {kept}");
}

fn folded_elsewhere(folder: &Path) -> Come {
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "folder", "--nocapture"])
        .env(FOLDER, folder)
        .envs([("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("folded "));
    let (shown, kept) = line.unwrap_or_else(|| panic!("{said}")).split_once(' ').unwrap();
    (shown.to_owned(), kept.to_owned())
}

/// A seed that is played. Whatever fails, it is named.
struct Played(u64);

impl Drop for Played {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} failed; replay it with PHOTON_TEST_SEED={0}", self.0);
        }
    }
}

fn play(seed: u64) {
    let _played = Played(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (folder, mut author) = (tempfile::tempdir().unwrap(), Author::new(seed));
    runtime.block_on(write(&mut author, folder.path()));
    let lived = shown(&author.live);
    assert_eq!(runtime.block_on(looked_at(folder.path())), lived);
    let mut places = [(); 3].map(|()| author.dice.below(EVENTS as u64));
    places.sort_unstable();
    let from_snapshots = runtime.block_on(folded(folder.path(), &places));
    assert_eq!(from_snapshots.0, lived, "snapshots at {places:?}");
    assert_eq!(folded_elsewhere(folder.path()), from_snapshots, "elsewhere, snapshots at {places:?}");
}

#[test]
fn what_was_decided_is_what_is_folded_here_and_in_another_process() {
    let one: Option<u64> = std::env::var("PHOTON_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let first = one.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    let tally = Tally::of(
        "P4 P5 P11",
        "random logs of 5,000 events folded again, from snapshots, elsewhere",
        one.map_or_else(|| asked(200, 5_000, 50_000), |_| 1),
    );
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let tally = &tally;
            scope.spawn(move || {
                for number in (lane..tally.asked()).step_by(2) {
                    play(first + number);
                    tally.add(1);
                }
            });
        }
    });
}
