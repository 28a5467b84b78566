//! Everything that is folded from the whole log, at one position: what a server knows before it serves. The
//! projections fold it as it grows; snapshots of it are folded here, apart from the one that is looked at.

use domain::Timestamp;
use domain::views::Views;
use events::{EventLog, Position, ReadError, Recorded};

use crate::codec::CodecError;
use crate::keys::Keys;
use crate::projections::apply;

/// Bytes of events that are read at once.
const PAGE_BYTES: u64 = 1 << 20;

/// Views and idempotency keys at one position.
#[derive(Debug, Default)]
pub struct Standing {
    /// What lists and the dispatcher look at.
    pub views: Views,
    /// Which keys were used lately.
    pub keys: Keys,
    /// Position of the last event.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// How many events were folded.
    pub events: u64,
}

impl Standing {
    /// Folds one event.
    ///
    /// # Errors
    /// When it is not understood; it counts all the same, and is not shown.
    pub fn fold(&mut self, recorded: &Recorded) -> Result<(), CodecError> {
        (self.position, self.time) = (recorded.position, Timestamp::from_micros(recorded.time_us));
        self.events += 1;
        if let Some(applied) = apply(&mut self.views, recorded)?
            && let Some(key) = applied.key(recorded)
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
        while self.position < end && go_on() {
            let page = log.page(self.position, PAGE_BYTES).await?;
            let Some(last) = page.last().map(|last| last.position) else { return Ok(()) };
            for recorded in page.iter().take_while(|recorded| recorded.position <= end) {
                // What is not understood is told where the log is followed live.
                let _ = self.fold(recorded);
            }
            if last > end {
                return Ok(());
            }
        }
        Ok(())
    }
}
