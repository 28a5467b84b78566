//! Owns how an event is told to a person, in one sentence. It must never tell what did not happen.

mod others;

use std::collections::BTreeMap;

use serde_json::Value;

use super::terminal::{plain, span};
use crate::http::event_view::EventView;
use crate::http::operation_view::OperationView;

const TEXT_CHARS_MAX: usize = 200;

/// What a story needs to know of an operation: what its steps are called.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    actions: BTreeMap<u64, String>,
}

impl Story {
    pub(super) fn of(operation: &OperationView) -> Self {
        let steps = operation.workflow.iter();
        Self { actions: steps.map(|step| (u64::from(step.step), step.action.clone())).collect() }
    }

    /// The sentence for an event.
    pub(super) fn line(&self, event: &EventView) -> String {
        let (kind, data) = (event.kind.as_str(), &event.data);
        let told = match kind.split_once('.') {
            Some(("operation", _)) => of_operation(kind, data),
            Some(("step" | "steps" | "lease", _)) => self.of_step(kind, data),
            _ => others::sentence(event),
        };
        // What another version of the server tells is named, not guessed at.
        told.unwrap_or_else(|| format!("{}.", plain(kind)))
    }

    fn of_step(&self, kind: &str, data: &Value) -> Option<String> {
        let step = self.step(&data["step"]);
        let agent = text(&data["agent"]);
        let attempt = data["attempt"].as_u64().unwrap_or(1);
        let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        Some(match kind {
            "step.reserved" => format!("{step} goes to {agent}{again}."),
            "step.started" => format!("{step} begins with attempt {attempt}."),
            "step.checkpointed" => format!("{step} has a new checkpoint."),
            "step.progressed" => {
                format!("{step} is at {} %{}.", data["progress"], after_colon(&data["note"]))
            }
            "step.completed" if agent.is_empty() => format!("{step} is done."),
            "step.completed" => format!("{step} is done by {agent} after {}.", millis(&data["durationMs"])),
            "step.failed" => {
                let end = if data["final"] == true { "for good" } else { "for now" };
                format!("{step} failed {end}: {}", error(&data["error"]))
            }
            "step.lease_lost" => format!("{step} was taken from {agent}: {}.", loss(&text(&data["reason"]))),
            "step.retry_scheduled" => {
                format!("{step} will be tried again in {}{again}.", millis(&data["delayMs"]))
            }
            "step.offer_expired" => {
                format!("{step} was not taken by {agent}: {}.", loss(&text(&data["reason"])))
            }
            "step.released" => format!("{step} was given back by {agent}{}.", after_colon(&data["reason"])),
            "step.limited" => {
                let until = text(&data["until"]);
                let error = error(&data["error"]);
                format!(
                    "{step} was given back by {agent}, whose provider takes no calls until {until}: {error}"
                )
            }
            "lease.closed" => {
                let step = self.step(&step_of_lease(&data["leaseId"]));
                format!("The lease of {} is closed: {}.", lower(&step), loss(&text(&data["why"])))
            }
            _ => return self.of_people(kind, data),
        })
    }

    /// What people are asked and say, and what follows for several steps at once.
    fn of_people(&self, kind: &str, data: &Value) -> Option<String> {
        let step = self.step(&data["step"]);
        let (by, reason) = (text(&data["by"]), after_colon(&data["reason"]));
        Some(match kind {
            "step.approval_requested" => {
                let title = Some(text(&data["title"])).filter(|title| !title.is_empty());
                let asked = title.unwrap_or_else(|| bounded(&data["inputs"].to_string()));
                format!("{step} asks for approval until {}: {asked}.", text(&data["until"]))
            }
            "step.approved" => format!("{step} is approved by {by}{reason}."),
            "step.rejected" => format!("{step} is rejected by {by}{reason}."),
            "step.needs_attention" => {
                let attempt = &data["attempt"];
                let error = error(&data["error"]);
                format!("{step} needs attention: nobody knows whether attempt {attempt} took effect: {error}")
            }
            "step.resolved" => {
                format!("{step} is resolved by {by} with '{}'{reason}.", text(&data["resolution"]))
            }
            "steps.skipped" => {
                let reason = match data["reason"].as_str() {
                    Some("condition") => "its condition does not hold",
                    Some("requested") => "somebody asked for that",
                    _ => "a step before it failed",
                };
                format!("{} skipped: {reason}.", self.steps(&data["steps"]))
            }
            "steps.cancelled" => format!("{} cancelled.", self.steps(&data["steps"])),
            _ => return None,
        })
    }

    /// "Step 3 (duplicates)".
    fn step(&self, number: &Value) -> String {
        match number.as_u64().and_then(|number| self.actions.get(&number)) {
            Some(action) => format!("Step {number} ({})", plain(action)),
            None => format!("Step {number}"),
        }
    }

    fn steps(&self, numbers: &Value) -> String {
        let numbers = numbers.as_array().map_or(&[][..], Vec::as_slice);
        match numbers {
            [one] => format!("{} is", self.step(one)),
            [first, .., last] => format!("{} steps, {first} to {last}, are", numbers.len()),
            [] => "No step is".to_owned(),
        }
    }
}

