//! Owns the lines of the server's log that tell of the work: an operation that has ended, a lease that was
//! lost, an account that takes no calls. It must never be waited for, and never look at what was there before
//! this process.

use std::sync::Arc;

use actors::codec::understood;
use actors::projections::Projected;
use domain::lane::{self, Lane};
use domain::operation::Operation;
use domain::operation::event::Event;
use events::Recorded;

/// Tells of new events that the views show.
pub(crate) fn tell(recorded: &[Arc<Recorded>], projected: &Projected) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    for recorded in recorded {
        match &*recorded.name {
            "operation.completed" | "operation.failed" | "operation.cancelled" => ended(recorded, projected),
            "step.lease_lost" => lost(recorded),
            "lane.parked" => parked(recorded),
            _ => {}
        }
    }
}

fn ended(recorded: &Recorded, projected: &Projected) {
    let id = recorded.stream.id();
    let Ok(operation) = id.parse() else { return };
    let views = projected.views.read();
    // One that has left the log meanwhile is not shown any more.
    let Some(row) = views.operations.find(&operation) else { return };
    let (status, steps) = (row.status.name(), row.steps);
    let duration_ms = row.completed_at.map(|at| at.ms_since(row.created_at));
    let reason = row.status_reason.clone();
    drop(row);
    drop(views);
    tracing::info!(operation = id, status, reason, steps, duration_ms, "operation ended");
}

fn lost(recorded: &Recorded) {
    // What cannot be understood is reported where the views are folded.
    let Ok((event, _)) = understood::<Operation>(recorded) else { return };
    if let Event::StepLeaseLost(lost) = &*event {
        let (step, attempt, agent, reason) = (lost.step, lost.attempt, &lost.agent, lost.reason.name());
        tracing::info!(operation = recorded.stream.id(), step, attempt, %agent, reason, "lease lost");
    }
}

fn parked(recorded: &Recorded) {
    let Ok((event, _)) = understood::<Lane>(recorded) else { return };
    if let lane::Event::Parked(parked) = &*event {
        let (until, wait_ms) = (parked.until, parked.wait_ms);
        tracing::info!(lane = recorded.stream.id(), %until, wait_ms, "account parked");
    }
}
