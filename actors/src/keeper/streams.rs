//! Snapshots of single streams: for actors whose streams have grown long. Never newer than what the log holds
//! of its stream: the event that it ends with must be there.

use std::io;
use std::sync::Arc;

use domain::Timestamp;
use events::{EventLog, Position, Since, StreamId, Version};
use futures_util::StreamExt;
use snapshots::{Flaw, Hash, Stamp, Subject};
use tokio::task::spawn_blocking;

use super::{Keeper, hash_of};
use crate::codec::Durable;
use crate::kept::{FORM, Kept};
use crate::recovery::Recovered;

/// The state of a stream as a snapshot holds it, to be gone on with; nothing when there is none to be used.
pub async fn recall<A: Durable>(
    keeper: Option<&Keeper>,
    log: &dyn EventLog,
    stream: &StreamId,
) -> Recovered<A> {
    let Some(keeper) = keeper.filter(|keeper| keeper.store.may_have(stream)) else {
        return Recovered::default();
    };
    match keeper.recalled(log, stream).await {
        Ok(recovered) => recovered,
        Err(flaw) => {
            tracing::warn!(%stream, %flaw, "a snapshot is passed over");
            keeper.store.remove_stream(stream);
            Recovered::default()
        }
    }
}

impl Keeper {
    /// Whether a stream has grown long enough since its last snapshot.
    #[must_use]
    pub fn is_worth(&self, kept: Version, version: Version) -> bool {
        let least = self.policy.stream_events;
        least > 0 && version.get().saturating_sub(kept.get()) >= least
    }

    /// Keeps the state of a stream at a version. When many wait already, or it cannot be, there is none.
    pub async fn keep<A: Durable>(
        self: &Arc<Self>,
        log: &dyn EventLog,
        stream: &StreamId,
        state: Arc<A>,
        version: Version,
        now: Timestamp,
    ) {
        let Ok(_waits) = self.queue.try_acquire() else { return };
        // One after the other: two of the same stream would write the same file.
        let _turn = self.writing.lock().await;
        let end = match end_of(log, stream, version).await {
            Ok(end) => end,
            Err(flaw) => return tracing::warn!(%stream, %flaw, "no snapshot is taken of a stream"),
        };
        if !(self.room)() {
            return;
        }
        let stamp = Stamp {
            form: FORM,
            subject: Subject::Stream(stream.as_str().to_owned()),
            version: version.get(),
            position: end.position.get(),
            events: version.get(),
            time_us: end.time_us,
            end: end.hash,
            origin: log.marks().origin,
            taken_at_us: now.as_micros(),
        };
        let (keeper, named) = (Arc::clone(self), stream.clone());
        let writing = spawn_blocking(move || {
            let bytes = state.keep().map_err(io::Error::other)?;
            let mut writer = keeper.store.begin(&stamp)?;
            writer.piece(&bytes)?;
            let (_, bytes) = writer.finish()?;
            keeper.store.tidy_streams(&named, bytes);
            Ok::<_, io::Error>(())
        });
        if let Ok(Err(fault)) = writing.await {
            tracing::warn!(%stream, %fault, "a snapshot was not written");
        }
    }

    async fn recalled<A: Durable>(
        &self,
        log: &dyn EventLog,
        stream: &StreamId,
    ) -> Result<Recovered<A>, Flaw> {
        // Some milliseconds at most: less than the fold that it saves.
        let mut reader = self.store.stream(stream)?;
        let stamp = reader.stamp().clone();
        if stamp.form != FORM {
            return Err(Flaw::OtherForm { found: stamp.form, wanted: FORM });
        }
        let version = Version::new(stamp.version);
        let end = end_of(log, stream, version).await?;
        if end.hash != stamp.end {
            return Err(Flaw::OtherLog("another event stands where it ends"));
        }
        let mut bytes = Vec::new();
        let state = if reader.piece(&mut bytes)? { <A as Kept>::restore(&bytes) } else { None };
        let state = Some(state.ok_or(Flaw::Damaged("its state is not understood"))?);
        Ok(Recovered { state, version, position: end.position })
    }
}

/// The event of a stream at a version.
pub(super) struct End {
    pub(super) position: Position,
    pub(super) time_us: i64,
    pub(super) hash: Hash,
}

pub(super) async fn end_of(log: &dyn EventLog, stream: &StreamId, version: Version) -> Result<End, Flaw> {
    let before = version.get().checked_sub(1).ok_or(Flaw::Damaged("it has no event"))?;
    let mut history = log.read(stream, Since::Version(Version::new(before)));
    match history.next().await {
        Some(Ok(end)) if end.version == version => {
            Ok(End { position: end.position, time_us: end.time_us, hash: hash_of(&end) })
        }
        Some(Err(fault)) => Err(Flaw::Io(io::Error::other(fault))),
        _ => Err(Flaw::OtherLog("it ends behind its stream")),
    }
}
