//! A deliberately simple model of an operation: what must become of it, by the rules of the design alone.
//! It keeps no sets, folds no events and evaluates no expressions; what it says is compared with the product.

use domain::Timestamp;

use super::step::{State, Step, Wish, Word};

/// What a wish must be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Something changes.
    Changes,
    /// It is done already, or changes nothing.
    Nothing,
    Refused,
}

/// What can be asked of the whole operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whole {
    Start,
    Pause,
    Resume,
    Cancel,
    ExpireDeadline,
}

/// The operation.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) steps: Vec<Step>,
    pub(crate) status: &'static str,
    pub(crate) paused: bool,
    pub(crate) fail_fast: bool,
    pub(crate) max_parallel: Option<u32>,
    pub(crate) deadline: Timestamp,
    pub(crate) timeout_ms: u64,
    pub(crate) release_hold_ms: u64,
}

impl Course {
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.status, "pending" | "in_progress")
    }

    pub(crate) fn progress(&self) -> u8 {
        let done = |step: &Step| if step.state.is_settled() { 100 } else { u32::from(step.progress) };
        let whole: u32 = self.steps.iter().map(done).sum();
        u8::try_from(whole / u32::try_from(self.steps.len()).unwrap()).unwrap()
    }

    pub(crate) fn is_full(&self) -> bool {
        let held = self.steps.iter().filter(|step| step.state.holder().is_some()).count();
        self.max_parallel.is_some_and(|most| held >= most as usize)
    }

    /// What an open step waits for now.
    pub(crate) fn cause(&self, at: usize, now: Timestamp) -> Option<&'static str> {
        let step = &self.steps[at];
        Some(match step.state {
            State::Pending if self.status == "pending" && step.before.is_empty() => "start",
            State::Pending => "dependencies",
            State::Waiting { until } if until > now => "retry",
            State::Ready | State::Waiting { .. } if self.paused => "resume",
            State::Ready | State::Waiting { .. } if self.is_full() => "room",
            State::Ready | State::Waiting { .. } if step.is_kept_from_the_wanted(now) => "window",
            State::Ready | State::Waiting { .. } => "agent",
            State::Offered { .. } => "acknowledgement",
            State::Running { .. } => "report",
            State::Asked { .. } => "approval",
            State::Attention => "attention",
            _ => return None,
        })
    }

    pub(crate) fn whole(&mut self, whole: Whole, now: Timestamp) -> Answer {
        match whole {
            Whole::Start if self.status != "pending" => return Answer::Refused,
            Whole::Start => {
                self.status = "in_progress";
                self.go_on(now);
            }
            Whole::Cancel if self.status == "cancelled" => return Answer::Nothing,
            Whole::ExpireDeadline if now < self.deadline => return Answer::Refused,
            _ if self.is_over() => return Answer::Refused,
            Whole::Cancel => self.end("cancelled"),
            Whole::ExpireDeadline => self.end("failed"),
            Whole::Pause if self.paused => return Answer::Nothing,
            Whole::Resume if !self.paused => return Answer::Nothing,
            Whole::Pause => self.paused = true,
            Whole::Resume => {
                self.paused = false;
                self.go_on(now);
            }
        }
        Answer::Changes
    }

    fn end(&mut self, status: &'static str) {
        self.steps.iter_mut().filter(|step| !step.state.is_settled()).for_each(Step::cancel);
        self.status = status;
    }

    /// Lets everything follow that follows: again and again, until nothing more does.
    fn go_on(&mut self, now: Timestamp) {
        let broken = |step: &Step| step.state == State::Failed && !step.excused;
        if self.status != "in_progress" {
            return;
        }
        if self.fail_fast && self.steps.iter().any(broken) {
            return self.end("failed");
        }
        let all = self.steps.len();
        let until = now.plus_ms(self.timeout_ms);
        for at in (0..=all).flat_map(|_| 0..all) {
            let before: Vec<&Step> = self.steps[at].before.iter().map(|at| &self.steps[*at]).collect();
            let spoiled = |step: &&Step| broken(step) || step.state == State::SkippedAfterFailure;
            let (lost, due) = (before.iter().any(spoiled), before.iter().all(|step| step.satisfies()));
            let step = &mut self.steps[at];
            step.state = match step.state {
                State::Pending if lost => State::SkippedAfterFailure,
                State::Pending if due && step.skips => State::SkippedByCondition,
                State::Pending if due => State::Ready,
                State::Ready if step.is_human() && !self.paused => State::Asked { until },
                state => state,
            };
        }
        if self.steps.iter().all(|step| step.state.is_settled()) {
            self.status = if self.steps.iter().any(broken) { "failed" } else { "completed" };
        }
    }

    /// A wish about a step under a grant.
    pub(crate) fn wish(&mut self, at: usize, grant: u64, wish: &Wish, now: Timestamp) -> Answer {
        let closed = self.is_full() || self.paused;
        let (timeout_ms, hold_ms) = (self.timeout_ms, self.release_hold_ms);
        let step = &mut self.steps[at];
        let answer = match wish {
            Wish::Reserve { agent, life } => step.reserve((*agent, *life), grant, closed, now),
            _ if grant != step.grant || grant == 0 => Answer::Refused,
            _ => step.wish(wish, timeout_ms, hold_ms, now),
        };
        self.followed(at, answer, now)
    }

    /// A person's word about a step.
    pub(crate) fn say(&mut self, at: usize, word: Word, now: Timestamp) -> Answer {
        let answer = self.steps[at].say(word, self.status == "in_progress");
        self.followed(at, answer, now)
    }

    /// The time for an answer is over, if it is.
    pub(crate) fn expire(&mut self, at: usize, now: Timestamp) -> Answer {
        let answer = self.steps[at].expire(now);
        self.followed(at, answer, now)
    }

    fn followed(&mut self, at: usize, answer: Answer, now: Timestamp) -> Answer {
        if answer == Answer::Changes && self.steps[at].state.is_settled() {
            self.go_on(now);
        }
        answer
    }
}
