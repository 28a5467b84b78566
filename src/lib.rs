//! Photon: coordinates AI agents over a durable event log. The outer ring: HTTP, command line, settings.

pub mod app;
pub mod archive;
pub mod backup;
pub mod cli;
pub mod client;
pub mod exit;
pub mod http;
pub mod keeping;
pub mod monitor;
pub mod pools;
pub mod private_files;
mod processes;
pub mod retention;
pub mod review;
pub mod settings;
mod stderr;
pub mod telemetry;
mod work_log;
