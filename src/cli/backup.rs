//! `photon backup`: copies of a log, and back. Reads the folder of the log itself, beside a running server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use domain::Timestamp;

mod restore;

use super::event::folder::LogFolder;
use super::event::verify::refused;
use super::exit::{Complaint, Exit};
use super::output::Output;
use super::table::pairs;
use super::terminal::counted;
use crate::backup::manifest::Manifest;
use crate::backup::{self, Fault};

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Copies the log to a new folder, also while its server runs, and reads the copy once more
    Create(CreateArgs),
    /// Reads a backup whole; ends with 65 and names the first bad record if it is damaged
    Verify(VerifyArgs),
    /// Puts a backup, or its beginning, in the place of the log of a stopped server, which is moved aside
    Restore(restore::RestoreArgs),
}

/// Which log, and where to.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// A folder that is not there yet
    target: PathBuf,
    #[command(flatten)]
    folder: LogFolder,
    #[command(flatten)]
    output: Output,
}

/// Which backup.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Folder of the backup
    target: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: &BackupCommand) -> Result<Exit, Complaint> {
    match command {
        BackupCommand::Create(CreateArgs { target, folder, output }) => {
            let manifest = backup::create(&folder.path()?, target, now()).map_err(complaint)?;
            output.one(&manifest, |manifest| text(target, manifest))
        }
        BackupCommand::Verify(VerifyArgs { target, output }) => {
            let manifest = backup::verify(target).map_err(complaint)?;
            output.one(&manifest, |manifest| text(target, manifest))
        }
        BackupCommand::Restore(arguments) => restore::run(arguments),
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
}

fn text(target: &Path, manifest: &Manifest) -> String {
    let Manifest { position, time, events, streams, bytes, .. } = manifest;
    let (events, streams) = (counted(*events, "event"), counted(*streams, "stream"));
    pairs(&[
        ("backup", target.display().to_string()),
        ("made", manifest.created_at.to_string()),
        ("position", format!("{position}, of {time}")),
        ("holds", format!("{events} of {streams}, {}", counted(*bytes, "byte"))),
        ("epoch", manifest.epoch.clone()),
        ("digest", manifest.digest.clone()),
        ("state's hash", manifest.state_hash.clone()),
    ])
}

fn complaint(fault: Fault) -> Complaint {
    let sentence = format!("{fault}.");
    match fault {
        Fault::Exists(path) => {
            let sentence = format!("{} is there already; nothing was changed.", path.display());
            Complaint::new(Exit::CONFLICT, sentence)
        }
        Fault::NoParent(path) => {
            let sentence = format!("There is no folder {}; make it first.", path.display());
            Complaint::new(Exit::CONFIGURATION, sentence)
        }
        Fault::NoBackup(path) => {
            let sentence = format!("There is no whole backup in {}: it has no manifest.", path.display());
            Complaint::new(Exit::DAMAGED, sentence)
        }
        Fault::Changed { folder, what } => {
            let sentence = format!("The backup in {} is damaged: {what}.", folder.display());
            Complaint::new(Exit::DAMAGED, sentence)
        }
        Fault::OtherFormat { folder, what } => {
            let sentence = format!(
                "The backup in {} cannot be read: {what}; restore it with the version that made it.",
                folder.display()
            );
            Complaint::new(Exit::DAMAGED, sentence)
        }
        Fault::Log { folder, source, unknown } => refused(&folder, *source, unknown.map(|fault| *fault)),
        Fault::Place(sentence) => Complaint::new(Exit::USAGE, sentence),
        Fault::Disk { .. } => Complaint::new(Exit::DISK, sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_compacted_meanwhile_is_not_called_damaged() {
        let (folder, source) = (PathBuf::from("copy/log"), Box::new(events::OpenError::Compacted));
        let told = complaint(Fault::Log { folder, source, unknown: None });
        let expected = "Streams were removed from the log meanwhile; repeat it.";
        assert_eq!(told, Complaint::new(Exit::REPEAT, expected));
    }
}
