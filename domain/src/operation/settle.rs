//! What follows when a step is settled: conditions of its dependents, questions to people, skips, the
//! operation's end.
//! Works on the run as it is plus what this very decision settles; changes neither.

use std::collections::{BTreeMap, VecDeque};

use crate::operation::definition::FailurePolicy;
use crate::operation::event::{
    Event, Failed, FailureReason, Progressed, SkipReason, StepApprovalRequested, StepError, StepFailed,
    StepsCancelled, StepsSkipped,
};
use crate::operation::expression::ExpressionError;
use crate::operation::sight::{Now, Sight};
use crate::operation::step::StepStatus;
use crate::operation::{Operation, step::Run};
use crate::{Given, Json, LeaseId, OperationId};

/// Failed steps that the end of an operation names; more would only hide the first ones.
const ERRORS_MAX: usize = 100;

/// Collects the consequences of one decision.
pub(crate) struct Settlement<'o> {
    id: &'o OperationId,
    operation: &'o Operation,
    given: &'o Given<'o>,
    events: Vec<Event>,
    sight: Sight<'o>,
    /// Satisfied dependencies that this decision adds, by dependent.
    satisfied: BTreeMap<usize, usize>,
    /// Steps whose dependencies are all satisfied by now and whose conditions are to be looked at.
    due: VecDeque<usize>,
    /// Steps skipped by their conditions and not yet said to be.
    skipped: Vec<u32>,
    /// Sentences of steps that fail for good in this decision.
    errors: Vec<String>,
    abort: bool,
    /// Whether no step may start; people are asked later then.
    paused: bool,
}

impl<'o> Settlement<'o> {
    pub(crate) fn new(
        id: &'o OperationId,
        operation: &'o Operation,
        given: &'o Given<'o>,
        events: Vec<Event>,
    ) -> Self {
        Self {
            id,
            operation,
            given,
            events,
            sight: Sight::new(id, operation),
            satisfied: BTreeMap::new(),
            due: VecDeque::new(),
            skipped: Vec::new(),
            errors: Vec::new(),
            abort: false,
            paused: operation.run.paused,
        }
    }

