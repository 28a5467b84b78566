//! What in a step's inputs is marked: `$expr`, `$template`, `$literal`. Everything else is data and is
//! never read.

use serde_json::{Map, Value};

use super::names::meant;

const EXPRESSION: &str = "$expr";
const TEMPLATE: &str = "$template";
const LITERAL: &str = "$literal";
const ARTIFACT: &str = "$artifact";
const SECRET: &str = "$secret";
/// Every key that begins with `$` and may stand in inputs.
const KNOWN: [&str; 5] = [EXPRESSION, TEMPLATE, LITERAL, ARTIFACT, SECRET];

/// A marked value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark<'v> {
    Expression(&'v str),
    Template(&'v str),
    Literal(&'v Value),
}

/// The mark that an object is, if it is one.
///
/// # Errors
/// A sentence about a key that begins with `$` and may not stand there.
pub(super) fn mark(fields: &Map<String, Value>) -> Result<Option<Mark<'_>>, String> {
    let Some((key, value)) = fields.iter().find(|(key, _)| key.starts_with('$')) else { return Ok(None) };
    if !KNOWN.contains(&key.as_str()) {
        let shown: String = key.chars().take(64).collect();
        return Err(format!(
            "{shown} is not known here{}: write {{\"{LITERAL}\": …}} around data whose keys begin with $",
            meant(key, &KNOWN)
        ));
    }
    if fields.len() > 1 {
        return Err(format!("an object with {key} has no other key"));
    }
    match (key.as_str(), value) {
        (LITERAL, value) => Ok(Some(Mark::Literal(value))),
        (EXPRESSION, Value::String(source)) => Ok(Some(Mark::Expression(source))),
        (TEMPLATE, Value::String(template)) => Ok(Some(Mark::Template(template))),
        (ARTIFACT | SECRET, _) => {
            Err(format!("{key} is reserved and not available yet in this version: leave it out"))
        }
        _ => Err(format!("the value of {key} must be a text")),
    }
}
