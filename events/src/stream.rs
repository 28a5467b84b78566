//! Owns the names of places: which stream, which event within it, which event of the whole log.
//! Must never do arithmetic across logs: positions may skip, so nothing here adds one to a position.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest category of a stream, in bytes.
pub const CATEGORY_MAX_LEN: usize = 32;
/// The longest id of a stream within its category, in bytes.
pub const ID_MAX_LEN: usize = 200;

/// The name of one stream, `category/id`. Cloning is cheap (a shared string).
///
/// The category has 1 to 32 and the id 1 to 200 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

/// Why a text is not the name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a stream name (category/id of letters, digits, '.', '_' and '-'): {0:?}")]
pub struct InvalidStreamId(pub String);

impl StreamId {
    /// Joins a category and an id.
    ///
    /// # Errors
    /// When either is empty, too long or has a character outside `[A-Za-z0-9._-]`.
    pub fn new(category: &str, id: &str) -> Result<Self, InvalidStreamId> {
        Self::parse(&format!("{category}/{id}"))
    }

    /// Joins a category and an id whatever they hold: what a name may not hold becomes `_`, and what is too
    /// long is cut. For ids whose own rules are narrower than these it is the same as [`StreamId::new`].
    #[must_use]
    pub fn lossy(category: &str, id: &str) -> Self {
        Self(format!("{}/{}", fitted(category, CATEGORY_MAX_LEN), fitted(id, ID_MAX_LEN)).into())
    }

    /// Reads `category/id`.
    ///
    /// # Errors
    /// When the text has no slash, or either part breaks the rules of [`StreamId::new`].
    pub fn parse(text: &str) -> Result<Self, InvalidStreamId> {
        match text.split_once('/') {
            Some((category, id)) if fits(category, CATEGORY_MAX_LEN) && fits(id, ID_MAX_LEN) => {
                Ok(Self(Arc::from(text)))
            }
            _ => Err(InvalidStreamId(text.chars().take(64).collect())),
        }
    }

    /// The whole name, `category/id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash: what kind of thing the stream describes.
    #[must_use]
    pub fn category(&self) -> &str {
        self.0.split_once('/').map_or("", |(category, _)| category)
    }

    /// The part after the slash: which thing of its kind.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, id)| id)
    }
}

fn fitted(part: &str, max_len: usize) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let text: String = part.chars().take(max_len).map(fit).collect();
    if text.is_empty() { "_".into() } else { text }
}

fn fits(part: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl Borrow<str> for StreamId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// How many events a stream has, or which of them one is: the first event of a stream has version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(u64);

impl Version {
    /// Before the first event: the version of a stream that does not exist yet.
    pub const NONE: Self = Self(0);

    /// Takes a number at its word.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version of the event that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an event in the whole log. Positions only grow and may skip, so there is no `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(u64);

impl Position {
    /// Before every event.
    pub const START: Self = Self(0);

    /// Takes a number at its word.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_category_and_id() {
        let stream = StreamId::new("operation", "op_01").unwrap();
        assert_eq!((stream.category(), stream.id()), ("operation", "op_01"));
        assert_eq!(StreamId::parse("operation/op_01").unwrap(), stream);
        assert_eq!(stream.to_string(), "operation/op_01");
    }

    #[test]
    fn a_name_outside_the_rules_is_refused() {
        let long = "x".repeat(ID_MAX_LEN + 1);
        for (category, id) in [("", "a"), ("a", ""), ("a b", "c"), ("a", "b/c"), ("a", "é"), ("a", &long)] {
            assert!(StreamId::new(category, id).is_err(), "{category}/{id}");
        }
        for (category, id) in [("", "a"), ("a b", "é/"), ("operation", "op_1"), ("a", long.as_str())] {
            assert!(StreamId::parse(StreamId::lossy(category, id).as_str()).is_ok(), "{category}/{id}");
        }
        assert_eq!(StreamId::lossy("operation", "op_1"), StreamId::new("operation", "op_1").unwrap());
        assert!(StreamId::parse("no-slash").is_err());
        assert!(StreamId::new(&"c".repeat(CATEGORY_MAX_LEN), &"x".repeat(ID_MAX_LEN)).is_ok());
    }
}
