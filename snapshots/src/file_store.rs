//! Owns the folder of the snapshots: their names, how many are kept, which go first. Must never fail a caller
//! because of an old snapshot: what cannot be removed is left.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use events::{Position, StreamId};
use parking_lot::Mutex;

use crate::file::{Flaw, Reader, Stamp, Subject, Writer};

/// Snapshots of the views that are kept: the newest, and one more in case it is damaged.
pub const VIEWS_MAX: usize = 2;
/// Snapshots of single streams that are kept.
pub const STREAMS_MAX: usize = 1_024;
/// Bytes that they take together.
pub const STREAMS_MAX_BYTES: u64 = 64 << 20;

const VIEWS: &str = "views-";
const STREAM: &str = "stream-";
const FINISHED: &str = "snapshot";
const UNFINISHED: &str = "new";

/// A snapshot of the folder.
pub struct Found {
    /// The name of its file.
    pub name: String,
    /// The snapshot, or why it is not used.
    pub opened: Result<Reader, Flaw>,
}

/// Snapshots of single streams, by the name of the file.
#[derive(Default)]
struct Streams {
    by_name: HashMap<String, Kept>,
    bytes: u64,
    next: u64,
}

struct Kept {
    bytes: u64,
    /// Rises with each that is put.
    age: u64,
}

/// Snapshots in a folder.
pub struct FileStore {
    folder: PathBuf,
    streams: Mutex<Streams>,
}

impl FileStore {
    /// Opens the folder, which is made with the first snapshot, and removes what is half written.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let store = Self { folder: folder.into(), streams: Mutex::default() };
        for name in names(&store.folder)? {
            if Path::new(&name).extension().is_some_and(|end| end == UNFINISHED) {
                store.remove(&name);
            }
        }
        store.learn()?;
        Ok(store)
    }

    /// The same without changing anything.
    #[must_use]
    pub fn look(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), streams: Mutex::default() }
    }

    fn learn(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for name in names(&self.folder)?.into_iter().filter(|name| is_finished(name, STREAM)) {
            let Ok(metadata) = fs::metadata(self.folder.join(&name)) else { continue };
            found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, metadata.len()));
        }
        found.sort();
        let mut streams = self.streams.lock();
        for (_, name, bytes) in found {
            streams.add(name, bytes);
        }
        Ok(())
    }

    /// All snapshots, those of the views first and the newest of them first; each is opened when it is its
    /// turn.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn all(&self) -> io::Result<impl Iterator<Item = Found>> {
        let mut names = names(&self.folder)?;
        names.retain(|name| is_finished(name, VIEWS) || is_finished(name, STREAM));
        // The names of the views' sort by position, and behind those of streams.
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names.into_iter().map(|name| Found { opened: Reader::open(&self.folder.join(&name)), name }))
    }

    /// Snapshots of the views, the newest first; each is opened when it is its turn.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn views(&self) -> io::Result<impl Iterator<Item = Found>> {
        Ok(self.all()?.filter(|found| found.name.starts_with(VIEWS)))
    }

    /// Whether there may be one of a stream. Touches no disk.
    #[must_use]
    pub fn may_have(&self, stream: &StreamId) -> bool {
        self.streams.lock().by_name.contains_key(&stream_name(stream))
    }

    /// The snapshot of a stream.
    ///
    /// # Errors
    /// When there is none that is whole.
    pub fn stream(&self, stream: &StreamId) -> Result<Reader, Flaw> {
        let reader = Reader::open(&self.folder.join(stream_name(stream)))?;
        match &reader.stamp().subject {
            Subject::Stream(name) if name == stream.as_str() => Ok(reader),
            _ => Err(Flaw::Damaged("it is of another stream")),
        }
    }

    /// Begins a snapshot of what the stamp names.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn begin(&self, stamp: &Stamp) -> io::Result<Writer> {
        fs::create_dir_all(&self.folder)?;
        let name = match &stamp.subject {
            Subject::Views => format!("{VIEWS}{:020}.{FINISHED}", stamp.position),
            Subject::Stream(name) => name_of(name),
        };
        Writer::begin(self.folder.join(name), stamp)
    }

    /// Removes snapshots of the views: those that reach further than the one just taken, which are of another
    /// log therefore, and all but the newest [`VIEWS_MAX`].
    pub fn tidy_views(&self, taken: Position) {
        let mut kept: Vec<String> = names(&self.folder).unwrap_or_default();
        kept.retain(|name| is_finished(name, VIEWS));
        kept.sort_unstable_by(|one, other| other.cmp(one));
        let newest = format!("{VIEWS}{taken:020}.{FINISHED}");
        let (beyond, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|name| *name > newest);
        for name in beyond.iter().chain(kept.iter().skip(VIEWS_MAX)) {
            self.remove(name);
        }
    }

    /// Counts a snapshot of a stream that was just taken, and removes the oldest as long as they are too many
    /// or too large.
    pub fn tidy_streams(&self, taken: &StreamId, bytes: u64) {
        let mut streams = self.streams.lock();
        streams.add(stream_name(taken), bytes);
        let mut going = Vec::new();
        while streams.by_name.len() > STREAMS_MAX || streams.bytes > STREAMS_MAX_BYTES {
            let Some(oldest) = streams.oldest() else { break };
            streams.take(&oldest);
            going.push(oldest);
        }
        drop(streams);
        going.iter().for_each(|name| self.remove(name));
    }

    /// Removes the snapshot of a stream, which is of no use.
    pub fn remove_stream(&self, stream: &StreamId) {
        let name = stream_name(stream);
        self.streams.lock().take(&name);
        self.remove(&name);
    }

    fn remove(&self, name: &str) {
        // What stays is removed with the next one.
        let _ = fs::remove_file(self.folder.join(name));
    }
}

impl Streams {
    fn add(&mut self, name: String, bytes: u64) {
        self.take(&name);
        self.next += 1;
        self.bytes += bytes;
        self.by_name.insert(name, Kept { bytes, age: self.next });
    }

    fn take(&mut self, name: &str) {
        if let Some(kept) = self.by_name.remove(name) {
            self.bytes -= kept.bytes;
        }
    }

    fn oldest(&self) -> Option<String> {
        self.by_name.iter().min_by_key(|(_, kept)| kept.age).map(|(name, _)| name.clone())
    }
}

/// Names of streams may hold what names of files must not.
fn stream_name(stream: &StreamId) -> String {
    name_of(stream.as_str())
}

fn name_of(stream: &str) -> String {
    let hash = blake3::hash(stream.as_bytes()).to_hex();
    format!("{STREAM}{}.{FINISHED}", &hash[..32])
}

fn is_finished(name: &str, kind: &str) -> bool {
    name.starts_with(kind) && Path::new(name).extension().is_some_and(|end| end == FINISHED)
}

/// A folder that is not there has none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
