//! A power cut, simulated: what was written but not covered by a completed sync vanishes, as a whole or
//! page by page.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

#[path = "lost_write/account.rs"]
mod account;
mod support;
use account::{Account, Loss};
use support::appender::{self, Dice, Judge, Start, append_and_kill};
use support::tally::{Tally, asked, build_shim, must_turn_red};

/// Cycles on one folder.
const CYCLES: u64 = 25;

/// Not a test: the process whose machine loses power.
#[test]
fn appender() {
    appender::run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_when_all_unsynced_writes_vanish() {
    run(&Tally::of("P1 P3", "power cut, all unsynced writes vanish", asked(100, 5_000, 50_000)), Loss::All);
}

#[test]
fn nothing_acknowledged_is_lost_when_unsynced_pages_vanish_at_random() {
    let what = "power cut, unsynced pages vanish at random";
    run(&Tally::of("P1 P3", what, asked(100, 5_000, 50_000)), Loss::Random);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_last_write_is_torn_between_two_sectors() {
    run(
        &Tally::of("P1 P3", "power cut, the last write torn at 512 B", asked(100, 5_000, 50_000)),
        Loss::Torn,
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_names_vanish_whose_folder_was_not_synced() {
    run(&Tally::of("P1", "power cut, unsynced names vanish", asked(100, 2_000, 20_000)), Loss::Names);
}

#[test]
fn the_instrument_finds_a_log_that_does_not_sync() {
    for loss in [Loss::All, Loss::Random] {
        let found = cycles(&mut Dice(1), loss, true, 3, &|| {});
        let error = found.expect_err("acknowledged but unsynced events survived");
        assert!(error.contains("lost") || error.contains("does not open"), "{error}");
    }
}

/// What a judge says of a log that has lost something.
const LOSSES: [&str; 2] = ["lost: ", "does not open: "];

#[test]
fn a_log_without_its_sync_turns_it_red() {
    let test = "nothing_acknowledged_is_lost_when_all_unsynced_writes_vanish";
    must_turn_red(test, "sync_removed", &LOSSES);
}

#[test]
fn a_log_that_does_not_sync_its_folders_turns_it_red() {
    let test = "nothing_acknowledged_is_lost_when_names_vanish_whose_folder_was_not_synced";
    must_turn_red(test, "folder_sync_removed", &LOSSES);
}

#[test]
fn a_log_that_answers_before_its_sync_turns_it_red() {
    let test = "nothing_acknowledged_is_lost_when_all_unsynced_writes_vanish";
    must_turn_red(test, "answer_before_sync", &LOSSES);
}

fn run(tally: &Tally, loss: Loss) {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for folder in 0.. {
        if tally.is_done() {
            return;
        }
        let ran = cycles(&mut Dice(seed + folder), loss, false, CYCLES, &|| tally.add(1));
        ran.unwrap_or_else(|error| panic!("seed {}: {error}", seed + folder));
    }
}

/// Runs, kills, loses, reopens and compares, again and again on the same folder.
fn cycles(dice: &mut Dice, loss: Loss, skip_syncs: bool, cycles: u64, done: &dyn Fn()) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The account must lie outside of the folder that loses its writes.
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lost_write/lost_write.c");
    let library = build_shim(&source, outside.path());
    let mut judge = Judge::default();
    let mut first = 0;
    for cycle in 0..cycles {
        let account = outside.path().join(format!("account-{cycle}"));
        let preload = Some((library.as_path(), account.as_path()));
        let start = Start { folder: inside.path(), first, skip_syncs, preload };
        let acks = append_and_kill(&start, 1 + dice.below(60) as usize);
        judge.hear(acks);
        let lost = Account::read(&account).lose(inside.path(), loss, dice);
        let compared = runtime.block_on(judge.compare(inside.path(), dice.coin()));
        first = compared.map_err(|error| format!("cycle {cycle}, {lost} bytes lost: {error}"))?;
        done();
    }
    Ok(())
}
