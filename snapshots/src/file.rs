//! Owns the form of one snapshot file: a stamp that says what it is of, the state in pieces, and hashes of
//! both. Must never show a byte of a state whose hashes were not checked, nor know what a state means.
//!
//! ```text
//! "photonsn"  form of the file u32  length u32  stamp
//! length u32  piece …  0u32
//! number of pieces u64  BLAKE3 of the pieces  BLAKE3 of everything before
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bincode::Options;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

const MAGIC: [u8; 8] = *b"photonsn";
/// Of the file, not of the state in it.
const FILE_FORM: u32 = 2;
/// A stamp holds numbers, hashes and the name of one stream.
const STAMP_MAX_BYTES: u32 = 4 << 10;
/// A piece is a row, or one aggregate.
const PIECE_MAX_BYTES: u32 = 64 << 20;
const HASH_LEN: usize = 32;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// All views.
    Views,
    /// The stream of this name.
    Stream(String),
}

/// What a snapshot is of, and which log it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Form of the state: another one is not understood.
    pub form: u32,
    /// What it is of.
    pub subject: Subject,
    /// Version of the stream; 0 for views.
    pub version: u64,
    /// Position of the event that it ends with.
    pub position: u64,
    /// How many events were folded into it.
    pub events: u64,
    /// Time of the event that it ends with, in microseconds since 1970.
    pub time_us: i64,
    /// Hash of the event that it ends with.
    pub end: Hash,
    /// What tells the log from others: see [`events::Marks::origin`].
    pub origin: u64,
    /// When it was taken, in microseconds since 1970.
    pub taken_at_us: i64,
}

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub enum Flaw {
    /// It is not there.
    #[error("it is gone")]
    Missing,
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It was written by another version of the program.
    #[error("it has form {found}, and this program reads {wanted}")]
    OtherForm {
        /// Its form.
        found: u32,
        /// The only form that this program reads.
        wanted: u32,
    },
    /// It is of another log, or of a part of this one that is gone.
    #[error("it belongs to another log: {0}")]
    OtherLog(&'static str),
    /// The disk did not do as it was told.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

fn damaged(what: &'static str) -> impl FnOnce(io::Error) -> Flaw {
    move |fault| match fault.kind() {
        io::ErrorKind::UnexpectedEof => Flaw::Damaged(what),
        _ => Flaw::Io(fault),
    }
}

fn stamp_options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(u64::from(STAMP_MAX_BYTES)).reject_trailing_bytes()
}

/// Writes a snapshot piece by piece. Nobody sees it before it is finished; dropping it leaves nothing.
pub struct Writer {
    out: BufWriter<File>,
    unfinished: PathBuf,
    path: PathBuf,
    all: blake3::Hasher,
    state: blake3::Hasher,
    pieces: u64,
    bytes: u64,
    finished: bool,
}

impl Writer {
    /// Begins one at a path.
    pub(crate) fn begin(path: PathBuf, stamp: &Stamp) -> io::Result<Self> {
        let unfinished = path.with_extension("new");
        let out = BufWriter::with_capacity(1 << 18, File::create(&unfinished)?);
        let (all, state) = (blake3::Hasher::new(), blake3::Hasher::new());
        let mut writer = Self { out, unfinished, path, all, state, pieces: 0, bytes: 0, finished: false };
        let stamp = stamp_options().serialize(stamp).map_err(io::Error::other)?;
        writer.write(&MAGIC)?;
        writer.write(&FILE_FORM.to_le_bytes())?;
        writer.write(&length(&stamp, STAMP_MAX_BYTES)?)?;
        writer.write(&stamp)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Adds a piece of the state.
    ///
    /// # Errors
    /// When it is empty or too large, or the disk does not take it.
    pub fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let length = length(piece, PIECE_MAX_BYTES)?;
        self.state.update(&length).update(piece);
        self.pieces += 1;
        self.write(&length)?;
        self.write(piece)
    }

    /// Makes it durable, and lets it take its place. Gives the hash of the state, and the size in bytes.
    ///
    /// # Errors
    /// When the disk does not take it: then there is none.
    pub fn finish(mut self) -> io::Result<(Hash, u64)> {
        let state = *self.state.finalize().as_bytes();
        self.write(&0_u32.to_le_bytes())?;
        let pieces = self.pieces.to_le_bytes();
        self.write(&pieces)?;
        self.write(&state)?;
        let all = *self.all.finalize().as_bytes();
        self.write(&all)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        std::fs::rename(&self.unfinished, &self.path)?;
        self.finished = true;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok((state, self.bytes))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // What is left of it is removed when the store is opened.
            let _ = std::fs::remove_file(&self.unfinished);
        }
    }
}

