//! A log that is simulated: commands are decided at its head, and the views are folded from it some time
//! later. Knows nothing of the dispatcher, and counts slots by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actors::dispatch::task::{Granted, Outcome, Task};
use actors::projections::Changes;
use domain::agent::{self, Agent};
use domain::operation::{self, Operation, StepWish};
use domain::views::{Stamp, Views};
use domain::world::Everybody;
use domain::{
    AgentId, Aggregate, Given, LaneId, LeaseId, Limits, OperationId, PlatformRule, Timestamp, World, lane,
};
use events::Position;

enum Fact {
    Operation(OperationId, Box<operation::Event>),
    Agent(AgentId, Box<agent::Event>),
    Lane(LaneId, lane::Event),
}

/// One aggregate at the head of the log.
struct Kept<A> {
    state: Option<A>,
    version: u64,
    position: u64,
}

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Self { state: None, version: 0, position: 0 }
    }
}

/// The log, its head, and views that lag behind it.
pub(crate) struct Record {
    facts: Vec<(Fact, Stamp)>,
    operations: BTreeMap<OperationId, Kept<Operation>>,
    agents: BTreeMap<AgentId, Kept<Agent>>,
    /// Who was given what, for which incarnation.
    given: BTreeMap<LeaseId, (AgentId, u64)>,
    world: World,
    pub(crate) views: Views,
    shown: usize,
}

/// What became of a command, and what that rests on.
pub(crate) type Told = (Outcome, Position, Option<Granted>);

