//! The harness's bookkeeping: how often a promise is put to the test, and what came of it. Each row leaves
//! one line in a folder of its own below the target folder; `.ci/promises` prints them as a table.
//!
//! `PHOTON_HARNESS` says how much is asked for: `push` (the default, part of the ordinary tests), `soak` or
//! `release`.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Names the fault that a part of the harness is shown on purpose; see [`must_turn_red`].
pub const PLANTED: &str = "PHOTON_PLANTED";

/// The count that the tier asks for.
pub fn asked(push: u64, soak: u64, release: u64) -> u64 {
    match std::env::var("PHOTON_HARNESS").as_deref() {
        Err(_) | Ok("push") => push,
        Ok("soak") => soak,
        Ok("release") => release,
        Ok(other) => panic!("PHOTON_HARNESS is push, soak or release, not `{other}`"),
    }
}

/// One row of the table. It is written when it goes out of scope, also by a failure.
pub struct Tally {
    promise: &'static str,
    what: &'static str,
    asked: u64,
    reached: AtomicU64,
    skipped: bool,
    begun: Instant,
}

impl Tally {
    pub fn of(promise: &'static str, what: &'static str, asked: u64) -> Self {
        let (reached, skipped, begun) = (AtomicU64::new(0), false, Instant::now());
        Self { promise, what, asked, reached, skipped, begun }
    }

    pub fn asked(&self) -> u64 {
        self.asked
    }

    pub fn add(&self, count: u64) {
        self.reached.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether as much was done as was asked for.
    pub fn is_done(&self) -> bool {
        self.reached.load(Ordering::Relaxed) >= self.asked
    }

    /// This machine cannot do it.
    pub fn skip(mut self, why: &str) {
        eprintln!("skipped: {}: {why}", self.what);
        self.skipped = true;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if std::env::var_os(PLANTED).is_some() {
            return;
        }
        let result = match self.is_done() {
            _ if std::thread::panicking() => "FAILED",
            _ if self.skipped => "skipped",
            true => "passed",
            false => "FAILED: too few",
        };
        let Self { promise, what, asked, reached, begun, .. } = self;
        let (reached, seconds) = (reached.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
        let line = format!("{promise}\t{what}\t{reached}\t{asked}\t{seconds:.1}\t{result}\n");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("harness");
        let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name), line));
        if let Err(error) = written {
            eprintln!("cannot note a row of the harness: {error}");
        }
    }
}

/// Runs a test of this binary again with a fault planted in the product, and requires that it finds it: the
/// test must fail, and say one of these.
#[track_caller]
pub fn must_turn_red(test: &str, planted: &str, says: &[&str]) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PLANTED, planted)
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("running 1 test"), "there is no test {test}: {said}");
    assert!(!ran.status.success(), "{test} is green although `{planted}` is planted");
    assert!(says.iter().any(|text| said.contains(text)), "{test} is red for another reason: {said}");
    let name: &'static str = planted.to_owned().leak();
    Tally::of("planted", name, 1).add(1);
}

/// Builds a library that is preloaded into a process, with the linker driver that every Rust tool chain on
/// Linux needs anyway.
pub fn build_shim(source: &Path, folder: &Path) -> PathBuf {
    let library = folder.join(source.with_extension("so").file_name().unwrap());
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, source])
        .args(["-ldl", "-lpthread"])
        .status();
    assert!(built.is_ok_and(|status| status.success()), "cc, which Rust links with, is on the path");
    library
}
