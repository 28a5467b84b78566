//! Expressions in inputs, conditions and titles. A text is data unless it is marked as an expression, and
//! what an expression yields is data: nothing is ever read twice. Its cost is bounded before it runs.

mod check;
mod evaluate;
mod filters;
mod lexer;
mod marks;
mod names;
mod operators;
mod syntax;
mod template;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::json::{self, DEPTH_MAX};
use check::{Checked, checked};
use evaluate::Evaluator;
use marks::{Mark, mark};
use operators::{kind, text_of};
use template::{Part, described, parts};

/// Expressions that one step's inputs may hold.
const PER_STEP_MAX: usize = 256;
/// Bytes that the expressions of one step may yield together.
const YIELD_MAX: usize = 1024 * 1024;
/// Bytes that they may move while they combine values.
const WORK_MAX: usize = 64 * 1024 * 1024;
/// Characters of a title after it is resolved.
const TITLE_MAX: usize = 120;

/// Why something could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// `template`, `type_mismatch`, `invalid_inputs` or `too_large`.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl ExpressionError {
    fn template(message: String) -> Self {
        Self { code: "template", message }
    }

    fn too_large(message: String) -> Self {
        Self { code: "too_large", message }
    }
}

impl From<String> for ExpressionError {
    fn from(message: String) -> Self {
        Self::template(message)
    }
}

/// What an expression can read.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// By step number: `{result, status, error}`.
    pub steps: BTreeMap<u32, Arc<Value>>,
    /// `{id, name, metadata}`.
    pub operation: Arc<Value>,
}

/// What can be said of inputs before they are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The steps that their expressions read, each with the JSON pointer of the first field that reads it.
    pub reads: BTreeMap<u32, String>,
    /// Bytes that they take at least when they are resolved.
    pub least_bytes: usize,
}

impl Outlook {
    /// The steps that their expressions read.
    #[must_use]
    pub fn steps(&self) -> BTreeSet<u32> {
        self.reads.keys().copied().collect()
    }
}

/// What is wrong with inputs, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputsError {
    /// JSON pointer of the field within the inputs; empty for the inputs as a whole.
    pub pointer: String,
    /// A sentence.
    pub message: String,
}

impl From<String> for InputsError {
    fn from(message: String) -> Self {
        Self { pointer: String::new(), message }
    }
}

impl From<InputsError> for ExpressionError {
    fn from(fault: InputsError) -> Self {
        Self::template(fault.message)
    }
}

/// Whether inputs, as canonical JSON, may hold a mark. Without one they are resolved as they stand.
#[must_use]
pub fn may_hold_mark(inputs: &str) -> bool {
    inputs.contains("\"$")
}

/// Checks the marks and expressions of a step's inputs.
///
/// # Errors
/// The first one that is wrong.
pub fn outlook(inputs: &Value) -> Result<Outlook, InputsError> {
    let mut check = Check::default();
    let least = check.least(inputs)?;
    if check.expressions > PER_STEP_MAX {
        let count = check.expressions;
        let message = format!("a step may hold at most {PER_STEP_MAX} expressions, this one has {count}");
        return Err(message.into());
    }
    // What is one expression as a whole may be of any kind, unless the expression tells.
    let whole = match marked(inputs)? {
        Some(Mark::Expression(source)) => checked(source)?.kind(),
        _ => Some(kind(&least)),
    };
    if let Some(kind) = whole.filter(|kind| *kind != "an object") {
        return Err(format!("inputs as a whole must be an object, not {kind}").into());
    }
    let least_bytes = json::size_within(&least, usize::MAX).unwrap_or_default();
    Ok(Outlook { reads: check.reads, least_bytes })
}

/// The steps that a condition reads.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn condition_steps(condition: &str) -> Result<BTreeSet<u32>, String> {
    let checked = expression_of(condition)?;
    match checked.kind() {
        Some(kind) if kind != check::TRUTH => {
            Err(described(condition.trim(), &format!("a condition is true or false, this is always {kind}")))
        }
        _ => Ok(checked.steps),
    }
}

/// The steps that a title reads.
///
/// # Errors
/// A sentence about the first expression that is wrong.
pub fn title_steps(title: &str) -> Result<BTreeSet<u32>, String> {
    let mut steps = BTreeSet::new();
    for part in parts(title)? {
        if let Part::Expression(_, checked) = part {
            steps.extend(checked.steps);
        }
    }
    Ok(steps)
}

/// Replaces every mark in `inputs` by what it yields. A value that is one `$expr` keeps its JSON type.
///
/// # Errors
/// What could not be evaluated, or that it is too much.
pub fn render(inputs: &Value, scope: &Scope) -> Result<Value, ExpressionError> {
    let rendered = Rendering::of(scope).value(inputs)?;
    if !rendered.is_object() {
        let message = format!("inputs as a whole must be an object, not {}", kind(&rendered));
        return Err(ExpressionError { code: "invalid_inputs", message });
    }
    if json::depth(&rendered) > DEPTH_MAX {
        let message = format!("the resolved inputs are nested deeper than {DEPTH_MAX} levels");
        return Err(ExpressionError::too_large(message));
    }
    Ok(rendered)
}

/// Whether the condition holds.
///
/// # Errors
/// Why it could not be evaluated.
pub fn holds(condition: &str, scope: &Scope) -> Result<bool, ExpressionError> {
    let checked = expression_of(condition)?;
    let value = Rendering::of(scope).evaluate(condition.trim(), &checked)?;
    value.as_bool().ok_or_else(|| {
        operators::mismatch(format!("the condition must be true or false, not {}", kind(&value)))
            .within(condition.trim())
    })
}

