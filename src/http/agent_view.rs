//! Agents and their work as clients see them. Presence is shown here and only here.

use actors::dispatch::task::Granted;
use actors::presence::Seen;
use actors::protocol::{Directive, Pulse};
use domain::agent::event::{Config, Status};
use domain::agent::health;
use domain::agent::record::Window;
use domain::operation::definition::{EffectClass, Location};
use domain::views::Views;
use domain::views::agent_directory::Row;
use domain::{AgentId, Json, LeaseId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::lease_names::LeaseNames;

/// An agent: the specification's `Agent`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Which AI model it is.
    pub model: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Where it is.
    #[schema(value_type = String)]
    pub location: Location,
    /// `active`, `busy`, `inactive` or `error`.
    pub status: String,
    /// `registered`, `unregistered`, `updated`, `drained`, `heartbeat`, `timeout`, `heard_again`,
    /// `pool_shrinks`, `quarantined_losses`, `quarantined_untaken` or `quarantined_failures`.
    pub status_reason: String,
    /// When it was last heard.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// Operations that it works for.
    pub current_operations: Vec<String>,
    /// How it does.
    pub metrics: AgentMetrics,
    /// Its settings.
    #[schema(value_type = Object)]
    pub config: Config,
    /// Free data.
    #[schema(value_type = Object)]
    pub metadata: Json,
    /// Rises with every registration.
    pub incarnation: u64,
    /// When it first registered.
    #[schema(value_type = String, format = DateTime)]
    pub registered_at: Timestamp,
    /// Version of its history: the first part of the `ETag`, and what `If-Match` looks at.
    pub revision: u64,
}

/// How an agent does. The last three are reported by the agent; all others are measured by the server.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentMetrics {
    /// Steps completed.
    pub operations_completed: u64,
    /// Steps failed or lost.
    pub operations_failed: u64,
    /// Milliseconds from assignment to completion, newer ones weighing more; null before the first.
    pub average_response_time: Option<f64>,
    /// Percent of all steps that completed; null before the first.
    pub success_rate: Option<f64>,
    /// What an agent is chosen by: like the rate, but newer steps weigh more, and before the first it is 50.
    pub success_score: f64,
    /// The last results, at most fifty.
    pub recent: RecentResults,
    /// Leases lost in a row; the third is a quarantine.
    pub lost_in_a_row: u32,
    /// Offers not taken in a row; the fifth is a quarantine.
    pub untaken_in_a_row: u32,
    /// Operations in a row of which a step failed; `failuresInARow` of them are a quarantine.
    pub failed_in_a_row: u32,
    /// Percent.
    pub cpu_usage: Option<f64>,
    /// Percent.
    pub memory_usage: Option<f64>,
    /// Milliseconds.
    pub network_latency: Option<f64>,
}

/// The last results of an agent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentResults {
    /// When the oldest of them came; null without any.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Completed.
    pub completed: usize,
    /// Failed.
    pub failed: usize,
    /// Lost.
    pub lost: usize,
    /// Percent that completed; null without any.
    pub success_rate: Option<f64>,
    /// Milliseconds that half of the completed ones did not exceed; null without any.
    pub response_time_p50: Option<u64>,
    /// The same for 95 of 100.
    pub response_time_p95: Option<u64>,
}

impl RecentResults {
    fn of(window: &Window) -> Self {
        Self {
            since: window.since,
            completed: window.completed,
            failed: window.failed,
            lost: window.lost,
            success_rate: window.success_rate().map(|rate| rate * 100.0),
            response_time_p50: window.p50_ms,
            response_time_p95: window.p95_ms,
        }
    }
}

/// The answer to a registration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredView {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// How often a heartbeat is expected, in milliseconds; 0 for never.
    pub heartbeat_interval_ms: u64,
    /// How long a lease lasts without a sign of life, in milliseconds.
    pub lease_ms: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatView {
    /// Leases that were renewed.
    pub renewed: Vec<RenewedView>,
    /// Leases about which not everything was taken; they are renewed all the same, if they are the agent's.
    #[serde(default)]
    pub rejected: Vec<RejectedView>,
    /// What to do.
    pub directives: Vec<DirectiveView>,
    /// When to speak again, in milliseconds.
    pub next_heartbeat_ms: u64,
}

/// A renewed lease.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewedView {
    /// The lease.
    pub lease_id: String,
    /// Milliseconds until it is lost.
    pub remaining_ms: u64,
    /// Whether the checkpoint that came with it is durable; false when the last one is not a second old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_kept: Option<bool>,
}

