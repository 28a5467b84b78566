//! `photon agent select`: asks the server whom it would choose for a step, and prints the table.

use clap::Args;
use domain::agent::selection::{Candidates, Scored};
use domain::operation::definition::{Location, Requirements};

use super::super::connection::Connection;
use super::super::exit::{Complaint, Exit};
use super::super::op::choice;
use super::super::output::Output;
use super::super::table::Table;
use crate::http::selection::{SelectAgent, SelectionView};

/// What the step would ask for.
#[derive(Debug, Args)]
pub(in super::super) struct SelectArgs {
    /// What the agent must be able to do; may be repeated
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<String>,
    /// Where it should be
    #[arg(long, value_name = "PLACE", value_parser = super::locations())]
    location: Option<Location>,
    /// Which AI model it must be
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Label that it must have; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::label)]
    labels: Vec<(String, String)>,
    /// Only this agent may be chosen; may be repeated
    #[arg(long = "among", value_name = "ID")]
    agents: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: SelectArgs) -> Result<Exit, Complaint> {
    let requires = Requirements {
        capabilities: arguments.capabilities,
        location: arguments.location,
        model: arguments.model,
        labels: arguments.labels.into_iter().collect(),
    };
    let wish = SelectAgent { requires, agents: arguments.agents, ..SelectAgent::default() };
    let selection = arguments.connection.client()?.select_agent(&wish).await?;
    arguments.output.one(&selection, text)
}

fn text(selection: &SelectionView) -> String {
    let SelectionView { chosen, candidates, waiting } = selection;
    let verdict = chosen.as_ref().map_or("Nobody fits.".to_owned(), |agent| format!("Chosen: {agent}"));
    let rows =
        table(candidates, |scored| if waiting.contains(&scored.agent.to_string()) { "yes" } else { "no" });
    let parts = [Some(verdict), rows, choice::excluded(&candidates.excluded)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The ranked with their parts, best first; none when there are none.
fn table(candidates: &Candidates, waits: impl Fn(&Scored) -> &'static str) -> Option<String> {
    let head = &["AGENT", "SCORE", "CAPABILITY", "PERFORMANCE", "AVAILABILITY", "LOCATION", "WAITS"];
    let mut table = Table::new(head);
    for scored in &candidates.ranked {
        let numbers =
            [scored.score, scored.capability, scored.performance, scored.availability, scored.location];
        let numbers = numbers.map(|number| format!("{number:.3}"));
        let cells = [scored.agent.to_string()].into_iter().chain(numbers);
        table.row(cells.chain([waits(scored).to_owned()]));
    }
    (!candidates.ranked.is_empty()).then(|| table.drawn())
}
