//! The shell around the function that dispatches, without threads: what is under way, who waits for an
//! answer, when to wake. Performs every action, and counts.

use std::collections::{BTreeMap, BTreeSet};

use actors::codec::{KeyUse, Metadata};
use actors::dispatch::claims::{Claim, ClaimId};
use actors::dispatch::task::{Answered, Granted, Outcome, Subject, Task};
use actors::dispatch::{Action, Dispatch, DispatchContext, Input, Settings};
use actors::effects::Periods;
use actors::matching::Appetite;
use actors::presence::Presence;
use actors::projections::Changes;
use domain::agent::quarantine::Thresholds;
use domain::agent::selection::Weights;
use domain::operation::StepWish;
use domain::{AgentId, LeaseId, OperationId, Timestamp};
use events::Position;

use crate::record::Record;
use crate::support::stage::profile;

/// Wakes at one moment; more of them would be a spin.
const WAKES_MAX: u32 = 20;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is decided, and that is heard.
    Heard,
    /// It is decided, and nobody hears of it.
    Unheard,
    /// It is lost, and nobody knows.
    Lost,
    /// It is certainly not carried out.
    NotTaken,
}

/// A task that is under way.
pub(crate) enum Flight {
    Sent(Box<Task>),
    /// The log has decided it; the answer has not come yet.
    Decided(Box<Answered>),
}

