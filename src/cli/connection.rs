//! Owns which server a command speaks to, and how it writes the filters of a list for it.

use clap::Args;

use super::exit::Complaint;
use crate::client::{Client, DEFAULT_SERVER};

/// Which server.
#[derive(Clone, Debug, Args)]
pub(super) struct Connection {
    /// Address of the server
    #[arg(long, value_name = "URL", env = "PHOTON_SERVER", default_value = DEFAULT_SERVER)]
    server: String,
}

impl Connection {
    pub(super) fn client(&self) -> Result<Client, Complaint> {
        // An empty variable counts as absent, as everywhere: container files cannot unset one.
        let server = if self.server.is_empty() { DEFAULT_SERVER } else { &self.server };
        Ok(Client::new(server)?)
    }
}

/// The filters of a list that were given, as the parameters that the server knows.
pub(super) fn given<const N: usize>(
    filters: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
