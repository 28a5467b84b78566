//! Free JSON as text. It exists because the binary codec cannot decode a `serde_json::Value`.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use serde_json::value::RawValue;

/// The smallest integer that JSON here may hold.
pub const INTEGER_MIN: i128 = i64::MIN as i128;
/// The largest one.
pub const INTEGER_MAX: i128 = u64::MAX as i128;
/// Levels of a value: it is the first, and what it holds the next. What is deeper could be accepted and then
/// not be read again.
pub const DEPTH_MAX: usize = 100;

/// Why a value must not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// It would become a decimal number, and another one.
    #[error("must not hold an integer below -2^63 or above 2^64-1: send it as a string")]
    Integer,
    /// It could not be read again.
    #[error("must not be nested deeper than {DEPTH_MAX} levels: send what is deeper as a string")]
    Depth,
    /// The JSON library would take the value for a text of JSON, and its content for data.
    #[error("must not hold a key that begins with \"{RESERVED_KEY}\": use another name")]
    ReservedKey,
}

/// How keys begin that mean something to the JSON library itself.
pub const RESERVED_KEY: &str = "$serde_json::private::";

impl Unstorable {
    /// A stable slug.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Integer => "integer_out_of_bounds",
            Self::Depth => "too_deep",
            Self::ReservedKey => "reserved_key",
        }
    }
}

/// A JSON value in canonical text: no white space, object keys sorted.
///
/// In binary forms it is its text; in text forms it is the value itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: even `""` takes two bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value. A text that came from outside this type reads as null.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// Reads JSON without loss: a text that holds what cannot be stored is kept as it stands, so that it
    /// can be refused by name.
    ///
    /// # Errors
    /// When it is no JSON, or holds a number that nothing can hold.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        if unstorable(text).is_some() {
            serde_json::from_str::<&RawValue>(text)?;
            return Ok(Self(text.into()));
        }
        serde_json::from_str::<Value>(text).map(Self::from)
    }

    /// Why the value must not be stored, if it must not.
    #[must_use]
    pub fn unstorable(&self) -> Option<Unstorable> {
        unstorable(&self.0)
    }

    /// JSON's `null`.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// An empty object.
    #[must_use]
    pub fn object() -> Self {
        Self("{}".into())
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

/// Reads a field without loss, as [`Json::read`] does.
///
/// # Errors
/// When it is no JSON.
pub fn lossless<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Json::read(raw.get()).map_err(de::Error::custom)
}

/// The same for a field that may be absent or null.
///
/// # Errors
/// When it is no JSON.
pub fn lossless_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    raw.map(|raw| Json::read(raw.get()).map_err(de::Error::custom)).transpose()
}

