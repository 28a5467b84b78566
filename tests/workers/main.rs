//! Workers and what they work for: the command, pools, the demo, the README, and work that is cut short.

mod cancel;
mod claim_with_report;
mod demo;
mod fairness;
#[cfg(feature = "testing")]
mod panics;
mod pools;
mod processes;
mod readme;
#[path = "../support/mod.rs"]
mod support;
mod worker;
mod worker_groups;
