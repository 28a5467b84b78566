//! The agent protocol: claim, heartbeat, report. Joins presence, which is memory, with the aggregates,
//! which are history. Knows neither HTTP nor JSON bodies.

mod words;

use std::sync::atomic::Ordering;

use actix::prelude::{Addr, SendError};
use domain::agent::event::{ReportedMetrics, Status, StatusReason};
use domain::agent::{self, Agent};
use domain::operation::step::StepStatus;
use domain::operation::{Command, Operation, Rejection, StepWish};
use domain::views::agent_directory::Row;
use domain::views::leases::State;
use domain::{ActionName, AgentId, LeaseId, Timestamp, presence};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::aggregate_actor::{Answer, DispatchError, Receipt};
use crate::codec::Metadata;
use crate::core::Core;
use crate::dispatch::actor::{Ask, Dispatcher, HangUp};
use crate::dispatch::claims::{Claim, ClaimId};
use crate::dispatch::task::Granted;
use crate::gateway::{Gateway, Order};
use crate::matching::Appetite;

pub use words::{Beat, Directive, LeaseBeat, LeaseInfo, Pulse, Renewed};

/// Why a claim or a heartbeat was refused.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// Register first.
    #[error("agent {0} is not registered: register it again")]
    UnknownAgent(AgentId),
    /// A newer incarnation has taken over.
    #[error("incarnation {given} is over, the current one is {current}")]
    StaleIncarnation {
        /// The caller's.
        given: u64,
        /// The newest.
        current: u64,
    },
    /// No work is given out now.
    #[error("no work is given out now")]
    Draining,
    /// Too many claims wait.
    #[error("too many claims wait")]
    Overloaded,
}

/// What is known of an agent that was just heard, before it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) incarnation: u64,
    status: Status,
    is_timed_out: bool,
    is_drained: bool,
    heartbeat_interval_ms: u64,
    reported: ReportedMetrics,
}

impl Heard {
    fn of(row: &Row) -> Self {
        let agent = &row.agent;
        Self {
            incarnation: agent.incarnation,
            status: agent.status,
            is_timed_out: agent.is_timed_out(),
            is_drained: agent.is_drained(),
            heartbeat_interval_ms: agent.profile.config.heartbeat_interval_ms,
            reported: row.reported,
        }
    }
}

/// A claim that waits. Dropped before it is answered, it tells the dispatcher that the client is gone.
struct Waiting {
    dispatcher: Addr<Dispatcher>,
    agent: AgentId,
    claim: Option<ClaimId>,
}

impl Waiting {
    fn answered(mut self) {
        self.claim = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            // If the dispatcher has too much to do, it finds out by itself a moment later.
            let _ = self.dispatcher.try_send(HangUp { agent: self.agent.clone(), claim });
        }
    }
}

impl Core {
    pub(crate) fn now(&self) -> Timestamp {
        self.around.clock.now()
    }

    /// Milliseconds that a lease has left, by its last sign of life.
    #[must_use]
    pub fn remaining_ms(&self, lease: &LeaseId, since: Timestamp, started: bool) -> u64 {
        let full = if started { self.periods.lease_ms } else { self.periods.offer_ms };
        let renewed = self.presence.renewed(lease).unwrap_or(since).max(since);
        full.saturating_sub(self.now().ms_since(renewed))
    }

    /// Milliseconds that a live lease has left; none when it is over.
    #[must_use]
    pub fn remaining_of(&self, lease: &LeaseId) -> Option<u64> {
        let (since, started) = {
            let views = self.projected.views.read();
            let run = views.operations.get(&lease.operation)?.run.as_ref()?;
            let step = &run.steps[run.skeleton.position(lease.step)?];
            let holder = step.status.holder().filter(|_| step.grant == lease.grant)?;
            (holder.since, matches!(step.status, StepStatus::Running(_)))
        };
        Some(self.remaining_ms(lease, since, started))
    }

    /// The same for a lease that was just granted: the views may not show it yet.
    #[must_use]
    pub fn remaining_of_grant(&self, lease: &LeaseId) -> u64 {
        self.remaining_of(lease).unwrap_or(self.periods.offer_ms)
    }

