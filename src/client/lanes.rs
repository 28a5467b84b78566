//! The calls about lanes.

use reqwest::Method;

use super::{Call, Client, ClientError};
use crate::http::lanes::LaneView;

const LANES: [&str; 3] = ["api", "v1", "lanes"];

impl Client {
    /// Lanes that are parked, by name.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn lanes(&self, most: usize) -> Result<Vec<LaneView>, ClientError> {
        self.items(&LANES, &[], most).await
    }

    /// Opens a lane.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn open_lane(&self, id: &str) -> Result<LaneView, ClientError> {
        let [api, version, lanes] = LANES;
        self.data(Call::new(Method::DELETE, &[api, version, lanes, id])).await
    }
}
