//! `photon platform`: shows where steps can be performed.

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::Output;
use super::table::Table;
use crate::http::platforms::PlatformView;

/// What to do with platforms.
#[derive(Debug, Subcommand)]
pub(super) enum PlatformCommand {
    /// List the platforms that steps can name
    List(ListArgs),
}

/// How to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: PlatformCommand) -> Result<Exit, Complaint> {
    let PlatformCommand::List(arguments) = command;
    let platforms = arguments.connection.client()?.platforms().await?;
    arguments.output.list(&platforms, "platforms", table)
}

fn table(platforms: &[PlatformView]) -> Table {
    let mut table = Table::new(&["NAME", "PERFORMED BY", "DESCRIPTION"]);
    platforms.iter().for_each(|one| table.row([&one.name, &one.performed_by, &one.description]));
    table
}