fn length(bytes: &[u8], max: u32) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| (1..=max).contains(length));
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a piece is too large"))?;
    Ok(length.to_le_bytes())
}

/// A snapshot that is whole: its hashes were checked.
pub struct Reader {
    source: BufReader<File>,
    stamp: Stamp,
    state: Hash,
    left: u64,
    bytes: u64,
}

impl Reader {
    /// Opens one, and checks all of it.
    ///
    /// # Errors
    /// When it is not what was written, or was written by another version of the program.
    pub(crate) fn open(path: &Path) -> Result<Self, Flaw> {
        let file = File::open(path).map_err(|fault| match fault.kind() {
            io::ErrorKind::NotFound => Flaw::Missing,
            _ => Flaw::Io(fault),
        })?;
        let bytes = file.metadata()?.len();
        let (pieces, state) = check(&file, bytes)?;
        let mut source = BufReader::with_capacity(1 << 18, file);
        source.seek(SeekFrom::Start(0))?;
        let stamp = stamp(&mut source)?;
        Ok(Self { source, stamp, state, left: pieces, bytes })
    }

    /// What it is of.
    #[must_use]
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The hash of its state.
    #[must_use]
    pub fn state(&self) -> Hash {
        self.state
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece of the state, in the order in which they were written; none behind the last.
    ///
    /// # Errors
    /// When the file changed since it was opened.
    pub fn piece(&mut self, piece: &mut Vec<u8>) -> Result<bool, Flaw> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(false) };
        self.left = left;
        let length = u32_of(&mut self.source)?;
        if !(1..=PIECE_MAX_BYTES).contains(&length) {
            return Err(Flaw::Damaged("a piece has no length"));
        }
        piece.resize(length as usize, 0);
        self.source.read_exact(piece).map_err(damaged("a piece is cut"))?;
        Ok(true)
    }
}

/// Checks the hash of everything, and gives what stands at the end.
fn check(mut file: &File, bytes: u64) -> Result<(u64, Hash), Flaw> {
    let covered = bytes.checked_sub(HASH_LEN as u64).ok_or(Flaw::Damaged("it is too short"))?;
    let mut all = blake3::Hasher::new();
    let mut left = covered;
    let mut buffer = vec![0; 1 << 18];
    // Number and hash, which are the last that is covered, may lie in two turns.
    let mut end = Vec::new();
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..want]).map_err(damaged("it is cut"))?;
        all.update(&buffer[..want]);
        end.extend_from_slice(&buffer[want.saturating_sub(8 + HASH_LEN)..want]);
        end.drain(..end.len().saturating_sub(8 + HASH_LEN));
        left -= want as u64;
    }
    let mut wanted = [0; HASH_LEN];
    file.read_exact(&mut wanted).map_err(damaged("it is cut"))?;
    if *all.finalize().as_bytes() != wanted && !is_unchecked() {
        return Err(Flaw::Damaged("its hash is another"));
    }
    let (pieces, state) = end.split_first_chunk::<8>().ok_or(Flaw::Damaged("it is too short"))?;
    let state = Hash::try_from(state).map_err(|_| Flaw::Damaged("it is too short"))?;
    Ok((u64::from_le_bytes(*pieces), state))
}

/// Whether the harness has asked for a product that does not check hashes, which its tests must notice.
fn is_unchecked() -> bool {
    cfg!(feature = "testing")
        && std::env::var("PHOTON_PLANTED").is_ok_and(|planted| planted == "snapshot_hash_unchecked")
}

fn stamp(source: &mut impl Read) -> Result<Stamp, Flaw> {
    let mut magic = [0; 8];
    source.read_exact(&mut magic).map_err(damaged("it is too short"))?;
    if magic != MAGIC {
        return Err(Flaw::Damaged("it is no snapshot"));
    }
    let found = u32_of(source)?;
    if found != FILE_FORM {
        return Err(Flaw::OtherForm { found, wanted: FILE_FORM });
    }
    let length = u32_of(source)?;
    if length > STAMP_MAX_BYTES {
        return Err(Flaw::Damaged("its stamp is too long"));
    }
    let mut bytes = vec![0; length as usize];
    source.read_exact(&mut bytes).map_err(damaged("its stamp is cut"))?;
    stamp_options().deserialize(&bytes).map_err(|_| Flaw::Damaged("its stamp is not understood"))
}

fn u32_of(source: &mut impl Read) -> Result<u32, Flaw> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes).map_err(damaged("it is cut"))?;
    Ok(u32::from_le_bytes(bytes))
}
