//! Readers that take nothing: they cost the server next to no memory, miss nothing when they wake up in time,
//! and lose their seat when they do not. What they cost those who write: tests/clients/stall_cost.py.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::history::{self, Sieve};
use support::streams::{Asked, Refusal, Said, Stream, Way, sequence_of};
use support::{PATIENCE, Photon, step};

const WAYS: [Way; 2] = [Way::Socket, Way::Sse];
const STALLED: usize = 100;
/// Events that are appended while nobody reads.
const EVENTS: u64 = 20_000;
/// A slow machine must not make the stall of these tests too long.
const PATIENT: &str = "[limits]\nstall_timeout_ms = 600000\n";
const GROWTH_MAX: u64 = 150 << 20;

/// A reader with as little room as the kernel grants.
fn small(photon: &Photon, way: Way, after: u64) -> Asked {
    let asked = Asked::new(photon.port(), way, format!("after={after}"));
    Asked { receive_buffer: Some(2_048), ..asked }
}

/// More than that are no inputs of one step.
const PART: usize = 250_000;

/// Creates operations with this text in them, and answers with the newest position.
async fn create(photon: &Photon, count: usize, text: &str) -> u64 {
    let steps = 1..=u32::try_from(text.len().div_ceil(PART).max(1)).unwrap();
    let parts = text.as_bytes().chunks(PART).map(|part| std::str::from_utf8(part).unwrap());
    let parts = steps.zip(parts.chain([""]));
    let workflow: Vec<Value> =
        parts.map(|(number, part)| step(number, "x", &[], json!({"text": part}))).collect();
    let body = json!({"name": "x", "workflow": workflow});
    let answers = join_all((0..count).map(|_| photon.post("/api/v1/operations", body.clone()))).await;
    let ends = answers.into_iter().map(|answer| {
        let answer = answer.expect(201);
        answer.header("photon-position").parse().unwrap()
    });
    ends.max().unwrap()
}

/// Appends until the log has come so far.
async fn append_upto(photon: &Photon, goal: u64) -> u64 {
    loop {
        let end = create(photon, 64, "").await;
        if end >= goal {
            return end;
        }
    }
}

async fn stalled(photon: &Photon, count: usize, after: u64) -> Vec<Stream> {
    let mut streams = Vec::new();
    for number in 0..count {
        let mut stream = small(photon, WAYS[number % 2], after).open().await;
        assert_eq!(stream.begun().await, after);
        streams.push(stream);
    }
    streams
}

async fn read_all(stream: &mut Stream, expected: &[String]) {
    stream.widen();
    for text in expected {
        assert_eq!(stream.event().await.1, *text);
    }
}

#[tokio::test]
async fn a_hundred_readers_that_take_nothing_cost_little_memory_and_miss_nothing_when_they_wake_up() {
    let _alone = support::alone();
    let photon = Photon::configured(PATIENT).await;
    // What the first requests cost is none of the readers' business.
    let after = create(&photon, 200, "").await;
    let mut streams = stalled(&photon, STALLED, after).await;
    let before = photon.resident();
    let (mut most, mut end) = (before, after);
    while end < after + EVENTS {
        end = append_upto(&photon, end + 1_000).await;
        most = most.max(photon.resident());
    }
    println!("{} MiB grew to {} MiB over {} events", before >> 20, most >> 20, end - after);
    assert!(most - before < GROWTH_MAX, "{before} bytes grew to {most}");
    let log = history::log(&photon).await;
    let expected = Sieve::everything().of(&log, after, end);
    assert!(expected.len() as u64 >= EVENTS);
    for stream in &mut streams[..4] {
        read_all(stream, &expected).await;
    }
}

/// Appends large events beside so many stalled readers. Answers with by how much memory grew at most.
async fn grown_by_large_events(readers: usize) -> u64 {
    let photon = Photon::configured(PATIENT).await;
    let large = "x".repeat(700_000);
    let after = create(&photon, 8, &large).await;
    let mut streams = stalled(&photon, readers, after).await;
    let before = photon.resident();
    let (mut most, mut end) = (before, after);
    for _ in 0..10 {
        end = create(&photon, 8, &large).await;
        most = most.max(photon.resident());
    }
    println!(
        "{readers} readers: {} MiB grew to {} MiB over {} events",
        before >> 20,
        most >> 20,
        end - after
    );
    let log = history::log(&photon).await;
    let expected = Sieve::everything().of(&log, after, end);
    for stream in streams.iter_mut().take(2) {
        read_all(stream, &expected).await;
    }
    most - before
}

#[tokio::test]
async fn readers_that_take_nothing_of_large_events_cost_little_memory_either() {
    let _alone = support::alone();
    let alone = grown_by_large_events(0).await;
    let beside = grown_by_large_events(STALLED).await;
    assert!(beside.saturating_sub(alone) < GROWTH_MAX, "{alone} bytes without readers, {beside} with them");
}

/// Everything that a stream tells until the server stops.
async fn everything(mut stream: Stream) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match stream.hear().await.unwrap() {
            Said::Event(_, text) => texts.push(text),
            Said::Control(..) | Said::Beat => {}
            Said::End(_) => return texts,
        }
    }
}

/// A refusal for want of a seat, or nothing when there was one.
async fn refused(asked: &Asked) -> Option<Refusal> {
    asked.attempt().await.unwrap().err()
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_too_long_loses_its_seat_and_one_that_reads_does_not() {
    let _alone = support::alone();
    let config = "[limits]\nstall_timeout_ms = 2000\nmax_streams = 21\n";
    let mut photon = Photon::configured(config).await;
    let reader = tokio::spawn(everything(Asked::new(photon.port(), Way::Sse, "after=0").open().await));
    let mut quiet = stalled(&photon, 20, 0).await;
    for way in WAYS {
        assert!(refused(&small(&photon, way, 0)).await.unwrap().body.contains("21 streams are open"));
    }
    // Enough to fill what the kernel holds for each of them.
    let text = "x".repeat(500_000);
    let begun = Instant::now();
    let mut end = create(&photon, 16, &text).await;
    let mut free: Vec<Stream> = Vec::new();
    while free.len() < quiet.len() {
        match small(&photon, WAYS[free.len() % 2], end).attempt().await.unwrap() {
            // With nothing to take, a reader is not stalled.
            Ok(stream) => free.push(stream),
            Err(refusal) => assert!(refusal.body.contains("21 streams are open"), "{refusal:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "only {} of {} seats are free", free.len(), quiet.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{} seats were free after {:?}", free.len(), begun.elapsed());
    for mut stream in free {
        assert_eq!(stream.begun().await, end);
    }
    // Those that were dropped resume by position, and the one that reads has missed nothing.
    end = create(&photon, 1, "").await;
    let log = history::log(&photon).await;
    let expected = Sieve::everything().of(&log, 0, end);
    assert_eq!(photon.stop(), 0);
    assert_eq!(reader.await.unwrap(), expected);
    photon.restart().await;
    let mut late = quiet.pop().unwrap();
    let mut told = 0;
    while let Ok(said) = late.hear().await {
        if let Said::Event(_, text) = said {
            assert_eq!(text, expected[told]);
            told += 1;
        }
    }
    assert!(told < expected.len(), "a stuck reader was told everything");
    let from = expected[..told].last().map_or(0, |text| {
        let event: Value = serde_json::from_str(text).unwrap();
        sequence_of(&event).unwrap()
    });
    let mut again = small(&photon, Way::Socket, from).open().await;
    assert_eq!(again.begun().await, from);
    read_all(&mut again, &expected[told..]).await;
}
