//! What an operation was asked to be. Holds the request's facts; decides nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::operation::retry::RetryPolicy;
use crate::{ActionName, AgentId, Json, PlatformName, Timestamp};

/// How urgent an operation is. The order of the variants is the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before the ordinary.
    High,
    /// The ordinary.
    Medium,
    /// When nothing else waits.
    Low,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// What the first final failure of a step does to its operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Cancels what runs and fails the operation.
    #[default]
    FailFast,
    /// Lets independent branches finish first.
    Continue,
}

/// The platform whose steps a person performs.
pub const HUMAN: &str = "human";

/// What performing a step does to the world, and therefore what an unknown outcome means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Nothing: it may be performed as often as one likes.
    Read,
    /// The same, however often it is performed under the same operation and step.
    #[default]
    Idempotent,
    /// More each time: when nobody knows whether it happened, a person must look.
    Write,
}

/// Where an agent is, or is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// On the same machine.
    Local,
    /// In a data centre.
    Cloud,
    /// Near the data.
    Edge,
    /// On a device that moves.
    Mobile,
    /// Somewhere else.
    Remote,
}

impl Location {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Local, Self::Cloud, Self::Edge, Self::Mobile, Self::Remote];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
            Self::Edge => "edge",
            Self::Mobile => "mobile",
            Self::Remote => "remote",
        }
    }
}

/// What an agent must have to be given a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Requirements {
    /// All of these.
    pub capabilities: Vec<String>,
    /// Preferred place; scored, not filtered.
    pub location: Option<Location>,
    /// Exactly this model.
    pub model: Option<String>,
    /// All of these labels with these values.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// One step as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepDefinition {
    /// Its number in the workflow; any order, each once.
    pub step: u32,
    /// The agent that must perform it; none leaves the choice to Photon.
    pub agent: Option<AgentId>,
    /// Where it is performed.
    pub platform: PlatformName,
    /// What is performed.
    pub action: ActionName,
    /// For people: a template, shown as it stands until the step is reserved.
    pub title: Option<String>,
    /// Parameters: data, apart from what is marked by `$expr`, `$template` or `$literal`.
    pub inputs: Json,
    /// Steps that must be satisfied before.
    pub dependencies: Vec<u32>,
    /// Hard stop for one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// Who may perform it.
    pub requires: Requirements,
    /// An expression; false skips the step.
    pub when: Option<String>,
    /// Dependents run although this step failed.
    pub continue_on_error: bool,
    /// What performing it does to the world.
    pub effect: EffectClass,
}

impl StepDefinition {
    /// Whether a person performs it.
    #[must_use]
    pub fn asks_a_person(&self) -> bool {
        self.platform.as_str() == HUMAN
    }
}

/// An operation as it was asked for: the body of `operation.created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// For people, up to 256 characters.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// Only these agents may be chosen; empty means any.
    pub agents: Vec<AgentId>,
    /// Platforms it says it uses; empty means those of its steps.
    pub platforms: Vec<PlatformName>,
    /// The graph of steps, shared by all who look at it: it never changes.
    #[serde(with = "shared")]
    pub workflow: Arc<[StepDefinition]>,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// Free data of the caller: an object.
    pub metadata: Json,
    /// What a final failure does.
    pub failure_policy: FailurePolicy,
    /// Most steps that may be under way at once; none means no bound of its own.
    pub max_parallel: Option<u32>,
    /// Whether it starts by being created.
    pub auto_start: bool,
}

/// A shared list is stored as a list.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        list: &Arc<[T]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        (**list).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[T]>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::from)
    }
}
