//! One step's way from offer to end, from its events alone: holders, grants and attempts.

use serde_json::Value;

use super::people::People;
use super::{Faults, Rule, Told, numbers};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Failed,
    SkippedByCondition,
    SkippedByWord,
    SkippedAfterFailure,
    Cancelled,
}

#[derive(Debug)]
struct Held {
    agent: String,
    lease: String,
    running: bool,
}

/// So many offers in a row that nobody took spend the attempt.
const UNTAKEN_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct StepRun {
    number: u64,
    pub(super) dependencies: Vec<u64>,
    excused: bool,
    most_attempts: u64,
    pub(super) end: Option<End>,
    pub(super) progress: u64,
    grant: u64,
    held: Option<Held>,
    /// Cancelled while it was held: the slot is kept.
    closing: Option<Held>,
    people: People,
    /// Attempts that failed or were lost.
    spent: u64,
    /// The newest grant was not taken, or was given back: its attempt was not made, as far as is known.
    unspent: bool,
    /// Offers in a row that nobody took.
    untaken: u32,
    /// An attempt ended and nothing was said yet of what follows.
    owes: bool,
}

impl StepRun {
    pub(super) fn of(definition: &Value) -> Self {
        Self {
            number: definition["step"].as_u64().unwrap_or_default(),
            dependencies: numbers(&definition["dependencies"]),
            excused: definition["continueOnError"].as_bool().unwrap_or_default(),
            most_attempts: definition["retry"]["maxAttempts"].as_u64().unwrap_or_default(),
            end: None,
            progress: 0,
            grant: 0,
            held: None,
            closing: None,
            people: People::of(definition),
            spent: 0,
            unspent: false,
            untaken: 0,
            owes: false,
        }
    }

    pub(super) fn satisfies(&self) -> bool {
        match self.end {
            Some(End::Completed | End::SkippedByCondition | End::SkippedByWord) => true,
            Some(End::Failed) => self.excused,
            _ => false,
        }
    }

