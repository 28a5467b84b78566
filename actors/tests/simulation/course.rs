//! One operation's course by its events alone: holders, grants, attempts, dependencies, people, its end.
//! Must never use the product's folds: they are what is checked.

use std::collections::BTreeMap;

use domain::operation::Event;
use domain::operation::definition::Definition;
use domain::operation::event::{
    CloseReason, FailureReason, LeaseClosed, LeaseEnd, Resolution, SkipReason, StepFailed, StepsCancelled,
};
use domain::{AgentId, LeaseId, OperationId, Timestamp};

use crate::signs::{Period, Signs};
use crate::step_course::{End, Held, StepCourse, UNTAKEN_MAX, how};
pub(crate) use crate::step_course::{How, Slot};

#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) id: OperationId,
    pub(crate) definition: Definition,
    /// Since when it is so: a request that was under way for long may name a deadline that has passed.
    pub(crate) defined_at: Timestamp,
    pub(crate) steps: BTreeMap<u32, StepCourse>,
    pub(crate) paused: bool,
    pub(crate) started: bool,
    /// By what it ended, and at which version.
    pub(crate) end: Option<(&'static str, u64)>,
    /// Leases that have ended and were not asked for yet.
    ended: Vec<(Slot, How)>,
}

/// What is found, in words.
pub(crate) type Faults = Vec<String>;

fn require(faults: &mut Faults, holds: bool, said: impl FnOnce() -> String) {
    if !holds {
        faults.push(said());
    }
}

impl Course {
    pub(crate) fn of(id: &OperationId, definition: &Definition, at: Timestamp) -> Self {
        let steps = definition.workflow.iter().map(|step| (step.step, StepCourse::of(step)));
        Self {
            id: id.clone(),
            definition: definition.clone(),
            defined_at: at,
            steps: steps.collect(),
            paused: false,
            started: false,
            end: None,
            ended: Vec::new(),
        }
    }

