//! Which agent holds which lease, folded from the operations' events: what is reserved, and what was
//! cancelled while an agent still worked on it. Needs no row of the agent, and decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::agent::quarantine::Ending;
use crate::agent::record::Outcome;
use crate::operation::Event;
use crate::operation::event::{LeaseEnd, StepReserved};
use crate::{AgentId, LeaseId, OperationId, Timestamp};

/// Codes of failures that say nothing of the agent that reports them. `released` is the code of a write that
/// its agent began and gave back in good order; a `timeout` may have passed while the server was away.
const EXCUSED: [&str; 6] = ["invalid", "type_mismatch", "rate_limited", "cancelled", "released", "timeout"];

/// Whether the step is still the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It is offered to the agent, or running.
    Held,
    /// It was cancelled at this moment. The agent keeps its slot until it stops, or its grace is over.
    Closing(Timestamp),
}

/// A lease that takes a slot of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The grant of the step.
    pub grant: u64,
    /// The agent that has it.
    pub agent: AgentId,
    /// The incarnation of the agent that claimed it.
    pub incarnation: u64,
    /// When it was reserved.
    pub reserved_at: Timestamp,
    /// Whether the step is still the agent's.
    pub state: State,
}

/// How a lease ended, as far as its agent's record and rows are concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended<'e> {
    pub(super) lease: Lease,
    /// What it adds to the rows.
    pub(super) ending: Ending<'e>,
    /// The result that it adds to the record, and how long it took in milliseconds.
    pub(super) result: Option<(Outcome, u64)>,
}

/// A step of an operation.
type Step = (OperationId, u32);

/// Every lease of the moment, by step.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    by_step: BTreeMap<Step, Lease>,
    /// The steps that each agent has, by the incarnation that claimed them. No set is empty.
    by_agent: HashMap<AgentId, BTreeMap<u64, BTreeSet<Step>>>,
}

impl Leases {
    /// A lease, while it takes a slot.
    #[must_use]
    pub fn get(&self, id: &LeaseId) -> Option<&Lease> {
        let lease = self.by_step.get(&(id.operation.clone(), id.step));
        lease.filter(|lease| lease.grant == id.grant)
    }

    /// Whether this lease was cancelled while its agent still works on it.
    #[must_use]
    pub fn is_closing(&self, id: &LeaseId) -> bool {
        self.get(id).is_some_and(|lease| lease.state != State::Held)
    }

    /// The leases of one agent, of earlier incarnations too.
    pub fn of_agent(&self, agent: &AgentId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        let steps = self.by_agent.get(agent).into_iter().flat_map(BTreeMap::values).flatten();
        steps.filter_map(|step| self.by_step.get_key_value(step)).map(named)
    }

