//! What is wrong with what an agent says of itself. Sentences for the caller, each with its place.

use crate::agent::event::{Config, Patch, Profile};
use crate::agent::quarantine::FAILURES_MAX;
use crate::bounds::{self, Breach, CAPABILITIES_MAX, MODEL_MAX, NAME_MAX};

/// Most steps that one agent may have at once.
pub const SLOTS_MAX: u32 = 1_000;
/// Shortest interval between heartbeats, in milliseconds; 0 expects none.
pub const HEARTBEAT_MIN_MS: u64 = 100;
/// Longest interval between heartbeats: one hour.
pub const HEARTBEAT_MAX_MS: u64 = 3_600_000;

impl Profile {
    /// Everything that is wrong with it, as (JSON pointer, sentence); an empty list accepts it.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        let whole = Patch {
            name: Some(self.name.clone()),
            model: Some(self.model.clone()),
            capabilities: Some(self.capabilities.clone()),
            location: None,
            config: Some(self.config.clone()),
            metadata: Some(self.metadata.clone()),
        };
        whole.faults()
    }
}

impl Patch {
    /// Everything that is wrong with what it changes, as (JSON pointer, sentence).
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut breaches: Vec<Breach> = Vec::new();
        let name = self.name.as_ref().and_then(|name| bounds::name("name", name, NAME_MAX));
        breaches.extend(name.map(|breach| breach.at("/name")));
        let model = self.model.as_ref().and_then(|model| bounds::line("model", model, MODEL_MAX));
        breaches.extend(model.map(|breach| breach.at("/model")));
        if let Some(capabilities) = &self.capabilities {
            let bad = bounds::slugs("capabilities", capabilities, CAPABILITIES_MAX);
            breaches.extend(bad.into_iter().map(|breach| breach.at("/capabilities")));
        }
        if let Some(config) = &self.config {
            breaches.extend(config.breaches().into_iter().map(|breach| breach.at("/config")));
        }
        let metadata = self.metadata.as_ref().and_then(|metadata| bounds::object("metadata", metadata));
        breaches.extend(metadata.map(|breach| breach.at("/metadata")));
        breaches.into_iter().map(Breach::shown).collect()
    }
}

impl Config {
    fn breaches(&self) -> Vec<Breach> {
        let mut breaches = Vec::new();
        if !(1..=SLOTS_MAX).contains(&self.max_concurrent_steps) {
            let detail = format!("maxConcurrentSteps must be from 1 to {SLOTS_MAX}");
            breaches.push(Breach::new("out_of_bounds", detail).at("/maxConcurrentSteps"));
        }
        let interval = self.heartbeat_interval_ms;
        if interval != 0 && !(HEARTBEAT_MIN_MS..=HEARTBEAT_MAX_MS).contains(&interval) {
            let detail =
                format!("heartbeatIntervalMs must be 0 or from {HEARTBEAT_MIN_MS} to {HEARTBEAT_MAX_MS}");
            breaches.push(Breach::new("out_of_bounds", detail).at("/heartbeatIntervalMs"));
        }
        if let Some(failures) = self.failures_in_a_row.filter(|failures| *failures > FAILURES_MAX) {
            let detail = format!("failuresInARow must be from 0 to {FAILURES_MAX}, not {failures}");
            breaches.push(Breach::new("out_of_bounds", detail).at("/failuresInARow"));
        }
        breaches.extend(bounds::labels(&self.labels).into_iter().map(|breach| breach.at("/labels")));
        let parameters = bounds::object("modelParameters", &self.model_parameters);
        breaches.extend(parameters.map(|breach| breach.at("/modelParameters")));
        breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Json;
    use crate::operation::definition::Location;

    fn profile() -> Profile {
        Profile {
            name: "Reviewer".into(),
            model: "sonnet-4.5".into(),
            capabilities: vec!["review:rust".into()],
            location: Location::Local,
            config: Config::default(),
            metadata: Json::object(),
        }
    }

    fn pointers(profile: &Profile) -> Vec<String> {
        profile.faults().into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn a_plain_profile_has_no_faults() {
        assert_eq!(profile().faults(), []);
        assert_eq!(Patch::default().faults(), []);
    }

    #[test]
    fn every_fault_of_a_profile_is_named_with_its_place() {
        let mut bad = profile();
        bad.name = "x\u{1b}".into();
        bad.model = "m".repeat(MODEL_MAX + 1);
        bad.capabilities = vec!["ok".into(), "no blanks".into()];
        bad.metadata = Json::from(serde_json::json!([1]));
        bad.config.max_concurrent_steps = 0;
        bad.config.heartbeat_interval_ms = 99;
        bad.config.failures_in_a_row = Some(FAILURES_MAX + 1);
        bad.config.labels.insert("zone".into(), "x".repeat(129));
        bad.config.model_parameters = Json::null();
        let expected = [
            "/name",
            "/model",
            "/capabilities/1",
            "/config/maxConcurrentSteps",
            "/config/heartbeatIntervalMs",
            "/config/failuresInARow",
            "/config/labels/zone",
            "/config/modelParameters",
            "/metadata",
        ];
        assert_eq!(pointers(&bad), expected);
    }

    #[test]
    fn the_bounds_themselves_are_allowed() {
        let mut edge = profile();
        edge.name = "n".repeat(NAME_MAX);
        edge.capabilities = (0..CAPABILITIES_MAX).map(|n| format!("c{n}")).collect();
        edge.config.max_concurrent_steps = SLOTS_MAX;
        edge.config.heartbeat_interval_ms = 0;
        assert_eq!(edge.faults(), []);
        edge.capabilities.push("one-more".into());
        edge.config.max_concurrent_steps = SLOTS_MAX + 1;
        edge.config.heartbeat_interval_ms = HEARTBEAT_MAX_MS + 1;
        let expected = ["/capabilities", "/config/maxConcurrentSteps", "/config/heartbeatIntervalMs"];
        assert_eq!(pointers(&edge), expected);
    }
}
