//! Owns what may be chosen about a stored log, with its bounds.
//! Must never hold a choice that weakens what an answer means.

use std::sync::Arc;

use crate::faults::Faults;
use crate::progress::Progress;

/// How a stored log uses memory and disk. Start from [`Options::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many appends may wait; one more is refused as overloaded. At least 1; default 4,096.
    pub queue_appends_max: usize,
    /// How many bytes of appends may wait; default 64 MiB. A single append may always wait.
    pub queue_bytes_max: usize,
    /// A generation is closed before its journal would grow beyond this; default 64 MiB.
    pub generation_bytes_max: u64,
    /// And before it would hold more events than this, unless one append has more; default 1,000,000.
    pub generation_events_max: u64,
    /// Appends are refused while the disk has less free space than this, in bytes; default 64 MiB.
    pub disk_low_water_bytes: u64,
    /// Appends are refused while the log's folder, with all that lies there, occupies this much or more, in
    /// bytes; default 1 GiB. Looked at twice a second; what is written in between counts.
    pub disk_max_bytes: u64,
    /// The ids of at least so many of the newest events are remembered (of at most twice as many), to
    /// recognise an append that is offered again. Each costs about 50 bytes of memory; default 458,752.
    pub recent_ids: usize,
    /// How many of the newest events stay in memory for `tail`; default 4,096.
    pub live_events_max: usize,
    /// How many bytes the newest events in memory may hold; default 8 MiB.
    pub live_bytes_max: usize,
    /// After so many milliseconds without work the writer notes down how far the journal is durable;
    /// default 100.
    pub idle_ms: u64,
    /// Where it is noted how far the opening is.
    pub progress: Arc<Progress>,
    /// Switches that make the log fail.
    #[cfg(any(test, feature = "testing"))]
    pub faults: Faults,
    #[cfg(not(any(test, feature = "testing")))]
    pub(crate) faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_appends_max: 4096,
            queue_bytes_max: 64 << 20,
            generation_bytes_max: 64 << 20,
            generation_events_max: 1_000_000,
            disk_low_water_bytes: 64 << 20,
            disk_max_bytes: 1 << 30,
            // What a hash map with 2^19 slots holds before it doubles.
            recent_ids: (1 << 19) / 8 * 7,
            live_events_max: 4096,
            live_bytes_max: 8 << 20,
            idle_ms: 100,
            progress: Arc::default(),
            faults: Faults::default(),
        }
    }
}
