//! The shell around the domain: actors, timers, views, and the one door through which commands go.
//! The only crate that knows actix and the domain both. It knows neither HTTP nor how bytes are kept.

pub mod aggregate_actor;
pub mod clock;
pub mod codec;
pub mod core;
pub mod directory;
pub mod dispatch;
pub mod effects;
pub mod gateway;
pub mod in_flight;
pub mod keeper;
pub mod kept;
pub mod keys;
pub mod limiting;
pub mod matching;
pub mod own_thread;
pub mod past;
pub mod presence;
pub mod projections;
pub mod protocol;
mod ranking;
mod reached;
pub mod reader;
pub mod ready;
pub mod reclaiming;
pub mod recovery;
pub mod settling;
pub mod standing;
pub mod supervisor;
pub mod system;
pub mod timers;

pub use core::{CatchUpError, Core, CoreOptions, Start};
