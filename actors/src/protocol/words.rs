//! What agents say of themselves and their leases, and what they are told. Decides nothing, and knows neither
//! HTTP nor JSON bodies.

use domain::agent::event::{ReportedMetrics, Status};
use domain::operation::Operation;
use domain::{AgentId, Json, LeaseId, Timestamp};

use crate::aggregate_actor::DispatchError;

/// What an agent says in a heartbeat.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Which incarnation speaks.
    pub incarnation: Option<u64>,
    /// The status it wants.
    pub status: Option<Status>,
    /// What it reports about itself.
    pub metrics: Option<ReportedMetrics>,
    /// Leases that it works on.
    pub leases: Vec<LeaseBeat>,
}

/// What an agent says about one lease.
#[derive(Clone, Debug)]
pub struct LeaseBeat {
    /// The lease.
    pub lease: LeaseId,
    /// Whole percent.
    pub progress: Option<u8>,
    /// For people.
    pub note: Option<String>,
    /// To be kept for the next attempt.
    pub checkpoint: Option<Json>,
}

/// What an agent is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Stop working on this lease: its operation has ended.
    Cancel(LeaseId),
    /// This lease is somebody else's, or over.
    Lost(LeaseId),
    /// Finish what you have and ask for no more.
    Drain,
}

/// A lease that was renewed.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The lease.
    pub lease: LeaseId,
    /// Milliseconds until it is lost.
    pub remaining_ms: u64,
    /// Whether the checkpoint that came with it is durable; false when the last one is not a second old.
    pub checkpoint_kept: Option<bool>,
}

/// The answer to a heartbeat.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Leases that were renewed.
    pub renewed: Vec<Renewed>,
    /// Leases about which not everything was taken, and why.
    pub rejected: Vec<(LeaseId, DispatchError<Operation>)>,
    /// What to do.
    pub directives: Vec<Directive>,
    /// When to speak again, in milliseconds.
    pub next_ms: u64,
}

/// A lease as an operator sees it.
#[derive(Clone, Debug)]
pub struct LeaseInfo {
    /// Its id.
    pub lease: LeaseId,
    /// Who holds it.
    pub agent: AgentId,
    /// Which attempt it is.
    pub attempt: u32,
    /// Whether the attempt has begun.
    pub started: bool,
    /// Since when it is offered, or runs.
    pub since: Timestamp,
    /// Milliseconds until it is lost unless it is renewed.
    pub remaining_ms: u64,
}
