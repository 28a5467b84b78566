//! The only way to the aggregates: bounded, and with a deadline. Before an answer leaves, the position that
//! it rests on is noted, so that every later request can wait until the views have reached it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::ArbiterHandle;
use domain::Timestamp;
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use events::{Position, StreamId, Version};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::aggregate_actor::{Answer, DispatchError, Execute, Glance, Receipt, Surroundings};
use crate::codec::{Durable, Metadata};
use crate::directory::Directory;
use crate::projections::Projected;
use crate::supervisor::{Birth, Supervisor};

/// Commands under way at once, all aggregates together.
pub const UNDER_WAY_MAX: usize = 8_192;
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the log's head after an answer that says nothing.
const HEAD_WITHIN: Duration = Duration::from_secs(2);

/// A command on its way to an aggregate.
pub struct Order<A: Durable> {
    /// The wish.
    pub command: A::Command,
    /// Who and why.
    pub metadata: Metadata,
    /// Refuse unless the stream is at one of these versions.
    pub if_version: Option<Vec<Version>>,
    /// Whether the receipt shall hold the state.
    pub wants_state: bool,
    /// The id was made for this command: its stream does not exist.
    pub new: bool,
    /// Looks at the state right after the command.
    pub glance: Option<Glance<A>>,
}

/// What a glance at a state has found.
pub struct Found<T>(Arc<Mutex<Option<T>>>);

impl<T> Found<T> {
    /// Takes it; none when the command was not decided.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<A: Durable> Order<A> {
    /// The plain order.
    #[must_use]
    pub fn of(command: A::Command, metadata: Metadata) -> Self {
        Self { command, metadata, if_version: None, wants_state: false, new: false, glance: None }
    }

    /// Something shall be found in the state right after the command, which costs less than to keep the state
    /// for the receipt: other commands need not copy it.
    #[must_use]
    pub fn looking<T: Send + 'static>(
        mut self,
        look: impl Fn(&A) -> T + Send + Sync + 'static,
    ) -> (Self, Found<T>) {
        let found = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&found);
        self.glance = Some(Arc::new(move |state: &A| *kept.lock() = Some(look(state))));
        (self, Found(found))
    }

    /// The receipt shall hold the state.
    #[must_use]
    pub fn with_state(mut self) -> Self {
        self.wants_state = true;
        self
    }
}

/// An aggregate that has a directory here.
pub trait Housed: Durable {
    /// The directory of its kind.
    fn directory(gateway: &Gateway) -> &Directory<Self>;
}

impl Housed for Operation {
    fn directory(gateway: &Gateway) -> &Directory<Self> {
        &gateway.operations
    }
}

impl Housed for Agent {
    fn directory(gateway: &Gateway) -> &Directory<Self> {
        &gateway.agents
    }
}

impl Housed for Lane {
    fn directory(gateway: &Gateway) -> &Directory<Self> {
        &gateway.lanes
    }
}

/// The door.
pub struct Gateway {
    operations: Directory<Operation>,
    agents: Directory<Agent>,
    lanes: Directory<Lane>,
    supervisor: Arc<Supervisor>,
    around: Arc<Surroundings>,
    projected: Arc<Projected>,
    permits: Semaphore,
}

