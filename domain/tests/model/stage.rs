//! The product and the model side by side: each action is put to both, twice to the product, and both must
//! give the same answer.

use domain::agent::event::{Outcome, Patch, Status};
use domain::agent::{self, Agent, Effect};
use domain::operation::definition::{Definition, FailurePolicy, StepDefinition};
use domain::operation::{Command, Intervention, StepWish};
use domain::scenario::Scenario;
use domain::views::operation_board::LeaseState;
use domain::{Aggregate, Json, LeaseId, Timestamp, fold};
use serde_json::json;

use super::course::{Answer, Course, Whole};
use super::member::{self, Member};
use super::step::{Kind, State, Step, Wish, Word};
use super::support::crew::{profile, register};
use super::support::{self, Flow, definition, operation_id, world};
use super::told::Told;

pub(crate) const NAMES: [&str; 3] = ["ada", "bob", "eve"];
const DEADLINE_MS: u64 = 600_000;
pub(crate) const TIMEOUT_MS: u64 = 60_000;

pub(crate) struct Stage {
    pub(crate) flow: Flow,
    pub(crate) agents: Vec<Scenario<Agent>>,
    pub(crate) course: Course,
    pub(crate) crew: Vec<Member>,
    pub(crate) told: Told,
}

/// The number of the step at a position.
pub(crate) fn number(at: usize) -> u32 {
    (at as u32 + 1) * 10
}

fn lease((step, grant): member::Lease) -> LeaseId {
    LeaseId { operation: operation_id(), step, grant }
}

pub(crate) fn answer<E, R>(outcome: &Result<Vec<E>, R>) -> Answer {
    match outcome {
        Ok(events) if events.is_empty() => Answer::Nothing,
        Ok(_) => Answer::Changes,
        Err(_) => Answer::Refused,
    }
}

fn asked_step(at: usize, one: &Step) -> StepDefinition {
    let before: Vec<u32> = one.before.iter().map(|at| number(*at)).collect();
    let mut step = match one.kind {
        Kind::Plain => support::step(number(at), &before),
        Kind::Write => support::write(number(at), &before),
        Kind::Human => support::approval(number(at), &before),
    };
    step.agent = one.wanted.map(|agent| support::agent(NAMES[agent]));
    step.when = one.skips.then(|| "false".into());
    step.continue_on_error = one.excused;
    step.retry.max_attempts = one.most_attempts;
    step.timeout_ms = TIMEOUT_MS;
    step
}

