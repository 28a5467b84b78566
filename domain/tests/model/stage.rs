//! The product and the model side by side: each action is put to both, twice to the product, and both must
//! give the same answer and stand at the same place.

use domain::agent::event::{Outcome, Status};
use domain::agent::{self, Agent, Effect};
use domain::operation::definition::{Definition, FailurePolicy};
use domain::operation::pending::Effect as Owed;
use domain::operation::step::StepStatus;
use domain::operation::{Command, StepWish};
use domain::scenario::Scenario;
use domain::{Aggregate, Json, LeaseId, Timestamp, fold};
use serde_json::json;

use super::course::{Answer, Course, State, Step, Whole, Wish};
use super::member::{self, Member};
use super::support::crew::{profile, register};
use super::support::{self, Flow, definition, operation_id, step, world};

const NAMES: [&str; 3] = ["ada", "bob", "eve"];
const DEADLINE_MS: u64 = 300_000;
const TIMEOUT_MS: u64 = 60_000;

pub(crate) struct Stage {
    flow: Flow,
    agents: Vec<Scenario<Agent>>,
    course: Course,
    crew: Vec<Member>,
}

/// The number of the step at a position.
fn number(at: usize) -> u32 {
    (at as u32 + 1) * 10
}

fn lease((step, grant): member::Lease) -> LeaseId {
    LeaseId { operation: operation_id(), step, grant }
}

fn answer<E, R>(outcome: &Result<Vec<E>, R>) -> Answer {
    match outcome {
        Ok(events) if events.is_empty() => Answer::Nothing,
        Ok(_) => Answer::Changes,
        Err(_) => Answer::Refused,
    }
}

fn asked(workflow: &[Step], fail_fast: bool, max_parallel: Option<u32>, deadline: Timestamp) -> Definition {
    let steps = workflow.iter().enumerate().map(|(at, one)| {
        let before: Vec<u32> = one.before.iter().map(|at| number(*at)).collect();
        let mut step = step(number(at), &before);
        step.when = one.skips.then(|| "false".into());
        step.continue_on_error = one.excused;
        step.retry.max_attempts = one.most_attempts;
        step.timeout_ms = TIMEOUT_MS;
        step
    });
    Definition {
        failure_policy: if fail_fast { FailurePolicy::FailFast } else { FailurePolicy::Continue },
        max_parallel,
        auto_start: false,
        deadline: Some(deadline),
        ..definition(steps.collect())
    }
}

impl Stage {
    pub(crate) fn of(
        workflow: Vec<Step>,
        fail_fast: bool,
        max_parallel: Option<u32>,
        slots: &[usize],
    ) -> Self {
        let mut flow = Flow::new();
        let deadline = flow.scenario.now.plus_ms(DEADLINE_MS);
        let asked = asked(&workflow, fail_fast, max_parallel, deadline);
        flow.put(&Command::Create(Box::new(asked))).unwrap();
        let agents = NAMES.iter().zip(slots).map(|(name, slots)| {
            let mut agent = Scenario::new(support::agent(name), world());
            agent.when(&register(profile(*slots as u32, &[]))).unwrap();
            agent
        });
        let course = Course {
            steps: workflow,
            status: "pending",
            fail_fast,
            max_parallel,
            deadline,
            timeout_ms: TIMEOUT_MS,
            release_hold_ms: flow.scenario.world.limits.release_hold_ms,
        };
        Self {
            agents: agents.collect(),
            flow,
            course,
            crew: slots.iter().map(|slots| Member::of(*slots)).collect(),
        }
    }

    fn now(&self) -> Timestamp {
        self.flow.scenario.now
    }

    fn place(&self, step: usize) -> usize {
        step % self.course.steps.len()
    }

    /// Puts a command to the operation, which must answer as the model did. Again, it changes nothing.
    #[track_caller]
    fn put(&mut self, command: &Command, wanted: Answer) {
        let outcome = self.flow.put(command);
        assert_eq!(answer(&outcome), wanted, "{command:?}: {outcome:?}");
        let again = answer(&self.flow.scenario.ask(command));
        assert_ne!(again, Answer::Changes, "{command:?} again");
        assert!(wanted != Answer::Refused || again == Answer::Refused, "{command:?} again is taken");
    }

    /// The same for an agent. A registration is a new life each time it comes.
    #[track_caller]
    fn put_to(&mut self, agent: usize, command: &agent::Command, wanted: Answer) {
        self.agents[agent].now = self.now();
        let outcome = self.agents[agent].when(command);
        assert_eq!(answer(&outcome), wanted, "{}: {command:?}: {outcome:?}", NAMES[agent]);
        let again = answer(&self.agents[agent].ask(command));
        let registers = matches!(command, agent::Command::Register { .. });
        assert!(registers || again != Answer::Changes, "{command:?} again");
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.flow.wait(ms);
    }

