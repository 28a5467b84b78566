//! The call about platforms.

use super::{Call, Client, ClientError};
use crate::http::platforms::PlatformView;

impl Client {
    /// Platforms by name.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn platforms(&self) -> Result<Vec<PlatformView>, ClientError> {
        self.data(Call::get(&["api", "v1", "platforms"])).await
    }
}
