//! Owns what a backup says about itself. Its checksum covers it whole, so that no field can change unnoticed.

use actors::past::STATE_FORM;
use domain::Timestamp;
use events::Identity;
use serde::{Deserialize, Serialize};

use super::survey::Survey;
use crate::archive::hex;

/// The only form of a backup that is made, and read. Form 1 held a log of a former format; Photon made it
/// before its first release.
const FORMAT: u32 = 2;

/// What every form of a manifest says.
#[derive(Deserialize)]
struct Made {
    format: u32,
    program: String,
}

/// Why a manifest is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is not what was written.
    Damaged(String),
    /// Another version of the program made the backup.
    OtherFormat(String),
}

/// What must be in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Form of the backup.
    pub format: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Which log.
    pub log: String,
    /// Which of its histories.
    pub epoch: String,
    /// Position of its last event.
    pub position: u64,
    /// Time of that event.
    pub time: Timestamp,
    /// How many events.
    pub events: u64,
    /// How many streams.
    pub streams: u64,
    /// Bytes of its journals.
    pub bytes: u64,
    /// Head of its hash chain.
    pub head: String,
    /// BLAKE3 of its events, as `photon event verify` shows it.
    pub digest: String,
    /// BLAKE3 of what its events come to, as `photon replay` shows it.
    pub state_hash: String,
    /// Form of the state that it is of.
    pub state_form: u32,
    /// BLAKE3 of all that is above.
    pub checksum: String,
}

impl Made {
    /// Says which version made it, as far as the manifest can be believed.
    fn other_format(&self) -> Unusable {
        let Self { format, program } = self;
        let program: String = program.chars().filter(|letter| !letter.is_control()).take(32).collect();
        let whose = match format {
            0 => return Unusable::Damaged("its manifest has no format".into()),
            1 => format!("which version {program} of Photon wrote before the first release"),
            _ => format!("which version {program} of Photon wrote"),
        };
        Unusable::OtherFormat(format!(
            "it has format {format}, {whose}, and this version reads format {FORMAT} only"
        ))
    }
}

impl Manifest {
    pub(super) fn of(survey: &Survey, identity: &Identity, now: Timestamp) -> Self {
        let Survey { audit, digest, past } = survey;
        let manifest = Self {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").into(),
            created_at: now,
            log: identity.log.to_string(),
            epoch: identity.epoch.to_string(),
            position: audit.last.get(),
            time: past.time,
            events: audit.events,
            streams: audit.streams,
            bytes: audit.bytes,
            head: hex(&audit.head),
            digest: digest.clone(),
            state_hash: past.hash(),
            state_form: STATE_FORM,
            checksum: String::new(),
        };
        Self { checksum: manifest.sum(), ..manifest }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let unreadable =
            |fault: serde_json::Error| Unusable::Damaged(format!("its manifest cannot be read: {fault}"));
        let made: Made = serde_json::from_str(text).map_err(unreadable)?;
        if made.format != FORMAT {
            return Err(made.other_format());
        }
        let manifest: Self = serde_json::from_str(text).map_err(unreadable)?;
        if manifest.checksum != manifest.sum() {
            return Err(Unusable::Damaged("its manifest does not fit its checksum".into()));
        }
        Ok(manifest)
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// What of a log is not as it says.
    pub(super) fn differs(&self, survey: &Survey, identity: &Identity) -> Option<String> {
        // A later program may see more in the same events.
        let past = (self.state_form == STATE_FORM).then(|| survey.past.hash());
        let expected = Self {
            format: self.format,
            program: self.program.clone(),
            state_form: self.state_form,
            state_hash: past.unwrap_or_else(|| self.state_hash.clone()),
            ..Self::of(survey, identity, self.created_at)
        };
        let expected = Self { checksum: expected.sum(), ..expected };
        let pairs = [
            ("position", self.position.to_string(), expected.position.to_string()),
            ("number of events", self.events.to_string(), expected.events.to_string()),
            ("hash chain", self.head.clone(), expected.head.clone()),
            ("digest", self.digest.clone(), expected.digest.clone()),
            ("log", self.log.clone(), expected.log.clone()),
            ("epoch", self.epoch.clone(), expected.epoch.clone()),
            ("state's hash", self.state_hash.clone(), expected.state_hash.clone()),
        ];
        let found = pairs.into_iter().find(|(_, said, found)| said != found);
        let told = found.map(|(name, said, found)| format!("its {name} is {found}, not {said}"));
        told.or_else(|| (self.text() != expected.text()).then(|| "it is not what its manifest says".into()))
    }

    fn sum(&self) -> String {
        let unsigned = Self { checksum: String::new(), ..self.clone() };
        blake3::hash(unsigned.text().as_bytes()).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_format_is_refused_by_its_name_whatever_else_it_says() {
        let told = |text: &str| match Manifest::parse(text) {
            Err(Unusable::OtherFormat(what)) => what,
            other => panic!("{other:?}"),
        };
        let newer = told(r#"{"format": 9, "program": "7.8.9", "more": {"unknown": true}}"#);
        assert_eq!(
            newer,
            "it has format 9, which version 7.8.9 of Photon wrote, and this version reads format 2 only"
        );
        let former = told(r#"{"format": 1, "program": "0.1.0"}"#);
        assert!(former.contains("which version 0.1.0 of Photon wrote before the first release"), "{former}");
        for text in ["", "{}", r#"{"format": 0, "program": "0.1.0"}"#, r#"{"format": 2, "program": "0.1.0"}"#]
        {
            assert!(matches!(Manifest::parse(text), Err(Unusable::Damaged(_))), "{text}");
        }
    }
}
