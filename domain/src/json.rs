//! Free JSON as text. It exists because the binary codec cannot decode a `serde_json::Value`.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use serde_json::value::RawValue;

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
    fn binary_and_text_forms_hold_the_same_value() {
        let json: Json = serde_json::from_str(r#"{ "b": [1, 2.5], "a": null }"#).unwrap();
        assert_eq!(json.as_str(), r#"{"a":null,"b":[1,2.5]}"#);
        assert_eq!(serde_json::to_string(&json).unwrap(), json.as_str());
        let bytes = bincode::serialize(&json).unwrap();
        assert_eq!(bincode::deserialize::<Json>(&bytes).unwrap(), json);
    }

    #[test]
    fn a_size_is_counted_without_writing_and_stops_at_its_maximum() {
        let json: Json = serde_json::from_str(r#"{"a":[1,"x"]}"#).unwrap();
        assert_eq!(size_within(&json, 13), Some(json.len()));
        assert_eq!(size_within(&json, 12), None);
    }
}
