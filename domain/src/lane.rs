//! A lane: one account of one platform, and until when its provider takes no more calls. Parking it
//! spends nobody's attempt; knows neither operations nor agents but as names.

use serde::{Deserialize, Serialize};

use crate::agent::event::Config;
use crate::{AgentId, Aggregate, Given, LaneId, LeaseId, Timestamp};

/// Label of an agent's configuration that names the account it works with. Agents with the same one
/// share a lane; without it, each has a lane of its own.
pub const ACCOUNT_LABEL: &str = "account";
/// Longest time a lane is parked at once: 31 days. A longer window is asked for again at its end.
pub const WINDOW_MAX_MS: u64 = 31 * 86_400_000;

/// How long a lane is parked when a provider names no time, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// When a provider takes calls again by what an agent heard from it. Of two answers the later one counts: a
/// call that is made too early costs more than one that is made late.
#[must_use]
pub fn parked_until(resets_at: Option<Timestamp>, retry_after_ms: Option<u64>, now: Timestamp) -> Timestamp {
    let after = retry_after_ms.map(|wait_ms| now.plus_ms(wait_ms));
    resets_at.max(after).unwrap_or_else(|| now.plus_ms(WINDOW_MS))
}

impl LaneId {
    /// The lane in which an agent's own process works.
    #[must_use]
    pub fn of_agent(agent: &AgentId, config: &Config) -> Self {
        let account = config.labels.get(ACCOUNT_LABEL);
        account.and_then(|account| Self::of_account(account)).unwrap_or_else(|| Self::of_worker(agent))
    }

    /// The lane of all who name this account; none when it can name no lane.
    #[must_use]
    pub fn of_account(account: &str) -> Option<Self> {
        format!("account.{account}").parse().ok()
    }
}

/// What can be asked of a lane.
#[derive(Clone, Debug)]
pub enum Command {
    /// Let nobody call until then.
    Park {
        /// When the provider takes calls again.
        until: Timestamp,
        /// Under which lease the provider said so.
        lease: LeaseId,
    },
    /// Let everybody call again, whatever the provider said.
    Open {
        /// Who asks.
        by: String,
    },
}

/// Why a lane refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was never parked.
    #[error("there is no such lane: it was never parked")]
    Unknown,
}

/// What can have happened to a lane. Each variant is one stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// `lane.parked`
    Parked(Parked),
    /// `lane.opened`
    Opened(Opened),
}

/// Body of `lane.parked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    /// When calls are taken again.
    pub until: Timestamp,
    /// The whole wait, in milliseconds.
    pub wait_ms: u64,
    /// Under which lease the provider said so.
    pub lease_id: LeaseId,
}

/// Body of `lane.opened`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Who asked.
    pub by: String,
}

/// A lane's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Calls are taken from then on.
    pub until: Timestamp,
    /// Since when it is parked.
    pub since: Timestamp,
    /// Under which lease the provider said so.
    pub lease: LeaseId,
}

impl Lane {
    /// Whether nobody may call at this moment.
    #[must_use]
    pub fn is_parked(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

impl Aggregate for Lane {
    const CATEGORY: &'static str = "lane";
    type Id = LaneId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    /// A lane opens by the time alone; nobody is owed anything.
    type Effect = std::convert::Infallible;

    fn decide(
        state: Option<&Self>,
        _id: &LaneId,
        command: &Command,
        given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let now = given.now;
        match (command, state) {
            (Command::Park { until, lease }, state) => {
                let until = (*until).min(now.plus_ms(WINDOW_MAX_MS));
                let stands = state.is_some_and(|lane| lane.until >= until);
                if stands || until <= now {
                    return Ok(Vec::new());
                }
                let wait_ms = until.ms_since(now);
                Ok(vec![Event::Parked(Parked { until, wait_ms, lease_id: lease.clone() })])
            }
            (Command::Open { by }, Some(lane)) if lane.is_parked(now) => {
                Ok(vec![Event::Opened(Opened { by: by.clone() })])
            }
            (Command::Open { .. }, Some(_)) => Ok(Vec::new()),
            (Command::Open { .. }, None) => Err(Rejection::Unknown),
        }
    }

    fn evolve(state: Option<Self>, event: &Event, at: Timestamp) -> Option<Self> {
        match event {
            Event::Parked(parked) => {
                Some(Self { until: parked.until, since: at, lease: parked.lease_id.clone() })
            }
            Event::Opened(_) => state.map(|lane| Self { until: at, ..lane }),
        }
    }

    fn pending(&self) -> Vec<std::convert::Infallible> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_waits_the_longer_one_counts() {
        let now = Timestamp::from_micros(5_000_000);
        let at = |ms| Some(now.plus_ms(ms));
        assert_eq!(parked_until(None, None, now), now.plus_ms(60_000));
        assert_eq!(parked_until(at(9), None, now), now.plus_ms(9));
        assert_eq!(parked_until(None, Some(8), now), now.plus_ms(8));
        assert_eq!(parked_until(at(9), Some(8), now), now.plus_ms(9));
        assert_eq!(parked_until(at(7), Some(8), now), now.plus_ms(8));
    }
}