/// Looks for what must not be stored in one pass over a JSON text.
fn unstorable(text: &str) -> Option<Unstorable> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        // The value begins a level below the brackets around it.
        let begins = matches!(bytes[at], b'"' | b'[' | b'{' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n');
        if begins && depth >= DEPTH_MAX {
            return Some(Unstorable::Depth);
        }
        match bytes[at] {
            b'"' => {
                let begin = at;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                let rest = text.get(at + 1..).unwrap_or_default();
                if rest.trim_start().starts_with(':') && is_reserved(&text[begin..=at]) {
                    return Some(Unstorable::ReservedKey);
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let belongs = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let len = bytes[at..].iter().take_while(belongs).count();
                let number = &text[at..at + len];
                // Nineteen letters always fit; most numbers are shorter.
                if len >= 19 && number.bytes().skip(1).all(|byte| byte.is_ascii_digit()) {
                    let fits =
                        number.parse().is_ok_and(|number| (INTEGER_MIN..=INTEGER_MAX).contains(&number));
                    if !fits {
                        return Some(Unstorable::Integer);
                    }
                }
                at += len - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether a key, as it is written with its quotes, is one of the JSON library's own.
fn is_reserved(written: &str) -> bool {
    // Few keys are as long, and of those few are written with escapes.
    let may_be =
        written.len() > RESERVED_KEY.len() && (written.contains('\\') || written.contains("private::"));
    may_be && serde_json::from_str::<String>(written).is_ok_and(|key| key.starts_with(RESERVED_KEY))
}

/// Levels of a value.
pub(crate) fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    1 + below.unwrap_or(0)
}

/// Bytes that a value takes as JSON; none when they are more than `max` or it cannot be written so.
pub(crate) fn size_within(value: &impl Serialize, max: usize) -> Option<usize> {
    let mut count = Count { left: max };
    serde_json::to_writer(&mut count, value).ok()?;
    Some(max - count.left)
}

/// Keeps nothing of what is written; stops when it is too much.
struct Count {
    left: usize,
}

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serde_json::from_str::<&RawValue>(&self.0).map_err(ser::Error::custom)?.serialize(serializer)
        } else {
            serializer.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Value::deserialize(deserializer).map(Self::from)
        } else {
            let text = String::deserialize(deserializer)?;
            serde_json::from_str::<&RawValue>(&text).map_err(de::Error::custom)?;
            Ok(Self(text.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_json_library_are_refused_however_they_are_written() {
        for text in [
            r#"{"$serde_json::private::RawValue": "[1, 2]"}"#,
            r#"[{"a": {"\u0024serde_json::private::RawValue" : "1"}}]"#,
            r#"{"$serde_json::private::Number": "1"}"#,
        ] {
            assert_eq!(Json::read(text).unwrap().unstorable(), Some(Unstorable::ReservedKey), "{text}");
        }
        for text in [r#"{"a": "$serde_json::private::RawValue"}"#, r#"{"serde_json::private::RawValue": 1}"#]
        {
            assert_eq!(Json::read(text).unwrap().unstorable(), None, "{text}");
        }
    }

    #[test]
    fn binary_and_text_forms_hold_the_same_value() {
        let json: Json = serde_json::from_str(r#"{ "b": [1, 2.5], "a": null }"#).unwrap();
        assert_eq!(json.as_str(), r#"{"a":null,"b":[1,2.5]}"#);
        assert_eq!(serde_json::to_string(&json).unwrap(), json.as_str());
        let bytes = bincode::serialize(&json).unwrap();
        assert_eq!(bincode::deserialize::<Json>(&bytes).unwrap(), json);
    }

    #[test]
    fn integers_and_levels_are_bounded_and_what_breaks_a_bound_is_kept_to_be_refused() {
        let nested = |levels: usize, inner: &str| {
            let around = levels - 1;
            format!("{}{inner}{}", "[".repeat(around), "]".repeat(around))
        };
        for fits in [
            "18446744073709551615",
            "-9223372036854775808",
            "1e21",
            "0.12345678901234567890123",
            "0",
            r#""123456789012345678901234567890 \" [""#,
            &nested(100, "[]"),
            &nested(100, "1"),
        ] {
            assert_eq!(Json::read(fits).unwrap().unstorable(), None, "{fits}");
        }
        assert_eq!(Json::read("18446744073709551615").unwrap().as_str(), "18446744073709551615");
        for large in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
            let within = format!(r#"{{"b": [{large}]}}"#);
            assert_eq!(Json::read(large).unwrap().unstorable(), Some(Unstorable::Integer));
            assert_eq!(Json::read(&within).unwrap().as_str(), within);
        }
        for deep in [nested(101, "[]"), nested(101, "null"), nested(101, r#""x""#), nested(10_000, "{}")] {
            assert_eq!(Json::read(&deep).unwrap().unstorable(), Some(Unstorable::Depth), "{}", deep.len());
        }
        assert_eq!(depth(&serde_json::from_str(&nested(100, "[]")).unwrap()), 100);
        for broken in ["", "[", "1e999", r#""\ud800""#, "[18446744073709551616", "01"] {
            assert!(Json::read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_size_is_counted_without_writing_and_stops_at_its_maximum() {
        let json: Json = serde_json::from_str(r#"{"a":[1,"x"]}"#).unwrap();
        assert_eq!(size_within(&json, 13), Some(json.len()));
        assert_eq!(size_within(&json, 12), None);
    }
}