fn of_operation(kind: &str, data: &Value) -> Option<String> {
    let by = text(&data["by"]);
    Some(match kind {
        "operation.created" => "The operation is accepted.".to_owned(),
        "operation.started" => "The operation starts.".to_owned(),
        "operation.updated" => format!("The operation is changed: {}.", fields(data)),
        "operation.progressed" => format!("The operation is at {} %.", data["progress"]),
        "operation.paused" => format!("The operation is paused by {by}{}.", after_colon(&data["reason"])),
        "operation.resumed" => format!("The operation is resumed by {by}."),
        "operation.completed" => "The operation is completed.".to_owned(),
        "operation.failed" => match data["reason"].as_str() {
            Some("deadline_exceeded") => "The operation failed: its deadline has passed.".to_owned(),
            _ => "The operation failed, since a step failed for good.".to_owned(),
        },
        "operation.cancelled" => format!("The operation is cancelled by {by}."),
        _ => return None,
    })
}

/// Whether an event only says in detail what others say too.
pub(super) fn is_detail(kind: &str) -> bool {
    matches!(kind, "step.started" | "step.checkpointed" | "operation.progressed")
}

/// The names of the fields that hold something.
fn fields(data: &Value) -> String {
    let held = data.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let names: Vec<&str> = held.map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// "message (code)."
fn error(error: &Value) -> String {
    format!("{} ({}).", text(&error["message"]), text(&error["code"]))
}

/// ": text", or nothing when there is none.
fn after_colon(value: &Value) -> String {
    let text = text(value);
    if text.is_empty() { text } else { format!(": {text}") }
}

/// The number of the step in the name of a lease.
fn step_of_lease(lease: &Value) -> Value {
    let number = lease.as_str().and_then(|name| name.rsplit('_').nth(1)).and_then(|step| step.parse().ok());
    number.map_or(Value::Null, |number: u64| number.into())
}

fn lower(step: &str) -> String {
    step.strip_prefix('S').map_or_else(|| step.to_owned(), |rest| format!("s{rest}"))
}

/// Why a lease ended, in words.
pub(super) fn loss(reason: &str) -> String {
    match reason {
        "agent_timeout" => "the agent fell silent".to_owned(),
        "lease_expired" => "the agent said nothing about it for too long".to_owned(),
        "agent_unregistered" => "the agent unregistered".to_owned(),
        "new_incarnation" => "the agent began anew".to_owned(),
        "no_sign_of_life" => "no sign of life came".to_owned(),
        "revoked" => "an operator took it away".to_owned(),
        "not_heard" => "nobody heard whether it was reserved".to_owned(),
        "reported" => "the agent reported".to_owned(),
        "grace_expired" => "the agent did not report in time".to_owned(),
        other => other.to_owned(),
    }
}

/// A text of the event, safe for a terminal and of bounded length.
pub(super) fn text(value: &Value) -> String {
    bounded(value.as_str().unwrap_or_default())
}

fn bounded(text: &str) -> String {
    plain(text).chars().take(TEXT_CHARS_MAX).collect::<String>().trim_end_matches(['.', ' ']).to_owned()
}

fn millis(value: &Value) -> String {
    span(std::time::Duration::from_millis(value.as_u64().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use serde_json::json;

    fn told(kind: &str, data: Value) -> String {
        let story = Story { actions: BTreeMap::from([(3, "duplicates".to_owned())]) };
        let event = EventView {
            specversion: "1.0".into(),
            id: "1".into(),
            source: "/photon".into(),
            kind: kind.into(),
            subject: "agent/a".into(),
            time: Timestamp::default(),
            datacontenttype: "application/json".into(),
            sequence: "1".into(),
            revision: "1".into(),
            correlationid: None,
            causationid: None,
            actor: "photon".into(),
            data,
        };
        story.line(&event)
    }

    #[test]
    fn an_event_is_told_in_one_sentence() {
        let table = [
            (
                "step.reserved",
                json!({"step": 3, "agent": "a", "attempt": 1}),
                "Step 3 (duplicates) goes to a.",
            ),
            ("step.reserved", json!({"step": 4, "agent": "a", "attempt": 2}), "Step 4 goes to a, attempt 2."),
            (
                "step.lease_lost",
                json!({"step": 3, "agent": "a", "reason": "agent_timeout"}),
                "Step 3 (duplicates) was taken from a: the agent fell silent.",
            ),
            ("steps.cancelled", json!({"steps": [4, 5]}), "2 steps, 4 to 5, are cancelled."),
            ("operation.cancelled", json!({"by": "a\u{1b}b"}), "The operation is cancelled by a b."),
            ("step.started", json!({"step": 3, "attempt": 2}), "Step 3 (duplicates) begins with attempt 2."),
            (
                "lease.closed",
                json!({"leaseId": "ls_abcdef_0123456789abcdef0123456789abcdef_3_2", "why": "reported"}),
                "The lease of step 3 (duplicates) is closed: the agent reported.",
            ),
            ("step.invented", json!({"step": 3}), "step.invented."),
        ];
        for (kind, data, sentence) in table {
            assert_eq!(told(kind, data), sentence);
        }
    }

    #[test]
    fn every_kind_of_event_has_a_sentence_of_its_own() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/events");
        for kind in crate::http::events::filter::known_types() {
            let sample = std::fs::read_to_string(format!("{folder}/{kind}.1.json"));
            // What only passes by is not stored, so that there is no sample of it.
            let passes_by = crate::http::events::LIVE_ONLY.contains(&kind);
            let data = if passes_by { json!({}) } else { serde_json::from_str(&sample.unwrap()).unwrap() };
            let sentence = told(kind, data);
            let whole = sentence.ends_with('.') && !sentence.contains("null") && !sentence.contains("  ");
            assert!(whole && sentence != format!("{kind}."), "{kind}: {sentence}");
        }
    }
}
