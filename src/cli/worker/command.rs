//! Owns the command of one step: its streams with their bounds, its deadline, and what its end means.
//! It must never report to the server.

use std::cell::RefCell;
use std::process::ExitStatus;
use std::time::Duration;

use domain::Json;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::launch::Launch;
use super::session::Order;
use crate::http::agent_view::LeaseGrant;
use crate::http::settlements::FailLease;

/// What is kept of the standard error: its end.
const ERROR_BYTES_MAX: usize = 16 << 10;
const MESSAGE_CHARS_MAX: usize = 1_000;
/// What was written before the end arrives at once, unless somebody who left the group holds the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Exit codes that say that another attempt with the same inputs would not help (`EX_USAGE`, `EX_DATAERR`).
const HOPELESS: [i32; 2] = [64, 65];

/// What became of a command.
#[derive(Debug)]
pub(super) enum Outcome {
    Result(Json),
    Failed(FailLease),
    Ordered(Order),
}

/// Why a command is over.
enum End {
    Exited(std::io::Result<ExitStatus>),
    TooLarge,
    Overdue,
    Ordered(Order),
}

/// A failure to report.
pub(super) fn failure(code: &str, message: &str, retryable: bool) -> FailLease {
    let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let code = code.to_owned();
    FailLease { code, message, retryable, retry_after_ms: None, resets_at: None, claim: None }
}

fn failed(code: &str, message: &str, retryable: bool) -> Outcome {
    Outcome::Failed(failure(code, message, retryable))
}

/// Runs the command once for a step.
pub(super) async fn run(
    launch: &Launch,
    lease: &LeaseGrant,
    result_bytes_max: usize,
    orders: &mut watch::Receiver<Option<Order>>,
) -> Outcome {
    if let Some(order) = *orders.borrow() {
        return Outcome::Ordered(order);
    }
    let input = match serde_json::to_vec(lease) {
        Ok(input) => input,
        Err(cause) => return failed("cannot_start", &format!("the step cannot be written: {cause}"), false),
    };
    let mut command = match launch.spawn() {
        Ok(command) => command,
        Err(cause) => return failed("cannot_start", &format!("no process can be started: {cause}"), true),
    };
    let (output, errors) = (Kept::first(result_bytes_max), Kept::last(ERROR_BYTES_MAX));
    let pipes = &mut command.child;
    let streams = (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take());
    let flow = async {
        tokio::join!(feed(streams.0, &input), output.read(streams.1), errors.read(streams.2));
    };
    let mut flow = std::pin::pin!(flow);
    let mut flows = true;
    let mut overdue = std::pin::pin!(sleep(Duration::from_millis(lease.hard_deadline_ms)));
    let end = loop {
        tokio::select! {
            status = command.wait() => break End::Exited(status),
            () = &mut flow, if flows => flows = false,
            () = output.overflowed.notified() => break End::TooLarge,
            () = &mut overdue => break End::Overdue,
            order = ordered(orders) => break End::Ordered(order),
        }
    };
    if !matches!(end, End::Exited(_)) {
        command.end(hurried(orders)).await;
    } else if flows {
        let _ = timeout(LAST_OUTPUT, flow).await;
    }
    judged(end, lease.hard_deadline_ms, &output, &errors)
}

fn judged(end: End, deadline_ms: u64, output: &Kept, errors: &Kept) -> Outcome {
    let too_large = || {
        let message = format!("the result is larger than {} bytes", output.max);
        failed("too_large", &message, false)
    };
    match end {
        End::Ordered(order) => Outcome::Ordered(order),
        End::TooLarge => too_large(),
        End::Overdue => {
            let message = format!("the command took longer than its {deadline_ms} ms");
            failed("timeout", &message, true)
        }
        End::Exited(Ok(status)) if status.success() => match result(&output.bytes.borrow(), output.max) {
            Some(result) => Outcome::Result(result),
            None => too_large(),
        },
        End::Exited(Ok(status)) => failed_with(status, &errors.bytes.borrow()),
        End::Exited(Err(cause)) => failed("lost", &format!("the command is lost: {cause}"), true),
    }
}

