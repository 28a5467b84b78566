//! Checks a history as the API shows it against what is promised of every history. It reads events only:
//! it must never use the product's own folds, or know how a state was reached.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use domain::Timestamp;
use serde_json::Value;

mod crew;
mod operation;
mod people;
mod step_run;

use crew::Member;
use operation::Course;

use super::Photon;

/// What a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The versions of a stream are 1, 2, 3 and so on.
    Versions,
    /// Positions rise.
    Positions,
    /// Times never fall.
    Times,
    /// A step ends once, and nothing happens to it afterwards.
    OneEnd,
    /// An operation ends once, with every step settled, and nothing but the close of a lease follows.
    OneOutcome,
    /// Attempts count from 1, one for each start, and stay within the retry policy.
    Attempts,
    /// The grants of a step are 1, 2, 3 and so on, and only the newest does anything.
    Grants,
    /// A step is offered, begun or skipped by its condition only after its dependencies are satisfied.
    Dependencies,
    /// A step has one holder at a time, and only a holder works.
    Holders,
    /// An incarnation of an agent never has more leases than slots, held and closing ones together. What an
    /// agent holds when its step is cancelled is closing until it is closed, and nothing else is.
    Slots,
    /// An operation never has more steps under way than it allows.
    MaxParallel,
    /// Nothing is offered, and nobody asked, while an operation is paused.
    Paused,
    /// A person's step is asked for once, performed by nobody, and ends as the person said.
    Approvals,
    /// A write of which nobody knows whether it happened waits for a person, and nothing else does.
    Attention,
    /// What was given back is kept from who gave it back, and nobody gets a step in a parked lane.
    Windows,
    /// The progress that is told is that of the steps, and a completed operation has told all of it.
    Progress,
}

/// One break of a rule.
#[derive(Clone, Debug)]
pub struct Fault {
    pub rule: Rule,
    pub sequence: u64,
    pub said: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {}: {}", self.rule, self.sequence, self.said)
    }
}

/// Faults as they are found, each with the place of the event that shows it.
#[derive(Debug, Default)]
struct Faults {
    found: Vec<Fault>,
    sequence: u64,
}

impl Faults {
    fn add(&mut self, rule: Rule, said: impl Into<String>) {
        self.found.push(Fault { rule, sequence: self.sequence, said: said.into() });
    }

    fn require(&mut self, rule: Rule, holds: bool, said: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, said());
        }
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Findings {
    pub faults: Vec<Fault>,
    /// Types of events that the checker does not know, and so did not check.
    pub unknown: BTreeSet<String>,
    /// How often each type of event occurs.
    pub counts: BTreeMap<String, usize>,
    /// Operations that have not ended.
    pub open: BTreeSet<String>,
    /// Leases whose slots are taken at the end, with their agents.
    pub taken: BTreeSet<(String, String)>,
}

impl Findings {
    /// Fails the test when a rule was broken, or an event was not understood.
    #[track_caller]
    pub fn must_be_clean(&self) {
        let faults: Vec<String> = self.faults.iter().take(20).map(Fault::to_string).collect();
        assert!(faults.is_empty(), "{} faults:\n{}", self.faults.len(), faults.join("\n"));
        assert!(self.unknown.is_empty(), "the checker does not know {:?}", self.unknown);
    }

    /// Fails the test unless it is clean, every operation has ended and every slot is free.
    #[track_caller]
    pub fn must_be_over(&self) {
        self.must_be_clean();
        assert!(self.open.is_empty(), "not ended: {:?}", self.open);
        assert!(self.taken.is_empty(), "slots still taken: {:?}", self.taken);
    }

    /// How often a type of event occurs.
    pub fn count(&self, kind: &str) -> usize {
        self.counts.get(kind).copied().unwrap_or_default()
    }
}

/// One event, taken apart.
struct Told<'e> {
    kind: &'e str,
    revision: u64,
    time: &'e str,
    data: &'e Value,
}

impl Told<'_> {
    fn number(&self, name: &str) -> u64 {
        self.data[name].as_u64().unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        self.data[name].as_str().unwrap_or_default()
    }

    /// Step numbers in a list.
    fn steps(&self) -> Vec<u64> {
        numbers(&self.data["steps"])
    }
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

#[derive(Default)]
struct Checker {
    faults: Faults,
    versions: BTreeMap<String, u64>,
    time: String,
    courses: BTreeMap<String, Course>,
    crew: BTreeMap<String, Member>,
    /// Until when lanes are parked.
    lanes: BTreeMap<String, Option<Timestamp>>,
    unknown: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
}

