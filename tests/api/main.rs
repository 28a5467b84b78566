//! The HTTP interface and the command line against real servers, one file for each subject.

mod agents;
mod answers;
mod cli;
mod compression;
mod docs;
mod event_kinds;
mod expressions;
mod failing_agents;
mod foreign_tools;
mod idempotency_keys;
mod inputs;
#[cfg(feature = "testing")]
mod lagging_views;
mod leases;
mod lists;
mod operations;
mod people;
mod plan;
mod pool_settings;
mod quarantine;
mod rate_limits;
mod routing_replay;
mod selection;
mod server_log;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod system_events;
mod time_travel;
mod wire;
mod wording;
