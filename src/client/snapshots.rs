//! The calls about snapshots.

use std::time::Duration;

use super::{Call, Client, ClientError};
use crate::http::snapshots::SnapshotView;

const SNAPSHOTS: [&str; 3] = ["api", "v1", "snapshots"];
/// The first one of a long log takes seconds.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

impl Client {
    /// Snapshots that the server keeps.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, ClientError> {
        self.data(Call::get(&SNAPSHOTS)).await
    }

    /// Takes one.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn take_snapshot(&self) -> Result<SnapshotView, ClientError> {
        self.data(Call::post(&SNAPSHOTS, &serde_json::json!({}))?.within(TAKEN_WITHIN)).await
    }
}
