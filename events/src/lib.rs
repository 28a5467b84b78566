//! The event log: bytes in streams, in one order, kept for ever. It knows no domain type.
//!
//! [`EventLog`] is the boundary and its twelve clauses the contract. [`SledLog`] keeps it
//! on disk, [`MemoryLog`] is the reference, and with the feature `testing` come the suite that every log
//! passes (`conformance`) and a log that lies, delays and forgets (`faulty_log`).

mod anchor;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite fails by panicking")]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod dice;
mod epoch;
mod faults;
#[cfg(any(test, feature = "testing"))]
pub mod faulty_log;
mod journal;
pub mod live;
mod log;
mod memory_log;
mod options;
mod planted;
mod progress;
mod record;
mod sled_log;
mod stream;

pub use anchor::Anchor;
pub use epoch::{Epoch, Identity, InvalidEpoch};
#[cfg(any(test, feature = "testing"))]
pub use faults::Faults;
pub use journal::is_full;
pub use log::{
    APPEND_MAX_BYTES, Append, AppendError, BoxFuture, Damage, EventLog, EventStream, Expected, Floor, Head,
    Marks, NAME_MAX_LEN, ReadError, Refusal, Since,
};
pub use memory_log::MemoryLog;
pub use options::Options;
pub use progress::Progress;
pub use record::{Beside, EventId, NewEvent, Recorded};
pub use sled_log::{Audit, Compaction, EachEvent, OpenError, Prefix, Retention, Seized, SledLog};
pub use stream::{CATEGORY_MAX_LEN, ID_MAX_LEN, InvalidStreamId, Position, StreamId, Version};
