//! Owns what a worker says on its standard error: it goes to the server's log, a bounded part of it, and the
//! last sentence is kept as the reason of a sudden end. It must never let a worker wait for the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is shown, in bytes; the rest of it is left out.
const LINE_MAX: usize = 512;
/// Lines of one worker that are shown in a second.
const LINES_MAX: u32 = 10;

/// The last line of a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct LastWords(Arc<Mutex<String>>);

impl LastWords {
    pub(super) fn get(&self) -> Option<String> {
        Some(self.0.lock().clone()).filter(|words| !words.is_empty())
    }
}

/// Reads until the worker has gone, also what is not shown: a full pipe would stop it.
pub(super) async fn listen(mut said: impl AsyncRead + Unpin, agent: String, last: LastWords) {
    let mut lines = Lines::default();
    let mut chunk = [0; 4 << 10];
    let mut pace = Pace::new(Instant::now());
    while let Ok(count @ 1..) = said.read(&mut chunk).await {
        for line in lines.take(&chunk[..count]) {
            match pace.admit(Instant::now()) {
                Some(skipped) if skipped > 0 => {
                    tracing::info!(worker = %agent, skipped, line, "worker says");
                }
                Some(_) => tracing::info!(worker = %agent, line, "worker says"),
                None => {}
            }
            *last.0.lock() = line;
        }
    }
}

/// Bytes that become lines, each cut and without what would steer a terminal.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut parts = chunk.split(|byte| *byte == b'\n');
        let mut complete = Vec::new();
        self.keep(parts.next().unwrap_or_default());
        for part in parts {
            complete.extend(shown(&std::mem::take(&mut self.begun)));
            self.keep(part);
        }
        complete
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&part[..part.len().min(room)]);
    }
}

fn shown(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let plain: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!plain.is_empty()).then_some(plain)
}

/// So many lines a second.
struct Pace {
    second: Instant,
    shown: u32,
    skipped: u64,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { second: now, shown: 0, skipped: 0 }
    }

    /// Whether one more may be shown, and how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.shown) = (now, 0);
        }
        if self.shown >= LINES_MAX {
            self.skipped += 1;
            return None;
        }
        self.shown += 1;
        Some(std::mem::take(&mut self.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_cannot_steer_a_terminal() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\ntw"), ["one"]);
        assert_eq!(lines.take(b"o\x1b[31m\r\n\n"), ["two [31m"]);
        let long = vec![b'x'; 3 * LINE_MAX];
        assert!(lines.take(&long).is_empty());
        assert_eq!(lines.take(b"y\n"), ["x".repeat(LINE_MAX)]);
    }

    #[test]
    fn a_worker_that_says_too_much_is_shown_in_part_and_that_is_told() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let admitted = (0..LINES_MAX + 7).filter_map(|_| pace.admit(begun)).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert_eq!(pace.admit(begun + Duration::from_secs(1)), Some(7));
        assert_eq!(pace.admit(begun + Duration::from_secs(1)), Some(0));
    }

    #[tokio::test]
    async fn the_last_words_are_kept() {
        let last = LastWords::default();
        listen(&b"first\nThere is no command 'x'.\n"[..], "a-1".into(), last.clone()).await;
        assert_eq!(last.get().as_deref(), Some("There is no command 'x'."));
    }
}
