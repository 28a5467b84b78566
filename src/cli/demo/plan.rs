//! Owns the operation that the demo submits: a manifest, five analyses side by side, an editor that merges
//! what they found. It must never know how a step is performed.

use std::path::Path;

use serde_json::{Value, json};

use super::team::capability;

/// The step that takes the manifest.
pub(super) const MANIFEST: u32 = 1;
/// The step that writes the report.
pub(super) const REPORT: u32 = 7;

/// The analyses: step, action, and the editor's name for its result.
const ANALYSES: [(u32, &str, &str); 5] = [
    (2, "todo-marks", "todoMarks"),
    (3, "duplicates", "duplicates"),
    (4, "broken-links", "brokenLinks"),
    (5, "secrets", "secrets"),
    (6, "churn", "churn"),
];

/// Hard stop of one attempt; a large folder takes its time.
const TIMEOUT_MS: u64 = 300_000;

/// The whole operation.
pub(super) fn operation(folder: &Path) -> Value {
    let look = json!({"folder": {"$expr": "operation.metadata.folder"}});
    let mut workflow = vec![step(MANIFEST, "manifest", &look, &[])];
    for (number, action, _) in ANALYSES {
        let mut analysis = step(number, action, &look, &[MANIFEST]);
        // A specialist that fails costs its section of the report, not the report.
        analysis["continueOnError"] = json!(true);
        workflow.push(analysis);
    }
    let numbers: Vec<u32> = ANALYSES.iter().map(|(number, ..)| *number).chain([MANIFEST]).collect();
    let mut merged = json!({"manifest": result_of(MANIFEST)});
    for (number, _, name) in ANALYSES {
        merged[name] = result_of(number);
    }
    workflow.push(step(REPORT, "report", &merged, &numbers));
    let name = folder.file_name().map_or("/".into(), |name| name.to_string_lossy());
    let name: String = format!("Review of {name}").chars().filter(|c| !c.is_control()).take(200).collect();
    json!({
        "name": name,
        "description": "A team of agents reviews a folder: photon demo.",
        "metadata": {"folder": folder.to_string_lossy()},
        "workflow": workflow,
    })
}

fn step(number: u32, action: &str, inputs: &Value, dependencies: &[u32]) -> Value {
    json!({
        "step": number,
        "platform": "worker",
        "action": action,
        "inputs": inputs,
        "dependencies": dependencies,
        "timeout": TIMEOUT_MS,
        "requires": {"capabilities": [capability(action)]},
        "retryPolicy": {"maxAttempts": 5, "initialDelayMs": 200, "backoffMultiplier": 1.5, "jitter": 0.0},
    })
}

fn result_of(step: u32) -> Value {
    json!({"$expr": format!("steps[{step}].result")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::operation_request::CreateOperation;

    #[test]
    fn the_operation_is_one_that_the_server_takes() {
        let plan = operation(Path::new("a/b"));
        let request: CreateOperation = serde_json::from_value(plan.clone()).unwrap();
        assert_eq!(request.name, "Review of b");
        assert!(request.definition(&domain::Limits::default()).is_ok());
        assert_eq!(plan["workflow"][6]["inputs"]["brokenLinks"], json!({"$expr": "steps[4].result"}));
    }

    #[test]
    fn every_action_of_the_review_has_a_step_and_an_agent() {
        let plan = operation(Path::new("/"));
        let planned: Vec<&str> = plan["workflow"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["action"].as_str().unwrap())
            .collect();
        assert_eq!(planned, crate::review::ACTIONS);
        let can = |action: &&str| super::super::team::ROLES.iter().any(|role| role.actions.contains(action));
        assert!(planned.iter().all(can));
    }
}
