//! What an operation waits for, derived from its run alone: the same before a crash as after it.

use std::collections::BTreeSet;

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
    /// Say that no person answered in time.
    AwaitAnswer {
        /// The step's number.
        step: u32,
        /// The latest moment for an answer.
        until: Timestamp,
        /// The whole wait.
        timeout_ms: u64,
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
    /// The operation to be resumed.
    Resume,
    /// The agent that it asks for, which may have it again at that moment.
    Window(Timestamp),
    /// A person's yes or no, until that moment.
    Approval(Timestamp),
    /// A person who finds out what became of the last attempt.
    Attention,
}

/// The kinds of [`BlockedOn`], to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "BlockedOn says what each is")]
pub enum Cause {
    Start,
    Resume,
    Dependencies,
    Agent,
    Window,
    Acknowledgement,
    Report,
    Retry,
    Approval,
    Attention,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Resume,
        Self::Dependencies,
        Self::Agent,
        Self::Window,
        Self::Acknowledgement,
        Self::Report,
        Self::Retry,
        Self::Approval,
        Self::Attention,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resume => "resume",
            Self::Dependencies => "dependencies",
            Self::Agent => "agent",
            Self::Window => "window",
            Self::Acknowledgement => "acknowledgement",
            Self::Report => "report",
            Self::Retry => "retry",
            Self::Approval => "approval",
            Self::Attention => "attention",
        }
    }
}

impl BlockedOn {
    /// Its kind.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Start => Cause::Start,
            Self::Resume => Cause::Resume,
            Self::Dependencies(_) => Cause::Dependencies,
            Self::Agent => Cause::Agent,
            Self::Window(_) => Cause::Window,
            Self::Acknowledgement(_) => Cause::Acknowledgement,
            Self::Report(_) => Cause::Report,
            Self::Retry(_) => Cause::Retry,
            Self::Approval(_) => Cause::Approval,
            Self::Attention => Cause::Attention,
        }
    }
}

impl Run {
    /// Everything owed, ready steps included unless the operation is paused.
    #[must_use]
    pub fn pending(&self) -> Vec<Effect> {
        let ready = self.ready.iter().filter(|_| !self.paused);
        let ready = ready.map(|at| Effect::Offer { step: self.skeleton.steps[*at].step });
        ready.chain(self.waits()).collect()
    }

    /// The moments to wake at: of steps that an agent or a person has, and of those between attempts.
    #[must_use]
    pub fn waits(&self) -> Vec<Effect> {
        self.watches().chain(self.backing_off.iter().filter_map(|at| self.wait(*at))).collect()
    }

    /// The same, of steps that an agent or a person has.
    pub fn watches(&self) -> impl Iterator<Item = Effect> {
        self.held.iter().chain(&self.with_people).filter_map(|at| self.wait(*at))
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
            StepStatus::AwaitingApproval { until, timeout_ms } => {
                Some(Effect::AwaitAnswer { step, until: *until, timeout_ms: *timeout_ms })
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
            StepStatus::Ready if self.paused => BlockedOn::Resume,
            StepStatus::Ready => self.window(position).map_or(BlockedOn::Agent, BlockedOn::Window),
            StepStatus::Reserved(holder) => BlockedOn::Acknowledgement(holder.agent.clone()),
            StepStatus::Running(holder) => BlockedOn::Report(holder.agent.clone()),
            StepStatus::BackingOff { at, .. } => BlockedOn::Retry(*at),
            StepStatus::AwaitingApproval { until, .. } => BlockedOn::Approval(*until),
            StepStatus::NeedsAttention => BlockedOn::Attention,
            _ => return None,
        })
    }

    /// What its steps wait for, each kind once.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<Cause> {
        Cause::ALL.into_iter().filter(|cause| self.waits_for(*cause)).collect()
    }

    /// Whether a step waits for this.
    #[must_use]
    pub fn waits_for(&self, cause: Cause) -> bool {
        let of = |positions: &BTreeSet<usize>| {
            let mut causes = positions.iter().filter_map(|at| self.blocked_on(*at));
            causes.any(|blocked| blocked.cause() == cause)
        };
        match cause {
            Cause::Start => self.status == Status::Pending,
            Cause::Resume => self.paused && !self.ready.is_empty(),
            Cause::Dependencies => {
                let elsewhere = self.ready.len() + self.held.len() + self.backing_off.len();
                let open = self.steps.len() - self.settled - elsewhere - self.with_people.len();
                match self.status {
                    Status::Pending => self.steps.iter().any(|step| step.unsatisfied > 0),
                    _ => open > 0,
                }
            }
            Cause::Agent | Cause::Window => of(&self.ready),
            Cause::Acknowledgement | Cause::Report => of(&self.held),
            Cause::Retry => !self.backing_off.is_empty(),
            Cause::Approval | Cause::Attention => of(&self.with_people),
        }
    }

    /// Until when the step is kept from the one agent that it asks for.
    fn window(&self, position: usize) -> Option<Timestamp> {
        let asked = self.skeleton.steps[position].agent.as_ref()?;
        let held = self.steps[position].held_from.iter().find(|(agent, _)| agent == asked);
        held.map(|(_, until)| *until)
    }

    fn open_dependencies(&self, position: usize) -> Vec<u32> {
        let dependencies = self.skeleton.dependencies[position].iter();
        let open = dependencies.filter(|other| !self.steps[**other].status.is_settled());
        open.map(|other| self.skeleton.steps[*other].step).collect()
    }
}
