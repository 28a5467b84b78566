//! The route of heartbeats. Owns what counts of one that is wrong: it is a sign of life all the same, and
//! each lease in it is judged alone.
//! It must never refuse one lease for what is said of another.

use actix_web::{HttpRequest, web};
use actors::gateway::stream_of;
use actors::protocol::{Beat, LeaseBeat};
use domain::agent::Agent;
use domain::agent::event::{ReportedMetrics, Status};
use domain::{AgentId, LeaseId};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Api;
use super::agent_request::{Heartbeat, HeartbeatLease, metrics_faults};
use super::agent_view::{HeartbeatView, RejectedView};
use super::body::{RawBody, optional_object, parsed};
use super::envelope::Reply;
use super::error::{ApiError, Code};
use super::events::AGENT_HEARTBEAT;
use super::front::ReachAtOnce;
use super::intent::metadata;
use super::lease_names::{Foreign, MALFORMED};
use super::operation_request::invalid_fields;
use super::operations::Answer;
use super::query::Parameters;

/// Largest heartbeat, in bytes.
const HEARTBEAT_MAX: usize = 256 * 1024;
/// Leases that one heartbeat may name.
const LEASES_MAX: usize = 1_000;

/// Takes a heartbeat: renews leases and says what to do. A heartbeat that is refused is a sign of life all
/// the same, of the agent and of the leases that can be read; what is wrong about one lease is told in
/// `rejected`.
#[utoipa::path(post, path = "/api/v1/agents/{id}/heartbeat", tag = "agents", params(("id" = String, Path)),
    request_body = Heartbeat,
    responses((status = 200, body = super::envelope::ApiResponse<HeartbeatView>),
        (status = 400, description = "it cannot be read, and counts as a sign of life"),
        (status = 404, description = "register again"),
        (status = 409, description = "a newer incarnation has taken over; it counts for nothing")))]
pub async fn heartbeat(
    api: ReachAtOnce,
    request: HttpRequest,
    id: web::Path<String>,
    body: RawBody<HEARTBEAT_MAX>,
) -> Answer<HeartbeatView> {
    let id: AgentId = id.parse()?;
    let sent = body.bytes();
    let read = sent.clone().and_then(read);
    let refusal = Parameters::of(&request, &[], &[]).err().or_else(|| read.as_ref().err().cloned());
    let arrived = read.unwrap_or_else(|_| salvaged(sent.unwrap_or_default()));
    let mut leases = Leases::default();
    for (at, raw) in arrived.leases.iter().enumerate().take(LEASES_MAX) {
        leases.read(&api, at, raw);
    }
    let Leases { beats, foreign, mut rejected } = leases;
    let Arrived { incarnation, status, metrics, .. } = arrived;
    let beat = Beat { incarnation, status, metrics, leases: beats };
    let count = beat.leases.len();
    api.core.note_presence(&id, &beat);
    let api = api.shown().await?;
    let taken = api.core.heartbeat(&id, beat, &metadata()).await;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let pulse = taken?;
    let now = api.core.around.clock.now();
    api.feed.pass(AGENT_HEARTBEAT, &stream_of::<Agent>(&id), now, || json!({"leases": count}));
    let mut view = HeartbeatView::of(pulse, &api.lease_names, foreign);
    view.rejected.append(&mut rejected);
    Ok(Reply::ok(view))
}

/// A heartbeat of which the leases are still to be read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Arrived {
    incarnation: Option<u64>,
    status: Option<Status>,
    #[serde(deserialize_with = "optional_object")]
    metrics: Option<ReportedMetrics>,
    leases: Vec<Box<RawValue>>,
}

fn read(bytes: &[u8]) -> Result<Arrived, ApiError> {
    if bytes.is_empty() {
        return Ok(Arrived::default());
    }
    let arrived: Arrived = parsed(bytes)?;
    let faults = metrics_faults(&arrived.metrics.unwrap_or_default());
    if !faults.is_empty() {
        return Err(invalid_fields(faults));
    }
    if arrived.leases.len() > LEASES_MAX {
        let detail = format!("a heartbeat names at most {LEASES_MAX} leases");
        return Err(ApiError::invalid_field("/leases", detail));
    }
    Ok(arrived)
}

/// What counts of a heartbeat that is refused: who speaks, and of which leases.
fn salvaged(bytes: &[u8]) -> Arrived {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Parts<'a> {
        #[serde(borrow)]
        incarnation: Option<&'a RawValue>,
        #[serde(borrow)]
        leases: Option<&'a RawValue>,
    }
    let parts: Parts<'_> = serde_json::from_slice(bytes).unwrap_or_default();
    let stated = parts.incarnation.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let leases = parts.leases.and_then(|raw| serde_json::from_str(raw.get()).ok());
    Arrived {
        incarnation: stated.or_else(|| incarnation_within(&String::from_utf8_lossy(bytes))),
        leases: leases.unwrap_or_default(),
        ..Arrived::default()
    }
}

