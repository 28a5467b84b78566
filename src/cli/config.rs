//! `photon config`: whether the configuration can be used, and where each value came from.

use clap::Subcommand;
use serde_json::{Value, json};

use super::exit::{Complaint, Exit};
use super::output::{self, Output};
use super::settings_flags::SettingsFlags;
use super::table::Table;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration: exit with 0 when it can be used, or name every error and exit with 64
    Check(SettingsFlags),
    /// Print every value and where it came from
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
    let values: Vec<_> = explained
        .map(|one| json!({"key": one.key, "value": typed(&one.value), "source": one.source.to_string()}))
        .collect();
    output.list(&values, "settings", |_| {
        let mut table = Table::new(&["OPTION", "VALUE", "FROM"]);
        settings.explain().iter().for_each(|one| {
            table.row([one.key.as_str(), one.value.as_str(), &one.source.to_string()]);
        });
        table
    })
}

/// A value as it would stand in the file, as JSON: numbers are numbers.
fn typed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_type_that_it_has_in_the_file() {
        for (text, value) in [
            ("81", json!(81)),
            ("0.4", json!(0.4)),
            ("false", json!(false)),
            ("\"warn\"", json!("warn")),
            ("[\"a\", \"b\"]", json!(["a", "b"])),
            ("redacted", json!("redacted")),
        ] {
            assert_eq!(typed(text), value);
        }
    }
}
