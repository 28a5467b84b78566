//! A deliberately simple model of one step: its states, and what each wish and each word makes of it.

use std::collections::BTreeMap;

use domain::Timestamp;
use domain::agent::event::Outcome;

use super::course::Answer;

/// What a person's yes yields; no agent reports so much.
const APPROVED: u32 = u32::MAX;

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Ready,
    Offered { agent: usize },
    Running { agent: usize, since: Timestamp },
    Waiting { until: Timestamp },
    Asked { until: Timestamp },
    Attention,
    Completed { result: u32 },
    Failed,
    SkippedByCondition,
    SkippedByWord,
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
            Self::Asked { .. } => "awaiting_approval",
            Self::Attention => "needs_attention",
            Self::Completed { .. } => "completed",
            Self::Failed => "failed",
            Self::SkippedByCondition | Self::SkippedByWord | Self::SkippedAfterFailure => "skipped",
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
        let waits = matches!(self, Self::Pending | Self::Ready | Self::Waiting { .. });
        let with_people = matches!(self, Self::Asked { .. } | Self::Attention);
        !waits && !with_people && self.holder().is_none()
    }
}

/// How an attempt fails by its agent's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another attempt may help.
    Flaky,
    /// None does.
    Broken,
    /// Nobody knows whether it took effect.
    Unknown,
}

impl Failure {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Flaky => "flaky",
            Self::Broken => "broken",
            Self::Unknown => "unknown_outcome",
        }
    }
}

/// What can be asked about a step.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Reserve(usize),
    Acknowledge,
    Progress(u8),
    Complete(u32),
    Fail(Failure),
    /// Given back; the provider may have said when it takes calls again.
    Release {
        reset_ms: Option<u64>,
    },
    /// The lease is over, because its agent was silent or because somebody took it back.
    Lose {
        silent: bool,
    },
    ExpireOffer,
    TimeOut,
}

/// What a person can say of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Approve,
    Reject,
    Retry,
    Skip,
    Complete(u32),
    Fail,
}

/// What the step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// It must not happen twice.
    Write,
    /// A person's yes.
    Human,
}

/// A step, as asked for and as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    /// The one agent that it asks for.
    pub(crate) wanted: Option<usize>,
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
    /// How often a person wished another attempt.
    pub(crate) retried: u32,
    pub(crate) progress: u8,
    /// Who got each grant, and how it ended.
    pub(crate) grants: BTreeMap<u64, (usize, Outcome)>,
    progressed_at: Option<Timestamp>,
    /// The code of the last failure.
    error: Option<&'static str>,
    /// The grant that it was of.
    error_grant: u64,
    kept_from: Vec<(usize, Timestamp)>,
    /// Its agent's provider took no calls when it was last given back.
    limited: bool,
}

impl Step {
    pub(crate) fn of(kind: Kind, before: Vec<usize>, most_attempts: u32) -> Self {
        Self {
            kind,
            wanted: None,
            before,
            excused: false,
            skips: false,
            most_attempts,
            state: State::Pending,
            grant: 0,
            spent: 0,
            retried: 0,
            progress: 0,
            grants: BTreeMap::new(),
            progressed_at: None,
            error: None,
            error_grant: 0,
            kept_from: Vec::new(),
            limited: false,
        }
    }

    pub(crate) fn is_human(&self) -> bool {
        self.kind == Kind::Human
    }

    pub(crate) fn satisfies(&self) -> bool {
        match self.state {
            State::Completed { .. } | State::SkippedByCondition | State::SkippedByWord => true,
            State::Failed => self.excused,
            _ => false,
        }
    }

    /// Whether the agent that it asks for gave it back or is limited, and nobody has undone that.
    pub(crate) fn is_kept_from_the_wanted(&self) -> bool {
        let kept = self.kept_from.iter().any(|(agent, _)| Some(*agent) == self.wanted);
        kept || (self.limited && self.wanted.is_some())
    }

    /// The newest grant is over, in this way.
    fn ends(&mut self, how: Outcome) {
        if let Some((_, end)) = self.grants.get_mut(&self.grant) {
            *end = how;
        }
    }

    pub(crate) fn cancel(&mut self) {
        if self.state.holder().is_some() {
            self.ends(Outcome::Cancelled);
        }
        self.state = State::Cancelled;
    }

    pub(crate) fn wish(&mut self, wish: &Wish, timeout_ms: u64, hold_ms: u64, now: Timestamp) -> Answer {
        match wish {
            Wish::Acknowledge => self.acknowledge(now),
            Wish::Progress(percent) => self.report(*percent, now),
            Wish::Complete(result) => self.complete(*result),
            Wish::Fail(failure) => self.fail(*failure, now),
            Wish::Release { reset_ms: None } => self.release(now.plus_ms(hold_ms), now),
            Wish::Release { reset_ms: Some(_) } => self.limit(),
            Wish::Lose { silent } => self.lose(*silent, now),
            Wish::ExpireOffer => self.expire_offer(Outcome::Untaken),
            Wish::TimeOut => self.time_out(timeout_ms, now),
            Wish::Reserve(_) => Answer::Refused,
        }
    }

