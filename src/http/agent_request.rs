//! What a client sends about agents, and how it becomes the domain's wish.

use domain::agent::event::{Config, Patch, Profile, ReportedMetrics, Status};
use domain::json::{lossless, lossless_option};
use domain::operation::definition::Location;
use domain::{AgentId, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{lossless_present, object, object_present, optional_object, present};
use super::error::{ApiError, FieldError};
use super::operation_request::invalid_fields;

/// The path beside the agents' ids, which hides an agent of this name.
const SELECT: &str = "select";

/// A new agent: the specification's `RegisterAgentRequest`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterAgent {
    /// Its id, `[A-Za-z0-9._-]{1,128}`.
    pub id: String,
    /// For people; the id when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Which AI model it is; `none` when absent.
    #[serde(default)]
    pub model: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// `local` (when absent), `cloud`, `edge`, `mobile` or `remote`.
    #[serde(default = "local")]
    #[schema(value_type = String)]
    pub location: Location,
    /// Its settings.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = Object)]
    pub config: Config,
    /// Free data: an object.
    #[serde(default = "Json::object", deserialize_with = "lossless")]
    #[schema(value_type = Object)]
    pub metadata: Json,
    /// The incarnation it believes to be; a lower one than the current is refused.
    #[serde(default)]
    pub incarnation: Option<u64>,
}

/// A change of an agent; what is absent stays, and null is refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpdateAgent {
    /// For people.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which AI model it is.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it can do.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Where it is.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub location: Option<Location>,
    /// Its settings, as a whole.
    #[serde(deserialize_with = "object_present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub config: Option<Config>,
    /// Free data, as a whole.
    #[serde(deserialize_with = "lossless_present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Json>,
    /// `inactive` drains it: it finishes what it has and gets no more, in later incarnations too, until
    /// `active`, which also ends a quarantine; or `error`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<Status>,
}

/// A sign of life.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Heartbeat {
    /// Which incarnation speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// The status it wants: `inactive` finishes what it has and takes no more; `active` ends that, and a
    /// quarantine, but no drain that somebody else asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<Status>,
    /// What it reports about itself.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<ReportedMetrics>,
    /// Leases that it works on.
    pub leases: Vec<HeartbeatLease>,
}

/// One lease in a heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatLease {
    /// The lease.
    pub lease_id: String,
    /// Whole percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// For people: one line. It is cut at 1 024 characters, and control characters become spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Kept for the next attempt, at most 64 KiB.
    #[serde(default, deserialize_with = "lossless_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub checkpoint: Option<Json>,
}

/// A wish for work.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimWork {
    /// How long to wait, such as `30s`; at most `55s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Most leases.
    pub max: u32,
    /// Only these actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// The incarnation that claims; an earlier one than the current is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
}

impl Default for ClaimWork {
    fn default() -> Self {
        Self { wait: None, max: 1, actions: None, incarnation: None }
    }
}

fn local() -> Location {
    Location::Local
}

fn refused(faults: Vec<(String, String)>) -> Result<(), ApiError> {
    let faults: Vec<FieldError> =
        faults.into_iter().map(|(pointer, detail)| FieldError::at(pointer, detail)).collect();
    if faults.is_empty() { Ok(()) } else { Err(invalid_fields(faults)) }
}

impl RegisterAgent {
    /// The domain's profile, and under which id and incarnation.
    ///
    /// # Errors
    /// 422 with each faulty field.
    pub fn profile(self) -> Result<(AgentId, Profile, Option<u64>), ApiError> {
        let id: AgentId = self
            .id
            .parse()
            .map_err(|fault: domain::IdError| ApiError::invalid_field("/id", fault.to_string()))?;
        if id.as_str() == SELECT {
            return Err(ApiError::invalid_field(
                "/id",
                format!("'{SELECT}' is no id: it is a path of its own"),
            ));
        }
        let profile = Profile {
            name: self.name.unwrap_or_else(|| id.to_string()),
            model: self.model.unwrap_or_else(|| "none".into()),
            capabilities: self.capabilities,
            location: self.location,
            config: self.config,
            metadata: self.metadata,
        };
        refused(profile.faults())?;
        Ok((id, profile, self.incarnation))
    }
}

impl UpdateAgent {
    /// The domain's patch.
    ///
    /// # Errors
    /// 422 with each faulty field.
    pub fn patch(self) -> Result<Patch, ApiError> {
        let Self { name, model, capabilities, location, config, metadata, .. } = self;
        let patch = Patch { name, model, capabilities, location, config, metadata };
        refused(patch.faults())?;
        Ok(patch)
    }
}

impl HeartbeatLease {
    /// Fields that break a rule; a checkpoint has at most `checkpoint_max` bytes.
    #[must_use]
    pub fn faults(&self, checkpoint_max: usize) -> Vec<FieldError> {
        let mut faults: Vec<FieldError> = self.progress.and_then(progress_fault).into_iter().collect();
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.len() > checkpoint_max) {
            let detail = format!("a checkpoint has at most {checkpoint_max} bytes");
            faults.push(FieldError::at("/checkpoint", detail));
        }
        if let Some(why) = self.checkpoint.as_ref().and_then(Json::unstorable) {
            faults.push(FieldError::at("/checkpoint", format!("a checkpoint {why}")).code(why.code()));
        }
        faults
    }
}

/// What is wrong with what an agent reports about itself.
#[must_use]
pub fn metrics_faults(metrics: &ReportedMetrics) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let shares = [("cpuUsage", metrics.cpu_usage), ("memoryUsage", metrics.memory_usage)];
    for (name, value) in shares {
        if value.is_some_and(|value| !(0.0..=100.0).contains(&value)) {
            faults.push(FieldError::at(format!("/metrics/{name}"), format!("{name} must be from 0 to 100")));
        }
    }
    if metrics.network_latency.is_some_and(|latency| !(0.0..=3_600_000.0).contains(&latency)) {
        faults.push(FieldError::at("/metrics/networkLatency", "networkLatency must be from 0 to 3600000 ms"));
    }
    faults
}

/// What is wrong with how far a step is said to be.
#[must_use]
pub fn progress_fault(progress: u8) -> Option<FieldError> {
    (progress > 100).then(|| FieldError::at("/progress", "progress must be from 0 to 100"))
}
