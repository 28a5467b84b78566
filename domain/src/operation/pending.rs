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

    /// What the step at `position` waits for at this moment; none when it is settled. Whatever shows, counts
    /// or filters by what a step waits for asks here.
    #[must_use]
    pub fn blocked_on(&self, position: usize, now: Timestamp) -> Option<BlockedOn> {
        let run = &self.steps[position];
        Some(match &run.status {
            StepStatus::Pending if self.status == Status::Pending && run.unsatisfied == 0 => BlockedOn::Start,
            StepStatus::Pending => BlockedOn::Dependencies(self.open_dependencies(position)),
            StepStatus::BackingOff { at, .. } if *at > now => BlockedOn::Retry(*at),
            StepStatus::Ready | StepStatus::BackingOff { .. } if self.paused => BlockedOn::Resume,
            StepStatus::Ready | StepStatus::BackingOff { .. } if self.room() == 0 => BlockedOn::Room,
            StepStatus::Ready | StepStatus::BackingOff { .. } => {
                let window = self.window(position).filter(|until| *until > now);
                window.map_or(BlockedOn::Agent, BlockedOn::Window)
            }
            StepStatus::Reserved(holder) => BlockedOn::Acknowledgement(holder.agent.clone()),
            StepStatus::Running(holder) => BlockedOn::Report(holder.agent.clone()),
            StepStatus::AwaitingApproval { until, .. } => BlockedOn::Approval(*until),
            StepStatus::NeedsAttention => BlockedOn::Attention,
            _ => return None,
        })
    }

    /// The kinds of what its steps wait for now, each once.
    #[must_use]
    pub fn causes(&self, now: Timestamp) -> BTreeSet<Cause> {
        Cause::ALL.into_iter().filter(|cause| self.waits_for(*cause, now)).collect()
    }

    /// Whether a step waits for this now.
    #[must_use]
    pub fn waits_for(&self, cause: Cause, now: Timestamp) -> bool {
        let of = |positions: &Positions| positions.iter().any(|at| self.is_blocked_on(cause, *at, now));
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
            Cause::Resume | Cause::Agent | Cause::Room | Cause::Window => {
                of(&self.ready) || of(&self.backing_off)
            }
            Cause::Retry => of(&self.backing_off),
            Cause::Acknowledgement | Cause::Report => of(&self.held),
            Cause::Approval | Cause::Attention => of(&self.with_people),
        }
    }

    /// Positions of the steps that wait for an agent now. There may be more of them than there is
    /// [`Run::room`] for.
    pub fn awaiting_agents(&self, now: Timestamp) -> impl Iterator<Item = usize> {
        let all = self.ready.iter().chain(&self.backing_off).copied();
        all.filter(move |position| self.is_blocked_on(Cause::Agent, *position, now))
    }

    /// Since when the step at `position` can be reserved, if it can: it is ready, or its next attempt is due.
    /// Whether any step of the operation can be is told by [`Run::room`].
    #[must_use]
    pub fn due_since(&self, position: usize, now: Timestamp) -> Option<Timestamp> {
        let step = &self.steps[position];
        match &step.status {
            StepStatus::Ready => Some(step.ready_at.unwrap_or_default()),
            StepStatus::BackingOff { at, .. } => Some(*at).filter(|at| *at <= now),
            _ => None,
        }
    }

    /// How many more steps may be under way at once.
    #[must_use]
    pub fn room(&self) -> usize {
        let most = self.max_parallel.map_or(usize::MAX, |most| most as usize);
        if self.paused { 0 } else { most.saturating_sub(self.held.len()) }
    }

    /// The last moment that a step waited for and that has passed. What is shown of the operation changed
    /// then, though nothing happened to it.
    #[must_use]
    pub fn last_passed(&self, now: Timestamp) -> Option<Timestamp> {
        let retries = self.backing_off.iter().filter_map(|position| self.due_since(*position, now));
        let offered = self.ready.iter().chain(&self.backing_off);
        let windows = offered.filter_map(|position| self.window(*position));
        retries.chain(windows.filter(|until| *until <= now)).max()
    }

    pub(crate) fn is_blocked_on(&self, cause: Cause, position: usize, now: Timestamp) -> bool {
        self.blocked_on(position, now).is_some_and(|blocked| blocked.cause() == cause)
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