impl Record {
    pub(crate) fn new() -> Self {
        let platforms = ["worker", "human"].map(|name| (name.parse().unwrap(), PlatformRule::AnyAction));
        let platforms = Arc::new(BTreeMap::from(platforms));
        Self {
            facts: Vec::new(),
            operations: BTreeMap::new(),
            agents: BTreeMap::new(),
            given: BTreeMap::new(),
            world: World { limits: Limits::default(), platforms, agents: Arc::new(Everybody) },
            views: Views::default(),
            shown: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.facts.len()
    }

    /// Facts that the views do not show yet.
    pub(crate) fn hidden(&self) -> usize {
        self.facts.len() - self.shown
    }

    /// The position that the views have reached.
    pub(crate) fn position(&self) -> Position {
        Position::new(self.shown as u64)
    }

    pub(crate) fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)?.state.as_ref()
    }

    pub(crate) fn operation(&self, id: &OperationId) -> Option<&Operation> {
        self.operations.get(id)?.state.as_ref()
    }

    pub(crate) fn on_operation(
        &mut self,
        id: &OperationId,
        command: &operation::Command,
        now: Timestamp,
    ) -> Told {
        let mut kept = self.operations.remove(id).unwrap_or_default();
        let given = Given { now, world: &self.world };
        let decided = Operation::decide(kept.state.as_ref(), id, command, &given);
        let outcome = if decided.is_ok() { Outcome::Done } else { Outcome::Refused };
        let mut granted = None;
        for event in decided.unwrap_or_default() {
            let stamp = self.append(&mut kept, &event, now);
            if let operation::Event::StepReserved(reserved) = &event {
                let to = (reserved.agent.clone(), reserved.incarnation);
                self.given.insert(reserved.lease_id.clone(), to);
                granted = Some(reserved.clone());
            }
            self.facts.push((Fact::Operation(id.clone(), Box::new(event)), stamp));
        }
        let position = Position::new(kept.position);
        self.operations.insert(id.clone(), kept);
        let granted = granted.map(|reserved| Granted {
            reserved,
            action: "work".parse().unwrap(),
            timeout_ms: 1,
            effect: operation::definition::EffectClass::Idempotent,
            checkpoint: None,
        });
        (outcome, position, granted)
    }

    pub(crate) fn on_lease(&mut self, lease: &LeaseId, wish: StepWish, now: Timestamp) -> Told {
        let LeaseId { operation, step, grant } = lease.clone();
        self.on_operation(&operation, &operation::Command::Step { step, grant, wish }, now)
    }

    pub(crate) fn on_agent(&mut self, id: &AgentId, command: &agent::Command, now: Timestamp) -> Told {
        let mut kept = self.agents.remove(id).unwrap_or_default();
        let given = Given { now, world: &self.world };
        let decided = Agent::decide(kept.state.as_ref(), id, command, &given);
        let outcome = if decided.is_ok() { Outcome::Done } else { Outcome::Refused };
        for event in decided.unwrap_or_default() {
            let stamp = self.append(&mut kept, &event, now);
            self.facts.push((Fact::Agent(id.clone(), Box::new(event)), stamp));
        }
        let position = Position::new(kept.position);
        self.agents.insert(id.clone(), kept);
        (outcome, position, None)
    }

    pub(crate) fn park(&mut self, agent: &AgentId, ms: u64, now: Timestamp) {
        let lease_id = LeaseId { operation: OperationId::from_bits(1), step: 1, grant: 1 };
        let parked = lane::Parked { until: now.plus_ms(ms), wait_ms: ms, lease_id };
        let stamp = Stamp { revision: 1, position: self.facts.len() as u64 + 1, at: now };
        self.facts.push((Fact::Lane(LaneId::of_worker(agent), lane::Event::Parked(parked)), stamp));
    }

    fn append<A: Aggregate>(&self, kept: &mut Kept<A>, event: &A::Event, now: Timestamp) -> Stamp {
        kept.state = A::evolve(kept.state.take(), event, now);
        kept.version += 1;
        kept.position = self.facts.len() as u64 + 1;
        Stamp { revision: kept.version, position: kept.position, at: now }
    }

    /// Carries a task out at the head of the log.
    pub(crate) fn perform(&mut self, task: &Task, now: Timestamp) -> Told {
        match task.clone() {
            Task::Grant(grant) => {
                let (agent, incarnation) = (grant.agent, grant.incarnation);
                let wish = StepWish::Reserve { agent, incarnation, candidates: grant.candidates };
                self.on_lease(&grant.lease, wish, now)
            }
            Task::Lease(lease, wish) => self.on_lease(&lease, wish, now),
            Task::ExpireApproval(id, step) => {
                self.on_operation(&id, &operation::Command::ExpireApproval { step }, now)
            }
            Task::ExpireDeadline(id) => self.on_operation(&id, &operation::Command::ExpireDeadline, now),
            Task::TimeOut(id, silent_ms) => self.on_agent(&id, &agent::Command::TimeOut { silent_ms }, now),
            Task::Quarantine { agent, reason, revision } => {
                let kept = self.agents.entry(agent.clone()).or_default();
                if kept.version != revision {
                    return (Outcome::Refused, Position::new(kept.position), None);
                }
                self.on_agent(&agent, &agent::Command::Quarantine { reason }, now)
            }
        }
    }

    /// Lets the views show so many more facts. Returns what changed by them.
    pub(crate) fn show(&mut self, many: usize) -> Changes {
        let mut changes = Changes::default();
        for (fact, stamp) in self.facts.iter().skip(self.shown).take(many) {
            match fact {
                Fact::Operation(id, event) => {
                    changes.holders.extend(self.views.apply_operation(id, event, *stamp));
                    let run = self.views.operations.get(id).and_then(|row| row.run.as_ref());
                    let moved: BTreeSet<usize> =
                        run.map(|run| run.moved().iter().copied().collect()).unwrap_or_default();
                    changes.operations.entry(id.clone()).or_default().extend(moved);
                }
                Fact::Agent(id, event) => {
                    self.views.apply_agent(id, event, *stamp);
                    changes.agents.insert(id.clone());
                }
                Fact::Lane(id, event) => {
                    self.views.lanes.apply(id, event, stamp.at);
                    changes.lanes.insert(id.clone());
                }
            }
        }
        self.shown = (self.shown + many).min(self.facts.len());
        changes
    }

    /// Leases that take a slot at the head of the log: held, or closing.
    pub(crate) fn taken(&self) -> Vec<(LeaseId, AgentId, u64)> {
        let takes = |lease: &LeaseId| {
            let run = &self.operation(&lease.operation)?.run;
            let position = run.skeleton.position(lease.step)?;
            let newest = run.steps[position].grant == lease.grant;
            Some(newest && (run.held.contains(position) || run.closing.contains(position)))
        };
        let given = self.given.iter().filter(|(lease, _)| takes(lease) == Some(true));
        given.map(|(lease, (agent, incarnation))| (lease.clone(), agent.clone(), *incarnation)).collect()
    }

    /// No incarnation of an agent has more than its slots.
    pub(crate) fn check_slots(&self) {
        let mut taken: BTreeMap<AgentId, Vec<LeaseId>> = BTreeMap::new();
        for (lease, agent, incarnation) in self.taken() {
            if self.agent(&agent).is_some_and(|agent| agent.incarnation == incarnation) {
                taken.entry(agent).or_default().push(lease);
            }
        }
        for (agent, leases) in taken {
            let slots = self.agent(&agent).map_or(0, Agent::slots);
            assert!(leases.len() <= slots as usize, "{agent} has {slots} slots and {leases:?}");
        }
    }
}
