//! Owns which server is loaded: a fresh one of our own for each measurement, or the one that was named.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::Plan;
use super::fault::Fault;
use super::process::Process;
use super::sample;
use super::wire::Wire;

/// The server that is loaded.
pub(super) struct Server {
    address: SocketAddr,
    own: Option<(Process, TempDir)>,
}

impl Server {
    /// The one that was named, or a fresh one on an empty folder.
    pub(super) async fn of(plan: &Plan) -> Result<Self, Fault> {
        Self::at(plan.server, plan.folder.as_deref()).await
    }

    /// The one at this address, or a fresh one on an empty folder in this one.
    pub(super) async fn at(address: Option<SocketAddr>, parent: Option<&Path>) -> Result<Self, Fault> {
        if let Some(address) = address {
            return Ok(Self { address, own: None });
        }
        let folder = temporary(parent)?;
        let (process, _) = Process::serve(folder.path()).await?;
        Ok(Self { address: process.address(), own: Some((process, folder)) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process, if it is ours.
    pub(super) fn process(&self) -> Option<&Process> {
        self.own.as_ref().map(|(process, _)| process)
    }

    /// Registers agents.
    pub(super) async fn register(&self, names: &[String], slots: usize) -> Result<(), Fault> {
        let mut wire = Wire::open(self.address).await?;
        for name in names {
            wire.call("/api/v1/agents", &sample::agent(name, slots), 201).await?;
        }
        Ok(())
    }

    /// Takes agents off a server that goes on without us.
    pub(super) async fn unregister(&self, names: &[String]) -> Result<(), Fault> {
        if self.own.is_some() {
            return Ok(());
        }
        let mut wire = Wire::open(self.address).await?;
        for name in names {
            let request = wire.plain("DELETE", &format!("/api/v1/agents/{name}"));
            wire.exchange(&request, 200).await?;
        }
        Ok(())
    }

    /// Stops it if it is ours, and deletes its folder.
    pub(super) async fn stop(self) -> Result<(), Fault> {
        match self.own {
            Some((process, folder)) => {
                process.stop().await?;
                Ok(folder.close()?)
            }
            None => Ok(()),
        }
    }
}

/// A fresh folder, in the given one if there is one.
pub(super) fn temporary(parent: Option<&Path>) -> Result<TempDir, Fault> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("photon-bench-");
    Ok(match parent {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    })
}
