//! `photon op create`: creates an operation from a file, once, and waits for its end when asked to.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::connection::Connection;
use super::super::exit::{Complaint, Exit};
use super::super::output::{self, Output, say};
use super::super::terminal;
use super::{duration, ending, plan, shown};

/// Largest definition that is read; the server takes less.
const DEFINITION_BYTES_MAX: u64 = 16 << 20;

/// What to create.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// File with the operation as JSON, or - for standard input
    file: String,
    /// Wait up to this time for its end, such as 30s or 5m, through restarts of the server
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// Create it once, however often this is repeated
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Create nothing: check it, and show the order of its steps and which agents would get them now
    #[arg(long, conflicts_with_all = ["wait", "idempotency_key"])]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: &CreateArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let definition = definition(&arguments.file)?;
    if arguments.dry_run {
        let planned = client.plan_operation(&definition).await?;
        output::say("The operation would be accepted.");
        return arguments.output.one(&planned, plan::text);
    }
    // With a key of its own a creation whose answer was lost can be asked for again.
    let key = arguments.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let until = Instant::now() + arguments.wait.unwrap_or_default();
    let created = client.create_operation_once(&definition, &key, until, &mut say).await;
    let operation = created.map_err(|failure| {
        if !failure.is_unknown() {
            return failure.into();
        }
        let advice = format!("With --idempotency-key {key} it is created once, however often you repeat it.");
        Complaint::new(failure.exit(), format!("{failure} {advice}"))
    })?;
    say(&format!("Operation {} is accepted.", operation.id));
    let Some(wait) = arguments.wait else {
        return shown(&client, &operation, arguments.output, Exit::DONE).await;
    };
    let operation = client.operation_in_time(operation, None, Some(until), &mut say).await?;
    let exit = ending(&operation);
    if exit != Exit::TIMED_OUT {
        return shown(&client, &operation, arguments.output, exit).await;
    }
    let (id, wait) = (&operation.id, terminal::span(wait));
    say(&format!("It has not ended within {wait}; 'photon op watch {id}' follows it on."));
    // A server that is away cannot say more about it than is known already.
    shown(&client, &operation, arguments.output, exit).await.or(Ok(exit))
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