impl Gateway {
    /// Opens the door; actors will live on this arbiter.
    #[must_use]
    pub fn new(
        around: &Arc<Surroundings>,
        supervisor: &Arc<Supervisor>,
        projected: Arc<Projected>,
        arbiter: &ArbiterHandle,
    ) -> Self {
        let (around, supervisor) = (Arc::clone(around), Arc::clone(supervisor));
        Self {
            operations: Directory::new(Arc::clone(&around), Arc::clone(&supervisor), arbiter.clone()),
            agents: Directory::new(Arc::clone(&around), Arc::clone(&supervisor), arbiter.clone()),
            lanes: Directory::new(Arc::clone(&around), Arc::clone(&supervisor), arbiter.clone()),
            supervisor,
            around,
            projected,
            permits: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    /// Actors that live now.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.operations.len() + self.agents.len() + self.lanes.len()
    }

    /// Commands under way now.
    #[must_use]
    pub fn under_way(&self) -> usize {
        UNDER_WAY_MAX - self.permits.available_permits()
    }

    /// Sends actors to rest that were not used for `idle_ms`.
    pub fn rest_idle(&self, now: Timestamp, idle_ms: u64) {
        self.operations.rest_idle(now, idle_ms);
        self.agents.rest_idle(now, idle_ms);
        self.lanes.rest_idle(now, idle_ms);
    }

    /// Has a command carried out. Returns when the log has what it led to; the views may lag.
    ///
    /// # Errors
    /// Why it was not, or perhaps not, carried out.
    pub async fn execute<A: Housed>(
        &self,
        id: &A::Id,
        order: Order<A>,
    ) -> Result<Receipt<A>, DispatchError<A>> {
        self.answer(id, order).await.outcome
    }

    /// The same, and the position that the answer rests on: for a caller that looks at the views next, and
    /// must wait for them first. A refusal and a repetition rest on events of others.
    pub async fn answer<A: Housed>(&self, id: &A::Id, order: Order<A>) -> Answer<A> {
        let answer = match self.answered(id, order).await {
            Ok(answer) => answer,
            Err(fault) => Answer { outcome: Err(fault), rests_on: Position::default() },
        };
        self.projected.raise_answered(answer.rests_on);
        if let Err(DispatchError::OutcomeUnknown | DispatchError::Crashed) = &answer.outcome {
            self.raise_to_head().await;
        }
        answer
    }

    /// The highest position that any answer rested on.
    #[must_use]
    pub fn highest_answered(&self) -> Position {
        self.projected.answered()
    }

    /// Has a command carried out, and returns when the views show what the answer rests on.
    ///
    /// # Errors
    /// Why it was not, or perhaps not, carried out.
    pub async fn execute_shown<A: Housed>(
        &self,
        id: &A::Id,
        order: Order<A>,
    ) -> Result<Receipt<A>, DispatchError<A>> {
        let Answer { outcome, rests_on } = self.answer(id, order).await;
        // When it is done and a look at the views would not show it, the caller must not be told that it
        // does.
        if !self.projected.reached(rests_on, DEADLINE).await && outcome.is_ok() {
            return Err(DispatchError::OutcomeUnknown);
        }
        outcome
    }

    /// What was perhaps carried out may be in the log by now. A request that is sent again with its key must
    /// find it there.
    async fn raise_to_head(&self) {
        if let Ok(Ok(head)) = timeout(HEAD_WITHIN, self.around.log.head()).await {
            self.projected.raise_answered(head);
        }
    }

    /// The actor's answer; an error when there is none.
    async fn answered<A: Housed>(&self, id: &A::Id, order: Order<A>) -> Result<Answer<A>, DispatchError<A>> {
        let Ok(_permit) = self.permits.try_acquire() else { return Err(DispatchError::Overloaded) };
        let deadline = Instant::now() + DEADLINE;
        let stream = stream_of::<A>(id);
        let again = self.wait_for_birth(&stream, deadline).await?;
        let visit = A::directory(self).visit(id, &stream, order.new, again);
        let (reply, answer) = oneshot::channel();
        let Order { command, metadata, if_version, wants_state, glance, .. } = order;
        let metadata = Arc::new(metadata);
        let execute = Execute { command, metadata, if_version, wants_state, glance, reply };
        visit.address().try_send(execute).map_err(|_| DispatchError::Overloaded)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // The actor ended with the command in its hands.
            Ok(Err(_)) => Err(DispatchError::Crashed),
            Err(_) => Err(DispatchError::OutcomeUnknown),
        }
    }

    /// Waits until the supervisor lets the actor be born. True when an earlier one died.
    async fn wait_for_birth<A: Durable>(
        &self,
        stream: &StreamId,
        deadline: Instant,
    ) -> Result<bool, DispatchError<A>> {
        loop {
            match self.supervisor.birth(stream) {
                Birth::Free => return Ok(false),
                Birth::Again => return Ok(true),
                Birth::Never => return Err(DispatchError::Quarantined),
                Birth::After(wait_ms) => {
                    let until = Instant::now() + Duration::from_millis(wait_ms);
                    if until > deadline {
                        return Err(DispatchError::Overloaded);
                    }
                    sleep_until(until).await;
                }
            }
        }
    }

    /// Makes the actor of one operation panic; only for tests of what happens then.
    #[cfg(feature = "testing")]
    pub fn sabotage(&self, operation: &domain::OperationId) {
        self.operations.sabotage(operation);
    }
}

/// The stream of an aggregate. Every id of the domain is a valid part of a stream's name.
#[must_use]
pub fn stream_of<A: Durable>(id: &A::Id) -> StreamId {
    StreamId::lossy(A::CATEGORY, &id.to_string())
}