/// What was written, as JSON if it is that, else as a text; nothing written is null.
fn result(output: &[u8], max: usize) -> Option<Json> {
    if output.len() > max {
        return None;
    }
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end_matches(['\n', '\r']);
    let result = match Json::read(text) {
        Ok(result) => result,
        Err(_) if text.is_empty() => Json::null(),
        Err(_) => Json::from(Value::String(text.to_owned())),
    };
    // A text grows when its quotes are escaped.
    Some(result).filter(|json| json.len() <= max)
}

fn failed_with(status: ExitStatus, errors: &[u8]) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let (code, retryable) = match (status.code(), status.signal()) {
        (Some(code), _) => (format!("exit_{code}"), !HOPELESS.contains(&code)),
        (None, signal) => (format!("signal_{}", signal.unwrap_or(0)), true),
    };
    let message = last_words(errors).unwrap_or_else(|| format!("the command ended with {status}"));
    failed(&code, &message, retryable)
}

/// The end of the standard error, without what would steer a terminal.
fn last_words(errors: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(errors);
    let plain: String =
        text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let skipped = plain.chars().count().saturating_sub(MESSAGE_CHARS_MAX);
    let end: String = plain.chars().skip(skipped).collect();
    (!end.is_empty()).then_some(end)
}

async fn ordered(orders: &mut watch::Receiver<Option<Order>>) -> Order {
    let given = orders.wait_for(Option::is_some).await.ok().and_then(|given| *given);
    match given {
        Some(order) => order,
        // The session is gone, which ends with the process.
        None => std::future::pending().await,
    }
}

/// A command that takes no input is none the worse for it.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
    }
}

async fn hurried(orders: &mut watch::Receiver<Option<Order>>) {
    if orders.wait_for(|order| *order == Some(Order::Kill)).await.is_err() {
        // The session is gone, which ends with the process.
        std::future::pending::<()>().await;
    }
}

/// What is kept of a stream: the first bytes or the last, never more.
struct Kept {
    bytes: RefCell<Vec<u8>>,
    max: usize,
    keeps_last: bool,
    overflowed: Notify,
}

impl Kept {
    fn first(max: usize) -> Self {
        Self { bytes: RefCell::default(), max, keeps_last: false, overflowed: Notify::new() }
    }

    fn last(max: usize) -> Self {
        Self { keeps_last: true, ..Self::first(max) }
    }

    /// Reads to the end, also what is not kept: a full pipe would stop the command.
    async fn read(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; 8 << 10];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            self.keep(&chunk[..count]);
        }
    }

    fn keep(&self, chunk: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if self.keeps_last {
            bytes.extend_from_slice(chunk);
            let surplus = bytes.len().saturating_sub(self.max);
            bytes.drain(..surplus);
        } else {
            // One byte more than allowed tells that there was more.
            let room = (self.max + 1).saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if bytes.len() > self.max {
                self.overflowed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_json_or_a_text_or_nothing() {
        let table = [
            ("{\"a\": 1}\n", r#"{"a":1}"#),
            ("plain words\n", r#""plain words""#),
            ("7", "7"),
            ("", "null"),
            ("{\"a\": 1} x", r#""{\"a\": 1} x""#),
        ];
        for (output, json) in table {
            assert_eq!(result(output.as_bytes(), 64).unwrap().as_str(), json);
        }
        assert!(result(&[b'"'; 64], 64).is_none());
        assert!(result(&[b'x'; 65], 64).is_none());
    }

    #[test]
    fn the_last_words_are_bounded_and_plain() {
        assert_eq!(last_words(b" \n").as_deref(), None);
        assert_eq!(last_words(b"first\nl\x1b[31mast\n").as_deref(), Some("first\nl [31mast"));
        let long = format!("{}end", "x".repeat(2 * MESSAGE_CHARS_MAX));
        let words = last_words(long.as_bytes()).unwrap();
        assert!(words.ends_with("end") && words.len() == MESSAGE_CHARS_MAX);
    }

    #[test]
    fn a_stream_is_kept_within_its_bound() {
        let (first, last) = (Kept::first(4), Kept::last(4));
        for kept in [&first, &last] {
            kept.keep(b"abc");
            kept.keep(b"defgh");
        }
        assert_eq!(*first.bytes.borrow(), b"abcde");
        assert_eq!(*last.bytes.borrow(), b"efgh");
    }
}
