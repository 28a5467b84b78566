//! Owns putting a backup, or the beginning of it, in the place of a log: first what would be lost, then all
//! or nothing. It must never delete what was there: that is moved aside.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use actors::past::Past;
use domain::Aggregate;
use domain::Timestamp;
use domain::agent::Agent;
use domain::operation::Operation;
use events::{Epoch, Identity, OpenError, Position, Prefix, Recorded, SledLog, StreamId};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;

use super::manifest::Manifest;
use super::survey::Survey;
use super::{Fault, LOG, read, sync};
use crate::archive::Digest;

/// Within a folder that is not yet whole.
const UNFINISHED: &str = "unfinished";

/// Up to where to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// All of the backup.
    End,
    /// A position of the log.
    Position(u64),
    /// A moment; the whole of that millisecond counts.
    Time(Timestamp),
}

/// Events behind a position, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// How many events.
    pub events: u64,
    /// Operations that began behind it: they would be gone.
    pub operations_gone: u64,
    /// Operations that went on behind it: they would fall back.
    pub operations_back: u64,
    /// Agents that came behind it.
    pub agents_gone: u64,
    /// Agents that changed behind it.
    pub agents_back: u64,
}

/// What would become of what.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Position of the last event that would be restored: the end of the last whole commit.
    pub position: u64,
    /// Its time.
    pub time: Timestamp,
    /// How many events would be restored.
    pub events: u64,
    /// BLAKE3 of what they come to, as `photon replay --to` shows it.
    pub state_hash: String,
    /// What the backup has behind that position.
    pub left_out: Loss,
    /// What is there now.
    pub present: Option<Present>,
    #[serde(skip)]
    source: PathBuf,
    #[serde(skip)]
    folder: PathBuf,
    #[serde(skip)]
    occupied: bool,
    #[serde(skip)]
    log: Epoch,
}

/// The log that is there now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Present {
    /// Position of its last event.
    pub position: u64,
    /// Whether it went on from what would be restored.
    pub same_history: bool,
    /// Where it is damaged; what is behind that is not counted.
    pub damage: Option<String>,
    /// What it has that would not be restored.
    pub lost: Loss,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Which history the log has now.
    pub epoch: String,
    /// Where the folder is that was there.
    pub moved_to: Option<PathBuf>,
}

/// Counts what is behind a position.
struct Counter {
    cut: Position,
    before: HashSet<StreamId>,
    behind: HashSet<StreamId>,
    loss: Loss,
}

impl Counter {
    fn new(cut: Position) -> Self {
        Self { cut, before: HashSet::new(), behind: HashSet::new(), loss: Loss::default() }
    }

    fn take(&mut self, event: &Recorded) {
        let behind = event.position > self.cut;
        self.loss.events += u64::from(behind);
        let streams = if behind { &mut self.behind } else { &mut self.before };
        if !streams.contains(&event.stream) {
            streams.insert(event.stream.clone());
        }
    }

    fn end(mut self) -> Loss {
        for stream in &self.behind {
            let back = self.before.contains(stream);
            let count = match (stream.category(), back) {
                (Operation::CATEGORY, false) => &mut self.loss.operations_gone,
                (Operation::CATEGORY, true) => &mut self.loss.operations_back,
                (Agent::CATEGORY, false) => &mut self.loss.agents_gone,
                (Agent::CATEGORY, true) => &mut self.loss.agents_back,
                _ => continue,
            };
            *count += 1;
        }
        self.loss
    }
}

