//! Owns the worker's signs of life, and carries out what the server answers to them.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::session::{Order, Session};
use crate::client::ClientError;
use crate::http::agent_view::{DirectiveView, HeartbeatView, RejectedView};
use crate::http::error::Code;

/// A server that is away is tried at least this often: what it forgets first is who is silent.
const RETRY: Duration = Duration::from_secs(1);

/// Beats until it is aborted: also while the worker ends, since it still holds leases then.
pub(super) async fn run(session: Rc<Session>) {
    let mut away = false;
    loop {
        let begun = Instant::now();
        let registrations = session.registrations();
        let answer = session.client.heartbeat(session.agent(), &session.heartbeat()).await;
        let mut pause = session.period();
        match answer {
            Ok(view) => {
                if std::mem::take(&mut away) {
                    session.say("the server is back.");
                }
                obey(&session, &view);
            }
            Err(failure) if failure.is_passing() => {
                if !std::mem::replace(&mut away, true) {
                    session.say(&format!("the server is away: {failure}"));
                }
                pause = pause.min(RETRY);
            }
            Err(failure) if failure.is(Code::StaleIncarnation) => session.taken_over(),
            Err(failure) if failure.is(Code::NotFound) => register(&session, registrations).await,
            Err(failure) => session.say(&format!("the heartbeat was refused: {failure}")),
        }
        sleep_until(begun + pause).await;
    }
}

/// The server does not know this agent: its log is another one, or somebody removed the agent.
async fn register(session: &Session, registrations: u64) {
    match session.register_after(registrations).await {
        Ok(()) => {}
        // The next heartbeat finds out again.
        Err(failure) => say_refused(session, &failure),
    }
}

pub(super) fn say_refused(session: &Session, failure: &ClientError) {
    session.say(&format!("cannot register again: {failure}"));
}

fn obey(session: &Session, view: &HeartbeatView) {
    for RejectedView { lease_id, code, detail } in &view.rejected {
        session.say(&format!("the heartbeat about {lease_id} was not taken as a whole ({code}): {detail}"));
    }
    for DirectiveView { kind, lease_id, .. } in &view.directives {
        match (kind.as_str(), lease_id) {
            ("cancel", Some(lease)) => session.order(lease, Order::Cancel),
            ("lost", Some(lease)) => session.order(lease, Order::Lose),
            ("drain", _) => session.drain(),
            (other, _) => session.say(&format!("the server asks for '{other}', which is not known here.")),
        }
    }
}
