//! `photon review`: one step of the demo's review as a command that `photon worker run` runs. It must never
//! speak to a server: the worker does.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::exit::{Complaint, Exit};
use super::output;
use crate::review::perform;

const STEP_BYTES_MAX: u64 = 16 << 20;

/// How to perform it.
#[derive(Debug, Args)]
pub(super) struct ReviewArgs {
    /// Holds the first attempt of this action for a while before it begins
    // The hold stands for work that takes longer than a review of a few files does: the demo kills a worker
    // in the middle of its step, and that needs a middle.
    #[arg(long, value_name = "ACTION")]
    hold_action: Option<String>,
    /// For how long
    #[arg(long, value_name = "MS", default_value_t = 0)]
    hold_ms: u64,
}

pub(super) fn run(arguments: &ReviewArgs) -> Result<Exit, Complaint> {
    let bad = |sentence: String| Complaint::new(Exit::DAMAGED, sentence);
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(STEP_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|cause| bad(format!("The step cannot be read: {cause}.")))?;
    let step: Value =
        serde_json::from_str(&text).map_err(|fault| bad(format!("The step is no JSON: {fault}.")))?;
    let action = step["action"].as_str().unwrap_or_default();
    if arguments.hold_action.as_deref() == Some(action) && step["attempt"] == 1 {
        std::thread::sleep(Duration::from_millis(arguments.hold_ms));
    }
    let result = perform(action, &step["inputs"]).map_err(|failure| bad(failure.to_string()))?;
    output::print(&result.to_string())
}
