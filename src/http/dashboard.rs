//! The figures of `/metrics/dashboard`: the specification's `DashboardData`, all real.

use std::collections::BTreeMap;

use domain::Timestamp;
use domain::agent::event::Status as AgentStatus;
use domain::operation::definition::Priority;
use domain::operation::step::Status;
use domain::views::Views;
use domain::views::attention::{Concern, concerns};
use domain::views::dashboard::Durations;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::past::Look;

/// Alerts that are listed.
const ALERTS_MAX: usize = 50;
/// Concerns that are listed.
const CONCERNS_MAX: usize = 100;

/// Everything a dashboard shows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DashboardView {
    /// How many agents have which status.
    pub agents: BTreeMap<String, usize>,
    /// How many operations have which status.
    pub operations_by_status: BTreeMap<String, usize>,
    /// How many operations under way have which priority.
    pub active_by_priority: BTreeMap<String, usize>,
    /// What happened lately.
    pub throughput: ThroughputView,
    /// From creation to end, of the last 1,024 operations.
    pub operation_duration_ms: PercentilesView,
    /// From start to success, of the last 1,024 steps.
    pub step_duration_ms: PercentilesView,
    /// Each platform and how it is.
    pub platforms: BTreeMap<String, String>,
    /// What is wrong with Photon or its agents.
    pub alerts: Vec<AlertView>,
    /// Work that will not go on well by itself, at most 100 of it and what waits for people first; at most
    /// 10,000 open operations are looked at.
    pub attention: Vec<ConcernView>,
}

/// What happened lately.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThroughputView {
    /// Operations created in the last minute.
    pub created_last_minute: u64,
    /// Operations completed in the last minute.
    pub completed_last_minute: u64,
    /// Operations failed in the last minute.
    pub failed_last_minute: u64,
    /// Steps completed in the last minute.
    pub steps_last_minute: u64,
    /// Operations completed in the last hour.
    pub completed_last_hour: u64,
}

/// Percentiles in milliseconds; null without samples.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PercentilesView {
    /// Half are faster.
    pub p50: Option<u64>,
    /// 95 % are faster.
    pub p95: Option<u64>,
    /// 99 % are faster.
    pub p99: Option<u64>,
}

/// Work that somebody should look at.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConcernView {
    /// `needs_attention`, `approval_expiring`, `approval_waiting`, `no_capable_agent`, `agents_unavailable`,
    /// `lease_lost_twice`, `deadline_at_risk` or `retry_storm`.
    pub kind: String,
    /// Which operation; absent when it is about all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// Which step, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// A sentence that says what to do.
    pub detail: String,
}

impl From<Concern> for ConcernView {
    fn from(concern: Concern) -> Self {
        Self {
            kind: concern.kind.name().into(),
            operation_id: concern.operation.map(|id| id.to_string()),
            step: concern.step,
            detail: concern.detail,
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertView {
    /// `quarantined`, `agent_error` or `performance`.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// A sentence.
    pub detail: String,
}

impl DashboardView {
    /// Looks at the views of a moment.
    #[must_use]
    pub fn of(api: &Api, views: &Look<'_>) -> Self {
        let now = views.time(api);
        let mut alerts = alerts(views);
        let present = !views.is_past();
        for stream in api.core.supervisor.quarantined().into_iter().filter(|_| present) {
            let detail = "It failed too often and is out of service until the next start.".into();
            alerts.push(AlertView { kind: "quarantined".into(), subject: stream.to_string(), detail });
        }
        for alert in api.watched.alerts().into_iter().filter(|_| present) {
            let (subject, value, threshold) = (alert.metric.name(), alert.value, alert.threshold);
            let detail = format!("It was {value} at the last sample; more than {threshold} is too much.");
            // Before the others: it concerns them all.
            alerts.insert(0, AlertView { kind: "performance".into(), subject: subject.into(), detail });
        }
        alerts.truncate(ALERTS_MAX);
        let agents = views.agent_counts().map(|(status, count)| (status.to_owned(), count)).into();
        let count = |status, priority| views.operations.count(status, priority);
        let by_status = Status::ALL.map(|status| {
            (
                status.name().to_owned(),
                Priority::ALL.into_iter().map(|priority| count(status, priority)).sum(),
            )
        });
        let by_priority = Priority::ALL.map(|priority| {
            let active = count(Status::Pending, priority) + count(Status::InProgress, priority);
            (priority.name().to_owned(), active)
        });
        Self {
            agents,
            operations_by_status: by_status.into(),
            active_by_priority: by_priority.into(),
            throughput: throughput(views, now),
            operation_duration_ms: percentiles(&views.dashboard.operations),
            step_duration_ms: percentiles(&views.dashboard.steps),
            platforms: api.platforms.iter().map(|(name, _)| (name.to_string(), "available".into())).collect(),
            alerts,
            attention: concerns(views, now, CONCERNS_MAX).into_iter().map(ConcernView::from).collect(),
        }
    }
}

fn percentiles(durations: &Durations) -> PercentilesView {
    match durations.percentiles([50, 95, 99]) {
        None => PercentilesView::default(),
        Some([p50, p95, p99]) => PercentilesView { p50: Some(p50), p95: Some(p95), p99: Some(p99) },
    }
}

fn throughput(views: &Views, now: Timestamp) -> ThroughputView {
    let mut shown = ThroughputView::default();
    for second in views.dashboard.last_minute(now) {
        shown.created_last_minute += second.created;
        shown.completed_last_minute += second.completed;
        shown.failed_last_minute += second.failed;
        shown.steps_last_minute += second.steps;
    }
    shown.completed_last_hour = views.dashboard.last_minutes(now, 60).map(|minute| minute.completed).sum();
    shown
}

fn alerts(views: &Views) -> Vec<AlertView> {
    let mut alerts = Vec::new();
    for (id, row) in views.agents.iter() {
        if row.agent.status == AgentStatus::Error {
            let detail = format!("The agent is in error: {}.", row.agent.status_reason.name());
            alerts.push(AlertView { kind: "agent_error".into(), subject: id.to_string(), detail });
        }
    }
    alerts
}