fn asked(workflow: &[Step], fail_fast: bool, max_parallel: Option<u32>, deadline: Timestamp) -> Definition {
    let steps = workflow.iter().enumerate().map(|(at, one)| asked_step(at, one));
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
        let told = Told::of(workflow.iter().enumerate().map(|(at, step)| (number(at), step.clone())));
        let course = Course {
            steps: workflow,
            status: "pending",
            paused: false,
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
            told,
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
        if let Ok(events) = &outcome {
            self.told.take(events);
        }
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
        let by = || "ops".to_owned();
        let command = match whole {
            Whole::Start => Command::Start,
            Whole::Pause => Command::Pause { by: by(), reason: None },
            Whole::Resume => Command::Resume { by: by() },
            Whole::Cancel => Command::Cancel { by: by() },
            Whole::ExpireDeadline => Command::ExpireDeadline,
        };
        let wanted = self.course.whole(whole, self.now());
        self.put(&command, wanted);
    }

    pub(crate) fn say(&mut self, step: usize, word: Word) {
        let at = self.place(step);
        let intervention = match word {
            Word::Approve => Intervention::Approve,
            Word::Reject => Intervention::Reject,
            Word::Retry => Intervention::Retry,
            Word::Skip => Intervention::Skip,
            Word::Complete(result) => Intervention::Complete(Json::from(json!(result))),
            Word::Fail => Intervention::Fail,
        };
        let wanted = self.course.say(at, word, self.now());
        let (step, by) = (number(at), "ops".into());
        self.put(&Command::Intervene { step, by, reason: None, intervention }, wanted);
    }

    pub(crate) fn expire(&mut self, step: usize) {
        let at = self.place(step);
        let wanted = self.course.expire(at, self.now());
        self.put(&Command::ExpireApproval { step: number(at) }, wanted);
    }

    pub(crate) fn agent(&mut self, agent: usize, wish: member::Wish) {
        let own = |status, reason: &str| agent::Command::SetStatus { status, reason: reason.into() };
        let foreign =
            |status| agent::Command::Update { patch: Box::<Patch>::default(), status: Some(status) };
        let command = match wish {
            member::Wish::Register => register(profile(self.crew[agent].slots as u32, &[])),
            member::Wish::Unregister => agent::Command::Unregister,
            member::Wish::Rest => own(Status::Inactive, "resting"),
            member::Wish::Activate => own(Status::Active, "back"),
            member::Wish::Drain => foreign(Status::Inactive),
            member::Wish::Undrain => foreign(Status::Active),
            member::Wish::TimeOut => agent::Command::TimeOut { silent_ms: 30_000 },
        };
        let wanted = self.crew[agent].wish(wish);
        self.put_to(agent, &command, wanted);
    }

    /// The first half of a claim: a slot for the step's next grant. None without one.
    pub(crate) fn take_slot(&mut self, step: usize, agent: usize) -> Option<u64> {
        let at = self.place(step);
        let grant = self.course.steps[at].grant + 1;
        let now = self.now();
        let wanted = self.crew[agent].reserve((number(at), grant), now);
        self.put_to(agent, &agent::Command::Reserve { lease: lease((number(at), grant)) }, wanted);
        (wanted != Answer::Refused).then_some(grant)
    }

    pub(crate) fn advance(&mut self, step: usize, agent: usize) {
        let at = self.place(step);
        let agent = self.course.steps[at].wanted.unwrap_or(agent);
        match self.course.steps[at].state {
            State::Offered { .. } => self.report(step, 0, &Wish::Acknowledge),
            State::Running { .. } => self.report(step, 0, &Wish::Complete(1)),
            // Now and then a person is slow.
            State::Asked { .. } | State::Attention if agent == 2 => {}
            State::Asked { .. } => self.say(step, Word::Approve),
            State::Attention if agent == 1 => self.say(step, Word::Complete(1)),
            State::Attention => self.say(step, Word::Retry),
            _ if self.course.status == "pending" => self.whole(Whole::Start),
            _ if self.course.paused && agent == 0 => self.whole(Whole::Resume),
            _ => {
                if let Some(grant) = self.take_slot(step, agent) {
                    self.report_under(at, grant, &Wish::Reserve(agent));
                }
            }
        }
    }

    /// An agent gets one step after the other and makes nothing of it: it takes none, or loses all. While it
    /// has the last one something may happen to itself.
    pub(crate) fn be_fruitless(
        &mut self,
        agent: usize,
        begins: bool,
        times: usize,
        last: Option<member::Wish>,
    ) {
        for time in 1..=times {
            let fits = |step: &Step| {
                let waits = matches!(step.state, State::Ready | State::Waiting { .. } | State::Attention);
                waits && !step.is_human() && step.wanted.is_none_or(|wanted| wanted == agent)
            };
            let Some(at) = self.course.steps.iter().position(fits) else { return };
            self.say(at, Word::Retry);
            let Some(grant) = self.take_slot(at, agent) else { return };
            self.report_under(at, grant, &Wish::Reserve(agent));
            if begins {
                self.report(at, 0, &Wish::Acknowledge);
            }
            self.report(at, 0, &if begins { Wish::Lose { silent: false } } else { Wish::ExpireOffer });
            if let Some(wish) = last.filter(|_| time == times) {
                self.agent(agent, wish);
            }
            self.settle(agent);
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
        self.put(&Command::Step { step: number(at), grant, wish: said(wish, self.now()) }, wanted);
    }

    /// What the shell does for an agent: tells the operation of lost leases, and frees slots of ended ones.
    pub(crate) fn settle(&mut self, agent: usize) {
        self.agents[agent].now = self.now();
        let owed = self.agents[agent].state.as_ref().unwrap().pending();
        assert_eq!(owed.len(), self.crew[agent].leases.len(), "each slot is owed its end");
        for effect in owed {
            let (of, loss) = match effect {
                Effect::Settle { lease } => (lease, None),
                Effect::Lose { lease, reason } => (lease, Some(reason)),
            };
            let (name, at) = ((of.step, of.grant), self.flow.position(of.step));
            assert_eq!(loss, self.crew[agent].loss(name), "{of}");
            let step = &self.course.steps[at];
            let held = step.grant == of.grant && step.state.holder() == Some(agent);
            if held && let Some(reason) = loss {
                self.report_under(at, of.grant, &Wish::Lose { silent: reason == "agent_timeout" });
            } else if !held {
                let (outcome, now) = (self.how_it_ended(agent, at, &of), self.now());
                let wanted = self.crew[agent].release(name, outcome, now);
                self.put_to(agent, &agent::Command::Release { lease: of, outcome }, wanted);
            }
        }
    }

    /// How a lease ended, of which the product says the same while its grant is the newest.
    fn how_it_ended(&self, agent: usize, at: usize, lease: &LeaseId) -> Outcome {
        let step = &self.course.steps[at];
        let granted = step.grants.get(&lease.grant);
        let Some((_, outcome)) = granted.filter(|(holder, _)| *holder == agent) else {
            return Outcome::Returned;
        };
        if lease.grant == step.grant {
            let shown = match self.flow.board.lease(lease) {
                LeaseState::Held => None,
                LeaseState::Over(outcome) => Some(outcome),
                LeaseState::Cut(_) => Some(Outcome::Cancelled),
            };
            assert_eq!(shown, Some(*outcome), "{lease}: {step:?}");
        }
        *outcome
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
}

pub(crate) fn said(wish: &Wish, now: Timestamp) -> StepWish {
    match wish {
        Wish::Reserve(agent) => {
            StepWish::Reserve { agent: support::agent(NAMES[*agent]), candidates: Default::default() }
        }
        Wish::Acknowledge => StepWish::Acknowledge,
        Wish::Progress(percent) => support::progress(*percent),
        Wish::Complete(result) => StepWish::Complete { result: Json::from(json!(result)), usage: None },
        Wish::Fail(failure) => {
            let (error, retryable) = (support::error(failure.code()), failure.code() != "broken");
            StepWish::Fail { error, retryable, retry_after_ms: None }
        }
        Wish::Release { reset_ms: None } => StepWish::Release { reason: "not now".into(), hold_ms: None },
        Wish::Release { reset_ms: Some(ms) } => {
            let (until, error) = (now.plus_ms(*ms), support::error("rate_limited"));
            StepWish::Limit { until, error, retryable: true }
        }
        Wish::Lose { silent } => support::lose(if *silent { "agent_timeout" } else { "new_incarnation" }),
        Wish::ExpireOffer => StepWish::ExpireOffer { reason: "no_sign_of_life".into() },
        Wish::TimeOut => StepWish::TimeOut,
    }
}