    pub(crate) fn whole(&mut self, whole: Whole) {
        let command = match whole {
            Whole::Start => Command::Start,
            Whole::Cancel => Command::Cancel { by: "ops".into() },
            Whole::ExpireDeadline => Command::ExpireDeadline,
        };
        let wanted = self.course.whole(whole, self.now());
        self.put(&command, wanted);
    }

    pub(crate) fn agent(&mut self, agent: usize, wish: member::Wish) {
        let status = |status, reason: &str| agent::Command::SetStatus { status, reason: reason.into() };
        let command = match wish {
            member::Wish::Register => register(profile(self.crew[agent].slots as u32, &[])),
            member::Wish::Unregister => agent::Command::Unregister,
            member::Wish::Drain => status(Status::Inactive, "drained"),
            member::Wish::Activate => status(Status::Active, "back"),
            member::Wish::TimeOut => agent::Command::TimeOut { silent_ms: 30_000 },
        };
        let wanted = self.crew[agent].wish(wish);
        self.put_to(agent, &command, wanted);
    }

    /// The first half of a claim: a slot for the step's next grant. None without one.
    pub(crate) fn take_slot(&mut self, step: usize, agent: usize) -> Option<u64> {
        let at = self.place(step);
        let grant = self.course.steps[at].grant + 1;
        let wanted = self.crew[agent].reserve((number(at), grant));
        self.put_to(agent, &agent::Command::Reserve { lease: lease((number(at), grant)) }, wanted);
        (wanted != Answer::Refused).then_some(grant)
    }

    pub(crate) fn advance(&mut self, step: usize, agent: usize) {
        let at = self.place(step);
        match self.course.steps[at].state {
            State::Offered { .. } => self.report(step, 0, &Wish::Acknowledge),
            State::Running { .. } => self.report(step, 0, &Wish::Complete(1)),
            _ if self.course.status == "pending" => self.whole(Whole::Start),
            _ => {
                if let Some(grant) = self.take_slot(step, agent) {
                    self.report_under(at, grant, &Wish::Reserve(agent));
                }
            }
        }
    }

    pub(crate) fn report(&mut self, step: usize, back: u64, wish: &Wish) {
        let at = self.place(step);
        // What has no slot is not offered.
        if !matches!(wish, Wish::Reserve(_)) || self.has_slot(at, back, wish) {
            self.report_under(at, self.course.steps[at].grant.saturating_sub(back), wish);
        }
    }

    fn has_slot(&self, at: usize, back: u64, wish: &Wish) -> bool {
        let grant = self.course.steps[at].grant.saturating_sub(back);
        matches!(wish, Wish::Reserve(agent) if self.crew[*agent].leases.contains_key(&(number(at), grant)))
    }

    fn report_under(&mut self, at: usize, grant: u64, wish: &Wish) {
        let wanted = self.course.wish(at, grant, wish, self.now());
        self.put(&Command::Step { step: number(at), grant, wish: said(wish) }, wanted);
    }

    /// What the shell does for an agent: tells the operation of lost leases, and frees slots of ended ones.
    pub(crate) fn settle(&mut self, agent: usize) {
        self.agents[agent].now = self.now();
        let owed = self.agents[agent].state.as_ref().unwrap().pending();
        assert_eq!(owed.len(), self.crew[agent].leases.len(), "each slot is owed its end");
        for effect in owed {
            let (of, lost) = match effect {
                Effect::Settle { lease } => (lease, false),
                Effect::Lose { lease, .. } => (lease, true),
            };
            let (name, at) = ((of.step, of.grant), self.flow.position(of.step));
            assert_eq!(lost, self.crew[agent].has_lost(name), "{of}");
            let held = self.course.steps[at].grant == of.grant
                && self.course.steps[at].state.holder() == Some(agent);
            if held && lost {
                self.report_under(at, of.grant, &Wish::Lose);
            } else if !held {
                let wanted = self.crew[agent].release(name);
                let outcome = Outcome::Cancelled;
                self.put_to(agent, &agent::Command::Release { lease: lease(name), outcome }, wanted);
            }
        }
    }

    pub(crate) fn restart(&mut self) {
        let history = &self.flow.scenario.history;
        let again = fold(history.iter().map(|(event, at)| (event, *at)));
        let before = self.flow.scenario.state.replace(again.unwrap()).unwrap();
        assert_eq!(before.pending(), self.flow.operation().pending());
        for agent in &mut self.agents {
            let again = fold(agent.history.iter().map(|(event, at)| (event, *at)));
            let before = std::mem::replace(&mut agent.state, again).unwrap();
            assert_eq!(before.pending(), agent.state.as_ref().unwrap().pending());
        }
    }

