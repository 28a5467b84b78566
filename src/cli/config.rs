//! `photon config`: whether the configuration can be used, and where each value came from.

use clap::Subcommand;
use serde_json::json;

use super::exit::{Complaint, Exit};
use super::output::{self, Output};
use super::settings_flags::SettingsFlags;
use super::table::Table;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Ends with 0 when the configuration can be used, else names all that is wrong and ends with 64
    Check(SettingsFlags),
    /// Prints every value and where it came from
    Show {
        #[command(flatten)]
        flags: SettingsFlags,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(command: &ConfigCommand) -> Result<Exit, Complaint> {
    let (flags, shown) = match command {
        ConfigCommand::Check(flags) => (flags, None),
        ConfigCommand::Show { flags, output } => (flags, Some(output)),
    };
    let settings = flags.load()?;
    settings.warnings().iter().for_each(|warning| output::say(warning));
    let Some(output) = shown else {
        output::say("The configuration can be used.");
        return Ok(Exit::DONE);
    };
    let explained = settings.explain().iter();
    let explained = explained.map(|one| (one.key.clone(), one.value.clone(), one.source.to_string()));
    let values: Vec<_> =
        explained.map(|(key, value, source)| json!({"key": key, "value": value, "source": source})).collect();
    output.list(&values, "settings", |values| {
        let mut table = Table::new(&["OPTION", "VALUE", "FROM"]);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        values
            .iter()
            .for_each(|one| table.row([text(&one["key"]), text(&one["value"]), text(&one["source"])]));
        table
    })
}
