//! Owns how the plan of an operation that is not created is written out for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::terminal::{counted, plain, span};
use super::choice;
use crate::http::planning::PlanView;
use crate::http::selection::SelectionView;

/// Steps that are named in one line; the rest is counted.
const NAMED_MAX: usize = 20;
/// Levels and selections that are written out; the rest is to be had as JSON.
const LINES_MAX: usize = 50;

pub(super) fn text(plan: &PlanView) -> String {
    let steps = counted(plan.steps.len() as u64, "step");
    let critical: Vec<String> = plan.critical_path.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if plan.critical_path.len() > NAMED_MAX { " → …" } else { "" };
    let longest = span(Duration::from_millis(plan.critical_path_ms));
    let mut lines = vec![
        format!("{steps} in {}, {} at once.", counted(plan.order.len() as u64, "level"), plan.width),
        format!(
            "Critical path: {}{more} ({}, timeouts of {longest})",
            critical.join(" → "),
            counted(plan.critical_path_steps as u64, "step")
        ),
    ];
    let levels = plan.order.iter().enumerate().take(LINES_MAX);
    lines.extend(levels.map(|(at, level)| format!("Level {}: {}", at + 1, named(level))));
    let mut of: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for step in &plan.steps {
        if let Some(selection) = step.selection {
            of.entry(selection).or_default().push(step.step);
        }
    }
    let selections = of.iter().take(LINES_MAX).filter_map(|(at, steps)| {
        let chosen = chosen(plan.selections.get(*at)?);
        Some(plain(&format!(
            "{} {}: {chosen}",
            if steps.len() == 1 { "Step" } else { "Steps" },
            named(steps)
        )))
    });
    lines.extend(selections);
    if plan.order.len() > LINES_MAX || of.len() > LINES_MAX {
        lines.push("… and more; see -o json.".to_owned());
    }
    lines.join("\n")
}

fn named(steps: &[u32]) -> String {
    let named: Vec<String> = steps.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = steps.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// "scout 0.85 now; left out: 2 without the capability".
fn chosen(selection: &SelectionView) -> String {
    let best = selection.candidates.ranked.first();
    let best = best.map(|best| format!("{} {:.2} now", best.agent, best.score));
    let left_out = choice::excluded(&selection.candidates.excluded);
    let parts = [Some(best.unwrap_or_else(|| "nobody fits now".to_owned())), left_out];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
