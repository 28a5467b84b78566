//! Laws of an operation over random workflows and random histories, with time moving.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bincode::Options;
use domain::operation::event::{Event, Resolution, SkipReason};
use domain::operation::pending::{BlockedOn, Effect};
use domain::operation::step::StepStatus;
use domain::operation::{Command, Operation, Status};
use domain::{Aggregate, LeaseId, Timestamp, fold};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::Flow;
use support::random::{Move, moves, workflows};

/// How a step ended, kept by the test from the events alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Satisfies,
    Blocks,
}

#[derive(Default)]
struct Ends {
    steps: BTreeMap<u32, End>,
    over: bool,
    /// The grant of each step that an agent has.
    held: BTreeMap<u32, u64>,
    /// Leases of cancelled steps that keep their slots.
    closing: BTreeSet<LeaseId>,
}

impl Ends {
    fn settle(&mut self, step: u32, end: End) {
        assert_eq!(self.steps.insert(step, end), None, "step {step} ends twice");
    }

    /// Watches one append: each event in turn, against what the test knows.
    fn watch(&mut self, flow: &Flow, events: &[Event]) {
        let closes = |event: &Event| matches!(event, Event::LeaseClosed(_));
        assert!(!self.over || events.iter().all(closes), "something after the end: {events:?}");
        for event in events {
            let follows = closes(event) || matches!(event, Event::StepsCancelled(_));
            assert!(!self.over || follows, "{event:?} after the end");
            self.watch_lease(event);
            let excused = |step| flow.operation().run.skeleton.steps[flow.position(step)].continue_on_error;
            match event {
                Event::StepReserved(reserved) => self.must_be_open(flow, reserved.step),
                Event::StepApprovalRequested(asked) => self.must_be_open(flow, asked.step),
                Event::StepStarted(started) => self.must_be_open(flow, started.step),
                Event::StepCompleted(completed) => self.settle(completed.step, End::Satisfies),
                Event::StepFailed(failed) if failed.is_final => {
                    let end = if excused(failed.step) { End::Satisfies } else { End::Blocks };
                    self.settle(failed.step, end);
                }
                Event::StepsSkipped(skipped) => {
                    let satisfies = skipped.reason != SkipReason::UpstreamFailed;
                    let end = if satisfies { End::Satisfies } else { End::Blocks };
                    skipped.steps.iter().for_each(|step| self.settle(*step, end));
                }
                Event::StepsCancelled(cancelled) => {
                    cancelled.steps.iter().for_each(|step| self.settle(*step, End::Blocks));
                }
                Event::Completed | Event::Failed(_) | Event::Cancelled(_) => self.over = true,
                _ => {}
            }
        }
    }

    /// What is cancelled while an agent has it keeps its slot until that is closed, which happens once.
    fn watch_lease(&mut self, event: &Event) {
        match event {
            Event::StepReserved(reserved) => {
                assert_eq!(self.held.insert(reserved.step, reserved.grant), None, "{event:?}: it is held");
            }
            Event::StepsCancelled(cancelled) => {
                let held = |step: &u32| Some((*step, self.held.remove(step)?));
                let held: Vec<(u32, u64)> = cancelled.steps.iter().filter_map(held).collect();
                let named = cancelled.closing.iter().map(|lease| (lease.step, lease.grant));
                assert_eq!(named.collect::<Vec<_>>(), held, "{event:?}");
                self.closing.extend(cancelled.closing.iter().cloned());
            }
            Event::LeaseClosed(closed) => assert!(self.closing.remove(&closed.lease_id), "{event:?}"),
            Event::StepStarted(_) | Event::StepProgressed(_) | Event::StepCheckpointed(_) => {
                assert!(event.step().is_some_and(|step| self.held.contains_key(&step)), "{event:?}");
            }
            event => _ = event.step().and_then(|step| self.held.remove(&step)),
        }
    }

    /// A step that is offered or begun has all its dependencies behind it, and its own end before it.
    fn must_be_open(&self, flow: &Flow, step: u32) {
        assert!(!self.steps.contains_key(&step), "step {step} has ended");
        for dependency in &flow.operation().run.skeleton.steps[flow.position(step)].dependencies {
            assert_eq!(self.steps.get(dependency), Some(&End::Satisfies), "{step} before {dependency}");
        }
    }
}

