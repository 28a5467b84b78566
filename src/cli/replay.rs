//! `photon replay`: folds a server's log from its beginning, up to a place or a time, and says what it comes
//! to. The server folds; nothing is changed by it.

use clap::Args;

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::{self, Output};
use super::table::pairs;
use crate::http::operation_view::OperationView;
use crate::http::past::ReplayView;

/// How far, and what to say of it.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Up to this position of the log, or this time; the end when absent
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<String>,
    /// Prints this operation as it stood then
    #[arg(long, value_name = "ID", conflicts_with = "check")]
    operation: Option<String>,
    /// Compares with what the server shows now; ends with 1 when something differs
    #[arg(long, conflicts_with = "to")]
    check: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: ReplayArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    if let Some(id) = &arguments.operation {
        let operation: OperationView = client.operation_at(id, arguments.to.as_deref()).await?;
        return arguments.output.one(&operation, |operation| {
            let step =
                |step: &crate::http::operation_view::StepView| (step.step.to_string(), step.status.clone());
            let mut lines = vec![
                ("operation".to_owned(), operation.id.clone()),
                ("status".to_owned(), operation.status.clone()),
                ("revision".to_owned(), operation.revision.to_string()),
                ("progress".to_owned(), format!("{} %", operation.progress)),
            ];
            lines.extend(
                operation.workflow.iter().map(step).map(|(step, status)| (format!("step {step}"), status)),
            );
            listed(&lines)
        });
    }
    let replay = client.replay(arguments.to.as_deref(), arguments.check).await?;
    arguments.output.one(&replay, text)?;
    match &replay.check {
        Some(check) if !check.equal => {
            output::say("The server shows something else than its log says. Keep both, and report it.");
            Ok(Exit::FAILED)
        }
        _ => Ok(Exit::DONE),
    }
}

fn text(replay: &ReplayView) -> String {
    let mut lines = vec![
        ("position".to_owned(), replay.position.clone()),
        ("time".to_owned(), replay.time.to_string()),
        ("events".to_owned(), replay.events.to_string()),
        ("agents".to_owned(), replay.agents.to_string()),
        ("hash".to_owned(), replay.hash.clone()),
    ];
    lines.extend(
        replay.operations.iter().map(|(status, count)| (format!("operations {status}"), count.to_string())),
    );
    if let Some(check) = &replay.check {
        lines.push(("compared".to_owned(), check.compared.to_string()));
        lines.push(("moved on".to_owned(), check.moved_on.to_string()));
        lines.push(("differing".to_owned(), check.differing.len().to_string()));
        lines.extend(check.differing.iter().map(|stream| ("differs".to_owned(), stream.clone())));
    }
    listed(&lines)
}

fn listed(lines: &[(String, String)]) -> String {
    pairs(&lines.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>())
}
