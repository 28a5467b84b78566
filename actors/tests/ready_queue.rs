//! The index of ready steps against the plain model, over random lives of operations and agents: after
//! each change a pass that looks only at what may have become possible finds what the model finds by
//! looking at everything, in the same order and for the same reasons.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;

use actors::matching::Pick;
use domain::AgentId;
use proptest::collection::vec;
use proptest::prelude::*;
use support::moves::{AGENTS, Move, moves};
use support::stage::Stage;

/// Carries one move out. Grants are answered in the order in which they were begun.
fn carry_out(stage: &mut Stage, granting: &mut VecDeque<(AgentId, Pick)>, next: Move) {
    match next {
        Move::Wait(ms) => stage.wait(ms),
        Move::Claim(agent, appetite) => stage.claim(&agent, appetite),
        Move::HangUp(agent) => _ = stage.waiting.remove(&agent),
        Move::Answer(granted) => {
            if let Some((agent, pick)) = granting.pop_front() {
                stage.answer(&agent, &pick, granted);
            }
        }
        Move::Say(choice, wish) => {
            if let Some(lease) = stage.held(choice) {
                stage.say(&lease, wish);
            }
        }
        Move::Operation(id, command) => _ = stage.operation(&id, &command),
        Move::Agent(id, command) => _ = stage.agent(&id, &command),
        Move::Park(agent, ms) => stage.park(&agent, ms),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_look_at_what_changed_finds_what_a_look_at_everything_finds(moves in vec(moves(), 1..80)) {
        let mut stage = Stage::new();
        for name in AGENTS {
            stage = stage.register(name, 2, &["x"]);
        }
        let mut granting = VecDeque::new();
        for next in moves {
            carry_out(&mut stage, &mut granting, next);
            granting.extend(stage.pass());
        }
    }
}
