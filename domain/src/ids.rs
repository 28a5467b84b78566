//! Names of things. Every id is a checked newtype; nothing here makes one up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Longest agent, platform or action name, in bytes.
pub const NAME_MAX: usize = 128;

/// Why a text is no such id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} must match {form}")]
pub struct IdError {
    /// Which kind of id was meant.
    pub what: &'static str,
    /// The form it must have.
    pub form: &'static str,
}

/// A segment of a URL that is one of these names another place: nobody could ask for what has such a name.
fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_lane(text: &str) -> bool {
    text.split_once('.').is_some_and(|(kind, account)| kind.len() <= 32 && is_name(kind) && is_name(account))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $form:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            const NOT_ONE: IdError = IdError { what: $what, form: $form };

            /// One that was stored before `.` and `..` were refused must still be read.
            fn stored(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(Self::NOT_ONE) }
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_dots(text) { Err(Self::NOT_ONE) } else { Self::stored(text) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::stored(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

text_id!(
    /// An agent, named by its owner.
    AgentId, "an agent id", "[A-Za-z0-9._-]{1,128} and be neither . nor ..", is_name
);
text_id!(
    /// A platform on which steps are performed.
    PlatformName, "a platform", "[A-Za-z0-9._-]{1,128} and be neither . nor ..", is_name
);
text_id!(
    /// An action of a platform.
    ActionName, "an action", "[A-Za-z0-9._-]{1,128} and be neither . nor ..", is_name
);
text_id!(
    /// A lane: one account of one platform.
    LaneId, "a lane", "a kind, a dot and [A-Za-z0-9._-]{1,128}", is_lane
);

impl LaneId {
    /// The lane of an agent's own process that shares its account with nobody.
    #[must_use]
    pub fn of_worker(agent: &AgentId) -> Self {
        Self(format!("worker.{agent}").into())
    }
}

/// An operation: the 128 bits of a UUID.
///
/// As text: `op_` and 32 lower-case hexadecimal digits. The order is that of the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId([u8; 16]);

const OPERATION_FORM: IdError = IdError { what: "an operation id", form: "op_ and 32 hexadecimal digits" };

impl OperationId {
    /// From the 128 bits of a UUID.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// The 128 bits.
    #[must_use]
    pub const fn bits(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl FromStr for OperationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix("op_").filter(|digits| digits.len() == 32).ok_or(OPERATION_FORM)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if !digits.bytes().all(is_digit) {
            return Err(OPERATION_FORM);
        }
        u128::from_str_radix(digits, 16).map(Self::from_bits).map_err(|_| OPERATION_FORM)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op_{:032x}", self.bits())
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A lease: which grant of which step of which operation. It routes without an index.
///
/// As text: `ls_<32 hexadecimal digits>_<step>_<grant>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// The operation that granted it.
    pub operation: OperationId,
    /// The step it is for.
    pub step: u32,
    /// Rises with every reservation of the step: the fencing token.
    pub grant: u64,
}

const LEASE_FORM: IdError = IdError { what: "a lease id", form: "ls_<operation>_<step>_<grant>" };

impl FromStr for LeaseId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.strip_prefix("ls_").ok_or(LEASE_FORM)?.split('_');
        let (Some(operation), Some(step), Some(grant), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(LEASE_FORM);
        };
        let lease = Self {
            operation: format!("op_{operation}").parse().map_err(|_| LEASE_FORM)?,
            step: step.parse().map_err(|_| LEASE_FORM)?,
            grant: grant.parse().map_err(|_| LEASE_FORM)?,
        };
        // One lease has one spelling: `+1` and `01` parse as numbers but are not what was given out.
        if lease.to_string() == text { Ok(lease) } else { Err(LEASE_FORM) }
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ls_{:032x}_{}_{}", self.operation.bits(), self.step, self.grant)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LeaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_id_survives_its_text() {
        let text = "ls_0123456789abcdef0123456789abcdef_12_3";
        let lease: LeaseId = text.parse().unwrap();
        assert_eq!((lease.step, lease.grant, lease.to_string().as_str()), (12, 3, text));
    }

    #[test]
    fn an_operation_id_from_bits_is_one() {
        let id = OperationId::from_bits(7);
        assert_eq!(id.to_string().parse::<OperationId>().unwrap(), id);
        for text in
            ["op_", "op_7", &format!("op_{:031x}G", 7), &format!("op_+{:031x}", 7), &id.to_string()[3..]]
        {
            assert!(text.parse::<OperationId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_crooked_lease_id_is_refused() {
        for text in ["", "ls_", "ls_x_1_1", "ls_0123456789abcdef0123456789abcdef_01_1", "op_1_1"] {
            assert!(text.parse::<LeaseId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_bounded_and_plain() {
        assert!("a.b-c_9".parse::<AgentId>().is_ok());
        for text in ["", "a b", "a/b", "é", "a\0", &"x".repeat(129)] {
            assert!(text.parse::<AgentId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_that_no_url_can_hold_is_refused_and_one_that_is_stored_is_read() {
        for text in [".", ".."] {
            let refused = text.parse::<AgentId>().unwrap_err().to_string();
            assert!(refused.ends_with("and be neither . nor .."), "{refused}");
            assert!(text.parse::<PlatformName>().is_err() && text.parse::<ActionName>().is_err());
            let stored = bincode::serialize(text).unwrap();
            assert_eq!(bincode::deserialize::<AgentId>(&stored).unwrap().as_str(), text);
        }
        assert!("...".parse::<AgentId>().is_ok());
    }
}