    /// The leases of one operation.
    pub fn of_operation<'l>(
        &'l self,
        operation: &'l OperationId,
    ) -> impl Iterator<Item = (LeaseId, &'l Lease)> {
        let from = self.by_step.range((operation.clone(), 0)..);
        from.take_while(move |((id, _), _)| id == operation).map(named)
    }

    /// Operations that have leases, in the order of their ids; each as often as it has leases.
    pub fn operations(&self) -> impl Iterator<Item = &OperationId> {
        self.by_step.keys().map(|(id, _)| id)
    }

    /// Slots that an incarnation of an agent has taken.
    #[must_use]
    pub fn taken(&self, agent: &AgentId, incarnation: u64) -> u32 {
        let steps = self.by_agent.get(agent).and_then(|steps| steps.get(&incarnation));
        steps.map_or(0, |steps| u32::try_from(steps.len()).unwrap_or(u32::MAX))
    }

    /// All of them, in the order of operations and steps.
    pub fn all(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.by_step.iter().map(named)
    }

    /// Puts back a lease of a snapshot.
    pub(super) fn put(&mut self, id: &LeaseId, lease: Lease) {
        let step = (id.operation.clone(), id.step);
        let steps = self.by_agent.entry(lease.agent.clone()).or_default();
        steps.entry(lease.incarnation).or_default().insert(step.clone());
        self.by_step.insert(step, lease);
    }

    /// Folds one fact of one operation. Says which lease it ended, if it ended one.
    pub(super) fn apply<'e>(
        &mut self,
        id: &'e OperationId,
        event: &Event,
        at: Timestamp,
    ) -> Option<Ended<'e>> {
        let ends = |step, grant| LeaseId { operation: id.clone(), step, grant };
        let (lease, ending, result) = match event {
            Event::StepReserved(reserved) => {
                self.open(reserved, at);
                return None;
            }
            Event::StepsCancelled(cancelled) => {
                for lease in &cancelled.closing {
                    self.close(lease, at);
                }
                return None;
            }
            Event::StepCompleted(event) => {
                let result = (Outcome::Completed, Some(event.duration_ms));
                (ends(event.step, event.grant), Ending::Completed, Some(result))
            }
            Event::StepFailed(event) => {
                let ending = failure(id, &event.error.code);
                (ends(event.step, event.grant), ending, Some((Outcome::Failed, None)))
            }
            Event::StepNeedsAttention(event) => {
                let ending = failure(id, &event.error.code);
                (ends(event.step, event.grant), ending, Some((Outcome::Failed, None)))
            }
            Event::StepLeaseLost(event) if event.reason == LeaseEnd::Revoked => {
                (ends(event.step, event.grant), Ending::Other, None)
            }
            Event::StepLeaseLost(event) => {
                (ends(event.step, event.grant), Ending::Lost, Some((Outcome::Lost, None)))
            }
            Event::StepOfferExpired(event) => {
                let ending = if event.reason.is_silence() { Ending::Untaken } else { Ending::Other };
                (ends(event.step, event.grant), ending, None)
            }
            Event::StepReleased(event) => (ends(event.step, event.grant), Ending::Other, None),
            Event::StepLimited(event) => (ends(event.step, event.grant), Ending::Other, None),
            Event::LeaseClosed(event) => (event.lease_id.clone(), Ending::Other, None),
            Event::Created(_)
            | Event::Started
            | Event::Updated(_)
            | Event::Cancelled(_)
            | Event::Progressed(_)
            | Event::Completed
            | Event::Failed(_)
            | Event::StepStarted(_)
            | Event::StepProgressed(_)
            | Event::StepCheckpointed(_)
            | Event::StepRetryScheduled(_)
            | Event::StepsSkipped(_)
            | Event::Paused(_)
            | Event::Resumed(_)
            | Event::StepApprovalRequested(_)
            | Event::StepApproved(_)
            | Event::StepRejected(_)
            | Event::StepResolved(_) => return None,
        };
        let lease = self.end(&lease)?;
        let took_ms = |told: Option<u64>| told.unwrap_or_else(|| at.ms_since(lease.reserved_at));
        let result = result.map(|(outcome, told)| (outcome, took_ms(told)));
        Some(Ended { lease, ending, result })
    }

    fn open(&mut self, reserved: &StepReserved, at: Timestamp) {
        let lease = Lease {
            grant: reserved.grant,
            agent: reserved.agent.clone(),
            incarnation: reserved.incarnation,
            reserved_at: at,
            state: State::Held,
        };
        // Whatever was there ended without being said to: its slot must not stay taken.
        self.remove(&reserved.lease_id);
        self.put(&reserved.lease_id, lease);
    }

    fn close(&mut self, id: &LeaseId, at: Timestamp) {
        let lease = self.by_step.get_mut(&(id.operation.clone(), id.step));
        if let Some(lease) = lease.filter(|lease| lease.grant == id.grant) {
            lease.state = State::Closing(at);
        }
    }

    /// Ends a lease, if it is the one that is held: the first end wins.
    fn end(&mut self, id: &LeaseId) -> Option<Lease> {
        self.get(id)?;
        self.remove(id)
    }

    fn remove(&mut self, id: &LeaseId) -> Option<Lease> {
        let step = (id.operation.clone(), id.step);
        let lease = self.by_step.remove(&step)?;
        if let Some(steps) = self.by_agent.get_mut(&lease.agent) {
            if let Some(claimed) = steps.get_mut(&lease.incarnation) {
                claimed.remove(&step);
            }
            steps.retain(|_, claimed| !claimed.is_empty());
            if steps.is_empty() {
                self.by_agent.remove(&lease.agent);
            }
        }
        Some(lease)
    }
}

fn named<'l>(((operation, step), lease): (&Step, &'l Lease)) -> (LeaseId, &'l Lease) {
    (LeaseId { operation: operation.clone(), step: *step, grant: lease.grant }, lease)
}

fn failure<'e>(operation: &'e OperationId, code: &str) -> Ending<'e> {
    if EXCUSED.contains(&code) { Ending::Excused } else { Ending::Failed(operation) }
}
