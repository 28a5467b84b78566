//! The actions of the demo's repository review: each looks at one folder, or merges what the others saw.
//! It reads files and runs `git log`; it must never write, follow a link, open a socket or show a secret.

mod broken_links;
mod churn;
mod duplicates;
mod findings;
mod manifest;
mod report;
mod secrets;
mod survey;
mod todo_marks;

use std::path::PathBuf;

use serde_json::Value;

/// The names `perform` accepts: the manifest, the specialists that may run in parallel, then the editor.
pub const ACTIONS: [&str; 7] =
    ["manifest", "todo-marks", "duplicates", "broken-links", "secrets", "churn", "report"];

/// Why an action gave no result. Neither code is worth a retry with the same inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// `invalid` (mend the inputs) or `bug` (mend Photon).
    pub code: &'static str,
    /// One sentence for a person.
    pub message: String,
}

impl Failure {
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "invalid", message: message.into() }
    }
}

impl From<regex::Error> for Failure {
    fn from(error: regex::Error) -> Self {
        Self { code: "bug", message: format!("a pattern of the review is wrong: {error}") }
    }
}

/// Performs one action of the review. All but `report` take `{folder}` and see the same set of files;
/// `report` takes the results of the others. A result stays well below the 256 KiB of a step's result.
pub fn perform(action: &str, inputs: &Value) -> Result<Value, Failure> {
    match action {
        "manifest" => Ok(manifest::take(&survey::survey(&folder(inputs)?))),
        "todo-marks" => todo_marks::count(&survey::survey(&folder(inputs)?)),
        "duplicates" => Ok(duplicates::group(&survey::survey(&folder(inputs)?))),
        "broken-links" => Ok(broken_links::check(&survey::survey(&folder(inputs)?))),
        "secrets" => secrets::search(&survey::survey(&folder(inputs)?)),
        "churn" => Ok(churn::rank(&survey::survey(&folder(inputs)?))),
        "report" => Ok(report::write(inputs)),
        other => Err(Failure::invalid(format!("unknown action {other:?}; known are {}", ACTIONS.join(", ")))),
    }
}

/// The folder of the inputs, absolute and free of links.
fn folder(inputs: &Value) -> Result<PathBuf, Failure> {
    let Some(given) = inputs["folder"].as_str() else {
        return Err(Failure::invalid("inputs.folder must be a string: the folder to review"));
    };
    let folder = std::fs::canonicalize(given)
        .map_err(|error| Failure::invalid(format!("folder {given:?} cannot be opened: {error}")))?;
    if !folder.is_dir() {
        return Err(Failure::invalid(format!("{given:?} is not a folder")));
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_folder_is_invalid_for_every_action_that_needs_one() {
        for action in ACTIONS.into_iter().filter(|action| *action != "report") {
            for inputs in [json!({"folder": "no/such/folder"}), json!({"folder": "Cargo.toml"}), json!({})] {
                let failure = perform(action, &inputs).unwrap_err();
                assert_eq!(failure.code, "invalid", "{action} {inputs}");
            }
        }
    }

    #[test]
    fn an_unknown_action_is_invalid_and_the_known_ones_are_named() {
        let failure = perform("dance", &json!({})).unwrap_err();
        assert_eq!(failure.code, "invalid");
        assert!(failure.message.contains("broken-links"), "{failure}");
    }

    #[test]
    fn an_empty_folder_has_nothing_to_review() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = json!({"folder": folder.path()});
        let result = |action| perform(action, &inputs).unwrap();
        let merged = json!({
            "manifest": result("manifest"), "todoMarks": result("todo-marks"),
            "duplicates": result("duplicates"), "brokenLinks": result("broken-links"),
            "secrets": result("secrets"), "churn": result("churn"),
        });
        let report = perform("report", &merged).unwrap();
        assert_eq!(report["first"], json!([]));
        let totals = json!({
            "files": 0, "lines": 0, "todoMarks": 0, "duplicates": 0, "brokenLinks": 0, "secrets": 0
        });
        assert_eq!(report["totals"], totals);
        assert!(report["markdown"].as_str().unwrap().contains("There is nothing to review"));
    }
}
