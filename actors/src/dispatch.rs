//! Brings ready steps and waiting agents together, and says what is due. A function from inputs to actions:
//! it owns no thread, reads no clock and sends nothing. It holds nothing that cannot be rebuilt from the
//! views, and decides nothing that an aggregate could refuse.
//!
//! Nothing is looked at again without a reason, so every reason is here. A match becomes possible only
//!
//! * when a step is offered anew: a fact moved it, changed its operation's priority or list of agents, or
//!   made room in its operation (`look_at`, for every fact); the views have reached what became of its grant
//!   (`finish`); its back-off, its hold or its preference for another agent is over (a moment that
//!   `Ready::next_change` tells `on`);
//! * when an agent is able to take more: it claims; a fact changed its leases, status or profile
//!   (`look_at`); its account's lane opens, by a fact or at its moment (`Wake::Lane`); a grant to it is no
//!   longer under way (`finish`), or its claim waits again (`reopen`);
//! * when an agent leaves that was preferred to another (`Ready::refresh_avoided`).
//!
//! Whatever else is to hold work back belongs where room (a pause does) or free slots (a parked lane
//! does) are counted, and its end, if no fact tells it, is one more moment.
//!
//! A task is under way until the views have reached the position that its answer rests on. Until then its
//! lease takes a slot, and nothing is sent again because the views do not show it yet.

pub mod actor;
pub mod claims;
mod granting;
mod perform;
mod sending;
pub mod task;
mod waking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use domain::agent::quarantine::Thresholds;
use domain::agent::selection::Weights;
use domain::views::Views;
use domain::{AgentId, LaneId, LeaseId, OperationId, Timestamp};
use events::Position;

use crate::dispatch::claims::{Claim, ClaimId, Claims};
use crate::dispatch::granting::Granting;
use crate::dispatch::sending::Sent;
use crate::dispatch::task::{Answered, Granted, Outcome, Subject, Task};
use crate::effects::{self, Debts, Due, Owed, Periods, Wake};
use crate::in_flight::InFlight;
use crate::presence::Presence;
use crate::projections::Changes;
use crate::ready::{Ready, Scene};
use crate::timers::Timers;

/// How long a task that was not taken waits before it is sent again.
const AGAIN_MS: u64 = 1_000;
/// Between two looks for actors that nobody uses.
const TIDY_MS: u64 = 1_000;

/// What stays the same.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Durations.
    pub periods: Periods,
    /// Weights of the score.
    pub weights: Weights,
    /// When an agent is quarantined.
    pub thresholds: Thresholds,
    /// Differs between processes, so that no client can aim at the index of what steps ask for.
    pub seed: u64,
}

/// What is looked at besides the input.
#[derive(Clone, Copy)]
pub struct DispatchContext<'c> {
    /// The views.
    pub views: &'c Views,
    /// The position that they have reached.
    pub position: Position,
    /// Which agents were heard when.
    pub presence: &'c Presence,
    /// Now.
    pub now: Timestamp,
}

impl DispatchContext<'_> {
    /// What steps are matched by.
    fn scene<'s>(&'s self, in_flight: &'s InFlight, settings: &Settings) -> Scene<'s> {
        let elsewhere_ms = settings.periods.retry_elsewhere_ms;
        Scene { views: self.views, in_flight, now: self.now, elsewhere_ms }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The views show new facts.
    Changed(Changes),
    /// An agent asks for work.
    Claimed(Claim),
    /// The client of a claim is gone.
    HungUp(AgentId, ClaimId),
    /// The client of a claim was gone when the answer came.
    Undelivered(Box<Claim>, Vec<Granted>),
    /// A task was answered.
    Answered(Box<Answered>),
    /// The moment of the last `WakeAt` has come.
    Woke,
    /// No more work is given out: the server is about to stop.
    Drain,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Have a command carried out, and tell what became of it.
    Send(Box<Task>),
    /// Answer a claim.
    Answer(Box<Claim>, Vec<Granted>),
    /// Wake at this moment, instead of any other.
    WakeAt(Timestamp),
    /// The agent waited for this server, which was no silence.
    Heard(AgentId),
    /// The agent waits for work from now on, or does no more.
    Waits(AgentId, bool),
    /// The lease is over: its renewals need not be remembered.
    ForgetLease(LeaseId),
    /// Send actors that nobody uses to rest.
    RestIdle,
}

/// The dispatcher.
#[derive(Debug)]
pub struct Dispatch {
    settings: Settings,
    ready: Ready,
    claims: Claims,
    timers: Timers<Wake>,
    /// Wakes that an operation's last look led to, so that those no longer owed can be cleared.
    armed: BTreeMap<OperationId, BTreeSet<Wake>>,
    in_flight: InFlight,
    /// Claims that were matched, and of which grants are not answered yet.
    granting: BTreeMap<ClaimId, Granting>,
    /// Tasks that are not over.
    sent: BTreeMap<Subject, Sent>,
    /// Tasks that were answered, by the position that the views have to reach.
    settling: BTreeMap<(Position, Subject), Outcome>,
    /// Tasks that wait until fewer are under way.
    line: VecDeque<Task>,
    under_way: usize,
    /// When tasks that are to be sent again are.
    again: Timers<Subject>,
    /// When claims whose grants were all refused wait again.
    reopening: Timers<ClaimId>,
    /// A claim that wants an answer at once, and the one of the same agent that waits meanwhile.
    once: Option<(AgentId, ClaimId, Option<Claim>)>,
    tidy_at: Option<Timestamp>,
    draining: bool,
    told: Option<Timestamp>,
    actions: Vec<Action>,
}

