//! What an operation waits for, derived from its run alone: the same before a crash as after it.

use std::collections::BTreeSet;

use crate::operation::positions::Positions;
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
    /// Another step of the operation to end: as many are under way as may be.
    Room,
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
    Room,
    Window,
    Acknowledgement,
    Report,
    Retry,
    Approval,
    Attention,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Resume,
        Self::Dependencies,
        Self::Agent,
        Self::Room,
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
            Self::Room => "room",
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
            Self::Room => Cause::Room,
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

    /// What the step at `position` waits for by the last fact; none when it is settled. A moment that it
    /// names may have passed since: then it waits for an agent.
    #[must_use]
    pub fn blocked_on(&self, position: usize) -> Option<BlockedOn> {
        let run = &self.steps[position];
        Some(match &run.status {
            StepStatus::Pending if self.status == Status::Pending && run.unsatisfied == 0 => BlockedOn::Start,
            StepStatus::Pending => BlockedOn::Dependencies(self.open_dependencies(position)),
            StepStatus::Ready if self.paused => BlockedOn::Resume,
            StepStatus::Ready if self.is_full() => BlockedOn::Room,
            StepStatus::Ready => self.window(position).map_or(BlockedOn::Agent, BlockedOn::Window),
            StepStatus::Reserved(holder) => BlockedOn::Acknowledgement(holder.agent.clone()),
            StepStatus::Running(holder) => BlockedOn::Report(holder.agent.clone()),
            StepStatus::BackingOff { at, .. } => BlockedOn::Retry(*at),
            StepStatus::AwaitingApproval { until, .. } => BlockedOn::Approval(*until),
            StepStatus::NeedsAttention => BlockedOn::Attention,
            _ => return None,
        })
    }

    /// The kinds of what its steps wait for by the last fact, each once.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<Cause> {
        // Whatever moment a step waits for lies after the beginning of time.
        Cause::ALL.into_iter().filter(|cause| self.waits_for(*cause, Timestamp::default())).collect()
    }

    /// Whether a step waits for this now.
    #[must_use]
    pub fn waits_for(&self, cause: Cause, now: Timestamp) -> bool {
        let of = |positions: &Positions| positions.iter().any(|at| self.cause(*at, now) == Some(cause));
        match cause {
            Cause::Start => self.status == Status::Pending,
            Cause::Dependencies => {
                let elsewhere = self.ready.len() + self.held.len() + self.backing_off.len();
                let open = self.steps.len() - self.settled - elsewhere - self.with_people.len();
                match self.status {
                    Status::Pending => self.steps.iter().any(|step| step.unsatisfied > 0),
                    _ => open > 0,
                }
            }
            Cause::Resume | Cause::Agent | Cause::Room => of(&self.ready) || of(&self.backing_off),
            Cause::Window => of(&self.ready),
            Cause::Retry => of(&self.backing_off),
            Cause::Acknowledgement | Cause::Report => of(&self.held),
            Cause::Approval | Cause::Attention => of(&self.with_people),
        }
    }

    /// The kind of what a step waits for now: a moment that has passed is no cause any more.
    fn cause(&self, position: usize, now: Timestamp) -> Option<Cause> {
        let blocked = self.blocked_on(position)?;
        let over = match blocked {
            BlockedOn::Retry(at) | BlockedOn::Window(at) => at <= now,
            _ => false,
        };
        Some(match over {
            true if self.paused => Cause::Resume,
            true if self.is_full() => Cause::Room,
            true => Cause::Agent,
            false => blocked.cause(),
        })
    }

    /// Whether as many steps are under way as may be.
    fn is_full(&self) -> bool {
        self.max_parallel.is_some_and(|most| self.held.len() >= most as usize)
    }

    /// Until when the one agent that the step asks for cannot have it.
    fn window(&self, position: usize) -> Option<Timestamp> {
        let (asked, step) = (self.skeleton.steps[position].agent.as_ref()?, &self.steps[position]);
        let held = step.held_from.iter().find(|(agent, _)| agent == asked).map(|(_, until)| *until);
        held.max(step.limited_until)
    }

    fn open_dependencies(&self, position: usize) -> Vec<u32> {
        let dependencies = self.skeleton.dependencies[position].iter();
        let open = dependencies.filter(|other| !self.steps[**other].status.is_settled());
        open.map(|other| self.skeleton.steps[*other].step).collect()
    }
}
