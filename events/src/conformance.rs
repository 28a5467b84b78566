//! Owns the suite that every log passes: one case for each of the twelve clauses.
//! Must never name an implementation: a log comes as a [`Subject`], which says what can be done to it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use uuid::Uuid;

use crate::log::{Append, AppendError, BoxFuture, EventLog, Expected, Head, ReadError, Refusal, Since};
use crate::record::{Beside, NewEvent, Recorded};
use crate::stream::{Position, StreamId, Version};

/// How long a case waits for anything before it calls it lost.
const DEADLINE: Duration = Duration::from_secs(20);

/// A log under test, with what can be done to it from outside.
///
/// The defaults are those of a log without storage: the cases that need more are skipped for it.
pub trait Subject: Send {
    /// The log as it is open now.
    fn log(&self) -> Arc<dyn EventLog>;

    /// Ends the log as a killed process would, and opens the same storage again; the text is the reason
    /// why not.
    fn reopen(&mut self) -> BoxFuture<'_, Result<(), String>> {
        futures_util::future::ready(Ok(())).boxed()
    }

    /// Opens the same storage to be read only, after [`Subject::reopen`] failed. False if that cannot be.
    fn reopen_read_only(&mut self) -> bool {
        false
    }

    /// Makes appends wait in the queue, or lets them go on. False if the log has no queue.
    fn stall(&self, _on: bool) -> bool {
        false
    }

    /// Makes the next sync fail. False if the log has no sync.
    fn fail_next_sync(&self) -> bool {
        false
    }

    /// Flips a bit within the stored body of the event at that position. False if nothing is stored.
    fn damage(&self, _position: Position) -> bool {
        false
    }
}

/// A log without storage is its own subject.
impl Subject for crate::memory_log::MemoryLog {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.clone())
    }
}

/// Makes one test of each case: `events::conformance_tests!(fresh)`, where `fresh()` gives a new [`Subject`].
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:expr) => {
        $crate::conformance_tests!(@ $fresh;
            an_append_is_written_as_a_whole_or_not_at_all an_answer_means_durable
            the_expected_version_must_match the_versions_of_a_stream_are_one_two_three
            positions_only_grow after_an_answer_read_shows_the_events
            a_tail_neither_loses_nor_repeats the_same_ids_again_add_nothing
            a_full_queue_refuses_at_once a_failure_says_whether_it_may_be_written
            after_a_failed_sync_appends_are_refused a_damaged_record_is_an_error);
    };
    (@ $fresh:expr; $($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            $crate::conformance::$case(&mut $fresh()).await;
        })*
    };
}

/// Clause 1.
pub async fn an_append_is_written_as_a_whole_or_not_at_all(subject: &mut impl Subject) {
    let log = subject.log();
    let a = stream("a");
    log.append(append(&a, Expected::Any, 0, 3)).await.unwrap();
    // The last id is taken already, so none of these may be written.
    let mut mixed = append(&a, Expected::Any, 10, 3);
    mixed.events[2].id = id(1);
    assert_eq!(log.append(mixed).await, Err(AppendError::Refused { reason: Refusal::IdReused }));
    let mut large = append(&a, Expected::Any, 20, 3);
    large.events[2].body = Bytes::from(vec![0; crate::log::APPEND_MAX_BYTES]);
    let refused = log.append(large).await;
    assert!(matches!(refused, Err(AppendError::Refused { reason: Refusal::TooLarge { .. } })), "{refused:?}");
    // The largest append that is allowed is written as a whole, as is one of very many events.
    let mut largest = append(&a, Expected::Any, 30, 2);
    let spare = crate::log::APPEND_MAX_BYTES - largest.bytes() + largest.events[1].body.len();
    largest.events[1].body = Bytes::from(vec![7; spare]);
    log.append(largest.clone()).await.unwrap();
    log.append(append(&a, Expected::Any, 100, 1000)).await.unwrap();
    let events = events_of(&*log, &a).await;
    assert_eq!(events.len(), 3 + 2 + 1000);
    assert!(events[4].body == largest.events[1].body, "the large body came back changed");
}

/// Clause 2, as far as a reopened log can tell; the crash tests tell the rest.
pub async fn an_answer_means_durable(subject: &mut impl Subject) {
    let a = stream("a");
    for round in 0..3 {
        let log = subject.log();
        for n in 0..20 {
            log.append(append(&a, Expected::Any, round * 100 + n * 3, 2)).await.unwrap();
        }
        let before = events_of(&*log, &a).await;
        drop(log);
        subject.reopen().await.unwrap();
        let after = events_of(&*subject.log(), &a).await;
        assert_eq!(before.len(), (round as usize + 1) * 40);
        assert_eq!(before, after);
    }
    let head = subject.log().head().await.unwrap();
    let appended =
        subject.log().append(append(&a, Expected::Exact(Version::new(120)), 900, 1)).await.unwrap();
    assert!(appended.position > head, "a reopened log goes on where it was");
}

