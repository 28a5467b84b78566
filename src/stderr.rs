//! Owns the lines that a long-lived process writes to its standard error: they wait in a bounded queue for a
//! thread of their own, so that a reader that stands still, a reader that has gone and a full disk cost lines
//! and nothing else. It must never make the process wait, fail or panic.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What waits at most; a line that finds no room is dropped and counted.
const QUEUE_MAX_BYTES: usize = 1 << 20;
/// Before a write is tried again that another process made non-blocking.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The line that says how many lines are missing.
type Note = fn(u64) -> String;

/// The queue of this process, once it has one.
static QUEUE: OnceLock<Lines> = OnceLock::new();
/// Whether everything that this process says goes through the queue.
static IS_DETACHED: AtomicBool = AtomicBool::new(false);

/// The queue of this process, which says from now on in this way how many lines are missing. The thread
/// starts with the first call.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn queue(note: Note) -> io::Result<&'static Lines> {
    if QUEUE.get().is_none() {
        let lines = Lines::start(io::stderr(), QUEUE_MAX_BYTES)?;
        // Nobody else starts one at the same time: a process does so when it begins.
        let _ = QUEUE.set(lines);
    }
    let lines = QUEUE.get().ok_or(ErrorKind::Other)?;
    *lines.0.note.lock() = note;
    Ok(lines)
}

/// Lets everything that this process says go through the queue from now on, the text of a panic included.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn detach() -> io::Result<()> {
    queue(plain_note)?;
    IS_DETACHED.store(true, Ordering::Relaxed);
    std::panic::set_hook(Box::new(|panic| say(&panic.to_string())));
    Ok(())
}

/// Says something. Waits for the reader, unless the process is detached.
pub(crate) fn say(text: &str) {
    match QUEUE.get().filter(|_| IS_DETACHED.load(Ordering::Relaxed)) {
        Some(lines) => lines.push(format!("{text}\n").as_bytes()),
        // Who does not listen misses nothing that counts.
        None => _ = writeln!(io::stderr().lock(), "{text}"),
    }
}

/// Waits until all that was said is written, at most so long.
pub(crate) fn flush(within: Duration) {
    if let Some(lines) = QUEUE.get() {
        lines.flush(within);
    }
}

/// How many lines could not be written so far.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, Lines::dropped)
}

fn plain_note(count: u64) -> String {
    format!("{count} lines before this one could not be written.\n")
}

/// Lines on their way to a writer.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    max_bytes: usize,
    dropped: AtomicU64,
    note: Mutex<Note>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were dropped since the last note of it.
    missing: u64,
    is_writing: bool,
}

impl Lines {
    fn start(writer: impl Write + Send + 'static, max_bytes: usize) -> io::Result<Self> {
        let (state, changed, dropped) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        let note = Mutex::new(plain_note as Note);
        let lines = Self(Arc::new(Shared { state, changed, max_bytes, dropped, note }));
        let written = lines.clone();
        std::thread::Builder::new().name("stderr".into()).spawn(move || written.0.write_to(writer))?;
        Ok(lines)
    }

    /// Adds a line, with its end. Never waits.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.bytes + line.len() > self.0.max_bytes {
            drop(state);
            return self.0.drop_lines(1);
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        self.0.changed.notify_all();
    }

    fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut state = self.0.state.lock();
        while !state.lines.is_empty() || state.is_writing {
            if self.0.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

/// A line of the log is handed over as a whole, so that each call is one line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        self.state.lock().missing += count;
    }

    /// Writes until the process ends.
    fn write_to(&self, mut writer: impl Write) {
        loop {
            let (lines, missing) = self.next();
            if write_all(&mut writer, &lines.concat()).is_err() {
                self.drop_lines(lines.len() as u64);
                self.state.lock().missing += missing;
            } else if missing > 0 && write_all(&mut writer, self.noted(missing).as_bytes()).is_err() {
                self.state.lock().missing += missing;
            }
            self.state.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn noted(&self, missing: u64) -> String {
        let note = *self.note.lock();
        note(missing)
    }

    /// Waits for lines; tells also how many are missing after them.
    fn next(&self) -> (Vec<Vec<u8>>, u64) {
        let mut state = self.state.lock();
        while state.lines.is_empty() {
            self.changed.wait(&mut state);
        }
        state.is_writing = true;
        state.bytes = 0;
        let missing = std::mem::take(&mut state.missing);
        (std::mem::take(&mut state.lines).into(), missing)
    }
}

fn write_all(writer: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN_AFTER),
            Err(cause) => return Err(cause),
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A writer that stands still until it is told how the next write ends.
    struct Slow {
        orders: Receiver<io::Result<()>>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.orders.recv().unwrap_or(Ok(()))?;
            self.written.lock().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(max_bytes: usize) -> (Lines, SyncSender<io::Result<()>>, Arc<Mutex<String>>) {
        let (order, orders) = sync_channel(16);
        let written = Arc::default();
        let lines = Lines::start(Slow { orders, written: Arc::clone(&written) }, max_bytes).unwrap();
        (lines, order, written)
    }

    fn until_writing(lines: &Lines) {
        let begun = Instant::now();
        while !lines.0.state.lock().is_writing {
            assert!(begun.elapsed() < PATIENCE, "the writer takes nothing");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_which_are_counted() {
        let (lines, order, written) = slow(8);
        lines.push(b"one\n");
        until_writing(&lines);
        for line in ["two\n", "six\n", "ten\n", "too much\n"] {
            lines.push(line.as_bytes());
        }
        assert_eq!(lines.dropped(), 2);
        lines.flush(Duration::ZERO);
        drop(order);
        lines.flush(PATIENCE);
        assert_eq!(*written.lock(), format!("one\ntwo\nsix\n{}", plain_note(2)));
    }

    #[test]
    fn a_write_that_fails_costs_its_lines_and_the_next_is_tried() {
        let (lines, order, written) = slow(100);
        order.send(Err(ErrorKind::StorageFull.into())).unwrap();
        lines.push(b"lost\n");
        lines.flush(PATIENCE);
        for again in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
            order.send(Err(again.into())).unwrap();
        }
        drop(order);
        lines.push(b"there\n");
        lines.flush(PATIENCE);
        assert_eq!(*written.lock(), format!("there\n{}", plain_note(1)));
        assert_eq!(lines.dropped(), 1);
    }
}
