//! `photon pool`: shows the pools of workers that a server keeps.

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::Output;
use super::table::Table;
use super::terminal;
use crate::http::pools::PoolView;

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Lists pools: how many workers there are and should be, and why
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

pub(super) async fn run(command: PoolCommand) -> Result<Exit, Complaint> {
    let PoolCommand::List(arguments) = command;
    let pools = arguments.connection.client()?.pools().await?;
    arguments.output.list(&pools, "pools", table)
}

fn table(pools: &[PoolView]) -> Table {
    let head = ["NAME", "CAPABILITY", "WORKERS", "WANTED", "BOUNDS", "READY", "QUEUE", "SCALED", "WHY"];
    let mut table = Table::new(&head);
    for pool in pools {
        let queue = pool.queue.queue_ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3));
        let failure = pool.trouble.as_ref().and_then(|trouble| trouble.last_failure.clone());
        table.row([
            pool.name.clone(),
            pool.capability.clone(),
            if pool.managed { pool.actual.to_string() } else { format!("{} (not ours)", pool.actual) },
            pool.wanted.to_string(),
            format!("{} to {}", pool.min, pool.max),
            pool.queue.ready_steps.to_string(),
            queue,
            pool.scaled_at.map_or("-".to_owned(), terminal::ago),
            failure.or_else(|| pool.detail.clone()).unwrap_or_default(),
        ]);
    }
    table
}
