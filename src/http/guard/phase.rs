//! Owns the phase of the service: which requests are taken at all.
//! It must never know why a phase is entered.

use std::sync::atomic::{AtomicU8, Ordering};

use actix_web::http::Method;
use tokio::sync::Notify;

/// Questions that need a body, and change nothing.
const QUESTIONS: &[&str] = &["/api/v1/agents/select"];

/// Whether a request can change nothing, whatever becomes of it.
pub(super) fn only_reads(method: &Method, path: &str) -> bool {
    method.is_safe() || QUESTIONS.contains(&path)
}

/// Whether the service takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The log is being read.
    Recovering = 0,
    /// All is well.
    Ready = 1,
    /// Only what changes nothing is answered: the log is damaged.
    ReadOnly = 2,
    /// The process is about to end.
    Draining = 3,
}

/// The phase, shared by whoever changes it and every worker that asks.
#[derive(Debug, Default)]
pub struct ServiceState {
    phase: AtomicU8,
    changed: Notify,
}

impl ServiceState {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// The present phase; a new state is recovering.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Recovering,
            1 => Phase::Ready,
            2 => Phase::ReadOnly,
            _ => Phase::Draining,
        }
    }

    /// Waits until the process is about to end: what waits on purpose is then answered.
    pub async fn draining(&self) {
        self.until(|phase| phase == Phase::Draining).await;
    }

    /// Waits until the log is read.
    pub async fn recovered(&self) {
        self.until(|phase| phase != Phase::Recovering).await;
    }

    async fn until(&self, reached: impl Fn(Phase) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if reached(self.phase()) {
                return;
            }
            changed.await;
        }
    }
}
