//! Expressions in inputs and conditions: `{{ steps[1].result.summary }}`. One pass, limited by fuel.
//!
//! What an expression yields is data: it is never expanded a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

/// Instructions one expression may take.
const FUEL: u64 = 20_000;
/// Expressions one string may hold.
const EXPRESSIONS_MAX: usize = 64;

/// What an expression can see.
#[derive(Debug, Default)]
pub struct Scope {
    /// By step number: `{result, status, error}`.
    pub steps: BTreeMap<u32, Value>,
    /// `{id, name, metadata}`.
    pub operation: Value,
}

enum Part<'t> {
    Text(&'t str),
    Expression(&'t str),
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment
    })
}

/// Splits a string into plain text and expressions.
fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let body = &rest[start + 2..];
        let end = expression_end(body).ok_or("an expression is opened by {{ and not closed by }}")?;
        if start > 0 {
            parts.push(Part::Text(&rest[..start]));
        }
        parts.push(Part::Expression(body[..end].trim()));
        rest = &body[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    if parts.len() > 2 * EXPRESSIONS_MAX {
        return Err(format!("a string may hold at most {EXPRESSIONS_MAX} expressions"));
    }
    Ok(parts)
}

/// Where `}}` closes the expression: outside of its string literals and of braces of its own.
fn expression_end(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let (mut at, mut quote, mut depth) = (0, None, 0_u32);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// Checks that every expression in `value` can be compiled, and collects the steps they read.
///
/// # Errors
/// A sentence about the first faulty expression.
pub fn references(value: &Value) -> Result<BTreeSet<u32>, String> {
    let mut steps = BTreeSet::new();
    visit_strings(value, &mut |text| {
        for part in parts(text)? {
            if let Part::Expression(source) = part {
                steps.append(&mut references_of(source)?);
            }
        }
        Ok(())
    })?;
    Ok(steps)
}

/// The same for a condition, which may stand with or without its braces.
///
/// # Errors
/// A sentence about the fault.
pub fn condition_references(condition: &str) -> Result<BTreeSet<u32>, String> {
    references_of(bare(condition)?)
}

/// Replaces every expression in `inputs` by its value. A string that is one expression keeps the type.
///
/// # Errors
/// A sentence about the expression that could not be evaluated.
pub fn render(inputs: &Value, scope: &Scope) -> Result<Value, String> {
    if !holds_expression(inputs) {
        return Ok(inputs.clone());
    }
    let context = context(scope);
    render_value(inputs, &context)
}

/// Whether the condition holds.
///
/// # Errors
/// A sentence about why it could not be evaluated.
pub fn holds(condition: &str, scope: &Scope) -> Result<bool, String> {
    let source = bare(condition)?;
    let value = evaluate(source, &context(scope))?;
    match value {
        Value::Bool(holds) => Ok(holds),
        other => Err(format!("the condition must be true or false, not {other}")),
    }
}

/// Whether any string in it holds an expression.
#[must_use]
pub fn holds_expression(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{"),
        Value::Array(items) => items.iter().any(holds_expression),
        Value::Object(fields) => fields.values().any(holds_expression),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn bare(condition: &str) -> Result<&str, String> {
    match parts(condition)?.as_slice() {
        [Part::Expression(source) | Part::Text(source)] => Ok(source.trim()),
        _ => Err("a condition must be one expression".into()),
    }
}

fn visit_strings(value: &Value, visit: &mut dyn FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().try_for_each(|item| visit_strings(item, visit)),
        Value::Object(fields) => fields.values().try_for_each(|field| visit_strings(field, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Finds `steps[N]` outside of string literals; anything else done with `steps` is refused.
fn references_of(source: &str) -> Result<BTreeSet<u32>, String> {
    environment().compile_expression(source).map_err(|fault| described(source, &fault))?;
    let bytes = source.as_bytes();
    let mut found = BTreeSet::new();
    let (mut at, mut previous) = (0, b' ');
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' || byte == b'\'' {
            at = after_literal(bytes, at);
        } else if byte.is_ascii_alphabetic() || byte == b'_' {
            let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            if &source[at..end] == "steps" && previous != b'.' {
                found.insert(literal_index(&source[end..]).ok_or_else(|| {
                    format!("in {{{{ {source} }}}}: write steps[N] with a literal number N")
                })?);
            }
            at = end;
        } else {
            at += 1;
        }
        if !byte.is_ascii_whitespace() {
            previous = byte;
        }
    }
    Ok(found)
}

fn after_literal(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != bytes[start] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn literal_index(rest: &str) -> Option<u32> {
    rest.trim_start().strip_prefix('[')?.split_once(']')?.0.trim().parse().ok()
}

fn context(scope: &Scope) -> minijinja::Value {
    let steps = minijinja::Value::from_serialize(&scope.steps);
    let operation = minijinja::Value::from_serialize(&scope.operation);
    minijinja::context! { steps, operation }
}

fn evaluate(source: &str, context: &minijinja::Value) -> Result<Value, String> {
    let fail = |fault: &minijinja::Error| described(source, fault);
    let expression = environment().compile_expression(source).map_err(|fault| fail(&fault))?;
    let value = expression.eval(context).map_err(|fault| fail(&fault))?;
    if value.is_undefined() {
        return Err(format!("in {{{{ {source} }}}}: there is no such value"));
    }
    serde_json::to_value(&value).map_err(|_| format!("in {{{{ {source} }}}}: the value is not JSON"))
}

fn described(source: &str, fault: &minijinja::Error) -> String {
    let shown: String = source.chars().take(120).collect();
    match fault.detail() {
        Some(detail) => format!("in {{{{ {shown} }}}}: {detail}"),
        None => format!("in {{{{ {shown} }}}}: {}", fault.kind()),
    }
}

fn render_value(value: &Value, context: &minijinja::Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => render_text(text, context)?,
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| render_value(item, context)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut rendered = Map::new();
            for (name, field) in fields {
                rendered.insert(name.clone(), render_value(field, context)?);
            }
            Value::Object(rendered)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

fn render_text(text: &str, context: &minijinja::Value) -> Result<Value, String> {
    let parts = parts(text)?;
    if let [Part::Expression(source)] = parts.as_slice() {
        return evaluate(source, context);
    }
    let mut rendered = String::new();
    for part in parts {
        match part {
            Part::Text(text) => rendered.push_str(text),
            Part::Expression(source) => match evaluate(source, context)? {
                Value::String(text) => rendered.push_str(&text),
                other => rendered.push_str(&other.to_string()),
            },
        }
    }
    Ok(Value::String(rendered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let steps =
            BTreeMap::from([(1, json!({"result": {"n": 3, "text": "a }} b", "list": [1, 2]}})), (2, json!({}))]);
        Scope { steps, operation: json!({"metadata": {"repo": "photon"}}) }
    }

    #[test]
    fn one_expression_keeps_its_type_and_mixed_text_becomes_text() {
        let inputs = json!({
            "n": "{{ steps[1].result.n }}",
            "all": "{{ steps[1].result }}",
            "mixed": "{{ operation.metadata.repo }}: {{ steps[1].result.list }}",
            "plain": ["x", 1, null],
            "braces": "{{ '}}' }}",
        });
        assert_eq!(
            render(&inputs, &scope()).unwrap(),
            json!({"n": 3, "all": {"n": 3, "text": "a }} b", "list": [1, 2]}, "mixed": "photon: [1,2]",
                   "plain": ["x", 1, null], "braces": "}}"})
        );
    }

    #[test]
    fn what_an_expression_yields_is_not_expanded_again() {
        let mut scope = scope();
        scope.steps.insert(3, json!({"result": "{{ operation.metadata.repo }}"}));
        assert_eq!(
            render(&json!("{{ steps[3].result }}"), &scope).unwrap(),
            json!("{{ operation.metadata.repo }}")
        );
    }

    #[test]
    fn a_missing_value_is_an_error() {
        assert!(render(&json!("{{ steps[1].result.missing }}"), &scope()).is_err());
        assert!(render(&json!("x {{ steps[9] }}"), &scope()).is_err());
    }

    #[test]
    fn references_are_found_and_only_literal_numbers_are_allowed() {
        let found =
            references(&json!(["{{ steps[1].a ~ steps[ 12 ].b }}", {"x": "{{ 'steps[7]' }}"}])).unwrap();
        assert_eq!(found, BTreeSet::from([1, 12]));
        for bad in ["{{ steps[n] }}", "{{ steps }}", "{{ steps.first }}", "{{ steps[1", "{{ 1 + }}"] {
            assert!(references(&json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expression_that_runs_too_long_is_stopped() {
        let endless = "{{ range(10000)|map('string')|join('x')|list|map('upper')|list|length }}";
        let _ = render(&json!(endless), &scope());
        assert!(render(&json!("{{ 1 if 'x' * 10 == 2 else 3 }}"), &scope()).is_ok());
    }

    #[test]
    fn a_condition_is_true_or_false_or_an_error() {
        assert_eq!(holds("steps[1].result.n > 2", &scope()), Ok(true));
        assert_eq!(holds("{{ steps[1].result.n > 5 }}", &scope()), Ok(false));
        assert!(holds("steps[1].result.n", &scope()).is_err());
    }
}
