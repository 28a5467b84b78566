//! Which platforms are there. Only those that are built are registered: a step for any other is
//! refused when it is asked for, not when it is due.

use std::collections::BTreeMap;

use domain::operation::definition::HUMAN;
use domain::{PlatformName, PlatformRule};

/// Who performs the steps of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performer {
    /// An agent's own process, which claims them.
    Agent,
    /// The server, on behalf of an agent.
    Server,
    /// A person, who is asked.
    Person,
}

impl Performer {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Server => "server",
            Self::Person => "person",
        }
    }
}

/// What is known of a platform.
#[derive(Clone, Debug)]
pub struct Platform {
    /// For people.
    pub description: &'static str,
    /// Who performs its steps.
    pub performer: Performer,
    /// What it can do.
    pub capabilities: &'static [&'static str],
    /// Its actions; none means any well-formed name.
    pub actions: Option<Vec<String>>,
}

/// All platforms by name.
#[derive(Clone, Debug, Default)]
pub struct Registry(BTreeMap<PlatformName, Platform>);

impl Registry {
    /// The platforms that are built.
    #[must_use]
    pub fn built() -> Self {
        let worker = Platform {
            description: "The agent's own process claims the step, performs it and reports.",
            performer: Performer::Agent,
            capabilities: &["any-action"],
            actions: None,
        };
        let human = Platform {
            description: "A person answers: POST …/steps/N/approve or …/reject.",
            performer: Performer::Person,
            capabilities: &["approval"],
            actions: Some(vec!["approve".into()]),
        };
        let built = [("worker", worker), (HUMAN, human)];
        Self(built.into_iter().filter_map(|(name, platform)| Some((name.parse().ok()?, platform))).collect())
    }

    /// One platform.
    #[must_use]
    pub fn get(&self, name: &PlatformName) -> Option<&Platform> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&PlatformName, &Platform)> {
        self.0.iter()
    }

    /// What the core may know of them.
    #[must_use]
    pub fn rules(&self) -> BTreeMap<PlatformName, PlatformRule> {
        let rule = |platform: &Platform| match &platform.actions {
            None => PlatformRule::AnyAction,
            Some(actions) => PlatformRule::Actions(actions.clone()),
        };
        self.0.iter().map(|(name, platform)| (name.clone(), rule(platform))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_takes_any_action_and_a_person_only_approves() {
        let rules = Registry::built().rules();
        assert!(matches!(rules[&"worker".parse().unwrap()], PlatformRule::AnyAction));
        assert!(
            matches!(&rules[&"human".parse().unwrap()], PlatformRule::Actions(only) if only == &["approve"])
        );
    }
}