/// Why what a heartbeat says of one lease was not taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedView {
    /// The lease, as the heartbeat names it; empty when it names none.
    pub lease_id: String,
    /// The code of the refusal.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// What an agent is told to do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectiveView {
    /// `cancel`, `lost` or `drain`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// Why.
    pub reason: String,
}

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimView {
    /// The work; empty when none came in time.
    pub leases: Vec<LeaseGrant>,
}

/// A step to perform.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseGrant {
    /// Names this grant in every report.
    pub lease_id: String,
    /// Rises with every grant of the step; hand it on to what the work writes to.
    pub fencing_token: u64,
    /// The operation.
    pub operation_id: String,
    /// The step.
    pub step: u32,
    /// Which attempt it is.
    pub attempt: u32,
    /// What to perform.
    pub action: String,
    /// The step's title, resolved as far as it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// With these parameters.
    #[schema(value_type = Object)]
    pub inputs: Json,
    /// What an earlier attempt left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub checkpoint: Option<Json>,
    /// What performing it does to the world: `read`, `idempotent` or `write`. Acknowledge the lease before
    /// you begin a `write`.
    #[schema(value_type = String)]
    pub effect: EffectClass,
    /// Milliseconds within which a first sign of life is expected.
    pub ack_within_ms: u64,
    /// Milliseconds until the lease is lost without a sign of life.
    pub remaining_ms: u64,
    /// Milliseconds from its start after which the attempt is stopped.
    pub hard_deadline_ms: u64,
    /// W3C trace context to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// How many slots an agent has: the specification's `AvailabilityStatus`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailabilityView {
    /// Whether it can take a step now.
    pub available: bool,
    /// Its status.
    pub status: String,
    /// Why.
    pub status_reason: String,
    /// Slots in all.
    pub slots: u32,
    /// Slots that are free.
    pub free: u32,
    /// Leases that take the others.
    pub leases: Vec<String>,
    /// Whether it waits for work now.
    pub waiting: bool,
    /// When it was last heard.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// Milliseconds since then; 0 while it waits, since then it is our turn to speak.
    pub silent_ms: u64,
    /// Milliseconds of silence after which it counts as gone; null when no heartbeat is expected.
    pub silence_limit_ms: Option<u64>,
    /// 1 just after a sign of life, 0 at the limit of silence.
    pub freshness: f64,
}

/// What is known of an agent's presence.
pub struct Presence {
    /// When it was last seen since the start.
    pub seen: Option<Seen>,
    /// Whether it waits for work.
    pub waiting: bool,
    /// Now.
    pub now: Timestamp,
}

impl AvailabilityView {
    /// Shows how ready an agent is.
    #[must_use]
    pub fn of(views: &Views, id: &AgentId, row: &Row, presence: &Presence, names: &LeaseNames) -> Self {
        let (agent, config) = (&row.agent, &row.agent.profile.config);
        let last_seen = presence.seen.map_or(row.last_seen, |seen| seen.at.max(row.last_seen));
        let free = views.free_slots(id, agent);
        // Who was not heard since the start has a full interval yet.
        let heard = presence.seen.filter(|_| !presence.waiting);
        let silent_ms = heard.map_or(0, |seen| presence.now.ms_since(seen.at));
        Self {
            available: agent.status == Status::Active && free > 0,
            status: views.shown_status(id, agent).into(),
            status_reason: agent.status_reason.name().into(),
            slots: config.max_concurrent_steps,
            free,
            leases: views.leases.of_agent(id).map(|(lease, _)| names.name(&lease)).collect(),
            waiting: presence.waiting,
            last_seen,
            silent_ms,
            silence_limit_ms: health::silence_limit_ms(config),
            freshness: health::freshness(config, silent_ms),
        }
    }
}

