//! Owns which operations may leave the log, and what is kept of them: those that ended long ago, as a whole,
//! compressed beside the log. It must never let one go that is not over, nor anything that is no operation.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use actors::codec;
use domain::Aggregate;
use domain::operation::Operation;
use events::{Compaction, OpenError, Position, Recorded, Retention, SledLog, StreamId};
use zstd::stream::write::Encoder;

use crate::archive::LineWriter;

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
    let operations = HashMap::new();
    let mut ended = Ended { kept_us, now_us, operations, folder: folder.to_owned(), file: None };
    let done = SledLog::compact(folder, worth, &mut ended);
    if ended.file.take().is_some() {
        // Nothing went. Whatever is left of it goes the next time.
        let _ = fs::remove_file(ended.unfinished());
    }
    done
}

/// What is known of an operation.
struct Known {
    over: bool,
    last_us: i64,
}

struct Ended {
    kept_us: i64,
    now_us: i64,
    operations: HashMap<StreamId, Known>,
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

impl Retention for Ended {
    fn look(&mut self, event: &Recorded) {
        if event.stream.category() != Operation::CATEGORY {
            return;
        }
        let over = codec::ENDS.contains(&&*event.name);
        let known = self.operations.entry(event.stream.clone()).or_insert(Known { over, last_us: 0 });
        known.over |= over;
        known.last_us = event.time_us;
    }

    fn choose(&mut self, last_time_us: i64) -> HashSet<StreamId> {
        // Of a process that ended in the middle: what it holds is in the log still. Under the lock nobody
        // else archives.
        let _ = fs::remove_file(self.unfinished());
        let before_us = self.now_us.min(last_time_us).saturating_sub(self.kept_us);
        let operations = std::mem::take(&mut self.operations).into_iter();
        let going = operations.filter(|(_, known)| known.over && known.last_us < before_us);
        going.map(|(stream, _)| stream).collect()
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
