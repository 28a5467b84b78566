//! What operators do with values that are there: order, arithmetic, texts. It must never convert a kind
//! into another without being told to.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::ExpressionError;
use super::syntax::Binary;
use crate::json::{INTEGER_MAX, INTEGER_MIN};

/// What a value is called in messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The one text of a value: JSON, and a text without its quotes.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number as it is reckoned with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reckoned {
    Whole(i128),
    Decimal(f64),
}

impl Reckoned {
    pub(super) fn of(number: &Number) -> Self {
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        whole.map_or_else(|| Self::Decimal(number.as_f64().unwrap_or(f64::NAN)), Self::Whole)
    }

    pub(super) fn decimal(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Decimal(number) => number,
        }
    }

    /// The number as JSON.
    pub(super) fn value(self) -> Result<Value, ExpressionError> {
        let number = match self {
            Self::Whole(number) if !(INTEGER_MIN..=INTEGER_MAX).contains(&number) => None,
            Self::Whole(number) => i64::try_from(number)
                .map(Number::from)
                .or_else(|_| u64::try_from(number).map(Number::from))
                .ok(),
            Self::Decimal(number) => Number::from_f64(number),
        };
        let advice = "the number is not finite, or larger than an integer may be";
        number.map(Value::from).ok_or_else(|| ExpressionError::template(advice.into()))
    }
}

/// Refuses values of the wrong kind.
pub(super) fn mismatch(sentence: String) -> ExpressionError {
    ExpressionError { code: "type_mismatch", message: sentence }
}

/// A truth.
pub(super) fn truth(what: &str, value: &Value) -> Result<bool, ExpressionError> {
    value.as_bool().ok_or_else(|| mismatch(format!("{what} needs true or false, not {}", kind(value))))
}

/// The same value with its sign turned.
pub(super) fn negative(value: &Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Number(number) => match Reckoned::of(number) {
            Reckoned::Whole(number) => Reckoned::Whole(-number).value(),
            Reckoned::Decimal(number) => Reckoned::Decimal(-number).value(),
        },
        other => Err(mismatch(format!("unary minus needs a number, not {}", kind(other)))),
    }
}

/// Equal in kind and value; 1 and 1.0 are one number.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compared(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, left)| right.get(key).is_some_and(|right| equal(left, right));
            left.len() == right.len() && left.iter().all(same)
        }
        (left, right) => left == right,
    }
}

/// Exact, whatever the numbers are.
fn compared(left: &Number, right: &Number) -> Ordering {
    match (Reckoned::of(left), Reckoned::of(right)) {
        (Reckoned::Whole(left), Reckoned::Whole(right)) => left.cmp(&right),
        (Reckoned::Whole(left), Reckoned::Decimal(right)) => whole_to_decimal(left, right),
        (Reckoned::Decimal(left), Reckoned::Whole(right)) => whole_to_decimal(right, left).reverse(),
        (Reckoned::Decimal(left), Reckoned::Decimal(right)) => {
            left.partial_cmp(&right).unwrap_or(Ordering::Equal)
        }
    }
}

/// A decimal as large as any integer here is whole; a smaller one is split without loss.
fn whole_to_decimal(whole: i128, decimal: f64) -> Ordering {
    if decimal.abs() >= 1e30 {
        return 0.0.partial_cmp(&decimal).unwrap_or(Ordering::Equal);
    }
    let rest = 0.0.partial_cmp(&decimal.fract()).unwrap_or(Ordering::Equal);
    whole.cmp(&(decimal.trunc() as i128)).then(rest)
}

/// The order of two numbers, or of two texts.
pub(super) fn order(sign: &str, left: &Value, right: &Value) -> Result<Ordering, ExpressionError> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(compared(left, right)),
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        _ => {
            let (left, right) = (kind(left), kind(right));
            Err(mismatch(format!("{sign} compares two numbers or two texts, not {left} with {right}")))
        }
    }
}

/// Whether `part` is in `whole`: a text in a text, a key in an object, any value in a list.
pub(super) fn is_in(part: &Value, whole: &Value) -> Result<bool, ExpressionError> {
    match (part, whole) {
        (part, Value::Array(items)) => Ok(items.iter().any(|item| equal(item, part))),
        (Value::String(part), Value::String(whole)) => Ok(whole.contains(part.as_str())),
        (Value::String(key), Value::Object(fields)) => Ok(fields.contains_key(key)),
        (part, whole) => {
            let (part, whole) = (kind(part), kind(whole));
            Err(mismatch(format!(
                "in finds a text in a text, a key in an object or a value in a list, not {part} in {whole}"
            )))
        }
    }
}

