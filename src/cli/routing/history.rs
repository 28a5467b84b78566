//! Recorded choices, a page at a time: whatever the length of the history, one page is held.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use domain::operation::event::StepReserved;

use super::super::connection::given;
use super::super::exit::{Complaint, Exit};
use crate::client::Client;
use crate::http::event_view::EventView;
use crate::http::lease_names::as_stored;

/// The event that records a choice.
const CHOICE: &str = "step.reserved";
/// Choices on a page: each may hold 256 KiB of inputs.
const PAGE: usize = 100;
/// Longest line of a file, in bytes; no event is longer.
const LINE_MAX: u64 = 16 << 20;

/// One choice; none when its event is not to be understood.
pub(super) type Choice = Option<Box<StepReserved>>;

/// Where the choices come from.
pub(super) enum History {
    /// A server's events, after this sequence or from the first that is kept.
    Server { client: Client, operation: Option<String>, after: Option<String>, ended: bool },
    /// Lines of a file, and its name.
    Lines { lines: Box<dyn BufRead>, name: String, number: usize, operation: Option<String> },
}

impl History {
    pub(super) fn of_server(client: Client, operation: Option<&str>) -> Self {
        Self::Server { client, operation: operation.map(str::to_owned), after: None, ended: false }
    }

    pub(super) fn of_file(name: &str, operation: Option<&str>) -> Result<Self, Complaint> {
        let lines: Box<dyn BufRead> = if name == "-" {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let cannot = |cause| Complaint::new(Exit::FAILED, format!("{name} cannot be read: {cause}."));
            Box::new(BufReader::new(File::open(name).map_err(cannot)?))
        };
        Ok(Self::Lines { lines, name: name.to_owned(), number: 0, operation: operation.map(str::to_owned) })
    }

    /// The next choices, oldest first; none at the end.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Choice>>, Complaint> {
        match self {
            Self::Server { ended: true, .. } => Ok(None),
            Self::Server { client, operation, after, ended } => {
                let filters = [
                    ("types", Some(CHOICE.into())),
                    ("operation", operation.clone()),
                    ("after", after.take()),
                ];
                let events = client.events(&given(filters), PAGE).await?;
                *after = events.last().map(|last| last.sequence.clone());
                // A page that is not full is the last one.
                *ended = events.len() < PAGE;
                Ok(Some(events.into_iter().map(choice).collect()))
            }
            Self::Lines { lines, name, number, operation } => {
                let mut page = Vec::new();
                while page.len() < PAGE {
                    let Some(event) = next(lines, name, number)? else { break };
                    let subject = operation.as_ref().map(|id| format!("operation/{id}"));
                    if event.kind == CHOICE && subject.is_none_or(|subject| event.subject == subject) {
                        page.push(choice(event));
                    }
                }
                Ok((!page.is_empty()).then_some(page))
            }
        }
    }
}

fn choice(mut event: EventView) -> Choice {
    as_stored(&mut event.data);
    serde_json::from_value(event.data).ok()
}

/// The next event of a file; empty lines are none.
fn next(lines: &mut dyn BufRead, name: &str, number: &mut usize) -> Result<Option<EventView>, Complaint> {
    loop {
        let mut line = String::new();
        *number += 1;
        let place = format!("{name}, line {number}");
        let cannot = |cause| Complaint::new(Exit::DAMAGED, format!("{place} cannot be read: {cause}."));
        let read = lines.take(LINE_MAX).read_line(&mut line).map_err(cannot)?;
        if read == 0 {
            return Ok(None);
        }
        if !line.trim().is_empty() {
            let fault = |fault| Complaint::new(Exit::DAMAGED, format!("{place} is no event: {fault}."));
            return serde_json::from_str(&line).map(Some).map_err(fault);
        }
    }
}
