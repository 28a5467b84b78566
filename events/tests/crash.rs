//! Kill −9 while it appends, 300 times and more: whatever was acknowledged is there, with equal bytes, and
//! nothing by halves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::{SystemTime, UNIX_EPOCH};

mod support;
use support::appender::{self, Dice, Judge, Start, append_and_kill};
use support::tally::{Tally, asked};

const LANES: u64 = 2;
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
    let tally = Tally::of("P1 P2 P3", "kill -9 while it appends", asked(300, 5_000, 50_000));
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let tally = &tally;
            scope.spawn(move || run_lane(Dice(seed + lane), tally));
        }
    });
}

fn run_lane(mut dice: Dice, tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    while !tally.is_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut judge = Judge::default();
        let mut first = 0;
        for cycle in 0..CYCLES {
            let start = Start { folder: folder.path(), first, skip_syncs: false, preload: None };
            judge.hear(append_and_kill(&start, 1 + dice.below(100) as usize));
            let compared = runtime.block_on(judge.compare(folder.path(), dice.coin()));
            first = compared.unwrap_or_else(|error| panic!("cycle {cycle}: {error}"));
            tally.add(1);
        }
    }
}
