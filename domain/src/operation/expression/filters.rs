//! The filters and tests that expressions can name. Each costs time in proportion to its input, or is
//! bounded here; none repeats a value.

use serde_json::Value;

use super::ExpressionError;
use super::names::meant;
use super::operators::{Reckoned, kind, mismatch, order, reckon, text_of};
use super::syntax::Binary;

/// Bytes of a text that a filter builds from several.
const TEXT_MAX: usize = 256 * 1024;
/// Parts that a text can be split into.
const PARTS_MAX: usize = 10_000;

type Applied = Result<Value, ExpressionError>;

/// What stands after `|`.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) name: &'static str,
    /// The fewest and the most arguments.
    pub(super) arguments: (usize, usize),
    pub(super) apply: fn(&Value, &[Value]) -> Applied,
}

/// What stands after `is`.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) name: &'static str,
    pub(super) arguments: usize,
    pub(super) holds: fn(&Value, &[Value]) -> Result<bool, ExpressionError>,
}

const fn filter_of(
    name: &'static str,
    arguments: (usize, usize),
    apply: fn(&Value, &[Value]) -> Applied,
) -> Filter {
    Filter { name, arguments, apply }
}

const fn test_of(
    name: &'static str,
    arguments: usize,
    holds: fn(&Value, &[Value]) -> Result<bool, ExpressionError>,
) -> Test {
    Test { name, arguments, holds }
}

static FILTERS: [Filter; 22] = [
    filter_of("abs", (0, 0), abs),
    filter_of("bool", (0, 0), |of, _| Ok(is_something(of).into())),
    filter_of("count", (0, 0), length),
    filter_of("d", (1, 1), |of, _| Ok(of.clone())),
    filter_of("default", (1, 1), |of, _| Ok(of.clone())),
    filter_of("first", (0, 0), |of, _| item("first", list("first", of)?.first())),
    filter_of("float", (0, 0), float),
    filter_of("int", (0, 0), int),
    filter_of("join", (0, 1), join),
    filter_of("last", (0, 0), |of, _| item("last", list("last", of)?.last())),
    filter_of("length", (0, 0), length),
    filter_of("lower", (0, 0), |of, _| Ok(text("lower", of)?.to_lowercase().into())),
    filter_of("max", (0, 0), |of, _| extreme(of, true)),
    filter_of("min", (0, 0), |of, _| extreme(of, false)),
    filter_of("replace", (2, 2), replace),
    filter_of("round", (0, 1), round),
    filter_of("split", (1, 1), split),
    filter_of("string", (0, 0), |of, _| Ok(text_of(of).into())),
    filter_of("times", (1, 1), |of, arguments| reckon(Binary::Multiply, of, &arguments[0])),
    filter_of("tojson", (0, 0), |of, _| Ok(of.to_string().into())),
    filter_of("trim", (0, 0), |of, _| Ok(text("trim", of)?.trim().into())),
    filter_of("upper", (0, 0), |of, _| Ok(text("upper", of)?.to_uppercase().into())),
];

static TESTS: [Test; 12] = [
    test_of("boolean", 0, |of, _| Ok(of.is_boolean())),
    // What is not there does not come as far as this.
    test_of("defined", 0, |_, _| Ok(true)),
    test_of("endingwith", 1, |of, with| Ok(text("endingwith", of)?.ends_with(text("endingwith", &with[0])?))),
    test_of("even", 0, |of, _| Ok(whole("even", of)? % 2 == 0)),
    test_of("mapping", 0, |of, _| Ok(of.is_object())),
    test_of("none", 0, |of, _| Ok(of.is_null())),
    test_of("number", 0, |of, _| Ok(of.is_number())),
    test_of("odd", 0, |of, _| Ok(whole("odd", of)? % 2 != 0)),
    test_of("sequence", 0, |of, _| Ok(of.is_array())),
    test_of("startingwith", 1, |of, with| {
        Ok(text("startingwith", of)?.starts_with(text("startingwith", &with[0])?))
    }),
    test_of("string", 0, |of, _| Ok(of.is_string())),
    test_of("undefined", 0, |_, _| Ok(false)),
];

/// The filter of this name.
pub(super) fn filter(name: &str) -> Result<&'static Filter, String> {
    let names = FILTERS.each_ref().map(|filter| filter.name);
    FILTERS.iter().find(|filter| filter.name == name).ok_or_else(|| unknown("filter", name, &names))
}

/// The test of this name.
pub(super) fn test(name: &str) -> Result<&'static Test, String> {
    let names = TESTS.each_ref().map(|test| test.name);
    TESTS.iter().find(|test| test.name == name).ok_or_else(|| unknown("test", name, &names))
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    format!("there is no {what} {name}{}; there are: {}", meant(name, known), known.join(", "))
}

fn needs<T>(name: &str, wanted: &str, of: &Value, got: Option<T>) -> Result<T, ExpressionError> {
    got.ok_or_else(|| mismatch(format!("{name} needs {wanted}, not {}", kind(of))))
}