/// `+ - * / // %`: between numbers; + also joins two texts or two lists.
pub(super) fn reckon(sign: Binary, left: &Value, right: &Value) -> Result<Value, ExpressionError> {
    match (sign, left, right) {
        (_, Value::Number(left), Value::Number(right)) => {
            calculate(sign, Reckoned::of(left), Reckoned::of(right))?.value()
        }
        (Binary::Add, Value::String(left), Value::String(right)) => Ok(format!("{left}{right}").into()),
        (Binary::Add, Value::Array(left), Value::Array(right)) => Ok([&left[..], &right[..]].concat().into()),
        (sign, left, right) => {
            let (sign, left, right) = (sign.sign(), kind(left), kind(right));
            Err(mismatch(format!("{sign} needs two numbers, not {left} and {right}; ~ joins texts")))
        }
    }
}

fn calculate(sign: Binary, left: Reckoned, right: Reckoned) -> Result<Reckoned, ExpressionError> {
    let zero = || ExpressionError::template("a number cannot be divided by zero".into());
    if let (Reckoned::Whole(left), Reckoned::Whole(right)) = (left, right) {
        return Ok(Reckoned::Whole(match sign {
            Binary::Add => left + right,
            Binary::Subtract => left - right,
            // Both have at most 65 bits.
            Binary::Multiply => left.checked_mul(right).unwrap_or(i128::MAX),
            Binary::DivideWhole => left.checked_div_euclid(right).ok_or_else(zero)?,
            Binary::Remainder => left.checked_rem_euclid(right).ok_or_else(zero)?,
            _ if right == 0 => return Err(zero()),
            _ => return Ok(Reckoned::Decimal(left as f64 / right as f64)),
        }));
    }
    let (left, right) = (left.decimal(), right.decimal());
    Ok(Reckoned::Decimal(match sign {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        _ if right == 0.0 => return Err(zero()),
        Binary::DivideWhole => left.div_euclid(right),
        Binary::Remainder => left.rem_euclid(right),
        _ => left / right,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_compared_exactly_and_kinds_never() {
        let max = json!(u64::MAX);
        for (left, right, expected) in [
            (&json!(1), &json!(1.0), Ordering::Equal),
            (&max, &json!(18446744073709551616.0), Ordering::Less),
            (&json!(9007199254740993_u64), &json!(9007199254740992.0), Ordering::Greater),
            (&json!(-1), &json!(-1.5), Ordering::Greater),
            (&json!(3), &json!(1e300), Ordering::Less),
            (&json!("a"), &json!("b"), Ordering::Less),
        ] {
            assert_eq!(order("<", left, right).unwrap(), expected, "{left} {right}");
            assert_eq!(order("<", right, left).unwrap(), expected.reverse(), "{right} {left}");
        }
        for (left, right) in [(json!("12"), json!(80)), (json!(null), json!(5)), (json!([]), json!([]))] {
            assert_eq!(order("<", &left, &right).unwrap_err().code, "type_mismatch");
        }
        assert!(equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!equal(&json!("1"), &json!(1)) && !equal(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn what_no_integer_can_hold_is_an_error() {
        let (max, min) = (json!(u64::MAX), json!(i64::MIN));
        assert_eq!(reckon(Binary::Subtract, &max, &json!(1)), Ok(json!(u64::MAX - 1)));
        assert!(
            reckon(Binary::Add, &max, &json!(1)).is_err() && reckon(Binary::Multiply, &max, &max).is_err()
        );
        assert!(reckon(Binary::Subtract, &min, &json!(1)).is_err());
        assert_eq!(negative(&json!(9223372036854775808_u64)), Ok(min));
        for sign in [Binary::Divide, Binary::DivideWhole, Binary::Remainder] {
            assert!(
                reckon(sign, &json!(1), &json!(0)).is_err() && reckon(sign, &json!(1), &json!(0.0)).is_err()
            );
        }
        assert_eq!(reckon(Binary::DivideWhole, &json!(-1), &json!(2)), Ok(json!(-1)));
    }
}
