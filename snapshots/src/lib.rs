//! Snapshots: states that were folded before, so that they need not be folded from the start again.
//! A cache: it may vanish at any time, and nothing may depend on it but speed.
//!
//! ```text
//! snapshots/views-00000000000001000700.snapshot    all views at one position
//! snapshots/stream-<hash of its name>.snapshot     the state of one stream at one version
//! snapshots/*.new                                  half written; removed when the store is opened
//! ```

mod file;
mod file_store;
mod memory_store;

pub use file::{Flaw, Hash, Reader, Stamp, Subject, Writer};
pub use file_store::{FileStore, Found, STREAMS_MAX, STREAMS_MAX_BYTES, VIEWS_MAX};
pub use memory_store::{MemoryStore, Snapshot};
