//! Who asks for a change, and with which idempotency key. Owns what travels in the metadata of the
//! events that follow, and how the first answer to a key is found again.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use actix_web::rt::spawn;
use actors::codec::{KeyUse, Metadata};
use actors::keys::Used;
use actors::projections::Projected;
use domain::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::Api;
use super::body::IDEMPOTENCY_KEY;
use super::context::RequestContext;
use super::error::{ApiError, Code};
use super::front::lagging;

/// Longest idempotency key, in bytes.
const KEY_MAX: usize = 255;
/// Who everybody is while there is no authentication.
pub const ANONYMOUS: &str = "anonymous";

/// One request that wants a change.
pub struct Intent {
    /// What is stored with its events.
    pub metadata: Metadata,
    /// Held until the answer stands, so that two requests with one key are answered one after the other.
    turn: Option<OwnedMutexGuard<()>>,
}

/// The turns of keys that are in use now.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<[u8; 16], Weak<AsyncMutex<()>>>>);

impl Turns {
    async fn take(&self, key: [u8; 16]) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(key, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

impl Intent {
    /// Reads who asks. With a key, waits for the key's turn, and then until the views show everything that
    /// was answered before: what an earlier request with this key led to is found in them.
    ///
    /// # Errors
    /// When the key is empty, too long, or not visible ASCII; 503 when the views lag for too long.
    pub async fn of(request: &HttpRequest, body: [u8; 16], api: &Api) -> Result<Self, ApiError> {
        Self::in_turn(request, body, &api.turns, &api.core.projected).await
    }

    async fn in_turn(
        request: &HttpRequest,
        body: [u8; 16],
        turns: &Turns,
        projected: &Projected,
    ) -> Result<Self, ApiError> {
        let Some(key) = key_of(request.headers())? else {
            return Ok(Self { metadata: metadata(), turn: None });
        };
        let key = KeyUse { key: key_hash(request, key), body };
        let turn = turns.take(key.key).await;
        let answered = projected.answered();
        if !projected.shows(answered).await {
            return Err(lagging(answered));
        }
        Ok(Self { metadata: Metadata { key: Some(key), ..metadata() }, turn: Some(turn) })
    }

    /// Does what is wanted. With a key it is done to its end, also when the client hangs up meanwhile: who
    /// repeats the request has the key's turn only when this answer stands, and is given the same.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn carry_out<T: 'static, W>(mut self, work: impl FnOnce(Self) -> W) -> Result<T, ApiError>
    where
        W: Future<Output = Result<T, ApiError>> + 'static,
    {
        let Some(turn) = self.turn.take() else { return work(self).await };
        let work = work(self);
        let working = async move {
            let outcome = work.await;
            drop(turn);
            outcome
        };
        match spawn(RequestContext::current().scope(working)).await {
            Ok(outcome) => outcome,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The server ends.
                Err(_) => Err(ApiError::of(Code::Draining)),
            },
        }
    }

    /// What this key was used for before.
    ///
    /// # Errors
    /// When it was used with another body; 429 when it is new and as many are remembered as may be.
    pub fn used(&self, api: &Api) -> Result<Option<Used>, ApiError> {
        self.used_within(&api.core.projected, api.max_idempotency_keys, api.core.around.clock.now())
    }

    fn used_within(
        &self,
        projected: &Projected,
        most: usize,
        now: Timestamp,
    ) -> Result<Option<Used>, ApiError> {
        let Some(key) = self.metadata.key else { return Ok(None) };
        let mut keys = projected.keys.lock();
        if let Some(used) = keys.get(&key.key, now) {
            same_body(key.body, used.body)?;
            return Ok(Some(used.clone()));
        }
        // Without authentication every request is of one caller, whose share is all of it.
        keys.check_room(most, now).map(|()| None).map_err(|wait_ms| too_many_keys(most, wait_ms))
    }
}

/// Metadata of this request, without a key.
#[must_use]
pub fn metadata() -> Metadata {
    let context = RequestContext::current();
    Metadata {
        actor: ANONYMOUS.into(),
        correlation_id: Some(context.request_id.to_string()),
        causation_id: None,
        traceparent: context.traceparent.map(|trace| trace.to_string()),
        key: None,
    }
}

/// One key belongs to one body.
///
/// # Errors
/// When they differ.
pub fn same_body(now: [u8; 16], before: [u8; 16]) -> Result<(), ApiError> {
    if now == before { Ok(()) } else { Err(ApiError::of(Code::IdempotencyKeyReused)) }
}

/// No key is forgotten before its day is over, so a new one has to wait for that.
fn too_many_keys(most: usize, wait_ms: u64) -> ApiError {
    let message = format!(
        "{most} idempotency keys were used within 24 hours, and each is kept for that long: wait as long as \
         Retry-After says, send the request without a key, or raise limits.max_idempotency_keys."
    );
    ApiError::new(Code::RateLimited, message).retry_after(Duration::from_millis(wait_ms))
}

fn key_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let message = "Idempotency-Key is given more than once; send one key.";
        return Err(ApiError::new(Code::MalformedRequest, message));
    }
    let key = value.to_str().ok().filter(|key| (1..=KEY_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        ApiError::new(Code::MalformedRequest, "Idempotency-Key must be 1 to 255 visible ASCII characters.")
    })
}

fn key_hash(request: &HttpRequest, key: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [ANONYMOUS, request.method().as_str(), request.path(), key] {
        // The length keeps two neighbours from being read as other two.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    first_half(&hasher.finalize())
}

/// The first 16 bytes of a hash.
pub(super) fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;

    use actix_web::test::TestRequest;
    use futures_util::poll;
    use tokio::sync::oneshot;

    use super::*;

    #[actix_web::test]
    async fn who_repeats_a_request_waits_for_the_first_though_its_client_is_gone() {
        let turns = Turns::default();
        let request = TestRequest::post().insert_header(("idempotency-key", "k")).to_http_request();
        let projected = Projected::default();
        let intent = Intent::in_turn(&request, [0; 16], &turns, &projected).await.unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let done = Rc::new(Cell::new(false));
        let noted = Rc::clone(&done);
        let mut working = Box::pin(intent.carry_out(|intent| async move {
            let _ = ended.await;
            noted.set(intent.metadata.key.is_some());
            Ok(())
        }));
        assert!(poll!(&mut working).is_pending());
        drop(working);
        let mut again = pin!(Intent::in_turn(&request, [0; 16], &turns, &projected));
        assert!(poll!(&mut again).is_pending());
        end.send(()).unwrap();
        assert!(again.await.is_ok() && done.get());
    }

    #[actix_web::test]
    async fn a_request_has_one_key_at_most() {
        let request = TestRequest::post().insert_header(("idempotency-key", "k"));
        assert_eq!(key_of(request.to_http_request().headers()).unwrap(), Some("k"));
        for second in ["k", "other"] {
            let request = TestRequest::post().insert_header(("idempotency-key", "k"));
            let request = request.append_header(("idempotency-key", second)).to_http_request();
            assert_eq!(key_of(request.headers()).unwrap_err().code, Code::MalformedRequest);
        }
    }

    #[actix_web::test]
    async fn what_has_no_key_ends_with_its_client() {
        let request = TestRequest::post().to_http_request();
        let (turns, projected) = (Turns::default(), Projected::default());
        let intent = Intent::in_turn(&request, [0; 16], &turns, &projected).await.unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let mut working = Box::pin(intent.carry_out(|_| async move {
            let _ = ended.await;
            Ok(())
        }));
        assert!(poll!(&mut working).is_pending());
        drop(working);
        assert!(end.is_closed());
    }
}
