//! Owns the two ways out: data on standard output, talk on standard error. Nothing else in the command line
//! may write to them but the canvas.

use std::io::{self, Write};

use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;

use super::exit::{Complaint, Exit};
use super::table::Table;
use crate::stderr;

/// How data looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
}

/// The flag for it.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// Output format
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value = "table")]
    pub(super) format: Format,
}

/// The flag for the length of a list, with its default.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Limit<const DEFAULT: u32> {
    /// Maximum number of results
    #[arg(long, value_name = "N", default_value_t = DEFAULT, value_parser = value_parser!(u32).range(1..))]
    limit: u32,
}

impl<const DEFAULT: u32> Limit<DEFAULT> {
    pub(super) fn most(self) -> usize {
        self.limit as usize
    }
}

impl Output {
    /// Prints a list; `what` are its items, for when there are none and a person wonders.
    pub(super) fn list<T: Serialize>(
        self,
        items: &[T],
        what: &str,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<Exit, Complaint> {
        match self.format {
            Format::Table if items.is_empty() => {
                say(&format!("There are no such {what}."));
                Ok(Exit::DONE)
            }
            Format::Table => print(&table(items).drawn()),
            Format::Json => print(&json(&items, true)?),
            Format::Jsonl => {
                let lines = items.iter().map(|item| json(item, false)).collect::<Result<Vec<_>, _>>()?;
                print(&lines.join("\n"))
            }
        }
    }

    /// Prints one thing.
    pub(super) fn one<T: Serialize>(
        self,
        item: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<Exit, Complaint> {
        match self.format {
            Format::Table => print(&text(item)),
            Format::Json => print(&json(item, true)?),
            Format::Jsonl => print(&json(item, false)?),
        }
    }

    /// Prints one thing for programs; a person has been told already.
    pub(super) fn for_programs<T: Serialize>(self, item: &T) -> Result<Exit, Complaint> {
        self.one(item, |_| String::new())
    }
}

fn json<T: Serialize>(item: &T, pretty: bool) -> Result<String, Complaint> {
    let text = if pretty { serde_json::to_string_pretty(item) } else { serde_json::to_string(item) };
    text.map_err(|cause| Complaint::new(Exit::FAILED, format!("The data cannot be written: {cause}.")))
}

/// Prints data; nothing when there is none. A reader that has gone away has seen enough, which is no failure.
pub(super) fn print(text: &str) -> Result<Exit, Complaint> {
    if text.is_empty() {
        return Ok(Exit::DONE);
    }
    show(text).map(|_| Exit::DONE)
}

/// Prints data; tells whether somebody still reads.
pub(super) fn show(text: &str) -> Result<bool, Complaint> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => {
            Err(Complaint::new(Exit::FAILED, format!("Standard output cannot be written: {cause}.")))
        }
    }
}

/// Says something to the person at the terminal. Who does not listen misses nothing that counts.
pub(super) fn say(sentence: &str) {
    // A server's words are in it; they must not steer the terminal.
    let plain: String = sentence.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    stderr::say(&plain);
}
