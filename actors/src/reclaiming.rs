//! The claim that comes with a report: what is there now for the agent whose attempt has just ended. The
//! report is settled before, and nothing here changes what it was answered with.

use domain::agent::event::Status;
use domain::agent::selection::Candidates;
use domain::operation::event::StepReserved;
use domain::views::leases::State;
use domain::{AgentId, Json, LaneId, LeaseId};

use crate::codec::{KeyUse, Metadata};
use crate::core::Core;
use crate::dispatch::task::Granted;
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
    /// The lease is not the newest of its step, so that nobody knows whose it was.
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
    /// Gives the agent that had a lease what is there now. The same key again gives it
    /// what it was given before and has not begun with, if there is anything.
    ///
    /// # Errors
    /// Why it is given nothing.
    pub async fn claim_after(
        &self,
        after: &Aftermath,
        appetite: Appetite,
        metadata: Metadata,
    ) -> Result<Vec<Granted>, ClaimRefusal> {
        if !self.projected.shows(self.projected.answered()).await {
            return Err(ClaimRefusal::Overloaded);
        }
        let Holder { agent, incarnation } = after.holder.clone().ok_or(ClaimRefusal::LeaseLost)?;
        self.hear(&agent, Some(incarnation), None, &metadata).await?;
        self.check_takes_work(&agent)?;
        let metadata = Metadata { key: metadata.key.map(key_of_the_claim), ..metadata };
        let begun = |lease: &LeaseId| self.holder(lease).is_some_and(|(_, started)| started);
        if let Some(granted) = self.granted_to(&agent, &metadata, |lease| !begun(lease)).await {
            return Ok(granted);
        }
        Ok(self.wait_for_work(&agent, incarnation, appetite, 0, metadata).await?)
    }

    /// The leases that the same key was given before, of those that live the ones that count.
    pub(crate) async fn granted_to(
        &self,
        agent: &AgentId,
        metadata: &Metadata,
        counts: impl Fn(&LeaseId) -> bool,
    ) -> Option<Vec<Granted>> {
        let key = metadata.key?;
        let now = self.around.clock.now();
        let leases = self.projected.keys.lock().get(&key.key, now).map(|used| used.leases.clone())?;
        let mut granted = Vec::new();
        for lease in leases.iter().filter(|lease| counts(lease)) {
            granted.extend(self.granted(agent, lease).await);
        }
        (!granted.is_empty()).then_some(granted)
    }

    /// A live lease as it was granted to this agent.
    async fn granted(&self, agent: &AgentId, lease: &LeaseId) -> Option<Granted> {
        let (revision, incarnation) = {
            let views = self.projected.views.read();
            let held = views.leases.get(lease)?;
            if held.agent != *agent || held.state != State::Held {
                return None;
            }
            (views.operations.get(&lease.operation)?.revision, held.incarnation)
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
            incarnation,
            attempt: holder.attempt,
            inputs: operation.inputs.get(&lease.step).cloned().unwrap_or_else(Json::object),
            candidates: Candidates::default(),
            title: operation.title(position).map(str::to_owned),
        };
        Some(Granted {
            reserved: Box::new(reserved),
            action: definition.action.clone(),
            timeout_ms: definition.timeout_ms,
            effect: definition.effect,
            checkpoint: operation.checkpoints.get(&lease.step).cloned(),
        })
    }

    fn check_takes_work(&self, id: &AgentId) -> Result<(), ClaimRefusal> {
        let (views, now) = (self.projected.views.read(), self.now());
        let row = views.agents.get(id).ok_or(ClaimRefusal::UnknownAgent)?;
        let agent = &row.agent;
        // The quarantine follows the report that leads to it a moment later.
        if agent.is_quarantined()
            || row.work.streaks.verdict(&agent.profile.config, &self.thresholds).is_some()
        {
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
            ProtocolError::Overloaded => Self::Overloaded,
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
