//! Owns the flags that set options of the server.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Complaint, Exit};
use crate::settings::{Environment, Flag, Settings, Sources};

/// `PHOTON_*` variables that commands read, and that are no mistake therefore.
pub(super) const VARIABLES_OF_COMMANDS: &[&str] = &["PHOTON_SERVER"];

/// Where settings come from, and what wins over the environment and the file.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SettingsFlags {
    /// Configuration file instead of config.toml [env: PHOTON_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [env: PHOTON_HOST]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one [env: PHOTON_PORT]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Folder of the log [env: PHOTON_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// error, warn, info, debug or trace [env: PHOTON_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl SettingsFlags {
    /// The settings, or all that is wrong with them, with exit code 64.
    pub(super) fn load(&self) -> Result<Settings, Complaint> {
        let named = [
            ("--host", "server.host", &self.host),
            ("--port", "server.port", &self.port),
            ("--data-dir", "storage.data_dir", &self.data_dir),
            ("--log-level", "log.level", &self.log_level),
        ];
        let given = named.into_iter().filter_map(|(name, key, value)| {
            value.clone().map(|value| Flag { name: name.to_owned(), key, value })
        });
        load(&Sources {
            config: self.config.clone(),
            flags: given.collect(),
            environment: Environment::of_process(),
            other_variables: VARIABLES_OF_COMMANDS,
            folder: PathBuf::new(),
        })
    }
}

/// Settings from any sources.
pub(super) fn load(sources: &Sources) -> Result<Settings, Complaint> {
    Settings::load(sources).map_err(|faults| Complaint::new(Exit::CONFIGURATION, faults))
}
