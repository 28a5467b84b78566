//! Why each agent was chosen, as the log recorded it when the step was reserved. It must never compute a
//! score again: what stood then is what counted.

use domain::agent::selection::{Excluded, Scored};
use domain::operation::event::StepReserved;

/// Rivals that are named.
const RIVALS_MAX: usize = 3;

/// "attempt 2: understudy, score 0.71 = capability 0.20 + performance … ; before editor 0.50; 3 lack …"
pub(super) fn sentence(choice: &StepReserved) -> String {
    let ranked = &choice.candidates.ranked;
    let Some(chosen) = ranked.iter().find(|scored| scored.agent == choice.agent) else {
        return format!("attempt {}: {}", choice.attempt, choice.agent);
    };
    let rivals = ranked.iter().filter(|scored| scored.agent != choice.agent);
    let rivals: Vec<String> = rivals.map(|rival| format!("{} {:.2}", rival.agent, rival.score)).collect();
    let mut parts = vec![format!("attempt {}: {} {}", choice.attempt, choice.agent, score(choice, chosen))];
    if !rivals.is_empty() {
        let more = rivals.len().saturating_sub(RIVALS_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = &rivals[..rivals.len().min(RIVALS_MAX)];
        parts.push(format!("ahead of {}{more}", named.join(", ")));
    }
    parts.extend(excluded(&choice.candidates.excluded));
    parts.join("; ")
}

/// The score and the four parts that it is the sum of.
fn score(choice: &StepReserved, chosen: &Scored) -> String {
    let weights = &choice.candidates.weights;
    let parts = [
        ("capability", weights.capability * chosen.capability),
        ("performance", weights.performance * chosen.performance),
        ("availability", weights.availability * chosen.availability),
        ("location", weights.location * chosen.location),
    ];
    let parts: Vec<String> = parts.iter().map(|(name, part)| format!("{name} {part:.2}")).collect();
    format!("{:.2} ({})", chosen.score, parts.join(" + "))
}

/// How many agents were no candidates, by reason.
pub(in super::super) fn excluded(excluded: &Excluded) -> Option<String> {
    let reasons = [
        (excluded.not_asked, "not asked for"),
        (excluded.capability, "without the capability"),
        (excluded.requirement, "with another model or label"),
        (excluded.status, "not active"),
        (excluded.held, "gave it back before"),
        (excluded.capacity, "busy"),
        (excluded.not_waiting, "not asking for work"),
    ];
    let given: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
    (!given.is_empty()).then(|| format!("left out: {}", given.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_choice_names_the_parts_of_the_score_the_rivals_and_who_was_left_out() {
        let scored = |agent: &str, score: f64, capability: f64| {
            json!({"agent": agent, "score": score, "capability": capability, "performance": 0.5,
                "availability": 1.0, "location": 1.0})
        };
        let choice: StepReserved = serde_json::from_value(json!({
            "step": 2, "grant": 1, "leaseId": format!("ls_{}_2_1", "0".repeat(32)), "agent": "a",
            "incarnation": 1, "attempt": 1, "inputs": {}, "candidates": {
                "ranked": [scored("a", 0.85, 1.0), scored("b", 0.53, 0.2)],
                "excluded": {"notAsked": 0, "capability": 5, "requirement": 0, "status": 1, "held": 0,
                    "capacity": 0, "notWaiting": 0},
                "weights": {"capability": 0.4, "performance": 0.3, "availability": 0.2, "location": 0.1}}
        }))
        .unwrap();
        let score = "capability 0.40 + performance 0.15 + availability 0.20 + location 0.10";
        let rest = "ahead of b 0.53; left out: 5 without the capability, 1 not active";
        assert_eq!(sentence(&choice), format!("attempt 1: a 0.85 ({score}); {rest}"));
    }
}
