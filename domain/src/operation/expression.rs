//! Expressions in inputs and conditions: `{{ steps[1].result.summary }}`. One pass; what an expression
//! yields is data and is never expanded a second time. What they cost is bounded before they run.

mod engine;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value as Shown;
use serde_json::{Map, Value};

use crate::json;
use syntax::Checked;

/// Expressions one string may hold.
const PER_TEXT_MAX: usize = 64;
/// Expressions that one step's inputs may hold.
const PER_STEP_MAX: usize = 256;
/// Bytes that the expressions of one step may yield together.
const YIELD_MAX: usize = 1024 * 1024;
/// Bytes that they may move while they combine values.
const WORK_MAX: usize = 64 * 1024 * 1024;
/// Objects and lists within each other in resolved inputs; what is deeper could not be read again.
const DEPTH_MAX: usize = 100;

/// Why inputs could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `template`, or `too_large`.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl Fault {
    fn template(message: String) -> Self {
        Self { code: "template", message }
    }

    fn too_large(message: String) -> Self {
        Self { code: "too_large", message }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::template(message)
    }
}

/// One value that expressions can see. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    value: Shown,
    bytes: usize,
}

impl From<&Value> for Seen {
    fn from(value: &Value) -> Self {
        let bytes = json::size_within(value, usize::MAX).unwrap_or_default();
        Self { value: Shown::from_serialize(value), bytes }
    }
}

/// What an expression can see.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// By step number: `{result, status, error}`.
    pub steps: BTreeMap<u32, Seen>,
    /// `{id, name, metadata}`.
    pub operation: Seen,
}

impl Scope {
    /// Bytes that may be moved by an expression that looks like this.
    fn work(&self, checked: &Checked) -> usize {
        let steps = checked.steps.iter().filter_map(|number| self.steps.get(number));
        let seen = steps.map(|seen| seen.bytes).sum::<usize>() + checked.operation * self.operation.bytes;
        checked.joins.saturating_mul(seen + syntax::BYTES_MAX)
    }

    fn context(&self) -> Shown {
        let steps = self.steps.iter().map(|(number, seen)| (Shown::from(*number), seen.value.clone()));
        let steps = steps.collect::<Shown>();
        minijinja::context! { steps, operation => self.operation.value }
    }
}

enum Part<'t> {
    Text(&'t str),
    Expression(&'t str),
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
    let expressions = parts.iter().filter(|part| matches!(part, Part::Expression(_))).count();
    if expressions > PER_TEXT_MAX {
        return Err(format!("a text may hold at most {PER_TEXT_MAX} expressions, this one {expressions}"));
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

/// Checks every expression in `value`, and collects the steps they read.
///
/// # Errors
/// A sentence about the first faulty expression.
pub fn references(value: &Value) -> Result<BTreeSet<u32>, String> {
    let (mut steps, mut count) = (BTreeSet::new(), 0_usize);
    visit_strings(value, &mut |text| {
        for part in parts(text)? {
            if let Part::Expression(source) = part {
                steps.append(&mut checked(source)?.step_set());
                count += 1;
            }
        }
        Ok(())
    })?;
    if count > PER_STEP_MAX {
        return Err(format!("a step may hold at most {PER_STEP_MAX} expressions, this one has {count}"));
    }
    Ok(steps)
}

/// The same for a condition, which may stand with or without its braces.
///
/// # Errors
/// A sentence about the fault.
pub fn condition_references(condition: &str) -> Result<BTreeSet<u32>, String> {
    Ok(checked(bare(condition)?)?.step_set())
}

/// Replaces every expression in `inputs` by its value. A string that is one expression keeps the type.
///
/// # Errors
/// What could not be evaluated, or that it is too much.
pub fn render(inputs: &Value, scope: &Scope) -> Result<Value, Fault> {
    if !holds_expression(inputs) {
        return Ok(inputs.clone());
    }
    let rendered = Rendering::of(scope).value(inputs)?;
    if depth(&rendered) > DEPTH_MAX {
        let message = format!("the resolved inputs are nested deeper than {DEPTH_MAX} levels");
        return Err(Fault::too_large(message));
    }
    Ok(rendered)
}

/// Whether the condition holds.
///
/// # Errors
/// Why it could not be evaluated.
pub fn holds(condition: &str, scope: &Scope) -> Result<bool, Fault> {
    match Rendering::of(scope).evaluate(bare(condition)?)? {
        Value::Bool(holds) => Ok(holds),
        other => {
            let kind = kind(&other);
            Err(Fault::template(format!("the condition must be true or false, not {kind}")))
        }
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

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
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

fn checked(source: &str) -> Result<Checked, String> {
    let checked = syntax::check(source).map_err(|fault| described(source, &fault))?;
    engine::compile(source).map_err(|fault| described(source, &fault))?;
    Ok(checked)
}

fn described(source: &str, fault: &str) -> String {
    let mut shown: String = source.chars().take(120).collect();
    if shown.len() < source.len() {
        shown.push('…');
    }
    format!("in {{{{ {shown} }}}}: {fault}")
}

/// One pass over inputs, with what it may still cost.
struct Rendering<'s> {
    scope: &'s Scope,
    context: Shown,
    work_left: usize,
    yield_left: usize,
}

impl<'s> Rendering<'s> {
    fn of(scope: &'s Scope) -> Self {
        Self { scope, context: scope.context(), work_left: WORK_MAX, yield_left: YIELD_MAX }
    }

    fn evaluate(&mut self, source: &str) -> Result<Value, Fault> {
        // Stored workflows were checked by older rules, perhaps: the bounds are held again.
        let checked = syntax::check(source).map_err(|fault| described(source, &fault))?;
        let Some(work_left) = self.work_left.checked_sub(self.scope.work(&checked)) else {
            let message = "it combines more than the expressions of one step may";
            return Err(Fault::too_large(described(source, message)));
        };
        self.work_left = work_left;
        let (value, bytes) =
            engine::evaluate(source, &self.context, self.yield_left).map_err(|fault| match fault {
                Some(fault) => Fault::template(described(source, &fault)),
                None => {
                    let message = format!("the expressions of one step yield more than {YIELD_MAX} bytes");
                    Fault::too_large(described(source, &message))
                }
            })?;
        self.yield_left -= bytes;
        Ok(value)
    }

    fn value(&mut self, value: &Value) -> Result<Value, Fault> {
        Ok(match value {
            Value::String(text) => self.text(text)?,
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let mut rendered = Map::new();
                for (name, field) in fields {
                    rendered.insert(name.clone(), self.value(field)?);
                }
                Value::Object(rendered)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        })
    }

    fn text(&mut self, text: &str) -> Result<Value, Fault> {
        let parts = parts(text)?;
        if let [Part::Expression(source)] = parts.as_slice() {
            return self.evaluate(source);
        }
        let mut rendered = String::new();
        for part in parts {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Expression(source) => match self.evaluate(source)? {
                    Value::String(text) => rendered.push_str(&text),
                    other => rendered.push_str(&other.to_string()),
                },
            }
        }
        Ok(Value::String(rendered))
    }
}
