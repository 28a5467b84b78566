//! Owns a log that lies: it wraps another one and rolls dice for each append, or follows a script.
//! Must never change what the inner log keeps, except by not passing an append on.
//!
//! Two dice are apart, as in life: *did it happen* and *did the caller hear*. Only faults that the contract
//! permits are played, so a caller that survives this log survives every log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, future};
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::log::{Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, ReadError, Since};
use crate::record::Recorded;
use crate::stream::{Position, StreamId, Version};

/// What befalls one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It happens and the caller hears.
    None,
    /// It happens, but the caller hears [`AppendError::OutcomeUnknown`].
    LostAnswer,
    /// It does not happen, and the caller hears [`AppendError::OutcomeUnknown`].
    LostAppend,
    /// It does not happen, and the caller hears [`AppendError::Overloaded`].
    Overloaded,
    /// It does not happen, and the caller hears [`AppendError::Conflict`] with this version.
    Conflict(Version),
    /// It happens at once, but the caller hears only after so many milliseconds.
    LateAnswer {
        /// Milliseconds of tokio's clock, which a test may pause.
        delay_ms: u64,
    },
}

/// How likely each fault is, in thousandths of all appends; what remains goes well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    /// Per mille of [`Fault::LostAnswer`].
    pub lost_answer: u32,
    /// Per mille of [`Fault::LostAppend`].
    pub lost_append: u32,
    /// Per mille of [`Fault::Overloaded`].
    pub overloaded: u32,
    /// Per mille of [`Fault::LateAnswer`], each late by 1 to `delay_max_ms` milliseconds.
    pub late_answer: u32,
    /// The longest delay, in milliseconds.
    pub delay_max_ms: u64,
}

/// A log that lies. Reads are always honest: a fault there is a matter of [`ReadError`] alone.
pub struct FaultyLog<L: ?Sized> {
    fate: Mutex<Fate>,
    inner: Arc<L>,
}

struct Fate {
    script: VecDeque<Fault>,
    odds: Odds,
    dice: Dice,
}

impl<L: EventLog + ?Sized> FaultyLog<L> {
    /// Rolls dice for each append. The same seed and the same appends meet the same faults.
    #[must_use]
    pub fn seeded(inner: Arc<L>, seed: u64, odds: Odds) -> Self {
        Self { fate: Mutex::new(Fate { script: VecDeque::new(), odds, dice: Dice(seed) }), inner }
    }

    /// Plays one fault an append, in order, and none after the last.
    #[must_use]
    pub fn scripted(inner: Arc<L>, script: impl IntoIterator<Item = Fault>) -> Self {
        let log = Self::seeded(inner, 0, Odds::default());
        log.then(script);
        log
    }

    /// Adds to the script; scripted faults come before dice.
    pub fn then(&self, script: impl IntoIterator<Item = Fault>) {
        self.fate.lock().script.extend(script);
    }

    /// The honest log inside.
    #[must_use]
    pub fn inner(&self) -> &Arc<L> {
        &self.inner
    }
}

impl Fate {
    fn next(&mut self) -> Fault {
        if let Some(fault) = self.script.pop_front() {
            return fault;
        }
        let Odds { lost_answer, lost_append, overloaded, late_answer, delay_max_ms } = self.odds;
        let mut roll = self.dice.below(1000);
        for (share, fault) in [
            (lost_answer, Fault::LostAnswer),
            (lost_append, Fault::LostAppend),
            (overloaded, Fault::Overloaded),
            (late_answer, Fault::LateAnswer { delay_ms: 1 + self.dice.below(delay_max_ms.max(1)) }),
        ] {
            match roll.checked_sub(u64::from(share)) {
                Some(rest) => roll = rest,
                None => return fault,
            }
        }
        Fault::None
    }
}

impl<L: EventLog + ?Sized> EventLog for FaultyLog<L> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        let fault = self.fate.lock().next();
        match fault {
            Fault::None => self.inner.append(append),
            Fault::LostAnswer => {
                let happened = self.inner.append(append);
                happened.map(|_| Err(AppendError::OutcomeUnknown)).boxed()
            }
            Fault::LostAppend => future::ready(Err(AppendError::OutcomeUnknown)).boxed(),
            Fault::Overloaded => future::ready(Err(AppendError::Overloaded)).boxed(),
            Fault::Conflict(actual) => future::ready(Err(AppendError::Conflict { actual })).boxed(),
            Fault::LateAnswer { delay_ms } => {
                let happened = self.inner.append(append);
                let heard = async move {
                    let answer = happened.await;
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                    answer
                };
                heard.boxed()
            }
        }
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.inner.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.inner.tail(after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.inner.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.inner.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{append, events_of, stream};
    use crate::log::Expected;
    use crate::memory_log::MemoryLog;

    #[tokio::test]
    async fn whether_it_happened_and_whether_the_caller_heard_are_two_things() {
        let script =
            [Fault::LostAnswer, Fault::LostAppend, Fault::Overloaded, Fault::Conflict(Version::new(9))];
        let log = FaultyLog::scripted(Arc::new(MemoryLog::new()), script);
        let mut answers = Vec::new();
        for n in 0..5 {
            answers
                .push(log.append(append(&stream("a"), Expected::Any, n, 1)).await.map(|head| head.version));
        }
        let expected = [
            Err(AppendError::OutcomeUnknown),
            Err(AppendError::OutcomeUnknown),
            Err(AppendError::Overloaded),
            Err(AppendError::Conflict { actual: Version::new(9) }),
            Ok(Version::new(2)),
        ];
        assert_eq!(answers, expected);
        assert_eq!(events_of(&log, &stream("a")).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_late_although_the_events_are_there() {
        let log = FaultyLog::scripted(Arc::new(MemoryLog::new()), [Fault::LateAnswer { delay_ms: 1000 }]);
        let late = log.append(append(&stream("a"), Expected::Any, 0, 1));
        assert_eq!(events_of(&log, &stream("a")).await.len(), 1);
        let begun = tokio::time::Instant::now();
        late.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn the_same_seed_meets_the_same_faults() {
        async fn answers(seed: u64) -> Vec<bool> {
            let odds = Odds { lost_answer: 200, lost_append: 200, overloaded: 200, ..Odds::default() };
            let log = FaultyLog::seeded(Arc::new(MemoryLog::new()), seed, odds);
            let mut heard = Vec::new();
            for n in 0..100 {
                heard.push(log.append(append(&stream("a"), Expected::Any, n, 1)).await.is_ok());
            }
            heard
        }
        assert_eq!(answers(7).await, answers(7).await);
        assert_ne!(answers(7).await, answers(8).await);
        let well = answers(7).await.into_iter().filter(|heard| *heard).count();
        assert!((20..60).contains(&well), "{well} of 100 went well");
    }
}