    pub(crate) fn reserve(&mut self, agent: usize, grant: u64, closed: bool, now: Timestamp) -> Answer {
        if self.state.holder() == Some(agent) && grant == self.grant {
            return Answer::Nothing;
        }
        let due = match self.state {
            State::Ready => !self.is_human(),
            State::Waiting { until } => until <= now,
            _ => false,
        };
        let kept = self.kept_from.iter().any(|(other, until)| *other == agent && *until > now);
        if !due || closed || kept || grant != self.grant + 1 {
            return Answer::Refused;
        }
        (self.grant, self.progress, self.progressed_at) = (grant, 0, None);
        self.state = State::Offered { agent };
        // Until it is known how it ends.
        self.grants.insert(grant, (agent, Outcome::Cancelled));
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
        let how = self.grants.get(&self.grant).map(|(_, how)| *how);
        let unspent = matches!(how, Some(Outcome::Untaken | Outcome::Returned));
        self.spent += u32::from(unspent || matches!(self.state, State::Offered { .. }));
        self.completed(result)
    }

    fn completed(&mut self, result: u32) -> Answer {
        self.ends(Outcome::Completed);
        self.error = None;
        self.state = State::Completed { result };
        Answer::Changes
    }

    fn fail(&mut self, failure: Failure, now: Timestamp) -> Answer {
        if self.state.holder().is_none() {
            // Only the same words about the same attempt are a repetition.
            let told = self.error == Some(failure.code()) && self.error_grant == self.grant;
            return if told && self.state != State::Cancelled { Answer::Nothing } else { Answer::Refused };
        }
        self.acknowledge(now);
        self.ends(Outcome::Failed);
        self.end_attempt(failure.code(), failure != Failure::Broken, failure == Failure::Unknown, now)
    }

    fn end_attempt(&mut self, code: &'static str, again: bool, unknown: bool, now: Timestamp) -> Answer {
        (self.error, self.error_grant) = (Some(code), self.grant);
        let delay_ms = (1_000 << (self.spent - 1).min(6)).min(60_000);
        self.state = if unknown && self.kind == Kind::Write {
            State::Attention
        } else if again && self.spent < self.most_attempts {
            State::Waiting { until: now.plus_ms(delay_ms) }
        } else {
            State::Failed
        };
        Answer::Changes
    }

    fn release(&mut self, until: Timestamp, now: Timestamp) -> Answer {
        if self.kind == Kind::Write && matches!(self.state, State::Running { .. }) {
            self.ends(Outcome::Failed);
            return self.end_attempt("released", true, true, now);
        }
        let (agent, limited) = (self.state.holder(), self.limited);
        let answer = self.limit();
        if answer == Answer::Changes {
            self.limited = limited;
            self.kept_from.extend(agent.map(|agent| (agent, until)));
        }
        answer
    }

    /// Given back because of its agent's provider: it is kept from nobody by that.
    fn limit(&mut self) -> Answer {
        match self.state {
            State::Ready => return Answer::Nothing,
            State::Offered { .. } => {}
            State::Running { .. } => self.spent -= 1,
            _ => return Answer::Refused,
        }
        self.limited = true;
        self.ends(Outcome::Returned);
        self.state = State::Ready;
        Answer::Changes
    }

    fn lose(&mut self, silent: bool, now: Timestamp) -> Answer {
        match self.state {
            State::Offered { .. } => {
                self.expire_offer(if silent { Outcome::Untaken } else { Outcome::Returned })
            }
            State::Running { .. } => {
                self.ends(Outcome::Lost);
                self.end_attempt("lease_lost", true, true, now)
            }
            state if state.is_settled() => Answer::Refused,
            _ => Answer::Nothing,
        }
    }

    fn expire_offer(&mut self, how: Outcome) -> Answer {
        match self.state {
            State::Offered { .. } => {
                self.ends(how);
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
                self.ends(Outcome::Failed);
                self.end_attempt("timeout", true, true, now)
            }
            _ => Answer::Refused,
        }
    }

    /// A person's word; `open` while the operation is under way.
    pub(crate) fn say(&mut self, word: Word, open: bool) -> Answer {
        let failed_with = |code| self.state == State::Failed && self.error == Some(code);
        let stands = match word {
            Word::Approve => self.is_human() && matches!(self.state, State::Completed { .. }),
            Word::Reject => self.is_human() && failed_with("rejected"),
            Word::Fail => failed_with("declared_failed"),
            Word::Skip => self.state == State::SkippedByWord,
            Word::Complete(result) => self.state == State::Completed { result },
            Word::Retry => self.state == State::Ready && self.kept_from.is_empty() && !self.limited,
        };
        if stands {
            return Answer::Nothing;
        }
        match (word, self.state) {
            (Word::Approve, State::Asked { .. }) => return self.completed(APPROVED),
            (Word::Complete(result), State::Attention) => return self.completed(result),
            (Word::Reject, State::Asked { .. }) => self.fail_by_word("rejected"),
            (Word::Fail, State::Attention) => self.fail_by_word("declared_failed"),
            (Word::Retry, State::Attention | State::Waiting { .. } | State::Ready) => {
                self.retried += 1;
                self.kept_from.clear();
                self.limited = false;
                self.state = State::Ready;
            }
            (Word::Skip, state) if open && !state.is_settled() && state.holder().is_none() => {
                self.state = State::SkippedByWord;
            }
            _ => return Answer::Refused,
        }
        Answer::Changes
    }

    fn fail_by_word(&mut self, code: &'static str) {
        self.ends(Outcome::Failed);
        (self.error, self.error_grant, self.state) = (Some(code), self.grant, State::Failed);
    }

    /// Nobody answered.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Answer {
        match self.state {
            State::Asked { until } if until <= now => {
                self.fail_by_word("expired");
                Answer::Changes
            }
            _ => Answer::Refused,
        }
    }
}