/// Checks a whole log, or the whole history of one operation, oldest event first.
pub fn check(events: &[Value]) -> Findings {
    let mut checker = Checker::default();
    for event in events {
        checker.take(event);
    }
    checker.finish()
}

/// Reads the whole log page by page and checks it.
pub async fn check_log(photon: &Photon) -> Findings {
    check(&read(photon, "limit=500").await)
}

/// Reads what a query of the log selects, page by page.
pub async fn read(photon: &Photon, query: &str) -> Vec<Value> {
    let texts = super::history::pages(photon, query).await;
    texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

impl Checker {
    fn take(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let number = |name: &str| text(name).parse::<u64>().unwrap_or_default();
        let (sequence, revision, kind) = (number("sequence"), number("revision"), text("type"));
        let before = std::mem::replace(&mut self.faults.sequence, sequence);
        self.faults.require(Rule::Positions, sequence > before, || format!("{sequence} after {before}"));
        // All are written in UTC with the same number of digits.
        let time = std::mem::replace(&mut self.time, text("time").to_owned());
        self.faults.require(Rule::Times, self.time >= time, || format!("{} after {time}", self.time));
        let version = self.versions.entry(text("subject").to_owned()).or_default();
        *version += 1;
        let said = || format!("{} has {revision} where {version} belongs", text("subject"));
        self.faults.require(Rule::Versions, revision == *version, said);
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        let told = Told { kind, revision, time: text("time"), data: &event["data"] };
        let known = match text("subject").split_once('/') {
            Some(("operation", id)) => self.of_operation(id, &told),
            Some(("agent", id)) => self.crew.entry(id.to_owned()).or_default().take(&told, &mut self.faults),
            Some(("lane", id)) => self.of_lane(id, &told),
            Some(("seen", _)) => kind == "agent.seen",
            Some(("work", _)) => kind == "work.carried",
            _ => true,
        };
        if !known {
            self.unknown.insert(kind.to_owned());
        }
    }

    fn of_operation(&mut self, id: &str, told: &Told<'_>) -> bool {
        if told.kind == "operation.created" {
            let again = self.courses.insert(id.to_owned(), Course::of(id, told.data)).is_some();
            self.faults.require(Rule::OneOutcome, !again, || format!("{id} is created again"));
            return true;
        }
        let Some(course) = self.courses.get_mut(id) else {
            self.faults.add(Rule::OneOutcome, format!("{} of {id}, which was not created", told.kind));
            return true;
        };
        let before = course.leases(told);
        let known = course.take(told, &mut self.faults);
        let after = course.leases(told);
        for (agent, lease) in before.difference(&after) {
            self.crew.entry(agent.clone()).or_default().free(lease);
        }
        for (agent, lease) in after.difference(&before) {
            self.must_be_open(agent, told.time);
            let incarnation = told.number("incarnation");
            self.crew.entry(agent.clone()).or_default().give(lease, incarnation, &mut self.faults);
        }
        known
    }

    fn must_be_open(&mut self, agent: &str, time: &str) {
        let lane = self.crew.get(agent).map(|member| member.lane(agent));
        if let Some(until) = lane.and_then(|lane| self.lanes.get(&lane)) {
            let open = Timestamp::parse(time) >= *until;
            self.faults.require(Rule::Windows, open, || format!("{agent} gets a step in a parked lane"));
        }
    }

    fn of_lane(&mut self, id: &str, told: &Told<'_>) -> bool {
        match told.kind {
            "lane.parked" => self.lanes.insert(id.to_owned(), Timestamp::parse(told.text("until"))),
            "lane.opened" => self.lanes.remove(id),
            _ => return false,
        };
        true
    }

    fn finish(mut self) -> Findings {
        for course in self.courses.values() {
            course.finish(&mut self.faults);
        }
        let open = self.courses.iter().filter(|(_, course)| !course.has_ended());
        let taken = self.crew.iter().flat_map(|(id, member)| {
            member.leases().map(|lease| (id.clone(), lease.to_owned())).collect::<Vec<_>>()
        });
        Findings {
            open: open.map(|(id, _)| id.clone()).collect(),
            taken: taken.collect(),
            faults: self.faults.found,
            unknown: self.unknown,
            counts: self.counts,
        }
    }
}