/// Clause 3.
pub async fn the_expected_version_must_match(subject: &mut impl Subject) {
    let log = subject.log();
    let a = stream("a");
    let exact = |version| Expected::Exact(Version::new(version));
    let conflict = |actual| Err(AppendError::Conflict { actual: Version::new(actual) });
    assert_eq!(log.append(append(&a, exact(1), 0, 1)).await, conflict(0));
    assert_eq!(log.append(append(&a, exact(0), 1, 2)).await.map(|head| head.version), Ok(Version::new(2)));
    assert_eq!(log.append(append(&a, exact(0), 5, 1)).await, conflict(2));
    assert_eq!(log.append(append(&a, exact(3), 5, 1)).await, conflict(2));
    // Of many that expect the same, one is written.
    let rivals = join_all((0..20).map(|n| log.append(append(&a, exact(2), 10 + n, 1)))).await;
    assert_eq!(rivals.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(rivals.iter().all(|answer| answer.is_ok() || *answer == conflict(3)));
    assert_eq!(
        log.append(append(&a, Expected::Any, 50, 1)).await.map(|head| head.version),
        Ok(Version::new(4))
    );
}

/// Clause 4.
pub async fn the_versions_of_a_stream_are_one_two_three(subject: &mut impl Subject) {
    let log = subject.log();
    let streams = [stream("a"), stream("b"), stream("c")];
    let appends =
        (0..60).map(|n| log.append(append(&streams[n as usize % 3], Expected::Any, n * 10, 1 + n % 4)));
    for answer in join_all(appends).await {
        answer.unwrap();
    }
    for stream in &streams {
        let events = events_of(&*log, stream).await;
        for (index, event) in events.iter().enumerate() {
            assert_eq!((&event.stream, event.version), (stream, Version::new(index as u64 + 1)));
        }
        let rest: Vec<_> =
            log.read(stream, Since::Version(Version::new(7))).map(Result::unwrap).collect().await;
        assert_eq!(rest, events[7..]);
        for (index, event) in events.iter().enumerate() {
            let since = Since::Position(event.position);
            let rest: Vec<_> = log.read(stream, since).map(Result::unwrap).collect().await;
            assert_eq!(rest, events[index + 1..], "since the position of an event of the stream");
        }
        assert_eq!(log.read(stream, Since::Version(Version::new(1000))).count().await, 0);
    }
    assert_eq!(log.read(&stream("unknown"), Since::BEGINNING).count().await, 0);
}

/// Clause 5, and P6: times never decrease.
pub async fn positions_only_grow(subject: &mut impl Subject) {
    let log = subject.log();
    assert_eq!(log.head().await.unwrap(), Position::START);
    let mut last = Position::START;
    for n in 0..20 {
        let mut append = append(&stream(if n % 2 == 0 { "a" } else { "b" }), Expected::Any, n * 10, 3);
        append.events[1].time_us = 1_000_000 - n as i64;
        let head = log.append(append).await.unwrap();
        assert!(head.position > last);
        assert_eq!(log.head().await.unwrap(), head.position);
        last = head.position;
    }
    let events = events_after(&*log, Position::START, 60).await;
    assert!(events.windows(2).all(|pair| pair[0].position < pair[1].position), "positions grow");
    assert!(events.windows(2).all(|pair| pair[0].time_us <= pair[1].time_us), "times never decrease");
    assert_eq!(events[1].time_us, 1_000_000, "a time that can be kept is kept");
    assert_eq!(events.last().unwrap().position, last);
}

/// Clause 6; and everything that was offered comes back.
pub async fn after_an_answer_read_shows_the_events(subject: &mut impl Subject) {
    let log = subject.log();
    let sizes = [0, 1, 300, 7_000, 8_000, 100_000, 2_000_000];
    let mut offered = Vec::new();
    for (n, len) in sizes.into_iter().enumerate() {
        let mut append = append(&stream("a"), Expected::Any, n as u64 * 10, 2);
        append.events[0].body = (0..len).map(|i| (i * 31 + n) as u8).collect::<Vec<_>>().into();
        append.events[1].metadata = append.events[0].body.clone();
        let head = log.append(append.clone()).await.unwrap();
        offered.extend(append.events);
        let events = events_of(&*log, &stream("a")).await;
        assert_eq!(events.last().map(|e| Head { version: e.version, position: e.position }), Some(head));
        for (event, new) in events.iter().zip(&offered) {
            assert_eq!((event.id, &*event.name, event.schema), (new.id, &*new.name, new.schema));
            assert!(event.metadata == new.metadata && event.body == new.body, "bytes came back changed");
        }
    }
}

/// Clause 7.
pub async fn a_tail_neither_loses_nor_repeats(subject: &mut impl Subject) {
    let log = subject.log();
    for n in 0..300 {
        log.append(append(&stream("a"), Expected::Any, n * 10, 3)).await.unwrap();
    }
    let starts = [0, 1, 2, 450, 899, 900, 901, 1000];
    let readers = starts.map(|start| {
        let mut tail = log.tail(Position::new(start));
        async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|last: &Arc<Recorded>| last.version < Version::new(1800)) {
                let next = tokio::time::timeout(DEADLINE, tail.next()).await.expect("the tail stalls");
                seen.push(next.expect("the tail ended").unwrap());
                if seen.len() % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            seen
        }
    });
    let writer = async {
        for n in 300..600 {
            log.append(append(&stream("a"), Expected::Any, n * 10, 3)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (seen, ()) = futures_util::join!(join_all(readers), writer);
    let all = events_of(&*log, &stream("a")).await;
    for (start, seen) in starts.into_iter().zip(seen) {
        let first = all.partition_point(|event| event.position <= Position::new(start));
        assert!(seen == all[first..], "from {start}: {} events instead of {}", seen.len(), all.len() - first);
    }
    for bytes in [1, 1_000, 1 << 20] {
        let (mut paged, mut after) = (Vec::new(), Position::START);
        while paged.len() < all.len() {
            let page = log.page(after, bytes).await.unwrap();
            after = page.last().expect("a page is never empty before the end").position;
            paged.extend(page);
        }
        assert!(paged == all, "in pages of {bytes} bytes");
        assert_eq!(log.page(after, bytes).await.unwrap(), []);
    }
}

/// Clause 8.
pub async fn the_same_ids_again_add_nothing(subject: &mut impl Subject) {
    let log = subject.log();
    let first = append(&stream("a"), Expected::Exact(Version::NONE), 0, 3);
    let head = log.append(first.clone()).await.unwrap();
    log.append(append(&stream("a"), Expected::Any, 10, 2)).await.unwrap();
    assert_eq!(log.append(first.clone()).await, Ok(head), "the original head, whatever was expected");
    let twice = append(&stream("b"), Expected::Any, 20, 2);
    let (one, other) = futures_util::join!(log.append(twice.clone()), log.append(twice));
    assert_eq!(one.unwrap(), other.unwrap());
    let mut elsewhere = first.clone();
    elsewhere.stream = stream("c");
    assert_eq!(log.append(elsewhere).await, Err(AppendError::Refused { reason: Refusal::IdReused }));
    drop(log);
    subject.reopen().await.unwrap();
    let log = subject.log();
    assert_eq!(log.append(first).await, Ok(head), "remembered after a restart");
    assert_eq!(events_of(&*log, &stream("a")).await.len(), 5);
    assert_eq!(events_of(&*log, &stream("b")).await.len(), 2);
}

/// Clause 9, and that a barrier waits for what was queued before it. Skipped for a log without a queue.
pub async fn a_full_queue_refuses_at_once(subject: &mut impl Subject) {
    if !subject.stall(true) {
        return;
    }
    let log = subject.log();
    let mut waiting = Vec::new();
    let mut n = 0;
    let refused = loop {
        let mut answer = log.append(append(&stream("a"), Expected::Any, n, 1));
        n += 1;
        match answer.as_mut().now_or_never() {
            Some(answer) => break answer,
            None => waiting.push(answer),
        }
        assert!(n < 100_000, "the queue has no end");
    };
    assert_eq!(refused, Err(AppendError::Overloaded));
    let mut barrier = log.head();
    assert!(barrier.as_mut().now_or_never().is_none(), "a barrier does not overtake");
    subject.stall(false);
    let accepted = waiting.len();
    for answer in join_all(waiting).await {
        answer.unwrap();
    }
    barrier.await.unwrap();
    assert_eq!(events_of(&*log, &stream("a")).await.len(), accepted);
}

/// Clause 10: what is certainly not written is not there; what is perhaps written is there or not, as a
/// whole.
pub async fn a_failure_says_whether_it_may_be_written(subject: &mut impl Subject) {
    let log = subject.log();
    log.append(append(&stream("a"), Expected::Any, 0, 2)).await.unwrap();
    let conflict = log.append(append(&stream("a"), Expected::Exact(Version::NONE), 10, 2)).await;
    assert_eq!(conflict, Err(AppendError::Conflict { actual: Version::new(2) }));
    assert_eq!(events_of(&*log, &stream("a")).await.len(), 2);
    if subject.fail_next_sync() {
        let unknown = log.append(append(&stream("a"), Expected::Any, 20, 2)).await;
        assert_eq!(unknown, Err(AppendError::OutcomeUnknown));
        drop(log);
        subject.reopen().await.unwrap();
        let found = events_of(&*subject.log(), &stream("a")).await.len();
        assert!(found == 2 || found == 4, "{found} events");
    }
}

/// Clause 11. Skipped for a log without a sync.
pub async fn after_a_failed_sync_appends_are_refused(subject: &mut impl Subject) {
    let log = subject.log();
    log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
    if !subject.fail_next_sync() {
        return;
    }
    assert_eq!(
        log.append(append(&stream("a"), Expected::Any, 10, 1)).await,
        Err(AppendError::OutcomeUnknown)
    );
    for n in 0..3 {
        assert_eq!(
            log.append(append(&stream("b"), Expected::Any, 20 + n, 1)).await,
            Err(AppendError::Closed)
        );
    }
    assert_eq!(events_of(&*log, &stream("b")).await.len(), 0);
    drop(log);
    subject.reopen().await.unwrap();
    subject.log().append(append(&stream("b"), Expected::Exact(Version::NONE), 20, 1)).await.unwrap();
}

/// Clause 12. Skipped for a log that stores nothing.
pub async fn a_damaged_record_is_an_error(subject: &mut impl Subject) {
    let log = subject.log();
    for n in 0..30 {
        log.append(append(&stream("a"), Expected::Any, n * 10, 1)).await.unwrap();
    }
    let victim = events_of(&*log, &stream("a")).await[14].position;
    drop(log);
    if !subject.damage(victim) {
        return;
    }
    // Found when the log is opened, or else by whoever reads it.
    if subject.reopen().await.is_ok() {
        let mut tail = subject.log().tail(Position::START);
        for _ in 0..14 {
            tail.next().await.unwrap().unwrap();
        }
        let found = tail.next().await;
        assert!(matches!(found, Some(Err(ReadError::Corrupt(_)))), "{found:?}");
    } else if subject.reopen_read_only() {
        let log = subject.log();
        assert!(log.head().await.unwrap() < victim, "nothing from the damage on is shown");
        let shown = events_of(&*log, &stream("a")).await;
        assert_eq!(shown.last().map(|event| event.position), Some(log.head().await.unwrap()));
        assert_eq!(events_after(&*log, Position::START, shown.len()).await, shown);
        let refused = log.append(append(&stream("b"), Expected::Any, 9_000, 1)).await;
        assert_eq!(refused, Err(AppendError::Refused { reason: Refusal::ReadOnly }));
    }
}

/// A stream of the category `test`.
#[must_use]
pub fn stream(name: &str) -> StreamId {
    StreamId::new("test", name).unwrap()
}

fn id(n: u64) -> crate::record::EventId {
    Uuid::from_u128(u128::from(n) + 1).into()
}

/// An append of `count` small events whose ids are made of `first`, `first + 1`…
#[must_use]
pub fn append(stream: &StreamId, expected: Expected, first: u64, count: u64) -> Append {
    let event = |n: u64| NewEvent {
        id: id(n),
        name: Cow::Borrowed("test.happened"),
        schema: 1,
        time_us: n as i64,
        metadata: Bytes::from_static(b"{}"),
        body: Bytes::from(format!("body of event {n}")),
        beside: Beside::NONE,
    };
    Append { stream: stream.clone(), expected, events: (first..first + count).map(event).collect() }
}

/// All events of a stream.
///
/// # Panics
/// When the log cannot be read.
pub async fn events_of(log: &dyn EventLog, stream: &StreamId) -> Vec<Arc<Recorded>> {
    log.read(stream, Since::BEGINNING).map(|event| event.expect("the stream can be read")).collect().await
}

/// The next `count` events of the whole log.
///
/// # Panics
/// When the log cannot be read, or they do not come within 20 seconds.
pub async fn events_after(log: &dyn EventLog, after: Position, count: usize) -> Vec<Arc<Recorded>> {
    let events = log.tail(after).take(count).map(|event| event.expect("the log can be read")).collect();
    tokio::time::timeout(DEADLINE, events).await.expect("the tail stalls")
}

#[cfg(test)]
mod tests {
    crate::conformance_tests!(crate::MemoryLog::new);
}
