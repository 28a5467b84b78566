//! Facts of Photon itself: its health, its speed, who was turned away, what is out of service. They are
//! told, never decided upon: no aggregate. What is stored is a promise: a changed body gets a new schema
//! number, and an enumeration grows only at its end.

use serde::{Deserialize, Serialize};

/// First part of the stream's name.
pub const CATEGORY: &str = "system";

/// What can have happened to Photon itself. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// `stream.quarantined`
    Quarantined(Quarantined),
    /// `system.health_changed`
    HealthChanged(HealthChanged),
    /// `performance.alert`
    Alert(Alert),
    /// `security.event`
    Security(Security),
    /// `pool.scaled`
    PoolScaled(PoolScaled),
}

/// Body of `stream.quarantined`: its actor failed too often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which is out of service.
    pub stream: String,
}

/// How something is, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    #[default]
    Pass,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

impl Health {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub state: Health,
    /// What was found.
    pub detail: String,
}

/// Body of `system.health_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChanged {
    /// The worst of all checks, before.
    pub from: Health,
    /// The worst of all checks, after.
    pub to: Health,
    /// Those that changed.
    pub checks: Vec<Check>,
}

/// What an alert can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 95 % of the requests since the last sample were answered in so many milliseconds.
    RequestP95Ms,
    /// Steps that are ready and wait for an agent.
    ReadySteps,
}

impl Metric {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::RequestP95Ms, Self::ReadySteps];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestP95Ms => "request_p95_ms",
            Self::ReadySteps => "ready_steps",
        }
    }
}

/// Which way an alert goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is over the threshold.
    Raised,
    /// It is well below again.
    Cleared,
}

/// Body of `performance.alert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What is measured.
    pub metric: Metric,
    /// Whether it is raised or cleared.
    pub state: AlertState,
    /// What was measured last; 0 when there was nothing to measure.
    pub value: u64,
    /// What is too much.
    pub threshold: u64,
}

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offence {
    /// A host name that is not ours: DNS rebinding, or a proxy that nobody told us of.
    HostNotAllowed,
    /// A page of another origin.
    OriginNotAllowed,
}

impl Offence {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::HostNotAllowed, Self::OriginNotAllowed];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
        }
    }
}

/// Body of `security.event`: what one peer did in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Why it was turned away.
    pub kind: Offence,
    /// Its address, or `other` for all those that were too many to tell apart.
    pub peer: String,
    /// How often.
    pub count: u64,
    /// What it asked for the first time, shortened and without anything unprintable.
    pub detail: Option<String>,
}

/// Why the number of a pool's workers changed, or should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingReason {
    /// The pool never has fewer.
    Minimum,
    /// The ready steps would wait longer than the target.
    Queue,
    /// A step has waited longer than the target although every worker has work.
    Overdue,
    /// Fewer were enough for the whole idle time.
    Idle,
    /// A worker ended though nobody asked it to.
    WorkerEnded,
    /// A worker is back in the place of one that ended.
    WorkerReplaced,
    /// The server stops.
    Stopping,
}

impl ScalingReason {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Minimum,
        Self::Queue,
        Self::Overdue,
        Self::Idle,
        Self::WorkerEnded,
        Self::WorkerReplaced,
        Self::Stopping,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Queue => "queue",
            Self::Overdue => "overdue",
            Self::Idle => "idle",
            Self::WorkerEnded => "worker_ended",
            Self::WorkerReplaced => "worker_replaced",
            Self::Stopping => "stopping",
        }
    }
}

/// Body of `pool.scaled`: a pool has another number of workers, or should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolScaled {
    /// Its name.
    pub pool: String,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// Workers that there should be.
    pub wanted: u32,
    /// Why.
    pub reason: ScalingReason,
    /// The same as a sentence, with its figures.
    pub detail: String,
    /// Steps that waited and that a worker of this pool could take.
    pub ready_steps: u64,
    /// How long the oldest of them had waited.
    pub oldest_wait_ms: u64,
    /// Mean time that a step took; none before the first.
    pub service_ms: Option<u64>,
    /// Queue time with the workers before; none when there were none.
    pub queue_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: impl Serialize) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn names_are_those_that_are_shown() {
        assert!(Metric::ALL.iter().all(|metric| shown(metric) == metric.name()));
        assert!(Offence::ALL.iter().all(|offence| shown(offence) == offence.name()));
        assert!(ScalingReason::ALL.iter().all(|reason| shown(reason) == reason.name()));
        assert!([Health::Pass, Health::Warn, Health::Fail].iter().all(|state| shown(state) == state.name()));
    }
}
