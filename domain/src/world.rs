//! The surroundings of a decision: limits, platforms, and who is registered. Read, never changed, by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{AgentId, PlatformName};

/// Maxima that the core holds every command to. Units stand in the names.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Steps of one workflow.
    pub max_steps: usize,
    /// Dependencies of one workflow, all steps together.
    pub max_edges: usize,
    /// The whole definition of an operation.
    pub max_definition_bytes: usize,
    /// Resolved inputs of one step, and one step's result.
    pub max_result_bytes: usize,
    /// All results of one operation.
    pub max_results_bytes: usize,
    /// One checkpoint.
    pub max_checkpoint_bytes: usize,
    /// Hard stop for one attempt when the step names none.
    pub step_timeout_ms: u64,
    /// Longest wait for a person's answer when the step names none.
    pub approval_timeout_ms: u64,
    /// How long a released step is kept from the agent that released it.
    pub release_hold_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_steps: 10_000,
            max_edges: 100_000,
            max_definition_bytes: 768 * 1024,
            max_result_bytes: 256 * 1024,
            max_results_bytes: 8 * 1024 * 1024,
            max_checkpoint_bytes: 64 * 1024,
            step_timeout_ms: 3_600_000,
            approval_timeout_ms: 604_800_000,
            release_hold_ms: 30_000,
        }
    }
}

/// What the core knows of a platform.
#[derive(Clone, Debug)]
pub enum PlatformRule {
    /// Performs any action whose name is well formed.
    AnyAction,
    /// Performs exactly these actions.
    Actions(Vec<String>),
}

/// Knows who is registered. The shell answers from its agent directory.
pub trait AgentRoll: Send + Sync {
    /// Whether such an agent was registered and not unregistered since.
    fn is_registered(&self, agent: &AgentId) -> bool;
}

/// A roll on which everybody stands; for examples and for logs replayed without a directory.
#[derive(Clone, Copy, Debug)]
pub struct Everybody;

impl AgentRoll for Everybody {
    fn is_registered(&self, _agent: &AgentId) -> bool {
        true
    }
}

/// The surroundings themselves.
#[derive(Clone)]
pub struct World {
    /// Maxima.
    pub limits: Limits,
    /// Platforms that are built and registered.
    pub platforms: Arc<BTreeMap<PlatformName, PlatformRule>>,
    /// Who is registered.
    pub agents: Arc<dyn AgentRoll>,
}
