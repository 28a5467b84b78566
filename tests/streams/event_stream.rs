//! Streams of events over a real port: pages, sockets and server-sent events give the same bytes, and those
//! are exactly what the log holds. `PHOTON_TEST_SEED` repeats a run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::dice::Dice;
use support::history::{self, Made, Sieve};
use support::streams::{Asked, Said, Stream, Way, sequence_of};
use support::{PATIENCE, Photon, step};
use tokio::task::JoinHandle;

const WAYS: [Way; 2] = [Way::Socket, Way::Sse];
const ROUNDS: usize = 3;
const STREAMS: usize = 30;
const ACTS: usize = 90;

/// What a stream has told from its beginning to its end.
struct Told {
    begun: u64,
    bye: u64,
    /// Events of the log.
    events: Vec<String>,
    /// Events that only pass by.
    passed: Vec<String>,
}

/// A reader in the background.
struct Listener {
    sieve: Sieve,
    after: Option<u64>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Told>,
}

impl Listener {
    async fn open(photon: &Photon, dice: &mut Dice, sieve: Sieve, after: Option<u64>) -> Self {
        let asked = Asked::new(photon.port(), dice.pick(&WAYS), sieve.after(after));
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Asked { receive_buffer: dice.pick(&[None, Some(4_096)]), ..asked };
        let task = tokio::spawn(listen(asked.open().await, Arc::clone(&count)));
        Self { sieve, after, count, task }
    }

