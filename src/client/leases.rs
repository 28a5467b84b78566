//! The calls by which an agent reports on the step it was given.

use super::{Call, Client, ClientError};
use crate::http::leases::LeaseRenewedView;
use crate::http::reading::Nothing;
use crate::http::settlements::{
    CompleteLease, FailLease, LeaseFailedView, LeaseReleasedView, LeaseSettledView, ReleaseLease,
};

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

    /// Says that the step is done. The same key again gets the same answer, and of the leases that were
    /// claimed with the report those that the agent has not begun with.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn complete(
        &self,
        lease: &str,
        report: &CompleteLease,
        key: Option<&str>,
    ) -> Result<LeaseSettledView, ClientError> {
        self.data(Call::post(&path(lease, "complete"), report)?.key(key)).await
    }

    /// Says that the attempt failed; the key is as in [`Client::complete`].
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn fail(
        &self,
        lease: &str,
        report: &FailLease,
        key: Option<&str>,
    ) -> Result<LeaseFailedView, ClientError> {
        self.data(Call::post(&path(lease, "fail"), report)?.key(key)).await
    }

    /// Gives the step back.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn release(
        &self,
        lease: &str,
        report: &ReleaseLease,
    ) -> Result<LeaseReleasedView, ClientError> {
        self.data(Call::post(&path(lease, "release"), report)?).await
    }
}
