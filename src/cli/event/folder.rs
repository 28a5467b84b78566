//! Owns the flags that name the folder of a log.

use std::path::PathBuf;

use clap::Args;

use super::super::exit::Complaint;
use super::super::settings_flags::{self, VARIABLES_OF_COMMANDS};
use crate::settings::{Environment, Flag, Sources};

/// Where a log lies: as a server would find it.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogFolder {
    /// Configuration file instead of config.toml [env: PHOTON_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the log [env: PHOTON_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
}

impl LogFolder {
    /// The folder, or all that is wrong with the configuration.
    pub(in crate::cli) fn path(&self) -> Result<PathBuf, Complaint> {
        let flag = |value| Flag { name: "--data-dir".into(), key: "storage.data_dir", value };
        let settings = settings_flags::load(&Sources {
            config: self.config.clone(),
            flags: self.data_dir.clone().map(flag).into_iter().collect(),
            environment: Environment::of_process(),
            other_variables: VARIABLES_OF_COMMANDS,
            folder: PathBuf::new(),
        })?;
        Ok(settings.storage.data_dir)
    }
}
