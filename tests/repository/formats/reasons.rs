//! Every reason that an event can give is stored as a number: one sample for each, so that their order never
//! changes, and the name by which each is shown.

use actors::codec::Stored;
use domain::agent::event::{Status, StatusChanged, StatusReason};
use domain::agent::{Agent, Event as AgentEvent};
use domain::operation::event::{
    CloseReason, Failed, FailureReason, LeaseClosed, LeaseEnd, SkipReason, StepLeaseLost, StepOfferExpired,
    StepsSkipped,
};
use domain::operation::{Event as OperationEvent, Operation};

use super::{agent, hex, lease, stored, unhex};

/// Reads a stored sample, and looks at the name that is shown in a field of the event.
fn check<A: Stored>(sample: &A::Fact, field: &str, name: &str)
where
    A::Fact: PartialEq + std::fmt::Debug,
{
    let encoded = A::encode(sample).unwrap();
    let file = format!("{}.{}.{name}.hex", encoded.name, encoded.schema);
    let bytes = unhex(&stored(&file, &hex(&encoded.body)));
    assert_eq!(A::decode(encoded.name, encoded.schema, &bytes).unwrap(), *sample, "{file}");
    assert_eq!(bytes, encoded.body, "{file} is written differently");
    assert_eq!(A::json(sample)[field], name, "{file} is shown differently");
}

#[test]
fn every_reason_of_a_skip_reads_as_it_was_written() {
    for reason in [SkipReason::Condition, SkipReason::UpstreamFailed, SkipReason::Requested] {
        let sample = OperationEvent::StepsSkipped(StepsSkipped { steps: vec![4, 5], reason });
        check::<Operation>(&sample, "reason", reason.name());
    }
}

#[test]
fn every_reason_of_a_failure_reads_as_it_was_written() {
    for reason in [FailureReason::StepFailed, FailureReason::DeadlineExceeded] {
        let sample = OperationEvent::Failed(Failed { reason, errors: Vec::new() });
        check::<Operation>(&sample, "reason", reason.name());
    }
}

#[test]
fn every_end_of_a_lease_reads_as_it_was_written() {
    use LeaseEnd::*;
    let (step, grant, attempt) = (3, 2, 1);
    for reason in
        [NoSignOfLife, LeaseExpired, AgentTimeout, AgentUnregistered, NewIncarnation, Revoked, NotHeard]
    {
        let lost = StepLeaseLost { step, grant, attempt, agent: agent(), reason };
        check::<Operation>(&OperationEvent::StepLeaseLost(lost), "reason", reason.name());
        let expired = StepOfferExpired { step, grant, agent: agent(), reason };
        check::<Operation>(&OperationEvent::StepOfferExpired(expired), "reason", reason.name());
    }
}

#[test]
fn every_close_of_a_lease_reads_as_it_was_written() {
    use CloseReason::*;
    for why in [Reported, GraceExpired, AgentTimeout, AgentUnregistered, NewIncarnation, Revoked] {
        let closed = LeaseClosed { lease_id: lease(), why };
        check::<Operation>(&OperationEvent::LeaseClosed(closed), "why", why.name());
    }
}

#[test]
fn every_reason_of_a_status_reads_as_it_was_written() {
    use StatusReason::*;
    for reason in [
        Registered,
        Unregistered,
        Updated,
        Drained,
        Heartbeat,
        Timeout,
        HeardAgain,
        PoolShrinks,
        QuarantinedLosses,
        QuarantinedUntaken,
        QuarantinedFailures,
    ] {
        let (from, to) = (Status::Active, Status::Error);
        let changed = AgentEvent::StatusChanged(StatusChanged { from, to, reason });
        check::<Agent>(&changed, "reason", reason.name());
    }
}

#[test]
fn every_status_reads_as_it_was_written() {
    for status in [Status::Active, Status::Inactive, Status::Error] {
        let changed = StatusChanged { from: status, to: status, reason: StatusReason::Updated };
        check::<Agent>(&AgentEvent::StatusChanged(changed), "to", status.name());
    }
}
