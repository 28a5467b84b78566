//! A process that appends until it is killed, and the judge of what it left behind.
//!
//! The process is the test binary itself, started again with a folder in its environment. Each
//! acknowledgement goes into a pipe, which survives the process; everything about an append follows from
//! its number.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
pub(crate) use events::dice::Dice;
use events::{
    Append, Beside, EventLog, Expected, Head, NewEvent, OpenError, Options, Position, Recorded, Since,
    SledLog, StreamId,
};
use futures_util::StreamExt;
use uuid::Uuid;

const FOLDER: &str = "EVENTS_APPENDER_FOLDER";
const FIRST: &str = "EVENTS_APPENDER_FIRST";
const SKIP_SYNCS: &str = "EVENTS_APPENDER_SKIP_SYNCS";
const TASKS: usize = 8;
/// The ids of an append's events are its number times this, plus their index.
const IDS: u64 = 8;

/// An append that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    pub(crate) number: u64,
    version: u64,
    position: u64,
}

impl Ack {
    pub(crate) fn told(number: u64, head: Head) -> String {
        format!("ack {number} {} {}\n", head.version, head.position)
    }
}

/// How the process is started.
pub(crate) struct Start<'a> {
    pub(crate) folder: &'a Path,
    /// The number of the first append.
    pub(crate) first: u64,
    pub(crate) skip_syncs: bool,
    /// A library to preload, and its environment.
    pub(crate) preload: Option<(&'a Path, &'a Path)>,
}

/// Small generations, so that rolling over is among the moments of death; watermarks whenever there is time.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    (options.generation_bytes_max, options.idle_ms) = (200_000, 1);
    options
}

/// The body of the test by which the process runs; in the ordinary run it does nothing.
pub(crate) fn run_if_asked() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    let options = options();
    if std::env::var_os(SKIP_SYNCS).is_some() {
        options.faults.skip_syncs();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Arc::new(open_when_free(Path::new(&folder), &options).unwrap());
        let next = Arc::new(AtomicU64::new(first));
        // The test harness has begun a line of its own.
        println!();
        let tasks =
            (0..TASKS).map(|_| tokio::spawn(append_while_it_takes_it(Arc::clone(&log), Arc::clone(&next))));
        futures_util::future::join_all(tasks).await;
    });
}

/// Opens the log. Until its exec, a process that another thread of the tests is just starting holds copies of
/// all files of theirs, a lock among them that was given back meanwhile.
fn open_when_free(folder: &Path, options: &Options) -> Result<SledLog, OpenError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match SledLog::open(folder, options.clone()) {
            Err(OpenError::Locked) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
}

async fn append_while_it_takes_it(log: Arc<SledLog>, next: Arc<AtomicU64>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        // Of a log that failed nothing more is heard; whoever listens says whether that is right.
        let Ok(head) = log.append(append(number)).await else { return };
        std::io::stdout().lock().write_all(Ack::told(number, head).as_bytes()).unwrap();
    }
}

/// Starts the process, waits for so many acknowledgements, kills it, and returns all it gave.
pub(crate) fn append_and_kill(start: &Start<'_>, after_acks: usize) -> Vec<Ack> {
    let mut child = spawn(start);
    let acks = acks_until(&mut child, after_acks);
    child.wait().unwrap();
    assert!(acks.len() >= after_acks, "the process ended by itself after {} appends", acks.len());
    acks
}

/// Starts the process; its acknowledgements are lines on its standard output.
pub(crate) fn spawn(start: &Start<'_>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "appender", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, start.folder).env(FIRST, start.first.to_string());
    if start.skip_syncs {
        command.env(SKIP_SYNCS, "1");
    }
    if let Some((library, account)) = start.preload {
        command.env("LD_PRELOAD", library).env("LOST_WRITE_ACCOUNT", account);
        command.env("LOST_WRITE_FOLDER", start.folder);
    }
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Appends to a log that is open here.
pub(crate) async fn append_here(log: &SledLog, number: u64) -> Ack {
    let Head { version, position } = log.append(append(number)).await.unwrap();
    Ack { number, version: version.get(), position: position.get() }
}

fn acks_until(child: &mut Child, after_acks: usize) -> Vec<Ack> {
    let mut acks = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        // The last line may be cut off.
        if line.ends_with('\n') {
            acks.extend(parse(&line));
        }
        if acks.len() == after_acks {
            child.kill().unwrap();
        }
        line.clear();
    }
    acks
}

pub(crate) fn parse(line: &str) -> Option<Ack> {
    let mut numbers = line.strip_prefix("ack ")?.split_whitespace().map(|number| number.parse().ok());
    Some(Ack { number: numbers.next()??, version: numbers.next()??, position: numbers.next()?? })
}

