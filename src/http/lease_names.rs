//! Owns the names that leases have outside: with a tag of the log's history, so that after a restore no
//! holder of before can settle a grant that has the same number by chance. Stored events name a lease without
//! it.
//! It must never decide what a lease may do: it only says whether a name is one of this history.

use domain::{IdError, LeaseId};
use events::Epoch;
use serde_json::Value;

use super::error::{ApiError, Code};

/// Digits of a tag.
const TAG_LEN: usize = 6;
/// How every name of a lease begins.
const BEGIN: &str = "ls_";
/// Digits of the operation, which stand first in a name without a tag.
const OPERATION_LEN: usize = 32;
/// The fields in which events hold one name of a lease, or a list of them.
const FIELDS: [&str; 2] = ["leaseId", "closing"];

/// Why a name is none at all.
pub(super) const MALFORMED: IdError =
    IdError { what: "a lease id", form: "ls_<tag>_<operation>_<step>_<grant>" };

/// A name that is no lease of this history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It was never given out.
    Malformed,
    /// Another history of the log gave it out.
    OtherHistory,
}

/// Names leases of one history, and reads their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNames {
    tag: String,
}

impl LeaseNames {
    /// Names of the leases of a history: they carry its first six digits.
    #[must_use]
    pub fn of(epoch: Option<Epoch>) -> Self {
        let digits = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        Self { tag: digits.chars().chain("0".repeat(TAG_LEN).chars()).take(TAG_LEN).collect() }
    }

    /// The name of a lease.
    #[must_use]
    pub fn name(&self, lease: &LeaseId) -> String {
        self.tagged(&lease.to_string())
    }

    /// The lease of a name.
    ///
    /// # Errors
    /// When it was not given out by this history.
    pub fn read(&self, name: &str) -> Result<LeaseId, Foreign> {
        let (tag, plain) = split(name).ok_or(Foreign::Malformed)?;
        let lease = plain.parse().map_err(|_| Foreign::Malformed)?;
        if tag == self.tag { Ok(lease) } else { Err(Foreign::OtherHistory) }
    }

    /// Names the leases in the data of an event as they are named everywhere.
    pub fn show(&self, data: &mut Value) {
        each(data, &|name| name.strip_prefix(BEGIN).map(|_| self.tagged(name)));
    }

    fn tagged(&self, plain: &str) -> String {
        format!("{BEGIN}{}_{}", self.tag, plain.strip_prefix(BEGIN).unwrap_or(plain))
    }
}

/// Names the leases in the data of an event that was shown as the event itself does.
pub fn as_stored(data: &mut Value) {
    each(data, &|name| split(name).map(|(_, plain)| plain));
}

/// The tag of a name, and the name without it; none when it has no tag.
fn split(name: &str) -> Option<(&str, String)> {
    let (tag, rest) = name.strip_prefix(BEGIN)?.split_once('_')?;
    let digits = tag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let whole = tag.len() == TAG_LEN && rest.find('_') == Some(OPERATION_LEN);
    (digits && whole).then(|| (tag, format!("{BEGIN}{rest}")))
}

/// Replaces each name of a lease in the data of an event.
fn each(data: &mut Value, rename: &dyn Fn(&str) -> Option<String>) {
    let replace = |value: &mut Value| {
        if let Some(name) = value.as_str().and_then(rename) {
            *value = name.into();
        }
    };
    for field in FIELDS {
        match data.get_mut(field) {
            Some(Value::Array(names)) => names.iter_mut().for_each(replace),
            Some(name) => replace(name),
            None => {}
        }
    }
}

impl From<Foreign> for ApiError {
    fn from(foreign: Foreign) -> Self {
        match foreign {
            Foreign::Malformed => MALFORMED.into(),
            Foreign::OtherHistory => Self::new(
                Code::LeaseLost,
                "The lease was granted before the log was restored, and ended with that; stop this work and \
                 claim again.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: &str = "ls_0123456789abcdef0123456789abcdef_12_3";
    const NAMED: &str = "ls_fedcba_0123456789abcdef0123456789abcdef_12_3";

    fn names() -> LeaseNames {
        LeaseNames::of("fedcba98765432100123456789abcdef".parse().ok())
    }

    #[test]
    fn a_name_comes_back_as_its_lease_in_its_own_history_only() {
        let lease: LeaseId = PLAIN.parse().unwrap();
        assert_eq!(names().name(&lease), NAMED);
        assert_eq!(names().read(NAMED), Ok(lease.clone()));
        let other = LeaseNames::of(None);
        assert_eq!(other.read(NAMED), Err(Foreign::OtherHistory));
        assert_eq!(other.name(&lease), NAMED.replace("fedcba", "000000"));
    }

    #[test]
    fn a_crooked_name_was_never_given_out() {
        let upper = NAMED.replace("fedcba", "FEDCBA");
        let crooked = NAMED.replace("_12_", "_012_");
        for name in ["", "ls_", "ls_fedcba", PLAIN, &upper, &crooked, &format!("{NAMED}_1")] {
            assert_eq!(names().read(name), Err(Foreign::Malformed), "{name}");
        }
    }

    #[test]
    fn the_data_of_an_event_is_shown_with_names_and_read_without() {
        let stored = json!({"leaseId": PLAIN, "closing": [PLAIN, PLAIN], "result": {"leaseId": PLAIN}});
        let mut data = stored.clone();
        names().show(&mut data);
        let shown = json!({"leaseId": NAMED, "closing": [NAMED, NAMED], "result": {"leaseId": PLAIN}});
        assert_eq!(data, shown);
        as_stored(&mut data);
        assert_eq!(data, stored);
        as_stored(&mut data);
        assert_eq!(data, stored, "a name without a tag stays as it is");
    }
}
