//! Readers of streams that drop at random while the server is killed again and again: what each has read is
//! in the end exactly what the log holds. Some are clients that others wrote, in Python and in Node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::dice::Dice;
use support::history::{self, Sieve};
use support::streams::{Asked, Said, Stream, Way, sequence_of};
use support::{PATIENCE, Photon, step};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

const READERS: usize = 50;
const WRITERS: usize = 4;
const KILLS: usize = 20;
/// Writes that are answered between two kills, at least.
const WRITES: usize = 12;
/// No sequence was named yet.
const NONE: u64 = u64::MAX;

/// What the readers are told while they read.
#[derive(Clone)]
struct Course {
    port: u16,
    /// The sequence of the last event that a reader wants, once nothing more is written.
    goal: Arc<AtomicU64>,
    resumes: Arc<AtomicUsize>,
}

/// One reader: how it reads, from where, and what it has got.
struct Reader {
    way: Way,
    sieve: Sieve,
    dice: Dice,
    after: u64,
    course: Course,
    read: Vec<(u64, String)>,
}

impl Reader {
    /// Reads until the goal, over however many connections.
    async fn run(mut self) -> Self {
        while !self.is_there() {
            let mut asked = Asked::new(self.course.port, self.way, self.sieve.after(Some(self.after)));
            if self.way == Way::Sse && self.dice.below(2) == 0 {
                // As a browser does: the first address again, and where it left off in a header.
                asked = Asked::new(self.course.port, self.way, self.sieve.after(Some(0)))
                    .header("Last-Event-ID", self.after.to_string());
            }
            match asked.attempt().await {
                Ok(Ok(stream)) => {
                    self.course.resumes.fetch_add(1, Ordering::Relaxed);
                    let patience = self.dice.index(60);
                    self.read_some(stream, patience).await;
                }
                // The server is just coming or going.
                Ok(Err(refusal)) => {
                    assert_eq!((self.way, refusal.status), (Way::Socket, 503), "{refusal:?}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self
    }

    fn is_there(&self) -> bool {
        let goal = self.course.goal.load(Ordering::Relaxed);
        goal != NONE && self.after >= goal
    }

    /// Reads some messages; then it has had enough, and drops the connection without a word.
    async fn read_some(&mut self, mut stream: Stream, messages: usize) {
        for _ in 0..=messages {
            // Quiet streams are dropped as well: a goal may be set while nothing comes.
            let quiet = Duration::from_millis(500);
            match tokio::time::timeout(quiet, stream.hear()).await {
                Ok(Ok(Said::Event(sequence, text))) => {
                    self.after = sequence.unwrap();
                    self.read.push((self.after, text));
                }
                Ok(Ok(Said::Control(_, message))) => {
                    let told = sequence_of(&message).unwrap();
                    assert!(told >= self.after, "{message} after {}", self.after);
                    self.after = told;
                }
                Ok(Ok(Said::Beat)) => {}
                Ok(Ok(Said::End(_)) | Err(_)) | Err(_) => return,
            }
        }
    }
}

/// Writes all the time; a server that is away is no reason to stop.
async fn write(url: String, number: usize, answered: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let client = reqwest::Client::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (path, body) = if round % 5 == 0 {
            ("/api/v1/agents", json!({"id": format!("a{number}-{round}"), "name": "zwei\nZeilen"}))
        } else {
            let workflow = [step(1, "x", &[], json!({"text": "日本 🦀\r\n\u{2028}"}))];
            ("/api/v1/operations", json!({"name": format!("{number}/{round}"), "workflow": workflow}))
        };
        let sent = client.post(format!("{url}{path}")).json(&body).send().await;
        if sent.is_ok_and(|answer| answer.status() == 201) {
            answered.fetch_add(1, Ordering::Relaxed);
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A client that others wrote, reading in a process of its own. Its lines are the events as they came.
struct Foreign {
    name: &'static str,
    child: Child,
    lines: JoinHandle<Vec<String>>,
}

impl Foreign {
    /// Starts each of them that can be had on this machine, and says which cannot.
    async fn all(port: u16) -> Vec<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let installed = root.join("target/clients");
        let own = installed.join("venv/bin/python3");
        let python = if own.exists() { own } else { "python3".into() };
        let mut all = Vec::new();
        for (name, program, script, ways) in [
            ("Python websockets", python, "tests/clients/reader.py", &["socket"][..]),
            ("Node ws and eventsource", "node".into(), "tests/clients/reader.mjs", &["socket", "sse"]),
        ] {
            let command = |argument: &str| {
                let mut command = Command::new(&program);
                command.arg(root.join(script)).arg(argument).env("PHOTON_CLIENTS", &installed);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
                command
            };
            let there = command("--check").stderr(Stdio::null()).output().await;
            if !there.is_ok_and(|output| output.status.success()) {
                // Past the capture of the test harness: what is not tested must be seen.
                let skipped = format!("skipped: a reader with {name}, not installed\n");
                std::io::stderr().write_all(skipped.as_bytes()).unwrap();
                continue;
            }
            for way in ways {
                let mut child = command(&format!("127.0.0.1:{port}")).arg(way).spawn().unwrap();
                let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
                // Read all the time: a full pipe would stop the client.
                let lines = tokio::spawn(async move {
                    let mut texts = Vec::new();
                    while let Some(line) = lines.next_line().await.unwrap() {
                        texts.push(line);
                    }
                    texts
                });
                all.push(Self { name, child, lines });
            }
        }
        all
    }

    /// Tells it where to stop, and gives back what it has read.
    async fn read(mut self, goal: u64) -> Vec<String> {
        let told = format!("{goal}\n");
        self.child.stdin.take().unwrap().write_all(told.as_bytes()).await.unwrap();
        let texts = self.lines.await.unwrap();
        assert!(self.child.wait().await.unwrap().success(), "{}", self.name);
        texts
    }
}

async fn killed_again_and_again(photon: &mut Photon, answered: &AtomicUsize) {
    for _ in 0..KILLS {
        let (begun, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        while answered.load(Ordering::Relaxed) < before + WRITES {
            assert!(begun.elapsed() < PATIENCE, "nothing is written");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        photon.kill();
        photon.restart().await;
    }
}

#[tokio::test]
async fn fifty_readers_that_drop_while_the_server_is_killed_twenty_times_miss_nothing() {
    let _alone = support::alone();
    let mut dice = history::thrown();
    let mut photon = Photon::start().await;
    let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(write(photon.url(""), number, Arc::clone(&answered), Arc::clone(&stop))))
        .collect();
    photon.until("/api/v1/events?limit=10", |events| events.as_array().unwrap().len() == 10).await;
    let early = history::log(&photon).await;
    let resumes = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::new();
    for number in 0..READERS {
        let goal = Arc::new(AtomicU64::new(NONE));
        let course = Course { port: photon.port(), goal: Arc::clone(&goal), resumes: Arc::clone(&resumes) };
        // Every third wants only some of the events.
        let sieve = if number % 3 == 0 { Sieve::random(&mut dice, &early) } else { Sieve::everything() };
        let (way, after) = ([Way::Socket, Way::Sse][number % 2], dice.pick(&early).sequence);
        let (dice, read) = (Dice(dice.roll()), Vec::new());
        let reader = Reader { way, sieve: sieve.clone(), dice, after, course, read };
        readers.push((sieve, after, goal, tokio::spawn(reader.run())));
    }
    let foreign = Foreign::all(photon.port()).await;
    killed_again_and_again(&mut photon, &answered).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let log = history::log(&photon).await;
    let head = log.last().unwrap().sequence;
    for (sieve, after, goal, reader) in readers {
        let expected = sieve.of(&log, after, head);
        let last =
            expected.last().map_or(0, |text| sequence_of(&serde_json::from_str(text).unwrap()).unwrap());
        goal.store(last, Ordering::Relaxed);
        let reader = tokio::time::timeout(PATIENCE, reader).await.expect("a reader hangs").unwrap();
        let read: Vec<String> =
            reader.read.into_iter().filter(|(at, _)| *at <= head).map(|(_, text)| text).collect();
        assert_eq!(read, expected, "{:?} {sieve:?} after {after}", reader.way);
    }
    let everything = Sieve::everything().of(&log, 0, head);
    for foreign in foreign {
        let name = foreign.name;
        let read = tokio::time::timeout(PATIENCE, foreign.read(head)).await;
        let mut read = read.unwrap_or_else(|_| panic!("{name} hangs"));
        // A timer of the server may have added an event since.
        read.truncate(everything.len());
        assert_eq!(read, everything, "{name}");
    }
    let (events, resumes) = (log.len(), resumes.load(Ordering::Relaxed));
    println!("{events} events, {KILLS} kills, {resumes} connections of {READERS} readers");
    assert!(resumes > READERS * 5, "only {resumes} connections");
}
