//! Snapshots: states that were folded before, so that they need not be folded from the start again.
//! A cache: it may vanish at any time, and nothing may depend on it but speed.

mod memory_store;

pub use memory_store::{MemoryStore, Snapshot};
