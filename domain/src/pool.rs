//! How many workers a pool should have, and why. Pure: it is told what was seen and what time it is, and
//! knows neither processes nor steps.
//!
//! *Queue time* is how long the ready steps take to begin when nothing else comes: ready steps × service
//! time ÷ slots of all workers. Before any step was measured, one is taken to last exactly as long as the
//! target, so that there are as many slots as ready steps.

use std::collections::VecDeque;

use crate::Timestamp;
use crate::system::ScalingReason;

/// The first wait after a worker ended by itself, doubled with each further one.
const FIRST_WAIT_MS: u64 = 500;
/// The longest of these waits.
const LONGEST_WAIT_MS: u64 = 60_000;
/// A worker that lives so long after the last failure ends the series.
const STEADY_MS: u64 = 10_000;
/// The idle time is so many times as long at most, for a pool that shrank too early again and again.
const PATIENCE_MAX: u32 = 8;

/// What the owner of a pool allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Never fewer workers.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Longest queue time that is accepted, in milliseconds.
    pub target_ms: u64,
    /// How long a worker must have been too many before the pool gets smaller.
    pub idle_ms: u64,
    /// Steps that one worker takes at once.
    pub slots: u32,
}

/// What one look at the queue and the workers found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Steps that wait and that a worker of this pool could take.
    pub ready: u64,
    /// How long the oldest of them has waited.
    pub oldest_wait_ms: u64,
    /// Mean time that a step takes; none before the first.
    pub service_ms: Option<u64>,
    /// Steps in the workers' hands.
    pub held: u64,
    /// Workers without a step.
    pub idle: u32,
    /// Workers with a step.
    pub busy: u32,
    /// Workers that have not registered yet.
    pub starting: u32,
}

impl Seen {
    /// Workers that take steps, or will.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.idle + self.busy + self.starting
    }

    /// Queue time with the workers there are, in milliseconds; none when there are none.
    #[must_use]
    pub fn queue_ms(&self, policy: &Policy) -> Option<u64> {
        let slots = u64::from(self.workers()) * u64::from(policy.slots);
        (slots > 0).then(|| self.work_ms(policy).div_ceil(slots))
    }

    /// What all ready steps take together.
    fn work_ms(&self, policy: &Policy) -> u64 {
        self.ready.saturating_mul(self.service_ms.unwrap_or(policy.target_ms).max(1))
    }

    /// Workers by which every step that is held or ready would have a slot.
    fn all_at_once(&self, policy: &Policy) -> u64 {
        self.held.saturating_add(self.ready).div_ceil(u64::from(policy.slots))
    }

    /// The fewest workers that keep the queue within the target, whoever is busy counted in.
    fn within_target(&self, policy: &Policy) -> u64 {
        let per_worker = policy.target_ms.max(1).saturating_mul(u64::from(policy.slots));
        let by_time = self.work_ms(policy).div_ceil(per_worker);
        by_time.min(self.all_at_once(policy)).max(u64::from(self.busy))
    }

    /// Whether steps wait for too long although everybody works: the service time says too little then.
    fn is_overdue(&self, policy: &Policy) -> bool {
        self.ready > 0
            && self.oldest_wait_ms > policy.target_ms
            && self.idle + self.starting == 0
            && self.all_at_once(policy) > u64::from(self.busy)
    }
}

/// How many workers there should be, one look after the other.
#[derive(Clone, Debug)]
pub struct Scaler {
    wanted: u32,
    since: Option<Timestamp>,
    /// When it last became smaller, until it grows again.
    lowered_at: Option<Timestamp>,
    /// By this the idle time is multiplied.
    patience: u32,
    /// Needs of the last idle time that no later one exceeds: falling, so at most `max` + 1 of them.
    peaks: VecDeque<(Timestamp, u32)>,
}

impl Default for Scaler {
    fn default() -> Self {
        Self { wanted: 0, since: None, lowered_at: None, patience: 1, peaks: VecDeque::new() }
    }
}