    /// Whether it ended so that its operation cannot complete.
    pub(super) fn spoils(&self) -> bool {
        self.end.is_some() && !self.satisfies()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The agent whose slot it takes, and the name of its lease.
    pub(super) fn lease(&self) -> Option<(String, String)> {
        let held = self.held.as_ref().or(self.closing.as_ref())?;
        Some((held.agent.clone(), held.lease.clone()))
    }

    /// False when that lease was not closing.
    pub(super) fn close(&mut self, lease: &str) -> bool {
        self.closing.take_if(|closing| closing.lease == lease).is_some()
    }

    pub(super) fn settle(&mut self, end: End, faults: &mut Faults) {
        if let Some(before) = self.end.replace(end) {
            faults.add(Rule::OneEnd, format!("step {} ends {end:?} after {before:?}", self.number));
        }
        self.closing = self.held.take().filter(|_| end == End::Cancelled);
        self.owes = false;
        self.progress = 100;
    }

    /// False when the event is not known.
    pub(super) fn take(&mut self, told: &Told<'_>, faults: &mut Faults) -> bool {
        let (number, kind) = (self.number, told.kind);
        faults.require(Rule::OneEnd, self.end.is_none(), || format!("{kind} of step {number} after its end"));
        self.people.take(told, self.held.is_some(), faults);
        let one_too_many = self.untaken == UNTAKEN_MAX && kind != "step.lease_lost";
        faults.require(Rule::Attempts, !one_too_many, || {
            format!("{kind} of step {number} after {UNTAKEN_MAX} offers that nobody took")
        });
        match kind {
            "step.reserved" => self.reserve(told, faults),
            "step.offer_expired" => {
                self.work(told, Some(false), faults);
                (self.held, self.unspent) = (None, true);
                let silent = matches!(told.text("reason"), "no_sign_of_life" | "agent_timeout");
                self.untaken += u32::from(silent);
            }
            "step.released" | "step.limited" => {
                self.work(told, None, faults);
                (self.held, self.unspent, self.untaken) = (None, true, 0);
            }
            "step.started" => {
                self.work(told, Some(false), faults);
                self.attempt(told, self.spent + 1, faults);
                self.untaken = 0;
                if let Some(held) = &mut self.held {
                    held.running = true;
                }
            }
            "step.progressed" => {
                self.work(told, Some(true), faults);
                self.progress = told.number("progress");
            }
            "step.checkpointed" => self.work(told, Some(true), faults),
            "step.completed" => self.complete(told, faults),
            "step.failed" => self.fail(told, faults),
            "step.lease_lost" => self.lose(told, faults),
            "step.retry_scheduled" => {
                faults.require(Rule::Attempts, self.owes, || format!("step {number} retries without cause"));
                self.attempt(told, self.spent + 1, faults);
                let left = self.spent < self.most_attempts;
                faults.require(Rule::Attempts, left, || format!("step {number} retries after its last"));
                self.owes = false;
            }
            "step.needs_attention" => self.need_attention(told, faults),
            "step.approval_requested" | "step.approved" | "step.rejected" | "step.resolved" => {}
            _ => return false,
        }
        true
    }

    /// While it runs, or right after one offer too many.
    fn lose(&mut self, told: &Told<'_>, faults: &mut Faults) {
        if self.untaken < UNTAKEN_MAX {
            self.work(told, Some(true), faults);
        } else {
            let (number, grant) = (self.number, told.number("grant"));
            let said = || format!("step {number} is lost under grant {grant}");
            faults.require(Rule::Grants, grant == self.grant, said);
        }
        self.attempt(told, self.spent + 1, faults);
        self.spend();
        (self.unspent, self.untaken) = (false, 0);
    }

    /// After a loss, or instead of a failure.
    fn need_attention(&mut self, told: &Told<'_>, faults: &mut Faults) {
        if self.held.is_some() {
            self.work(told, Some(true), faults);
            self.spend();
        }
        faults.require(Rule::Attempts, self.owes, || format!("no attempt of step {} ended", self.number));
        self.attempt(told, self.spent, faults);
        self.owes = false;
    }

    fn spend(&mut self) {
        self.spent += 1;
        self.owes = true;
        self.held = None;
    }

    /// The event names this attempt, which the policy or a person allows.
    fn attempt(&self, told: &Told<'_>, wanted: u64, faults: &mut Faults) {
        let most = self.most_attempts + self.people.retries;
        let (attempt, kind) = (told.number("attempt"), told.kind);
        let right = attempt == wanted && attempt <= most;
        let said =
            || format!("{kind} of step {} says attempt {attempt}, not {wanted} of {most}", self.number);
        faults.require(Rule::Attempts, right, said);
    }

    /// The event is of the newest grant, whose holder works as far as is said.
    fn work(&self, told: &Told<'_>, running: Option<bool>, faults: &mut Faults) {
        let (grant, kind, number) = (told.number("grant"), told.kind, self.number);
        let newest = grant == self.grant;
        faults.require(Rule::Grants, newest, || format!("{kind} of step {number} under grant {grant}"));
        let Some(held) = &self.held else {
            faults.add(Rule::Holders, format!("{kind} of step {number}, which nobody holds"));
            return;
        };
        let fits = running.is_none_or(|running| running == held.running);
        faults.require(Rule::Holders, fits, || format!("{kind} of step {number}: running {}", held.running));
        let agent = told.data["agent"].as_str();
        let same = agent.is_none_or(|agent| agent == held.agent);
        faults.require(Rule::Holders, same, || {
            format!("{kind} of step {number} by {agent:?}, not {}", held.agent)
        });
    }

    fn reserve(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let (number, grant, lease) = (self.number, told.number("grant"), told.text("leaseId"));
        let said = || format!("step {number} is given to {} while {:?}", told.text("agent"), self.held);
        faults.require(Rule::Holders, self.held.is_none(), said);
        let named = lease.ends_with(&format!("_{number}_{grant}"));
        let said = || format!("step {number} has grant {grant} after {}, as {lease}", self.grant);
        faults.require(Rule::Grants, grant == self.grant + 1 && named, said);
        faults.require(Rule::Attempts, !self.owes, || format!("step {number} is offered before its retry"));
        self.attempt(told, self.spent + 1, faults);
        (self.grant, self.progress, self.unspent) = (grant, 0, false);
        self.held =
            Some(Held { agent: told.text("agent").to_owned(), lease: lease.to_owned(), running: false });
    }

    /// By its holder, late by who held the newest grant, or by a person's word.
    fn complete(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let (number, attempt) = (self.number, told.number("attempt"));
        if self.held.is_some() {
            self.work(told, Some(true), faults);
            self.attempt(told, self.spent + 1, faults);
        } else {
            let grant = told.number("grant");
            let newest = grant == self.grant && (grant > 0) != self.people.is_human();
            faults.require(Rule::Grants, newest, || format!("step {number} completed under grant {grant}"));
            // The one that was lost, or one whose beginning was not heard of.
            let made = self.end.is_some() || attempt == self.spent + u64::from(self.unspent);
            faults.require(Rule::Attempts, made, || format!("step {number} completed by attempt {attempt}"));
        }
        self.settle(End::Completed, faults);
    }

    fn fail(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let is_final = told.data["final"].as_bool().unwrap_or_default();
        if self.held.is_some() {
            self.work(told, Some(true), faults);
            self.attempt(told, self.spent + 1, faults);
            self.spend();
        } else {
            // The last word after a loss, or of a step that could not be offered.
            let (number, attempt) = (self.number, told.number("attempt"));
            let same = attempt == self.spent;
            faults.require(Rule::Attempts, same, || format!("step {number} failed in attempt {attempt}"));
            faults.require(Rule::Holders, is_final, || format!("step {number} failed in nobody's hands"));
        }
        if is_final {
            self.settle(End::Failed, faults);
        } else {
            let left = self.spent < self.most_attempts;
            let said = || format!("attempt {} of step {} was not its last", self.spent, self.number);
            faults.require(Rule::Attempts, left, said);
        }
    }

    pub(super) fn finish(&self, faults: &mut Faults) {
        let said = || format!("nothing follows the last attempt of step {}", self.number);
        faults.require(Rule::Attempts, !self.owes && self.untaken < UNTAKEN_MAX, said);
    }
}
