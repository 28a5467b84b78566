//! What may happen to one step under one grant: offers, reports, losses. Decides, never folds.

use crate::agent::selection::Candidates;
use crate::lane::WINDOW_MAX_MS;
use crate::operation::Operation;
use crate::operation::command::{Rejection, StepWish};
use crate::operation::definition::{EffectClass, StepDefinition};
use crate::operation::event::{
    CloseReason, Event, LeaseClosed, LeaseEnd, Progressed, StepCheckpointed, StepCompleted, StepError,
    StepFailed, StepLeaseLost, StepLimited, StepNeedsAttention, StepOfferExpired, StepProgressed,
    StepReleased, StepReserved, StepRetryScheduled, StepStarted,
};
use crate::operation::expression::ExpressionError;
use crate::operation::settle::Settlement;
use crate::operation::sight::Sight;
use crate::operation::step::{Holder, StepRun, StepStatus};
use crate::{AgentId, Given, Json, LeaseId, Limits, OperationId, Timestamp, texts};

/// A progress report is recorded when it moved this many percent …
const PROGRESS_STEP: u8 = 10;
/// … or when so many milliseconds have passed since the last recorded one.
const PROGRESS_INTERVAL_MS: u64 = 5_000;
/// Checkpoints of one step are recorded at most this often.
const CHECKPOINT_INTERVAL_MS: u64 = 1_000;
/// A step that kills its workers must not circulate for ever: so many offers in a row that were not taken
/// spend its attempt as a lost lease does.
const UNTAKEN_MAX: u32 = 5;

/// Codes of failures after which nobody knows whether the attempt took effect; a worker reports the latter
/// two of a command that it ended or lost.
const UNKNOWN_OUTCOME: [&str; 3] = ["unknown_outcome", "timeout", "lost"];
/// Codes of failures that another attempt would only repeat.
const NEVER_RETRIED: [&str; 3] = ["invalid", "auth", "cancelled"];

/// One step in the light of one command.
struct About<'o> {
    operation: &'o Operation,
    id: &'o OperationId,
    given: &'o Given<'o>,
    position: usize,
    step: u32,
    grant: u64,
    run: &'o StepRun,
}

impl Operation {
    pub(crate) fn decide_step(
        &self,
        id: &OperationId,
        step: u32,
        grant: u64,
        wish: &StepWish,
        given: &Given<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let position = self.run.skeleton.position(step).ok_or(Rejection::UnknownStep(step))?;
        let run = &self.run.steps[position];
        let about = About { operation: self, id, given, position, step, grant, run };
        match wish {
            StepWish::Reserve { agent, incarnation, candidates } => {
                about.reserve(agent, *incarnation, candidates)
            }
            _ if grant != run.grant || grant == 0 => Err(Rejection::LeaseLost),
            StepWish::ExpireOffer { reason } => about.expire_offer(*reason),
            StepWish::Acknowledge => about.acknowledge(),
            StepWish::Progress { progress, note, usage } => {
                about.progress(*progress, note.as_deref(), usage.as_ref())
            }
            StepWish::Checkpoint(checkpoint) => about.checkpoint(checkpoint),
            StepWish::Complete { result, usage } => about.complete(result, usage.as_ref()),
            StepWish::Fail { error, retryable, retry_after_ms } => {
                about.fail(error, *retryable, retry_after_ms.unwrap_or(0))
            }
            StepWish::Release { reason, hold_ms } => about.release(reason, *hold_ms),
            StepWish::Limit { until, error, retryable } => about.limit(*until, error, *retryable),
            StepWish::LoseLease { reason } => about.lose_lease(*reason),
            StepWish::CloseLease { why } => Ok(about.close_lease(*why)),
            StepWish::TimeOut => about.time_out(),
        }
    }
}

