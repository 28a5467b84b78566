//! Kill −9 while it appends, 300 times: whatever was acknowledged is there, with equal bytes, and nothing
//! by halves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::{SystemTime, UNIX_EPOCH};

mod support;
use support::appender::{self, Dice, Judge, Start, append_and_kill};

const LANES: u64 = 2;
const FOLDERS: u64 = 6;
const CYCLES: u64 = 25;

/// Not a test: the process that is killed.
#[test]
fn appender() {
    appender::run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || run_lane(Dice(seed + lane)));
        }
    });
}

fn run_lane(mut dice: Dice) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..FOLDERS * support::times() {
        let folder = tempfile::tempdir().unwrap();
        let mut judge = Judge::default();
        let mut first = 0;
        for cycle in 0..CYCLES {
            let start = Start { folder: folder.path(), first, skip_syncs: false, preload: None };
            judge.hear(append_and_kill(&start, 1 + dice.below(100) as usize));
            let compared = runtime.block_on(judge.compare(folder.path(), dice.coin()));
            first = compared.unwrap_or_else(|error| panic!("cycle {cycle}: {error}"));
        }
    }
}
