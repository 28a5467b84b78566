//! What a person may say about one step: yes, no, again, without it, it has happened, it has not. Also
//! what silence means. Decides, never folds.

use serde_json::json;

use crate::operation::Operation;
use crate::operation::command::{Intervention, Rejection};
use crate::operation::event::{
    Event, Judged, Resolution, SkipReason, StepCompleted, StepError, StepFailed, StepResolved, StepsSkipped,
};
use crate::operation::settle::Settlement;
use crate::operation::step::{Status, StepRun, StepStatus};
use crate::{Given, Json, OperationId, texts};

/// Code of a step that a person refused.
const REJECTED: &str = "rejected";
/// Code of a step that nobody answered in time.
const EXPIRED: &str = "expired";
/// Code of a step of which a person said that it has failed.
const DECLARED_FAILED: &str = "declared_failed";

/// Whose word it is, and why.
pub(crate) struct Word<'w> {
    pub(crate) id: &'w OperationId,
    pub(crate) by: &'w str,
    pub(crate) reason: Option<&'w str>,
    pub(crate) given: &'w Given<'w>,
}

impl Word<'_> {
    fn reason(&self) -> Option<String> {
        self.reason.map(|reason| texts::line(reason, texts::NOTE_MAX))
    }

    fn judged(&self, step: u32) -> Judged {
        Judged { step, by: self.by.to_owned(), reason: self.reason() }
    }

    fn resolved(&self, step: u32, resolution: Resolution) -> Event {
        Event::StepResolved(StepResolved { step, resolution, by: self.by.to_owned(), reason: self.reason() })
    }

    fn error(&self, code: &str, what: &str) -> StepError {
        let why = self.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        StepError { code: code.into(), message: format!("{what} by {}{why}", self.by) }
    }
}

impl Operation {
    pub(crate) fn intervene(
        &self,
        step: u32,
        wish: &Intervention,
        word: &Word<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let position = self.run.skeleton.position(step).ok_or(Rejection::UnknownStep(step))?;
        let run = &self.run.steps[position];
        if self.said_before(position, wish) {
            return Ok(Vec::new());
        }
        if run.status.is_settled() {
            return Err(Rejection::AlreadyTerminal { status: run.status.name() });
        }
        let unable = Rejection::NotPossible { step, status: run.status.name(), wish: wish.name() };
        let approval = matches!(run.status, StepStatus::AwaitingApproval { .. });
        let unknown = run.status == StepStatus::NeedsAttention;
        let waiting = matches!(run.status, StepStatus::BackingOff { .. } | StepStatus::Ready);
        let unheld = run.status.holder().is_none() && self.status() == Status::InProgress;
        match wish {
            Intervention::Approve if approval => Ok(self.approve(position, word)),
            Intervention::Reject if approval => {
                let rejected = Event::StepRejected(word.judged(step));
                Ok(self.fail_by_word(position, rejected, &word.error(REJECTED, "rejected"), word))
            }
            Intervention::Retry if unknown || waiting => Ok(vec![word.resolved(step, Resolution::Retry)]),
            Intervention::Skip if unheld => Ok(self.skip(position, word)),
            Intervention::Complete(result) if unknown => self.declare_completed(position, result, word),
            Intervention::Fail if unknown => {
                let resolved = word.resolved(step, Resolution::Failed);
                let error = word.error(DECLARED_FAILED, "declared failed");
                Ok(self.fail_by_word(position, resolved, &error, word))
            }
            _ => Err(unable),
        }
    }

    /// Whether the step stands already where the wish would bring it.
    fn said_before(&self, position: usize, wish: &Intervention) -> bool {
        let (step, run) = (&self.run.skeleton.steps[position], &self.run.steps[position]);
        let failed_with = |code: &str| {
            run.status == StepStatus::Failed && run.error.as_ref().is_some_and(|error| error.code == code)
        };
        match wish {
            Intervention::Approve => step.asks_a_person() && run.status == StepStatus::Completed,
            Intervention::Reject => step.asks_a_person() && failed_with(REJECTED),
            Intervention::Retry => {
                run.status == StepStatus::Ready && run.held_from.is_empty() && run.limited_until.is_none()
            }
            Intervention::Skip => run.status == StepStatus::Skipped(SkipReason::Requested),
            Intervention::Complete(result) => {
                run.status == StepStatus::Completed && self.results.get(&step.step) == Some(result)
            }
            Intervention::Fail => failed_with(DECLARED_FAILED),
        }
    }

