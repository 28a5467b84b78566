//! Owns which streams may leave the log, and what is kept of them: operations that ended long ago, and traces
//! of agents that are as old, as a whole, compressed beside the log. How agents did in them is carried over.
//! It must never let an operation go that is not over.

mod carrying;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use actors::codec::{self, Stored};
use domain::operation::{Event, Operation};
use domain::{AgentId, Aggregate, Timestamp, presence, work};
use events::{Compaction, OpenError, Position, Recorded, Retention, SledLog, StreamId};
use zstd::stream::write::Encoder;

use crate::archive::LineWriter;
use crate::retention::carrying::Carrying;

/// Where removed events are kept, within the data folder.
pub const ARCHIVE: &str = "archive";

/// Removes what ended so many microseconds ago from the log of a stopped server, when that frees at least
/// `worth` bytes of it. Nothing is older than the log's last event says: a wall clock that is far ahead lets
/// nothing go.
///
/// # Errors
/// See [`OpenError`]; then nothing was removed.
pub fn apply(folder: &Path, kept_us: i64, worth: u64) -> Result<Compaction, OpenError> {
    let now_us = chrono::Utc::now().timestamp_micros();
    let mut ended = Ended {
        kept_us,
        now_us,
        streams: HashMap::new(),
        carried_before: HashSet::new(),
        going: HashMap::new(),
        carrying: Carrying::default(),
        folder: folder.to_owned(),
        file: None,
    };
    let done = SledLog::compact(folder, worth, &mut ended);
    if ended.file.take().is_some() {
        // Nothing went. Whatever is left of it goes the next time.
        let _ = fs::remove_file(ended.unfinished());
    }
    done
}

/// What is known of a stream that may leave the log one day.
#[derive(Default)]
struct Known {
    over: bool,
    /// Leases of cancelled steps that are not closed yet.
    closing: usize,
    last_us: i64,
    /// Agents that it tells of.
    agents: HashSet<AgentId>,
}

impl Known {
    fn learn(&mut self, event: &Recorded) {
        self.last_us = event.time_us;
        if event.stream.category() == presence::CATEGORY {
            self.over = true;
            if let Ok(presence::Event::Seen(seen)) =
                presence::Event::decode(&event.name, event.schema, &event.body)
            {
                self.agents.insert(seen.agent);
            }
            return;
        }
        self.over |= codec::ENDS.contains(&&*event.name);
        if !codec::LEASES.contains(&&*event.name) {
            return;
        }
        match Operation::decode(&event.name, event.schema, &event.body) {
            Ok(Event::StepReserved(reserved)) => _ = self.agents.insert(reserved.agent),
            Ok(Event::StepsCancelled(cancelled)) => self.closing += cancelled.closing.len(),
            Ok(Event::LeaseClosed(_)) => self.closing = self.closing.saturating_sub(1),
            _ => {}
        }
    }
}

struct Ended {
    kept_us: i64,
    now_us: i64,
    /// Operations, and days of traces of agents.
    streams: HashMap<StreamId, Known>,
    /// Agents of which something was carried over before.
    carried_before: HashSet<AgentId>,
    /// Of streams that shall go.
    going: HashMap<StreamId, HashSet<AgentId>>,
    carrying: Carrying,
    /// Of the log.
    folder: PathBuf,
    file: Option<Archive>,
}

/// An archive in the making.
struct Archive {
    lines: LineWriter<Encoder<'static, BufWriter<File>>>,
    first: Position,
    last: Position,
}

impl Ended {
    /// Agents that these streams tell of.
    fn told_of(&self, going: &HashSet<StreamId>) -> HashSet<AgentId> {
        let told = self.going.iter().filter(|(stream, _)| going.contains(*stream));
        told.flat_map(|(_, agents)| agents).cloned().collect()
    }

    fn archive_folder(&self) -> PathBuf {
        self.folder.join(ARCHIVE)
    }

    fn unfinished(&self) -> PathBuf {
        self.archive_folder().join("unfinished")
    }

    fn begin(&self, first: Position) -> io::Result<Archive> {
        fs::create_dir_all(self.archive_folder())?;
        let file = BufWriter::new(File::create(self.unfinished())?);
        Ok(Archive { lines: LineWriter::new(Encoder::new(file, 0)?), first, last: first })
    }
}

fn day(us: i64) -> String {
    presence::day(Timestamp::from_micros(us))
}

impl Retention for Ended {
    fn look(&mut self, event: &Recorded) {
        match event.stream.category() {
            Operation::CATEGORY | presence::CATEGORY => {
                self.streams.entry(event.stream.clone()).or_default().learn(event);
            }
            work::CATEGORY => self.carried_before.extend(event.stream.id().parse::<AgentId>().ok()),
            _ => {}
        }
    }

    fn choose(&mut self, last_time_us: i64) -> HashSet<StreamId> {
        // Of a process that ended in the middle: what it holds is in the log still. Under the lock nobody
        // else archives.
        let _ = fs::remove_file(self.unfinished());
        let before_us = self.now_us.min(last_time_us).saturating_sub(self.kept_us);
        let streams = std::mem::take(&mut self.streams).into_iter();
        let going = streams
            .filter(|(_, known)| known.over && known.closing == 0 && known.last_us < before_us)
            // A day is written to until it is over.
            .filter(|(stream, _)| stream.category() != presence::CATEGORY || stream.id() < &*day(before_us));
        self.going = going.map(|(stream, known)| (stream, known.agents)).collect();
        self.going.keys().cloned().collect()
    }

    fn replaced(&mut self, going: &HashSet<StreamId>) -> HashSet<StreamId> {
        let agents = self.told_of(going).into_iter().filter(|agent| self.carried_before.contains(agent));
        agents.map(|agent| carrying::stream_of(&agent)).collect()
    }

    fn fold(&mut self, event: &Recorded) {
        self.carrying.fold(event);
    }

    fn carried(&mut self, going: &HashSet<StreamId>, floor: Position) -> usize {
        let mut agents = self.told_of(going);
        // What goes of it must come again, even if nothing is added.
        let before = self.carried_before.iter().filter(|agent| going.contains(&carrying::stream_of(agent)));
        agents.extend(before.cloned());
        self.carrying.begin(agents, floor)
    }

    fn carry(&mut self, place: Position, time_us: i64) -> io::Result<Recorded> {
        self.carrying.next(place, time_us)
    }

    fn archive(&mut self, event: &Recorded) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin(event.position)?,
        };
        file.last = event.position;
        let written = file.lines.event(event);
        self.file = Some(file);
        written
    }

    fn archived(&mut self) -> io::Result<()> {
        let Some(Archive { lines, first, last }) = self.file.take() else { return Ok(()) };
        let mut out = lines.end()?.1.finish()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        let name = format!("events-{first}-{last}.jsonl.zst");
        fs::rename(self.unfinished(), self.archive_folder().join(name))?;
        File::open(self.archive_folder())?.sync_all()?;
        // The archive itself may be new in it.
        File::open(&self.folder)?.sync_all()
    }
}
