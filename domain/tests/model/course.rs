//! A deliberately simple model of an operation: what must become of it, by the rules of the design alone.
//! It keeps no sets, folds no events and evaluates no expressions; what it says is compared with the product.

use domain::Timestamp;

/// What a wish must be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Something changes.
    Changes,
    /// It is done already, or changes nothing.
    Nothing,
    Refused,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Ready,
    Offered { agent: usize },
    Running { agent: usize, since: Timestamp },
    Waiting { until: Timestamp },
    Completed { result: u32 },
    Failed,
    SkippedByCondition,
    SkippedAfterFailure,
    Cancelled,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Offered { .. } => "reserved",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "backing_off",
            Self::Completed { .. } => "completed",
            Self::Failed => "failed",
            Self::SkippedByCondition | Self::SkippedAfterFailure => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn holder(self) -> Option<usize> {
        match self {
            Self::Offered { agent } | Self::Running { agent, .. } => Some(agent),
            _ => None,
        }
    }

    pub(crate) fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Ready | Self::Waiting { .. }) && self.holder().is_none()
    }
}

/// What can be asked about a step.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Reserve(usize),
    Acknowledge,
    Progress(u8),
    Complete(u32),
    Fail { retryable: bool },
    Release,
    Lose,
    ExpireOffer,
    TimeOut,
}

/// What can be asked of the whole operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whole {
    Start,
    Cancel,
    ExpireDeadline,
}

/// A step, as asked for and as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Positions of those before it.
    pub(crate) before: Vec<usize>,
    pub(crate) excused: bool,
    /// Its condition is false.
    pub(crate) skips: bool,
    pub(crate) most_attempts: u32,
    pub(crate) state: State,
    pub(crate) grant: u64,
    /// Attempts begun, apart from those given back.
    pub(crate) spent: u32,
    pub(crate) progress: u8,
    progressed_at: Option<Timestamp>,
    /// The code of the last failure.
    error: Option<&'static str>,
    kept_from: Vec<(usize, Timestamp)>,
}

impl Step {
    pub(crate) fn of(before: Vec<usize>, excused: bool, skips: bool, most_attempts: u32) -> Self {
        Self {
            before,
            excused,
            skips,
            most_attempts,
            state: State::Pending,
            grant: 0,
            spent: 0,
            progress: 0,
            progressed_at: None,
            error: None,
            kept_from: Vec::new(),
        }
    }

    fn satisfies(&self) -> bool {
        match self.state {
            State::Completed { .. } | State::SkippedByCondition => true,
            State::Failed => self.excused,
            _ => false,
        }
    }
}

/// The operation.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) steps: Vec<Step>,
    pub(crate) status: &'static str,
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

    /// What an open step waits for.
    pub(crate) fn cause(&self, at: usize) -> Option<&'static str> {
        Some(match self.steps[at].state {
            State::Pending if self.status == "pending" && self.steps[at].before.is_empty() => "start",
            State::Pending => "dependencies",
            State::Ready => "agent",
            State::Offered { .. } => "acknowledgement",
            State::Running { .. } => "report",
            State::Waiting { .. } => "retry",
            _ => return None,
        })
    }

    pub(crate) fn whole(&mut self, whole: Whole, now: Timestamp) -> Answer {
        match whole {
            Whole::Start if self.status != "pending" => return Answer::Refused,
            Whole::Start => {
                self.status = "in_progress";
                self.go_on();
            }
            Whole::Cancel if self.status == "cancelled" => return Answer::Nothing,
            Whole::ExpireDeadline if now < self.deadline => return Answer::Refused,
            _ if self.is_over() => return Answer::Refused,
            Whole::Cancel => self.end("cancelled"),
            Whole::ExpireDeadline => self.end("failed"),
        }
        Answer::Changes
    }

    fn end(&mut self, status: &'static str) {
        for step in self.steps.iter_mut().filter(|step| !step.state.is_settled()) {
            step.state = State::Cancelled;
        }
        self.status = status;
    }

    /// Lets everything follow that follows: again and again, until nothing more does.
    fn go_on(&mut self) {
        let broken = |step: &Step| step.state == State::Failed && !step.excused;
        if self.fail_fast && self.steps.iter().any(broken) {
            return self.end("failed");
        }
        let all = self.steps.len();
        for at in (0..all).flat_map(|_| 0..all) {
            let before: Vec<&Step> = self.steps[at].before.iter().map(|at| &self.steps[*at]).collect();
            let spoiled = |step: &&Step| broken(step) || step.state == State::SkippedAfterFailure;
            let (lost, due) = (before.iter().any(spoiled), before.iter().all(|step| step.satisfies()));
            let step = &mut self.steps[at];
            step.state = match step.state {
                State::Pending if lost => State::SkippedAfterFailure,
                State::Pending if due && step.skips => State::SkippedByCondition,
                State::Pending if due => State::Ready,
                state => state,
            };
        }
        if self.steps.iter().all(|step| step.state.is_settled()) {
            self.status = if self.steps.iter().any(broken) { "failed" } else { "completed" };
        }
    }

    /// A wish about a step under a grant.
    pub(crate) fn wish(&mut self, at: usize, grant: u64, wish: &Wish, now: Timestamp) -> Answer {
        let full = self.is_full();
        let (timeout_ms, hold_ms) = (self.timeout_ms, self.release_hold_ms);
        let step = &mut self.steps[at];
        if let Wish::Reserve(agent) = wish {
            return step.reserve(*agent, grant, full, now);
        }
        if grant != step.grant || grant == 0 {
            return Answer::Refused;
        }
        let answer = match wish {
            Wish::Acknowledge => step.acknowledge(now),
            Wish::Progress(percent) => step.report(*percent, now),
            Wish::Complete(result) => step.complete(*result),
            Wish::Fail { retryable } => step.fail(*retryable, now),
            Wish::Release => step.release(now.plus_ms(hold_ms)),
            Wish::Lose => step.lose(now),
            Wish::ExpireOffer => step.expire_offer(),
            Wish::TimeOut => step.time_out(timeout_ms, now),
            Wish::Reserve(_) => Answer::Refused,
        };
        if answer == Answer::Changes && self.steps[at].state.is_settled() {
            self.go_on();
        }
        answer
    }
}

