//! `photon op list`: which operations there are, newest first.

use clap::Args;
use clap::builder::PossibleValuesParser;
use domain::Timestamp;
use domain::operation::definition::Priority;
use domain::operation::pending::Cause;
use domain::operation::step::Status;

use super::super::connection::{Connection, given};
use super::super::exit::{Complaint, Exit};
use super::super::output::{Limit, Output};
use super::super::table::Table;
use super::super::terminal;
use crate::http::operation_view::OperationSummary;
use crate::http::query::parse_duration;

/// Which to list.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only with one of these statuses, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = one_of(Status::ALL.map(Status::name)))]
    status: Vec<String>,
    /// Only with this priority
    #[arg(long, value_parser = one_of(Priority::ALL.map(Priority::name)))]
    priority: Option<String>,
    /// Only those that this agent works for
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only those with a step on this platform
    #[arg(long, value_name = "NAME")]
    platform: Option<String>,
    /// Only those in which a step waits for this
    #[arg(long, value_name = "CAUSE", value_parser = one_of(Cause::ALL.map(Cause::name)))]
    blocked_on: Option<String>,
    /// Only those created after this time, such as 2026-11-28T10:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    created_after: Option<Timestamp>,
    /// Only those created before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    created_before: Option<Timestamp>,
    /// Only with this metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, String)>,
    /// Only with this text in the name
    #[arg(short, long = "query", value_name = "TEXT")]
    query: Option<String>,
    #[command(flatten)]
    limit: Limit<50>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Words that a shell can complete.
fn one_of<const N: usize>(words: [&'static str; N]) -> PossibleValuesParser {
    PossibleValuesParser::new(words)
}

/// A moment, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = parse_duration(text).and_then(|ago| i64::try_from(ago.as_micros()).ok());
    if let Some(ago) = ago {
        return Ok(Timestamp::from_micros(chrono::Utc::now().timestamp_micros().saturating_sub(ago)));
    }
    Timestamp::parse(text)
        .ok_or_else(|| "write a time like 2026-11-28T10:00:00Z, or 2h for two hours ago".into())
}

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a metadata entry like team=core")?;
    if key.is_empty() {
        return Err("the key before '=' is missing; write a metadata entry like team=core".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl ListArgs {
    fn filters(&self) -> Vec<(String, String)> {
        let time = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
        let filters = given([
            ("status", Some(self.status.join(",")).filter(|status| !status.is_empty())),
            ("priority", self.priority.clone()),
            ("agent", self.agent.clone()),
            ("platform", self.platform.clone()),
            ("blockedOn", self.blocked_on.clone()),
            ("createdAfter", time(self.created_after)),
            ("createdBefore", time(self.created_before)),
            ("q", self.query.clone()),
        ]);
        let filters = filters.into_iter().map(|(name, value)| (name.to_owned(), value));
        let entries = self.metadata.iter().map(|(key, value)| (format!("metadata.{key}"), value.clone()));
        filters.chain(entries).collect()
    }
}

pub(super) async fn run(arguments: ListArgs) -> Result<Exit, Complaint> {
    let filters = arguments.filters();
    let filters: Vec<(&str, String)> =
        filters.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let operations = arguments.connection.client()?.operations(&filters, arguments.limit.most()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago_it_was() {
        let time = moment("2026-11-28T10:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-28T10:00:00.000Z");
        let (hour_ago, now) = (moment("1h").unwrap(), terminal::now());
        assert!((3_600_000..3_660_000).contains(&now.ms_since(hour_ago)));
        assert!(moment("yesterday").is_err() && moment("").is_err());
    }

    #[test]
    fn a_metadata_entry_has_a_key_and_a_value() {
        assert_eq!(entry("team=a=b").unwrap(), ("team".into(), "a=b".into()));
        assert!(entry("team").is_err() && entry("=x").is_err());
    }
}