    fn approve(&self, position: usize, word: &Word<'_>) -> Vec<Event> {
        let step = self.run.skeleton.steps[position].step;
        let result = Json::from(json!({"approved": true, "by": word.by, "reason": word.reason()}));
        let completed = self.completed_by_word(position, &result, word.given);
        let events = vec![Event::StepApproved(word.judged(step)), completed];
        Settlement::new(word.id, self, word.given, events).completed(position, &result)
    }

    fn declare_completed(
        &self,
        position: usize,
        result: &Json,
        word: &Word<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        self.require_room(result, &word.given.world.limits)?;
        let resolved = word.resolved(self.run.skeleton.steps[position].step, Resolution::Completed);
        let events = vec![resolved, self.completed_by_word(position, result, word.given)];
        Ok(Settlement::new(word.id, self, word.given, events).completed(position, result))
    }

    fn completed_by_word(&self, position: usize, result: &Json, given: &Given<'_>) -> Event {
        let run = &self.run.steps[position];
        Event::StepCompleted(StepCompleted {
            step: self.run.skeleton.steps[position].step,
            grant: run.grant,
            attempt: run.attempts,
            agent: run.agent.clone(),
            result: result.clone(),
            usage: None,
            duration_ms: began(run).map_or(0, |at| given.now.ms_since(at)),
        })
    }

    fn fail_by_word(&self, position: usize, first: Event, error: &StepError, word: &Word<'_>) -> Vec<Event> {
        let events = vec![first, self.failed_unanswered(position, error)];
        Settlement::new(word.id, self, word.given, events).failed(position, error)
    }

    fn failed_unanswered(&self, position: usize, error: &StepError) -> Event {
        let (step, run) = (self.run.skeleton.steps[position].step, &self.run.steps[position]);
        let (grant, attempt, error) = (run.grant, run.attempts, error.clone());
        Event::StepFailed(StepFailed { step, grant, attempt, error, is_final: true })
    }

    fn skip(&self, position: usize, word: &Word<'_>) -> Vec<Event> {
        let step = self.run.skeleton.steps[position].step;
        let skipped = StepsSkipped { steps: vec![step], reason: SkipReason::Requested };
        let events = vec![word.resolved(step, Resolution::Skip), Event::StepsSkipped(skipped)];
        Settlement::new(word.id, self, word.given, events).skipped(position)
    }

    /// Silence is an outcome of its own, never a no.
    pub(crate) fn expire_approval(
        &self,
        id: &OperationId,
        step: u32,
        given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let position = self.run.skeleton.position(step).ok_or(Rejection::UnknownStep(step))?;
        let status = &self.run.steps[position].status;
        let StepStatus::AwaitingApproval { until, timeout_ms } = status else {
            return Err(Rejection::AlreadyTerminal { status: status.name() });
        };
        if given.now < *until {
            return Err(Rejection::Early);
        }
        let message = format!("nobody answered within {timeout_ms} ms");
        let error = StepError { code: EXPIRED.into(), message };
        let events = vec![self.failed_unanswered(position, &error)];
        Ok(Settlement::new(id, self, given, events).failed(position, &error))
    }
}

/// When the wait for a person, or the attempt that a person speaks of, began.
fn began(run: &StepRun) -> Option<crate::Timestamp> {
    match &run.status {
        StepStatus::AwaitingApproval { until, timeout_ms } => {
            let wait_us = i64::try_from(*timeout_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
            Some(crate::Timestamp::from_micros(until.as_micros().saturating_sub(wait_us)))
        }
        _ => run.started_at,
    }
}
