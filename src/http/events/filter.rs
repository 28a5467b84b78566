//! Owns which events a reader wants: by type, by operation, by agent. The same for every way to read events.
//! It must never look into an event's body.

use std::collections::BTreeSet;

use actors::codec::Stored;
use actors::gateway::stream_of;
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use domain::{AgentId, OperationId, presence, system, work};
use events::StreamId;
use serde::Deserialize;

use super::super::error::ApiError;
use super::super::query::{Parameters, did_you_mean, shown};
use super::LIVE_ONLY;

/// The query parameters that make a filter.
pub const NAMES: [&str; 3] = ["types", "operation", "agent"];

/// Types in one filter.
const TYPES_MAX: usize = 64;
/// Bytes of one type.
const TYPE_MAX_LEN: usize = 100;

/// Every type of event that a stream can show.
#[must_use]
pub fn known_types() -> BTreeSet<&'static str> {
    let of_agents = [Agent::WRITTEN, presence::Event::WRITTEN, work::Event::WRITTEN].concat();
    let others = [Operation::WRITTEN, Lane::WRITTEN, system::Event::WRITTEN].concat();
    let stored = of_agents.into_iter().chain(others).map(|(name, _)| name);
    stored.chain(LIVE_ONLY.iter().copied()).collect()
}

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    types: Vec<Kind>,
    stream: Option<StreamId>,
}

/// One wanted type.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Exactly(String),
    /// Every type that begins so.
    Prefix(String),
}

/// A filter as a client of a socket writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Such as `operation.*`; all types when there is none.
    #[serde(default)]
    pub types: Vec<String>,
    /// Only events of this operation.
    pub operation: Option<String>,
    /// Only events of this agent.
    pub agent: Option<String>,
}

impl Wanted {
    /// Reads the query parameters [`NAMES`].
    ///
    /// # Errors
    /// 400 for a list with empty items.
    pub fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self {
            types: parameters.get_list("types")?.into_iter().map(str::to_owned).collect(),
            operation: parameters.get("operation").map(str::to_owned),
            agent: parameters.get("agent").map(str::to_owned),
        })
    }
}

impl Filter {
    /// Reads the query parameters [`NAMES`].
    ///
    /// # Errors
    /// As [`Filter::try_from`].
    pub fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        Wanted::of(parameters)?.try_into()
    }

    /// The only stream that is wanted, if it is one.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamId> {
        self.stream.as_ref()
    }

    /// Whether an event of the log is wanted.
    #[must_use]
    pub fn admits(&self, stream: &StreamId, name: &str) -> bool {
        self.stream.as_ref().is_none_or(|only| only == stream)
            && (self.types.is_empty() || self.types.iter().any(|kind| kind.admits(name)))
    }

    /// Whether any event that only passes by is wanted: those are sent only when they are named in full.
    #[must_use]
    pub fn names_live_only(&self) -> bool {
        self.types
            .iter()
            .any(|kind| matches!(kind, Kind::Exactly(name) if LIVE_ONLY.contains(&name.as_str())))
    }

    /// Whether an event that only passes by is wanted.
    #[must_use]
    pub fn admits_live_only(&self, stream: &StreamId, name: &str) -> bool {
        self.stream.as_ref().is_none_or(|only| only == stream)
            && self.types.iter().any(|kind| matches!(kind, Kind::Exactly(exactly) if exactly == name))
    }
}

impl TryFrom<Wanted> for Filter {
    type Error = ApiError;

