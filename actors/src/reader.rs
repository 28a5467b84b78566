//! Operations as they stood at a version, for reading. Folds their streams; never asks an actor.

use std::sync::Arc;

use domain::OperationId;
use domain::operation::Operation;
use events::{EventLog, Version};
use snapshots::{MemoryStore, Snapshot};
use tokio::sync::Semaphore;

use crate::gateway::stream_of;
use crate::keeper::{Keeper, recall};
use crate::recovery::{Recovered, RecoveryError, recover};

/// Bytes of operations that are kept, by a rough weight.
const KEPT_BYTES: u64 = 32 << 20;

/// Operations that are read from the log at once; further requests wait.
const FOLDS_MAX: usize = 4;

/// Reads operations, and keeps the latest that were read.
pub struct Reader {
    log: Arc<dyn EventLog>,
    keeper: Option<Arc<Keeper>>,
    kept: MemoryStore<Operation>,
    folds: Semaphore,
}

impl Reader {
    /// One that has read nothing yet.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, keeper: Option<Arc<Keeper>>) -> Self {
        let (kept, folds) = (MemoryStore::new(KEPT_BYTES, weight), Semaphore::new(FOLDS_MAX));
        Self { log, keeper, kept, folds }
    }

    /// Remembers a state that is known already.
    pub fn remember(&self, id: &OperationId, revision: u64, operation: &Arc<Operation>) {
        let snapshot = Snapshot { version: Version::new(revision), state: Arc::clone(operation) };
        self.kept.put(&stream_of::<Operation>(id), snapshot);
    }

    /// The operation at exactly this revision. None when its stream is shorter.
    ///
    /// # Errors
    /// When its stream cannot be read.
    pub async fn at(&self, id: &OperationId, revision: u64) -> Result<Option<Arc<Operation>>, RecoveryError> {
        let stream = stream_of::<Operation>(id);
        if let Some(kept) = self.kept.get(&stream, Version::new(revision))
            && kept.version.get() == revision
        {
            return Ok(Some(kept.state));
        }
        // It is never closed. Whoever waited finds what the one before has read.
        let _permit = self.folds.acquire().await;
        let from = match self.kept.get(&stream, Version::new(revision)) {
            Some(kept) if kept.version.get() == revision => return Ok(Some(kept.state)),
            Some(kept) => Recovered {
                state: Some((*kept.state).clone()),
                version: kept.version,
                ..Recovered::default()
            },
            None => {
                let kept = recall::<Operation>(self.keeper.as_deref(), &*self.log, &stream).await;
                if kept.version.get() <= revision { kept } else { Recovered::default() }
            }
        };
        let recovered =
            recover::<Operation>(&*self.log, &stream, from, &|recorded| recorded.version.get() <= revision)
                .await?;
        let Some(operation) = recovered.state.map(Arc::new) else { return Ok(None) };
        if recovered.version.get() != revision {
            return Ok(None);
        }
        self.remember(id, revision, &operation);
        Ok(Some(operation))
    }
}

/// A rough weight in bytes: payloads, and what a step takes beside them.
fn weight(operation: &Operation) -> usize {
    let definition = &operation.definition;
    let steps = definition.workflow.iter().map(|step| 512 + step.inputs.len()).sum::<usize>();
    1_024 + steps + definition.metadata.len() + operation.results_bytes
}