impl AgentView {
    /// Shows a row, and what is known of its presence.
    #[must_use]
    pub fn of(views: &Views, id: &AgentId, row: &Row, seen: Option<Seen>) -> Self {
        let (agent, record, streaks) = (&row.agent, &row.work.record, &row.work.streaks);
        let profile = &agent.profile;
        let reported = seen.map_or(row.reported, |seen| seen.metrics);
        let leases = views.leases.of_agent(id);
        let mut operations: Vec<String> = leases.map(|(lease, _)| lease.operation.to_string()).collect();
        operations.dedup();
        Self {
            id: id.to_string(),
            name: profile.name.clone(),
            model: profile.model.clone(),
            capabilities: profile.capabilities.clone(),
            location: profile.location,
            status: views.shown_status(id, agent).into(),
            status_reason: agent.status_reason.name().into(),
            last_seen: seen.map_or(row.last_seen, |seen| seen.at.max(row.last_seen)),
            current_operations: operations,
            metrics: AgentMetrics {
                operations_completed: record.completed,
                operations_failed: record.failed,
                average_response_time: record.response_ms(),
                success_rate: record.success_rate().map(|rate| rate * 100.0),
                success_score: record.success_score() * 100.0,
                recent: RecentResults::of(&record.window()),
                lost_in_a_row: streaks.lost(),
                untaken_in_a_row: streaks.untaken(),
                failed_in_a_row: streaks.failed(),
                cpu_usage: reported.cpu_usage,
                memory_usage: reported.memory_usage,
                network_latency: reported.network_latency,
            },
            config: profile.config.clone(),
            metadata: profile.metadata.clone(),
            incarnation: agent.incarnation,
            registered_at: agent.registered_at,
            revision: row.revision,
        }
    }
}

impl HeartbeatView {
    /// Shows a pulse. Leases that another history of the log granted are lost, whatever they are named.
    #[must_use]
    pub fn of(pulse: Pulse, names: &LeaseNames, foreign: Vec<String>) -> Self {
        let renewed = pulse.renewed.iter().map(|renewed| RenewedView {
            lease_id: names.name(&renewed.lease),
            remaining_ms: renewed.remaining_ms,
            checkpoint_kept: renewed.checkpoint_kept,
        });
        let rejected = pulse.rejected.into_iter().map(|(lease, fault)| {
            let ApiError { code, message: detail, .. } = fault.into();
            RejectedView { lease_id: names.name(&lease), code: code.slug().into(), detail }
        });
        let told = pulse.directives.iter().map(|directive| DirectiveView::of(directive, names));
        Self {
            renewed: renewed.collect(),
            rejected: rejected.collect(),
            directives: told.chain(foreign.into_iter().map(DirectiveView::restored)).collect(),
            next_heartbeat_ms: pulse.next_ms,
        }
    }
}

impl DirectiveView {
    fn of(directive: &Directive, names: &LeaseNames) -> Self {
        let (kind, lease, reason) = match directive {
            Directive::Cancel(lease) => ("cancel", Some(lease), "the operation has ended"),
            Directive::Lost(lease) => ("lost", Some(lease), "the lease is over or somebody else's"),
            Directive::Drain => ("drain", None, "the agent is inactive and gets no more work"),
        };
        let lease_id = lease.map(|lease| names.name(lease));
        Self { kind: kind.into(), lease_id, reason: reason.into() }
    }

    fn restored(lease_id: String) -> Self {
        let reason = "the lease was granted before the log was restored";
        Self { kind: "lost".into(), lease_id: Some(lease_id), reason: reason.into() }
    }
}

impl ClaimView {
    /// Shows what was granted; `remaining_ms` says how long a lease has left.
    pub fn of(
        granted: &[Granted],
        remaining_ms: impl Fn(&LeaseId) -> u64,
        traceparent: Option<&str>,
        names: &LeaseNames,
    ) -> Self {
        let grant = |granted: &Granted| {
            LeaseGrant::of(granted, remaining_ms(&granted.reserved.lease_id), traceparent, names)
        };
        Self { leases: granted.iter().map(grant).collect() }
    }
}

impl LeaseGrant {
    fn of(granted: &Granted, remaining_ms: u64, traceparent: Option<&str>, names: &LeaseNames) -> Self {
        let reserved = &granted.reserved;
        Self {
            lease_id: names.name(&reserved.lease_id),
            fencing_token: reserved.grant,
            operation_id: reserved.lease_id.operation.to_string(),
            step: reserved.step,
            attempt: reserved.attempt,
            action: granted.action.to_string(),
            title: reserved.title.clone(),
            inputs: reserved.inputs.clone(),
            checkpoint: granted.checkpoint.clone(),
            effect: granted.effect,
            ack_within_ms: remaining_ms,
            remaining_ms,
            hard_deadline_ms: granted.timeout_ms,
            traceparent: traceparent.map(str::to_owned),
        }
    }
}
