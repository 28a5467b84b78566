//! The repository itself: its tidiness, its stored formats, and whether its own instruments can fail.

mod alone;
mod checker;
mod formats;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