fn check_state(flow: &Flow) {
    let operation = flow.operation();
    let (run, pending) = (&operation.run, operation.pending());
    let open = run.steps.iter().filter(|step| !step.status.is_settled()).count();
    assert_eq!(run.settled + open, run.steps.len());
    assert_eq!(operation.status().is_terminal(), open == 0, "{:?}", flow.statuses());
    let points: usize = run.steps.iter().map(|step| usize::from(step.progress)).sum();
    assert_eq!(usize::from(run.progress()), points / run.steps.len());
    assert!(run.progress() <= 100);
    if operation.status() == Status::Completed {
        assert_eq!(run.progress(), 100);
    }
    let attention = run.steps.iter().filter(|step| step.status == StepStatus::NeedsAttention).count();
    let offered = if run.paused { 0 } else { run.ready.len() };
    let asked = run.with_people.len() - attention;
    assert_eq!(pending.len(), offered + run.held.len() + run.backing_off.len() + asked);
    let whole = operation.results.values().map(domain::Json::len).sum::<usize>();
    assert_eq!(operation.results_bytes, whole);
    let now = flow.scenario.now;
    for (position, step) in run.steps.iter().enumerate() {
        let number = run.skeleton.steps[position].step;
        let cause = run.blocked_on(position, now);
        assert_eq!(cause.is_none(), step.status.is_settled(), "step {number} waits for nothing");
        if operation.status() == Status::InProgress {
            assert_ne!(cause, Some(BlockedOn::Start));
            assert_ne!(cause, Some(BlockedOn::Dependencies(vec![])), "step {number} waits for nothing");
        }
        let owed = pending.iter().any(|effect| match (effect, &step.status) {
            (Effect::Offer { step }, StepStatus::Ready)
            | (Effect::AwaitTaker { step, .. }, StepStatus::Reserved(_))
            | (Effect::Watch { step, .. }, StepStatus::Running(_))
            | (Effect::Retry { step, .. }, StepStatus::BackingOff { .. })
            | (Effect::AwaitAnswer { step, .. }, StepStatus::AwaitingApproval { .. }) => *step == number,
            _ => false,
        });
        let waits_for_somebody_else = match step.status {
            StepStatus::Pending | StepStatus::NeedsAttention => true,
            StepStatus::Ready => run.paused,
            _ => false,
        };
        assert_eq!(owed, !step.status.is_settled() && !waits_for_somebody_else);
        let asked_again = flow.scenario.history.iter().filter(|(event, _)| {
            let Event::StepResolved(resolved) = event else { return false };
            resolved.step == number && resolved.resolution == Resolution::Retry
        });
        let most = run.skeleton.steps[position].retry.max_attempts.max(1) as usize + asked_again.count();
        assert!(step.attempts as usize <= most);
        if let Some(cause) = &cause {
            let causes = run.causes(now);
            assert!(causes.contains(&cause.cause()), "{cause:?} is not among {causes:?}");
        }
        let asks_a_person = run.skeleton.steps[position].asks_a_person();
        assert!(!(asks_a_person && step.status == StepStatus::Ready && !run.paused), "nobody was asked");
    }
    if let Some(most) = operation.definition.max_parallel {
        assert!(run.held.len() <= most as usize);
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &T) {
    let codec = bincode::DefaultOptions::new();
    let bytes = codec.serialize(body).unwrap();
    assert_eq!(&codec.deserialize::<T>(&bytes).unwrap(), body);
}

fn check_stored(event: &Event) {
    match event {
        Event::Created(body) => survives(body),
        Event::Started | Event::Completed => {}
        Event::Updated(body) => survives(body),
        Event::Cancelled(body) => survives(body),
        Event::Progressed(body) => survives(body),
        Event::Failed(body) => survives(body),
        Event::StepReserved(body) => survives(body),
        Event::StepOfferExpired(body) => survives(body),
        Event::StepReleased(body) => survives(body),
        Event::StepStarted(body) => survives(body),
        Event::StepProgressed(body) => survives(body),
        Event::StepCheckpointed(body) => survives(body),
        Event::StepCompleted(body) => survives(body),
        Event::StepFailed(body) => survives(body),
        Event::StepRetryScheduled(body) => survives(body),
        Event::StepLeaseLost(body) => survives(body),
        Event::StepsSkipped(body) => survives(body),
        Event::StepsCancelled(body) => survives(body),
        Event::Paused(body) => survives(body),
        Event::Resumed(body) => survives(body),
        Event::StepApprovalRequested(body) => survives(body),
        Event::StepApproved(body) | Event::StepRejected(body) => survives(body),
        Event::StepNeedsAttention(body) => survives(body),
        Event::StepResolved(body) => survives(body),
        Event::StepLimited(body) => survives(body),
        Event::LeaseClosed(body) => survives(body),
    }
}

/// Puts one command, and once more.
fn put(flow: &mut Flow, ends: &mut Ends, command: &Command) {
    let before = flow.operation().run.progress();
    let foreseen = flow.scenario.ask(command);
    let answer = flow.put(command);
    assert_eq!(answer, foreseen, "a decision depends on nothing but state, command and time");
    match answer {
        Ok(events) => {
            ends.watch(flow, &events);
            let again = flow.scenario.ask(command);
            assert!(!matches!(&again, Ok(more) if !more.is_empty()), "{command:?} again: {again:?}");
            let said = events.iter().rev().find_map(|event| match event {
                Event::Progressed(whole) => Some(whole.progress),
                _ => None,
            });
            // A new grant begins at nothing, which the next report or settlement will say.
            let begins = events.iter().any(|event| matches!(event, Event::StepReserved(_)));
            let after = flow.operation().run.progress();
            if !flow.operation().status().is_terminal() && !begins {
                assert_eq!(said.unwrap_or(before), after, "{events:?}");
            }
            events.iter().for_each(check_stored);
            assert_eq!(flow.operation().run.held.len(), ends.held.len());
            assert_eq!(flow.operation().run.closing.len(), ends.closing.len());
            assert_eq!(flow.operation().run.is_over(), ends.over && ends.closing.is_empty());
        }
        Err(refused) => assert_eq!(flow.scenario.ask(command), Err(refused)),
    }
    check_state(flow);
}

fn refolded<'e>(history: impl IntoIterator<Item = &'e (Event, Timestamp)>) -> Option<Operation> {
    fold::<Operation>(history.into_iter().map(|(event, at)| (event, *at)))
}

