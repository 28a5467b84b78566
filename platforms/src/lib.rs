//! The platforms that perform steps, and what the core may know of each.
//! So far there is one: `worker`, whose steps agents claim and perform in their own processes.

mod registry;

pub use registry::{Performer, Platform, Registry};
