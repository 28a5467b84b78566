//! Compares what readers see, what a fresh recovery yields and what an actor decided on with the fold of
//! the log (P4).

use actors::Core;
use actors::gateway::stream_of;
use actors::kept::Kept;
use actors::recovery::{Recovered, recover};
use domain::agent::Agent;
use domain::operation::Operation;
use domain::operation::step::Run;
use domain::{AgentId, Aggregate, OperationId};
use events::EventLog;

use crate::course::Faults;

fn differ(faults: &mut Faults, same: bool, what: &str, whose: &str) {
    if !same {
        faults.push(format!("P4: {what} of {whose} differs from the fold of the log"));
    }
}

/// Two states of one aggregate, with everything that a snapshot of them holds.
fn same<A: Kept + Aggregate<Effect: PartialEq>>(one: &A, other: &A, whose: &str, faults: &mut Faults) {
    differ(faults, one.keep().unwrap() == other.keep().unwrap(), "the state", whose);
    differ(faults, one.pending() == other.pending(), "what is owed", whose);
}

/// Two states of one operation.
pub(crate) fn same_operation(one: &Operation, other: &Operation, whose: &str, faults: &mut Faults) {
    same(one, other, whose, faults);
    // A snapshot leaves out what follows from the definition.
    differ(faults, one.run == other.run, "the run", whose);
}

/// The run of the views has no payloads.
fn same_run(one: &Run, other: &Run) -> bool {
    (one.status, one.paused, one.max_parallel, one.settled, one.progress())
        == (other.status, other.paused, other.max_parallel, other.settled, other.progress())
        && one.steps == other.steps
        && (&one.ready, &one.held) == (&other.ready, &other.held)
        && (&one.backing_off, &one.with_people, &one.failed, &one.closing)
            == (&other.backing_off, &other.with_people, &other.failed, &other.closing)
}

/// What lists show of an operation.
pub(crate) fn check_row(core: &Core, id: &OperationId, fold: &Operation, version: u64, faults: &mut Faults) {
    let views = core.projected.views.read();
    let Some(row) = views.operations.find(id) else {
        return faults.push(format!("P4: {id} is not in the views"));
    };
    differ(faults, row.revision == version, "the revision", &id.to_string());
    let definition = &fold.definition;
    let head = (&row.name, row.priority, row.deadline, &row.agents)
        == (&definition.name, definition.priority, definition.deadline, &definition.agents);
    differ(faults, head, "the row", &id.to_string());
    differ(faults, row.status == fold.run.status, "the row's status", &id.to_string());
    let run = row.run.as_ref().is_none_or(|run| same_run(run, &fold.run));
    differ(faults, run && (row.run.is_some() || row.status.is_terminal()), "the row's run", &id.to_string());
}

/// What readers of one operation see.
pub(crate) async fn check_reader(core: &Core, id: &OperationId, fold: &Operation, faults: &mut Faults) {
    match core.operation(id).await {
        Ok(Some(shown)) => same_operation(&shown.state, fold, &format!("reader's {id}"), faults),
        other => faults.push(format!("P4: {id} cannot be read: {:?}", other.err())),
    }
}

/// An operation recovered from the first event on.
pub(crate) async fn check_recovery(
    log: &dyn EventLog,
    id: &OperationId,
    fold: &Operation,
    faults: &mut Faults,
) {
    let from = Recovered::<Operation>::default();
    match recover::<Operation>(log, &stream_of::<Operation>(id), from, &|_| true).await {
        Ok(Recovered { state: Some(state), .. }) => {
            same_operation(&state, fold, &format!("recovered {id}"), faults);
        }
        other => faults.push(format!("P4: {id} does not recover: {:?}", other.err())),
    }
}

/// What the views show of an agent.
pub(crate) fn check_agent(core: &Core, id: &AgentId, fold: &Agent, version: u64, faults: &mut Faults) {
    let views = core.projected.views.read();
    let Some(row) = views.agents.ever(id) else {
        return faults.push(format!("P4: {id} is not in the views"));
    };
    differ(faults, row.revision == version, "the revision", &id.to_string());
    same(&row.agent, fold, id.as_str(), faults);
}
