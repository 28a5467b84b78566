//! Owns how the worker gets work: one long poll after the other, as long as it has a free slot.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::performing::take_up;
use super::pulse::say_refused;
use super::session::Session;
use crate::client::Backoff;
use crate::http::agent_view::ClaimView;
use crate::http::error::Code;

/// One long poll.
const WAIT: Duration = Duration::from_secs(30);
/// A claim that is refused for another reason than a passing one is tried again no sooner.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Claims until the worker ends.
pub(super) async fn run(session: Rc<Session>) {
    tokio::select! {
        () = claim_for_ever(&session) => {}
        () = session.ends() => {}
    }
}

async fn claim_for_ever(session: &Rc<Session>) {
    loop {
        let free = session.free();
        if free == 0 {
            session.changed().await;
            continue;
        }
        take_up(session, claim(session, free).await.leases);
    }
}

/// One claim, repeated under its key until it is answered: an answer that got lost held leases, and they
/// would wait for their first sign of life in vain.
async fn claim(session: &Session, free: u32) -> ClaimView {
    let mut key = Uuid::new_v4().to_string();
    let mut backoff = Backoff::default();
    loop {
        let (registrations, incarnation) = (session.registrations(), session.incarnation());
        match session.client.claim(session.agent(), Some(incarnation), free, WAIT, &key).await {
            Ok(view) => return view,
            Err(failure) if failure.is(Code::NotFound) => {
                // The incarnation is part of what is asked for.
                key = Uuid::new_v4().to_string();
                if let Err(failure) = session.register_after(registrations).await {
                    say_refused(session, &failure);
                    sleep(backoff.next(failure.retry_after())).await;
                }
            }
            Err(failure) if failure.is(Code::StaleIncarnation) => session.taken_over(),
            Err(failure) if failure.is_passing() => sleep(backoff.next(failure.retry_after())).await,
            Err(failure) => {
                session.say(&format!("the claim was refused: {failure}"));
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}
