//! Which agent gets a step, and why. Pure and deterministic; the choice can always be explained.
//!
//! The score is the specification's: 40 % capability, 30 % performance, 20 % availability, 10 % place.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::agent::event::{Profile, ReportedMetrics, Status};
use crate::agent::record::Record;
use crate::operation::definition::{Location, Requirements};
use crate::{AgentId, Timestamp};

/// Candidates that an explanation lists.
pub const EXPLAINED_MAX: usize = 10;

/// How much each part of the score weighs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Fit of the capabilities.
    pub capability: f64,
    /// How well it did so far.
    pub performance: f64,
    /// Free slots and freshness.
    pub availability: f64,
    /// Where it is.
    pub location: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { capability: 0.4, performance: 0.3, availability: 0.2, location: 0.1 }
    }
}

/// What a step asks of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Need<'n> {
    /// Exactly this one.
    pub agent: Option<&'n AgentId>,
    /// One of these, unless empty.
    pub among: &'n [AgentId],
    /// What it must have.
    pub requires: &'n Requirements,
    /// From these it is kept for a while.
    pub held_from: &'n [(AgentId, Timestamp)],
    /// This one failed it just now, and another one could take it.
    pub avoids: Option<&'n AgentId>,
}

/// An agent as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Its id.
    pub id: &'a AgentId,
    /// Its state.
    pub agent: &'a Agent,
    /// How it did.
    pub record: &'a Record,
    /// When it last had a slot become free.
    pub idle_since: Timestamp,
    /// Slots that are free now; may be fewer than the state says.
    pub free_slots: u32,
    /// 1 just after a heartbeat, 0 at the limit of silence.
    pub freshness: f64,
    /// What it last reported.
    pub reported: ReportedMetrics,
    /// Whether the account that it works with takes no calls now; an agent in a parked lane is excluded.
    pub parked: bool,
    /// Whether it waits for work now; an agent that does not is excluded.
    pub waits: bool,
}

/// How many agents each filter excluded. An agent counts at the first filter that excludes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Excluded {
    /// Another agent is asked for, or it is not on the operation's list.
    pub not_asked: u32,
    /// Lacks a capability.
    pub capability: u32,
    /// Has another model or other labels.
    pub requirement: u32,
    /// Is not active.
    pub status: u32,
    /// Gave this step back or failed it a moment ago, or is limited by its provider.
    pub held: u32,
    /// Has no free slot.
    pub capacity: u32,
    /// Has not asked for work.
    pub not_waiting: u32,
}

/// One agent's parts of the score, each 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The agent.
    pub agent: AgentId,
    /// Weighted sum.
    pub score: f64,
    /// Fit of the capabilities.
    pub capability: f64,
    /// How well it did so far.
    pub performance: f64,
    /// Free slots and freshness.
    pub availability: f64,
    /// Where it is.
    pub location: f64,
}

/// The explanation of a choice: best first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// The best, at most [`EXPLAINED_MAX`].
    pub ranked: Vec<Scored>,
    /// How many each filter excluded.
    pub excluded: Excluded,
    /// The weights that were in force.
    pub weights: Weights,
}

impl Candidates {
    /// The chosen agent, if anyone fits.
    #[must_use]
    pub fn best(&self) -> Option<&AgentId> {
        self.ranked.first().map(|scored| &scored.agent)
    }
}

impl Scored {
    /// The score that the parts make by these weights.
    #[must_use]
    pub fn weighed(&self, weights: Weights) -> f64 {
        weights.capability * self.capability
            + weights.performance * self.performance
            + weights.availability * self.availability
            + weights.location * self.location
    }
}

/// Ranks the applicants for a need at a moment.
///
/// Ties go to the one idle longest, then to the lower id.
#[must_use]
pub fn select<'a>(
    need: &Need<'_>,
    applicants: impl Iterator<Item = Applicant<'a>>,
    weights: Weights,
    now: Timestamp,
) -> Candidates {
    let mut excluded = Excluded::default();
    let mut eligible = Vec::new();
    let mut fleet_ms = Vec::new();
    for applicant in applicants {
        fleet_ms.extend(applicant.record.response_ms());
        match exclusion(need, &applicant, now, &mut excluded) {
            Some(count) => *count += 1,
            None => eligible.push(applicant),
        }
    }
    let median_ms = median(&mut fleet_ms);
    let mut ranked: Vec<(Scored, Timestamp)> = eligible
        .iter()
        .map(|applicant| (score(need, applicant, median_ms, weights), applicant.idle_since))
        .collect();
    ranked.sort_by(|(one, one_idle), (other, other_idle)| {
        let by_score = other.score.total_cmp(&one.score);
        by_score.then(one_idle.cmp(other_idle)).then_with(|| one.agent.cmp(&other.agent))
    });
    let ranked = ranked.into_iter().take(EXPLAINED_MAX).map(|(scored, _)| scored).collect();
    Candidates { ranked, excluded, weights }
}

