//! Operations as they stood at a version, for reading. Folds their streams; never asks an actor.

use std::sync::Arc;

use domain::OperationId;
use domain::operation::Operation;
use events::{EventLog, Version};
use moka::sync::Cache;

use crate::gateway::stream_of;
use crate::recovery::{Recovered, RecoveryError, recover};

/// Bytes of operations that are kept, by a rough weight.
const CACHE_BYTES: u64 = 32 << 20;

/// Reads operations, and keeps the latest that were read.
pub struct Reader {
    log: Arc<dyn EventLog>,
    cache: Cache<OperationId, (u64, Arc<Operation>)>,
}

impl Reader {
    /// One with an empty cache.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        let weigh = |_: &OperationId, (_, operation): &(u64, Arc<Operation>)| weight(operation);
        let cache = Cache::builder().max_capacity(CACHE_BYTES).weigher(weigh).build();
        Self { log, cache }
    }

    /// Remembers a state that is known already.
    pub fn remember(&self, id: &OperationId, revision: u64, operation: &Arc<Operation>) {
        self.cache.insert(id.clone(), (revision, Arc::clone(operation)));
    }

    /// The operation at exactly this revision. None when its stream is shorter.
    ///
    /// # Errors
    /// When its stream cannot be read.
    pub async fn at(&self, id: &OperationId, revision: u64) -> Result<Option<Arc<Operation>>, RecoveryError> {
        let kept = self.cache.get(id).filter(|(version, _)| *version <= revision);
        let from = match kept {
            Some((version, operation)) if version == revision => return Ok(Some(operation)),
            Some((version, operation)) => {
                Recovered { state: Some((*operation).clone()), version: Version::new(version) }
            }
            None => Recovered::default(),
        };
        let stream = stream_of::<Operation>(id);
        let recovered = recover::<Operation>(&*self.log, &stream, from, Some(revision)).await?;
        let Some(operation) = recovered.state.map(Arc::new) else { return Ok(None) };
        if recovered.version.get() != revision {
            return Ok(None);
        }
        self.remember(id, revision, &operation);
        Ok(Some(operation))
    }
}

fn weight(operation: &Operation) -> u32 {
    let definition = &operation.definition;
    let steps = definition.workflow.iter().map(|step| 512 + step.inputs.len()).sum::<usize>();
    let bytes = 1_024 + steps + definition.metadata.len() + operation.results_bytes;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
