//! Owns the way from a folder to an open log: lock, verify everything, cut a torn tail, make the blocks
//! whole. Must never start on a hole: what does not hold together is named, and nothing is changed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::anchor::Anchor;
use crate::epoch::Identity;
use crate::journal::frame::{FRAME_HEADER_LEN, HeaderError, JournalHeader, OtherFormat};
use crate::journal::scan::{Access, Place, ScanError, Scanned, scan};
use crate::journal::{FrameBuffer, Journal, WriteError};
use crate::live::{Feed, RingMax};
use crate::log::{Damage, Floor};
use crate::options::Options;
use crate::progress::Progress;
use crate::sled_log::audit::{self, Whole};
use crate::sled_log::block::Blocks;
use crate::sled_log::fence::Fence;
use crate::sled_log::folder;
use crate::sled_log::generation::{Generation, Index};
use crate::sled_log::identity;
use crate::sled_log::ledger::Ledger;
use crate::sled_log::queue::Queue;
use crate::sled_log::shared::Shared;
use crate::sled_log::space::Space;
use crate::sled_log::writer::{Writer, create_blocks};
use crate::stream::Position;

/// Why a log does not open. Each means another exit code.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is stored is not what was written (exit 65). Nothing was changed.
    #[error("corrupt log: {0}")]
    Corrupt(Damage),
    /// Another process has the log open.
    #[error("another process has the log open")]
    Locked,
    /// A version from before the first release wrote the log (exit 65). Nothing was changed.
    #[error(
        "it has format {0}, which Photon wrote before its first release and this version cannot read; use \
         the version that wrote it, or start with an empty folder"
    )]
    FormerFormat(u32),
    /// A newer version of the program wrote the log (exit 65). Nothing was changed.
    #[error(
        "it has format {0}, which was written by a newer version of Photon and this version cannot read; use \
         the newer version"
    )]
    NewerFormat(u32),
    /// A newer version of the program wrote a record of the log (exit 65). No record was changed.
    #[error(
        "the record at position {0} was written by a newer version of Photon, which this version cannot \
         read; use the newer version"
    )]
    NewerRecord(Position),
    /// Streams were removed from it while it was read without its lock (exit 75): what was read says nothing.
    #[error("the log was compacted meanwhile; repeat it")]
    Compacted,
    /// The disk did not do as it was told (exit 74).
    #[error("cannot open the log: {0}")]
    Io(#[from] io::Error),
}

impl OpenError {
    /// Whether nothing is wrong with the log but that another version of the program wrote it.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        matches!(self, Self::FormerFormat(_) | Self::NewerFormat(_) | Self::NewerRecord(_))
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damaged(damage) => Self::Corrupt(damage),
            ScanError::Format(format) => format.into(),
            ScanError::NewerRecord(position) => Self::NewerRecord(position),
            ScanError::Io(error) => Self::Io(error),
        }
    }
}

impl From<OtherFormat> for OpenError {
    fn from(format: OtherFormat) -> Self {
        match format {
            OtherFormat::Former(format) => Self::FormerFormat(format),
            OtherFormat::Newer(format) => Self::NewerFormat(format),
        }
    }
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> Self {
        Self::Io(error.into())
    }
}

/// Opens the log in a folder, which is made if it is not there.
pub(crate) fn open(path: &Path, options: Options) -> Result<(Arc<Shared>, Writer), OpenError> {
    folder::create(path)?;
    let lock = folder::lock(path)?.ok_or(OpenError::Locked)?;
    check_format(path)?;
    // Before anything is read: what a former writer adds later, it must not acknowledge.
    let fence = Fence::take(path)?.ok_or(OpenError::Locked)?;
    folder::remove_unfinished(path)?;
    let (mut place, newest) = folder::extent(path)?;
    let progress = &options.progress;
    progress.begin(folder::journal_bytes(path, &place, newest));
    let mut ledger = Ledger::new(options.recent_ids);
    let mut generations = Vec::new();
    let mut floor = Floor::NONE;
    while place.base || place.generation < newest {
        let (generation, scanned) = open_sealed(path, place, &mut ledger, progress)?;
        generations.push(Arc::new(generation));
        if place.base {
            floor = scanned.floor();
            // Only now is it certain that it is whole.
            folder::remove_replaced(path)?;
        }
        place = place.next(&scanned);
    }
    if place.generation > newest {
        let Place { generation, after, previous, .. } = place;
        folder::create_generation(path, generation, after, previous, &options.faults, &fence)?;
    }
    let (generation, scanned) = open_newest(path, place, &mut ledger, progress)?;
    let generation = Arc::new(generation);
    generations.push(Arc::clone(&generation));
    let journal = Journal::resume(&scanned, options.faults.clone())?;

    let identity = identity::keep(path).or_else(|error| {
        tracing::warn!(%error, "cannot note which history this is: after the next start it is another");
        identity::of(path)
    })?;
    let shared = share(path, &options, &ledger, generations, floor, identity);
    let (frame, space) = (FrameBuffer::new(), Space::default());
    let (names, retiring) = (Default::default(), Vec::new());
    let writer = Writer {
        shared: Arc::clone(&shared),
        generation,
        journal,
        ledger,
        options,
        frame,
        names,
        space,
        retiring,
        lock,
        fence,
        anchor: Anchor::of(path)?,
        in_place: true,
        unnoted_told: false,
    };
    Ok((shared, writer))
}

