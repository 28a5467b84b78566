//! What survives kills, damage, full storage and false clocks; copies of the log that are made and read.

mod backup;
mod carried_records;
mod clock_jumps;
mod damaged_log;
mod failed_sync;
mod files;
mod former_formats;
mod full_storage;
mod golden_log;
mod linearizable;
mod restarts;
mod retention;
mod snapshots;
mod startup;
#[path = "../support/mod.rs"]
mod support;
mod waiting_clients;
