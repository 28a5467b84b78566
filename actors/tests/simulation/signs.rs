//! Who gave a sign of life when, and when the server itself stood still: what no timer may come before.

use std::collections::HashMap;

use actors::effects::Periods;
use domain::{AgentId, LeaseId, Timestamp};

use crate::course::Faults;

/// After so long a standstill everybody gets a full period again.
const STALL_MS: u64 = 1_000;
/// A timer that was put off while the log, or an actor, could not be asked: nothing is later than this.
pub(crate) const LATE_MS: u64 = 40_000;

/// What runs out without a sign of life.
#[derive(Clone, Copy)]
pub(crate) enum Period<'p> {
    Offer,
    Lease(&'p LeaseId),
    /// With its limit in milliseconds.
    Silence(&'p AgentId, u64),
}

pub(crate) struct Signs {
    periods: Periods,
    /// A sign, or a lane that is parked, may cross with a command that has been under way for so long.
    pub(crate) crossing_ms: u64,
    leases: HashMap<LeaseId, Vec<Timestamp>>,
    agents: HashMap<AgentId, Vec<Timestamp>>,
    stalls: Vec<(Timestamp, Timestamp)>,
    /// Since when the server lives.
    pub(crate) born: Timestamp,
}

impl Signs {
    pub(crate) fn new(periods: Periods, crossing_ms: u64) -> Self {
        let (leases, agents, stalls) = (HashMap::new(), HashMap::new(), Vec::new());
        Self { periods, crossing_ms, leases, agents, stalls, born: Timestamp::default() }
    }

    /// The server knows that this lease is worked on.
    pub(crate) fn renewed(&mut self, lease: &LeaseId, at: Timestamp) {
        keep(self.leases.entry(lease.clone()).or_default(), at);
    }

    /// The server has heard this agent.
    pub(crate) fn heard(&mut self, agent: &AgentId, at: Timestamp) {
        keep(self.agents.entry(agent.clone()).or_default(), at);
    }

    /// The server stood still.
    pub(crate) fn stalled(&mut self, from: Timestamp, to: Timestamp) {
        self.stalls.push((from, to));
    }

    /// A new server lives. It knows nothing of the signs that an earlier one was given, whose clock may have
    /// been ahead of its own; in exchange everybody gets a full period from now.
    pub(crate) fn restarted(&mut self, at: Timestamp) {
        self.born = at;
        self.stalls.clear();
        self.leases.clear();
        self.agents.clear();
    }

    /// Whether something of the first moment may not have been known when what happens at the second one was
    /// decided.
    pub(crate) fn crosses(&self, moment: Timestamp, at: Timestamp) -> bool {
        moment.plus_ms(self.crossing_ms) >= at
    }

    /// When the grace of a lease ends that is closing since then; a restart gives a full one again.
    pub(crate) fn end_of_grace(&self, since: Timestamp) -> Timestamp {
        since.max(self.born).plus_ms(self.periods.grace_ms)
    }

    /// Since when nothing disturbs the timers.
    pub(crate) fn undisturbed_since(&self) -> Timestamp {
        self.stalls.last().map_or(self.born, |(_, to)| self.born.max(*to))
    }

    /// The last renewal of a lease.
    pub(crate) fn renewal_of(&self, lease: &LeaseId) -> Option<Timestamp> {
        self.leases.get(lease)?.last().copied()
    }

    /// Something that waits since `since` may run out `at` this moment.
    pub(crate) fn not_early(&self, period: Period<'_>, since: Timestamp, at: Timestamp, faults: &mut Faults) {
        let (what, ms, signs) = match period {
            Period::Offer => ("an offer".to_owned(), self.periods.offer_ms, None),
            Period::Lease(lease) => (lease.to_string(), self.periods.lease_ms, self.leases.get(lease)),
            Period::Silence(agent, limit) => (agent.to_string(), limit, self.agents.get(agent)),
        };
        let signs = signs.map_or(&[][..], Vec::as_slice);
        let certain = signs.iter().filter(|sign| sign.plus_ms(self.crossing_ms) <= at).max();
        let from = certain.copied().unwrap_or_default().max(since).max(self.born);
        // A sign that may have crossed may count or not; with a standstill, it can make it earlier.
        let crossing = signs.iter().copied().filter(|sign| *sign > from);
        let due = |from: Timestamp| self.since_the_standstill(from, ms, at).plus_ms(ms);
        if at < crossing.map(due).fold(due(from), Timestamp::min) {
            let from = self.since_the_standstill(from, ms, at);
            faults.push(format!("P15: {what} runs out at {at}, {ms} ms after {from} would be right"));
        }
    }

    /// The beginning of a period of `ms` that would have begun at `from`: later, if it ran out while the
    /// server stood still.
    fn since_the_standstill(&self, mut from: Timestamp, ms: u64, at: Timestamp) -> Timestamp {
        for (stalled, to) in &self.stalls {
            let due = from.plus_ms(ms);
            if *to <= at && due > *stalled && due.plus_ms(STALL_MS + 50) < *to {
                from = *to;
            }
        }
        from
    }
}

/// The newest few are enough: older ones prove less.
fn keep(signs: &mut Vec<Timestamp>, at: Timestamp) {
    if signs.len() >= 64 {
        signs.drain(..32);
    }
    signs.push(at);
}