impl Dispatch {
    /// One that knows of nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            ready: Ready::new(settings.periods.starvation_ms, settings.seed),
            settings,
            claims: Claims::default(),
            timers: Timers::default(),
            armed: BTreeMap::new(),
            in_flight: InFlight::default(),
            granting: BTreeMap::new(),
            sent: BTreeMap::new(),
            settling: BTreeMap::new(),
            line: VecDeque::new(),
            under_way: 0,
            again: Timers::default(),
            reopening: Timers::default(),
            once: None,
            tidy_at: None,
            draining: false,
            told: None,
            actions: Vec::new(),
        }
    }

    /// Agents that wait for work.
    pub fn waiting(&self) -> impl Iterator<Item = &AgentId> {
        self.claims.all().map(|claim| &claim.agent)
    }

    /// Claims that wait for work.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.all()
    }

    /// How long an actor may be idle, in milliseconds.
    #[must_use]
    pub fn idle_ms(&self) -> u64 {
        self.settings.periods.idle_ms
    }

    /// What follows from an input.
    pub fn on(&mut self, input: Input, context: &DispatchContext<'_>) -> Vec<Action> {
        let mut able = BTreeSet::new();
        match input {
            Input::Changed(changes) => self.look_at(&changes, context, &mut able),
            Input::Claimed(claim) => self.claimed(claim, context, &mut able),
            Input::HungUp(agent, id) => self.hung_up(&agent, id),
            Input::Undelivered(claim, granted) => self.undelivered(&claim, granted),
            Input::Answered(answered) => self.answered(*answered, context),
            Input::Woke => self.wake(context, &mut able),
            Input::Drain => self.drain(),
        }
        self.finish_reached(context, &mut able);
        self.match_waiting(&able, context);
        self.end_once(context);
        let moved = self.claims.take_moved().into_iter();
        self.actions.extend(moved.map(|(agent, waits)| Action::Waits(agent, waits)));
        self.tell_next_wake(context.now);
        std::mem::take(&mut self.actions)
    }

    /// Looks at everything that facts have changed. Whoever is able to take more joins `able`.
    fn look_at(&mut self, changes: &Changes, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        let (views, now) = (context.views, context.now);
        for (id, moved) in &changes.operations {
            let Debts { wakes, owed } = effects::of_operation(views, id, &self.settings.periods);
            self.arm(id, wakes, now);
            let scene = context.scene(&self.in_flight, &self.settings);
            self.ready.look(scene, id, moved.iter().copied());
            self.pay(owed, now);
        }
        for id in changes.agents.union(&changes.holders) {
            let (periods, thresholds) = (&self.settings.periods, &self.settings.thresholds);
            let Debts { wakes, owed } = effects::of_agent(views, id, periods, thresholds);
            self.set(wakes, now);
            self.pay(owed, now);
            self.dismiss_stale(id, context);
        }
        for id in &changes.lanes {
            self.timers.clear(&Wake::Lane(id.clone()));
            if let Some(until) = views.lanes.parked_until(id, now) {
                self.timers.set(Wake::Lane(id.clone()), until);
            }
        }
        if !changes.lanes.is_empty() {
            able.extend(self.members(context, |lane| changes.lanes.contains(lane)));
        }
        // What others hold makes nobody preferred.
        if !(changes.agents.is_empty() && changes.lanes.is_empty()) {
            self.ready.refresh_avoided();
        }
        able.extend(changes.agents.union(&changes.holders).cloned());
    }

    /// Sets the wakes of one operation and clears those that it is no longer owed.
    fn arm(&mut self, id: &OperationId, wakes: Vec<(Wake, Due)>, now: Timestamp) {
        let before = self.armed.remove(id).unwrap_or_default();
        let after: BTreeSet<Wake> = wakes.iter().map(|(wake, _)| wake.clone()).collect();
        for wake in before.difference(&after) {
            self.timers.clear(wake);
            let over = wake.lease().filter(|lease| !after.iter().any(|wake| wake.lease() == Some(lease)));
            self.actions.extend(over.cloned().map(Action::ForgetLease));
        }
        if !after.is_empty() {
            self.armed.insert(id.clone(), after);
        }
        self.set(wakes, now);
    }

    fn set(&mut self, wakes: Vec<(Wake, Due)>, now: Timestamp) {
        for (wake, due) in wakes {
            match due {
                Due::At(at) => self.timers.set(wake, at),
                Due::In(ms) => self.timers.set_no_later(wake, now.plus_ms(ms)),
            }
        }
    }

    fn pay(&mut self, owed: Vec<Owed>, now: Timestamp) {
        for owed in owed {
            self.send(Task::of(owed), sending::debt(), now);
        }
    }

    /// Agents that wait for work in such a lane.
    fn members(&self, context: &DispatchContext<'_>, lane: impl Fn(&LaneId) -> bool) -> Vec<AgentId> {
        let members = self.waiting().filter(|id| {
            let row = context.views.agents.get(id);
            row.is_some_and(|row| lane(&LaneId::of_agent(id, &row.agent.profile.config)))
        });
        members.cloned().collect()
    }

    /// Says when to wake next, when that has changed.
    fn tell_next_wake(&mut self, now: Timestamp) {
        let tidy_at = *self.tidy_at.get_or_insert(now.plus_ms(TIDY_MS));
        let moments =
            [self.timers.next(), self.again.next(), self.reopening.next(), self.ready.next_change()];
        let next = moments.into_iter().flatten().fold(tidy_at, Timestamp::min);
        if self.told != Some(next) {
            self.told = Some(next);
            self.actions.push(Action::WakeAt(next));
        }
    }
}
