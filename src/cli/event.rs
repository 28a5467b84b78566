//! `photon event`: shows what happened, as the log recorded it.

use clap::{Args, Subcommand, ValueEnum};

pub(super) mod folder;
mod tail;
mod transfer;
pub(super) mod verify;

use super::connection::{Connection, given};
use super::exit::{Complaint, Exit};
use super::output::{Limit, Output};
use super::pick;
use super::story::Story;
use super::table::Table;
use crate::client::Client;
use crate::http::event_view::EventView;

/// What to do with events.
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// List events
    List(ListArgs),
    /// Show events as they happen, through restarts of the server; as JSON, one document a line
    Tail(tail::TailArgs),
    /// Verify the log of a stopped server; exit with 65 and name the first bad record if it is damaged
    Verify(verify::VerifyArgs),
    /// Write the log of a stopped server as JSON, one event a line
    Export(transfer::ExportArgs),
    /// Make a log from an export, in an empty folder: same sequences, same ids
    Import(transfer::ImportArgs),
    /// Move operations that ended long ago from the log of a stopped server into its archive
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
    /// Only of this operation; its id may be shortened, @last is the newest
    #[arg(long, value_name = "ID", conflicts_with = "agent")]
    operation: Option<String>,
    /// Only of this agent; its id may be shortened
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
}

impl Wanted {
    async fn filters(self, client: &Client) -> Result<Vec<(&'static str, String)>, Complaint> {
        let operation = match &self.operation {
            Some(named) => Some(pick::operation(client, named).await?),
            None => None,
        };
        let agent = match &self.agent {
            // Also one that is removed has a history.
            Some(named) => Some(pick::agent(client, named).await.unwrap_or_else(|_| named.clone())),
            None => None,
        };
        Ok(given([("types", self.types), ("operation", operation), ("agent", agent)]))
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
    /// Which end of the history comes first
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
    let client = arguments.connection.client()?;
    let mut filters = arguments.wanted.filters(&client).await?;
    let after = arguments.after.map(|after| after.to_string());
    filters.extend(given([("after", after), ("order", Some(order.to_owned()))]));
    let events = client.events(&filters, arguments.limit.most()).await?;
    arguments.output.list(&events, "events", table)
}

fn table(events: &[EventView]) -> Table {
    let story = Story::default();
    let mut table = Table::new(&["SEQUENCE", "TIME", "TYPE", "SUBJECT", "WHAT"]);
    for event in events {
        table.row([
            event.sequence.clone(),
            event.time.to_string(),
            event.kind.clone(),
            event.subject.clone(),
            story.line(event),
        ]);
    }
    table
}
