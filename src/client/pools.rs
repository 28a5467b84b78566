//! The call about pools.

use super::{Call, Client, ClientError};
use crate::http::pools::PoolView;

impl Client {
    /// Pools in the order of the server's configuration.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn pools(&self) -> Result<Vec<PoolView>, ClientError> {
        self.data(Call::get(&["api", "v1", "pools"])).await
    }
}
