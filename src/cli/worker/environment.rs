//! Owns which variables a worker passes on to its command: a few that every program needs, and those that
//! were named. It must never show what a variable holds.

use std::ffi::{OsStr, OsString};

use crate::processes::ALWAYS_PASSED;

/// How names end of what a command looks likely to need.
const LIKELY_NEEDED: [&str; 3] = ["_API_KEY", "_AUTH_TOKEN", "_ACCESS_TOKEN"];

/// What `--env` says: a variable that is passed on, or one with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    name: String,
    value: Option<OsString>,
}

impl Passed {
    /// Reads `NAME` or `NAME=value`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("give NAME or NAME=value, where NAME is of letters, digits and '_'".to_owned());
        }
        Ok(Self { name: name.to_owned(), value: value.map(OsString::from) })
    }
}

/// The variables of the command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Environment(Vec<(String, OsString)>);

impl Environment {
    /// Of the variables that are there, those that every command gets and those that were named.
    pub(super) fn of(passed: &[Passed], there: impl Fn(&str) -> Option<OsString>) -> Self {
        let always = ALWAYS_PASSED.map(|name| Passed { name: name.to_owned(), value: None });
        let variables = always.into_iter().chain(passed.iter().cloned());
        Self(
            variables
                .filter_map(|Passed { name, value }| {
                    let value = value.or_else(|| there(&name))?;
                    Some((name, value))
                })
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        // What is named later counts.
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Names of variables that are there and look needed, but are not passed on.
    pub(super) fn missed(&self, there: impl Iterator<Item = String>) -> Vec<String> {
        let looks_needed = |name: &String| LIKELY_NEEDED.iter().any(|end| name.ends_with(end));
        // Photon's own key is not the command's.
        let is_own = |name: &String| name.starts_with("PHOTON_");
        let mut missed: Vec<String> =
            there.filter(|name| looks_needed(name) && !is_own(name) && self.get(name).is_none()).collect();
        missed.sort();
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(name: &str) -> Option<OsString> {
        let variables = [("PATH", "/bin"), ("HOME", "/a"), ("A_API_KEY", "k"), ("SECRET", "s")];
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    fn names(environment: &Environment) -> Vec<&str> {
        environment.variables().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn only_what_every_program_needs_and_what_was_named_is_passed_on() {
        assert_eq!(names(&Environment::of(&[], there)), ["PATH", "HOME"]);
        let named = ["SECRET", "NOT_THERE", "MODE=a=b", "PATH=/opt"].map(|text| Passed::read(text).unwrap());
        let environment = Environment::of(&named, there);
        assert_eq!(names(&environment), ["PATH", "HOME", "SECRET", "MODE", "PATH"]);
        assert_eq!(environment.get("MODE"), Some(OsStr::new("a=b")));
        assert_eq!(environment.get("PATH"), Some(OsStr::new("/opt")));
        assert_eq!(environment.get("A_API_KEY"), None);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for text in ["", "=x", "A-B", "1A", "A B=c"] {
            assert!(Passed::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_that_are_not_passed_on_are_named() {
        let all = || ["B_API_KEY", "PATH", "A_API_KEY", "PHOTON_API_KEY"].into_iter().map(str::to_owned);
        assert_eq!(Environment::of(&[], there).missed(all()), ["A_API_KEY", "B_API_KEY"]);
        let named = [Passed::read("A_API_KEY").unwrap()];
        assert_eq!(Environment::of(&named, there).missed(all()), ["B_API_KEY"]);
    }
}
