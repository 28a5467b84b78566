//! Agents for the tests.

use domain::Json;
use domain::agent::event::{Config, Profile, Status, StatusReason};
use domain::agent::{Agent, Command, Event};
use domain::operation::definition::Location;
use domain::scenario::Scenario;

use super::{agent, world};

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

pub(crate) fn register(profile: Profile) -> Command {
    Command::Register { profile: Box::new(profile), incarnation: None }
}

pub(crate) const SILENT: Command = Command::TimeOut { silent_ms: 30_000 };

/// It wants this status itself.
pub(crate) fn own(status: Status) -> Command {
    Command::SetStatus { status, reason: StatusReason::Heartbeat }
}

/// It is heard again after a timeout.
pub(crate) fn heard() -> Command {
    Command::SetStatus { status: Status::Active, reason: StatusReason::HeardAgain }
}

/// Its owner or an operator wants it to have this status.
pub(crate) fn told(status: Status) -> Command {
    Command::Update { patch: Box::default(), status: Some(status) }
}

pub(crate) fn quarantine(reason: StatusReason) -> Command {
    Command::Quarantine { reason }
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