    /// Every lease of this moment.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseInfo> {
        let views = self.projected.views.read();
        let mut leases = Vec::new();
        for id in views.operations.open() {
            let Some(run) = views.operations.get(id).and_then(|row| row.run.as_ref()) else { continue };
            for position in &run.held {
                let (step, number) = (&run.steps[*position], run.skeleton.steps[*position].step);
                let Some(holder) = step.status.holder() else { continue };
                let lease = LeaseId { operation: id.clone(), step: number, grant: step.grant };
                let started = matches!(step.status, StepStatus::Running(_));
                leases.push(LeaseInfo {
                    remaining_ms: self.remaining_ms(&lease, holder.since, started),
                    agent: holder.agent.clone(),
                    attempt: holder.attempt,
                    since: holder.since,
                    started,
                    lease,
                });
            }
        }
        leases
    }

    /// Waits for work. Empty when none came in time.
    ///
    /// # Errors
    /// When the agent is not registered, or no work is given out.
    pub async fn claim(
        &self,
        agent: &AgentId,
        incarnation: Option<u64>,
        appetite: Appetite,
        wait_ms: u64,
        metadata: Metadata,
    ) -> Result<Vec<Granted>, ProtocolError> {
        let incarnation = self.hear(agent, incarnation, None, &metadata).await?.incarnation;
        if let Some(granted) = self.granted_before(agent, &metadata).await {
            return Ok(granted);
        }
        self.wait_for_work(agent, incarnation, appetite, wait_ms, metadata).await
    }

    /// Lets a claim wait; one that waits for no time is matched once.
    pub(crate) async fn wait_for_work(
        &self,
        agent: &AgentId,
        incarnation: u64,
        appetite: Appetite,
        wait_ms: u64,
        metadata: Metadata,
    ) -> Result<Vec<Granted>, ProtocolError> {
        let dispatcher = self.dispatcher().ok_or(ProtocolError::Draining)?;
        let (reply, answer) = oneshot::channel();
        let until = self.now().plus_ms(wait_ms);
        let id = ClaimId(self.claims_made.fetch_add(1, Ordering::Relaxed));
        let claim = Claim { id, agent: agent.clone(), incarnation, appetite, until, metadata };
        let waiting = Waiting { dispatcher: dispatcher.clone(), agent: agent.clone(), claim: Some(id) };
        dispatcher.try_send(Ask { claim, reply }).map_err(|refused| match refused {
            SendError::Full(_) => ProtocolError::Overloaded,
            SendError::Closed(_) => ProtocolError::Draining,
        })?;
        let granted = answer.await.unwrap_or_default();
        waiting.answered();
        Ok(granted)
    }

    /// The leases that the same key was given before, as far as they live.
    async fn granted_before(&self, agent: &AgentId, metadata: &Metadata) -> Option<Vec<Granted>> {
        self.granted_to(agent, metadata, |_| true).await
    }

    /// An agent was heard: it is present, and active again if only its silence had ended that.
    pub(crate) async fn hear(
        &self,
        id: &AgentId,
        incarnation: Option<u64>,
        metrics: Option<ReportedMetrics>,
        metadata: &Metadata,
    ) -> Result<Heard, ProtocolError> {
        let known = self.projected.views.read().agents.get(id).map(Heard::of);
        let agent = known.ok_or_else(|| ProtocolError::UnknownAgent(id.clone()))?;
        if let Some(given) = incarnation.filter(|given| *given < agent.incarnation) {
            return Err(ProtocolError::StaleIncarnation { given, current: agent.incarnation });
        }
        let sample_due = self.presence.heard(id, metrics, self.now(), self.periods.sample_ms);
        // Presence must not fail a call: what cannot be recorded now is recorded at the next sign of life.
        if agent.is_timed_out {
            let (status, reason) = (Status::Active, StatusReason::HeardAgain);
            let command = agent::Command::SetStatus { status, reason };
            // A claim that follows is matched by what the views show.
            let _ = self.gateway.execute_shown::<Agent>(id, Order::of(command, plain(metadata))).await;
        } else if sample_due {
            let seen = presence::Seen { agent: id.clone(), metrics: metrics.unwrap_or(agent.reported) };
            self.system.note_presence(&presence::Event::Seen(seen));
        }
        Ok(agent)
    }

    /// Counts a heartbeat as a sign of life of the agent and of the leases that it names, as far as the views
    /// show them. To be called when it arrives, before it waits for anything.
    pub fn note_presence(&self, id: &AgentId, beat: &Beat) {
        let incarnation = self.projected.views.read().agents.get(id).map(|row| row.agent.incarnation);
        let Some(current) = incarnation else { return };
        if beat.incarnation.is_some_and(|given| given < current) {
            return;
        }
        self.presence.heard(id, None, self.now(), u64::MAX);
        for lease in &beat.leases {
            if self.holder(&lease.lease).is_some_and(|(holder, _)| holder == *id) {
                self.presence.renew(&lease.lease, self.now());
            }
        }
    }

    /// Takes a heartbeat and says what to do.
    ///
    /// # Errors
    /// When the agent is not registered, or a newer incarnation has taken over.
    pub async fn heartbeat(
        &self,
        id: &AgentId,
        beat: Beat,
        metadata: &Metadata,
    ) -> Result<Pulse, ProtocolError> {
        let agent = self.hear(id, beat.incarnation, beat.metrics, metadata).await?;
        // Even if it is the status of before: being heard may have changed it.
        if let Some(status) = beat.status {
            let command = agent::Command::SetStatus { status, reason: StatusReason::Heartbeat };
            let _ = self.gateway.execute::<Agent>(id, Order::of(command, plain(metadata))).await;
        }
        let mut pulse = Pulse { next_ms: agent.heartbeat_interval_ms, ..Pulse::default() };
        // All first: what cannot be said of one lease must not cost the agent another.
        self.note_presence(id, &beat);
        for lease in beat.leases {
            let name = lease.lease.clone();
            match self.renew(id, lease, metadata).await {
                Ok(Some(renewed)) => pulse.renewed.push(renewed),
                Ok(None) if self.is_closing(&name) => pulse.directives.push(Directive::Cancel(name)),
                Ok(None) => pulse.directives.push(Directive::Lost(name)),
                // It was held, so that naming it has renewed it.
                Err(fault) => {
                    pulse.renewed.push(self.renewed(&name));
                    pulse.rejected.push((name, fault));
                }
            }
        }
        self.add_closing(id, &mut pulse);
        // Silence alone is no wish to drain: being heard has ended it.
        let drained = agent.status == Status::Inactive && !agent.is_timed_out;
        let wanted = beat.status.map_or(drained, |status| status == Status::Inactive);
        if wanted || agent.is_drained {
            pulse.directives.push(Directive::Drain);
        }
        Ok(pulse)
    }

    /// Names every lease of the agent whose step was cancelled, whether the agent spoke of it or not.
    fn add_closing(&self, agent: &AgentId, pulse: &mut Pulse) {
        let views = self.projected.views.read();
        let closing = views.leases.of_agent(agent).filter(|(_, lease)| lease.state != State::Held);
        for (lease, _) in closing {
            let directive = Directive::Cancel(lease);
            if !pulse.directives.contains(&directive) {
                pulse.directives.push(directive);
            }
        }
    }

    /// Whether the step of this lease was cancelled while its agent still worked.
    #[must_use]
    pub fn is_closing(&self, lease: &LeaseId) -> bool {
        self.projected.views.read().leases.is_closing(lease)
    }

    fn renewed(&self, lease: &LeaseId) -> Renewed {
        Renewed { lease: lease.clone(), remaining_ms: self.periods.lease_ms, checkpoint_kept: None }
    }

    /// Renews one lease of this agent; none when it is not its lease any more.
    async fn renew(
        &self,
        agent: &AgentId,
        beat: LeaseBeat,
        metadata: &Metadata,
    ) -> Result<Option<Renewed>, DispatchError<Operation>> {
        let Some((holder, started)) = self.holder(&beat.lease) else { return Ok(None) };
        if holder != *agent {
            return Ok(None);
        }
        let mut renewed = self.renewed(&beat.lease);
        let sign = match beat.progress {
            Some(progress) => Some(StepWish::Progress { progress, note: beat.note, usage: None }),
            None if !started && beat.checkpoint.is_none() => Some(StepWish::Acknowledge),
            None => None,
        };
        if let Some(wish) = sign
            && !self.taken(&beat.lease, wish, metadata).await?
        {
            return Ok(None);
        }
        if let Some(checkpoint) = beat.checkpoint {
            let wish = StepWish::Checkpoint(checkpoint);
            let outcome = self.step(&beat.lease, wish, plain(metadata)).await;
            renewed.checkpoint_kept = match outcome {
                Ok(_) => Some(true),
                Err(DispatchError::Rejected(Rejection::Early)) => Some(false),
                Err(DispatchError::Rejected(rejection)) if is_over(&rejection) => return Ok(None),
                Err(fault) => return Err(fault),
            };
        }
        Ok(Some(renewed))
    }

    /// Puts a wish about one step to its operation. When the lease is over, the views show why before this
    /// returns: what an agent is told next depends on it.
    async fn step(
        &self,
        lease: &LeaseId,
        wish: StepWish,
        metadata: Metadata,
    ) -> Result<Receipt<Operation>, DispatchError<Operation>> {
        let command = Command::Step { step: lease.step, grant: lease.grant, wish };
        self.put_step(lease, Order::of(command, metadata)).await
    }

    /// The same for a command that is made already.
    pub(crate) async fn put_step(
        &self,
        lease: &LeaseId,
        order: Order<Operation>,
    ) -> Result<Receipt<Operation>, DispatchError<Operation>> {
        let Answer { outcome, rests_on } = self.gateway.answer(&lease.operation, order).await;
        if let Err(DispatchError::Rejected(rejection)) = &outcome
            && is_over(rejection)
        {
            // If they do not in time, the agent is told that the lease is lost, which it is.
            self.projected.shows(rests_on).await;
        }
        outcome
    }

    /// Whether a report was taken; false when the lease is over.
    async fn taken(
        &self,
        lease: &LeaseId,
        wish: StepWish,
        metadata: &Metadata,
    ) -> Result<bool, DispatchError<Operation>> {
        match self.step(lease, wish, plain(metadata)).await {
            Ok(_) => Ok(true),
            Err(DispatchError::Rejected(rejection)) if is_over(&rejection) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Who holds a lease now, and whether the attempt has begun.
    #[must_use]
    pub fn holder(&self, lease: &LeaseId) -> Option<(AgentId, bool)> {
        let views = self.projected.views.read();
        let run = views.operations.get(&lease.operation)?.run.as_ref()?;
        let step = &run.steps[run.skeleton.position(lease.step)?];
        let holder = step.status.holder().filter(|_| step.grant == lease.grant)?;
        Some((holder.agent.clone(), matches!(step.status, StepStatus::Running(_))))
    }

    /// Puts an agent's report about a lease to its operation; any report is a sign of life.
    ///
    /// # Errors
    /// Why it was not, or perhaps not, taken.
    pub async fn report(
        &self,
        lease: &LeaseId,
        wish: StepWish,
        metadata: Metadata,
    ) -> Result<Receipt<Operation>, DispatchError<Operation>> {
        let ends = matches!(
            wish,
            StepWish::Complete { .. }
                | StepWish::Fail { .. }
                | StepWish::Release { .. }
                | StepWish::Limit { .. }
        );
        if ends {
            return self.settle(lease, wish, metadata).await.map(|settled| settled.receipt);
        }
        self.note_report(lease);
        self.step(lease, wish, metadata).await
    }

    /// Counts a report, also one that is refused, as a sign of life of the lease and its agent, as far as the
    /// views show them.
    pub fn note_report(&self, lease: &LeaseId) {
        if let Some((agent, _)) = self.holder(lease) {
            let now = self.now();
            self.presence.renew(lease, now);
            self.presence.heard(&agent, None, now, u64::MAX);
        }
    }
}

/// Puts a wish about one step to its operation.
///
/// # Errors
/// Why it was not, or perhaps not, carried out.
pub async fn execute_step(
    gateway: &Gateway,
    lease: &LeaseId,
    wish: StepWish,
    metadata: Metadata,
) -> Result<Receipt<Operation>, DispatchError<Operation>> {
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    gateway.execute(&lease.operation, Order::of(command, metadata)).await
}

/// Whether a rejection says that the lease is over, rather than that the report was wrong.
fn is_over(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::LeaseLost
            | Rejection::AlreadyTerminal { .. }
            | Rejection::Unknown
            | Rejection::UnknownStep(_)
    )
}

/// Metadata without the key, for what is only a by-product of the request.
fn plain(metadata: &Metadata) -> Metadata {
    Metadata { key: None, ..metadata.clone() }
}

impl Appetite {
    /// For so many steps of any action.
    #[must_use]
    pub fn of(max: u32, actions: Option<Vec<ActionName>>) -> Self {
        Self { max, actions }
    }
}
