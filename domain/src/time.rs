//! Moments and spans. A moment is told to the core; nothing here reads a clock.

use std::fmt;
use std::num::NonZeroI64;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, to the millisecond: what is shown of two moments is equal exactly when they are.
///
/// In binary forms it is the microseconds since 1970-01-01 UTC; in text forms RFC 3339 in UTC with
/// milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(
    /// One more than the number, so that a moment that may be absent takes no more room.
    NonZeroI64,
);

/// The last moment that RFC 3339 can write: the end of the year 9999.
const LAST_US: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// From microseconds since 1970, clamped to what RFC 3339 can write; a part of a millisecond is left out.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        let micros = if micros < 0 {
            0
        } else if micros > LAST_US {
            LAST_US
        } else {
            micros
        };
        match NonZeroI64::new(micros - micros % 1_000 + 1) {
            Some(number) => Self(number),
            None => Self(NonZeroI64::MIN),
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0.get() - 1
    }

    /// This moment and so many milliseconds more; stops at the last moment there is.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        let micros = if ms > LAST_US as u64 / 1_000 { LAST_US } else { ms as i64 * 1_000 };
        Self::from_micros(self.as_micros().saturating_add(micros))
    }

    /// Milliseconds from `earlier` until this moment; 0 when it is not earlier.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        let micros = self.as_micros() - earlier.as_micros();
        if micros < 0 { 0 } else { micros as u64 / 1_000 }
    }

    /// Reads RFC 3339. `None` when it is none, or outside the years 1970 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let micros = DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros();
        (0..=LAST_US).contains(&micros).then_some(Self::from_micros(micros))
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::from_micros(0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({})", self.as_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = DateTime::<Utc>::from_timestamp_micros(self.as_micros()).unwrap_or_default();
        f.write_str(&moment.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.as_micros())
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text)
                .ok_or_else(|| de::Error::custom("a time must be RFC 3339, such as 2026-01-31T09:30:00Z"))
        } else {
            i64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        let moment = Timestamp::parse("2026-11-23T03:00:00.5+02:00").unwrap();
        assert_eq!(moment.to_string(), "2026-11-23T01:00:00.500Z");
    }

    #[test]
    fn two_moments_that_are_shown_alike_are_equal() {
        let (one, other) = (Timestamp::from_micros(1_999), Timestamp::from_micros(1_000));
        assert_eq!((one, one.to_string()), (other, other.to_string()));
        assert_ne!(one, Timestamp::from_micros(2_000));
        assert_eq!(Timestamp::parse(&one.to_string()), Some(one));
        let finer = Timestamp::parse("1970-01-01T00:00:00.001999999Z").unwrap();
        assert_eq!(finer, one);
    }

    #[test]
    fn spans_never_overflow() {
        let last = Timestamp::from_micros(i64::MAX);
        assert_eq!(last.plus_ms(u64::MAX), last);
        assert_eq!(Timestamp::default().ms_since(last), 0);
        assert_eq!(Timestamp::default().plus_ms(7).ms_since(Timestamp::default()), 7);
    }
}
