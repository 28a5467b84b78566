//! Owns which log it is and which of its histories: what a position alone does not say.
//! Must never be compared for more than being the same.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// One history of a log. A restored backup goes on with another, in which the same positions may stand for
/// other events. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(Uuid);

impl Epoch {
    /// One that there never was.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// The text is not an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 32 hexadecimal digits")]
pub struct InvalidEpoch;

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        let plain = text.len() == 32;
        plain.then(|| Uuid::try_parse(text).ok()).flatten().map(Self).ok_or(InvalidEpoch)
    }
}

/// Which log, and which of its histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The log; a backup and what is restored from it keep it.
    pub log: Epoch,
    /// Its history.
    pub epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_comes_back_from_its_text_and_nothing_else_is_one() {
        let epoch = Epoch::fresh();
        assert_eq!(epoch.to_string().parse(), Ok(epoch));
        assert_ne!(epoch, Epoch::fresh());
        for bad in ["", "7", &format!("{epoch}0"), &"g".repeat(32), &"-".repeat(32)] {
            assert_eq!(bad.parse::<Epoch>(), Err(InvalidEpoch), "{bad}");
        }
    }
}
