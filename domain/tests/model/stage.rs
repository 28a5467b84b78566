//! The product and the model side by side: each action is put to both, twice to the product, and both must
//! give the same answer.

use domain::agent::event::{Patch, Status, StatusReason};
use domain::agent::{self, Agent};
use domain::operation::definition::{Definition, FailurePolicy, StepDefinition};
use domain::operation::event::{CloseReason, LeaseEnd};
use domain::operation::{Command, Intervention, StepWish};
use domain::scenario::Scenario;
use domain::views::Stamp;
use domain::{Aggregate, Json, Timestamp, fold};
use serde_json::json;

use super::course::{Answer, Course, Whole};
use super::member::{self, Member, Standing};
use super::step::{Kind, State, Step, Why, Wish, Word};
use super::support::crew::{profile, register};
use super::support::fleet::{put_together, stored};
use super::support::{self, Flow, definition, world};
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

/// A lease by its step's number and its grant, the life that claimed it, and whether it is closing.
pub(crate) type Lease = ((u32, u64), u64, bool);

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
        let agents = NAMES.map(|name| Scenario::new(support::agent(name), world())).into();
        let crew = slots.iter().map(|slots| Member::of(*slots)).collect();
        let mut stage = Self { agents, flow, course, crew, told };
        for (agent, slots) in slots.iter().enumerate() {
            stage.tell(agent, &register(profile(*slots as u32, &[]))).unwrap();
        }
        stage
    }

    /// Puts a command to an agent. What follows is folded into the views.
    fn tell(
        &mut self,
        agent: usize,
        command: &agent::Command,
    ) -> Result<Vec<agent::Event>, agent::Rejection> {
        let (scenario, flow) = (&mut self.agents[agent], &mut self.flow);
        scenario.now = flow.scenario.now;
        let before = scenario.history.len() as u64;
        let events = scenario.when(command)?;
        for (revision, event) in (before + 1..).zip(&events) {
            flow.position += 1;
            let stamp = Stamp { revision, position: flow.position, at: scenario.now };
            flow.views.apply_agent(&scenario.id, event, stamp);
        }
        Ok(events)
    }

    /// The leases that an agent has, of all its lives.
    pub(crate) fn leases(&self, agent: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        for (at, step) in self.course.steps.iter().enumerate() {
            let open = step.grants.iter().filter(|(_, given)| given.agent == agent && given.end.is_none());
            leases.extend(open.map(|(grant, given)| ((number(at), *grant), given.life, step.closing)));
        }
        leases
    }

    /// The members learn how their leases ended.
    fn members_learn(&mut self) {
        let now = self.now();
        for step in &mut self.course.steps {
            for given in step.grants.values_mut().filter(|given| !given.told) {
                if let Some(how) = given.end {
                    given.told = true;
                    self.crew[given.agent].learn(given, how, now);
                }
            }
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
        self.members_learn();
        let again = answer(&self.flow.scenario.ask(command));
        assert_ne!(again, Answer::Changes, "{command:?} again");
        assert!(wanted != Answer::Refused || again == Answer::Refused, "{command:?} again is taken");
    }

    /// The same for an agent. A registration is a new life each time it comes.
    #[track_caller]
    fn put_to(&mut self, agent: usize, command: &agent::Command, wanted: Answer) {
        let outcome = self.tell(agent, command);
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
        let own = |status, reason| agent::Command::SetStatus { status, reason };
        let foreign =
            |status| agent::Command::Update { patch: Box::<Patch>::default(), status: Some(status) };
        let command = match wish {
            member::Wish::Register => register(profile(self.crew[agent].slots as u32, &[])),
            member::Wish::Unregister => agent::Command::Unregister,
            member::Wish::Rest => own(Status::Inactive, StatusReason::Heartbeat),
            member::Wish::Activate => own(Status::Active, StatusReason::Heartbeat),
            member::Wish::Drain => foreign(Status::Inactive),
            member::Wish::Undrain => foreign(Status::Active),
            member::Wish::TimeOut => agent::Command::TimeOut { silent_ms: 30_000 },
            member::Wish::Quarantine => {
                agent::Command::Quarantine { reason: StatusReason::QuarantinedFailures }
            }
        };
        let wanted = self.crew[agent].wish(wish);
        self.put_to(agent, &command, wanted);
    }

    /// A step is granted by the claim of an earlier life, or to an agent that takes no work by now.
    pub(crate) fn cross(&mut self, step: usize, agent: usize, ago: u64) {
        let at = self.place(step);
        let life = self.crew[agent].life.saturating_sub(ago).max(1);
        self.report_under(at, self.course.steps[at].grant + 1, &Wish::Reserve { agent, life });
    }

    /// A step is offered to an agent that takes work and has a slot free. Says whether it is one.
    pub(crate) fn offer(&mut self, at: usize, agent: usize) -> bool {
        let member = &self.crew[agent];
        let taken = self.leases(agent).iter().filter(|(_, life, _)| *life == member.life).count();
        let takes = member.registered && member.standing == Standing::Active && taken < member.slots;
        if takes {
            self.cross(at, agent, 0);
        }
        takes
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
            _ => _ = self.offer(at, agent),
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
            if !self.offer(at, agent) {
                return;
            }
            if begins {
                self.report(at, 0, &Wish::Acknowledge);
            }
            self.report(at, 0, &if begins { Wish::Lose(Why::Anew) } else { Wish::ExpireOffer(Why::Ignored) });
            if let Some(wish) = last.filter(|_| time == times) {
                self.agent(agent, wish);
            }
            self.settle(agent);
        }
    }

    pub(crate) fn report(&mut self, step: usize, back: u64, wish: &Wish) {
        let at = self.place(step);
        self.report_under(at, self.course.steps[at].grant.saturating_sub(back), wish);
    }

    fn report_under(&mut self, at: usize, grant: u64, wish: &Wish) {
        let wanted = self.course.wish(at, grant, wish, self.now());
        self.put(&Command::Step { step: number(at), grant, wish: said(wish, self.now()) }, wanted);
    }

    /// What the dispatcher does for an agent: it loses what the agent can no longer carry out, closes what
    /// was cancelled, and puts it out of service if its work came to nothing too often.
    pub(crate) fn settle(&mut self, agent: usize) {
        for ((step, grant), life, _) in self.leases(agent) {
            let at = self.flow.position(step);
            let loss = self.crew[agent].loss(life);
            let shown = self.agents[agent].state.as_ref().unwrap().loss(life);
            assert_eq!(shown, loss.map(reason));
            // An earlier loss may have cancelled it.
            match loss {
                _ if self.course.steps[at].closing => self.report_under(at, grant, &Wish::Close),
                Some(why) => self.report_under(at, grant, &Wish::Lose(why)),
                None => {}
            }
        }
        if self.crew[agent].is_fruitless() {
            self.agent(agent, member::Wish::Quarantine);
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
            assert_eq!(format!("{before:?}"), format!("{:?}", agent.state.as_ref().unwrap()));
        }
        let pieces = stored(&self.flow.views);
        self.flow.views = put_together(&pieces);
        assert_eq!(stored(&self.flow.views), pieces);
    }
}

pub(crate) fn said(wish: &Wish, now: Timestamp) -> StepWish {
    match wish {
        Wish::Reserve { agent, life } => support::reserve(support::agent(NAMES[*agent]), *life),
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
        Wish::Lose(why) => support::lose(reason(*why)),
        Wish::ExpireOffer(why) => support::expire(reason(*why)),
        Wish::Close => StepWish::CloseLease { why: CloseReason::GraceExpired },
        Wish::TimeOut => StepWish::TimeOut,
    }
}

fn reason(why: Why) -> LeaseEnd {
    match why {
        Why::Ignored => LeaseEnd::NoSignOfLife,
        Why::Silent => LeaseEnd::AgentTimeout,
        Why::Unregistered => LeaseEnd::AgentUnregistered,
        Why::Anew => LeaseEnd::NewIncarnation,
        Why::Revoked => LeaseEnd::Revoked,
    }
}