    #[track_caller]
    pub(crate) fn must_agree(&self) {
        let operation = self.flow.operation();
        assert_eq!(operation.status().name(), self.course.status, "{:?}", self.course);
        for (at, (is, wanted)) in operation.run.steps.iter().zip(&self.course.steps).enumerate() {
            let what = || format!("step {}: {is:?}, not {wanted:?}", number(at));
            assert_eq!(is.status.name(), wanted.state.name(), "{}", what());
            assert_eq!((is.grant, is.attempts), (wanted.grant, wanted.spent), "{}", what());
            assert!(wanted.spent <= wanted.most_attempts, "{}", what());
            let holder = is.status.holder().map(|holder| holder.agent.as_str());
            assert_eq!(holder, wanted.state.holder().map(|agent| NAMES[agent]), "{}", what());
            if let (StepStatus::BackingOff { at, .. }, State::Waiting { until }) = (&is.status, wanted.state)
            {
                assert_eq!(*at, until, "{}", what());
            }
            let cause = operation.run.blocked_on(at).map(|cause| cause.name());
            assert_eq!(cause, self.course.cause(at), "{}", what());
        }
        assert_eq!(operation.run.progress(), self.course.progress());
        for (agent, member) in self.agents.iter().zip(&self.crew) {
            let state = agent.state.as_ref().unwrap();
            let leases: Vec<_> = state.assignments.keys().map(|lease| (lease.step, lease.grant)).collect();
            assert_eq!(leases, member.leases.keys().copied().collect::<Vec<_>>());
            assert!(leases.len() <= member.slots);
            assert_eq!((state.registered, state.incarnation), (member.registered, member.life));
            assert_eq!(state.status == Status::Active, member.active);
        }
        self.must_have_slots();
    }

    /// Whoever holds a step has a slot taken for it.
    fn must_have_slots(&self) {
        for (at, step) in self.course.steps.iter().enumerate() {
            if let Some(agent) = step.state.holder() {
                let name = (number(at), step.grant);
                assert!(self.crew[agent].leases.contains_key(&name), "{name:?} without a slot");
            }
        }
    }

    /// The law of wake causes: whatever waits is woken by somebody, and what wakes it moves it.
    pub(crate) fn must_be_movable(&self) {
        let operation = self.flow.operation();
        let owed = operation.pending();
        for (at, step) in self.course.steps.iter().enumerate() {
            let wakes = |effect: &Owed| match effect {
                Owed::Offer { step }
                | Owed::AwaitTaker { step, .. }
                | Owed::Watch { step, .. }
                | Owed::Retry { step, .. } => *step == number(at),
            };
            let woken = owed.iter().any(wakes);
            let (wish, grant, wait_ms) = match step.state {
                State::Ready | State::Waiting { .. } if self.course.is_full() => continue,
                State::Pending if self.course.status == "pending" => continue,
                State::Pending => {
                    let open = |before: &usize| !self.course.steps[*before].state.is_settled();
                    assert!(step.before.iter().any(open), "step {} waits for nothing", number(at));
                    continue;
                }
                // Later than any release keeps it from anybody.
                State::Ready => (Wish::Reserve(0), step.grant + 1, 30_000),
                State::Waiting { .. } => (Wish::Reserve(0), step.grant + 1, 60_000),
                State::Offered { .. } => (Wish::ExpireOffer, step.grant, 0),
                State::Running { .. } => (Wish::TimeOut, step.grant, TIMEOUT_MS),
                _ => {
                    assert!(!woken, "step {} is settled and owed something", number(at));
                    continue;
                }
            };
            assert!(woken, "nobody wakes step {}", number(at));
            let mut later = self.flow.scenario.clone();
            later.wait(wait_ms);
            let moved = later.ask(&Command::Step { step: number(at), grant, wish: said(&wish) });
            assert_eq!(answer(&moved), Answer::Changes, "step {} is not moved: {moved:?}", number(at));
        }
    }

    /// After what is owed was carried out, the slots are those of the leases that are held.
    pub(crate) fn must_leak_no_slot(&mut self) {
        // A loss first, the slot then.
        for agent in (0..NAMES.len()).chain(0..NAMES.len()) {
            self.settle(agent);
            self.must_agree();
        }
        let held = self.course.steps.iter().filter(|step| step.state.holder().is_some()).count();
        assert_eq!(self.crew.iter().map(|member| member.leases.len()).sum::<usize>(), held);
    }
}

fn said(wish: &Wish) -> StepWish {
    match wish {
        Wish::Reserve(agent) => {
            StepWish::Reserve { agent: support::agent(NAMES[*agent]), candidates: Default::default() }
        }
        Wish::Acknowledge => StepWish::Acknowledge,
        Wish::Progress(percent) => support::progress(*percent),
        Wish::Complete(result) => StepWish::Complete { result: Json::from(json!(result)), usage: None },
        Wish::Fail { retryable } => {
            let error = support::error(if *retryable { "flaky" } else { "broken" });
            StepWish::Fail { error, retryable: *retryable, retry_after_ms: None }
        }
        Wish::Release => StepWish::Release { reason: "not now".into() },
        Wish::Lose => support::lose("lease_expired"),
        Wish::ExpireOffer => StepWish::ExpireOffer { reason: "no_sign_of_life".into() },
        Wish::TimeOut => StepWish::TimeOut,
    }
}
