//! `photon lane`: shows the accounts that take no calls for now, and opens them by hand.

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::{self, Limit, Output};
use super::table::Table;
use crate::http::lanes::LaneView;

/// What to do with lanes.
#[derive(Debug, Subcommand)]
pub(super) enum LaneCommand {
    /// Lists the lanes that are parked
    List(ListArgs),
    /// Opens a lane, whatever its provider said
    Open(OpenArgs),
}

/// Which to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    limit: Limit<50>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Which to open.
#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// Its name
    lane: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: LaneCommand) -> Result<Exit, Complaint> {
    match command {
        LaneCommand::List(arguments) => {
            let lanes = arguments.connection.client()?.lanes(arguments.limit.most()).await?;
            arguments.output.list(&lanes, "parked lanes", table)
        }
        LaneCommand::Open(arguments) => {
            let lane = arguments.connection.client()?.open_lane(&arguments.lane).await?;
            output::say(&format!("Lane {} is open.", lane.lane));
            arguments.output.for_programs(&lane)
        }
    }
}

fn table(lanes: &[LaneView]) -> Table {
    let mut table = Table::new(&["LANE", "UNTIL", "SECONDS", "LEASE"]);
    for lane in lanes {
        let seconds = lane.remaining_ms.div_ceil(1_000).to_string();
        table.row([lane.lane.clone(), lane.until.to_string(), seconds, lane.lease_id.clone()]);
    }
    table
}
