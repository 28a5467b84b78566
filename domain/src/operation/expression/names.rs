//! The names that expressions can read: a closed set, apart from data. It must never read a value.

use serde_json::Value;

use super::syntax::Node;
use crate::nearest::nearest;

pub(super) const STEPS: &str = "steps";
pub(super) const OPERATION: &str = "operation";
/// What is known of a step.
const OF_STEP: [&str; 3] = ["error", "result", "status"];
/// What is known of a step's error.
const OF_ERROR: [&str; 2] = ["code", "message"];
/// What is known of the operation.
const OF_OPERATION: [&str; 3] = ["id", "metadata", "name"];

/// The nearest known name in brackets, or nothing.
pub(super) fn meant(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|best| format!(" (did you mean {best}?)")).unwrap_or_default()
}

/// Says that a word names nothing.
pub(super) fn unknown(word: &str) -> String {
    let meant = meant(word, &[STEPS, OPERATION]);
    format!("{word} is not known here: an expression reads steps[N] and operation{meant}")
}

/// What can be named below a value.
enum Below {
    /// These names, of what is called so.
    Names(String, &'static [&'static str]),
    /// Nothing: it is a text.
    Text(String),
    /// Whatever the data holds.
    Data,
}

/// Checks the names that this node reads; its children are checked on their own.
///
/// # Errors
/// A sentence with the nearest known name.
pub(super) fn check(node: &Node) -> Result<(), String> {
    let (Node::Member { of, .. } | Node::Slice { of, .. }) = node else { return Ok(()) };
    let key = if let Node::Member { key, .. } = node { Some(&**key) } else { None };
    match (below(of), key) {
        (Below::Data, _) => Ok(()),
        (Below::Names(_, known), Some(Node::Constant(Value::String(key))))
            if known.contains(&key.as_str()) =>
        {
            Ok(())
        }
        (Below::Names(what, known), Some(Node::Constant(Value::String(key)))) => {
            let meant = meant(key, known);
            Err(format!("{what} has no {key}{meant}; it has {}", known.join(", ")))
        }
        (Below::Names(what, known), _) => {
            Err(format!("of {what} one of these names can be read: {}", known.join(", ")))
        }
        (Below::Text(what), _) => Err(format!("{what} is a text: there is nothing below it")),
    }
}

fn below(of: &Node) -> Below {
    let member = match of {
        Node::Step(number) => return Below::Names(format!("steps[{number}]"), &OF_STEP),
        Node::Operation => return Below::Names(OPERATION.into(), &OF_OPERATION),
        Node::Member { of, key } => (&**of, &**key),
        _ => return Below::Data,
    };
    let (of, Node::Constant(Value::String(key))) = member else { return Below::Data };
    match (of, key.as_str()) {
        (Node::Step(number), "error") => Below::Names(format!("steps[{number}].error"), &OF_ERROR),
        (Node::Step(number), "status") => Below::Text(format!("steps[{number}].status")),
        (Node::Operation, "id" | "name") => Below::Text(format!("operation.{key}")),
        (Node::Member { of, key: error }, "code" | "message") if is_error(of, error) => {
            Below::Text(format!("the {key} of an error"))
        }
        _ => Below::Data,
    }
}

fn is_error(of: &Node, key: &Node) -> bool {
    matches!((of, key), (Node::Step(_), Node::Constant(Value::String(key))) if key == "error")
}
