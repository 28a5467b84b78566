//! The calls by which an agent reports on the step it was given.

use super::{Call, Client, ClientError};
use crate::http::leases::{
    CompleteLease, FailLease, LeaseFailedView, LeaseRenewedView, LeaseSettledView, ReleaseLease,
};
use crate::http::reading::Nothing;

fn path<'l>(lease: &'l str, report: &'l str) -> [&'l str; 5] {
    ["api", "v1", "leases", lease, report]
}

impl Client {
    /// Says that the work has begun.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn acknowledge(&self, lease: &str) -> Result<LeaseRenewedView, ClientError> {
        self.data(Call::post(&path(lease, "ack"), &Nothing {})?).await
    }

    /// Says that the step is done.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn complete(
        &self,
        lease: &str,
        report: &CompleteLease,
    ) -> Result<LeaseSettledView, ClientError> {
        self.data(Call::post(&path(lease, "complete"), report)?).await
    }

    /// Says that the attempt failed.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn fail(&self, lease: &str, report: &FailLease) -> Result<LeaseFailedView, ClientError> {
        self.data(Call::post(&path(lease, "fail"), report)?).await
    }

    /// Gives the step back.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn release(&self, lease: &str, report: &ReleaseLease) -> Result<LeaseRenewedView, ClientError> {
        self.data(Call::post(&path(lease, "release"), report)?).await
    }
}