/// A step's title with its expressions resolved; as it was written when one of them cannot be.
#[must_use]
pub fn title(title: &str, scope: &Scope) -> String {
    let resolved = Rendering::of(scope).template(title).ok();
    let resolved = resolved.map(|title| line(&title)).filter(|title| !title.is_empty());
    resolved.unwrap_or_else(|| line(title))
}

/// One short line without letters that steer a terminal or turn the direction of writing.
fn line(text: &str) -> String {
    let plain = |letter: char| if crate::bounds::is_plain(letter) { letter } else { ' ' };
    text.chars().take(TITLE_MAX).map(plain).collect::<String>().trim().to_owned()
}

fn marked(value: &Value) -> Result<Option<Mark<'_>>, String> {
    if let Value::Object(fields) = value { mark(fields) } else { Ok(None) }
}

fn expression_of(source: &str) -> Result<Checked, String> {
    if source.trim_start().starts_with("{{") {
        return Err(described(source.trim(), "write the expression without braces"));
    }
    checked(source).map_err(|fault| described(source.trim(), &fault))
}

/// What a look at inputs finds.
#[derive(Default)]
struct Check {
    reads: BTreeMap<u32, String>,
    expressions: usize,
    /// JSON pointer of the field that is looked at.
    pointer: String,
}

impl Check {
    /// The inputs with the shortest value in each place that is not known yet.
    fn least(&mut self, value: &Value) -> Result<Value, InputsError> {
        self.shortest(value).map_err(|fault| match fault.pointer.is_empty() {
            true => InputsError { pointer: self.pointer.clone(), ..fault },
            false => fault,
        })
    }

    /// The same for a field of what is looked at.
    fn below(&mut self, segment: &str, value: &Value) -> Result<Value, InputsError> {
        let whole = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        let least = self.least(value);
        self.pointer.truncate(whole);
        least
    }

    fn shortest(&mut self, value: &Value) -> Result<Value, InputsError> {
        Ok(match (marked(value)?, value) {
            (Some(Mark::Literal(content)), _) => content.clone(),
            (Some(Mark::Expression(source)), _) => {
                let checked = expression_of(source)?;
                self.count(&checked);
                checked.constant().cloned().unwrap_or_else(|| 0.into())
            }
            (Some(Mark::Template(template)), _) => {
                let mut least = String::new();
                for part in parts(template)? {
                    match part {
                        Part::Text(text) => least.push_str(&text),
                        Part::Expression(_, checked) => {
                            self.count(&checked);
                            least.push_str(&checked.constant().map(text_of).unwrap_or_default());
                        }
                    }
                }
                least.into()
            }
            (None, Value::Array(items)) => {
                let items = items.iter().enumerate().map(|(at, item)| self.below(&at.to_string(), item));
                items.collect::<Result<Vec<_>, _>>()?.into()
            }
            (None, Value::Object(fields)) => {
                let fields = fields.iter().map(|(key, field)| Ok((key.clone(), self.below(key, field)?)));
                Value::Object(fields.collect::<Result<_, InputsError>>()?)
            }
            (None, data) => data.clone(),
        })
    }

    fn count(&mut self, checked: &Checked) {
        self.expressions += 1;
        for step in &checked.steps {
            self.reads.entry(*step).or_insert_with(|| self.pointer.clone());
        }
    }
}

/// One pass over inputs, with what it may still cost.
struct Rendering<'s> {
    evaluator: Evaluator<'s>,
    yield_left: usize,
}

impl<'s> Rendering<'s> {
    fn of(scope: &'s Scope) -> Self {
        Self { evaluator: Evaluator { scope, work_left: WORK_MAX }, yield_left: YIELD_MAX }
    }

    fn evaluate(&mut self, source: &str, checked: &Checked) -> Result<Value, ExpressionError> {
        let value = self.evaluator.value(&checked.node);
        let value = value.map_err(|absent| ExpressionError::from(absent).within(source))?;
        let Some(bytes) = json::size_within(&*value, self.yield_left) else {
            let message = format!("the expressions of one step yield more than {YIELD_MAX} bytes");
            return Err(ExpressionError::too_large(message).within(source));
        };
        self.yield_left -= bytes;
        Ok(Cow::into_owned(value))
    }

    fn value(&mut self, value: &Value) -> Result<Value, ExpressionError> {
        Ok(match (marked(value)?, value) {
            (Some(Mark::Literal(content)), _) => content.clone(),
            (Some(Mark::Expression(source)), _) => self.evaluate(source, &expression_of(source)?)?,
            (Some(Mark::Template(template)), _) => self.template(template)?.into(),
            (None, Value::Array(items)) => {
                items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?.into()
            }
            (None, Value::Object(fields)) => {
                let fields = fields.iter().map(|(key, field)| Ok((key.clone(), self.value(field)?)));
                Value::Object(fields.collect::<Result<_, ExpressionError>>()?)
            }
            (None, data) => data.clone(),
        })
    }

    fn template(&mut self, template: &str) -> Result<String, ExpressionError> {
        let mut rendered = String::new();
        for part in parts(template)? {
            match part {
                Part::Text(text) => rendered.push_str(&text),
                Part::Expression(source, checked) => {
                    rendered.push_str(&text_of(&self.evaluate(&source, &checked)?));
                }
            }
        }
        Ok(rendered)
    }
}