    /// Checks what a client wants: 400 `invalid_parameter` for too many types, types that no event has, ids
    /// that are none, or both an operation and an agent.
    fn try_from(wanted: Wanted) -> Result<Self, ApiError> {
        let Wanted { types, operation, agent } = wanted;
        if types.len() > TYPES_MAX {
            let detail = format!("name at most {TYPES_MAX} types, or use a wildcard such as operation.*");
            return Err(ApiError::invalid_parameter("types", detail));
        }
        let types = types.iter().map(|text| Kind::parse(text)).collect::<Result<_, _>>()?;
        let operation = operation.map(|text| text.parse::<OperationId>()).transpose();
        let operation =
            operation.map_err(|fault| ApiError::invalid_parameter("operation", fault.to_string()))?;
        let agent = agent.map(|text| text.parse::<AgentId>()).transpose();
        let agent = agent.map_err(|fault| ApiError::invalid_parameter("agent", fault.to_string()))?;
        let stream = match (operation, agent) {
            (Some(_), Some(_)) => {
                let detail = "name an operation or an agent, not both: they filter by the event's own stream";
                return Err(ApiError::invalid_parameter("agent", detail));
            }
            (Some(operation), None) => Some(stream_of::<Operation>(&operation)),
            (None, Some(agent)) => Some(stream_of::<Agent>(&agent)),
            (None, None) => None,
        };
        Ok(Self { types, stream })
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let (stem, whole) = match text.strip_suffix('*') {
            Some(stem) => (stem, false),
            None => (text, true),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.len() > TYPE_MAX_LEN || !stem.bytes().all(plain) || (whole && stem.is_empty()) {
            let shown = shown(text);
            let detail =
                format!("'{shown}' is no type of events; write such as operation.completed or operation.*");
            return Err(ApiError::invalid_parameter("types", detail));
        }
        let known = known_types();
        let begins = |name: &&str| if whole { *name == stem } else { name.starts_with(stem) };
        if !known.iter().any(begins) {
            let families = known.iter().filter_map(|name| name.split_once('.').map(|(family, _)| family));
            let families: BTreeSet<String> = families.map(|family| format!("{family}.*")).collect();
            let names: Vec<&str> = known.into_iter().chain(families.iter().map(String::as_str)).collect();
            let (shown, meant) = (shown(text), did_you_mean(text, &names));
            let detail = format!("No event has the type '{shown}'.{meant} GET /asyncapi.json lists them.");
            return Err(ApiError::invalid_parameter("types", detail));
        }
        Ok(if whole { Self::Exactly(stem.to_owned()) } else { Self::Prefix(stem.to_owned()) })
    }

    fn admits(&self, name: &str) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Filter, ApiError> {
        Filter::of(&Parameters::parse(query, &NAMES, &[]).unwrap())
    }

    #[test]
    fn types_are_exact_or_begin_with() {
        let wanted = filter("types=operation.*,agent.timeout").unwrap();
        let any = StreamId::new("operation", "x").unwrap();
        for (name, admitted) in [
            ("operation.completed", true),
            ("agent.timeout", true),
            ("agent.timeouts", false),
            ("step.completed", false),
        ] {
            assert_eq!(wanted.admits(&any, name), admitted, "{name}");
        }
        assert!(filter("").unwrap().admits(&any, "whatever.it.is"));
        assert!(filter("types=*").unwrap().admits(&any, "whatever.it.is"));
    }

    #[test]
    fn an_operation_or_an_agent_is_a_stream() {
        let wanted = filter("agent=a-1").unwrap();
        assert!(wanted.admits(&StreamId::new("agent", "a-1").unwrap(), "agent.seen"));
        assert!(!wanted.admits(&StreamId::new("agent", "a-2").unwrap(), "agent.seen"));
        assert!(filter("agent=a-1&operation=op_0191d3c0-0000-7000-8000-000000000000").is_err());
        assert!(filter("operation=nonsense").is_err());
        for bad in ["types=a b", "types=a*b", "types=%2A%2A", &format!("types={}", "x".repeat(101))] {
            assert!(filter(bad).is_err(), "{bad}");
        }
        assert!(filter(&format!("types={}", vec!["agent.seen"; 65].join(","))).is_err());
    }

    #[test]
    fn a_type_that_no_event_has_is_refused_with_the_nearest() {
        for (query, meant) in [
            ("types=operation.complete", "Did you mean 'operation.completed'?"),
            ("types=agent.seen,operations.*", "Did you mean 'operation.*'?"),
            ("types=Operation.*", "Did you mean 'operation.*'?"),
            ("types=nothing.of.the.kind", "lists them"),
        ] {
            let refused = filter(query).unwrap_err();
            assert!(refused.message.contains(meant), "{refused}");
        }
        for query in ["types=work.carried", "types=step*", "types=system.metrics", "types=s*"] {
            assert!(filter(query).is_ok(), "{query}");
        }
    }

    #[test]
    fn what_only_passes_by_must_be_named() {
        let agent = StreamId::new("agent", "a").unwrap();
        for (query, admitted) in
            [("", false), ("types=agent.*", false), ("types=agent.heartbeat", true), ("types=*", false)]
        {
            let wanted = filter(query).unwrap();
            assert_eq!(wanted.names_live_only(), admitted, "{query}");
            assert_eq!(wanted.admits_live_only(&agent, "agent.heartbeat"), admitted, "{query}");
        }
        assert!(
            !filter("types=agent.heartbeat&agent=b").unwrap().admits_live_only(&agent, "agent.heartbeat")
        );
    }
}
