//! Tests that nothing may disturb: they watch time or memory, use up the machine, or take some of its disk.
//!
//! One of them runs at a time. `cargo test` runs a whole binary in one process, so a lock is enough; for
//! `cargo nextest`, where every test is a process, `.config/nextest.toml` names them.
//! `tests/repository/alone.rs` holds the two against each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// As long as it lives, no other test of this binary that asks for it runs.
pub struct Alone(#[expect(dead_code, reason = "it is held, not read")] MutexGuard<'static, ()>);

/// Waits until it may run alone. A test that failed while it was alone keeps nobody from it.
pub fn alone() -> Alone {
    Alone(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}
