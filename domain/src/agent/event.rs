//! Facts of an agent. What is stored is a promise: a changed body gets a new schema number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Json;
use crate::operation::definition::Location;

/// What can have happened to an agent. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Event {
    /// `agent.registered`
    Registered(Box<Registered>),
    /// `agent.reregistered`
    Reregistered(Box<Registered>),
    /// `agent.updated`
    Updated(Box<Patch>),
    /// `agent.status_changed`
    StatusChanged(StatusChanged),
    /// `agent.timeout`
    TimedOut(TimedOut),
    /// `agent.unregistered`
    Unregistered,
}

/// Settings of one agent: the specification's `AgentConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Steps it may have at once, 1 to 1000.
    pub max_concurrent_steps: u32,
    /// How often it says that it lives, in milliseconds; 0 expects no heartbeat.
    pub heartbeat_interval_ms: u64,
    /// For requirements and filters.
    pub labels: BTreeMap<String, String>,
    /// Handed to platforms as it is: an object.
    pub model_parameters: Json,
    /// Steps that fail in a row until it is quarantined, 0 to 100; 0 never does. None means the server's
    /// setting.
    pub failures_in_a_row: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent_steps: 1,
            heartbeat_interval_ms: 10_000,
            labels: BTreeMap::new(),
            model_parameters: Json::object(),
            failures_in_a_row: None,
        }
    }
}

/// What an agent says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// For people, up to 256 characters.
    pub name: String,
    /// Which AI model it is.
    pub model: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Where it is.
    pub location: Location,
    /// Its settings.
    pub config: Config,
    /// Free data: an object.
    pub metadata: Json,
}

/// Body of `agent.registered` and `agent.reregistered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// What it says of itself.
    pub profile: Profile,
    /// Rises with every registration, from 1.
    pub incarnation: u64,
}

/// Body of `agent.updated`: what changed; a field that is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    /// For people.
    pub name: Option<String>,
    /// Which AI model it is.
    pub model: Option<String>,
    /// What it can do.
    pub capabilities: Option<Vec<String>>,
    /// Where it is.
    pub location: Option<Location>,
    /// Its settings, as a whole.
    pub config: Option<Config>,
    /// Free data, as a whole.
    pub metadata: Option<Json>,
}

/// What an agent's stored status can be; whether it is busy follows from its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Takes work.
    Active,
    /// Unregistered, drained or silent.
    Inactive,
    /// Out of order.
    Error,
}

impl Status {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Error => "error",
        }
    }
}

/// Why an agent has the status that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusReason {
    /// It registered.
    Registered,
    /// It unregistered.
    Unregistered,
    /// Its owner or an operator set the status.
    Updated,
    /// Its owner or an operator lets it take no more work; only they end that.
    Drained,
    /// The agent asked for the status in a heartbeat.
    Heartbeat,
    /// It was silent for too long.
    Timeout,
    /// It was heard again after a timeout.
    HeardAgain,
    /// Its pool needs fewer workers.
    PoolShrinks,
    /// It lost too many leases in a row.
    QuarantinedLosses,
    /// It left too many offers in a row untaken.
    QuarantinedUntaken,
    /// Too many of its steps in a row failed.
    QuarantinedFailures,
}

impl StatusReason {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unregistered => "unregistered",
            Self::Updated => "updated",
            Self::Drained => "drained",
            Self::Heartbeat => "heartbeat",
            Self::Timeout => "timeout",
            Self::HeardAgain => "heard_again",
            Self::PoolShrinks => "pool_shrinks",
            Self::QuarantinedLosses => "quarantined_losses",
            Self::QuarantinedUntaken => "quarantined_untaken",
            Self::QuarantinedFailures => "quarantined_failures",
        }
    }

    /// Whether the agent is quarantined.
    #[must_use]
    pub const fn is_quarantine(self) -> bool {
        matches!(self, Self::QuarantinedLosses | Self::QuarantinedUntaken | Self::QuarantinedFailures)
    }
}

/// Body of `agent.status_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// Before.
    pub from: Status,
    /// After.
    pub to: Status,
    /// Why.
    pub reason: StatusReason,
}

/// Body of `agent.timeout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedOut {
    /// How long it had been silent.
    pub silent_ms: u64,
}

/// What an agent reports about itself in a heartbeat. Percentages from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReportedMetrics {
    /// Percent.
    pub cpu_usage: Option<f64>,
    /// Percent.
    pub memory_usage: Option<f64>,
    /// Milliseconds.
    pub network_latency: Option<f64>,
}