impl Plan {
    /// Reads the backup whole and what is there now, and changes nothing.
    ///
    /// # Errors
    /// When the backup is damaged or does not reach that far, or a server runs on what is there.
    pub fn of(source: &Path, folder: &Path, at: At) -> Result<Self, Fault> {
        let mut reached = Position::START;
        let (manifest, _) = read(source, &mut |event| {
            let counts = match at {
                At::End => true,
                At::Position(position) => event.position.get() <= position,
                At::Time(time) => event.time_us.div_euclid(1_000) <= time.as_micros().div_euclid(1_000),
            };
            if counts {
                reached = event.position;
            }
        })?;
        // Let go at once: it holds the lock, and the backup is read again.
        let Prefix { position, identity, .. } = prefix(source, &manifest, at, reached)?;
        let (mut past, mut digest) = (Past::default(), Digest::default());
        let mut counter = Counter::new(position);
        Survey::of(&source.join(LOG), &mut |event| {
            if event.position <= position {
                let _ = past.take(event);
                digest.add(event);
            }
            counter.take(event);
        })?;
        let folder = whole_path(folder)?;
        let occupied = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        let present =
            if occupied { present(&folder, position, &identity, &digest.end().digest)? } else { None };
        Ok(Self {
            position: position.get(),
            time: past.time,
            events: past.events,
            state_hash: past.hash(),
            left_out: counter.end(),
            present,
            source: source.to_owned(),
            folder,
            occupied,
            log: identity.log,
        })
    }

    /// Restores. Whatever happens meanwhile, the folder is as it was or as it should be.
    ///
    /// # Errors
    /// When something is there and may not be replaced, a server runs on it, or the disk fails.
    pub fn carry_out(&self, replace: bool, now: Timestamp) -> Result<Done, Fault> {
        if self.occupied && !replace {
            return Err(Fault::Exists(self.folder.clone()));
        }
        let disk = || Fault::disk(&self.folder);
        let beside = |suffix: &str| {
            let mut name = self.folder.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (restoring, aside) = (beside(".restoring"), aside(&beside, now));
        let identity = Identity { log: self.log, epoch: Epoch::fresh() };
        make_room(&restoring, &aside).map_err(disk())?;
        self.build(&restoring, &identity)?;
        let parent = restoring.join("..").canonicalize().map_err(disk())?;
        let epoch = identity.epoch.to_string();
        if !self.occupied {
            fs::rename(&restoring, &self.folder).and_then(|()| sync(&parent)).map_err(disk())?;
            return Ok(Done { epoch, moved_to: None });
        }
        let seized = SledLog::seize(&self.folder);
        let _seized = seized.map_err(|fault| Fault::log(&self.folder, fault))?;
        // One step, so that at every moment one of the two has the name.
        renameat_with(CWD, &restoring, CWD, &self.folder, RenameFlags::EXCHANGE)
            .map_err(|fault| disk()(fault.into()))?;
        let moved = sync(&parent).and_then(|()| fs::rename(&restoring, &aside)).and_then(|()| sync(&parent));
        moved.map_err(disk())?;
        Ok(Done { epoch, moved_to: Some(aside) })
    }

    /// Writes the new folder under another name, and reads it once more.
    fn build(&self, restoring: &Path, identity: &Identity) -> Result<(), Fault> {
        let disk = || Fault::disk(restoring);
        let log = self.source.join(LOG);
        let prefix = SledLog::prefix(&log, Position::new(self.position));
        let prefix = prefix.map_err(|fault| Fault::log(&log, fault))?;
        fs::DirBuilder::new().mode(0o700).create(restoring).map_err(disk())?;
        let unfinished = restoring.join(UNFINISHED);
        File::create(&unfinished).and_then(|_| sync(restoring)).map_err(disk())?;
        self.fill(restoring, &prefix, identity).inspect_err(|_| {
            // Half a copy is of no use, and may be what fills the disk. What another restore has put there
            // meanwhile is not called unfinished.
            if unfinished.exists() {
                let _ = fs::remove_dir_all(restoring);
            }
        })?;
        fs::remove_file(&unfinished).and_then(|()| sync(restoring)).map_err(disk())?;
        make_like(restoring, &self.folder).map_err(disk())
    }

    fn fill(&self, restoring: &Path, prefix: &Prefix, identity: &Identity) -> Result<(), Fault> {
        prefix.copy_to(restoring, identity).map_err(|fault| Fault::log(restoring, fault))?;
        let Survey { audit, past, .. } = Survey::of(restoring, &mut |_| {})?;
        if (audit.last.get(), audit.events, past.hash())
            != (self.position, self.events, self.state_hash.clone())
        {
            return Err(Fault::changed(&self.source, "it changed while it was restored"));
        }
        Ok(())
    }
}

fn prefix(source: &Path, manifest: &Manifest, at: At, reached: Position) -> Result<Prefix, Fault> {
    if let At::Position(position) = at
        && position > manifest.position
    {
        let end = manifest.position;
        return Err(Fault::Place(format!("The backup ends at position {end}, before {position}.")));
    }
    let log = source.join(LOG);
    SledLog::prefix(&log, reached).map_err(|fault| match fault {
        OpenError::Io(fault) if fault.kind() == io::ErrorKind::InvalidInput => {
            let sentence = "Events that ended long before that place were removed from the log, so that \
                what it was then cannot be restored; choose a later one.";
            Fault::Place(sentence.into())
        }
        fault => Fault::log(&log, fault),
    })
}

/// What is there now, and what of it would be lost.
fn present(
    folder: &Path,
    cut: Position,
    restored: &Identity,
    digest: &str,
) -> Result<Option<Present>, Fault> {
    let (mut all, mut more) = (Counter::new(Position::START), Counter::new(cut));
    let (mut common, mut last) = (Digest::default(), Position::START);
    let audit = SledLog::audit(folder, &mut |event| {
        if event.position <= cut {
            common.add(event);
        }
        last = event.position;
        all.take(event);
        more.take(event);
        Ok(())
    });
    let damage = match audit {
        Ok(audit) if audit.generations == 0 => return Ok(None),
        Ok(_) => None,
        Err(OpenError::Corrupt(damage)) => Some(damage.to_string()),
        Err(fault) => return Err(Fault::log(folder, fault)),
    };
    let identity = SledLog::identity(folder).map_err(|fault| Fault::log(folder, fault.into()))?;
    let same_history = identity == Some(*restored) || common.end().digest == digest;
    let lost = if same_history { more.end() } else { all.end() };
    Ok(Some(Present { position: last.get(), same_history, damage, lost }))
}

/// The path without links and relative parts. The last of them may be missing.
fn whole_path(folder: &Path) -> Result<PathBuf, Fault> {
    if folder.exists() {
        return folder.canonicalize().map_err(Fault::disk(folder));
    }
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput.into()).map_err(Fault::disk(folder))?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.exists() {
        return Err(Fault::NoParent(parent.to_owned()));
    }
    Ok(parent.canonicalize().map_err(Fault::disk(folder))?.join(name))
}

