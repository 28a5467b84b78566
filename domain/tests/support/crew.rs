//! Agents for the tests.

use domain::agent::event::{Config, Outcome, Profile};
use domain::agent::{Agent, Command, Event};
use domain::operation::definition::Location;
use domain::scenario::Scenario;
use domain::{Json, LeaseId};

use super::{agent, operation_id, world};

pub(crate) fn profile(slots: u32, capabilities: &[&str]) -> Profile {
    Profile {
        name: "Ada".into(),
        model: "sonnet-4.5".into(),
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        location: Location::Local,
        config: Config { max_concurrent_steps: slots, ..Config::default() },
        metadata: Json::object(),
    }
}

pub(crate) fn lease(step: u32, grant: u64) -> LeaseId {
    LeaseId { operation: operation_id(), step, grant }
}

pub(crate) fn register(profile: Profile) -> Command {
    Command::Register { profile: Box::new(profile), incarnation: None }
}

pub(crate) fn reserve(step: u32) -> Command {
    Command::Reserve { lease: lease(step, 1) }
}

pub(crate) fn release(step: u32, outcome: Outcome) -> Command {
    Command::Release { lease: lease(step, 1), outcome }
}

pub(crate) fn crew(slots: u32) -> Scenario<Agent> {
    let mut scenario = Scenario::new(agent("ada"), world());
    scenario.when(&register(profile(slots, &["rust"]))).unwrap();
    scenario
}

pub(crate) fn state(scenario: &Scenario<Agent>) -> &Agent {
    scenario.state.as_ref().unwrap()
}

pub(crate) fn names(events: &[Event]) -> Vec<String> {
    let name = |event| format!("{event:?}").split('(').next().unwrap_or_default().to_owned();
    events.iter().map(name).collect()
}
