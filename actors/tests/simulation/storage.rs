//! Owns what the log does to the server: appends that wait before they are durable, that are lost or not
//! heard of, refused, or in conflict. What is durable is in the memory log and survives every crash; what
//! waits dies with the server. Must never keep half of an append.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use events::dice::Dice;
use events::faulty_log::{Fault, FaultyLog, Odds};
use events::{
    Append, AppendError, BoxFuture, EventLog, EventStream, Head, Marks, MemoryLog, Position, ReadError,
    Recorded, Since, StreamId, Version,
};
use futures_util::{FutureExt, poll};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// The memory log, and where each append to it ended.
#[derive(Clone, Default)]
pub(crate) struct Durable {
    pub(crate) log: MemoryLog,
    ends: Arc<Mutex<Vec<u64>>>,
}

impl Durable {
    /// The number of the append that an event belongs to.
    pub(crate) fn append_of(&self, position: Position) -> usize {
        self.ends.lock().partition_point(|end| *end < position.get())
    }
}

impl EventLog for Durable {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        let answer = self.log.append(append).now_or_never().unwrap();
        let end = self.log.head().now_or_never().unwrap().unwrap().get();
        let mut ends = self.ends.lock();
        if ends.last() != Some(&end) {
            ends.push(end);
        }
        futures_util::future::ready(answer).boxed()
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.log.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.log.tail(after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.log.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.log.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.log.head()
    }
}

/// How the storage behaves, in thousandths of all appends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) odds: Odds,
    /// Appends that wait before they are written.
    pub(crate) slow: u64,
    /// The longest usual wait, in milliseconds.
    pub(crate) slow_max_ms: u64,
    /// Appends that wait as long as a disk that hangs: `hang_ms`.
    pub(crate) hang: u64,
    pub(crate) hang_ms: u64,
    /// Appends that meet a conflict with nobody.
    pub(crate) conflict: u64,
}

enum Job {
    Append(Append, u64, oneshot::Sender<Result<Head, AppendError>>),
    Barrier(oneshot::Sender<()>),
}

/// The log of one life of the server.
pub(crate) struct Storage {
    inner: Arc<FaultyLog<Durable>>,
    weather: Weather,
    queue: Arc<Mutex<Queue>>,
}

struct Queue {
    dice: Dice,
    jobs: VecDeque<Job>,
    writing: bool,
}

impl Storage {
    pub(crate) fn new(durable: Durable, seed: u64, weather: Weather) -> Self {
        let inner = Arc::new(FaultyLog::seeded(Arc::new(durable), seed, weather.odds));
        let queue = Queue { dice: Dice(seed), jobs: VecDeque::new(), writing: false };
        Self { inner, weather, queue: Arc::new(Mutex::new(queue)) }
    }

    /// Milliseconds until this append is written.
    fn wait_ms(&self, dice: &mut Dice) -> u64 {
        let Weather { slow, slow_max_ms, hang, hang_ms, .. } = self.weather;
        if dice.chance(hang) {
            hang_ms
        } else if dice.chance(slow) {
            dice.between(1, slow_max_ms)
        } else {
            0
        }
    }

    /// Begins to work the queue off, unless that is under way.
    fn write(&self, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.writing, true) {
            actix::spawn(work_off(Arc::clone(&self.inner), Arc::clone(&self.queue)));
        }
    }
}

async fn work_off(inner: Arc<FaultyLog<Durable>>, queue: Arc<Mutex<Queue>>) {
    loop {
        let job = {
            let mut queue = queue.lock();
            let job = queue.jobs.pop_front();
            queue.writing = job.is_some();
            job
        };
        match job {
            None => return,
            // Who asked may be gone.
            Some(Job::Barrier(told)) => _ = told.send(()),
            Some(Job::Append(append, wait_ms, told)) => {
                if wait_ms > 0 {
                    sleep(Duration::from_millis(wait_ms)).await;
                }
                let inner = Arc::clone(&inner);
                let mut answering = Box::pin(async move {
                    let _ = told.send(inner.append(append).await);
                });
                // It is written by the first poll; the answer may come late.
                if poll!(&mut answering).is_pending() {
                    actix::spawn(answering);
                }
            }
        }
    }
}

impl EventLog for Storage {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Head, AppendError>> {
        let mut queue = self.queue.lock();
        if queue.dice.chance(self.weather.conflict) {
            self.inner.then([Fault::Conflict(Version::new(1))]);
        }
        let wait_ms = self.wait_ms(&mut queue.dice);
        if wait_ms == 0 && !queue.writing {
            return self.inner.append(append);
        }
        let (told, answer) = oneshot::channel();
        queue.jobs.push_back(Job::Append(append, wait_ms, told));
        self.write(&mut queue);
        answer.map(|answer| answer.unwrap_or(Err(AppendError::OutcomeUnknown))).boxed()
    }

    fn read(&self, stream: &StreamId, since: Since) -> EventStream {
        self.inner.read(stream, since)
    }

    fn tail(&self, after: Position) -> EventStream {
        self.inner.tail(after)
    }

    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'_, Result<Vec<Arc<Recorded>>, ReadError>> {
        self.inner.page(after, bytes)
    }

    fn marks(&self) -> Marks {
        self.inner.marks()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        let mut queue = self.queue.lock();
        if !queue.writing {
            return self.inner.head();
        }
        let (told, decided) = oneshot::channel();
        queue.jobs.push_back(Job::Barrier(told));
        let inner = Arc::clone(&self.inner);
        async move {
            let _ = decided.await;
            inner.head().await
        }
        .boxed()
    }
}
