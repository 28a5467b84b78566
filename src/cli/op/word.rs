//! `photon op pause|resume|approve|reject|retry|skip|resolve`: what a person says about an operation or one
//! of its steps. Only carries the word; what it may do is the server's to judge.

use clap::{Args, ValueEnum};

use super::super::connection::Connection;
use super::super::exit::{Complaint, Exit};
use super::super::output::{self, Output};
use super::super::pick;
use super::OneArgs;
use crate::http::interventions::{Reason, ResolveStep, ResolvedOutcome};
use crate::http::operation_view::{OperationView, StepView};

/// Which one, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct PauseArgs {
    #[arg(help = pick::OPERATION_HELP)]
    id: String,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Which step, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct StepArgs {
    #[arg(help = pick::OPERATION_HELP)]
    id: String,
    /// Number of the step
    step: u32,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Why {
    /// Reason, recorded with the event
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What became of which step.
#[derive(Debug, Args)]
pub(in crate::cli) struct ResolveArgs {
    #[command(flatten)]
    about: StepArgs,
    /// What became of it
    #[arg(long, value_enum)]
    outcome: Outcome,
    /// Its result as JSON; only with --outcome completed
    #[arg(long, value_name = "JSON", value_parser = json)]
    result: Option<domain::Json>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    /// It has happened
    Completed,
    /// It has not happened and will not
    Failed,
    /// Perform it again
    Retry,
}

fn json(text: &str) -> Result<domain::Json, String> {
    serde_json::from_str(text).map_err(|fault| format!("it is not valid JSON: {fault}"))
}

pub(super) async fn pause(arguments: &PauseArgs) -> Result<Exit, Complaint> {
    let reason = Reason { reason: arguments.why.reason.clone() };
    let client = arguments.connection.client()?;
    let id = pick::operation(&client, &arguments.id).await?;
    let paused = client.operation_word(&id, "pause", &reason).await?;
    output::say(&format!("Operation {} is paused.", paused.id));
    arguments.output.for_programs(&paused)
}

pub(super) async fn resume(arguments: &OneArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let id = pick::operation(&client, &arguments.id).await?;
    let resumed: OperationView = client.operation_word(&id, "resume", &Reason::default()).await?;
    output::say(&format!("Operation {} goes on.", resumed.id));
    arguments.output.for_programs(&resumed)
}

pub(super) async fn about_step(arguments: &StepArgs, word: &str) -> Result<Exit, Complaint> {
    let reason = Reason { reason: arguments.why.reason.clone() };
    let client = arguments.connection.client()?;
    let id = pick::operation(&client, &arguments.id).await?;
    said(arguments, &client.step_word(&id, arguments.step, word, &reason).await?)
}

pub(super) async fn resolve(arguments: &ResolveArgs) -> Result<Exit, Complaint> {
    let about = &arguments.about;
    let outcome = match arguments.outcome {
        Outcome::Completed => ResolvedOutcome::Completed,
        Outcome::Failed => ResolvedOutcome::Failed,
        Outcome::Retry => ResolvedOutcome::Retry,
    };
    let (result, reason) = (arguments.result.clone(), about.why.reason.clone());
    let body = ResolveStep { outcome, result, reason };
    let client = about.connection.client()?;
    let id = pick::operation(&client, &about.id).await?;
    said(about, &client.step_word(&id, about.step, "resolve", &body).await?)
}

fn said(arguments: &StepArgs, step: &StepView) -> Result<Exit, Complaint> {
    output::say(&format!("Step {} is {}.", step.step, step.status));
    arguments.output.for_programs(step)
}
