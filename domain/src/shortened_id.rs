//! Ids as people shorten them: the beginning or the end of one. Says what fits, never which one was meant.

use crate::OperationId;
use crate::ids::{AgentId, IdError};

/// Fewest characters of a shortened id.
pub const LENGTH_MIN: usize = 4;
/// Hexadecimal digits of an operation's id.
const DIGITS: u32 = 32;

/// The beginning or the end of an operation's id; with `op_` in front only the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortOperationId {
    number: u128,
    digits: u32,
    only_beginning: bool,
}

impl ShortOperationId {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not 4 to 32 lower-case hexadecimal digits, with or without `op_`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix("op_");
        let only_beginning = digits.is_some();
        let digits = digits.unwrap_or(text);
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fault = IdError {
            what: "the beginning or the end of an operation id",
            form: "[0-9a-f]{4,32}, with or without op_",
        };
        if !(LENGTH_MIN..=DIGITS as usize).contains(&digits.len()) || !digits.bytes().all(is_digit) {
            return Err(fault);
        }
        let number = u128::from_str_radix(digits, 16).map_err(|_| fault)?;
        Ok(Self { number, digits: digits.len() as u32, only_beginning })
    }

    /// Whether the id begins or ends like this.
    #[must_use]
    pub const fn fits(&self, id: &OperationId) -> bool {
        let others = 4 * (DIGITS - self.digits);
        let begins = id.bits() >> others == self.number;
        let ends = (id.bits() << others) >> others == self.number;
        begins || (ends && !self.only_beginning)
    }
}

/// The beginning or the end of an agent's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortAgentId(AgentId);

impl ShortAgentId {
    /// Reads it.
    ///
    /// # Errors
    /// When it has fewer than 4 characters, or some that no id has.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let fault =
            IdError { what: "the beginning or the end of an agent id", form: "[A-Za-z0-9._-]{4,128}" };
        let part = text.parse().ok().filter(|_| text.len() >= LENGTH_MIN).ok_or(fault)?;
        Ok(Self(part))
    }

    /// Whether the id begins or ends like this.
    #[must_use]
    pub fn fits(&self, id: &AgentId) -> bool {
        let (part, id) = (self.0.as_str(), id.as_str());
        id.starts_with(part) || id.ends_with(part)
    }

    /// The agent that has exactly this id, should there be one.
    #[must_use]
    pub const fn whole(&self) -> &AgentId {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_found_by_its_beginning_and_by_its_end() {
        let id: OperationId = "op_0123456789abcdef0123456789abcdef".parse().unwrap();
        for (text, expected) in [
            ("0123", true),
            ("op_0123", true),
            ("cdef", true),
            ("op_cdef", false),
            ("0123456789abcdef0123456789abcdef", true),
            ("op_0123456789abcdef0123456789abcdef", true),
            ("1234", false),
            ("00123", false),
            ("0123456789abcdef0123456789abcdee", false),
        ] {
            assert_eq!(ShortOperationId::parse(text).unwrap().fits(&id), expected, "{text}");
        }
        // Zeros in front count.
        assert!(!ShortOperationId::parse("0000cdef").unwrap().fits(&id));
    }

    #[test]
    fn an_agent_is_found_by_its_beginning_and_by_its_end() {
        let id: AgentId = "worker-east-1".parse().unwrap();
        for (text, expected) in
            [("work", true), ("st-1", true), ("worker-east-1", true), ("east", false), ("Work", false)]
        {
            assert_eq!(ShortAgentId::parse(text).unwrap().fits(&id), expected, "{text}");
        }
    }

    #[test]
    fn what_is_too_short_or_no_part_of_an_id_is_refused() {
        for text in ["", "op_", "012", "op_012", "0123G", "ABCD", "+123", &"0".repeat(33), "op_op_0123"] {
            assert!(ShortOperationId::parse(text).is_err(), "{text}");
        }
        for text in ["", "wor", "a b c", "größe", &"x".repeat(129)] {
            assert!(ShortAgentId::parse(text).is_err(), "{text}");
        }
    }
}
