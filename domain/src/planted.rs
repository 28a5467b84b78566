//! A fault that a test plants on purpose, to show that it is found. Must never be set by anything but a test.

use std::sync::atomic::AtomicBool;

/// A settled step may end once more.
pub static SECOND_END: AtomicBool = AtomicBool::new(false);
