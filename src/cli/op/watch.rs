//! `photon op watch`: follows an operation until it has ended, through restarts of the server.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::super::canvas::Canvas;
use super::super::connection::Connection;
use super::super::exit::{Complaint, Exit};
use super::super::follow::Follower;
use super::super::output::{Format, Output, say};
use super::super::pick;
use super::super::terminal::{self, Style};
use super::{duration, ending};
use crate::client::Client;
use crate::http::operation_view::OperationView;

/// One long poll.
const POLL: Duration = Duration::from_secs(50);
/// After so long without news it is said that a step waits for an agent that fits.
const QUIET: Duration = Duration::from_secs(2);

/// Which one, and for how long.
#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    #[arg(help = pick::OPERATION_HELP)]
    id: String,
    /// Stop after this time, such as 30s or 5m; without it, follow the operation to its end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: &WatchArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.operation(&pick::operation(&client, &arguments.id).await?).await?;
    let until = arguments.wait.map(|wait| Instant::now() + wait);
    if !operation.has_ended() {
        say(&format!("Following operation {} until it has ended.", operation.id));
    }
    let operation = match arguments.output.format {
        Format::Table => drawn(client, operation, until).await?,
        Format::Json => {
            let operation = client.operation_in_time(operation, None, until, &mut say).await?;
            arguments.output.for_programs(&operation)?;
            operation
        }
        Format::Jsonl => each(&client, operation, until, arguments.output).await?,
    };
    let exit = ending(&operation);
    if let Some(wait) = arguments.wait.filter(|_| exit == Exit::TIMED_OUT) {
        say(&format!("Operation {} has not ended within {}.", operation.id, terminal::span(wait)));
    }
    Ok(exit)
}

/// Draws the operation, and tells what happens to it.
async fn drawn(
    client: Client,
    operation: OperationView,
    until: Option<Instant>,
) -> Result<OperationView, Complaint> {
    let mut follower = Follower::new(client, operation, Canvas::stdout(), Style::of_stdout());
    follower.catch_up().await?;
    let mut poll = QUIET;
    while !follower.seen.has_ended() {
        follower.tell_waits(poll == POLL).await;
        let left = until.map_or(poll, |until| until - Instant::now());
        if left.is_zero() {
            break;
        }
        let revision = follower.seen.revision;
        let next = follower.next(left.min(poll));
        match until {
            Some(until) => {
                let Ok(next) = tokio::time::timeout_at(until, next).await else { break };
                next?;
            }
            None => {
                next.await?;
            }
        }
        poll = if follower.seen.revision == revision { POLL } else { QUIET };
    }
    follower.canvas.keep();
    Ok(follower.seen)
}

/// Prints every revision that is seen.
async fn each(
    client: &Client,
    mut operation: OperationView,
    until: Option<Instant>,
    output: Output,
) -> Result<OperationView, Complaint> {
    loop {
        output.for_programs(&operation)?;
        let revision = operation.revision;
        operation = client.operation_in_time(operation, Some(revision + 1), until, &mut say).await?;
        if operation.revision == revision {
            return Ok(operation);
        }
    }
}
