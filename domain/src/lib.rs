//! What Photon decides. Pure: no clock, no I/O, no async, no randomness; the time is always told.
//!
//! Each aggregate is a module with commands (wishes), events (facts), rejections and a state;
//! `decide` turns a command into events, `evolve` folds an event, `pending` names what is owed.

pub mod agent;
pub mod aggregate;
pub mod alarm;
pub mod bounds;
pub mod ids;
pub mod json;
pub mod lane;
pub mod nearest;
pub mod operation;
#[cfg(feature = "testing")]
pub mod planted;
pub mod pool;
pub mod presence;
#[cfg(feature = "testing")]
pub mod scenario;
pub mod shortened_id;
pub mod system;
pub mod texts;
pub mod time;
pub mod views;
pub mod work;
pub mod world;

pub use aggregate::{Aggregate, Given, fold};
pub use ids::{ActionName, AgentId, IdError, LaneId, LeaseId, OperationId, PlatformName};
pub use json::Json;
pub use time::Timestamp;
pub use world::{AgentRoll, Limits, PlatformRule, World};