fn same(one: &Operation, other: &Operation) {
    assert_eq!(one.run, other.run);
    assert_eq!(one.pending(), other.pending());
    assert_eq!((&one.results, one.results_bytes), (&other.results, other.results_bytes));
    assert_eq!((&one.inputs, &one.checkpoints), (&other.inputs, &other.checkpoints));
    assert_eq!((&one.definition, &one.asked), (&other.definition, &other.asked));
    assert_eq!((&one.errors, &one.status_reason), (&other.errors, &other.status_reason));
    assert_eq!((one.started_at, one.completed_at), (other.started_at, other.completed_at));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_laws(
        asked in workflows(),
        moves in proptest::collection::vec(moves(), 1..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut flow = Flow::of(asked);
        let mut ends = Ends::default();
        let first: Vec<Event> = flow.scenario.history.iter().map(|(event, _)| event.clone()).collect();
        ends.watch(&flow, &first);
        check_state(&flow);
        for next in &moves {
            if let Move::Wait(ms) = next {
                flow.wait(*ms);
            }
            if let Some(command) = next.command(&flow) {
                put(&mut flow, &mut ends, &command);
            }
        }
        let history = &flow.scenario.history;
        let cut = cut.index(history.len() + 1);
        let prefix = refolded(&history[..cut]);
        let rest = history[cut..].iter();
        let rest = rest.fold(prefix, |state, (event, at)| Operation::evolve(state, event, *at));
        same(flow.operation(), &rest.unwrap());
        same(flow.operation(), &refolded(history).unwrap());
    }

    #[test]
    fn every_workflow_ends_when_its_agents_mean_well(asked in workflows()) {
        let mut flow = Flow::of(asked);
        let mut ends = Ends::default();
        let first: Vec<Event> = flow.scenario.history.iter().map(|(event, _)| event.clone()).collect();
        ends.watch(&flow, &first);
        if flow.operation().status() == Status::Pending {
            put(&mut flow, &mut ends, &Command::Start);
        }
        // Nine steps in turn, three stages each: in a row, and never the right one, they take 243.
        for round in 0..300 {
            let next = Move::Advance(round, support::agent("ada"));
            let command = next.command(&flow).unwrap();
            if !flow.operation().status().is_terminal() {
                put(&mut flow, &mut ends, &command);
            }
        }
        prop_assert!(flow.operation().status().is_terminal(), "{:?}", flow.statuses());
    }
}
