//! What follows when a step is settled: conditions of its dependents, skips, the operation's end.
//! Works on the run as it is plus what this very decision settles; changes neither.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Json, OperationId};
use crate::operation::definition::FailurePolicy;
use crate::operation::event::{
    Event, Failed, Progressed, SkipReason, StepError, StepFailed, StepsCancelled, StepsSkipped,
};
use crate::operation::expression::{self, Scope};
use crate::operation::step::StepStatus;
use crate::operation::{Operation, step::Run};

/// Collects the consequences of one decision.
pub(crate) struct Settlement<'o> {
    id: &'o OperationId,
    operation: &'o Operation,
    events: Vec<Event>,
    /// Settled by this decision: position, and the result that dependents see.
    settled: BTreeMap<usize, Value>,
    /// Satisfied dependencies that this decision adds, by dependent.
    satisfied: BTreeMap<usize, usize>,
    /// Sentences of steps that fail for good in this decision.
    errors: Vec<String>,
    abort: bool,
}

impl<'o> Settlement<'o> {
    pub(crate) fn new(id: &'o OperationId, operation: &'o Operation, events: Vec<Event>) -> Self {
        Self {
            id,
            operation,
            events,
            settled: BTreeMap::new(),
            satisfied: BTreeMap::new(),
            errors: Vec::new(),
            abort: false,
        }
    }

    fn run(&self) -> &'o Run {
        &self.operation.run
    }

    /// The step at `position` completes with `result`; the event for it stands already.
    pub(crate) fn completed(mut self, position: usize, result: &Json) -> Vec<Event> {
        self.satisfy_from(position, result.value());
        self.finish()
    }

    /// The step at `position` fails for good; the event for it stands already.
    pub(crate) fn failed(mut self, position: usize, error: &StepError) -> Vec<Event> {
        self.fail(position, error);
        self.finish()
    }

    /// The operation starts: conditions of its first steps are due.
    pub(crate) fn started(mut self) -> Vec<Event> {
        let roots = (0..self.run().steps.len()).filter(|at| self.run().steps[*at].unsatisfied == 0);
        for position in roots.collect::<Vec<_>>() {
            self.consider(position);
        }
        self.finish()
    }

    fn satisfy_from(&mut self, position: usize, result: Value) {
        self.settled.insert(position, result);
        for dependent in &self.run().skeleton.dependents[position] {
            let added = self.satisfied.entry(*dependent).or_default();
            *added += 1;
            if *added == self.run().steps[*dependent].unsatisfied {
                self.consider(*dependent);
            }
        }
    }

    /// A step whose dependencies are all satisfied: its condition decides whether it becomes ready.
    fn consider(&mut self, position: usize) {
        let definition = &self.run().skeleton.steps[position];
        let Some(condition) = &definition.when else { return };
        if self.settled.contains_key(&position) || self.run().steps[position].status != StepStatus::Pending {
            return;
        }
        match expression::holds(condition, &self.operation.scope(self.id, position, &self.settled)) {
            Ok(true) => {}
            Ok(false) => {
                let steps = vec![definition.step];
                self.events.push(Event::StepsSkipped(StepsSkipped { steps, reason: SkipReason::Condition }));
                self.satisfy_from(position, Value::Null);
            }
            Err(message) => {
                let error = StepError { code: "template".into(), message };
                self.events.push(Event::StepFailed(StepFailed {
                    step: definition.step,
                    grant: 0,
                    attempt: 0,
                    error: error.clone(),
                    is_final: true,
                }));
                self.fail(position, &error);
            }
        }
    }

    fn fail(&mut self, position: usize, error: &StepError) {
        let definition = &self.run().skeleton.steps[position];
        if definition.continue_on_error {
            self.satisfy_from(position, json!({"error": {"code": error.code, "message": error.message}}));
            return;
        }
        self.settled.insert(position, Value::Null);
        self.errors.push(format!("step {}: {}: {}", definition.step, error.code, error.message));
        match self.operation.definition.failure_policy {
            FailurePolicy::FailFast => self.abort = true,
            FailurePolicy::Continue => self.skip_after(position),
        }
    }

    fn skip_after(&mut self, position: usize) {
        let mut skipped = Vec::new();
        let mut waiting = vec![position];
        while let Some(at) = waiting.pop() {
            for dependent in &self.run().skeleton.dependents[at] {
                let open = !self.run().steps[*dependent].status.is_settled();
                if open && self.settled.insert(*dependent, Value::Null).is_none() {
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
        let run = self.run();
        if self.abort {
            self.events.extend(end(run, &|position| self.settled.contains_key(&position)));
            self.fail_operation();
            return self.events;
        }
        let points = self.settled.keys().map(|position| run.points_left(*position)).sum();
        let progress = run.progress_after(points);
        if progress != run.progress() {
            self.events.push(Event::Progressed(Progressed { progress }));
        }
        if run.settled + self.settled.len() == run.steps.len() {
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
        self.events.push(Event::Failed(Failed { reason: "step_failed".into(), errors }));
    }
}

/// Cancels every step that is not settled, apart from those that `also` says are.
pub(crate) fn end(run: &Run, also: &dyn Fn(usize) -> bool) -> Option<Event> {
    let open = (0..run.steps.len()).filter(|at| !run.steps[*at].status.is_settled() && !also(*at));
    let steps: Vec<u32> = open.map(|position| run.skeleton.steps[position].step).collect();
    (!steps.is_empty()).then_some(Event::StepsCancelled(StepsCancelled { steps }))
}

impl Operation {
    /// What the expressions of the step at `position` can see; `now` holds results of this decision.
    pub(crate) fn scope(&self, id: &OperationId, position: usize, now: &BTreeMap<usize, Value>) -> Scope {
        let skeleton = &self.run.skeleton;
        let definition = &skeleton.steps[position];
        let mut read = expression::references(&definition.inputs.value()).unwrap_or_default();
        if let Some(condition) = &definition.when {
            read.append(&mut expression::condition_references(condition).unwrap_or_default());
        }
        let mut scope = Scope { operation: self.shown_to_expressions(id), ..Scope::default() };
        for number in read {
            let Some(other) = skeleton.position(number) else { continue };
            let run = &self.run.steps[other];
            let result = now.get(&other).cloned().or_else(|| self.results.get(&number).map(Json::value));
            let error = run.error.as_ref().map(|error| json!({"code": error.code, "message": error.message}));
            let shown = json!({
                "result": result,
                "status": run.status.name(),
                "error": error,
            });
            scope.steps.insert(number, shown);
        }
        scope
    }

    fn shown_to_expressions(&self, id: &OperationId) -> Value {
        json!({
            "id": id.as_str(),
            "name": self.definition.name,
            "metadata": self.definition.metadata.value(),
        })
    }
}
