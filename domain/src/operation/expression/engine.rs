//! Evaluates one checked expression. Only filters whose cost is in proportion to their input, or is
//! bounded here, are offered; nothing an expression can say repeats a value.

use std::sync::OnceLock;

use minijinja::value::{Value as Shown, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, filters, tests};
use serde_json::Value;

use crate::json;
use crate::operation::expression::syntax::{FILTERS, TESTS, TIMES};

/// Instructions one expression may take. Without loops that is its length; a second fence.
const FUEL: u64 = 2_000;
/// Bytes of a text that a filter builds from several.
const TEXT_MAX: usize = 256 * 1024;
/// Parts that a text can be split into.
const PARTS_MAX: usize = 10_000;

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        FILTERS.iter().for_each(|name| add_filter(&mut environment, name));
        environment.add_filter(TIMES, times);
        TESTS.iter().for_each(|name| add_test(&mut environment, name));
        environment
    })
}

fn add_filter(environment: &mut Environment<'static>, name: &'static str) {
    match name {
        "abs" => environment.add_filter(name, filters::abs),
        "bool" => environment.add_filter(name, filters::bool),
        "count" | "length" => environment.add_filter(name, filters::length),
        "d" | "default" => environment.add_filter(name, filters::default),
        "first" => environment.add_filter(name, filters::first),
        "float" => environment.add_filter(name, filters::float),
        "int" => environment.add_filter(name, filters::int),
        "join" => environment.add_filter(name, join),
        "last" => environment.add_filter(name, filters::last),
        "lower" => environment.add_filter(name, filters::lower),
        "max" => environment.add_filter(name, filters::max),
        "min" => environment.add_filter(name, filters::min),
        "replace" => environment.add_filter(name, replace),
        "round" => environment.add_filter(name, filters::round),
        "split" => environment.add_filter(name, split),
        "string" => environment.add_filter(name, filters::string),
        "tojson" => environment.add_filter(name, to_json),
        "trim" => environment.add_filter(name, |text: &str| text.trim().to_owned()),
        "upper" => environment.add_filter(name, filters::upper),
        _ => {}
    }
}

fn add_test(environment: &mut Environment<'static>, name: &'static str) {
    match name {
        "boolean" => environment.add_test(name, tests::is_boolean),
        "defined" => environment.add_test(name, tests::is_defined),
        "endingwith" => environment.add_test(name, tests::is_endingwith),
        "even" => environment.add_test(name, tests::is_even),
        "mapping" => environment.add_test(name, tests::is_mapping),
        "none" => environment.add_test(name, tests::is_none),
        "number" => environment.add_test(name, tests::is_number),
        "odd" => environment.add_test(name, tests::is_odd),
        "sequence" => environment.add_test(name, tests::is_sequence),
        "startingwith" => environment.add_test(name, tests::is_startingwith),
        "string" => environment.add_test(name, tests::is_string),
        "undefined" => environment.add_test(name, tests::is_undefined),
        _ => {}
    }
}

fn refuse<T>(sentence: String) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, sentence))
}

fn bounded(text: &str, bytes: usize) -> Result<(), Error> {
    if bytes > TEXT_MAX { refuse(format!("{text} would have more than {TEXT_MAX} bytes")) } else { Ok(()) }
}

fn join(parts: &Shown, between: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    for (index, part) in parts.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(between.unwrap_or_default());
        }
        match part.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&part.to_string()),
        }
        bounded("the joined text", joined.len())?;
    }
    Ok(joined)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    if from.is_empty() {
        return refuse("an empty text cannot be replaced".into());
    }
    bounded("the text", text.len().saturating_add(text.matches(from).count().saturating_mul(to.len())))?;
    Ok(text.replace(from, to))
}

fn split(text: &str, at: &str) -> Result<Vec<String>, Error> {
    let parts: Vec<String> = text.split(at).take(PARTS_MAX + 1).map(str::to_owned).collect();
    if parts.len() > PARTS_MAX {
        refuse(format!("there would be more than {PARTS_MAX} parts"))
    } else {
        Ok(parts)
    }
}

fn to_json(value: &Shown) -> Result<String, Error> {
    let Some(bytes) = json::size_within(value, TEXT_MAX) else {
        return refuse(format!("the text would have more than {TEXT_MAX} bytes, or the value is not JSON"));
    };
    bounded("the text", bytes)?;
    serde_json::to_value(value).map(|value| value.to_string()).or_else(|fault| refuse(fault.to_string()))
}

/// Multiplies numbers, and nothing else.
fn times(one: &Shown, other: &Shown) -> Result<Shown, Error> {
    if let (Some(one), Some(other)) = (one.as_i64(), other.as_i64())
        && let Some(product) = one.checked_mul(other)
    {
        return Ok(Shown::from(product));
    }
    match (f64::try_from(one.clone()), f64::try_from(other.clone())) {
        (Ok(one), Ok(other)) => Ok(Shown::from(one * other)),
        _ => refuse("only numbers can be multiplied".into()),
    }
}

/// Whether an expression can be compiled.
///
/// # Errors
/// The compiler's words.
pub(super) fn compile(source: &str) -> Result<(), String> {
    environment().compile_expression(source).map(|_| ()).map_err(|fault| worded(&fault))
}

/// The value of an expression, and its size as JSON, unless that is more than `bytes_max`.
///
/// # Errors
/// A sentence; none of it when the value is too large.
pub(super) fn evaluate(
    source: &str,
    context: &Shown,
    bytes_max: usize,
) -> Result<(Value, usize), Option<String>> {
    let expression = environment().compile_expression(source).map_err(|fault| Some(worded(&fault)))?;
    let value = expression.eval(context).map_err(|fault| Some(worded(&fault)))?;
    if value.is_undefined() {
        return Err(Some("there is no such value".into()));
    }
    let bytes = json::size_within(&value, bytes_max).ok_or(None)?;
    match serde_json::to_value(&value) {
        // JSON has no infinity; it would become null without a word.
        Ok(Value::Null) if value.kind() == ValueKind::Number => Err(Some("the number is not finite".into())),
        Ok(value) => Ok((value, bytes)),
        Err(_) => Err(Some("the value is not JSON".into())),
    }
}

fn worded(fault: &Error) -> String {
    fault.detail().map_or_else(|| fault.kind().to_string(), str::to_owned)
}
