//! `photon op`: creates, lists, shows, follows and cancels operations.

pub(super) mod choice;
mod plan;
mod show;
mod word;

use std::io::Read;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::canvas::Canvas;
use super::connection::{Connection, given};
use super::exit::{Complaint, Exit};
use super::follow::{Follower, has_ended};
use super::output::{self, Format, Output};
use super::table::Table;
use super::terminal::{self, Style};
use crate::client::Client;
use crate::http::operation_view::{OperationSummary, OperationView};
use crate::http::query::parse_duration;
use word::{PauseArgs, ResolveArgs, StepArgs};

/// Largest definition that is read; the server takes less.
const DEFINITION_BYTES_MAX: u64 = 16 << 20;
/// One long poll of `op watch`.
const POLL: Duration = Duration::from_secs(50);

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub(super) enum OpCommand {
    /// Creates an operation from a JSON file
    Create(CreateArgs),
    /// Lists operations, newest first
    List(ListArgs),
    /// Shows an operation: its steps, and why each agent was chosen
    Get(OneArgs),
    /// Follows an operation until it has ended
    Watch(OneArgs),
    /// Cancels an operation
    Cancel(OneArgs),
    /// Starts no step of an operation until it is resumed; what runs goes on
    Pause(PauseArgs),
    /// Starts steps of a paused operation again
    Resume(OneArgs),
    /// Says yes to a step of platform human
    Approve(StepArgs),
    /// Says no to a step of platform human
    Reject(StepArgs),
    /// Performs a step again that waits for its next attempt or for attention
    Retry(StepArgs),
    /// Does without a step that nobody has
    Skip(StepArgs),
    /// Says what became of a step that needs attention
    Resolve(ResolveArgs),
}

/// What to create.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// File with the operation as JSON, or - for standard input
    file: String,
    /// Waits so long for its end, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// Creates it once, however often this is repeated
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Creates nothing: checks it, and shows in which order its steps would run and who would get them now
    #[arg(long, conflicts_with_all = ["wait", "idempotency_key"])]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Which to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only with this status
    #[arg(long)]
    status: Option<String>,
    /// Only with this priority
    #[arg(long)]
    priority: Option<String>,
    /// Only those that this agent works for
    #[arg(long)]
    agent: Option<String>,
    /// Only those in which a step waits for this, such as approval, attention, agent or window
    #[arg(long, value_name = "CAUSE")]
    blocked_on: Option<String>,
    /// Only with this text in the name
    #[arg(short, long = "query", value_name = "TEXT")]
    query: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// Id of the operation
    id: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: OpCommand) -> Result<Exit, Complaint> {
    match command {
        OpCommand::Create(arguments) => create(&arguments).await,
        OpCommand::List(arguments) => list(arguments).await,
        OpCommand::Get(arguments) => get(&arguments).await,
        OpCommand::Watch(arguments) => watch(&arguments).await,
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

async fn create(arguments: &CreateArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let definition = definition(&arguments.file)?;
    if arguments.dry_run {
        let planned = client.plan_operation(&definition).await?;
        output::say("The operation would be accepted.");
        return arguments.output.one(&planned, plan::text);
    }
    let operation = client.create_operation(&definition, arguments.idempotency_key.as_deref()).await?;
    output::say(&format!("Operation {} is accepted.", operation.id));
    let Some(wait) = arguments.wait else {
        return shown(&client, &operation, arguments.output, Exit::DONE).await;
    };
    let operation = wait_for_end(&client, operation, wait).await?;
    let exit = ending(&operation);
    if exit == Exit::TIMED_OUT {
        let (id, wait) = (&operation.id, terminal::span(wait));
        output::say(&format!("It has not ended within {wait}; 'photon op watch {id}' follows it on."));
    }
    shown(&client, &operation, arguments.output, exit).await
}

/// The JSON of a file; what it means is the server's to judge.
fn definition(file: &str) -> Result<Value, Complaint> {
    let unreadable = |cause| Complaint::new(Exit::FAILED, format!("{file} cannot be read: {cause}."));
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(DEFINITION_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(DEFINITION_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    serde_json::from_str(&text)
        .map_err(|fault| Complaint::new(Exit::FAILED, format!("{file} is not valid JSON: {fault}.")))
}

async fn wait_for_end(
    client: &Client,
    operation: OperationView,
    wait: Duration,
) -> Result<OperationView, Complaint> {
    let (deadline, mut operation) = (Instant::now() + wait, operation);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if has_ended(&operation) || left.is_zero() {
            return Ok(operation);
        }
        operation = client.operation_after(&operation.id, left, None).await?;
    }
}

/// What a command ends with that waited for an operation.
fn ending(operation: &OperationView) -> Exit {
    match operation.status.as_str() {
        "completed" => Exit::DONE,
        "failed" | "cancelled" => Exit::OPERATION_FAILED,
        _ => Exit::TIMED_OUT,
    }
}

async fn list(arguments: ListArgs) -> Result<Exit, Complaint> {
    let filters = given([
        ("status", arguments.status),
        ("priority", arguments.priority),
        ("agent", arguments.agent),
        ("blockedOn", arguments.blocked_on),
        ("q", arguments.query),
    ]);
    let operations = arguments.connection.client()?.operations(&filters, arguments.limit).await?;
    arguments.output.list(&operations, "operations", table)
}

fn table(operations: &[OperationSummary]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATUS", "STEPS", "DONE", "PRIORITY", "CREATED"]);
    for one in operations {
        table.row([
            one.id.clone(),
            one.name.clone(),
            one.status.clone(),
            format!("{}/{}", one.settled, one.steps),
            format!("{} %", one.progress),
            one.priority.name().to_owned(),
            terminal::ago(one.created_at),
        ]);
    }
    table
}

async fn get(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.operation(&arguments.id).await?;
    shown(&client, &operation, arguments.output, Exit::DONE).await
}

/// Prints an operation, for people with the reasons of each choice.
async fn shown(
    client: &Client,
    operation: &OperationView,
    output: Output,
    exit: Exit,
) -> Result<Exit, Complaint> {
    let choices = match output.format {
        Format::Table => choice::of_operation(client, operation).await?,
        Format::Json | Format::Jsonl => Vec::new(),
    };
    output.one(operation, |operation| show::text(operation, &choices, Style::of_stdout()))?;
    Ok(exit)
}

async fn watch(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.operation(&arguments.id).await?;
    match arguments.output.format {
        Format::Table => {
            let mut follower = Follower::new(client, operation, Canvas::stdout(), Style::of_stdout());
            follower.catch_up().await?;
            while !has_ended(&follower.seen) {
                follower.next(POLL).await?;
            }
            follower.canvas.keep();
            Ok(ending(&follower.seen))
        }
        Format::Json => {
            let mut operation = operation;
            while !has_ended(&operation) {
                operation = client.operation_after(&operation.id, POLL, None).await?;
            }
            arguments.output.one(&operation, |_| String::new())?;
            Ok(ending(&operation))
        }
        Format::Jsonl => {
            let mut operation = operation;
            loop {
                arguments.output.one(&operation, |_| String::new())?;
                if has_ended(&operation) {
                    return Ok(ending(&operation));
                }
                let revision = operation.revision;
                while operation.revision == revision {
                    operation = client.operation_after(&operation.id, POLL, Some(revision + 1)).await?;
                }
            }
        }
    }
}

async fn cancel(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let operation = client.cancel_operation(&arguments.id).await?;
    output::say(&format!("Operation {} is {}.", operation.id, operation.status));
    arguments.output.for_programs(&operation)
}
