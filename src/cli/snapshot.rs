//! `photon snapshot`: takes and lists the snapshots of a server, and verifies those of a stopped one.

use std::sync::Arc;

use actors::keeper::{Verdict, Verified, verify};
use clap::{Args, Subcommand};
use events::{EventLog, OpenError, Options, SledLog};
use serde_json::json;
use snapshots::FileStore;

use super::connection::Connection;
use super::event::folder::LogFolder;
use super::event::verify::refused;
use super::exit::{Complaint, Exit};
use super::output::{self, Output};
use super::table::Table;
use super::terminal::{self, counted};
use crate::http::snapshots::SnapshotView;
use crate::keeping::FOLDER;

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Takes a snapshot of everything that a server knows
    Create(Asked),
    /// Lists the snapshots of a server
    List(Asked),
    /// Folds the log of a stopped server and compares; ends with 1 when a snapshot is wrong
    Verify(VerifyArgs),
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Whose to verify.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    folder: LogFolder,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: SnapshotCommand) -> Result<Exit, Complaint> {
    match command {
        SnapshotCommand::Create(arguments) => {
            let taken = arguments.connection.client()?.take_snapshot().await?;
            let (events, position, bytes) = (taken.events, &taken.position, taken.bytes);
            output::say(&format!(
                "A snapshot of {} up to position {position} was taken, {}.",
                counted(events, "event"),
                counted(bytes, "byte")
            ));
            arguments.output.for_programs(&taken)
        }
        SnapshotCommand::List(arguments) => {
            let found = arguments.connection.client()?.snapshots().await?;
            arguments.output.list(&found, "snapshots", listed)
        }
        SnapshotCommand::Verify(arguments) => verified(arguments).await,
    }
}

fn listed(found: &[SnapshotView]) -> Table {
    let mut table = Table::new(&["OF", "REVISION", "POSITION", "EVENTS", "BYTES", "TAKEN", "HASH"]);
    for snapshot in found {
        table.row([
            snapshot.stream.clone().unwrap_or_else(|| snapshot.kind.clone()),
            snapshot.revision.map_or("-".to_owned(), |revision| revision.to_string()),
            snapshot.position.clone(),
            snapshot.events.to_string(),
            snapshot.bytes.to_string(),
            terminal::ago(snapshot.taken_at),
            snapshot.hash.chars().take(16).collect(),
        ]);
    }
    table
}

async fn verified(arguments: VerifyArgs) -> Result<Exit, Complaint> {
    let folder = arguments.folder.path()?;
    let log = SledLog::open_read_only(&folder, &Options::default());
    let log = log.and_then(|log| log.damage().map_or(Ok(log), |damage| Err(OpenError::Corrupt(damage))));
    let log: Arc<dyn EventLog> = Arc::new(log.map_err(|fault| refused(&folder, fault, None))?);
    let store = FileStore::look(folder.join(FOLDER));
    let found = verify(&store, &log)
        .await
        .map_err(|fault| Complaint::new(Exit::DISK, format!("The snapshots cannot be verified: {fault}.")))?;
    let wrong = found.iter().filter(|one| matches!(one.verdict, Verdict::Wrong(_))).count();
    let shown: Vec<serde_json::Value> = found.iter().map(shown).collect();
    arguments.output.list(&shown, "snapshots", |_| table(&found))?;
    if wrong == 0 {
        return Ok(Exit::DONE);
    }
    output::say(&format!("{wrong} are wrong. They may be deleted: the log is folded instead."));
    Ok(Exit::FAILED)
}

fn words(verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Right => ("right", String::new()),
        Verdict::PassedOver(flaw) => ("passed over", flaw.to_string()),
        Verdict::Wrong(why) => ("wrong", why.clone()),
    }
}

fn shown(one: &Verified) -> serde_json::Value {
    let (verdict, why) = words(&one.verdict);
    let snapshot = one.taken.clone().map(SnapshotView::from);
    json!({ "file": one.name, "verdict": verdict, "why": why, "snapshot": snapshot })
}

fn table(found: &[Verified]) -> Table {
    let mut table = Table::new(&["FILE", "OF", "POSITION", "VERDICT", "WHY"]);
    for one in found {
        let (verdict, why) = words(&one.verdict);
        let taken = one.taken.as_ref();
        let stream = taken.map(|taken| taken.stream.clone().unwrap_or_else(|| "views".to_owned()));
        table.row([
            one.name.clone(),
            stream.unwrap_or_else(|| "-".to_owned()),
            taken.map_or("-".to_owned(), |taken| taken.position.to_string()),
            verdict.to_owned(),
            why,
        ]);
    }
    table
}
