//! A state from its stream, and the whole log from a place on. Running and recovering are the same fold; this
//! is the only place that reads a stream in order to decide on it.

use domain::{Aggregate, Timestamp};
use events::{EventLog, Position, ReadError, Recorded, Since, StreamId, Version};
use futures_util::StreamExt;
use thiserror::Error;

use crate::codec::{CodecError, Durable};

/// Bytes of events that are read at once.
const PAGE_BYTES: u64 = 1 << 20;

/// Why a stream cannot be turned into a state. Its actor is quarantined; others are not affected.
#[derive(Debug, Clone, Error)]
pub enum RecoveryError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is not understood.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A version is missing.
    #[error("version {found} of {stream} follows version {after}")]
    Hole {
        /// The stream.
        stream: StreamId,
        /// The last version before the hole.
        after: u64,
        /// The version after it.
        found: u64,
    },
}

/// A state and where its stream stands.
#[derive(Debug, Clone)]
pub struct Recovered<A> {
    /// The state; none before the first event.
    pub state: Option<A>,
    /// How many events it was folded from.
    pub version: Version,
    /// Where the last of those that were read stands in the whole log.
    pub position: Position,
}

impl<A> Default for Recovered<A> {
    fn default() -> Self {
        Self { state: None, version: Version::NONE, position: Position::default() }
    }
}

/// Shows the events of the whole log after a position, until `each` has enough or there are no more.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn walk(
    log: &dyn EventLog,
    mut after: Position,
    each: &mut (dyn FnMut(&Recorded) -> bool + Send),
) -> Result<(), ReadError> {
    loop {
        let page = log.page(after, PAGE_BYTES).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.position;
        if !page.iter().all(|recorded| each(recorded)) {
            return Ok(());
        }
    }
}

/// Folds the events after `from`, as long as `admits` says that they count.
///
/// # Errors
/// When the stream cannot be read whole.
pub async fn recover<A: Durable>(
    log: &dyn EventLog,
    stream: &StreamId,
    from: Recovered<A>,
    admits: &(dyn Fn(&Recorded) -> bool + Sync),
) -> Result<Recovered<A>, RecoveryError> {
    let Recovered { mut state, mut version, mut position } = from;
    let mut history = log.read(stream, Since::Version(version));
    while let Some(recorded) = history.next().await {
        let recorded = recorded?;
        if !admits(&recorded) {
            break;
        }
        if recorded.version != version.next() {
            let (after, found) = (version.get(), recorded.version.get());
            return Err(RecoveryError::Hole { stream: stream.clone(), after, found });
        }
        let event = A::decode(&recorded.name, recorded.schema, &recorded.body)?;
        state = <A as Aggregate>::evolve(state, &event, Timestamp::from_micros(recorded.time_us));
        (version, position) = (recorded.version, recorded.position);
    }
    Ok(Recovered { state, version, position })
}
