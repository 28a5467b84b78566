//! Owns backups: the beginning of a log as a folder of its own, with a manifest that says what must be in it.
//! It must never write to the log that it copies, nor over anything that is there.
//!
//! ```text
//! log/            a log like any other; `photon event verify --data-dir` reads it too
//! manifest.json   written last: a folder without it is no backup
//! ```

pub mod manifest;
pub mod restore;
pub mod survey;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use actors::codec::CodecError;
use domain::Timestamp;
use events::{OpenError, Position, SledLog};
use thiserror::Error;

use manifest::{Manifest, Unusable};
use survey::Survey;

const LOG: &str = "log";
const MANIFEST: &str = "manifest.json";

/// Why a backup is not made, not whole, or not restored.
#[derive(Debug, Error)]
pub enum Fault {
    /// There is something where something new should be.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The folder in which a log should lie is not there.
    #[error("there is no folder {}", .0.display())]
    NoParent(PathBuf),
    /// No manifest.
    #[error("there is no whole backup in {}", .0.display())]
    NoBackup(PathBuf),
    /// A backup is not what its manifest says.
    #[error("the backup in {} is damaged: {what}", folder.display())]
    Changed {
        /// Where it lies.
        folder: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another version of the program made a backup.
    #[error("the backup in {} cannot be read: {what}", folder.display())]
    OtherFormat {
        /// Where it lies.
        folder: PathBuf,
        /// Which version, and what differs.
        what: String,
    },
    /// A log cannot be used.
    #[error("the log in {} cannot be used: {source}", folder.display())]
    Log {
        /// Where it lies.
        folder: PathBuf,
        /// Why.
        source: Box<OpenError>,
        /// What is not understood in it.
        unknown: Option<Box<CodecError>>,
    },
    /// A place that the backup does not reach.
    #[error("{0}")]
    Place(String),
    /// The disk does not do it.
    #[error("{} cannot be written: {source}", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Fault {
    fn log(folder: &Path, source: OpenError) -> Self {
        Self::Log { folder: folder.to_owned(), source: Box::new(source), unknown: None }
    }

    fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { path, source }
    }

    fn changed(folder: &Path, what: impl Into<String>) -> Self {
        Self::Changed { folder: folder.to_owned(), what: what.into() }
    }
}

/// Copies the log in a folder to a new folder, reads the copy once more, and says what is in it. A server may
/// run on the log; what it acknowledged before is part of the backup.
///
/// # Errors
/// See [`Fault`]; then nothing is left behind.
pub fn create(folder: &Path, target: &Path, now: Timestamp) -> Result<Manifest, Fault> {
    check_outside(folder, target)?;
    let prefix = SledLog::prefix(folder, Position::new(u64::MAX));
    let prefix = prefix.map_err(|fault| Fault::log(folder, fault))?;
    match fs::create_dir(target) {
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Fault::Exists(target.to_owned()));
        }
        made => made.map_err(Fault::disk(target))?,
    }
    let log = target.join(LOG);
    let made = fs::create_dir(&log).map_err(Fault::disk(target)).and_then(|()| {
        prefix.copy_to(&log, &prefix.identity).map_err(|fault| Fault::log(&log, fault))?;
        let manifest = Manifest::of(&Survey::of(&log, &mut |_| {})?, &prefix.identity, now);
        write(target, &manifest).map_err(Fault::disk(target))?;
        Ok(manifest)
    });
    // Half a backup is of no use.
    made.inspect_err(|_| drop(fs::remove_dir_all(target)))
}

/// A backup within the data folder would be lost with it, and would count for its size.
fn check_outside(folder: &Path, target: &Path) -> Result<(), Fault> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(folder)) = (parent.canonicalize(), folder.canonicalize()) else { return Ok(()) };
    if !parent.starts_with(&folder) {
        return Ok(());
    }
    let (target, folder) = (target.display(), folder.display());
    Err(Fault::Place(format!("{target} lies in the data folder {folder}; choose a folder outside of it.")))
}

/// A backup holds files and folders. Reading anything else in their place could wait for ever, or lead out of
/// the backup.
fn check_plain(target: &Path, path: &Path) -> Result<(), Fault> {
    let unread =
        |fault: io::Error| Fault::changed(target, format!("{} cannot be read: {fault}", path.display()));
    let kind = fs::symlink_metadata(path).map_err(unread)?.file_type();
    if kind.is_dir() {
        let entries = fs::read_dir(path).map_err(unread)?;
        return entries.into_iter().try_for_each(|entry| check_plain(target, &entry.map_err(unread)?.path()));
    }
    if kind.is_file() {
        return Ok(());
    }
    Err(Fault::changed(target, format!("{} is neither a file nor a folder", path.display())))
}

fn write(target: &Path, manifest: &Manifest) -> io::Result<()> {
    let unfinished = target.join("manifest.new");
    let mut file = File::create_new(&unfinished)?;
    file.write_all(manifest.text().as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, target.join(MANIFEST))?;
    sync(target)?;
    sync(&target.canonicalize()?.join(".."))
}

/// Makes names within a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether a name is taken, also by a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Reads a backup whole and compares it with its manifest; shows each event.
///
/// # Errors
/// See [`Fault`].
pub fn verify(target: &Path) -> Result<Manifest, Fault> {
    read(target, &mut |_| {}).map(|(manifest, _)| manifest)
}

fn read(target: &Path, each: &mut dyn FnMut(&events::Recorded)) -> Result<(Manifest, Survey), Fault> {
    for part in [MANIFEST, LOG].map(|part| target.join(part)).iter().filter(|part| is_there(part)) {
        check_plain(target, part)?;
    }
    let text = match fs::read_to_string(target.join(MANIFEST)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::NoBackup(target.to_owned()));
        }
        Err(fault) => return Err(Fault::changed(target, format!("its manifest cannot be read: {fault}"))),
        Ok(text) => text,
    };
    let manifest = Manifest::parse(&text).map_err(|unusable| match unusable {
        Unusable::Damaged(what) => Fault::changed(target, what),
        Unusable::OtherFormat(what) => Fault::OtherFormat { folder: target.to_owned(), what },
    })?;
    let log = target.join(LOG);
    let survey = Survey::of(&log, each)?;
    let identity = SledLog::identity(&log).map_err(|fault| Fault::log(&log, fault.into()))?;
    match identity.and_then(|identity| manifest.differs(&survey, &identity)) {
        None => Ok((manifest, survey)),
        Some(what) => Err(Fault::changed(target, what)),
    }
}
