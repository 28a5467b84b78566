//! The claim that comes with a report: what is there now for the agent whose attempt has just ended. The
//! report is settled before, and nothing here changes what it was answered with.

use domain::agent::event::Status;
use domain::agent::selection::Candidates;
use domain::agent::{self, Agent};
use domain::operation::event::StepReserved;
use domain::views::operation_board::LeaseState;
use domain::{AgentId, Json, LaneId, LeaseId};

use crate::codec::{KeyUse, Metadata};
use crate::core::Core;
use crate::gateway::Order;
use crate::granting::Granted;
use crate::matching::Appetite;
use crate::protocol::ProtocolError;
use crate::settling::Aftermath;

/// The holder of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The agent.
    pub agent: AgentId,
    /// Its incarnation that the lease was granted to.
    pub incarnation: u64,
}

/// Why a claim that came with a report is not served. The report was taken all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// The agent is not registered any more.
    UnknownAgent,
    /// The lease was over before the report came, so that it freed no slot.
    LeaseLost,
    /// The lease was an earlier incarnation's.
    StaleIncarnation,
    /// The agent is to take no more work.
    Drained,
    /// The agent is out of service.
    Quarantined,
    /// The provider of the agent takes no calls for this number of milliseconds.
    RateLimited(u64),
    /// The server gives out no more work.
    Draining,
    /// The views lag for too long.
    Overloaded,
}

impl Core {
    /// The holder of a lease, as the views show it.
    #[must_use]
    pub fn holder_of(&self, lease: &LeaseId) -> Option<Holder> {
        let views = self.projected.views.read();
        let run = views.operations.get(&lease.operation)?.run.as_ref()?;
        let step = &run.steps[run.skeleton.position(lease.step)?];
        // Another agent may have a slot for the same lease, which its operation then refused.
        let agent = step.agent.as_ref().filter(|_| step.grant == lease.grant)?;
        let assignment = views.agents.ever(agent)?.agent.assignments.get(lease)?;
        Some(Holder { agent: agent.clone(), incarnation: assignment.incarnation })
    }

    /// Gives the agent that had a lease what is there now, up to `max` steps. `again` is what its operation
    /// knew after the report, when that is repeated: then the agent is given what it was given with the
    /// same key and has not begun with, if there is anything.
    ///
    /// # Errors
    /// Why it is given nothing.
    pub async fn claim_after(
        &self,
        lease: &LeaseId,
        holder: Option<Holder>,
        again: Option<&Aftermath>,
        max: u32,
        metadata: Metadata,
    ) -> Result<Vec<Granted>, ClaimRefusal> {
        if !self.projected.shows(self.projected.answered()).await {
            return Err(ClaimRefusal::Overloaded);
        }
        let holder = holder.or_else(|| self.holder_of(lease));
        let incarnation = holder.as_ref().map(|holder| holder.incarnation);
        let agent = holder.map(|holder| holder.agent).or_else(|| again?.agent.clone());
        let agent = agent.ok_or(ClaimRefusal::LeaseLost)?;
        self.hear(&agent, incarnation, None, &metadata).await?;
        self.free_slot(&agent, lease).await;
        self.check_takes_work(&agent)?;
        let metadata = Metadata { key: metadata.key.map(key_of_the_claim), ..metadata };
        let begun = |lease: &LeaseId| self.holder(lease).is_some_and(|(_, started)| started);
        if let Some(granted) = self.granted_to(&agent, &metadata, |lease| !begun(lease)).await {
            return Ok(granted);
        }
        Ok(self.wait_for_work(&agent, Appetite::of(max, None), 0, metadata).await?)
    }

    /// The leases that the same key was given before, of those that live the ones that count.
    pub(crate) async fn granted_to(
        &self,
        agent: &AgentId,
        metadata: &Metadata,
        counts: impl Fn(&LeaseId) -> bool,
    ) -> Option<Vec<Granted>> {
        let key = metadata.key?;
        let leases = self.projected.keys.lock().get(&key.key).map(|used| used.leases.clone())?;
        let mut granted = Vec::new();
        for lease in leases.iter().filter(|lease| counts(lease)) {
            granted.extend(self.granted(agent, lease).await);
        }
        (!granted.is_empty()).then_some(granted)
    }

    /// A live lease as it was granted to this agent.
    async fn granted(&self, agent: &AgentId, lease: &LeaseId) -> Option<Granted> {
        let revision = {
            let views = self.projected.views.read();
            let held = views.operations.lease_of(agent, lease) == LeaseState::Held;
            held.then(|| views.operations.get(&lease.operation).map(|row| row.revision)).flatten()?
        };
        let operation = self.reader.at(&lease.operation, revision).await.ok()??;
        let position = operation.run.skeleton.position(lease.step)?;
        let definition = &operation.run.skeleton.steps[position];
        let holder = operation.run.steps[position].status.holder()?;
        let reserved = StepReserved {
            step: lease.step,
            grant: lease.grant,
            lease_id: lease.clone(),
            agent: holder.agent.clone(),
            attempt: holder.attempt,
            inputs: operation.inputs.get(&lease.step).cloned().unwrap_or_else(Json::object),
            candidates: Candidates::default(),
        };
        Some(Granted {
            reserved: Box::new(reserved),
            action: definition.action.clone(),
            timeout_ms: definition.timeout_ms,
            checkpoint: operation.checkpoints.get(&lease.step).cloned(),
        })
    }

    /// Frees the slot of a lease that is over, which would be done anyway but perhaps later.
    async fn free_slot(&self, agent: &AgentId, lease: &LeaseId) {
        let state = self.projected.views.read().operations.lease_of(agent, lease);
        if let LeaseState::Over(outcome) = state {
            let command = agent::Command::Release { lease: lease.clone(), outcome };
            let order = Order::of(command, Metadata::of_photon());
            // If it is not taken now, there may be no slot for the claim.
            let _ = self.gateway.execute_shown::<Agent>(agent, order).await;
        }
    }

    fn check_takes_work(&self, id: &AgentId) -> Result<(), ClaimRefusal> {
        let (views, now) = (self.projected.views.read(), self.now());
        let agent = &views.agents.get(id).ok_or(ClaimRefusal::UnknownAgent)?.agent;
        if agent.is_quarantined() {
            return Err(ClaimRefusal::Quarantined);
        }
        if agent.status != Status::Active {
            return Err(ClaimRefusal::Drained);
        }
        if views.lanes.holds_back(id, agent, now) {
            let until = views.lanes.parked_until(&LaneId::of_agent(id, &agent.profile.config), now);
            return Err(ClaimRefusal::RateLimited(until.map_or(0, |until| until.ms_since(now))));
        }
        Ok(())
    }
}

impl From<ProtocolError> for ClaimRefusal {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::UnknownAgent(_) => Self::UnknownAgent,
            ProtocolError::StaleIncarnation { .. } => Self::StaleIncarnation,
            ProtocolError::Draining => Self::Draining,
            ProtocolError::NotTaken(_) => Self::Overloaded,
        }
    }
}

/// The report's key is found with the report, and what was granted must not count as a part of that.
fn key_of_the_claim(report: KeyUse) -> KeyUse {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"claim").update(&report.key);
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    KeyUse { key, body: report.body }
}
