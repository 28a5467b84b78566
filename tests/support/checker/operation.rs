//! One operation's course, from its events alone: dependencies, its parallel limit, progress and its end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::people::Follow;
use super::step_run::{End, StepRun};
use super::{Faults, Rule, Told};

#[derive(Debug)]
pub(super) struct Course {
    id: String,
    steps: BTreeMap<u64, StepRun>,
    max_parallel: Option<usize>,
    started: bool,
    paused: bool,
    /// What a person's word must be followed by at once.
    follow: Option<Follow>,
    /// By what it ended, and at which version.
    end: Option<(String, u64)>,
    /// The last progress that was told.
    progress: u64,
}

impl Course {
    pub(super) fn of(id: &str, definition: &Value) -> Self {
        let steps = definition["workflow"].as_array().into_iter().flatten();
        let most = definition["maxParallel"].as_u64();
        Self {
            id: id.to_owned(),
            steps: steps.map(|step| (step["step"].as_u64().unwrap_or_default(), StepRun::of(step))).collect(),
            max_parallel: most.and_then(|most| usize::try_from(most).ok()),
            started: false,
            paused: false,
            follow: None,
            end: None,
            progress: 0,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Leases that take slots, of the steps that an event names: agents and names.
    pub(super) fn leases(&self, told: &Told<'_>) -> BTreeSet<(String, String)> {
        let named = told.steps().into_iter().chain([told.number("step"), closed_step(told)]);
        named.filter_map(|number| self.steps.get(&number)?.lease()).collect()
    }

    /// False when the event is not known.
    pub(super) fn take(&mut self, told: &Told<'_>, faults: &mut Faults) -> bool {
        self.refuse_after_the_end(told, faults);
        let followed = self.follow.take().map(|follow| {
            faults.require(follow.rule, follow.is(told), || follow.said());
        });
        self.follow = Follow::of(told);
        let Told { kind, .. } = told;
        match *kind {
            "operation.started" => {
                faults.require(Rule::OneOutcome, !self.started, || format!("{} starts twice", self.id));
                self.started = true;
            }
            "operation.updated" => {}
            "operation.paused" | "operation.resumed" => self.pause(told.kind, faults),
            "operation.progressed" => self.progress(told, faults),
            "operation.completed" | "operation.failed" | "operation.cancelled" => self.end(told, faults),
            "steps.skipped" if told.text("reason") == "requested" => {
                let said = || format!("steps are skipped in {} by nobody's wish", self.id);
                faults.require(Rule::Attention, followed.is_some(), said);
                self.settle_all(told, End::SkippedByWord, faults);
            }
            "steps.skipped" => self.skip(told, faults),
            "steps.cancelled" => self.cancel(told, faults),
            "lease.closed" => self.close(told, faults),
            _ if kind.starts_with("step.") => return self.take_step(told, faults),
            _ => return false,
        }
        true
    }

    /// A cancel settles the steps in the event right after its own; a lease that it closes may last.
    fn refuse_after_the_end(&self, told: &Told<'_>, faults: &mut Faults) {
        let Some((by, version)) = self.end.as_ref().filter(|_| told.kind != "lease.closed") else { return };
        let settles =
            told.kind == "steps.cancelled" && by == "operation.cancelled" && told.revision == version + 1;
        faults.require(Rule::OneOutcome, settles, || format!("{} of {} after {by}", told.kind, self.id));
    }

    fn pause(&mut self, kind: &str, faults: &mut Faults) {
        let before = std::mem::replace(&mut self.paused, kind == "operation.paused");
        faults.require(Rule::Paused, before != self.paused, || format!("{kind} of {} again", self.id));
    }

    fn take_step(&mut self, told: &Told<'_>, faults: &mut Faults) -> bool {
        let number = told.number("step");
        if matches!(told.kind, "step.reserved" | "step.started" | "step.approval_requested") {
            self.must_be_satisfied(number, told.kind, faults);
        }
        if matches!(told.kind, "step.reserved" | "step.approval_requested") {
            let said = || format!("{} of step {number} while {} is paused", told.kind, self.id);
            faults.require(Rule::Paused, !self.paused, said);
        }
        if told.kind == "step.reserved" {
            let held = self.steps.values().filter(|step| step.is_held()).count();
            let fits = self.max_parallel.is_none_or(|most| held < most);
            let said = || format!("{} has {held} under way and is given step {number}", self.id);
            faults.require(Rule::MaxParallel, fits, said);
        }
        match self.steps.get_mut(&number) {
            Some(step) => step.take(told, faults),
            None => {
                faults.add(Rule::OneEnd, format!("{} of step {number}, which there is not", told.kind));
                true
            }
        }
    }

    fn must_be_satisfied(&self, number: u64, kind: &str, faults: &mut Faults) {
        faults.require(Rule::Dependencies, self.started, || format!("{kind} of step {number} at rest"));
        let dependencies = self.steps.get(&number).map(|step| &step.dependencies[..]).unwrap_or_default();
        for dependency in dependencies {
            let satisfied = self.steps.get(dependency).is_some_and(StepRun::satisfies);
            let said = || format!("{kind} of step {number} before step {dependency}");
            faults.require(Rule::Dependencies, satisfied, said);
        }
    }

    fn skip(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let by_condition = told.text("reason") == "condition";
        let end = if by_condition { End::SkippedByCondition } else { End::SkippedAfterFailure };
        // One event may skip a whole chain.
        self.settle_all(told, end, faults);
        for number in told.steps() {
            if by_condition {
                self.must_be_satisfied(number, told.kind, faults);
                continue;
            }
            let before = self.steps.get(&number).map(|step| &step.dependencies[..]).unwrap_or_default();
            let spoiled = before.iter().any(|other| self.steps.get(other).is_some_and(StepRun::spoils));
            let said = || format!("step {number} is skipped after a failure that there was not");
            faults.require(Rule::Dependencies, spoiled, said);
        }
    }

    fn settle_all(&mut self, told: &Told<'_>, end: End, faults: &mut Faults) {
        for number in told.steps() {
            match self.steps.get_mut(&number) {
                Some(step) => step.settle(end, faults),
                None => faults.add(Rule::OneEnd, format!("step {number} ends, which there is not")),
            }
        }
    }

    /// What an agent held is closing, and nothing else is.
    fn cancel(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let held: BTreeSet<String> = self.leases(told).into_iter().map(|(_, lease)| lease).collect();
        let closing = told.data["closing"].as_array().into_iter().flatten();
        let closing: BTreeSet<String> = closing.filter_map(Value::as_str).map(str::to_owned).collect();
        let said = || format!("{closing:?} are closing in {}, and {held:?} were held", self.id);
        faults.require(Rule::Slots, closing == held, said);
        self.settle_all(told, End::Cancelled, faults);
    }

    fn close(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let lease = told.text("leaseId");
        let closes = self.steps.get_mut(&closed_step(told)).is_some_and(|step| step.close(lease));
        faults.require(Rule::Slots, closes, || format!("{lease} is closed and was not closing"));
    }

    fn progress(&mut self, told: &Told<'_>, faults: &mut Faults) {
        let (id, said) = (&self.id, told.number("progress"));
        let is = self.steps.values().map(|step| step.progress).sum::<u64>() / self.steps.len().max(1) as u64;
        faults.require(Rule::Progress, said == is, || format!("{id} says {said} %, its steps {is} %"));
        self.progress = said;
    }

    fn end(&mut self, told: &Told<'_>, faults: &mut Faults) {
        self.end = Some((told.kind.to_owned(), told.revision));
        let (id, kind) = (&self.id, told.kind);
        if kind == "operation.completed" {
            let said = || format!("{id} completed at {} %", self.progress);
            faults.require(Rule::Progress, self.progress == 100, said);
            let well = self.steps.values().all(StepRun::satisfies);
            faults.require(Rule::OneOutcome, well, || format!("{id} completed in spite of its steps"));
        }
        if kind == "operation.failed" && told.text("reason") == "step_failed" {
            let why = self.steps.values().any(StepRun::spoils);
            faults.require(Rule::OneOutcome, why, || format!("{id} failed without a step that did"));
        }
    }

    pub(super) fn finish(&self, faults: &mut Faults) {
        if let Some(follow) = &self.follow {
            faults.add(follow.rule, follow.said());
        }
        for (number, step) in &self.steps {
            step.finish(faults);
            let settled = step.end.is_some() || self.end.is_none();
            let said = || format!("{} has ended and its step {number} has not", self.id);
            faults.require(Rule::OneOutcome, settled, said);
        }
    }
}

/// The step of the lease that an event closes.
fn closed_step(told: &Told<'_>) -> u64 {
    let lease = if told.kind == "lease.closed" { told.text("leaseId") } else { "" };
    lease.rsplit('_').nth(1).and_then(|step| step.parse().ok()).unwrap_or_default()
}
