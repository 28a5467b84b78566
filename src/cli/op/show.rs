//! Owns how one operation is written out for a person.

use domain::operation::event::StepReserved;

use super::super::table::pairs;
use super::super::terminal::{Style, ago, between, now, plain, span};
use super::super::timeline;
use super::choice;
use crate::http::operation_view::{BlockedOnView, OperationView, StepView};

/// Steps that are described one by one; the rest is to be had as JSON.
const STEPS_MAX: usize = 200;
const ERROR_CHARS_MAX: usize = 300;

/// The operation, its timeline, and each step with the reasons for its agents.
pub(super) fn text(operation: &OperationView, choices: &[StepReserved], style: Style) -> String {
    let mut lines = vec![head(operation), String::new()];
    lines.extend(timeline::rows(operation, now(), style));
    lines.push(String::new());
    for step in operation.workflow.iter().take(STEPS_MAX) {
        let of_step: Vec<&StepReserved> = choices.iter().filter(|choice| choice.step == step.step).collect();
        lines.extend(described(step, &of_step, style));
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

fn described(step: &StepView, choices: &[&StepReserved], style: Style) -> Vec<String> {
    let status = style.status(&step.status, &step.status);
    let heading = style.bold(&format!("Step {} {}", step.step, plain(&step.action)));
    let mut lines = vec![format!("{heading}: {status}{}", circumstances(step))];
    lines.extend(step.title.as_ref().map(|title| format!("    {}", plain(title))));
    lines.extend(choices.iter().map(|chosen| format!("    {}", plain(&choice::sentence(chosen)))));
    if let Some(error) = &step.error {
        let code = step.error_code.as_deref().unwrap_or("error");
        let error: String = plain(error).chars().take(ERROR_CHARS_MAX).collect();
        lines.push(format!("    {code}: {error}"));
    }
    lines
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

fn waits_for(blocked: &BlockedOnView) -> String {
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
        "retry" => match blocked.until {
            Some(at) => format!("waits until {at} for its next attempt"),
            None => "waits for its next attempt".to_owned(),
        },
        "start" => "waits for the operation's start".to_owned(),
        other => format!("waits for {other}"),
    }
}