    async fn until_heard(&self, events: usize) {
        let begun = Instant::now();
        while self.count.load(Ordering::Relaxed) < events {
            let count = &self.count;
            assert!(begun.elapsed() < PATIENCE, "{count:?} of {events}: {:?} {:?}", self.sieve, self.after);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn listen(mut stream: Stream, count: Arc<AtomicUsize>) -> Told {
    let mut told = Told { begun: stream.begun().await, bye: 0, events: Vec::new(), passed: Vec::new() };
    loop {
        match stream.hear().await.unwrap() {
            Said::Event(Some(_), text) => {
                told.events.push(text);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Said::Event(None, text) => told.passed.push(text),
            Said::Control(kind, message) if kind == "bye" => told.bye = sequence_of(&message).unwrap(),
            Said::Control(..) | Said::Beat => {}
            Said::End(code) => {
                assert!(matches!(code, None | Some(1012)), "{code:?}");
                return told;
            }
        }
    }
}

/// The texts up to a place; a log goes on growing.
fn upto(texts: Vec<String>, head: u64) -> Vec<String> {
    let early = |text: &String| sequence_of(&serde_json::from_str(text).unwrap()).unwrap() <= head;
    texts.into_iter().filter(early).collect()
}

#[tokio::test]
async fn pages_sockets_and_server_sent_events_give_the_same_bytes_of_random_histories() {
    let mut dice = history::thrown();
    for _ in 0..ROUNDS {
        let mut photon = Photon::start().await;
        let (mut made, mut acts) = (Made::default(), Dice(dice.roll()));
        made.live(&photon, &mut acts, ACTS).await;
        let early = history::log(&photon).await;
        // Some begin before what comes next, some in the middle of it.
        let mut listeners = Vec::new();
        let live = made.live(&photon, &mut acts, ACTS);
        let open = async {
            for _ in 0..STREAMS {
                let sieve = Sieve::random(&mut dice, &early);
                let after = [None, Some(0), Some(dice.pick(&early).sequence)];
                let after = dice.pick(&after);
                listeners.push(Listener::open(&photon, &mut dice, sieve, after).await);
            }
        };
        tokio::join!(live, open);
        let log = history::log(&photon).await;
        let head = log.last().unwrap().sequence;
        for listener in &listeners {
            let (sieve, after) = (&listener.sieve, listener.after.unwrap_or(0));
            let limit = [1, 7, 30, 30, 500, 500][dice.index(6)];
            let query = format!("{}&limit={limit}", sieve.after(Some(after)));
            let expected = sieve.of(&log, after, head);
            assert_eq!(upto(history::pages(&photon, &query).await, head), expected, "{query}");
            let query = format!("{query}&order=desc");
            let mut newest = upto(history::pages(&photon, &query).await, head);
            newest.reverse();
            assert_eq!(newest, expected, "{query}");
            if listener.after.is_some() {
                listener.until_heard(expected.len()).await;
            }
        }
        assert_eq!(photon.stopped().await, 0);
        photon.restart().await;
        let log = history::log(&photon).await;
        for Listener { sieve, after, task, .. } in listeners {
            let told = task.await.unwrap();
            assert_eq!(told.begun, after.unwrap_or(told.begun));
            assert_eq!(told.events, sieve.of(&log, told.begun, told.bye), "{sieve:?} {after:?}");
            let named = sieve.query.contains("agent.heartbeat");
            assert!(told.passed.is_empty() || named, "{sieve:?} {:?}", told.passed);
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_from_every_position() {
    let mut dice = history::thrown();
    let photon = Photon::start().await;
    Made::default().live(&photon, &mut dice, ACTS).await;
    let log = history::log(&photon).await;
    let head = log.last().unwrap().sequence;
    let sieves = [Sieve::everything(), Sieve::random(&mut dice, &log)];
    let mut socket = Asked::new(photon.port(), Way::Socket, "").open().await;
    socket.begun().await;
    for sieve in sieves {
        for after in 0..head {
            let expected = sieve.of(&log, after, head);
            for way in WAYS {
                let mut stream = Asked::new(photon.port(), way, sieve.after(Some(after))).open().await;
                assert_eq!(stream.begun().await, after);
                for text in &expected {
                    assert_eq!(sequenced(&mut stream).await, *text, "{way:?} {sieve:?} {after}");
                }
            }
            let subscribe =
                json!({"type": "subscribe", "filter": sieve.wanted(), "after": after.to_string()});
            socket.say(&subscribe.to_string()).await;
            until_subscribed(&mut socket, after).await;
            for text in &expected {
                assert_eq!(sequenced(&mut socket).await, *text, "{sieve:?} {after}");
            }
        }
    }
}

/// The next event of the log.
async fn sequenced(stream: &mut Stream) -> String {
    loop {
        if let (Some(_), text) = stream.event().await {
            return text;
        }
    }
}

/// Reads on until another subscription begins.
async fn until_subscribed(socket: &mut Stream, after: u64) {
    loop {
        match socket.next().await {
            Said::Event(..) => {}
            Said::Control(kind, message) => {
                assert_eq!((kind.as_str(), sequence_of(&message)), ("subscribed", Some(after)));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An operation that nobody performs, and the sequence that its creation has reached.
async fn created(photon: &Photon) -> u64 {
    let body = json!({"name": "x", "workflow": [step(1, "x", &[], json!({}))]});
    let answer = photon.post("/api/v1/operations", body).await.expect(201);
    answer.header("photon-position").parse().unwrap()
}

#[tokio::test]
async fn a_subscription_replaces_the_one_before_and_a_refused_one_changes_nothing() {
    let photon = Photon::start().await;
    let query = "types=operation.created&after=0";
    let mut socket = Asked::new(photon.port(), Way::Socket, query).open().await;
    socket.begun().await;
    created(&photon).await;
    let (first, text) = socket.event().await;
    assert!(text.contains("operation.created"));
    let first = first.unwrap();
    socket.say(r#"{"type":"ping"}"#).await;
    assert!(socket.control("pong").await >= first);
    for refused in [
        r#"{"type":"subscribe","filter":{"types":["a b"]}}"#,
        r#"{"type":"subscribe","filter":{"operation":"nonsense"}}"#,
        r#"{"type":"subscribe","filter":{"kinds":[]}}"#,
        r#"{"type":"subscribe","filter":{},"after":"999999"}"#,
        r#"{"type":"subscribe","filter":{},"after":"-1"}"#,
        r#"{"type":"subscribe","filter":{},"after":7}"#,
        r#"{"type":"unsubscribe"}"#,
        r#"{"type":"ping""#,
        "",
        "[]",
    ] {
        socket.say(refused).await;
        match socket.next().await {
            Said::Control(kind, message) => assert!(kind == "error" && message["detail"].is_string()),
            other => panic!("{refused} is answered with {other:?}"),
        }
    }
    created(&photon).await;
    let (second, text) = socket.event().await;
    assert!(second.unwrap() > first && text.contains("operation.created"), "{text}");
    // From the beginning, and of another type.
    socket.say(r#"{"type":"subscribe","filter":{"types":["operation.started"]},"after":"0"}"#).await;
    assert_eq!(socket.control("subscribed").await, 0);
    created(&photon).await;
    for _ in 0..3 {
        let (_, text) = socket.event().await;
        assert!(text.contains(r#""type":"operation.started""#), "{text}");
    }
    // Without `after` it begins with what comes next.
    socket.say(r#"{"type":"subscribe"}"#).await;
    let begun = socket.control("subscribed").await;
    created(&photon).await;
    assert_eq!(socket.event().await.0, Some(begun + 1));
}

#[tokio::test]
async fn the_last_event_id_wins_over_after() {
    let photon = Photon::start().await;
    created(&photon).await;
    let end = created(&photon).await;
    for (id, begins) in [("1", 1), ("0", 0), ("", end)] {
        let asked = Asked::new(photon.port(), Way::Sse, format!("after={end}")).header("Last-Event-ID", id);
        let mut stream = asked.open().await;
        assert_eq!(stream.begun().await, begins, "{id:?}");
        if begins < end {
            assert_eq!(stream.event().await.0, Some(begins + 1));
        }
    }
    for id in ["x", "-1", "1.5", "99999999999999999999", "999999"] {
        let asked = Asked::new(photon.port(), Way::Sse, "after=1").header("Last-Event-ID", id);
        assert_eq!(asked.refused().await.status, 400, "{id:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_before_the_stream_begins() {
    let photon = Photon::start().await;
    let end = created(&photon).await;
    for way in WAYS {
        let beyond = Asked::new(photon.port(), way, format!("after={}", end + 1_000)).refused().await;
        let body: Value = serde_json::from_str(&beyond.body).unwrap();
        assert_eq!((beyond.status, &body["code"]), (400, &json!("invalid_parameter")));
        assert!(body.to_string().contains("after"), "{body}");
        for query in ["types=a%20b", "operation=x", "after=x", "order=desc", "agent=a&operation=b"] {
            assert_eq!(Asked::new(photon.port(), way, query).refused().await.status, 400, "{query}");
        }
        let evil = Asked::new(photon.port(), way, "").header("Origin", "http://evil.test");
        assert_eq!(evil.refused().await.status, 403);
    }
}

#[tokio::test]
async fn a_stream_may_begin_behind_whatever_a_write_has_answered() {
    let photon = Photon::start().await;
    let again = async |way: Way| {
        let mut socket = Asked::new(photon.port(), Way::Socket, "types=stream.quarantined").open().await;
        socket.begun().await;
        for _ in 0..15 {
            let end = created(&photon).await;
            let filter = json!({"types": ["stream.quarantined"]});
            let subscribe = json!({"type": "subscribe", "filter": filter, "after": end.to_string()});
            socket.say(&subscribe.to_string()).await;
            assert_eq!(socket.control("subscribed").await, end);
            let end = created(&photon).await;
            let mut stream = Asked::new(photon.port(), way, format!("after={end}")).open().await;
            assert_eq!(stream.begun().await, end);
            created(&photon).await;
            assert_eq!(stream.event().await.0, Some(end + 1), "{way:?}");
        }
    };
    join_all((0..20).map(|number| again(WAYS[number % 2]))).await;
}

/// Reads until an event of the log comes, and gives back everything that passed by before.
async fn passed(stream: &mut Stream) -> Vec<Value> {
    let mut passed = Vec::new();
    loop {
        let (sequence, text) = stream.event().await;
        if sequence.is_some() {
            return passed;
        }
        passed.push(serde_json::from_str(&text).unwrap());
    }
}

#[tokio::test]
async fn what_only_passes_by_is_sent_to_those_who_name_it_in_full_and_has_no_sequence() {
    let photon = Photon::configured("[monitoring]\nmetrics_interval_ms = 100\n").await;
    for agent in ["a", "b"] {
        photon.agent(agent, &[]).await;
    }
    for way in WAYS {
        let open = async |query: &str| {
            let mut stream = Asked::new(photon.port(), way, query).open().await;
            stream.begun().await;
            stream
        };
        let mut everything = open("").await;
        let mut wild = open("types=agent.*,system.*,operation.*").await;
        let mut beats = open("types=agent.heartbeat,operation.created").await;
        let mut of_b = open("types=agent.heartbeat&agent=b").await;
        let mut metrics = open("types=system.metrics,operation.created").await;
        for agent in ["a", "b", "a", "b"] {
            photon.post(&format!("/api/v1/agents/{agent}/heartbeat"), json!({})).await.expect(200);
        }
        for _ in 0..2 {
            let (sequence, text) = metrics.event().await;
            assert!(sequence.is_none() && text.contains(r#""type":"system.metrics""#), "{text}");
        }
        for _ in 0..2 {
            let (sequence, text) = of_b.event().await;
            assert!(sequence.is_none() && text.contains(r#""subject":"agent/b""#), "{text}");
        }
        created(&photon).await;
        for silent in [&mut everything, &mut wild] {
            // Events of the agents' samples may come first; none of them passes by.
            while !silent.event().await.1.contains("operation.created") {}
        }
        let passed_by = passed(&mut beats).await;
        let subjects: Vec<&Value> = passed_by.iter().map(|event| &event["subject"]).collect();
        assert_eq!(subjects, ["agent/a", "agent/b", "agent/a", "agent/b"]);
        assert!(passed_by.iter().all(|event| event.get("revision").is_none()));
    }
}

#[tokio::test]
async fn a_page_never_shows_what_only_passes_by() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let beat = async || {
        for _ in 0..150 {
            photon.post("/api/v1/agents/a/heartbeat", json!({})).await.expect(200);
        }
    };
    let create = async || {
        for _ in 0..150 {
            created(&photon).await;
        }
    };
    let look = async |order: &str| {
        for _ in 0..150 {
            let query = format!("types=agent.heartbeat&order={order}&limit=2");
            assert_eq!(history::pages(&photon, &query).await, Vec::<String>::new());
        }
    };
    tokio::join!(beat(), beat(), create(), create(), look("asc"), look("desc"), look("asc"));
}

#[tokio::test]
async fn a_stream_beyond_the_most_is_told_to_come_later_and_finds_a_seat_once_one_is_left() {
    let photon = Photon::configured("[limits]\nmax_streams = 2\n").await;
    let ask = |way| Asked::new(photon.port(), way, "");
    for (one, other) in [(Way::Socket, Way::Sse), (Way::Sse, Way::Socket)] {
        let first = opened(&ask(one)).await;
        let mut second = opened(&ask(other)).await;
        let refusal = ask(Way::Socket).refused().await;
        assert_eq!((refusal.status, refusal.header("retry-after").as_str()), (503, "5"), "{refusal:?}");
        assert!(refusal.body.contains("overloaded"));
        // After any other status an EventSource would never come back.
        let refusal = ask(Way::Sse).refused().await;
        assert_eq!(refusal.status, 200, "{refusal:?}");
        assert!(refusal.body.starts_with("retry: 10000\n: 2 streams are open"), "{refusal:?}");
        // Those who are there feel nothing, and a page needs no seat.
        second.begun().await;
        created(&photon).await;
        second.event().await;
        photon.get("/api/v1/events").await.expect(200);
        drop(first);
        let mut third = opened(&ask(one)).await;
        third.begun().await;
        ask(other).refused().await;
    }
}

/// Opens a stream as soon as there is a seat.
async fn opened(asked: &Asked) -> Stream {
    let begun = Instant::now();
    loop {
        match asked.attempt().await.unwrap() {
            Ok(stream) => return stream,
            Err(refusal) => assert!(begun.elapsed() < PATIENCE, "{refusal:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_says_good_bye_to_every_stream_and_ends_soon() {
    let mut photon = Photon::start().await;
    let end = created(&photon).await;
    let (mut streams, mut deaf) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let way = WAYS[number % 2];
        let mut stream = Asked::new(photon.port(), way, format!("after={end}")).open().await;
        assert_eq!(stream.begun().await, end);
        // Some do not even answer the closing.
        if number % 10 < 2 { deaf.push(stream) } else { streams.push((way, stream)) }
    }
    let begun = Instant::now();
    let heard = streams.into_iter().map(async |(way, mut stream)| {
        assert_eq!(stream.control("bye").await, end);
        let code = (way == Way::Socket).then_some(1012);
        assert_eq!(stream.next().await, Said::End(code));
        stream.ended().await;
    });
    let (status, _) = tokio::join!(photon.stopped(), join_all(heard));
    assert_eq!(status, 0);
    // Far below the 25 s that requests may take.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for stream in deaf {
        stream.ended().await;
    }
}
