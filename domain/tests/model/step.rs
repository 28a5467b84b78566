//! A deliberately simple model of one step: its states, and what each wish and each word makes of it.

use std::collections::BTreeMap;

use domain::Timestamp;

use super::course::Answer;
pub(crate) use super::words::{End, Failure, Kind, Why, Wish, Word};

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

/// A step that was given to an agent.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) agent: usize,
    /// The life of the agent that claimed it.
    pub(crate) life: u64,
    pub(crate) at: Timestamp,
    /// The first end counts.
    pub(crate) end: Option<End>,
    /// Whether the agent's member was told of the end.
    pub(crate) told: bool,
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
    pub(crate) grants: BTreeMap<u64, Grant>,
    /// It was cancelled while an agent had it, whose slot is not free yet.
    pub(crate) closing: bool,
    /// Offers in a row that nobody took.
    untaken: u32,
    /// The newest grant ended without spending an attempt.
    unspent: bool,
    /// When the newest attempt began, as far as that is known.
    pub(crate) began: Option<Timestamp>,
    progressed_at: Option<Timestamp>,
    /// The code of the last failure.
    error: Option<&'static str>,
    /// The grant that it was of.
    error_grant: u64,
    kept_from: Vec<(usize, Timestamp)>,
    /// Until when its agent's provider takes no calls, as it said when it was last given back.
    limited: Option<Timestamp>,
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
            closing: false,
            untaken: 0,
            unspent: false,
            began: None,
            progressed_at: None,
            error: None,
            error_grant: 0,
            kept_from: Vec::new(),
            limited: None,
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
    pub(crate) fn is_kept_from_the_wanted(&self, now: Timestamp) -> bool {
        let kept = self.kept_from.iter().any(|(agent, until)| Some(*agent) == self.wanted && *until > now);
        kept || (self.limited.is_some_and(|until| until > now) && self.wanted.is_some())
    }

    /// The newest grant is over in this way, unless it was before.
    fn ends(&mut self, how: End) {
        if let Some(grant) = self.grants.get_mut(&self.grant) {
            grant.end = grant.end.or(Some(how));
        }
    }

    /// When the newest grant was given.
    fn reserved_at(&self) -> Timestamp {
        self.grants[&self.grant].at
    }

    pub(crate) fn cancel(&mut self) {
        self.closing = self.state.holder().is_some();
        self.state = State::Cancelled;
    }

    fn close(&mut self) -> Answer {
        if !self.closing {
            return Answer::Nothing;
        }
        self.closing = false;
        self.ends(End::Nothing);
        Answer::Changes
    }

    pub(crate) fn wish(&mut self, wish: &Wish, timeout_ms: u64, hold_ms: u64, now: Timestamp) -> Answer {
        match wish {
            Wish::Acknowledge => self.begin(now),
            Wish::Progress(percent) => self.report(*percent, now),
            Wish::Complete(result) => self.complete(*result, now),
            Wish::Fail(failure) => self.fail(*failure, now),
            Wish::Release { reset_ms: None } => self.release(now.plus_ms(hold_ms), now),
            Wish::Release { reset_ms: Some(ms) } => self.limit(now.plus_ms(*ms)),
            Wish::Lose(why) => self.lose(*why, now),
            Wish::ExpireOffer(why) => self.expire_offer(*why, now),
            Wish::Close => self.close(),
            Wish::TimeOut => self.time_out(timeout_ms, now),
            Wish::Reserve { .. } => Answer::Refused,
        }
    }

    pub(crate) fn reserve(
        &mut self,
        (agent, life): (usize, u64),
        grant: u64,
        closed: bool,
        now: Timestamp,
    ) -> Answer {
        let given = self.grants.get(&grant).filter(|_| grant == self.grant && self.state.holder().is_some());
        if given.is_some_and(|given| (given.agent, given.life) == (agent, life)) {
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
        (self.state, self.unspent) = (State::Offered { agent }, false);
        self.grants.insert(grant, Grant { agent, life, at: now, end: None, told: false });
        Answer::Changes
    }

    /// The attempt begins then, unless it has begun.
    fn begin(&mut self, at: Timestamp) -> Answer {
        match self.state {
            State::Offered { agent } => {
                self.spent += 1;
                (self.untaken, self.began) = (0, Some(at));
                self.state = State::Running { agent, since: at };
                Answer::Changes
            }
            State::Running { .. } => Answer::Nothing,
            _ => Answer::Refused,
        }
    }

    /// Recorded when it moved by ten percent, or when it moved at all and the last record is 5 s old.
    fn report(&mut self, percent: u8, now: Timestamp) -> Answer {
        let begun = self.begin(now);
        let old = self.progressed_at.is_none_or(|at| now.ms_since(at) >= 5_000);
        let moved = percent.abs_diff(self.progress);
        if begun != Answer::Refused && (moved >= 10 || (moved > 0 && old)) {
            (self.progress, self.progressed_at) = (percent, Some(now));
            return Answer::Changes;
        }
        begun
    }

    fn complete(&mut self, result: u32, now: Timestamp) -> Answer {
        if self.state == (State::Completed { result }) {
            return Answer::Nothing;
        }
        if self.state.is_settled() {
            return Answer::Refused;
        }
        // Nobody said when it began: it counts from the reservation.
        if self.state.holder().is_some() {
            self.begin(self.reserved_at());
        }
        if let State::Running { since, .. } = self.state {
            self.ends(End::Completed { ms: now.ms_since(since) });
        }
        // Late, and of an attempt whose beginning was not heard of: it was made all the same.
        self.spent += u32::from(std::mem::take(&mut self.unspent));
        self.completed(result)
    }

    fn completed(&mut self, result: u32) -> Answer {
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
        self.begin(self.reserved_at());
        self.ends(if failure == Failure::Invalid { End::Excused } else { End::Failed });
        let again = matches!(failure, Failure::Flaky | Failure::Unknown);
        self.end_attempt(failure.code(), again, failure == Failure::Unknown, now)
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
            self.ends(End::Excused);
            return self.end_attempt("released", true, true, now);
        }
        let (agent, limited) = (self.state.holder(), self.limited);
        let answer = self.limit(until);
        if answer == Answer::Changes {
            self.limited = limited;
            self.kept_from.extend(agent.map(|agent| (agent, until)));
        }
        answer
    }

    /// Given back because of its agent's provider: it is kept from nobody by that.
    fn limit(&mut self, until: Timestamp) -> Answer {
        match self.state {
            State::Ready => return Answer::Nothing,
            State::Offered { .. } => {}
            State::Running { .. } => self.spent -= 1,
            _ => return Answer::Refused,
        }
        (self.limited, self.untaken, self.unspent) = (Some(until), 0, true);
        self.ends(End::Nothing);
        self.state = State::Ready;
        Answer::Changes
    }

    fn lose(&mut self, why: Why, now: Timestamp) -> Answer {
        match self.state {
            State::Offered { .. } => self.expire_offer(why, now),
            State::Running { .. } => {
                self.ends(if why == Why::Revoked { End::Nothing } else { End::Lost });
                self.end_attempt("lease_lost", true, true, now)
            }
            state if state.is_settled() => Answer::Refused,
            _ => Answer::Nothing,
        }
    }

    /// The fifth in a row that nobody took spends the attempt. Nothing was done, so that a write is no
    /// question to anybody.
    fn expire_offer(&mut self, why: Why, now: Timestamp) -> Answer {
        match self.state {
            State::Offered { .. } => {
                let silent = matches!(why, Why::Ignored | Why::Silent);
                self.ends(if silent { End::Untaken } else { End::Nothing });
                self.untaken += u32::from(silent);
                if self.untaken == 5 {
                    (self.untaken, self.began) = (0, None);
                    self.spent += 1;
                    return self.end_attempt("lease_lost", true, false, now);
                }
                (self.state, self.unspent) = (State::Ready, true);
                Answer::Changes
            }
            State::Ready => Answer::Nothing,
            _ => Answer::Refused,
        }
    }

    fn time_out(&mut self, timeout_ms: u64, now: Timestamp) -> Answer {
        match self.state {
            State::Running { since, .. } if now.ms_since(since) >= timeout_ms => {
                self.ends(End::Excused);
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
            Word::Retry => self.state == State::Ready && self.kept_from.is_empty() && self.limited.is_none(),
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
                self.limited = None;
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
