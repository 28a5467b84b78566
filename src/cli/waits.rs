//! Owns what a person who follows an operation is told about its waiting: once for each step and cause, and
//! at once when no registered agent can take a step. It must never decide whom a step goes to: it asks the
//! server.

use std::collections::BTreeSet;

use domain::agent::selection::Excluded;

use super::op::choice;
use super::op::show::waits_for;
use super::terminal::plain;
use crate::client::Client;
use crate::http::operation_view::{OperationView, StepView};
use crate::http::selection::{SelectAgent, SelectionView};

/// Steps that the server is asked about at a time.
const ASKED_MAX: usize = 5;

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct Waits {
    told: BTreeSet<(u32, String)>,
}

impl Waits {
    /// What is to be said now. `quiet` when nothing has happened for a while: then also that a step waits for
    /// an agent which is registered and does not ask for work.
    pub(super) async fn news(&mut self, client: &Client, seen: &OperationView, quiet: bool) -> Vec<String> {
        let mut news = Vec::new();
        let mut asked = 0;
        for step in &seen.workflow {
            let Some(blocked) = &step.blocked_on else { continue };
            let key = (step.step, blocked.kind.clone());
            if self.told.contains(&key) {
                continue;
            }
            let said = match blocked.kind.as_str() {
                // The events say it: somebody has the step, or another step comes first.
                "dependencies" | "acknowledgement" | "report" | "retry" => None,
                "agent" if asked == ASKED_MAX => None,
                "agent" => {
                    asked += 1;
                    let found = client.select_agent(&asks_for(seen, step)).await.ok();
                    found.and_then(|found| for_agent(&found, quiet))
                }
                "approval" => Some(format!("{}; {}", waits_for(blocked), answer(seen, step, "approve"))),
                "attention" => Some(format!("{}; {}", waits_for(blocked), answer(seen, step, "resolve"))),
                _ => Some(waits_for(blocked)),
            };
            if let Some(said) = said {
                news.push(plain(&format!("Step {} ({}) {said}.", step.step, step.action)));
                self.told.insert(key);
            }
        }
        news
    }
}

fn answer(seen: &OperationView, step: &StepView, word: &str) -> String {
    format!("see 'photon op get {id}', then 'photon op {word} {id} {}'", step.step, id = seen.id)
}

/// What a step asks for, as a question.
fn asks_for(seen: &OperationView, step: &StepView) -> SelectAgent {
    SelectAgent {
        agent: Some(step.agent.clone()),
        agents: seen.agents.clone(),
        requires: step.requires.clone(),
        action: Some(step.action.clone()),
        platform: Some(step.platform.clone()),
    }
}

/// What is said of a step that waits for an agent.
fn for_agent(found: &SelectionView, quiet: bool) -> Option<String> {
    let excluded = &found.candidates.excluded;
    let why = choice::excluded(excluded).map(|why| format!(" ({why})")).unwrap_or_default();
    if found.candidates.ranked.is_empty() && !fits_later(excluded) {
        return Some(format!("waits for an agent, and no registered agent fits{why}"));
    }
    quiet.then(|| format!("waits for an agent that fits and asks for work{why}"))
}

/// Whether an agent fits that cannot take the step only now.
fn fits_later(excluded: &Excluded) -> bool {
    excluded.held + excluded.capacity + excluded.not_waiting > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(ranked: bool, capability: u32, capacity: u32) -> SelectionView {
        let scored = json!({"agent": "a", "score": 1.0, "capability": 1.0, "performance": 1.0,
            "availability": 1.0, "location": 1.0});
        let ranked = if ranked { vec![scored] } else { Vec::new() };
        serde_json::from_value(json!({"chosen": null, "waiting": [], "candidates": {"ranked": ranked,
            "excluded": {"notAsked": 0, "capability": capability, "requirement": 0, "status": 0, "held": 0,
                "capacity": capacity, "notWaiting": 0},
            "weights": {"capability": 0.4, "performance": 0.3, "availability": 0.2, "location": 0.1}}}))
        .unwrap()
    }

    #[test]
    fn that_no_agent_fits_is_said_at_once_and_that_none_asks_after_a_while() {
        let nobody = for_agent(&found(false, 2, 0), false).unwrap();
        let expected =
            "waits for an agent, and no registered agent fits (left out: 2 without the capability)";
        assert_eq!(nobody, expected);
        for fits in [found(true, 0, 0), found(false, 1, 1)] {
            assert_eq!(for_agent(&fits, false), None);
            assert!(for_agent(&fits, true).unwrap().starts_with("waits for an agent that fits"));
        }
    }
}
