//! Owns the bytes of answers between their making and their reader: how many there may be at once, on all
//! connections together. It must never know what an answer says.
//!
//! An answer is made in parts. A large text that stands in it twice is held once, and nothing is made of an
//! answer beyond what the budget has left.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use serde::Serialize;

use super::error::{ApiError, Code};

/// The first bytes of an answer do not count: a refusal, a heartbeat or a health report always gets through.
const FREE_BYTES: usize = 16 << 10;
/// A text of this size is a part of its own, which a second occurrence shares.
const SHARED_MIN: usize = 4 << 10;
/// What is between such texts is cut into parts of about this size.
const PART_BYTES: usize = 64 << 10;
/// How much a connection takes at once.
const PIECE_BYTES: usize = 32 << 10;

/// How many bytes of answers may wait for their readers. Registered as `web::Data<AnswerBudget>`; without it
/// there is no bound.
#[derive(Debug)]
pub struct AnswerBudget {
    left: AtomicU64,
}

impl AnswerBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// What one answer has of the budget; given back with it.
#[derive(Debug, Default)]
pub struct Share {
    budget: Option<Arc<AnswerBudget>>,
    taken: u64,
}

impl Share {
    /// Nothing yet of the budget that the application has.
    #[must_use]
    pub fn of(budget: Option<&web::Data<AnswerBudget>>) -> Self {
        Self { budget: budget.map(|budget| Arc::clone(budget)), taken: 0 }
    }

    /// Takes more; false when less is left.
    pub fn take(&mut self, bytes: u64) -> bool {
        if self.budget.as_ref().is_some_and(|budget| !budget.take(bytes)) {
            return false;
        }
        self.taken += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.left.fetch_add(self.taken, Ordering::Relaxed);
        }
    }
}

/// The body of an answer.
///
/// # Errors
/// 503 when the answers that wait for their readers leave too little for it.
pub fn body_of(value: &impl Serialize, request: &HttpRequest) -> Result<BoxBody, ApiError> {
    let mut writer = AnswerWriter::new(Share::of(request.app_data()));
    match serde_json::to_writer(&mut writer, value) {
        Ok(()) => writer.finish().ok_or_else(too_many),
        Err(_) if writer.refused => Err(too_many()),
        Err(cause) => Err(ApiError::internal(cause)),
    }
}

fn too_many() -> ApiError {
    let message = "The answers that wait for their readers leave no room for this one; try again in a \
                   moment, or ask for less with view=, limit= or a single step.";
    ApiError::new(Code::Overloaded, message)
}

/// Cuts what is written into parts.
struct AnswerWriter {
    share: Share,
    free: usize,
    parts: Vec<Bytes>,
    /// What is not yet a part.
    open: Vec<u8>,
    /// Parts by the address and size of the text that they were copied from.
    shared: HashMap<(usize, usize), Bytes>,
    refused: bool,
}

impl AnswerWriter {
    fn new(share: Share) -> Self {
        let (parts, open, shared) = (Vec::new(), Vec::new(), HashMap::new());
        Self { share, free: FREE_BYTES, parts, open, shared, refused: false }
    }

    fn take(&mut self, bytes: usize) -> io::Result<()> {
        let free = bytes.min(self.free);
        self.free -= free;
        if bytes == free || self.share.take((bytes - free) as u64) {
            return Ok(());
        }
        self.refused = true;
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    fn close_part(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        self.take(self.open.len())?;
        self.parts.push(Bytes::copy_from_slice(&self.open));
        self.open.clear();
        Ok(())
    }

    fn write_large(&mut self, text: &[u8]) -> io::Result<()> {
        self.close_part()?;
        let key = (text.as_ptr().addr(), text.len());
        // An address may be used again for another text.
        let same = self.shared.get(&key).filter(|part| *part == text).cloned();
        if let Some(part) = same {
            self.parts.push(part);
            return Ok(());
        }
        self.take(text.len())?;
        let part = Bytes::copy_from_slice(text);
        self.shared.insert(key, part.clone());
        self.parts.push(part);
        Ok(())
    }

    fn finish(mut self) -> Option<BoxBody> {
        // Nearly all answers: nothing of them counts.
        if self.parts.is_empty() && self.open.len() <= FREE_BYTES {
            return Some(BoxBody::new(self.open));
        }
        self.close_part().ok()?;
        let bytes = self.parts.iter().map(|part| part.len() as u64).sum();
        Some(BoxBody::new(Parts { parts: self.parts.into(), bytes, _share: self.share }))
    }
}

impl Write for AnswerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= SHARED_MIN {
            return self.write_large(bytes);
        }
        self.open.extend_from_slice(bytes);
        if self.open.len() >= PART_BYTES { self.close_part() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body in parts.
struct Parts {
    parts: VecDeque<Bytes>,
    bytes: u64,
    _share: Share,
}

impl MessageBody for Parts {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Some(part) = self.parts.front_mut() else { return Poll::Ready(None) };
        let piece = part.split_to(part.len().min(PIECE_BYTES));
        if part.is_empty() {
            self.parts.pop_front();
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use serde_json::value::RawValue;

    fn request(bytes: u64) -> (HttpRequest, web::Data<AnswerBudget>) {
        let budget = web::Data::new(AnswerBudget::new(bytes));
        (TestRequest::get().app_data(budget.clone()).to_http_request(), budget)
    }

    fn left(budget: &AnswerBudget) -> u64 {
        budget.left.load(Ordering::Relaxed)
    }

    #[actix_web::test]
    async fn a_text_that_stands_twice_is_held_once_and_sent_twice() {
        let (request, budget) = request(1 << 20);
        let text = format!("\"{}\"", "x".repeat(600_000));
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        let body = body_of(&[raw, raw], &request).unwrap();
        assert!(left(&budget) > 400_000, "{}", left(&budget));
        assert_eq!(to_bytes(body).await.unwrap(), format!("[{text},{text}]"));
        assert_eq!(left(&budget), 1 << 20);
    }

    #[actix_web::test]
    async fn an_answer_beyond_the_budget_is_refused_and_takes_nothing() {
        let (request, budget) = request(100_000);
        let first = body_of(&"x".repeat(90_000), &request).unwrap();
        let refused = body_of(&"x".repeat(90_000), &request).unwrap_err();
        assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Overloaded, true));
        let many: Vec<String> = (0..40_000).map(|number| number.to_string()).collect();
        assert_eq!(body_of(&many, &request).unwrap_err().code, Code::Overloaded);
        drop(first);
        assert_eq!(left(&budget), 100_000);
        assert!(body_of(&"x".repeat(90_000), &request).is_ok());
    }

    #[actix_web::test]
    async fn a_small_answer_gets_through_when_nothing_is_left() {
        let (request, _budget) = request(0);
        let body = body_of(&"x".repeat(10_000), &request).unwrap();
        assert_eq!(to_bytes(body).await.unwrap().len(), 10_002);
    }

    #[actix_web::test]
    async fn every_byte_arrives_in_order_and_as_many_as_were_announced() {
        let (request, _budget) = request(1 << 30);
        let texts: Vec<String> =
            (0..300).map(|number| format!("{number}").repeat(number * 31 % 4_000)).collect();
        let body = body_of(&texts, &request).unwrap();
        let size = body.size();
        let sent = to_bytes(body).await.unwrap();
        assert_eq!(sent, serde_json::to_vec(&texts).unwrap());
        assert_eq!(size, BodySize::Sized(sent.len() as u64));
    }
}
