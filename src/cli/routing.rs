//! `photon routing`: what other weights would have made of the choices that are history. Reads the
//! recorded tables page by page, from a server or a file; it must never ask how the agents are today.

mod history;
mod tally;

use clap::{Args, Subcommand};
use domain::agent::selection::Weights;

use super::connection::Connection;
use super::exit::{Complaint, Exit};
use super::output::{Format, Output, show};
use history::History;
use tally::{Change, Tally};

/// The four weights must make 1, as nearly as numbers with a point can.
const SUM_TOLERANCE: f64 = 1e-6;

/// What to do with the choices of agents.
#[derive(Debug, Subcommand)]
pub(super) enum RoutingCommand {
    /// Weighs every recorded choice anew, and shows which would have been another
    ///
    /// What was recorded counts: the parts of the scores of the best ten at that moment. Later choices stay
    /// as they were, even where an earlier one would have changed who was free for them.
    Replay(ReplayArgs),
}

/// Which choices, and by which weights.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// All four, such as capability=0.5,performance=0.2,availability=0.2,location=0.1; they make 1
    #[arg(long, value_name = "WEIGHTS", value_parser = weights)]
    weights: Weights,
    /// Only the steps of this operation
    #[arg(long, value_name = "ID")]
    operation: Option<String>,
    /// Reads events from a file, one JSON document a line as 'event list -o jsonl' prints them; - for
    /// standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,
    /// Changed choices that are listed; all are counted. As jsonl, all are listed
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Reads `capability=0.5,performance=0.2,availability=0.2,location=0.1`.
fn weights(text: &str) -> Result<Weights, String> {
    let mut named: [Option<f64>; 4] = [None; 4];
    let names = ["capability", "performance", "availability", "location"];
    for part in text.split(',') {
        let (name, weight) = part.split_once('=').ok_or("write each weight like capability=0.4")?;
        let at = names.iter().position(|known| *known == name.trim());
        let at = at.ok_or_else(|| format!("'{name}' is no weight; there are {}", names.join(", ")))?;
        let weight: f64 = weight.trim().parse().map_err(|_| format!("the weight of {name} is no number"))?;
        if !(0.0..=1.0).contains(&weight) {
            return Err(format!("the weight of {name} must be from 0 to 1"));
        }
        if named[at].replace(weight).is_some() {
            return Err(format!("the weight of {name} is given twice"));
        }
    }
    let [Some(capability), Some(performance), Some(availability), Some(location)] = named else {
        return Err(format!("give all four: {}", names.join(", ")));
    };
    let sum = capability + performance + availability + location;
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(format!("the four weights must make 1 together, not {sum}"));
    }
    Ok(Weights { capability, performance, availability, location })
}

pub(super) async fn run(command: RoutingCommand) -> Result<Exit, Complaint> {
    let RoutingCommand::Replay(arguments) = command;
    let mut history = match &arguments.from_file {
        Some(file) => History::of_file(file, arguments.operation.as_deref())?,
        None => History::of_server(arguments.connection.client()?, arguments.operation.as_deref()),
    };
    let lists_all = arguments.output.format == Format::Jsonl;
    let mut tally = Tally::new(arguments.weights, if lists_all { 0 } else { arguments.limit });
    while let Some(choices) = history.page().await? {
        for choice in choices {
            let change = tally.take(choice);
            if let Some(change) = change.filter(|_| lists_all)
                && !listed(&change)?
            {
                return Ok(Exit::DONE);
            }
        }
    }
    arguments.output.one(&tally, Tally::text)
}

/// Prints one change as it is found; says whether somebody still reads.
fn listed(change: &Change) -> Result<bool, Complaint> {
    let line = serde_json::to_string(change);
    show(&line.map_err(|cause| Complaint::new(Exit::FAILED, format!("It cannot be written: {cause}.")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_all_four_each_once_and_make_one() {
        let good = weights("location=0.1, performance=0.2,availability=0.2,capability=0.5").unwrap();
        assert_eq!((good.capability, good.location), (0.5, 0.1));
        for (text, fault) in [
            ("capability", "like capability=0.4"),
            ("capability=1", "give all four"),
            ("speed=1", "'speed' is no weight"),
            ("capability=x", "no number"),
            ("capability=2", "from 0 to 1"),
            ("capability=NaN", "from 0 to 1"),
            ("capability=0.1,capability=0.1", "twice"),
            ("capability=0.5,performance=0.2,availability=0.2,location=0.2", "make 1 together"),
        ] {
            let refusal = weights(text).unwrap_err();
            assert!(refusal.contains(fault), "{text}: {refusal}");
        }
    }
}