/// Refuses the log of another version before anything in its folder is changed. Whatever else is wrong with
/// the oldest journal is for the scan to say.
pub(crate) fn check_format(path: &Path) -> Result<(), OpenError> {
    let header = folder::first_bytes(path)?.and_then(|header| header.try_into().ok());
    match header.map(|header| JournalHeader::decode(&header)) {
        Some(Err(HeaderError::Other(format))) => Err(format.into()),
        _ => Ok(()),
    }
}

/// Opens what is whole of the log in a folder, which must be there, and changes nothing.
pub(crate) fn open_read_only(
    path: &Path,
    options: &Options,
) -> Result<(Arc<Shared>, File, Option<Damage>), OpenError> {
    let lock = folder::lock_as_found(path)?.ok_or(OpenError::Locked)?;
    let Whole { generations, ledger, damage, floor } = audit::whole(path)?;
    let shared = share(path, options, &ledger, generations, floor, identity::of(path)?);
    shared.queue.close();
    Ok((shared, lock, damage))
}

/// What writer, readers and handle share of a log that ends where the ledger does.
fn share(
    path: &Path,
    options: &Options,
    ledger: &Ledger,
    generations: Vec<Arc<Generation>>,
    floor: Floor,
    identity: Option<Identity>,
) -> Arc<Shared> {
    let queue = Queue::new(options.queue_appends_max, options.queue_bytes_max);
    let ring_max = RingMax { events: options.live_events_max, bytes: options.live_bytes_max };
    let feed = Feed::new(ledger.last(), ring_max);
    let heads = Arc::clone(ledger.heads());
    Arc::new(Shared::new(path.to_owned(), queue, heads, feed, generations, floor, identity))
}

/// A sealed generation must be whole to its last byte.
fn open_sealed(
    path: &Path,
    place: Place,
    ledger: &mut Ledger,
    progress: &Progress,
) -> Result<(Generation, Scanned), OpenError> {
    let folder = folder::of(path, &place);
    if let Err(error) = Blocks::remove(&folder) {
        tracing::warn!(%error, generation = place.generation, "cannot delete sealed blocks");
    }
    let (generation, scanned) = verify(path, place, ledger, &mut None, progress)?;
    place.ends_sealed(&scanned)?;
    Ok((generation, scanned))
}

/// The newest generation may end in a torn tail, and gets its blocks: those of a clean close, or new ones.
fn open_newest(
    path: &Path,
    place: Place,
    ledger: &mut Ledger,
    progress: &Progress,
) -> Result<(Generation, Scanned), OpenError> {
    let folder = folder::generation(path, place.generation);
    let Some(durable) = folder::read_marker(&folder) else {
        folder::renew_journal(&folder).map_err(|error| place.missing_is_damage(error.into()))?;
        let mut blocks = create_blocks(&folder);
        let (generation, scanned) = verify(path, place, ledger, &mut blocks, progress)?;
        generation.set_blocks(blocks.map(Arc::new));
        return Ok((generation, scanned));
    };
    let (generation, scanned) = verify(path, Place { durable, ..place }, ledger, &mut None, progress)?;
    place.ends_at(durable, &scanned)?;
    folder::remove_marker(&folder)?;
    match Blocks::open(&folder) {
        Ok(blocks) => drop(generation.set_blocks(Some(Arc::new(blocks)))),
        Err(error) => tracing::warn!(%error, "no blocks: reads of this generation use the journal"),
    }
    Ok((generation, scanned))
}

/// Verifies a journal, teaches the ledger, builds the index, and fills blocks if they are given.
/// Blocks that do not take it are given up.
fn verify(
    path: &Path,
    place: Place,
    ledger: &mut Ledger,
    blocks: &mut Option<Blocks>,
    progress: &Progress,
) -> Result<(Generation, Scanned), OpenError> {
    let folder = folder::of(path, &place);
    let mut index = Index::default();
    let scanned = scan(&folder, place, Access::Writing, &mut |frame| {
        ledger.learn(frame.records)?;
        progress.verified(FRAME_HEADER_LEN + frame.payload.len(), ledger.last());
        index.add(frame.offset, frame.payload);
        if let Some(Err(error)) = blocks.as_ref().map(|blocks| blocks.put(frame.offset, frame.payload)) {
            tracing::warn!(%error, "no blocks: reads of this generation use the journal");
            *blocks = None;
        }
        Ok(())
    })
    .map_err(|error| place.missing_is_damage(error))?;
    ledger.reached(&scanned);
    Ok((Generation::new(folder, &scanned.header, Arc::clone(&scanned.file), index), scanned))
}