impl About<'_> {
    fn reserve(
        &self,
        agent: &AgentId,
        incarnation: u64,
        candidates: &Candidates,
    ) -> Result<Vec<Event>, Rejection> {
        let now = self.given.now;
        // A reservation is repeated when its answer was not heard; another incarnation repeats nothing.
        let same = |holder: &Holder| holder.agent == *agent && self.run.incarnation == incarnation;
        let held = self.run.status.holder().is_some_and(same);
        if held && self.grant == self.run.grant && self.grant != 0 {
            return Ok(Vec::new());
        }
        let definition = self.definition();
        let run = &self.operation.run;
        let due = run.due_since(self.position, now).is_some();
        let kept = self.run.held_from.iter().any(|(other, until)| other == agent && *until > now);
        let closed = run.room() == 0 || definition.asks_a_person();
        if !due || kept || closed || self.grant != self.run.grant + 1 {
            return Err(Rejection::NotReady { step: self.step, status: self.run.status.name() });
        }
        let max = self.given.world.limits.max_result_bytes;
        let mut sight = Sight::new(self.id, self.operation);
        let inputs = match sight.inputs(&definition.inputs, max) {
            Ok(inputs) => inputs,
            Err(fault) => return Ok(self.fail_unperformed(fault)),
        };
        Ok(vec![Event::StepReserved(Box::new(StepReserved {
            step: self.step,
            grant: self.grant,
            lease_id: self.lease_id(),
            agent: agent.clone(),
            incarnation,
            attempt: self.run.attempts + 1,
            inputs,
            candidates: candidates.clone(),
            title: sight.title(definition),
        }))])
    }

    fn fail_unperformed(&self, fault: ExpressionError) -> Vec<Event> {
        let error = StepError { code: fault.code.into(), message: fault.message };
        let failed = self.failed_event(self.run.attempts, error.clone(), true);
        self.settlement(vec![failed]).failed(self.position, &error)
    }

    fn lease_id(&self) -> LeaseId {
        LeaseId { operation: self.id.clone(), step: self.step, grant: self.grant }
    }

    /// An offer that nobody took spends no attempt, unless it was one too many.
    fn expire_offer(&self, reason: LeaseEnd) -> Result<Vec<Event>, Rejection> {
        let holder = match &self.run.status {
            StepStatus::Reserved(holder) => holder,
            StepStatus::Ready => return Ok(Vec::new()),
            _ => return Err(Rejection::LeaseLost),
        };
        let (step, grant, agent) = (self.step, self.grant, holder.agent.clone());
        let expired = StepOfferExpired { step, grant, agent: agent.clone(), reason };
        let mut events = vec![Event::StepOfferExpired(expired)];
        if !reason.is_silence() || self.run.untaken + 1 < UNTAKEN_MAX {
            return Ok(events);
        }
        // Whoever is to write says so before it begins: nothing was done.
        let lost = StepLeaseLost { step, grant, attempt: holder.attempt, agent, reason };
        let error = lost.error();
        events.push(Event::StepLeaseLost(lost));
        self.follow_up(&mut events, &error, true, 0);
        Ok(self.settled_if_final(events, &error))
    }

    /// Frees the slot of a cancelled step. A repetition, and a lease that is not closing, change nothing.
    fn close_lease(&self, why: CloseReason) -> Vec<Event> {
        let closing = self.operation.run.closing.contains(self.position);
        let closed = LeaseClosed { lease_id: self.lease_id(), why };
        if closing { vec![Event::LeaseClosed(closed)] } else { Vec::new() }
    }

    fn acknowledge(&self) -> Result<Vec<Event>, Rejection> {
        self.require_held()?;
        Ok(self.start())
    }

    /// The event that begins the attempt now, unless it has begun.
    fn start(&self) -> Vec<Event> {
        self.started(|_| self.given.now)
    }

    /// The same at the end of the attempt: when it began was not said, so it counts from the reservation.
    fn start_at_the_end(&self) -> Vec<Event> {
        self.started(|holder| holder.since)
    }

    fn started(&self, began: impl FnOnce(&Holder) -> Timestamp) -> Vec<Event> {
        match &self.run.status {
            StepStatus::Reserved(holder) => vec![Event::StepStarted(StepStarted {
                step: self.step,
                grant: self.grant,
                attempt: holder.attempt,
                started_at: began(holder),
            })],
            _ => Vec::new(),
        }
    }

    fn progress(
        &self,
        progress: u8,
        note: Option<&str>,
        usage: Option<&Json>,
    ) -> Result<Vec<Event>, Rejection> {
        self.require_held()?;
        if let Some(usage) = usage {
            require_storable(Rejection::USAGE, usage, self.given.world.limits.max_checkpoint_bytes)?;
        }
        let mut events = self.start();
        let progress = progress.min(100);
        let moved = progress.abs_diff(self.run.progress) >= PROGRESS_STEP;
        let due = progress != self.run.progress && self.due(self.run.progressed_at, PROGRESS_INTERVAL_MS);
        if moved || due {
            let note = note.map(|note| texts::line(note, texts::NOTE_MAX));
            let (step, grant, usage) = (self.step, self.grant, usage.cloned());
            events.push(Event::StepProgressed(StepProgressed { step, grant, progress, note, usage }));
            let run = &self.operation.run;
            // A report may also fall; the whole then falls with it.
            let whole = run.progress_with(i64::from(progress) - i64::from(self.run.progress));
            if whole != run.progress() {
                events.push(Event::Progressed(Progressed { progress: whole }));
            }
        }
        Ok(events)
    }

    fn due(&self, last: Option<Timestamp>, interval_ms: u64) -> bool {
        last.is_none_or(|last| self.given.now.ms_since(last) >= interval_ms)
    }

    fn checkpoint(&self, checkpoint: &Json) -> Result<Vec<Event>, Rejection> {
        self.require_held()?;
        require_storable(Rejection::CHECKPOINT, checkpoint, self.given.world.limits.max_checkpoint_bytes)?;
        let mut events = self.start();
        if self.operation.checkpoints.get(&self.step) == Some(checkpoint) {
            return Ok(events);
        }
        // Success means that it is kept, so what is not kept cannot be called a success.
        if !self.due(self.run.checkpointed_at, CHECKPOINT_INTERVAL_MS) {
            return Err(Rejection::Early);
        }
        let (step, grant, checkpoint) = (self.step, self.grant, checkpoint.clone());
        events.push(Event::StepCheckpointed(StepCheckpointed { step, grant, checkpoint }));
        Ok(events)
    }

    fn complete(&self, result: &Json, usage: Option<&Json>) -> Result<Vec<Event>, Rejection> {
        if self.run.status == StepStatus::Completed && self.operation.results.get(&self.step) == Some(result)
        {
            return Ok(Vec::new());
        }
        self.require_open()?;
        self.operation.require_room(result, &self.given.world.limits)?;
        if let Some(usage) = usage {
            require_storable(Rejection::USAGE, usage, self.given.world.limits.max_checkpoint_bytes)?;
        }
        let (Some(agent), mut events) = (self.run.agent.clone(), self.start_at_the_end()) else {
            return Err(Rejection::LeaseLost);
        };
        // An offer that was not taken, or was given back, and is performed all the same: its beginning was
        // not heard of, and the attempt is the one it was offered as.
        let unheard = self.run.unspent == Some(self.grant);
        let began = match &self.run.status {
            StepStatus::Reserved(holder) => Some(holder.since),
            _ => self.run.started_at.filter(|_| !unheard),
        };
        events.push(Event::StepCompleted(StepCompleted {
            step: self.step,
            grant: self.grant,
            attempt: if unheard { self.run.attempts + 1 } else { self.attempt() },
            agent: Some(agent),
            result: result.clone(),
            usage: usage.cloned(),
            duration_ms: began.map_or(0, |began| self.given.now.ms_since(began)),
        }));
        Ok(self.settlement(events).completed(self.position, result))
    }

    fn fail(&self, error: &StepError, retryable: bool, retry_after_ms: u64) -> Result<Vec<Event>, Rejection> {
        let error = &error.kept();
        // A report may be repeated; the same words about another attempt are another report.
        let told = self.run.error_grant == self.grant && self.run.error.as_deref() == Some(error);
        if told && self.run.status.holder().is_none() && self.run.status != StepStatus::Cancelled {
            return Ok(Vec::new());
        }
        self.require_held()?;
        let mut events = self.start_at_the_end();
        if UNKNOWN_OUTCOME.contains(&error.code.as_str()) && self.definition().effect == EffectClass::Write {
            events.push(self.needs_attention(error.clone()));
            return Ok(events);
        }
        // What has happened once must not happen twice, although its result could not be stored.
        let happened = self.definition().effect == EffectClass::Write
            && Rejection::UNSTORABLE_CODES.contains(&error.code.as_str());
        let retryable = retryable && !happened && !NEVER_RETRIED.contains(&error.code.as_str());
        self.end_attempt(&mut events, error, retryable, retry_after_ms);
        Ok(self.settled_if_final(events, error))
    }

    /// A limit spends no attempt, unless the agent or the policy says that it is final.
    fn limit(&self, until: Timestamp, error: &StepError, retryable: bool) -> Result<Vec<Event>, Rejection> {
        if retryable && self.retry_policy().allows(0, &error.code) {
            if self.run.status == StepStatus::Ready {
                return Ok(Vec::new());
            }
            let agent = self.require_held()?.agent.clone();
            let until = until.min(self.given.now.plus_ms(WINDOW_MAX_MS));
            let (step, grant, error) = (self.step, self.grant, error.kept());
            return Ok(vec![Event::StepLimited(StepLimited { step, grant, agent, error, until })]);
        }
        self.fail(error, false, 0)
    }

    /// What was begun and may have taken effect is not simply offered to the next one.
    fn release(&self, reason: &str, hold_ms: Option<u64>) -> Result<Vec<Event>, Rejection> {
        if self.run.status == StepStatus::Ready {
            return Ok(Vec::new());
        }
        let holder = self.require_held()?;
        let begun = matches!(self.run.status, StepStatus::Running(_));
        if begun && self.definition().effect == EffectClass::Write {
            let error =
                StepError { code: "released".into(), message: texts::line(reason, texts::REASON_MAX) };
            return Ok(vec![self.needs_attention(error)]);
        }
        let hold_ms = hold_ms.unwrap_or(self.given.world.limits.release_hold_ms);
        let held_until = self.given.now.plus_ms(hold_ms);
        Ok(vec![Event::StepReleased(StepReleased {
            step: self.step,
            grant: self.grant,
            agent: holder.agent.clone(),
            reason: texts::line(reason, texts::REASON_MAX),
            held_until,
        })])
    }

    /// An offer that is lost spends no attempt; a running attempt does.
    fn lose_lease(&self, reason: LeaseEnd) -> Result<Vec<Event>, Rejection> {
        let holder = match &self.run.status {
            StepStatus::Reserved(_) => return self.expire_offer(reason),
            StepStatus::Running(holder) => holder,
            status if status.is_settled() => return self.already(),
            _ => return Ok(Vec::new()),
        };
        let lost = StepLeaseLost {
            step: self.step,
            grant: self.grant,
            attempt: holder.attempt,
            agent: holder.agent.clone(),
            reason,
        };
        let error = lost.error();
        let mut events = vec![Event::StepLeaseLost(lost)];
        if self.definition().effect == EffectClass::Write {
            events.push(self.needs_attention(error));
            return Ok(events);
        }
        self.follow_up(&mut events, &error, true, 0);
        Ok(self.settled_if_final(events, &error))
    }

    fn time_out(&self) -> Result<Vec<Event>, Rejection> {
        let StepStatus::Running(holder) = &self.run.status else { return Err(Rejection::LeaseLost) };
        let timeout_ms = self.definition().timeout_ms;
        if self.given.now.ms_since(holder.since) < timeout_ms {
            return Err(Rejection::Early);
        }
        let message = format!("the attempt took longer than its timeout of {timeout_ms} ms");
        let error = StepError { code: "timeout".into(), message };
        if self.definition().effect == EffectClass::Write {
            return Ok(vec![self.needs_attention(error)]);
        }
        let mut events = Vec::new();
        self.end_attempt(&mut events, &error, true, 0);
        Ok(self.settled_if_final(events, &error))
    }

    /// Whether the attempt took effect is not known, and another one could do it twice.
    fn needs_attention(&self, error: StepError) -> Event {
        let (step, grant, attempt) = (self.step, self.grant, self.attempt());
        Event::StepNeedsAttention(StepNeedsAttention { step, grant, attempt, error })
    }

    /// Says that the attempt failed, and what follows by the retry policy.
    fn end_attempt(&self, events: &mut Vec<Event>, error: &StepError, retryable: bool, after_ms: u64) {
        let retries = retryable && self.retry_policy().allows(self.attempt(), &error.code);
        events.push(self.failed_event(self.attempt(), error.clone(), !retries));
        if retries {
            self.schedule(events, error, after_ms);
        }
    }

    /// The same after a loss, which has said already that the attempt is over.
    fn follow_up(&self, events: &mut Vec<Event>, error: &StepError, retryable: bool, after_ms: u64) {
        if retryable && self.retry_policy().allows(self.attempt(), &error.code) {
            self.schedule(events, error, after_ms);
        } else {
            events.push(self.failed_event(self.attempt(), error.clone(), true));
        }
    }

    fn schedule(&self, events: &mut Vec<Event>, error: &StepError, after_ms: u64) {
        let seed = format!("{}/{}", self.id, self.step);
        let longest = crate::operation::retry::RetryPolicy::DELAY_MAX_MS;
        let delay_ms = self.retry_policy().delay_ms(self.attempt(), &seed).max(after_ms.min(longest));
        events.push(Event::StepRetryScheduled(StepRetryScheduled {
            step: self.step,
            attempt: self.attempt() + 1,
            at: self.given.now.plus_ms(delay_ms),
            delay_ms,
            reason: error.code.clone(),
        }));
    }

    fn settled_if_final(&self, events: Vec<Event>, error: &StepError) -> Vec<Event> {
        let settled =
            events.iter().any(|event| matches!(event, Event::StepFailed(failed) if failed.is_final));
        if settled { self.settlement(events).failed(self.position, error) } else { events }
    }

    fn failed_event(&self, attempt: u32, error: StepError, is_final: bool) -> Event {
        Event::StepFailed(StepFailed { step: self.step, grant: self.run.grant, attempt, error, is_final })
    }

    fn definition(&self) -> &StepDefinition {
        &self.operation.run.skeleton.steps[self.position]
    }

    fn settlement(&self, events: Vec<Event>) -> Settlement<'_> {
        Settlement::new(self.id, self.operation, self.given, events)
    }

    fn retry_policy(&self) -> &crate::operation::retry::RetryPolicy {
        &self.definition().retry
    }

    /// The attempt that the newest grant is, or was, for.
    fn attempt(&self) -> u32 {
        self.run.status.holder().map_or(self.run.attempts.max(1), |holder| holder.attempt)
    }

    fn require_held(&self) -> Result<&Holder, Rejection> {
        match self.run.status.holder() {
            Some(holder) => Ok(holder),
            None if self.run.status.is_settled() => self.already(),
            None => Err(Rejection::LeaseLost),
        }
    }

    /// A completion is welcome as long as the grant is the newest and the step is not settled.
    fn require_open(&self) -> Result<(), Rejection> {
        #[cfg(feature = "testing")]
        if crate::planted::SECOND_END.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        if self.run.status.is_settled() { self.already() } else { Ok(()) }
    }

    fn already<T>(&self) -> Result<T, Rejection> {
        Err(Rejection::AlreadyTerminal { status: self.run.status.name() })
    }
}

impl Operation {
    /// Refuses a result for which there is no room.
    pub(crate) fn require_room(&self, result: &Json, limits: &Limits) -> Result<(), Rejection> {
        require_storable(Rejection::RESULT, result, limits.max_result_bytes)?;
        let all = self.results_bytes + result.len();
        if all > limits.max_results_bytes {
            let what = "the operation's results together";
            return Err(Rejection::TooLarge { what, bytes: all, max: limits.max_results_bytes });
        }
        Ok(())
    }
}

/// Refuses a value that cannot be stored.
fn require_storable(what: &'static str, value: &Json, max: usize) -> Result<(), Rejection> {
    if let Some(why) = value.unstorable() {
        return Err(Rejection::Unstorable { what, why });
    }
    let bytes = value.len();
    if bytes > max { Err(Rejection::TooLarge { what, bytes, max }) } else { Ok(()) }
}