/// The counter of the first filter that excludes this applicant.
fn exclusion<'e>(
    need: &Need<'_>,
    applicant: &Applicant<'_>,
    now: Timestamp,
    excluded: &'e mut Excluded,
) -> Option<&'e mut u32> {
    let Applicant { id, agent, .. } = applicant;
    let (requires, profile) = (need.requires, &agent.profile);
    if !is_asked(need.agent, need.among, id) {
        Some(&mut excluded.not_asked)
    } else if !is_capable(requires, profile) {
        Some(&mut excluded.capability)
    } else if !is_as_required(requires, profile) {
        Some(&mut excluded.requirement)
    } else if agent.status != Status::Active {
        Some(&mut excluded.status)
    } else if applicant.parked || is_kept_from(need, id, now) {
        Some(&mut excluded.held)
    } else if applicant.free_slots == 0 {
        Some(&mut excluded.capacity)
    } else if !applicant.waits {
        Some(&mut excluded.not_waiting)
    } else {
        None
    }
}

fn is_kept_from(need: &Need<'_>, id: &AgentId, now: Timestamp) -> bool {
    need.avoids == Some(id) || need.held_from.iter().any(|(other, until)| other == id && *until > now)
}

/// Whether an agent could ever be given such a step, whatever it does now.
#[must_use]
pub fn fits(
    agent: Option<&AgentId>,
    among: &[AgentId],
    requires: &Requirements,
    id: &AgentId,
    profile: &Profile,
) -> bool {
    is_asked(agent, among, id) && meets(profile, requires)
}

/// Whether an agent of this profile has what a step requires; the place is a preference, no requirement.
#[must_use]
pub fn meets(profile: &Profile, requires: &Requirements) -> bool {
    is_capable(requires, profile) && is_as_required(requires, profile)
}

fn is_asked(agent: Option<&AgentId>, among: &[AgentId], id: &AgentId) -> bool {
    agent.is_none_or(|asked| asked == id) && (among.is_empty() || among.contains(id))
}

fn is_capable(requires: &Requirements, profile: &Profile) -> bool {
    requires.capabilities.iter().all(|needed| profile.capabilities.contains(needed))
}

fn is_as_required(requires: &Requirements, profile: &Profile) -> bool {
    let labels = &profile.config.labels;
    requires.model.as_ref().is_none_or(|model| *model == profile.model)
        && requires.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn score(need: &Need<'_>, applicant: &Applicant<'_>, median_ms: Option<f64>, weights: Weights) -> Scored {
    let agent = applicant.agent;
    let capability = capability(&need.requires.capabilities, &agent.profile.capabilities);
    let performance = performance(applicant.record, applicant.reported, median_ms);
    let slots = f64::from(agent.profile.config.max_concurrent_steps.max(1));
    let free = (f64::from(applicant.free_slots) / slots).clamp(0.0, 1.0);
    let availability = free * applicant.freshness.clamp(0.0, 1.0);
    let location = place(need.requires.location, agent.profile.location);
    let id = applicant.id.clone();
    let parts = Scored { agent: id, score: 0.0, capability, performance, availability, location };
    Scored { score: parts.weighed(weights), ..parts }
}

/// All required ones are there: the fewer others, the better the fit.
fn capability(required: &[String], own: &[String]) -> f64 {
    if required.is_empty() {
        return 1.0;
    }
    (distinct(required) as f64 / distinct(own).max(1) as f64).min(1.0)
}

/// What is named twice counts once. The lists are short, so that this needs no set.
fn distinct(words: &[String]) -> usize {
    words.iter().enumerate().filter(|(at, word)| !words[..*at].contains(word)).count()
}

fn performance(record: &Record, reported: ReportedMetrics, median_ms: Option<f64>) -> f64 {
    let success = record.success_score();
    let speed = median_ms.map_or(0.5, |median| speed(record.response_ms_from(median), median));
    let load = [reported.cpu_usage, reported.memory_usage].into_iter().flatten().reduce(f64::max);
    let ease = load.map_or(0.5, |percent| 1.0 - (percent / 100.0).clamp(0.0, 1.0));
    0.5 * success + 0.3 * speed + 0.2 * ease
}

fn place(wanted: Option<Location>, own: Location) -> f64 {
    use Location::{Cloud, Edge, Local, Remote};
    match wanted {
        None => 1.0,
        Some(wanted) if wanted == own => 1.0,
        Some(wanted) => match (wanted, own) {
            (Local, Edge) | (Edge, Local) | (Cloud, Remote) | (Remote, Cloud) => 0.5,
            _ => 0.0,
        },
    }
}

/// One half at the median of the fleet, more when faster: 1 / (1 + own / median).
fn speed(own_ms: f64, median_ms: f64) -> f64 {
    let sum = own_ms + median_ms;
    if sum > 0.0 { median_ms / sum } else { 0.5 }
}

fn median(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    if values.is_empty() {
        return None;
    }
    let (below, middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let below = below.iter().copied().max_by(f64::total_cmp).filter(|_| even);
    Some(below.map_or(*middle, |below| f64::midpoint(below, *middle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0]), Some(5.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn nobody_is_faster_than_at_once() {
        assert_eq!((speed(0.0, 0.0), speed(5.0, 5.0)), (0.5, 0.5));
        assert_eq!((speed(0.0, 5.0), speed(5.0, 0.0)), (1.0, 0.0));
    }
}
