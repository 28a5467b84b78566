//! Owns the sentence that says why a command did not do what it was asked for.

use std::fmt::Display;

use super::output;
use crate::client::ClientError;
pub(super) use crate::exit::Exit;

/// Why a command did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    exit: Exit,
    sentence: String,
}

impl Complaint {
    pub(super) fn new(exit: Exit, sentence: impl Display) -> Self {
        Self { exit, sentence: sentence.to_string() }
    }

    /// Says it, and gives the exit code back.
    pub(super) fn voice(&self) -> Exit {
        if !self.sentence.is_empty() {
            output::say(&self.sentence);
        }
        self.exit
    }
}

/// What the server advises to those who call its routes, and what that is on the command line.
const COMMANDS: [(&str, &str); 7] = [
    ("GET /api/v1/operations lists them", "'photon op list' lists them"),
    ("register it with POST /api/v1/agents", "'photon agent list' shows those that are registered"),
    ("GET /api/v1/platforms", "'photon platform list'"),
    ("GET /openapi.json lists every path", "the address may be another server's, or another version's"),
    ("GET /asyncapi.json lists them", "'photon event list' shows those that happened"),
    ("GET /health/detailed says", "the server's output says"),
    ("see its /steps", "'photon op get' shows its steps"),
];

/// A sentence of the server for somebody at the command line.
fn in_commands(sentence: &str) -> String {
    let mut told = sentence.to_owned();
    for (route, command) in COMMANDS {
        told = told.replace(route, command);
    }
    told
}

impl From<ClientError> for Complaint {
    fn from(error: ClientError) -> Self {
        Self::new(error.exit(), in_commands(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Code;
    use std::path::{Path, PathBuf};

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn no_message_sends_a_person_at_the_command_line_to_a_route() {
        let is_route =
            |text: &str| ["GET /", "POST /", "PUT /", "DELETE /"].iter().any(|method| text.contains(method));
        for code in Code::ALL {
            assert!(!is_route(&in_commands(code.advice())), "{code:?}");
        }
        let mut found = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut found);
        for file in found.iter().filter(|file| !file.ends_with("tests.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
            let told = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in told.filter(|line| line.contains('"')) {
                assert!(!is_route(&in_commands(line)), "{}: {line}", file.display());
            }
        }
        assert_eq!(in_commands("No; GET /api/v1/operations lists them."), "No; 'photon op list' lists them.");
    }
}