impl Scaler {
    /// How many there should be now.
    #[must_use]
    pub const fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Takes in one look. Says why when the wanted number changed.
    ///
    /// It grows at once. It falls by one a look, and only to the most that was needed in the last idle time.
    /// If it is needed again so soon that more patience would have kept it, the idle time is twice as long
    /// from then on, up to eight times; after a longer pause half as long.
    pub fn look(&mut self, policy: &Policy, seen: &Seen, now: Timestamp) -> Option<ScalingReason> {
        let (needed, reason) = need(policy, seen);
        let since = *self.since.get_or_insert(now);
        let idle_ms = policy.idle_ms.saturating_mul(u64::from(self.patience));
        let peak = self.peak(needed, idle_ms, now);
        if needed > self.wanted {
            self.wanted = needed;
            if let Some(lowered_at) = self.lowered_at.take() {
                let longest_ms = policy.idle_ms.saturating_mul(PATIENCE_MAX.into());
                let too_early = now.ms_since(lowered_at) < longest_ms;
                let changed = if too_early { self.patience * 2 } else { self.patience / 2 };
                self.patience = changed.clamp(1, PATIENCE_MAX);
            }
            return Some(reason);
        }
        if peak < self.wanted && now.ms_since(since) >= idle_ms {
            self.wanted -= 1;
            self.lowered_at = Some(now);
            return Some(ScalingReason::Idle);
        }
        None
    }

    /// The most that was needed in the last idle time.
    fn peak(&mut self, needed: u32, idle_ms: u64, now: Timestamp) -> u32 {
        while self.peaks.back().is_some_and(|(_, before)| *before <= needed) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, needed));
        while self.peaks.front().is_some_and(|(at, _)| now.ms_since(*at) > idle_ms) {
            self.peaks.pop_front();
        }
        self.peaks.front().map_or(needed, |(_, peak)| *peak)
    }
}

/// Workers that are needed at this moment, within the bounds, and what for.
fn need(policy: &Policy, seen: &Seen) -> (u32, ScalingReason) {
    let bounded = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).min(policy.max);
    let by_queue = bounded(seen.within_target(policy));
    if by_queue < policy.min {
        return (policy.min, ScalingReason::Minimum);
    }
    let one_more = bounded(u64::from(seen.busy) + 1);
    if seen.is_overdue(policy) && one_more > by_queue {
        return (one_more.max(policy.min), ScalingReason::Overdue);
    }
    (by_queue, ScalingReason::Queue)
}

/// Holds a pool back whose workers end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    failed_at: Timestamp,
    until: Timestamp,
}

impl Backoff {
    /// Workers that ended by themselves, one round of starts counted once, until one lives for a while.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next worker may start.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// A worker ended though nobody asked it to.
    pub fn failed(&mut self, now: Timestamp) {
        if self.failures > 0 && now < self.until {
            return;
        }
        let wait = FIRST_WAIT_MS.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT_MS);
        self.failures = self.failures.saturating_add(1);
        (self.failed_at, self.until) = (now, now.plus_ms(wait));
    }

    /// A worker that started at `start` lives and is registered: after a while that ends the series.
    pub fn lives(&mut self, start: Timestamp, now: Timestamp) {
        if self.failures > 0 && start >= self.failed_at && now.ms_since(start) >= STEADY_MS {
            *self = Self::default();
        }
    }

    /// A worker that started at `start` took steps, and ended because it was asked to: no series goes on.
    pub fn ended_well(&mut self, start: Timestamp) {
        if start >= self.failed_at {
            *self = Self::default();
        }
    }

    /// How many of these may start now: all, none, or one that shows whether it lives.
    #[must_use]
    pub fn allows(&self, missing: u32, starting: u32, now: Timestamp) -> u32 {
        match self.failures {
            0 => missing,
            _ if now < self.until || starting > 0 => 0,
            _ => missing.min(1),
        }
    }
}

/// The reason as a sentence with the figures that it rests on.
#[must_use]
pub fn sentence(reason: ScalingReason, policy: &Policy, seen: &Seen) -> String {
    let (ready, there) = (steps(seen.ready), workers(seen.workers()));
    let target = seconds(policy.target_ms);
    match reason {
        ScalingReason::Minimum => format!("The pool never has less than {}.", workers(policy.min)),
        ScalingReason::Queue => match seen.queue_ms(policy) {
            None => format!("{ready} waiting, and no worker is there."),
            Some(queue_ms) => {
                let queue = seconds(queue_ms);
                let need = format!("{ready} waiting would take {queue} to begin with {there}");
                format!("{need}; the target is {target}.")
            }
        },
        ScalingReason::Overdue => {
            let wait = seconds(seen.oldest_wait_ms);
            format!("A step has waited {wait} while {there} had work; the target is {target}.")
        }
        ScalingReason::Idle => {
            format!("Fewer workers were enough for {} or longer.", seconds(policy.idle_ms))
        }
        ScalingReason::WorkerEnded => "A worker ended though nobody asked it to.".into(),
        ScalingReason::WorkerReplaced => "A worker is back in the place of one that ended.".into(),
        ScalingReason::Stopping => "The server stops.".into(),
    }
}

fn steps(count: u64) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

fn workers(count: u32) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}