/// Lets into a folder who may look into the one that it replaces; a quite new one is its owner's alone.
fn make_like(folder: &Path, replaced: &Path) -> io::Result<()> {
    let about = match fs::metadata(replaced) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about?,
    };
    give_to(folder, &about)?;
    fs::set_permissions(folder, about.permissions())
}

/// Gives a path, and all that is below it, to the owner of another, as far as this process may.
fn give_to(path: &Path, about: &fs::Metadata) -> io::Result<()> {
    match lchown(path, Some(about.uid()), Some(about.gid())) {
        Err(fault)
            if matches!(fault.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) =>
        {
            return Ok(());
        }
        given => given?,
    }
    if path.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give_to(&entry?.path(), about))?;
    }
    Ok(())
}

/// A free name for the folder that was there.
fn aside(beside: &dyn Fn(&str) -> PathBuf, now: Timestamp) -> PathBuf {
    let time: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let mut aside = beside(&format!(".before-{time}"));
    let mut number = 2;
    while aside.exists() {
        aside = beside(&format!(".before-{time}-{number}"));
        number += 1;
    }
    aside
}

/// Clears away what a restore left that was killed: a copy that is not whole goes, and the folder that was
/// replaced gets its name.
fn make_room(restoring: &Path, aside: &Path) -> io::Result<()> {
    if !restoring.exists() {
        return Ok(());
    }
    let is_ours = restoring.join(UNFINISHED).exists() || fs::read_dir(restoring)?.next().is_none();
    if is_ours {
        return fs::remove_dir_all(restoring);
    }
    let mut named = aside.to_owned().into_os_string();
    named.push("-found");
    fs::rename(restoring, named)
}
