//! The platforms that perform steps, and what the core may know of each.
//! So far there are two: `worker`, whose steps agents claim and perform in their own processes, and
//! `human`, whose steps ask a person.

mod registry;

pub use registry::{Performer, Platform, Registry};
