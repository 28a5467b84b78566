//! What holds of the events of one operation, whoever decided them: nothing of this looks at a state, of
//! the product or of the model.

use std::collections::{BTreeMap, BTreeSet};

use domain::LeaseId;
use domain::operation::Event;
use domain::operation::event::Resolution;

use super::step::{Kind, Step};

#[derive(Debug)]
struct One {
    kind: Kind,
    most_attempts: u32,
    asked: usize,
    ends: usize,
    /// Another attempt could make it happen twice.
    unknown: bool,
    retries: u32,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    steps: BTreeMap<u32, One>,
    paused: bool,
    over: usize,
    /// Leases of cancelled steps whose slots are not free yet.
    closing: BTreeSet<LeaseId>,
}

impl Told {
    pub(crate) fn of(steps: impl Iterator<Item = (u32, Step)>) -> Self {
        let one = |(number, step): (u32, Step)| {
            let Step { kind, most_attempts, .. } = step;
            (number, One { kind, most_attempts, asked: 0, ends: 0, unknown: false, retries: 0 })
        };
        Self { steps: steps.map(one).collect(), ..Self::default() }
    }

    /// One append.
    #[track_caller]
    pub(crate) fn take(&mut self, events: &[Event]) {
        let closes = |event: &Event| matches!(event, Event::LeaseClosed(_));
        assert!(self.over == 0 || events.iter().all(closes), "{events:?} after the end");
        for (at, event) in events.iter().enumerate() {
            if let Event::StepApproved(approved) = event {
                let next = events.get(at + 1);
                assert!(matches!(next, Some(Event::StepCompleted(done)) if done.step == approved.step));
            }
            match event {
                Event::Paused(_) => assert!(!std::mem::replace(&mut self.paused, true)),
                Event::Resumed(_) => assert!(std::mem::replace(&mut self.paused, false)),
                Event::Completed | Event::Failed(_) | Event::Cancelled(_) => self.over += 1,
                Event::StepsSkipped(skipped) => self.end(&skipped.steps),
                Event::StepsCancelled(cancelled) => {
                    self.end(&cancelled.steps);
                    self.closing.extend(cancelled.closing.iter().cloned());
                }
                Event::LeaseClosed(closed) => assert!(self.closing.remove(&closed.lease_id), "{event:?}"),
                event => self.take_step(event, at.checked_sub(1).map(|before| &events[before])),
            }
            assert!(self.over <= 1, "the operation ends twice");
        }
    }

    #[track_caller]
    fn take_step(&mut self, event: &Event, before: Option<&Event>) {
        let paused = self.paused;
        let Some(one) = event.step().and_then(|step| self.steps.get_mut(&step)) else { return };
        let most = one.most_attempts + one.retries;
        match event {
            Event::StepReserved(reserved) => {
                assert!(!paused, "{event:?} while paused");
                assert!(one.kind != Kind::Human, "{event:?}: a person's step");
                assert!(!one.unknown, "{event:?}: it may have happened");
                assert!((1..=most).contains(&reserved.attempt), "{event:?}: {most} attempts are allowed");
            }
            Event::StepApprovalRequested(_) => {
                one.asked += 1;
                assert!(one.kind == Kind::Human && one.asked == 1 && !paused, "{event:?}: {one:?}");
            }
            Event::StepApproved(_) | Event::StepRejected(_) => assert_eq!(one.asked, 1, "{event:?}"),
            // What expires as an offer was not begun.
            Event::StepLeaseLost(lost) => {
                let offered = |event: &&Event| match event {
                    Event::StepOfferExpired(expired) => expired.grant == lost.grant,
                    _ => false,
                };
                one.unknown = one.kind == Kind::Write && before.filter(offered).is_none();
            }
            Event::StepNeedsAttention(_) => {
                assert!(one.kind == Kind::Write && one.ends == 0, "{event:?}: {one:?}");
                one.unknown = true;
            }
            Event::StepRetryScheduled(_) => assert!(!one.unknown, "{event:?}: it may have happened"),
            Event::StepResolved(resolved) if resolved.resolution == Resolution::Retry => {
                (one.unknown, one.retries) = (false, one.retries + 1);
            }
            Event::StepFailed(failed) => {
                let unknown = ["timeout", "unknown_outcome"].contains(&failed.error.code.as_str());
                assert!(!unknown || one.kind != Kind::Write, "{event:?}: it may have happened");
            }
            Event::StepCompleted(done) => {
                assert!(done.attempt <= most, "{event:?}: {most} attempts are allowed");
                assert_eq!(done.attempt == 0, one.kind == Kind::Human, "{event:?}");
            }
            _ => {}
        }
        let is_end = matches!(event, Event::StepCompleted(_))
            || matches!(event, Event::StepFailed(failed) if failed.is_final);
        if let Some(step) = event.step().filter(|_| is_end) {
            self.end(&[step]);
        }
    }

    #[track_caller]
    fn end(&mut self, steps: &[u32]) {
        for step in steps {
            let one = self.steps.get_mut(step).unwrap();
            one.ends += 1;
            assert_eq!(one.ends, 1, "step {step} ends twice");
        }
    }

    /// Every step has exactly one end once the operation has.
    pub(crate) fn must_be_whole(&self) {
        let ended = self.steps.values().all(|one| one.ends == 1);
        assert!(self.over == 0 || ended, "{:?}", self.steps);
    }
}
