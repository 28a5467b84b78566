//! `photon op`: creates, lists, shows, follows and cancels operations.

mod attempts;
pub(super) mod choice;
mod create;
mod list;
mod plan;
pub(super) mod show;
mod watch;
mod word;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::{self, Format, Output};
use super::pick;
use super::terminal::Style;
use crate::client::Client;
use crate::http::operation_view::OperationView;
use crate::http::query::parse_duration;
use create::CreateArgs;
use list::ListArgs;
use watch::WatchArgs;
use word::{PauseArgs, ResolveArgs, StepArgs};

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub(super) enum OpCommand {
    /// Create an operation from a JSON file
    Create(CreateArgs),
    /// List operations, newest first
    List(ListArgs),
    /// Show an operation: its steps, their attempts and results, and why each agent was chosen
    Get(OneArgs),
    /// Follow an operation until it has ended, through restarts of the server
    Watch(WatchArgs),
    /// Cancel an operation
    Cancel(OneArgs),
    /// Start no more steps of an operation until it is resumed; running steps go on
    Pause(PauseArgs),
    /// Start steps of a paused operation again
    Resume(OneArgs),
    /// Approve a step of platform human
    Approve(StepArgs),
    /// Reject a step of platform human
    Reject(StepArgs),
    /// Retry a step that waits for its next attempt or needs attention
    Retry(StepArgs),
    /// Skip a step that no agent holds
    Skip(StepArgs),
    /// Say what became of a step that needs attention
    Resolve(ResolveArgs),
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    #[arg(help = pick::OPERATION_HELP)]
    id: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: OpCommand) -> Result<Exit, Complaint> {
    match command {
        OpCommand::Create(arguments) => create::run(&arguments).await,
        OpCommand::List(arguments) => list::run(arguments).await,
        OpCommand::Get(arguments) => get(&arguments).await,
        OpCommand::Watch(arguments) => watch::run(&arguments).await,
        OpCommand::Cancel(arguments) => cancel(&arguments).await,
        OpCommand::Pause(arguments) => word::pause(&arguments).await,
        OpCommand::Resume(arguments) => word::resume(&arguments).await,
        OpCommand::Approve(arguments) => word::about_step(&arguments, "approve").await,
        OpCommand::Reject(arguments) => word::about_step(&arguments, "reject").await,
        OpCommand::Retry(arguments) => word::about_step(&arguments, "retry").await,
        OpCommand::Skip(arguments) => word::about_step(&arguments, "skip").await,
        OpCommand::Resolve(arguments) => word::resolve(&arguments).await,
    }
}

/// A time as it is written everywhere in Photon.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a time like 500ms, 30s, 5m or 1h".to_owned())
}

/// The exit code of a command that waited for an operation.
fn ending(operation: &OperationView) -> Exit {
    match operation.status.as_str() {
        "completed" => Exit::DONE,
        "failed" | "cancelled" => Exit::OPERATION_FAILED,
        _ => Exit::TIMED_OUT,
    }
}

async fn get(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.operation(&pick::operation(&client, &arguments.id).await?).await?;
    shown(&client, &operation, arguments.output, Exit::DONE).await
}

/// Prints an operation, for people with what happened to each step.
async fn shown(
    client: &Client,
    operation: &OperationView,
    output: Output,
    exit: Exit,
) -> Result<Exit, Complaint> {
    let stories = match output.format {
        Format::Table => attempts::of_operation(client, operation).await?,
        Format::Json | Format::Jsonl => BTreeMap::new(),
    };
    output.one(operation, |operation| show::text(operation, &stories, Style::of_stdout()))?;
    Ok(exit)
}

async fn cancel(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.cancel_operation(&pick::operation(&client, &arguments.id).await?).await?;
    output::say(&format!("Operation {} is {}.", operation.id, operation.status));
    arguments.output.for_programs(&operation)
}