pub(crate) struct Shell {
    pub(crate) record: Record,
    pub(crate) dispatch: Dispatch,
    pub(crate) presence: Presence,
    pub(crate) now: Timestamp,
    pub(crate) wake_at: Timestamp,
    pub(crate) flights: Vec<Flight>,
    /// Claims that are not answered, and whether their clients are still there.
    pub(crate) open: BTreeMap<ClaimId, (Claim, bool)>,
    pub(crate) answers: BTreeMap<ClaimId, Vec<Granted>>,
    pub(crate) waiting: BTreeSet<AgentId>,
    pub(crate) claimed: u64,
    /// Tasks that were sent, and inputs that were no answers.
    pub(crate) sent: usize,
    pub(crate) inputs: usize,
    /// Every action, in words, if somebody wants to know.
    pub(crate) told: Option<Vec<String>>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        let settings = Settings {
            periods: Periods::default(),
            weights: Weights::default(),
            thresholds: Thresholds::default(),
            seed: 3,
        };
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        Self {
            record: Record::new(),
            dispatch: Dispatch::new(settings),
            presence: Presence::default(),
            now,
            wake_at: now.plus_ms(1_000),
            flights: Vec::new(),
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            claimed: 0,
            sent: 0,
            inputs: 0,
            told: None,
        }
    }

    /// Hands an input over, and performs what follows from it.
    pub(crate) fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.inputs += usize::from(!matches!(input, Input::Answered(_)));
            let context = DispatchContext {
                views: &self.record.views,
                position: self.record.position(),
                presence: &self.presence,
                now: self.now,
            };
            let actions = self.dispatch.on(input, &context);
            for action in actions {
                if let Some(told) = &mut self.told {
                    told.push(format!("{action:?}"));
                }
                inputs.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Vec<Input> {
        match action {
            Action::Send(task) => {
                self.sent += 1;
                self.flights.push(Flight::Sent(task));
                assert!(self.flights.len() <= 1_024, "too many tasks are under way");
            }
            Action::Answer(claim, granted) => {
                let asked = self.open.remove(&claim.id);
                let (_, listens) = asked.unwrap_or_else(|| panic!("{:?} is answered twice", claim.id));
                if !listens {
                    return vec![Input::Undelivered(claim, granted)];
                }
                self.answers.insert(claim.id, granted);
            }
            Action::WakeAt(at) => self.wake_at = at,
            Action::Heard(agent) => _ = self.presence.heard(&agent, None, self.now, u64::MAX),
            Action::Waits(agent, true) => _ = self.waiting.insert(agent),
            Action::Waits(agent, false) => _ = self.waiting.remove(&agent),
            Action::ForgetLease(lease) => self.presence.forget_lease(&lease),
            Action::RestIdle => {
                let gone = self.dispatch.claims().filter(|claim| !self.open[&claim.id].1);
                return gone.map(|claim| Input::HungUp(claim.agent.clone(), claim.id)).collect();
            }
        }
        Vec::new()
    }

    /// Lets the views show so many more facts, and hands over what they changed.
    pub(crate) fn show(&mut self, many: usize) {
        let changes = self.record.show(many);
        self.feed(Input::Changed(changes));
    }

    pub(crate) fn show_all(&mut self) {
        self.show(usize::MAX >> 1);
    }

    /// Lets time pass, and wakes the dispatcher whenever it asked for it.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        let (mut last, mut wakes) = (self.now, 0);
        while self.wake_at <= until {
            self.now = self.now.max(self.wake_at);
            wakes = if self.now == last { wakes + 1 } else { 0 };
            assert!(wakes < WAKES_MAX, "it wakes again and again at {}", self.now);
            last = self.now;
            self.wake_at = Timestamp::from_micros(i64::MAX);
            self.feed(Input::Woke);
        }
        self.now = until;
    }

    /// Lets the log decide one of the tasks that were sent.
    pub(crate) fn decide(&mut self, choice: usize, fate: Fate) {
        let sent: Vec<usize> =
            (0..self.flights.len()).filter(|at| matches!(self.flights[*at], Flight::Sent(_))).collect();
        let Some(at) = choice.checked_rem(sent.len()).map(|choice| sent[choice]) else { return };
        let Flight::Sent(task) = &self.flights[at] else { return };
        let (task, subject, nothing) = (task.clone(), task.subject(), Position::default());
        let (outcome, rests_on, granted) = match fate {
            Fate::Heard => self.record.perform(&task, self.now),
            Fate::Unheard => {
                self.record.perform(&task, self.now);
                (Outcome::Unknown, nothing, None)
            }
            Fate::Lost => (Outcome::Unknown, nothing, None),
            Fate::NotTaken => (Outcome::NotTaken, nothing, None),
        };
        let answered = Answered { subject, outcome, rests_on, granted };
        self.flights[at] = Flight::Decided(Box::new(answered));
        self.record.check_slots();
    }

    /// Lets one of the answers come.
    pub(crate) fn tell(&mut self, choice: usize) {
        let decided: Vec<usize> =
            (0..self.flights.len()).filter(|at| matches!(self.flights[*at], Flight::Decided(_))).collect();
        let Some(at) = choice.checked_rem(decided.len()).map(|choice| decided[choice]) else { return };
        if let Flight::Decided(answered) = self.flights.remove(at) {
            self.feed(Input::Answered(answered));
        }
    }

    /// Decides and tells everything that is under way, and shows it, until nothing more follows.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            while self.flights.iter().any(|flight| matches!(flight, Flight::Sent(_))) {
                self.decide(0, Fate::Heard);
            }
            while self.flights.iter().any(|flight| matches!(flight, Flight::Decided(_))) {
                self.tell(0);
            }
            self.show_all();
            if self.flights.is_empty() && self.record.hidden() == 0 {
                return;
            }
            assert!(round < 10_000, "it never comes to rest");
        }
    }

    /// The tasks that were sent and not decided.
    pub(crate) fn tasks(&self) -> Vec<&Task> {
        let sent = self.flights.iter().filter_map(|flight| match flight {
            Flight::Sent(task) => Some(&**task),
            Flight::Decided(_) => None,
        });
        sent.collect()
    }

    pub(crate) fn leases(&self) -> Vec<LeaseId> {
        let subjects = self.tasks().into_iter().map(Task::subject);
        subjects
            .filter_map(|subject| if let Subject::Lease(lease) = subject { Some(lease) } else { None })
            .collect()
    }

    /// An agent claims, by the incarnation that the views show.
    pub(crate) fn claim(&mut self, agent: &AgentId, appetite: Appetite, wait_ms: u64) -> ClaimId {
        let row = self.record.views.agents.get(agent);
        let incarnation = row.map_or(1, |row| row.agent.incarnation);
        self.claim_as(agent, incarnation, appetite, wait_ms, None)
    }

    pub(crate) fn claim_as(
        &mut self,
        agent: &AgentId,
        incarnation: u64,
        appetite: Appetite,
        wait_ms: u64,
        key: Option<u8>,
    ) -> ClaimId {
        self.claimed += 1;
        let id = ClaimId(self.claimed);
        let key = key.map(|key| KeyUse { key: [key; 16], body: [0; 16] });
        let metadata = Metadata { key, ..Metadata::of_photon() };
        let until = self.now.plus_ms(wait_ms);
        let claim = Claim { id, agent: agent.clone(), incarnation, appetite, until, metadata };
        self.presence.heard(agent, None, self.now, u64::MAX);
        self.open.insert(id, (claim.clone(), true));
        self.feed(Input::Claimed(claim));
        id
    }

    /// The client of a claim goes away, and says so or does not.
    pub(crate) fn hang_up(&mut self, id: ClaimId, says: bool) {
        let Some((claim, listens)) = self.open.get_mut(&id) else { return };
        *listens = false;
        let agent = claim.agent.clone();
        if says {
            self.feed(Input::HungUp(agent, id));
        }
    }

    /// The leases that a claim was answered with; none while it was not.
    pub(crate) fn answer(&self, id: ClaimId) -> Option<Vec<LeaseId>> {
        let granted = self.answers.get(&id)?;
        Some(granted.iter().map(|granted| granted.reserved.lease_id.clone()).collect())
    }

    pub(crate) fn register(&mut self, agent: &AgentId, slots: u32, capabilities: &[&str]) {
        let profile = Box::new(profile(slots, capabilities));
        let command = domain::agent::Command::Register { profile, incarnation: None };
        self.on_agent(agent, &command);
    }

    pub(crate) fn on_agent(&mut self, agent: &AgentId, command: &domain::agent::Command) {
        self.record.on_agent(agent, command, self.now);
        self.presence.heard(agent, None, self.now, u64::MAX);
    }

    pub(crate) fn on_operation(&mut self, id: &OperationId, command: &domain::operation::Command) {
        self.record.on_operation(id, command, self.now);
    }

    pub(crate) fn say(&mut self, lease: &LeaseId, wish: StepWish) -> Outcome {
        self.record.on_lease(lease, wish, self.now).0
    }

    /// Hands an empty change over: nothing new is shown.
    pub(crate) fn nudge(&mut self) {
        self.feed(Input::Changed(Changes::default()));
    }
}
