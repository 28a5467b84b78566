//! `photon agent`: lists, shows, registers, drains and removes agents.

mod select;

use std::time::Duration;

use clap::{Args, Subcommand};
use domain::Json;
use domain::agent::event::{Config, Status};
use domain::operation::definition::Location;

use super::connection::{Connection, given};
use super::exit::{Complaint, Exit};
use super::op::duration;
use super::output::{self, Output};
use super::table::{Table, pairs};
use super::terminal;
use crate::http::agent_request::{RegisterAgent, UpdateAgent};
use crate::http::agent_view::{AgentMetrics, AgentView, RecentResults};

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Lists agents by id
    List(ListArgs),
    /// Shows an agent
    Get(OneArgs),
    /// Says which agent would be chosen for a step, and why
    Select(select::SelectArgs),
    /// Registers an agent whose process speaks for itself
    Register(RegisterArgs),
    /// Gives an agent no more work; what it has it finishes. Lasts until 'resume', even if it starts anew
    Drain(OneArgs),
    /// Gives a drained or quarantined agent work again
    Resume(OneArgs),
    /// Removes an agent; what it works on is given to others
    Rm(OneArgs),
}

/// Which to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only with this status: active, busy, inactive or error
    #[arg(long)]
    status: Option<String>,
    /// Only with this capability
    #[arg(long)]
    capability: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 500)]
    limit: usize,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// Id of the agent
    id: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Whom to register.
#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// Id of the agent
    id: String,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// What an agent says of itself.
#[derive(Clone, Debug, Args)]
pub(super) struct ProfileArgs {
    /// What it can do; may be repeated
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<String>,
    /// Steps that it takes at once
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) max: u32,
    /// How often it says that it lives; three silent intervals make it lose its work
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    heartbeat: Duration,
    /// Where it is: local, cloud, edge, mobile or remote
    #[arg(long, value_name = "PLACE", default_value = "local", value_parser = location)]
    location: Location,
    /// Which AI model it is
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Label that steps can require; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl ProfileArgs {
    pub(super) fn request(&self, id: &str) -> RegisterAgent {
        RegisterAgent {
            id: id.to_owned(),
            name: None,
            model: self.model.clone(),
            capabilities: self.capabilities.clone(),
            location: self.location,
            config: Config {
                max_concurrent_steps: self.max,
                heartbeat_interval_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX),
                labels: self.labels.iter().cloned().collect(),
                model_parameters: Json::object(),
                failures_in_a_row: None,
            },
            metadata: Json::object(),
            incarnation: None,
        }
    }
}

fn location(text: &str) -> Result<Location, String> {
    let known = Location::ALL.into_iter().find(|location| location.name() == text);
    known.ok_or_else(|| format!("one of {}", Location::ALL.map(Location::name).join(", ")))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a label like zone=lab")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) async fn run(command: AgentCommand) -> Result<Exit, Complaint> {
    match command {
        AgentCommand::List(arguments) => list(arguments).await,
        AgentCommand::Get(arguments) => {
            let agent = arguments.connection.client()?.agent(&arguments.id).await?;
            arguments.output.one(&agent, text)
        }
        AgentCommand::Select(arguments) => select::run(arguments).await,
        AgentCommand::Register(arguments) => {
            let request = arguments.profile.request(&arguments.id);
            let registered = arguments.connection.client()?.register_agent(&request).await?;
            output::say(&format!(
                "Agent {} is registered, incarnation {}.",
                registered.agent.id, registered.agent.incarnation
            ));
            arguments.output.one(&registered, |registered| text(&registered.agent))
        }
        AgentCommand::Drain(arguments) => {
            let agent = stand(&arguments, Status::Inactive).await?;
            let working = agent.current_operations.len();
            let sentence =
                format!("Agent {} takes no more work; it works for {working} operations.", agent.id);
            told(&agent, &sentence, arguments.output)
        }
        AgentCommand::Resume(arguments) => {
            let agent = stand(&arguments, Status::Active).await?;
            told(&agent, &format!("Agent {} takes work again.", agent.id), arguments.output)
        }
        AgentCommand::Rm(arguments) => {
            let agent = arguments.connection.client()?.unregister_agent(&arguments.id).await?;
            told(&agent, &format!("Agent {} is removed.", agent.id), arguments.output)
        }
    }
}

async fn stand(arguments: &OneArgs, status: Status) -> Result<AgentView, Complaint> {
    let change = UpdateAgent { status: Some(status), ..UpdateAgent::default() };
    Ok(arguments.connection.client()?.update_agent(&arguments.id, &change).await?)
}

/// A sentence for people; the agent for programs.
fn told(agent: &AgentView, sentence: &str, output: Output) -> Result<Exit, Complaint> {
    output::say(sentence);
    output.for_programs(agent)
}

async fn list(arguments: ListArgs) -> Result<Exit, Complaint> {
    let filters = given([("status", arguments.status), ("capability", arguments.capability)]);
    let agents = arguments.connection.client()?.agents(&filters, arguments.limit).await?;
    arguments.output.list(&agents, "agents", table)
}

fn table(agents: &[AgentView]) -> Table {
    let mut table = Table::new(&["ID", "STATUS", "CAPABILITIES", "DONE", "FAILED", "SUCCESS", "SEEN"]);
    for agent in agents {
        table.row([
            agent.id.clone(),
            agent.status.clone(),
            agent.capabilities.join(","),
            agent.metrics.operations_completed.to_string(),
            agent.metrics.operations_failed.to_string(),
            success(&agent.metrics),
            terminal::ago(agent.last_seen),
        ]);
    }
    table
}

/// Nothing is to be read from the rate of one that has done nothing yet.
fn success(metrics: &AgentMetrics) -> String {
    metrics.success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0} %"))
}

/// The last results in one line.
fn recently(metrics: &AgentMetrics) -> String {
    let RecentResults { completed, failed, lost, response_time_p50, response_time_p95, .. } = &metrics.recent;
    let counts = format!("{completed} done, {failed} failed, {lost} lost");
    match (response_time_p50, response_time_p95) {
        (Some(half), Some(most)) => format!("{counts}; half within {half} ms, 95 % within {most} ms"),
        _ => counts,
    }
}

fn text(agent: &AgentView) -> String {
    let labels = agent.config.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let response = agent.metrics.average_response_time.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    let heartbeat = agent.config.heartbeat_interval_ms;
    pairs(&[
        ("Agent", agent.id.clone()),
        ("Name", agent.name.clone()),
        ("Status", format!("{} ({})", agent.status, agent.status_reason)),
        ("Capabilities", agent.capabilities.join(", ")),
        ("Model", agent.model.clone()),
        ("Location", agent.location.name().to_owned()),
        ("Labels", labels.collect::<Vec<_>>().join(", ")),
        ("Slots", agent.config.max_concurrent_steps.to_string()),
        ("Heartbeat", if heartbeat == 0 { "none expected".into() } else { format!("every {heartbeat} ms") }),
        ("Works for", agent.current_operations.join(", ")),
        (
            "Steps",
            format!(
                "{} done, {} failed",
                agent.metrics.operations_completed, agent.metrics.operations_failed
            ),
        ),
        ("Recently", recently(&agent.metrics)),
        ("Success", success(&agent.metrics)),
        ("Response", response),
        ("Incarnation", agent.incarnation.to_string()),
        ("Last seen", format!("{} ({})", agent.last_seen, terminal::ago(agent.last_seen))),
    ])
}