/// The incarnation that stands in a text that is no JSON: a heartbeat of one that is over must not count.
fn incarnation_within(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("\"incarnation\"")?;
    let number = after.trim_start().strip_prefix(':')?.trim_start();
    let end = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

/// What is said of leases, as far as it can be read.
#[derive(Default)]
struct Leases {
    beats: Vec<LeaseBeat>,
    /// Leases that another history of the log granted.
    foreign: Vec<String>,
    rejected: Vec<RejectedView>,
}

impl Leases {
    fn read(&mut self, api: &Api, at: usize, raw: &RawValue) {
        let report = report(raw, api.core.around.world.limits.max_checkpoint_bytes);
        let name = match &report {
            Ok(report) => report.lease_id.clone(),
            Err(_) => name_within(raw).unwrap_or_default(),
        };
        let lease = match api.lease_names.read(&name) {
            Ok(lease) => lease,
            Err(Foreign::OtherHistory) => return self.foreign.push(name),
            Err(Foreign::Malformed) => {
                let unnamed = || ApiError::new(Code::InvalidField, MALFORMED.to_string());
                return self.reject(at, name, &report.err().unwrap_or_else(unnamed));
            }
        };
        match report {
            Ok(report) => self.beats.push(beat(lease, Some(report))),
            Err(refusal) => {
                self.beats.push(beat(lease, None));
                self.reject(at, name, &refusal);
            }
        }
    }

    fn reject(&mut self, at: usize, lease_id: String, refusal: &ApiError) {
        let (code, message) = (refusal.code.slug().to_owned(), &refusal.message);
        self.rejected.push(RejectedView { lease_id, code, detail: format!("leases[{at}]: {message}") });
    }
}

/// The lease that a report names of which something else cannot be read.
fn name_within(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        lease_id: String,
    }
    serde_json::from_str(raw.get()).ok().map(|Named { lease_id }| lease_id)
}

/// What is said of one lease; a checkpoint has at most `checkpoint_max` bytes.
fn report(raw: &RawValue, checkpoint_max: usize) -> Result<HeartbeatLease, ApiError> {
    if !raw.get().starts_with('{') {
        return Err(ApiError::new(Code::InvalidField, "A lease must be an object with its leaseId."));
    }
    let lease: HeartbeatLease = parsed(raw.get().as_bytes())?;
    let faults = lease.faults(checkpoint_max);
    if faults.is_empty() { Ok(lease) } else { Err(invalid_fields(faults)) }
}

/// A lease that is only named is renewed all the same.
fn beat(lease: LeaseId, report: Option<HeartbeatLease>) -> LeaseBeat {
    let (progress, note, checkpoint) =
        report.map_or((None, None, None), |report| (report.progress, report.note, report.checkpoint));
    LeaseBeat { lease, progress, note, checkpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_still_says_who_speaks_and_of_which_leases() {
        for (body, incarnation, leases) in [
            (r#"{"incarnation": 7, "leases": [{"leaseId": "a"}, 5], "colour": "red"}"#, Some(7), 2),
            (r#"{"incarnation": 7, "status": "actve", "leases": [{}]}"#, Some(7), 1),
            (r#"{"incarnation": "7", "leases": {}}"#, None, 0),
            (r#"{"leases": [{"leaseId": "a"}], "metrics": 5}"#, None, 1),
            (r#"{"incarnation" : 7, "leases": [{"leaseId""#, Some(7), 0),
            (r#"{"incarnation": 99999999999999999999"#, None, 0),
            ("incarnation", None, 0),
            ("\u{ff}", None, 0),
        ] {
            let salvaged = salvaged(body.as_bytes());
            assert!(read(body.as_bytes()).is_err(), "{body}");
            assert_eq!((salvaged.incarnation, salvaged.leases.len()), (incarnation, leases), "{body}");
        }
    }

    #[test]
    fn a_report_about_a_lease_is_refused_for_what_it_says_of_it() {
        let read = |text: &str| report(&RawValue::from_string(text.to_owned()).unwrap(), 64);
        let whole = r#"{"leaseId": "a", "progress": 33, "note": "two\nlines", "checkpoint": {"at": 1}}"#;
        assert_eq!(read(whole).unwrap().progress, Some(33));
        for (lease, code, words) in [
            (
                r#"{"leaseId": "a", "progress": 33.4}"#,
                Code::InvalidField,
                "'/progress' must be a whole number",
            ),
            (r#"{"leaseId": "a", "progress": 101}"#, Code::InvalidField, "from 0 to 100"),
            (r#"{"leaseId": "a", "progess": 1}"#, Code::UnknownField, "Did you mean 'progress'?"),
            (r#"{"progress": 1}"#, Code::InvalidField, "'/leaseId' is missing"),
            (r#"{"leaseId": "a", "checkpoint": 18446744073709551616}"#, Code::InvalidField, "a checkpoint"),
            ("[]", Code::InvalidField, "must be an object"),
        ] {
            let refused = read(lease).unwrap_err();
            assert_eq!(refused.code, code, "{lease}");
            assert!(refused.message.contains(words), "{refused}");
        }
        let long = format!(r#"{{"leaseId": "a", "checkpoint": "{}"}}"#, "x".repeat(64));
        assert!(read(&long).unwrap_err().message.contains("at most 64 bytes"));
    }
}
