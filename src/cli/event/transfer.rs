//! `photon event export`, `import` and `compact`: the log of a stopped server as a file, back again, and
//! without what ended long ago.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use actors::codec;
use clap::Args;
use events::{OpenError, Recorded, SledLog};
use zstd::stream::{read::Decoder, write::Encoder};

use super::super::exit::{Complaint, Exit};
use super::super::output::say;
use super::super::terminal::counted;
use super::folder::LogFolder;
use super::verify::{self, refused};
use crate::archive::{End, LineReader, LineWriter};
use crate::retention;

/// How far the clock of the machine where a log was written may have been ahead.
const AHEAD_MAX: chrono::Duration = chrono::Duration::days(1);

/// What is exported.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    folder: LogFolder,
    /// From this sequence on; only an export from the first event on can be imported
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Up to this sequence
    #[arg(long, default_value_t = u64::MAX)]
    to: u64,
    /// A new file, compressed when its name ends in .zst; standard output without it
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is imported.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// What an export wrote, from the first event on
    file: PathBuf,
    #[command(flatten)]
    folder: LogFolder,
}

/// What is removed.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompactArgs {
    #[command(flatten)]
    folder: LogFolder,
    /// Operations that ended longer ago than this go, at least 24
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(24..))]
    ended_hours: u32,
}

pub(super) fn export(arguments: &ExportArgs) -> Result<Exit, Complaint> {
    let folder = arguments.folder.path()?;
    let wanted = arguments.from..=arguments.to;
    let end = match &arguments.output {
        None => exported(&folder, BufWriter::new(io::stdout()), |event| wanted.contains(&event))?.0,
        Some(path) => {
            let file = File::create_new(path).map_err(|fault| unwritable(path, &fault))?;
            let written = to_file(&folder, path, file, |event| wanted.contains(&event));
            // Half an export is of no use; it could not be imported either.
            written.inspect_err(|_| drop(std::fs::remove_file(path)))?
        }
    };
    say(&format!("Exported {} with the digest {}.", counted(end.events, "event"), end.digest));
    Ok(Exit::DONE)
}

fn to_file(folder: &Path, path: &Path, file: File, wanted: impl Fn(u64) -> bool) -> Result<End, Complaint> {
    let failed = |fault| unwritable(path, &fault);
    let file = BufWriter::new(file);
    let (end, file) = if is_compressed(path) {
        let (end, encoder) = exported(folder, Encoder::new(file, 0).map_err(failed)?, wanted)?;
        (end, encoder.finish().map_err(failed)?)
    } else {
        exported(folder, file, wanted)?
    };
    let file = file.into_inner().map_err(|fault| failed(fault.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(end)
}

fn exported<W: Write>(folder: &Path, out: W, wanted: impl Fn(u64) -> bool) -> Result<(End, W), Complaint> {
    let (mut lines, mut failed) = (LineWriter::new(out), None);
    let audited = verify::audit(folder, &mut |event| {
        if wanted(event.position.get()) {
            lines.event(event).map_err(|fault| {
                failed = Some(fault);
                "it cannot be exported"
            })?;
        }
        Ok(())
    });
    match failed {
        Some(fault) => Err(unwritable(folder, &fault)),
        None => audited.and_then(|_| lines.end().map_err(|fault| unwritable(folder, &fault))),
    }
}

pub(super) fn import(arguments: &ImportArgs) -> Result<Exit, Complaint> {
    let (folder, path) = (arguments.folder.path()?, &arguments.file);
    let unreadable = |fault: io::Error| {
        Complaint::new(Exit::DAMAGED, format!("{} cannot be imported: {fault}.", path.display()))
    };
    let file = BufReader::new(File::open(path).map_err(unreadable)?);
    let lines: Box<dyn BufRead> = if is_compressed(path) {
        Box::new(BufReader::new(Decoder::with_buffer(file).map_err(unreadable)?))
    } else {
        Box::new(file)
    };
    // Whatever is wrong with reading it, it is the file, not the folder.
    let of_file = |fault: io::Error| io::Error::new(io::ErrorKind::InvalidData, fault);
    let mut events = LineReader::new(lines).map(|event| event.map_err(of_file).and_then(understood));
    match SledLog::restore(&folder, &mut events) {
        Ok(events) => {
            say(&format!("Imported {} into {}.", counted(events, "event"), folder.display()));
            Ok(Exit::DONE)
        }
        Err(OpenError::Io(fault)) if fault.kind() == io::ErrorKind::AlreadyExists => {
            let sentence =
                format!("There is a log in {} already; import into an empty folder.", folder.display());
            Err(Complaint::new(Exit::CONFLICT, sentence))
        }
        Err(OpenError::Io(fault)) if fault.kind() == io::ErrorKind::InvalidData => Err(unreadable(fault)),
        Err(OpenError::Corrupt(damage)) => {
            let (what, position) = (damage.what, damage.position);
            let sentence = format!(
                "{what}, at position {position}; only an export from the first event on can be imported"
            );
            Err(unreadable(io::Error::other(sentence)))
        }
        Err(fault) => Err(refused(&folder, fault, None)),
    }
}

fn understood(event: Recorded) -> io::Result<Recorded> {
    // The log's clock never goes back: behind an event of the far future no deadline would ever pass.
    let latest = chrono::Utc::now() + AHEAD_MAX;
    if event.time_us > latest.timestamp_micros() {
        let sentence = format!("the event at position {} is of the future", event.position);
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    let checked = codec::check(event.stream.category(), &event.name, event.schema, &event.body);
    checked.map(|()| event).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
}

pub(super) fn compact(arguments: &CompactArgs) -> Result<Exit, Complaint> {
    let folder = arguments.folder.path()?;
    let kept_us = i64::from(arguments.ended_hours) * 3_600_000_000;
    verify::audit(&folder, &mut |_| Ok(()))?;
    let done = retention::apply(&folder, kept_us, 0);
    let done = done.map_err(|fault| refused(&folder, fault, None))?;
    let archive = folder.join(retention::ARCHIVE);
    say(&match done.streams {
        0 => {
            "Nothing can go: no operation in a sealed generation ended that long before the log's last event."
                .into()
        }
        streams => format!(
            "Moved {} with {} ({}) to {}.",
            counted(streams, "operation"),
            counted(done.events, "event"),
            counted(done.bytes, "byte"),
            archive.display()
        ),
    });
    Ok(Exit::DONE)
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

fn unwritable(path: &Path, fault: &io::Error) -> Complaint {
    Complaint::new(Exit::FAILED, format!("{} cannot be exported: {fault}.", path.display()))
}
