//! What people and lanes may do with one step: answers to questions, what became of a write, and who the
//! step is kept from. From its events alone.

use domain::Timestamp;
use serde_json::Value;

use super::{Faults, Rule, Told};

/// What must come next, in the same append.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) rule: Rule,
    kind: &'static str,
    step: u64,
    revision: u64,
    time: String,
}

impl Follow {
    /// What a person's word must be followed by.
    pub(super) fn of(told: &Told<'_>) -> Option<Self> {
        let (rule, kind) = match (told.kind, told.text("resolution")) {
            ("step.approved", _) => (Rule::Approvals, "step.completed"),
            ("step.rejected", _) => (Rule::Approvals, "step.failed"),
            ("step.resolved", "completed") => (Rule::Attention, "step.completed"),
            ("step.resolved", "failed") => (Rule::Attention, "step.failed"),
            ("step.resolved", "skip") => (Rule::Attention, "steps.skipped"),
            _ => return None,
        };
        let (step, revision, time) = (told.number("step"), told.revision + 1, told.time.to_owned());
        Some(Self { rule, kind, step, revision, time })
    }

    pub(super) fn is(&self, told: &Told<'_>) -> bool {
        let of_step = told.number("step") == self.step || told.steps() == [self.step];
        (told.kind, told.revision, told.time) == (self.kind, self.revision, &*self.time) && of_step
    }

    pub(super) fn said(&self) -> String {
        format!("{} of step {} does not follow a person's word", self.kind, self.step)
    }
}

/// A step in the light of what people say about it.
#[derive(Debug, Default)]
pub(super) struct People {
    human: bool,
    write: bool,
    asked: bool,
    /// The last word was this one.
    word: Option<&'static str>,
    /// The last attempt was spent by offers that nobody took.
    untaken: bool,
    /// An attempt ended of which nobody knows whether it took effect.
    unknown: bool,
    /// And a person was told so.
    pub(super) attention: bool,
    /// Attempts that people wished.
    pub(super) retries: u64,
    kept_from: Vec<(String, Option<Timestamp>)>,
}

/// Codes of failures after which nobody knows whether the attempt took effect.
const UNKNOWN: [&str; 3] = ["timeout", "lease_lost", "unknown_outcome"];

impl People {
    pub(super) fn of(definition: &Value) -> Self {
        let human = definition["platform"] == "human";
        Self { human, write: definition["effect"] == "write", ..Self::default() }
    }

    pub(super) fn is_human(&self) -> bool {
        self.human
    }

    /// Looks at one event before anything else does; `held` while an agent has the step.
    pub(super) fn take(&mut self, told: &Told<'_>, held: bool, faults: &mut Faults) {
        let number = told.number("step");
        let mut require = |rule, holds: bool, why: &str| {
            faults.require(rule, holds, || format!("{} of step {number}: {why}", told.kind));
        };
        let word = self.word.take();
        match told.kind {
            "step.approval_requested" => {
                require(Rule::Approvals, self.human, "no person is to be asked");
                require(Rule::Approvals, !self.asked, "a person was asked before");
                self.asked = true;
            }
            "step.approved" | "step.rejected" => {
                require(Rule::Approvals, self.asked, "nobody was asked");
                self.word = Some(if told.kind == "step.approved" { "yes" } else { "no" });
            }
            "step.needs_attention" => {
                require(Rule::Attention, self.write, "it is no write");
                require(Rule::Attention, !self.attention, "it needs attention already");
                (self.attention, self.unknown) = (true, true);
            }
            "step.resolved" => self.resolve(told, held, require),
            "step.reserved" => {
                require(Rule::Approvals, !self.human, "no agent performs it");
                require(Rule::Attention, !self.unknown, "it may have happened");
                self.untaken = false;
                let time = Timestamp::parse(told.time);
                let kept = |(agent, until): &(String, Option<Timestamp>)| {
                    agent == told.text("agent") && time < *until
                };
                require(Rule::Windows, !self.kept_from.iter().any(kept), "it is kept from that agent");
            }
            "step.released" => {
                let until = Timestamp::parse(told.text("heldUntil"));
                self.kept_from.push((told.text("agent").to_owned(), until));
            }
            // Whoever writes says so before: what nobody took has done nothing.
            "step.lease_lost" => (self.unknown, self.untaken) = (self.write && held, !held),
            "step.retry_scheduled" => require(Rule::Attention, !self.unknown, "it may have happened"),
            "step.completed" => {
                require(Rule::Approvals, !self.human || word == Some("yes"), "nobody said yes");
            }
            "step.failed" => self.fail(told, word, require),
            _ => {}
        }
    }

    fn resolve(&mut self, told: &Told<'_>, held: bool, mut require: impl FnMut(Rule, bool, &str)) {
        require(Rule::Attention, !held, "an agent has it");
        match told.text("resolution") {
            "retry" => {
                (self.attention, self.unknown) = (false, false);
                self.retries += 1;
                self.kept_from.clear();
            }
            "skip" => {}
            _ => require(Rule::Attention, self.attention, "it needs none"),
        }
        self.word = Some("resolved");
    }

    fn fail(&self, told: &Told<'_>, word: Option<&str>, mut require: impl FnMut(Rule, bool, &str)) {
        let code = told.data["error"]["code"].as_str().unwrap_or_default();
        if self.attention {
            require(Rule::Attention, word == Some("resolved"), "only a person knows");
        } else if self.write && !self.untaken {
            require(Rule::Attention, !UNKNOWN.contains(&code), "it may have happened");
        }
        if self.asked {
            require(Rule::Approvals, (code == "rejected") == (word == Some("no")), "nobody said no");
            require(Rule::Approvals, ["rejected", "expired"].contains(&code), "a person was asked");
        }
    }
}
