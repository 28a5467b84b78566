//! Long work on a thread of its own. It needs no thread of a pool that requests share, and none is waited for
//! when the process ends: what was under way was not answered.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use thiserror::Error;
use tokio::sync::oneshot;

/// Why long work has no outcome.
#[derive(Debug, Error)]
pub enum ThreadError {
    /// The system gives no thread for it.
    #[error("a thread cannot be started: {0}")]
    Refused(std::io::Error),
    /// The work panicked, which is a bug.
    #[error("the work ended early")]
    Ended,
}

/// Runs work to its end, whether or not the caller still waits for it. The log, read from there, is read in
/// place.
///
/// # Errors
/// When there is no thread for it, or it panicked.
pub async fn run<T: Send + 'static, F: Future<Output = T>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, ThreadError> {
    let (done, outcome) = oneshot::channel();
    let working = move || {
        let _ = done.send(wait_for(work()));
    };
    thread::Builder::new().name(name.to_owned()).spawn(working).map_err(ThreadError::Refused)?;
    outcome.await.map_err(|_| ThreadError::Ended)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread, without a runtime.
fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_waits_is_done_to_its_end() {
        let (send, receive) = oneshot::channel();
        let working = run("test", move || async move { receive.await.unwrap_or(0) + 1 });
        let sending = async { send.send(41) };
        let (done, sent) = tokio::join!(working, sending);
        assert_eq!((done.unwrap(), sent), (42, Ok(())));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let (send, receive) = oneshot::channel::<()>();
        drop(send);
        let work = run("test", move || async move { receive.await.unwrap() });
        assert!(matches!(work.await, Err(ThreadError::Ended)));
    }
}
