//! Owns how an event is told to a person, in one sentence. It must never tell what did not happen: an event
//! that it does not know is named, not guessed at.

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

    /// The sentence for an event of an operation; none for one that a person need not hear of.
    pub(super) fn line(&self, event: &EventView) -> Option<String> {
        let (kind, data) = (event.kind.as_str(), &event.data);
        let told = match kind.split_once('.') {
            Some(("operation", _)) => of_operation(kind, data)?,
            Some(("step" | "steps", _)) => self.of_step(kind, data)?,
            _ => kind.to_owned(),
        };
        Some(told)
    }

    fn of_step(&self, kind: &str, data: &Value) -> Option<String> {
        let step = self.step(&data["step"]);
        let agent = text(&data["agent"]);
        let attempt = data["attempt"].as_u64().unwrap_or(1);
        let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        Some(match kind {
            "step.reserved" => format!("{step} goes to {agent}{again}."),
            "step.started" | "step.checkpointed" => return None,
            "step.progressed" => format!("{step} is at {} %. {}", data["progress"], text(&data["note"])),
            "step.completed" => format!("{step} is done by {agent} after {}.", millis(&data["durationMs"])),
            "step.failed" => {
                let end = if data["final"] == true { "for good" } else { "for now" };
                format!(
                    "{step} failed {end}: {} ({})",
                    text(&data["error"]["message"]),
                    text(&data["error"]["code"])
                )
            }
            "step.lease_lost" => format!("{step} was taken from {agent}: {}.", loss(&text(&data["reason"]))),
            "step.retry_scheduled" => {
                format!("{step} will be tried again in {}{again}.", millis(&data["delayMs"]))
            }
            "step.offer_expired" => {
                format!("{step} was not taken by {agent}: {}.", loss(&text(&data["reason"])))
            }
            "step.released" => format!("{step} was given back by {agent}: {}.", text(&data["reason"])),
            "steps.skipped" => {
                let reason = match data["reason"].as_str() {
                    Some("condition") => "its condition does not hold",
                    _ => "a step before it failed",
                };
                format!("{} skipped: {reason}.", self.steps(&data["steps"]))
            }
            "steps.cancelled" => format!("{} cancelled.", self.steps(&data["steps"])),
            other => format!("{step}: {other}."),
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
    Some(match kind {
        "operation.created" => "The operation is accepted.".to_owned(),
        "operation.started" => "The operation starts.".to_owned(),
        "operation.completed" => "The operation is completed.".to_owned(),
        "operation.failed" => match data["reason"].as_str() {
            Some("deadline_exceeded") => "The operation failed: its deadline has passed.".to_owned(),
            _ => "The operation failed, since a step failed for good.".to_owned(),
        },
        "operation.cancelled" => format!("The operation is cancelled by {}.", text(&data["by"])),
        // The steps say it already.
        "operation.progressed" => return None,
        other => format!("{other}."),
    })
}

/// A reason for the loss of a lease in words.
fn loss(reason: &str) -> String {
    match reason {
        "agent_timeout" => "the agent fell silent".to_owned(),
        "lease_expired" => "the agent said nothing about it for too long".to_owned(),
        "agent_unregistered" | "agent_gone" => "the agent is gone".to_owned(),
        "new_incarnation" => "the agent began anew".to_owned(),
        "no_sign_of_life" => "no sign of life came".to_owned(),
        "revoked" => "an operator took it away".to_owned(),
        other => other.to_owned(),
    }
}

/// A text of the event, safe for a terminal and of bounded length.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
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

    fn told(kind: &str, data: Value) -> Option<String> {
        let story = Story { actions: BTreeMap::from([(3, "duplicates".to_owned())]) };
        let event = EventView {
            specversion: "1.0".into(),
            id: "1".into(),
            source: "/photon".into(),
            kind: kind.into(),
            subject: "op_1".into(),
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
            ("agent.timeout", json!({}), "agent.timeout"),
        ];
        for (kind, data, sentence) in table {
            assert_eq!(told(kind, data).as_deref(), Some(sentence));
        }
        assert_eq!(told("step.started", json!({"step": 3})), None);
    }
}
