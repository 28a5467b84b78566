//! `photon event verify`: an audit of the log in a folder, without a server. Changes nothing.

use std::path::Path;

use actors::codec::{self, CodecError};
use clap::Args;
use events::{Audit, OpenError, Recorded, SledLog};
use serde_json::json;

use super::super::exit::{Complaint, Exit};
use super::super::output::Output;
use super::folder::LogFolder;
use crate::app::{EXIT_CORRUPT, EXIT_DISK, EXIT_UNAVAILABLE};

/// Which log.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    folder: LogFolder,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &VerifyArgs) -> Result<Exit, Complaint> {
    let folder = arguments.folder.path()?;
    let audit = audit(&folder, &mut |_| Ok(()))?;
    arguments.output.one(&shown(&audit), |_| text(&audit))
}

/// Walks the log in a folder, checks everything, and shows each event.
pub(super) fn audit(
    folder: &Path,
    each: &mut dyn FnMut(&Recorded) -> Result<(), &'static str>,
) -> Result<Audit, Complaint> {
    let mut unknown: Option<CodecError> = None;
    let found = SledLog::audit(folder, &mut |event| {
        let checked = codec::check(event.stream.category(), &event.name, event.schema, &event.body);
        checked.map_err(|fault| {
            unknown = Some(fault);
            "an event is not understood"
        })?;
        each(event)
    });
    let log = format!("The log in {}", folder.display());
    match found {
        Ok(audit) if audit.generations == 0 => {
            Err(Complaint::new(Exit::CONFIGURATION, format!("There is no log in {}.", folder.display())))
        }
        Ok(audit) => Ok(audit),
        Err(OpenError::Corrupt(damage)) => {
            let more = unknown.map(|fault| format!(" ({fault})")).unwrap_or_default();
            let advice = "'photon serve --quarantine' shows what is whole before that.";
            let sentence = format!("{log} is damaged: {damage}{more}. {advice}");
            Err(Complaint::new(Exit::of(EXIT_CORRUPT), sentence))
        }
        Err(OpenError::Locked) => {
            let sentence = format!("{log} is in use by a running server; stop it first.");
            Err(Complaint::new(Exit::of(EXIT_UNAVAILABLE), sentence))
        }
        Err(fault @ OpenError::NewerFormat { .. }) => {
            Err(Complaint::new(Exit::of(EXIT_CORRUPT), format!("{log} cannot be read: {fault}.")))
        }
        Err(OpenError::Io(fault)) if fault.kind() == std::io::ErrorKind::NotFound => {
            Err(Complaint::new(Exit::CONFIGURATION, format!("There is no folder {}.", folder.display())))
        }
        Err(OpenError::Io(fault)) => {
            Err(Complaint::new(Exit::of(EXIT_DISK), format!("{log} cannot be read: {fault}.")))
        }
    }
}

fn shown(audit: &Audit) -> serde_json::Value {
    let Audit { generations, events, streams, bytes, torn_bytes, .. } = audit;
    json!({
        "generations": generations, "events": events, "streams": streams,
        "first": audit.first.to_string(), "last": audit.last.to_string(),
        "bytes": bytes, "tornBytes": torn_bytes, "head": hex(&audit.head),
    })
}

fn text(audit: &Audit) -> String {
    let Audit { generations, events, streams, first, last, bytes, torn_bytes, head } = audit;
    let torn = match torn_bytes {
        0 => String::new(),
        _ => format!("\nAt its end are {torn_bytes} bytes of an unfinished write, which nobody was told of."),
    };
    format!(
        "The log is whole: {events} events of {streams} streams at positions {first} to {last}, in \
         {generations} generations with {bytes} bytes.\nThe head of its hash chain is {}.{torn}",
        hex(head)
    )
}

/// Bytes as people compare them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
