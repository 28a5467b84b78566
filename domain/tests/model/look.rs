//! What must hold whenever the product and the model are looked at: they stand at the same place, and what
//! waits can be moved by what it waits for.

use domain::agent::event::Status;
use domain::agent::quarantine::Thresholds;
use domain::operation::pending::Effect as Owed;
use domain::operation::step::StepStatus;
use domain::operation::{Command, Intervention, Operation};
use domain::scenario::Scenario;
use domain::views::leases::State as LeaseState;
use domain::{Aggregate, Timestamp};

use super::course::Answer;
use super::member::Standing;
use super::stage::{NAMES, Stage, TIMEOUT_MS, answer, number, said};
use super::step::{State, Step, Why, Wish};

impl Stage {
    #[track_caller]
    pub(crate) fn must_agree(&self) {
        let operation = self.flow.operation();
        assert_eq!(operation.status().name(), self.course.status, "{:?}", self.course);
        assert_eq!(operation.run.paused, self.course.paused);
        let now = self.flow.scenario.now;
        for (at, (is, wanted)) in operation.run.steps.iter().zip(&self.course.steps).enumerate() {
            let what = || format!("step {}: {is:?}, not {wanted:?}", number(at));
            assert_eq!(is.status.name(), wanted.state.name(), "{}", what());
            assert_eq!((is.grant, is.attempts), (wanted.grant, wanted.spent), "{}", what());
            assert!(wanted.spent <= wanted.most_attempts + wanted.retried, "{}", what());
            let holder = is.status.holder().map(|holder| holder.agent.as_str());
            assert_eq!(holder, wanted.state.holder().map(|agent| NAMES[agent]), "{}", what());
            assert_eq!(moment(&is.status), moment_of(wanted.state), "{}", what());
            assert_eq!(is.started_at, wanted.began, "{}", what());
            assert_eq!(operation.run.closing.contains(at), wanted.closing, "{}", what());
            let cause = operation.run.blocked_on(at, now).map(|blocked| blocked.cause().name());
            assert_eq!(cause, self.course.cause(at, now), "{}", what());
        }
        assert_eq!(operation.run.progress(), self.course.progress());
        self.told.must_be_whole();
        self.crew_must_agree();
    }

    #[track_caller]
    fn crew_must_agree(&self) {
        for (who, (agent, member)) in self.agents.iter().zip(&self.crew).enumerate() {
            let row = self.flow.views.agents.ever(&agent.id).unwrap();
            let state = &row.agent;
            assert_eq!(format!("{:?}", agent.state.as_ref().unwrap()), format!("{state:?}"));
            self.slots_must_agree(who);
            assert_eq!((state.registered, state.incarnation), (member.registered, member.life));
            let rows = [row.work.streaks.lost(), row.work.streaks.untaken(), row.work.streaks.failed()];
            let wanted = [member.lost(), member.untaken(), member.failed()];
            assert_eq!(rows.map(|row| row as usize), wanted, "{member:?}");
            let verdict = row.work.streaks.verdict(&state.profile.config, &Thresholds::default());
            assert_eq!(verdict.is_some(), member.is_fruitless(), "{member:?}");
            let record = &row.work.record;
            assert_eq!((record.completed, record.failed), member.counts(), "{member:?}");
            assert_eq!(record.window().p50_ms, member.half_ms(), "{member:?}");
            if !member.registered {
                assert_eq!(state.status, Status::Inactive);
                continue;
            }
            let standing = match state.status {
                Status::Active => Standing::Active,
                Status::Error => Standing::Quarantined,
                Status::Inactive if state.is_drained() => Standing::Drained,
                Status::Inactive if state.is_timed_out() => Standing::TimedOut,
                Status::Inactive => Standing::Resting,
            };
            assert_eq!((standing, state.silent), (member.standing, member.silent), "{member:?}");
            assert_eq!(state.is_quarantined(), standing == Standing::Quarantined);
        }
    }

    /// The leases of an agent, and the slots that its newest life has free.
    #[track_caller]
    fn slots_must_agree(&self, who: usize) {
        let (views, agent, member) = (&self.flow.views, &self.agents[who], &self.crew[who]);
        let wanted = self.leases(who);
        let mut shown: Vec<_> = views
            .leases
            .of_agent(&agent.id)
            .map(|(id, lease)| ((id.step, id.grant), lease.incarnation, lease.state != LeaseState::Held))
            .collect();
        shown.sort_unstable();
        assert_eq!(shown, wanted);
        let taken = wanted.iter().filter(|(_, life, _)| *life == member.life).count();
        let state = agent.state.as_ref().unwrap();
        assert_eq!(views.free_slots(&agent.id, state) as usize, member.slots.saturating_sub(taken));
        let busy = member.registered && member.standing == Standing::Active && taken >= member.slots;
        assert_eq!(views.shown_status(&agent.id, state) == "busy", busy, "{member:?}");
    }

