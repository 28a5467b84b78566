//! What an operation waits for, derived from its run alone: the same before a crash as after it.

use crate::operation::step::{Run, Status, StepStatus};
use crate::{AgentId, Timestamp};

/// Work that the shell owes an operation, or a moment it must wake it at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find an agent for this step.
    Offer {
        /// The step's number.
        step: u32,
    },
    /// Take the offer back when no sign of life comes.
    AwaitTaker {
        /// The step's number.
        step: u32,
        /// The grant.
        grant: u64,
        /// To whom it was offered.
        agent: AgentId,
    },
    /// Watch the lease, and end the attempt at its timeout.
    Watch {
        /// The step's number.
        step: u32,
        /// The grant.
        grant: u64,
        /// Who runs it.
        agent: AgentId,
        /// When the attempt began.
        since: Timestamp,
        /// Its hard stop, in milliseconds from then.
        timeout_ms: u64,
    },
    /// Offer it again then.
    Retry {
        /// The step's number.
        step: u32,
        /// Not before then.
        at: Timestamp,
        /// The whole wait.
        delay_ms: u64,
    },
}

/// What one step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// The operation to be started.
    Start,
    /// These steps to be satisfied.
    Dependencies(Vec<u32>),
    /// An agent with a free slot that fits.
    Agent,
    /// A sign of life of the agent it was offered to.
    Acknowledgement(AgentId),
    /// The agent's report, or the end of its lease or timeout.
    Report(AgentId),
    /// The next attempt's moment.
    Retry(Timestamp),
}

impl BlockedOn {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Dependencies(_) => "dependencies",
            Self::Agent => "agent",
            Self::Acknowledgement(_) => "acknowledgement",
            Self::Report(_) => "report",
            Self::Retry(_) => "retry",
        }
    }
}

impl Run {
    /// Everything owed, ready steps included.
    #[must_use]
    pub fn pending(&self) -> Vec<Effect> {
        let ready = self.ready.iter().map(|at| Effect::Offer { step: self.skeleton.steps[*at].step });
        ready.chain(self.waits()).collect()
    }

    /// The moments to wake at: of steps that an agent has, and of those between attempts.
    #[must_use]
    pub fn waits(&self) -> Vec<Effect> {
        self.watches().chain(self.backing_off.iter().filter_map(|at| self.wait(*at))).collect()
    }

    /// The same, of steps that an agent has.
    pub fn watches(&self) -> impl Iterator<Item = Effect> {
        self.held.iter().filter_map(|at| self.wait(*at))
    }

    fn wait(&self, position: usize) -> Option<Effect> {
        let (definition, run) = (&self.skeleton.steps[position], &self.steps[position]);
        let (step, grant) = (definition.step, run.grant);
        match &run.status {
            StepStatus::Reserved(holder) => {
                Some(Effect::AwaitTaker { step, grant, agent: holder.agent.clone() })
            }
            StepStatus::Running(holder) => Some(Effect::Watch {
                step,
                grant,
                agent: holder.agent.clone(),
                since: holder.since,
                timeout_ms: definition.timeout_ms,
            }),
            StepStatus::BackingOff { at, delay_ms } => {
                Some(Effect::Retry { step, at: *at, delay_ms: *delay_ms })
            }
            _ => None,
        }
    }

    /// What the step at `position` waits for; none when it is settled.
    #[must_use]
    pub fn blocked_on(&self, position: usize) -> Option<BlockedOn> {
        let run = &self.steps[position];
        Some(match &run.status {
            StepStatus::Pending if self.status == Status::Pending && run.unsatisfied == 0 => BlockedOn::Start,
            StepStatus::Pending => BlockedOn::Dependencies(self.open_dependencies(position)),
            StepStatus::Ready => BlockedOn::Agent,
            StepStatus::Reserved(holder) => BlockedOn::Acknowledgement(holder.agent.clone()),
            StepStatus::Running(holder) => BlockedOn::Report(holder.agent.clone()),
            StepStatus::BackingOff { at, .. } => BlockedOn::Retry(*at),
            _ => return None,
        })
    }

    fn open_dependencies(&self, position: usize) -> Vec<u32> {
        let dependencies = self.skeleton.dependencies[position].iter();
        let open = dependencies.filter(|other| !self.steps[**other].status.is_settled());
        open.map(|other| self.skeleton.steps[*other].step).collect()
    }
}