    /// Every lease that takes a slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.steps.values().flat_map(|step| step.slot(&self.id).into_iter().chain(step.closing.clone()))
    }

    /// Leases that have ended since this was last asked.
    pub(crate) fn take_ended(&mut self) -> Vec<(Slot, How)> {
        std::mem::take(&mut self.ended)
    }

    /// Who has a step under this lease.
    pub(crate) fn holder(&self, lease: &LeaseId) -> Option<&AgentId> {
        let step = self.steps.get(&lease.step).filter(|step| step.grant == lease.grant)?;
        step.held.as_ref().map(|held| &held.agent)
    }

    pub(crate) fn take(
        &mut self,
        event: &Event,
        version: u64,
        at: Timestamp,
        signs: &Signs,
        faults: &mut Faults,
    ) {
        if let Some((by, ended)) = self.end {
            let settles = match event {
                Event::StepsCancelled(_) => by == "cancelled" && version == ended + 1,
                // What follows an end is that slots become free, and nothing else.
                Event::LeaseClosed(_) => true,
                _ => false,
            };
            require(faults, settles, || format!("P13: {event:?} after the operation was {by}"));
        }
        let before: Vec<Slot> = self.slots().collect();
        self.take_any(event, version, at, signs, faults);
        let after: Vec<LeaseId> = self.slots().map(|slot| slot.lease).collect();
        let ended = before.into_iter().filter(|slot| !after.contains(&slot.lease));
        self.ended.extend(ended.map(|slot| (slot, how(event))));
    }

    fn take_any(&mut self, event: &Event, version: u64, at: Timestamp, signs: &Signs, faults: &mut Faults) {
        match event {
            Event::Created(_) => faults.push("P13: it is created again".into()),
            Event::Started => {
                require(faults, !self.started, || "it starts twice".into());
                self.started = true;
            }
            Event::Updated(patch) => {
                self.definition.apply(patch);
                self.defined_at = at;
            }
            Event::Paused(_) => self.paused = true,
            Event::Resumed(_) => self.paused = false,
            Event::Progressed(_) => {}
            Event::Completed => {
                let well = self.steps.values().all(StepCourse::satisfies);
                require(faults, well, || "P13: it completed in spite of its steps".into());
                self.finish("completed", version, faults);
            }
            Event::Failed(failed) => {
                if failed.reason == FailureReason::DeadlineExceeded {
                    let due = self.definition.deadline.is_some_and(|deadline| deadline <= at);
                    require(faults, due, || "P15: it expires before its deadline".into());
                } else {
                    let why = self.steps.values().any(StepCourse::spoils);
                    require(faults, why, || "P13: it failed without a step that did".into());
                }
                self.finish("failed", version, faults);
            }
            Event::Cancelled(_) => self.end = Some(("cancelled", version)),
            Event::StepsSkipped(skipped) => self.skip(&skipped.steps, skipped.reason, faults),
            Event::StepsCancelled(cancelled) => self.cancel(cancelled, at, faults),
            Event::LeaseClosed(closed) => self.close(closed, at, signs, faults),
            _ => self.take_step(event, at, signs, faults),
        }
    }

    /// What agents hold is closing from then on, and nothing else is.
    fn cancel(&mut self, cancelled: &StepsCancelled, at: Timestamp, faults: &mut Faults) {
        let id = self.id.clone();
        let mut closing = Vec::new();
        for number in &cancelled.steps {
            let step = self.step(*number);
            let slot = step.slot(&id);
            step.closing = slot.map(|slot| Slot { closing: Some(at), ..slot });
            closing.extend(step.closing.iter().map(|slot| slot.lease.clone()));
            step.settle(End::Cancelled, faults);
        }
        let same = closing == cancelled.closing;
        require(faults, same, || format!("slots: {closing:?} were held and {cancelled:?} is closing"));
    }

    fn close(&mut self, closed: &LeaseClosed, at: Timestamp, signs: &Signs, faults: &mut Faults) {
        let step = self.step(closed.lease_id.step);
        let slot = step.closing.take_if(|slot| slot.lease == closed.lease_id);
        require(faults, slot.is_some(), || format!("slots: {closed:?} was not closing"));
        let since = slot.and_then(|slot| slot.closing).unwrap_or_default();
        let early = closed.why == CloseReason::GraceExpired && at < signs.end_of_grace(since);
        require(faults, !early, || format!("P15: {closed:?} is early, it is closing since {since}"));
    }

    fn step(&mut self, number: u32) -> &mut StepCourse {
        self.steps.get_mut(&number).unwrap()
    }

    fn finish(&mut self, how: &'static str, version: u64, faults: &mut Faults) {
        self.end = Some((how, version));
        let open = self.steps.values().filter(|step| step.end.is_none()).count();
        require(faults, open == 0, || format!("P13: it {how} with {open} open steps"));
    }

    /// What must hold between two appends.
    pub(crate) fn rest(&self, faults: &mut Faults) {
        for step in self.steps.values().filter(|step| step.owes) {
            faults.push(format!("P3: step {} ended an attempt and nothing follows", step.definition.step));
        }
        for step in self.steps.values().filter(|step| step.worn) {
            faults.push(format!("attempts: step {} was offered in vain too often", step.definition.step));
        }
        for step in self.steps.values() {
            if step.held.as_ref().is_some_and(|held| held.told_late) {
                faults.push(format!(
                    "P3: step {} began when it was reserved and goes on",
                    step.definition.step
                ));
            }
        }
        if self.end.is_some() && self.steps.values().any(|step| step.end.is_none()) {
            faults.push("P3: it has ended and not all of its steps have".into());
        }
    }

    fn skip(&mut self, numbers: &[u32], reason: SkipReason, faults: &mut Faults) {
        for number in numbers {
            self.step(*number).settle(End::Skipped(reason), faults);
        }
        for number in numbers {
            match reason {
                SkipReason::Condition => self.must_be_satisfied(*number, "skipped", faults),
                // A person may skip what its turn has not come for.
                SkipReason::Requested => {}
                SkipReason::UpstreamFailed => {
                    let before = &self.steps[number].definition.dependencies;
                    let spoiled = before.iter().any(|other| self.steps[other].spoils());
                    require(faults, spoiled, || format!("P14: step {number} is skipped after no failure"));
                }
            }
        }
    }

    fn must_be_satisfied(&self, number: u32, what: &str, faults: &mut Faults) {
        require(faults, self.started, || format!("P14: step {number} is {what} before the start"));
        for other in &self.steps[&number].definition.dependencies {
            let satisfied = self.steps[other].satisfies();
            require(faults, satisfied, || format!("P14: step {number} is {what} before step {other}"));
        }
    }

    fn take_step(&mut self, event: &Event, at: Timestamp, signs: &Signs, faults: &mut Faults) {
        let Some(number) = event.step() else { return faults.push(format!("unknown: {event:?}")) };
        if !self.steps.contains_key(&number) {
            return faults.push(format!("P13: {event:?} of a step that there is not"));
        }
        let ended = self.step(number).end;
        require(faults, ended.is_none(), || format!("P13: {event:?} after the step was {ended:?}"));
        match event {
            Event::StepReserved(reserved) => {
                self.must_be_satisfied(number, "reserved", faults);
                self.must_have_room(number, faults);
                let step = self.step(number);
                let lease = LeaseId { grant: step.grant + 1, ..reserved.lease_id.clone() };
                let next = reserved.grant == step.grant + 1 && reserved.lease_id == lease;
                require(faults, next, || format!("grants: {} after {}", reserved.lease_id, step.grant));
                let free = step.held.is_none() && !step.owes && !step.attention && step.answer_by.is_none();
                require(faults, free, || format!("P13: step {number} is reserved though {step:?}"));
                let early = step.retry_at.is_some_and(|retry| at < retry);
                require(faults, !early, || {
                    format!("P15: step {number} is retried early: {:?}", step.retry_at)
                });
                let kept =
                    step.kept_from.iter().any(|(agent, until)| *agent == reserved.agent && *until > at);
                require(faults, !kept, || format!("P15: step {number} goes back to {}", reserved.agent));
                require(faults, reserved.attempt == step.spent + 1, || format!("attempts: {reserved:?}"));
                (step.grant, step.retry_at, step.failed_by) = (reserved.grant, None, None);
                step.held = Some(Held {
                    agent: reserved.agent.clone(),
                    incarnation: reserved.incarnation,
                    running: false,
                    since: at,
                    reserved_at: at,
                    told_late: false,
                });
            }
            Event::StepApprovalRequested(asked) => {
                self.must_be_satisfied(number, "put to people", faults);
                require(faults, !self.paused, || format!("paused: step {number} is put to people"));
                self.step(number).answer_by = Some(asked.until);
            }
            Event::StepFailed(failed) => self.fail(failed, at, faults),
            _ => self.take_lease(number, event, at, signs, faults),
        }
    }

    fn must_have_room(&self, number: u32, faults: &mut Faults) {
        require(faults, !self.paused, || format!("paused: step {number} is reserved"));
        let held = self.steps.values().filter(|step| step.held.is_some()).count();
        let fits = self.definition.max_parallel.is_none_or(|most| held < most as usize);
        require(faults, fits, || format!("max parallel: {held} held and step {number} is reserved"));
    }

    fn take_lease(&mut self, number: u32, event: &Event, at: Timestamp, signs: &Signs, faults: &mut Faults) {
        let lease = self.steps[&number].lease(&self.id);
        let step = self.step(number);
        let (held, running) = (step.held.is_some(), step.held.as_ref().is_some_and(|held| held.running));
        let most = step.definition.retry.max_attempts + step.granted;
        let said = || format!("holders: {event:?} though {:?}", step.held);
        match event {
            Event::StepOfferExpired(expired) => {
                require(faults, held && !running && expired.grant == step.grant, said);
                if let Some(since) = step.held.as_ref().map(|held| held.since)
                    && expired.reason == LeaseEnd::NoSignOfLife
                {
                    signs.not_early(Period::Offer, since, at, faults);
                }
                let silent = [LeaseEnd::NoSignOfLife, LeaseEnd::AgentTimeout].contains(&expired.reason);
                step.untaken += u32::from(silent);
                step.worn = silent && step.untaken >= UNTAKEN_MAX;
                step.let_go();
            }
            Event::StepReleased(released) => {
                require(faults, held && released.grant == step.grant, said);
                step.kept_from.retain(|(agent, _)| *agent != released.agent);
                step.kept_from.push((released.agent.clone(), released.held_until));
                step.untaken = 0;
                step.let_go();
            }
            Event::StepLimited(limited) => {
                require(faults, held && limited.grant == step.grant, said);
                step.untaken = 0;
                step.let_go();
            }
            Event::StepStarted(started) => {
                require(faults, held && !running && started.grant == step.grant, said);
                let right = started.attempt == step.spent + 1 && started.attempt <= most;
                require(faults, right, || format!("attempts: {started:?} of {most}"));
                step.untaken = 0;
                if let Some(held) = &mut step.held {
                    let began = started.started_at;
                    let right = held.reserved_at <= began && began <= at;
                    require(faults, right, || format!("times: {started:?} of {}", held.reserved_at));
                    held.told_late = began == held.reserved_at && began < at;
                    (held.running, held.since) = (true, began);
                }
            }
            Event::StepProgressed(progressed) => {
                require(faults, running && progressed.grant == step.grant, said);
            }
            Event::StepCheckpointed(kept) => require(faults, running && kept.grant == step.grant, said),
            Event::StepLeaseLost(lost) => {
                require(faults, (running || step.worn) && lost.grant == step.grant, said);
                require(faults, lost.attempt == step.spent + 1, || format!("attempts: {lost:?}"));
                (step.untaken, step.worn) = (0, false);
                if let Some(since) = step.held.as_ref().map(|held| held.since)
                    && lost.reason == LeaseEnd::LeaseExpired
                {
                    signs.not_early(Period::Lease(&lease), since, at, faults);
                }
                step.spend();
            }
            Event::StepRetryScheduled(retry) => {
                let right = step.owes && retry.attempt == step.spent + 1 && retry.attempt <= most;
                require(faults, right, || format!("attempts: {retry:?} after {} of {most}", step.spent));
                (step.owes, step.retry_at) = (false, Some(retry.at));
                step.failed_by = step.last.clone();
            }
            _ => self.take_word(number, event, faults),
        }
    }

    /// What people say, and the end that may follow.
    fn take_word(&mut self, number: u32, event: &Event, faults: &mut Faults) {
        let step = self.step(number);
        match event {
            Event::StepCompleted(completed) => {
                let asked = step.answer_by.is_some();
                let newest = completed.grant == step.grant && completed.grant > 0;
                require(faults, asked || newest, || format!("grants: {completed:?} after {}", step.grant));
                step.settle(End::Completed, faults);
            }
            Event::StepApproved(_) | Event::StepRejected(_) => {
                let asked = step.answer_by.is_some();
                require(faults, asked, || format!("people: an answer about step {number}, which asked not"));
            }
            Event::StepNeedsAttention(unknown) => {
                let timed_out = step.held.is_some();
                require(faults, timed_out || step.owes, || format!("people: {unknown:?}"));
                if timed_out {
                    step.spend();
                }
                (step.owes, step.attention) = (false, true);
            }
            Event::StepResolved(resolved) if resolved.resolution == Resolution::Retry => {
                require(faults, step.held.is_none(), || format!("people: {resolved:?} of a held step"));
                step.kept_from.clear();
                (step.retry_at, step.failed_by, step.attention) = (None, None, false);
                step.granted += 1;
            }
            Event::StepResolved(_) => {}
            _ => faults.push(format!("unknown: {event:?}")),
        }
    }

    fn fail(&mut self, failed: &StepFailed, at: Timestamp, faults: &mut Faults) {
        let step = self.step(failed.step);
        let Some(held) = &step.held else {
            // The last word after a loss, of a step that could not be offered, or by a person.
            require(faults, failed.is_final, || format!("holders: {failed:?} in nobody's hands"));
            if let Some(until) = step.answer_by.filter(|_| failed.error.code == "expired") {
                require(faults, at >= until, || format!("P15: step {} expires early", failed.step));
            }
            return step.settle(End::Failed, faults);
        };
        require(faults, failed.grant == step.grant && held.running, || format!("holders: {failed:?}"));
        require(faults, failed.attempt == step.spent + 1, || format!("attempts: {failed:?}"));
        if failed.error.code == "timeout" {
            let early = at < held.since.plus_ms(step.definition.timeout_ms);
            require(faults, !early, || format!("P15: step {} times out early", failed.step));
        }
        step.spend();
        if failed.is_final {
            step.settle(End::Failed, faults);
        }
    }
}
