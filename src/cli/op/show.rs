//! Owns how one operation is written out for a person.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::table::pairs;
use super::super::terminal::{Style, ago, between, now, plain, span};
use super::super::timeline;
use super::attempts::StepStory;
use crate::http::operation_view::{BlockedOnView, OperationView, StepView};

/// Steps that are described one by one; the rest is to be had as JSON.
const STEPS_MAX: usize = 200;
const ERROR_CHARS_MAX: usize = 300;
/// A longer result is cut; the whole of it is to be had as JSON.
const RESULT_CHARS_MAX: usize = 1_000;

/// The operation, its timeline, and each step with its attempts and its result.
pub(super) fn text(operation: &OperationView, stories: &BTreeMap<u32, StepStory>, style: Style) -> String {
    let mut lines = vec![head(operation), String::new()];
    lines.extend(timeline::rows(operation, now(), style));
    lines.push(String::new());
    for step in operation.workflow.iter().take(STEPS_MAX) {
        lines.extend(described(&operation.id, step, stories.get(&step.step), style));
    }
    let left_out = operation.workflow.len().saturating_sub(STEPS_MAX);
    if left_out > 0 {
        lines.push(format!("… and {left_out} more steps; see -o json."));
    }
    lines.join("\n")
}

fn head(operation: &OperationView) -> String {
    let reason = operation.status_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let mut known = vec![
        ("Operation", operation.id.clone()),
        ("Name", operation.name.clone()),
        ("Status", format!("{}{reason}, {} %", operation.status, operation.progress)),
        ("Priority", operation.priority.name().to_owned()),
        ("Created", format!("{} ({})", operation.created_at, ago(operation.created_at))),
    ];
    if let (Some(from), Some(to)) = (operation.started_at, operation.completed_at) {
        known.push(("Lasted", span(between(from, to))));
    }
    if let Some(deadline) = operation.deadline {
        known.push(("Deadline", deadline.to_string()));
    }
    known.extend(operation.errors.iter().map(|error| ("Error", error.clone())));
    pairs(&known)
}

fn described(id: &str, step: &StepView, story: Option<&StepStory>, style: Style) -> Vec<String> {
    let status = style.status(&step.status, &step.status);
    let heading = style.bold(&format!("Step {} {}", step.step, plain(&step.action)));
    let mut lines = vec![format!("{heading}: {status}{}", circumstances(step))];
    lines.extend(step.title.as_ref().map(|title| format!("    {}", plain(title))));
    lines.extend(story.iter().flat_map(|story| &story.lines).map(|line| format!("    {}", plain(line))));
    if let Some(note) = story.and_then(|story| story.note.as_ref()) {
        lines.push(format!("    last note at {}", plain(note)));
    }
    lines.extend(question(id, step, story).into_iter().map(|line| format!("    {}", plain(&line))));
    if let Some(error) = &step.error {
        let code = step.error_code.as_deref().unwrap_or("error");
        let error: String = plain(error).chars().take(ERROR_CHARS_MAX).collect();
        lines.push(format!("    {code}: {error}"));
    }
    lines.extend(step.result.as_ref().map(|result| format!("    result: {}", cut(result))));
    lines
}

/// What a person is asked, and how to answer.
fn question(id: &str, step: &StepView, story: Option<&StepStory>) -> Vec<String> {
    let number = step.step;
    match step.blocked_on.as_ref().map(|blocked| blocked.kind.as_str()) {
        Some("approval") => {
            let asked = story.and_then(|story| story.asked.clone());
            let asked = asked.unwrap_or_else(|| cut(step.resolved_inputs.as_ref().unwrap_or(&step.inputs)));
            let answer = format!("'photon op approve {id} {number}' or 'photon op reject {id} {number}'");
            vec![format!("asks: {asked}"), format!("answer with {answer}")]
        }
        Some("attention") => {
            let answer = format!("'photon op resolve {id} {number} --outcome completed|failed|retry'");
            vec![format!("nobody knows whether it took effect; say it with {answer}")]
        }
        _ => Vec::new(),
    }
}

/// A value as JSON in one line of bounded length.
fn cut(value: &impl Serialize) -> String {
    let text = plain(&serde_json::to_string(value).unwrap_or_default());
    if text.chars().count() <= RESULT_CHARS_MAX {
        return text;
    }
    let kept: String = text.chars().take(RESULT_CHARS_MAX).collect();
    format!("{kept}… (see -o json)")
}

/// ", attempt 2, by editor, waits for steps 1, 2".
fn circumstances(step: &StepView) -> String {
    let mut parts = Vec::new();
    if step.attempt > 0 {
        parts.push(format!("attempt {}", step.attempt));
    }
    parts.extend(step.assigned_agent.as_ref().map(|agent| format!("by {agent}")));
    parts.extend(step.blocked_on.as_ref().map(waits_for));
    parts.iter().map(|part| format!(", {}", plain(part))).collect()
}

pub(in crate::cli) fn waits_for(blocked: &BlockedOnView) -> String {
    let agent = blocked.agent.as_deref().unwrap_or("its agent");
    match blocked.kind.as_str() {
        "dependencies" => {
            let steps: Vec<String> = blocked.steps.iter().take(10).map(ToString::to_string).collect();
            let more = if blocked.steps.len() > 10 { ", …" } else { "" };
            let noun = if steps.len() == 1 { "step" } else { "steps" };
            format!("waits for {noun} {}{more}", steps.join(", "))
        }
        "agent" => "waits for an agent that fits and asks for work".to_owned(),
        "acknowledgement" => format!("waits for a first sign of {agent}"),
        "report" => format!("waits for the report of {agent}"),
        "retry" => format!("waits{} for its next attempt", until(blocked)),
        "start" => "waits for the operation's start".to_owned(),
        "resume" => "waits for the operation to be resumed".to_owned(),
        "room" => "waits for another step to end, since as many run as maxParallel allows".to_owned(),
        "window" => format!("waits{} for the agent that it asks for", until(blocked)),
        "approval" => format!("waits{} for a person's approval", until(blocked)),
        "attention" => "waits for a person to say what became of it".to_owned(),
        other => format!("waits for {other}"),
    }
}

/// " until 2026-…", when there is such a moment.
fn until(blocked: &BlockedOnView) -> String {
    blocked.until.map(|at| format!(" until {at}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::operation::pending::Cause;

    #[test]
    fn every_cause_is_said_in_words() {
        for cause in Cause::ALL {
            let blocked =
                BlockedOnView { kind: cause.name().into(), steps: vec![2], agent: None, until: None };
            let words = waits_for(&blocked);
            assert!(words.starts_with("waits for ") && words != format!("waits for {}", cause.name()));
        }
    }

    #[test]
    fn a_long_result_is_cut() {
        assert_eq!(cut(&serde_json::json!({"a": 1})), r#"{"a":1}"#);
        let long = cut(&"x".repeat(5_000));
        assert!(long.ends_with("(see -o json)") && long.chars().count() < RESULT_CHARS_MAX + 20);
    }
}
