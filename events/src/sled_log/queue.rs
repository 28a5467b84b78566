//! Owns what waits for the writer: bounded, first come first served, gathered into commits.
//! Must never wait for more to come: what is there makes the commit.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::log::{Append, AppendError, Head};
use crate::planted::Planted;

/// A commit gathers at most so many events.
const GATHER_EVENTS_MAX: usize = 256;
/// A commit gathers at most so many bytes; a larger append travels alone.
const GATHER_BYTES_MAX: usize = 1 << 20;

/// Hears about one append.
pub(crate) type Answer = oneshot::Sender<Result<Head, AppendError>>;

/// Something for the writer to do.
pub(crate) enum Command {
    Append {
        append: Append,
        bytes: usize,
        answer: Answer,
    },
    /// To be told when everything before is decided.
    Barrier {
        answer: oneshot::Sender<()>,
    },
}

/// What the writer got.
pub(crate) enum Taken {
    Commands(Vec<Command>),
    /// There was nothing to do for a while.
    Idle,
    /// There is nothing left and nothing will come.
    Closed,
}

/// The queue between callers and the writer.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    appends_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<Command>,
    appends: usize,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(appends_max: usize, bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            appends_max: appends_max.max(1),
            bytes_max,
        }
    }

    /// Queues an append, or refuses at once.
    pub(crate) fn push(&self, append: Append, answer: Answer) -> Result<(), AppendError> {
        let bytes = append.bytes();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        let full = waiting.appends >= self.appends_max || waiting.bytes + bytes > self.bytes_max;
        if full && waiting.appends > 0 && !Planted::BufferUnbounded.is_asked_for() {
            return Err(AppendError::Overloaded);
        }
        waiting.appends += 1;
        waiting.bytes += bytes;
        waiting.commands.push_back(Command::Append { append, bytes, answer });
        self.arrived.notify_one();
        Ok(())
    }

    /// Queues a barrier, however full the queue is; false if it is closed.
    pub(crate) fn push_barrier(&self, answer: oneshot::Sender<()>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.commands.push_back(Command::Barrier { answer });
            self.arrived.notify_one();
        }
        !waiting.closed
    }

    /// Waits for something to do, at most `idle` if given, and takes as much of it as makes one commit.
    pub(crate) fn take(&self, idle: Option<Duration>) -> Taken {
        let mut waiting = self.waiting.lock();
        while waiting.commands.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            match idle {
                Some(idle) if self.arrived.wait_for(&mut waiting, idle).timed_out() => {
                    if waiting.commands.is_empty() && !waiting.closed {
                        return Taken::Idle;
                    }
                }
                Some(_) => {}
                None => self.arrived.wait(&mut waiting),
            }
        }
        Taken::Commands(waiting.gather())
    }

    /// Lets nothing more in; what waits is still to be done.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Lets nothing more in and forgets what waits, whose callers hear that it is perhaps written.
    pub(crate) fn abort(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.commands.clear();
    }
}

impl Waiting {
    fn gather(&mut self) -> Vec<Command> {
        let (mut gathered, mut events, mut total) = (Vec::new(), 0, 0);
        while let Some(command) = self.commands.front() {
            if let Command::Append { append, bytes, .. } = command {
                let fits =
                    events + append.events.len() <= GATHER_EVENTS_MAX && total + bytes <= GATHER_BYTES_MAX;
                if events > 0 && !fits {
                    break;
                }
                events += append.events.len();
                total += bytes;
                self.appends -= 1;
                self.bytes -= bytes;
            }
            gathered.extend(self.commands.pop_front());
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{append, stream};
    use crate::log::Expected;
    use bytes::Bytes;

    fn push(queue: &Queue, events: u64, body_len: usize) -> Result<(), AppendError> {
        let mut append = append(&stream("a"), Expected::Any, 0, events);
        append.events[0].body = Bytes::from(vec![0; body_len]);
        queue.push(append, oneshot::channel().0)
    }

    fn taken(queue: &Queue) -> Option<usize> {
        match queue.take(Some(Duration::ZERO)) {
            Taken::Commands(commands) => Some(commands.len()),
            Taken::Idle => Some(0),
            Taken::Closed => None,
        }
    }

    #[test]
    fn gathering_stops_at_256_events_or_one_mebibyte_and_a_larger_append_travels_alone() {
        let queue = Queue::new(1000, usize::MAX);
        for (events, body_len) in
            [(200, 0), (50, 0), (7, 0), (1, 3 << 20), (1, 500_000), (1, 500_000), (1, 500_000)]
        {
            push(&queue, events, body_len).unwrap();
        }
        push(&queue, 1000, 0).unwrap();
        let commits: Vec<_> = std::iter::from_fn(|| taken(&queue).filter(|count| *count > 0)).collect();
        assert_eq!(commits, [2, 1, 1, 2, 1, 1]);
    }

    #[test]
    fn a_full_queue_refuses_by_count_and_by_bytes_but_takes_any_single_append() {
        let queue = Queue::new(2, 10_000);
        push(&queue, 1, 20_000).unwrap();
        assert_eq!(push(&queue, 1, 0), Err(AppendError::Overloaded));
        assert_eq!(taken(&queue), Some(1));
        push(&queue, 1, 0).unwrap();
        push(&queue, 1, 0).unwrap();
        assert_eq!(push(&queue, 1, 0), Err(AppendError::Overloaded));
        assert!(queue.push_barrier(oneshot::channel().0));
        assert_eq!(taken(&queue), Some(3));
    }

    #[test]
    fn a_closed_queue_is_emptied_before_it_ends() {
        let queue = Queue::new(2, 10_000);
        push(&queue, 1, 0).unwrap();
        queue.close();
        assert_eq!(push(&queue, 1, 0), Err(AppendError::Closed));
        assert!(!queue.push_barrier(oneshot::channel().0));
        assert_eq!(taken(&queue), Some(1));
        assert_eq!(taken(&queue), None);
    }
}