impl Step {
    fn reserve(&mut self, agent: usize, grant: u64, full: bool, now: Timestamp) -> Answer {
        if self.state.holder() == Some(agent) && grant == self.grant {
            return Answer::Nothing;
        }
        let due = match self.state {
            State::Ready => true,
            State::Waiting { until } => until <= now,
            _ => false,
        };
        let kept = self.kept_from.iter().any(|(other, until)| *other == agent && *until > now);
        if !due || full || kept || grant != self.grant + 1 {
            return Answer::Refused;
        }
        (self.grant, self.progress, self.progressed_at) = (grant, 0, None);
        self.state = State::Offered { agent };
        Answer::Changes
    }

    fn acknowledge(&mut self, now: Timestamp) -> Answer {
        match self.state {
            State::Offered { agent } => {
                self.spent += 1;
                self.state = State::Running { agent, since: now };
                Answer::Changes
            }
            State::Running { .. } => Answer::Nothing,
            _ => Answer::Refused,
        }
    }

    /// Recorded when it moved by ten percent, or when it moved at all and the last record is 5 s old.
    fn report(&mut self, percent: u8, now: Timestamp) -> Answer {
        let begun = self.acknowledge(now);
        let old = self.progressed_at.is_none_or(|at| now.ms_since(at) >= 5_000);
        let moved = percent.abs_diff(self.progress);
        if begun != Answer::Refused && (moved >= 10 || (moved > 0 && old)) {
            (self.progress, self.progressed_at) = (percent, Some(now));
            return Answer::Changes;
        }
        begun
    }

    fn complete(&mut self, result: u32) -> Answer {
        if self.state == (State::Completed { result }) {
            return Answer::Nothing;
        }
        if self.state.is_settled() {
            return Answer::Refused;
        }
        // Late, and of an attempt whose beginning was not heard of: it was made all the same.
        self.spent += u32::from(matches!(self.state, State::Offered { .. } | State::Ready));
        self.error = None;
        self.state = State::Completed { result };
        Answer::Changes
    }

    fn fail(&mut self, retryable: bool, now: Timestamp) -> Answer {
        let code = if retryable { "flaky" } else { "broken" };
        if self.state.holder().is_none() {
            return if self.error == Some(code) { Answer::Nothing } else { Answer::Refused };
        }
        self.acknowledge(now);
        self.end_attempt(code, retryable, now)
    }

    fn end_attempt(&mut self, code: &'static str, retryable: bool, now: Timestamp) -> Answer {
        self.error = Some(code);
        let delay_ms = (1_000 << (self.spent - 1)).min(60_000);
        let again = retryable && self.spent < self.most_attempts;
        self.state = if again { State::Waiting { until: now.plus_ms(delay_ms) } } else { State::Failed };
        Answer::Changes
    }

    fn release(&mut self, until: Timestamp) -> Answer {
        match self.state {
            State::Ready => return Answer::Nothing,
            State::Offered { agent } => self.kept_from.push((agent, until)),
            State::Running { agent, .. } => {
                self.spent -= 1;
                self.kept_from.push((agent, until));
            }
            _ => return Answer::Refused,
        }
        self.state = State::Ready;
        Answer::Changes
    }

    fn lose(&mut self, now: Timestamp) -> Answer {
        match self.state {
            State::Offered { .. } => self.expire_offer(),
            State::Running { .. } => self.end_attempt("lease_lost", true, now),
            state if state.is_settled() => Answer::Refused,
            _ => Answer::Nothing,
        }
    }

    fn expire_offer(&mut self) -> Answer {
        match self.state {
            State::Offered { .. } => {
                self.state = State::Ready;
                Answer::Changes
            }
            State::Ready => Answer::Nothing,
            _ => Answer::Refused,
        }
    }

    fn time_out(&mut self, timeout_ms: u64, now: Timestamp) -> Answer {
        match self.state {
            State::Running { since, .. } if now.ms_since(since) >= timeout_ms => {
                self.end_attempt("timeout", true, now)
            }
            _ => Answer::Refused,
        }
    }
}
