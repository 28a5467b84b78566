//! `photon event verify`: an audit of the log in a folder, without a server. Changes nothing.

use std::path::Path;

use actors::codec::{self, CodecError};
use clap::Args;
use events::{Audit, OpenError, Recorded, SledLog};
use serde_json::json;

use super::super::exit::{Complaint, Exit};
use super::super::output::Output;
use super::super::terminal::counted;
use super::folder::LogFolder;
use crate::archive::{Digest, hex};

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
    let mut digest = Digest::default();
    let audit = audit(&folder, &mut |event| {
        digest.add(event);
        Ok(())
    })?;
    let digest = digest.end().digest;
    arguments.output.one(&shown(&audit, &digest), |_| text(&audit, &digest))
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
    match found {
        Ok(audit) if audit.generations == 0 => {
            Err(Complaint::new(Exit::CONFIGURATION, format!("There is no log in {}.", folder.display())))
        }
        Ok(audit) => Ok(audit),
        Err(fault) => Err(refused(folder, fault, unknown)),
    }
}

/// Why a log cannot be used, and what is not understood in it.
pub(in crate::cli) fn refused(folder: &Path, fault: OpenError, unknown: Option<CodecError>) -> Complaint {
    let log = format!("The log in {}", folder.display());
    match fault {
        OpenError::Corrupt(damage) => {
            let more = unknown.map(|fault| format!(" ({fault})")).unwrap_or_default();
            let advice = "'photon serve --quarantine' shows what is whole before that.";
            let sentence = format!("{log} is damaged: {damage}{more}. {advice}");
            Complaint::new(Exit::DAMAGED, sentence)
        }
        OpenError::Locked => {
            let sentence = format!("{log} is in use by a running server; stop it first.");
            Complaint::new(Exit::UNAVAILABLE, sentence)
        }
        OpenError::Compacted => {
            let sentence = "Streams were removed from the log meanwhile; repeat it.";
            Complaint::new(Exit::REPEAT, sentence)
        }
        OpenError::FormerFormat(_) | OpenError::NewerFormat(_) | OpenError::NewerRecord(_) => {
            Complaint::new(Exit::DAMAGED, format!("{log} cannot be read: {fault}."))
        }
        OpenError::Io(fault) if fault.kind() == std::io::ErrorKind::NotFound => {
            Complaint::new(Exit::CONFIGURATION, format!("There is no folder {}.", folder.display()))
        }
        OpenError::Io(fault) if fault.kind() == std::io::ErrorKind::TimedOut => {
            Complaint::new(Exit::REPEAT, format!("{log} cannot be used: {fault}."))
        }
        OpenError::Io(fault) => Complaint::new(Exit::DISK, format!("{log} cannot be used: {fault}.")),
    }
}

fn shown(audit: &Audit, digest: &str) -> serde_json::Value {
    let Audit { generations, events, streams, bytes, torn_bytes, .. } = audit;
    json!({
        "generations": generations, "events": events, "streams": streams,
        "first": audit.first.to_string(), "last": audit.last.to_string(),
        "bytes": bytes, "tornBytes": torn_bytes, "head": hex(&audit.head), "digest": digest,
    })
}

fn text(audit: &Audit, digest: &str) -> String {
    let Audit { generations, events, streams, first, last, bytes, torn_bytes, head } = audit;
    let torn = match torn_bytes {
        0 => String::new(),
        _ => format!(
            "\nAt its end: {} of an unfinished write, which was never acknowledged.",
            counted(*torn_bytes, "byte")
        ),
    };
    let (events, streams) = (counted(*events, "event"), counted(*streams, "stream"));
    let (generations, bytes) = (counted(*generations, "generation"), counted(*bytes, "byte"));
    format!(
        "The log is whole: {events} of {streams} at positions {first} to {last}, in {generations} with \
         {bytes}.\n\
         The head of its hash chain is {}, the digest of its events {digest}.{torn}",
        hex(head)
    )
}
