//! What happened to each step of an operation, as its events tell it: who was chosen and why, how each
//! attempt ended, what the agent said last, and what a person is asked. It must never compute a score again:
//! what stood then is what counted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::story::{Story, text};
use super::choice;
use crate::client::{Client, ClientError};
use crate::http::event_view::EventView;
use crate::http::lease_names::as_stored;
use crate::http::operation_view::OperationView;

/// Events that are read; of an operation with more, the newest.
const EVENTS_MAX: usize = 2_000;
const TYPES: &str = "step.*,steps.cancelled,steps.skipped";
const ASKED_CHARS_MAX: usize = 2_000;

/// What happened to one step.
#[derive(Debug, Default)]
pub(super) struct StepStory {
    /// One line for each choice of an agent and each end of an attempt, oldest first.
    pub(super) lines: Vec<String>,
    /// What the agent said last about its progress.
    pub(super) note: Option<String>,
    /// What a person is asked.
    pub(super) asked: Option<String>,
}

/// What happened to each step, by its number.
pub(super) async fn of_operation(
    client: &Client,
    operation: &OperationView,
) -> Result<BTreeMap<u32, StepStory>, ClientError> {
    let filters =
        [("operation", operation.id.clone()), ("types", TYPES.to_owned()), ("order", "desc".to_owned())];
    let mut events = client.events(&filters, EVENTS_MAX).await?;
    events.reverse();
    let mut steps: BTreeMap<u32, StepStory> = BTreeMap::new();
    for event in events {
        for step in numbers(&event.data) {
            steps.entry(step).or_default().add(event.clone());
        }
    }
    Ok(steps)
}

/// The steps that an event is about.
fn numbers(data: &Value) -> Vec<u32> {
    let many = data["steps"].as_array().into_iter().flatten();
    many.chain([&data["step"]]).filter_map(Value::as_u64).filter_map(|step| step.try_into().ok()).collect()
}

impl StepStory {
    fn add(&mut self, mut event: EventView) {
        match event.kind.as_str() {
            "step.reserved" => {
                self.note = None;
                as_stored(&mut event.data);
                let choice = serde_json::from_value(event.data).ok();
                self.lines.extend(choice.map(|choice| choice::sentence(&choice)));
            }
            "step.progressed" => {
                let note = text(&event.data["note"]);
                let progress = &event.data["progress"];
                self.note = Some(if note.is_empty() {
                    format!("{progress} %")
                } else {
                    format!("{progress} %: {note}")
                });
            }
            "step.started" | "step.checkpointed" => {}
            "step.approval_requested" => {
                let asked = event.data["inputs"].to_string();
                self.asked = Some(asked.chars().take(ASKED_CHARS_MAX).collect());
            }
            "steps.cancelled" => self.lines.push("cancelled".to_owned()),
            "steps.skipped" => {}
            _ => {
                // "Step 3 was taken from a: …": the step is the heading already.
                let told = Story::default().line(&event);
                let begin = format!("Step {} ", event.data["step"]);
                let told = told.strip_prefix(&begin).unwrap_or(&told).trim_end_matches('.').to_owned();
                self.lines.push(format!("{} {told}", event.time));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use serde_json::json;

    fn add(story: &mut StepStory, kind: &str, data: Value) {
        story.add(EventView {
            specversion: "1.0".into(),
            id: "1".into(),
            source: "/photon".into(),
            kind: kind.into(),
            subject: "operation/op_1".into(),
            time: Timestamp::default(),
            datacontenttype: "application/json".into(),
            sequence: "1".into(),
            revision: "1".into(),
            correlationid: None,
            causationid: None,
            actor: "photon".into(),
            data,
        });
    }

    #[test]
    fn a_step_tells_how_its_attempts_ended_the_last_note_and_what_is_asked() {
        let mut story = StepStory::default();
        add(&mut story, "step.started", json!({"step": 1, "attempt": 1}));
        add(&mut story, "step.progressed", json!({"step": 1, "progress": 40, "note": "page 2"}));
        add(&mut story, "step.lease_lost", json!({"step": 1, "agent": "a", "reason": "agent_timeout"}));
        add(&mut story, "step.approval_requested", json!({"step": 1, "inputs": {"text": "ship it?"}}));
        assert_eq!(story.note.as_deref(), Some("40 %: page 2"));
        assert_eq!(story.asked.as_deref(), Some(r#"{"text":"ship it?"}"#));
        assert!(
            story.lines.len() == 1 && story.lines[0].ends_with("was taken from a: the agent fell silent")
        );
    }

    #[test]
    fn an_event_of_many_steps_is_about_each() {
        assert_eq!(numbers(&json!({"steps": [3, 4]})), [3, 4]);
        assert_eq!(numbers(&json!({"step": 7})), [7]);
        assert!(numbers(&json!({})).is_empty());
    }
}
