//! `photon event`: shows what happened, as the log recorded it.

use clap::{Args, Subcommand, ValueEnum};

pub(super) mod folder;
mod tail;
mod transfer;
pub(super) mod verify;

use super::connection::{Connection, given};
use super::exit::{Complaint, Exit};
use super::output::{Limit, Output};
use super::story::Story;
use super::table::Table;
use crate::http::event_view::EventView;

/// What to do with events.
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// Lists events
    List(ListArgs),
    /// Shows events as they happen, across restarts of the server; as JSON, one document a line
    Tail(tail::TailArgs),
    /// Verifies the log of a stopped server; ends with 65 and names the first bad record if it is damaged
    Verify(verify::VerifyArgs),
    /// Writes the log of a stopped server as JSON, one event a line
    Export(transfer::ExportArgs),
    /// Makes a log of what was exported, in an empty folder: same sequences, same ids
    Import(transfer::ImportArgs),
    /// Takes operations that ended long ago out of the log of a stopped server, into its archive
    Compact(transfer::CompactArgs),
}

/// Which end of the history comes first.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Oldest first
    Asc,
    /// Newest first
    Desc,
}

/// Which events.
#[derive(Debug, Args)]
struct Wanted {
    /// Only of these types, with commas, such as operation.*,agent.timeout
    #[arg(long)]
    types: Option<String>,
    /// Only of this operation
    #[arg(long, conflicts_with = "agent")]
    operation: Option<String>,
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
}

impl Wanted {
    fn filters(self) -> Vec<(&'static str, String)> {
        given([("types", self.types), ("operation", self.operation), ("agent", self.agent)])
    }
}

/// Which to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Only after this sequence
    #[arg(long)]
    after: Option<u64>,
    /// Which end comes first
    #[arg(long, value_enum, default_value = "asc")]
    order: Order,
    #[command(flatten)]
    limit: Limit<100>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: EventCommand) -> Result<Exit, Complaint> {
    match command {
        EventCommand::List(arguments) => list(arguments).await,
        EventCommand::Tail(arguments) => tail::run(arguments).await,
        EventCommand::Verify(arguments) => verify::run(&arguments),
        EventCommand::Export(arguments) => transfer::export(&arguments),
        EventCommand::Import(arguments) => transfer::import(&arguments),
        EventCommand::Compact(arguments) => transfer::compact(&arguments),
    }
}

async fn list(arguments: ListArgs) -> Result<Exit, Complaint> {
    let order = match arguments.order {
        Order::Asc => "asc",
        Order::Desc => "desc",
    };
    let mut filters = arguments.wanted.filters();
    let after = arguments.after.map(|after| after.to_string());
    filters.extend(given([("after", after), ("order", Some(order.to_owned()))]));
    let events = arguments.connection.client()?.events(&filters, arguments.limit.most()).await?;
    arguments.output.list(&events, "events", table)
}

fn table(events: &[EventView]) -> Table {
    let story = Story::default();
    let mut table = Table::new(&["SEQUENCE", "TIME", "TYPE", "SUBJECT", "WHAT"]);
    for event in events {
        let told = story.line(event).filter(|told| *told != event.kind);
        table.row([
            event.sequence.clone(),
            event.time.to_string(),
            event.kind.clone(),
            event.subject.clone(),
            told.unwrap_or_default(),
        ]);
    }
    table
}
