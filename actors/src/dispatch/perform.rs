//! Has the aggregates carry out what the dispatcher wants done. Decides nothing: it translates a task into a
//! command, and an answer into what the dispatcher needs of it.

use domain::agent::event::StatusReason;
use domain::agent::{self, Agent};
use domain::operation::event::LeaseEnd;
use domain::operation::{Command, Event, Operation, StepWish};
use domain::{AgentId, LeaseId, OperationId};
use events::{Position, Version};

use super::task::{Answered, Grant, Granted, Outcome, Task};
use crate::aggregate_actor::{Answer, DispatchError, Receipt};
use crate::codec::{Durable, Metadata};
use crate::gateway::{Gateway, Order};

/// What is passed on of an answer.
type Told = (Outcome, Position, Option<Granted>);

/// Has a task carried out.
pub(super) async fn perform(gateway: &Gateway, task: Task) -> Answered {
    let subject = task.subject();
    let (outcome, rests_on, granted) = match task {
        Task::Grant(grant) => reserve(gateway, *grant).await,
        Task::Lease(lease, wish) => tell_lease(gateway, &lease, wish).await,
        Task::ExpireApproval(id, step) => tell(gateway, &id, Command::ExpireApproval { step }).await,
        Task::ExpireDeadline(id) => tell(gateway, &id, Command::ExpireDeadline).await,
        Task::TimeOut(id, silent_ms) => told(
            &gateway.answer::<Agent>(&id, Order::of(agent::Command::TimeOut { silent_ms }, photon())).await,
        ),
        Task::Quarantine { agent, reason, revision } => quarantine(gateway, &agent, reason, revision).await,
    };
    Answered { subject, outcome, rests_on, granted }
}

async fn reserve(gateway: &Gateway, grant: Grant) -> Told {
    let Grant { lease, agent, incarnation, candidates, action, timeout_ms, effect, metadata, .. } = grant;
    let wish = StepWish::Reserve { agent, incarnation, candidates };
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    let order = Order::<Operation>::of(command, metadata);
    let order = Order { wants_state: grant.has_checkpoint, ..order };
    let Answer { outcome, rests_on } = gateway.answer(&lease.operation, order).await;
    let granted = outcome.as_ref().ok().and_then(|receipt: &Receipt<Operation>| {
        // None when the step could not be offered after all, or was reserved under this lease before.
        let reserved = receipt.events.iter().find_map(|event| match &**event {
            Event::StepReserved(reserved) => Some(reserved.clone()),
            _ => None,
        })?;
        let state = receipt.state.as_ref();
        let checkpoint = state.and_then(|operation| operation.checkpoints.get(&lease.step).cloned());
        Some(Granted { reserved, action, timeout_ms, effect, checkpoint })
    });
    (outcome_of(&outcome), rests_on, granted)
}

async fn tell_lease(gateway: &Gateway, lease: &LeaseId, wish: StepWish) -> Told {
    let withdraws = matches!(wish, StepWish::ExpireOffer { reason: LeaseEnd::NotHeard });
    let command = Command::Step { step: lease.step, grant: lease.grant, wish };
    let answer = gateway.answer::<Operation>(&lease.operation, Order::of(command, photon())).await;
    // An operation that is out of service will never say more than its log does.
    let silent = matches!(answer.outcome, Err(DispatchError::Quarantined | DispatchError::Unreadable(_)));
    match told(&answer) {
        // What its log says of the reservation may not be shown yet.
        (_, _, granted) if withdraws && silent => (Outcome::Refused, gateway.highest_answered(), granted),
        told => told,
    }
}

async fn tell(gateway: &Gateway, id: &OperationId, command: Command) -> Told {
    told(&gateway.answer::<Operation>(id, Order::of(command, photon())).await)
}

async fn quarantine(gateway: &Gateway, id: &AgentId, reason: StatusReason, revision: u64) -> Told {
    let order = Order::<Agent>::of(agent::Command::Quarantine { reason }, photon());
    let order = Order { if_version: Some(vec![Version::new(revision)]), ..order };
    told(&gateway.answer(id, order).await)
}

fn photon() -> Metadata {
    Metadata::of_photon()
}

fn told<A: Durable>(answer: &Answer<A>) -> Told {
    (outcome_of(&answer.outcome), answer.rests_on, None)
}

fn outcome_of<A: Durable>(outcome: &Result<Receipt<A>, DispatchError<A>>) -> Outcome {
    match outcome {
        Ok(_) => Outcome::Done,
        Err(DispatchError::Rejected(_) | DispatchError::OtherVersion { .. }) => Outcome::Refused,
        Err(DispatchError::OutcomeUnknown | DispatchError::Crashed) => Outcome::Unknown,
        Err(
            DispatchError::Overloaded
            | DispatchError::TooLarge
            | DispatchError::StorageFull
            | DispatchError::ReadOnly
            | DispatchError::Closed
            | DispatchError::Unreadable(_)
            | DispatchError::Quarantined,
        ) => Outcome::NotTaken,
    }
}
