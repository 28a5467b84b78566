//! A power cut, simulated: what was written but not covered by a completed sync vanishes, as a whole or
//! page by page.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

mod lost_write {
    pub(crate) mod account;
}
mod support;
use lost_write::account::{Account, Loss};
use support::appender::{self, Dice, Judge, Start, append_and_kill};

const FOLDERS: u64 = 4;
const CYCLES: u64 = 25;

/// Not a test: the process whose machine loses power.
#[test]
fn appender() {
    appender::run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_when_all_unsynced_writes_vanish() {
    run(FOLDERS, Loss::All).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_when_unsynced_pages_vanish_at_random() {
    run(FOLDERS, Loss::Random).unwrap();
}

#[test]
fn the_instrument_finds_a_log_that_does_not_sync() {
    for loss in [Loss::All, Loss::Random] {
        let found = cycles(&mut Dice(1), loss, true, 3);
        let error = found.expect_err("acknowledged but unsynced events survived");
        assert!(error.contains("lost") || error.contains("does not open"), "{error}");
    }
}

fn run(folders: u64, loss: Loss) -> Result<(), String> {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    (0..folders * support::times()).try_for_each(|folder| {
        let ran = cycles(&mut Dice(seed + folder), loss, false, CYCLES);
        ran.map_err(|error| format!("seed {}: {error}", seed + folder))
    })
}

/// Runs, kills, loses, reopens and compares, again and again on the same folder.
fn cycles(dice: &mut Dice, loss: Loss, skip_syncs: bool, cycles: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The account must lie outside of the folder that loses its writes.
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let library = build_shim(outside.path());
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
    }
    Ok(())
}

/// Builds the library with the linker driver that every Rust tool chain on Linux needs anyway.
fn build_shim(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lost_write/shim.c");
    let library = folder.join("lost_write.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("cc, which Rust links with, is on the path");
    assert!(built.success());
    library
}
