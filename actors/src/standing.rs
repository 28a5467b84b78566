//! Everything that is folded from the whole log, at one position: what a server knows before it serves. The
//! projections fold it as it grows; snapshots of it are folded here, apart from the one that is looked at.

use domain::views::ended::block::Block;
use events::{EventLog, Position, ReadError, Recorded};

use crate::codec::CodecError;
use crate::keys::Keys;
use crate::past::Past;
use crate::recovery::walk;

/// Views and idempotency keys at one position.
#[derive(Debug, Default)]
pub struct Standing {
    /// What lists and the dispatcher look at, and where it stands.
    pub past: Past,
    /// Which keys were used lately.
    pub keys: Keys,
}

impl Standing {
    /// Nothing yet. Blocks of ended operations that it will come to as well are shared with these.
    #[must_use]
    pub fn beside(blocks: &[Block]) -> Self {
        let mut standing = Self::default();
        standing.past.views.operations.share(blocks);
        standing
    }

    /// Folds one event.
    ///
    /// # Errors
    /// When it is not understood; it counts all the same, and is not shown.
    pub fn fold(&mut self, recorded: &Recorded) -> Result<(), CodecError> {
        if let Some(applied) = self.past.apply(recorded)?
            && let Some(key) = applied.key
        {
            key.note(&mut self.keys, recorded);
        }
        Ok(())
    }

    /// Folds what follows, up to a position, as long as it is asked to go on.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn fold_up_to(
        &mut self,
        log: &dyn EventLog,
        end: Position,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ReadError> {
        walk(log, self.past.position, &mut |recorded| {
            let counts = recorded.position <= end && go_on();
            if counts {
                // What is not understood is told where the log is followed live.
                let _ = self.fold(recorded);
            }
            counts
        })
        .await
    }
}