    /// The law of wake causes: whatever waits is woken by somebody, and what wakes it moves it.
    pub(crate) fn must_be_movable(&self) {
        let owed = self.flow.operation().pending();
        for (at, step) in self.course.steps.iter().enumerate() {
            let wakes = |effect: &Owed| match effect {
                Owed::Offer { step }
                | Owed::AwaitTaker { step, .. }
                | Owed::Watch { step, .. }
                | Owed::AwaitAnswer { step, .. }
                | Owed::Retry { step, .. } => *step == number(at),
            };
            let woken = owed.iter().any(wakes);
            let for_a_person = step.state == State::Attention || self.waits_for_a_resume(step);
            let by_nobody = matches!(step.state, State::Pending) || step.state.is_settled();
            assert_eq!(woken, !for_a_person && !by_nobody, "who wakes step {}: {step:?}", number(at));
            if step.state == State::Pending && self.course.status == "in_progress" {
                let open = |before: &usize| !self.course.steps[*before].state.is_settled();
                assert!(step.before.iter().any(open), "step {} waits for nothing", number(at));
            }
            self.must_move(at, step);
        }
    }

    fn waits_for_a_resume(&self, step: &Step) -> bool {
        self.course.paused && step.state == State::Ready
    }

    /// Some time later, what the step waits for moves it.
    fn must_move(&self, at: usize, step: &Step) {
        let mut later = self.flow.scenario.clone();
        let offered = |later: &Scenario<Operation>, agent: usize| {
            let wish = said(&Wish::Reserve { agent, life: 1 }, later.now);
            Command::Step { step: number(at), grant: step.grant + 1, wish }
        };
        let under = |wish: &Wish| Command::Step {
            step: number(at),
            grant: step.grant,
            wish: said(wish, self.flow.scenario.now),
        };
        let command = match step.state {
            State::Ready | State::Waiting { .. } => {
                // Later than any release keeps it from anybody.
                later.wait(90_000);
                if self.course.paused {
                    later.when(&Command::Resume { by: "ops".into() }).unwrap();
                }
                if step.is_human() {
                    assert_eq!(later.state.unwrap().run.steps[at].status.name(), "awaiting_approval");
                    return;
                }
                if self.course.is_full() {
                    return;
                }
                offered(&later, step.wanted.unwrap_or(0))
            }
            State::Offered { .. } => under(&Wish::ExpireOffer(Why::Ignored)),
            State::Running { .. } => {
                later.wait(TIMEOUT_MS);
                under(&Wish::TimeOut)
            }
            State::Asked { .. } => {
                later.wait(TIMEOUT_MS);
                Command::ExpireApproval { step: number(at) }
            }
            State::Attention => Command::Intervene {
                step: number(at),
                by: "ops".into(),
                reason: None,
                intervention: Intervention::Fail,
            },
            _ => return,
        };
        let moved = later.ask(&command);
        assert_eq!(answer(&moved), Answer::Changes, "step {} is not moved: {moved:?}", number(at));
    }

    /// After what is owed was carried out, the slots are those of the leases that are held.
    pub(crate) fn must_leak_no_slot(&mut self) {
        // A loss may cancel what another agent has, which closes then.
        for agent in (0..NAMES.len()).chain(0..NAMES.len()) {
            self.settle(agent);
            self.must_agree();
        }
        let held = self.course.steps.iter().filter(|step| step.state.holder().is_some()).count();
        assert_eq!((0..NAMES.len()).map(|agent| self.leases(agent).len()).sum::<usize>(), held);
    }
}

/// Until when the product waits.
fn moment(status: &StepStatus) -> Option<Timestamp> {
    match status {
        StepStatus::BackingOff { at, .. } => Some(*at),
        StepStatus::AwaitingApproval { until, .. } => Some(*until),
        _ => None,
    }
}

fn moment_of(state: State) -> Option<Timestamp> {
    match state {
        State::Waiting { until } | State::Asked { until } => Some(until),
        _ => None,
    }
}