pub(crate) fn append(number: u64) -> Append {
    let stream = StreamId::new("crash", &format!("s{}", number % 7)).unwrap();
    let events = (0..=number % 3).map(|index| event(number * IDS + index)).collect();
    Append { stream, expected: Expected::Any, events }
}

fn event(id: u64) -> NewEvent {
    let mut dice = Dice(id);
    let len = match dice.below(100) {
        0 => 60_000,
        1..10 => 8_000 + dice.below(8_000),
        _ => dice.below(600),
    };
    NewEvent {
        id: Uuid::from_u128(u128::from(id)).into(),
        name: Cow::Borrowed("crash.tested"),
        schema: 1,
        time_us: id as i64,
        metadata: Bytes::from(id.to_le_bytes().to_vec()),
        body: (0..len).map(|i| (i * 7 + id) as u8).collect::<Vec<_>>().into(),
        beside: Beside::NONE,
    }
}

/// What is known about one folder: every append that was ever acknowledged there.
#[derive(Default)]
pub(crate) struct Judge {
    acks: BTreeMap<u64, Ack>,
    refused: BTreeSet<u64>,
}

impl Judge {
    pub(crate) fn hear(&mut self, acks: Vec<Ack>) {
        self.acks.extend(acks.into_iter().map(|ack| (ack.number, ack)));
    }

    /// An append that was certainly not written, as the log says.
    pub(crate) fn refuse(&mut self, number: u64) {
        self.refused.insert(number);
    }

    /// Opens the log and compares; the error says what is wrong. The next number is beyond all that is there.
    pub(crate) async fn compare(&self, folder: &Path, close_cleanly: bool) -> Result<u64, String> {
        let options = options();
        let faults = options.faults.clone();
        let log = open_when_free(folder, &options).map_err(|error| format!("does not open: {error}"))?;
        let compared = self.compare_open(&log).await;
        if !close_cleanly {
            faults.abandon();
        }
        log.close().await.map_err(|error| format!("does not close: {error}"))?;
        compared
    }

    async fn compare_open(&self, log: &SledLog) -> Result<u64, String> {
        let end = log.head().await.map_err(|error| error.to_string())?;
        let mut found: BTreeMap<u64, Vec<Arc<Recorded>>> = BTreeMap::new();
        let mut tail = log.tail(Position::START);
        let mut last = Position::START;
        while last < end {
            let next = tail.next().await.ok_or("the tail ended")?.map_err(|error| error.to_string())?;
            last = next.position;
            found.entry(next.id.get().as_u128() as u64 / IDS).or_default().push(next);
        }
        for (number, events) in &found {
            is_whole(*number, events)?;
            if self.refused.contains(number) {
                return Err(format!("append {number} was refused and is there"));
            }
        }
        for (number, ack) in &self.acks {
            let events = found.get(number).ok_or_else(|| format!("lost: {ack:?}, the log ends at {end}"))?;
            let last = events.last().ok_or("no event")?;
            if (last.version.get(), last.position.get()) != (ack.version, ack.position) {
                return Err(format!("elsewhere: {ack:?} is at {} and {}", last.version, last.position));
            }
        }
        self.compare_streams(log, &found).await?;
        Ok(found.keys().last().map_or(0, |number| number + 1))
    }

    /// Reading by stream shows the same as reading by position.
    async fn compare_streams(
        &self,
        log: &SledLog,
        found: &BTreeMap<u64, Vec<Arc<Recorded>>>,
    ) -> Result<(), String> {
        for stream in 0..7 {
            let mut expected: Vec<_> =
                found.iter().filter(|(n, _)| *n % 7 == stream).flat_map(|(_, e)| e).collect();
            expected.sort_by_key(|event| event.position);
            let stream = append(stream).stream;
            let mut read = log.read(&stream, Since::BEGINNING);
            for event in expected {
                let next =
                    read.next().await.ok_or("a stream is too short")?.map_err(|error| error.to_string())?;
                if next != *event {
                    return Err(format!("{stream} version {} differs", event.version));
                }
            }
            if read.next().await.is_some() {
                return Err(format!("{stream} is too long"));
            }
        }
        Ok(())
    }
}

/// An append is there as a whole, with its bytes, in one piece.
fn is_whole(number: u64, events: &[Arc<Recorded>]) -> Result<(), String> {
    let offered = append(number);
    let equal = offered.events.len() == events.len()
        && offered.events.iter().zip(events).all(|(new, event)| {
            let same = (new.id, &new.metadata, &new.body) == (event.id, &event.metadata, &event.body);
            same && event.stream == offered.stream && *event.name == *new.name
        });
    let in_one_piece = events.windows(2).all(|pair| pair[1].version == pair[0].version.next());
    if equal && in_one_piece { Ok(()) } else { Err(format!("append {number} is there in part, or changed")) }
}