fn text<'v>(name: &str, of: &'v Value) -> Result<&'v str, ExpressionError> {
    needs(name, "a string", of, of.as_str())
}

fn list<'v>(name: &str, of: &'v Value) -> Result<&'v Vec<Value>, ExpressionError> {
    needs(name, "a list", of, of.as_array())
}

fn whole(name: &str, of: &Value) -> Result<i128, ExpressionError> {
    let number = of.as_i64().map(i128::from).or_else(|| of.as_u64().map(i128::from));
    needs(name, "a whole number", of, number)
}

fn bounded(bytes: usize) -> Result<(), ExpressionError> {
    if bytes <= TEXT_MAX {
        return Ok(());
    }
    Err(ExpressionError::too_large(format!("a text would have more than {TEXT_MAX} bytes")))
}

fn item(name: &str, found: Option<&Value>) -> Applied {
    found.cloned().ok_or_else(|| ExpressionError::template(format!("an empty list has no {name} value")))
}

fn is_something(of: &Value) -> bool {
    match of {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn length(of: &Value, _: &[Value]) -> Applied {
    let length = match of {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(fields) => Some(fields.len()),
        _ => None,
    };
    needs("length", "a text, a list or an object", of, length).map(Value::from)
}

fn abs(of: &Value, _: &[Value]) -> Applied {
    match of {
        Value::Number(number) => match Reckoned::of(number) {
            Reckoned::Whole(number) => Reckoned::Whole(number.abs()).value(),
            Reckoned::Decimal(number) => Reckoned::Decimal(number.abs()).value(),
        },
        other => Err(mismatch(format!("abs needs a number, not {}", kind(other)))),
    }
}

fn int(of: &Value, _: &[Value]) -> Applied {
    let number = match of {
        Value::Bool(truth) => Some(i128::from(*truth)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => Some(match Reckoned::of(number) {
            Reckoned::Whole(number) => number,
            Reckoned::Decimal(number) => number.trunc() as i128,
        }),
        _ => None,
    };
    Reckoned::Whole(needs("int", "a number, or a text that is a whole number", of, number)?).value()
}

fn float(of: &Value, _: &[Value]) -> Applied {
    let number = match of {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => Some(Reckoned::of(number).decimal()),
        _ => None,
    };
    Reckoned::Decimal(needs("float", "a number, or a text that is a number", of, number)?).value()
}

fn round(of: &Value, arguments: &[Value]) -> Applied {
    let places = arguments.first().map_or(Ok(0), |places| whole("round", places))?.clamp(-20, 20);
    match of {
        Value::Number(number) => match Reckoned::of(number) {
            Reckoned::Whole(_) => Ok(of.clone()),
            Reckoned::Decimal(number) => {
                let scale = 10_f64.powi(i32::try_from(places).unwrap_or(0));
                Reckoned::Decimal((number * scale).round() / scale).value()
            }
        },
        other => Err(mismatch(format!("round needs a number, not {}", kind(other)))),
    }
}

fn extreme(of: &Value, largest: bool) -> Applied {
    let name = if largest { "max" } else { "min" };
    let mut best: Option<&Value> = None;
    for value in list(name, of)? {
        let better = match best {
            Some(best) if largest => order(name, value, best)?.is_gt(),
            Some(best) => order(name, value, best)?.is_lt(),
            // The first one must have an order too.
            None => order(name, value, value).map(|_| true)?,
        };
        if better {
            best = Some(value);
        }
    }
    item(name, best)
}

fn join(of: &Value, arguments: &[Value]) -> Applied {
    let between = arguments.first().map_or(Ok(""), |between| text("join", between))?;
    let mut joined = String::new();
    for (index, part) in list("join", of)?.iter().enumerate() {
        if index > 0 {
            joined.push_str(between);
        }
        match part {
            Value::String(text) => joined.push_str(text),
            other => joined.push_str(&other.to_string()),
        }
        bounded(joined.len())?;
    }
    Ok(joined.into())
}

fn replace(of: &Value, arguments: &[Value]) -> Applied {
    let of = text("replace", of)?;
    let (from, to) = (text("replace", &arguments[0])?, text("replace", &arguments[1])?);
    if from.is_empty() {
        return Err(ExpressionError::template("an empty text cannot be replaced".into()));
    }
    bounded(of.len().saturating_add(of.matches(from).count().saturating_mul(to.len())))?;
    Ok(of.replace(from, to).into())
}

fn split(of: &Value, arguments: &[Value]) -> Applied {
    let parts = text("split", of)?.split(text("split", &arguments[0])?);
    let parts: Vec<Value> = parts.take(PARTS_MAX + 1).map(Value::from).collect();
    if parts.len() > PARTS_MAX {
        return Err(ExpressionError::too_large(format!("there would be more than {PARTS_MAX} parts")));
    }
    Ok(parts.into())
}