    fn run(&self) -> &'o Run {
        &self.operation.run
    }

    /// The step at `position` completes with `result`; the event for it stands already.
    pub(crate) fn completed(mut self, position: usize, result: &Json) -> Vec<Event> {
        self.satisfy(position, Now { status: "completed", result: Some(result.clone()), error: None });
        self.finish()
    }

    /// The step at `position` fails for good; the event for it stands already.
    pub(crate) fn failed(mut self, position: usize, error: &StepError) -> Vec<Event> {
        self.fail(position, error);
        self.finish()
    }

    /// The step at `position` is skipped by a wish; the event for it stands already.
    pub(crate) fn skipped(mut self, position: usize) -> Vec<Event> {
        self.satisfy(position, Now { status: "skipped", result: None, error: None });
        self.finish()
    }

    /// The operation is resumed: people are asked what they could not be asked before.
    pub(crate) fn resumed(mut self) -> Vec<Event> {
        self.paused = false;
        for position in &self.operation.run.ready {
            if self.run().skeleton.steps[*position].asks_a_person() && !self.abort {
                self.ask(*position);
            }
        }
        self.finish()
    }

    /// The operation starts: conditions of its first steps are due.
    pub(crate) fn started(mut self) -> Vec<Event> {
        self.due = (0..self.run().steps.len()).filter(|at| self.run().steps[*at].unsatisfied == 0).collect();
        self.finish()
    }

    fn satisfy(&mut self, position: usize, now: Now) {
        self.sight.settle(position, now);
        for dependent in &*self.run().skeleton.dependents[position] {
            let added = self.satisfied.entry(*dependent).or_default();
            *added += 1;
            if *added == self.run().steps[*dependent].unsatisfied {
                self.due.push_back(*dependent);
            }
        }
    }

    /// A step whose dependencies are all satisfied: its condition decides whether it becomes ready.
    fn consider(&mut self, position: usize) {
        let definition = &self.operation.run.skeleton.steps[position];
        if self.sight.settles(position) || self.run().steps[position].status != StepStatus::Pending {
            return;
        }
        match definition.when.as_deref().map_or(Ok(true), |condition| self.sight.holds(condition)) {
            Ok(true) if definition.asks_a_person() && !self.paused => self.ask(position),
            Ok(true) => {}
            Ok(false) => {
                self.skipped.push(definition.step);
                self.satisfy(position, Now { status: "skipped", result: None, error: None });
            }
            Err(fault) => self.fail_unperformed(position, fault),
        }
    }

    /// Puts the question of the step at `position` to people.
    fn ask(&mut self, position: usize) {
        let definition = &self.operation.run.skeleton.steps[position];
        match self.sight.inputs(&definition.inputs, self.given.world.limits.max_result_bytes) {
            Ok(inputs) => {
                self.say_skipped();
                let (step, timeout_ms) = (definition.step, definition.timeout_ms);
                let until = self.given.now.plus_ms(timeout_ms);
                let title = self.sight.title(definition);
                let asked = StepApprovalRequested { step, inputs, until, timeout_ms, title };
                self.events.push(Event::StepApprovalRequested(asked));
            }
            Err(fault) => self.fail_unperformed(position, fault),
        }
    }

    /// A step that can never be performed as it was asked for.
    fn fail_unperformed(&mut self, position: usize, fault: ExpressionError) {
        self.say_skipped();
        let error = StepError { code: fault.code.into(), message: fault.message };
        self.events.push(Event::StepFailed(StepFailed {
            step: self.run().skeleton.steps[position].step,
            grant: 0,
            attempt: 0,
            error: error.clone(),
            is_final: true,
        }));
        self.fail(position, &error);
    }

    fn say_skipped(&mut self) {
        if !self.skipped.is_empty() {
            let (steps, reason) = (std::mem::take(&mut self.skipped), SkipReason::Condition);
            self.events.push(Event::StepsSkipped(StepsSkipped { steps, reason }));
        }
    }

    fn fail(&mut self, position: usize, error: &StepError) {
        let definition = &self.run().skeleton.steps[position];
        let mut now = Now { status: "failed", result: None, error: Some(error.clone()) };
        if definition.continue_on_error {
            now.result = Some(error.as_result());
            self.satisfy(position, now);
            return;
        }
        self.sight.settle(position, now);
        self.errors.push(error.sentence(definition.step));
        match self.operation.definition.failure_policy {
            FailurePolicy::FailFast => self.abort = true,
            FailurePolicy::Continue => self.skip_after(position),
        }
    }

    fn skip_after(&mut self, position: usize) {
        let mut skipped = Vec::new();
        let mut waiting = vec![position];
        while let Some(at) = waiting.pop() {
            for dependent in &*self.run().skeleton.dependents[at] {
                let open = !self.run().steps[*dependent].status.is_settled();
                if open && !self.sight.settles(*dependent) {
                    self.sight.settle(*dependent, Now { status: "skipped", result: None, error: None });
                    skipped.push(self.run().skeleton.steps[*dependent].step);
                    waiting.push(*dependent);
                }
            }
        }
        if !skipped.is_empty() {
            skipped.sort_unstable();
            let reason = SkipReason::UpstreamFailed;
            self.events.push(Event::StepsSkipped(StepsSkipped { steps: skipped, reason }));
        }
    }

    fn finish(mut self) -> Vec<Event> {
        // A queue, not a recursion: a workflow may be one chain of skipped steps.
        while let Some(position) = self.due.pop_front().filter(|_| !self.abort) {
            self.consider(position);
        }
        self.say_skipped();
        let run = self.run();
        if self.abort {
            self.events.extend(end(self.id, run, &|position| self.sight.settles(position)));
            self.fail_operation();
            return self.events;
        }
        let points = self.sight.settled().map(|position| run.points_left(position)).sum();
        let progress = run.progress_with(points);
        if progress != run.progress() {
            self.events.push(Event::Progressed(Progressed { progress }));
        }
        if run.settled + self.sight.settled().len() == run.steps.len() {
            if run.failed.is_empty() && self.errors.is_empty() {
                self.events.push(Event::Completed);
            } else {
                self.fail_operation();
            }
        }
        self.events
    }

    fn fail_operation(&mut self) {
        let mut errors = self.operation.failures();
        errors.append(&mut self.errors);
        self.events
            .push(Event::Failed(Failed { reason: FailureReason::StepFailed, errors: shortened(errors) }));
    }
}

/// At most [`ERRORS_MAX`] sentences, the last of which may say how many are left out.
pub(crate) fn shortened(mut errors: Vec<String>) -> Vec<String> {
    if errors.len() > ERRORS_MAX {
        let more = errors.len() - (ERRORS_MAX - 1);
        errors.truncate(ERRORS_MAX - 1);
        errors.push(format!("and {more} more steps failed"));
    }
    errors
}

/// Cancels every step that is not settled, apart from those that `also` says are. What an agent holds is
/// closing from then on.
pub(crate) fn end(id: &OperationId, run: &Run, also: &dyn Fn(usize) -> bool) -> Option<Event> {
    let open = (0..run.steps.len()).filter(|at| !run.steps[*at].status.is_settled() && !also(*at));
    let open: Vec<usize> = open.collect();
    let number = |position: usize| run.skeleton.steps[position].step;
    let held = open.iter().filter(|at| run.held.contains(**at));
    let closing =
        held.map(|at| LeaseId { operation: id.clone(), step: number(*at), grant: run.steps[*at].grant });
    let cancelled = StepsCancelled {
        closing: closing.collect(),
        steps: open.iter().map(|position| number(*position)).collect(),
    };
    (!cancelled.steps.is_empty()).then_some(Event::StepsCancelled(cancelled))
}
