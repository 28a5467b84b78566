//! Random races between an operation and its agents, compared with a simple model after each action: claims,
//! reports, losses, timeouts, cancels, repetitions, restarts. Nothing here knows how the product decides.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

#[path = "model/course.rs"]
mod course;
#[path = "model/member.rs"]
mod member;
#[path = "model/stage.rs"]
mod stage;
mod support;

use course::{Step, Whole, Wish};
use proptest::prelude::*;
use stage::Stage;

/// Steps of the largest workflow.
const STEPS_MAX: usize = 7;
const AGENTS: usize = 3;

/// What happens next. Steps and agents are named by random numbers, so that an action may lack its object.
#[derive(Clone, Debug)]
enum Action {
    Wait(u64),
    /// The next thing that would happen to a step if all went well.
    Advance(usize, usize),
    /// Something about a step under a grant that is so many behind the newest.
    Report(usize, u64, Wish),
    /// An agent takes a slot, and the server dies before the step is offered to it.
    ClaimHalf(usize, usize),
    Whole(Whole),
    Agent(usize, member::Wish),
    /// What is owed to an agent is carried out.
    Settle(usize),
    /// Everything is folded again from its events.
    Restart,
    /// Whatever waits can be moved by what it waits for.
    Look,
}

fn wishes() -> impl Strategy<Value = Wish> {
    prop_oneof![
        2 => (0..AGENTS).prop_map(Wish::Reserve),
        2 => Just(Wish::Acknowledge),
        2 => (0..=100_u8).prop_map(Wish::Progress),
        2 => (0..3_u32).prop_map(Wish::Complete),
        4 => proptest::bool::weighted(0.8).prop_map(|retryable| Wish::Fail { retryable }),
        2 => Just(Wish::Release),
        3 => Just(Wish::Lose),
        2 => Just(Wish::ExpireOffer),
        2 => Just(Wish::TimeOut),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    let lives = vec![
        member::Wish::Register,
        member::Wish::Unregister,
        member::Wish::Drain,
        member::Wish::Activate,
        member::Wish::Activate,
        member::Wish::TimeOut,
    ];
    let wholes = vec![Whole::Start, Whole::Start, Whole::Start, Whole::Cancel, Whole::ExpireDeadline];
    let waits = vec![1, 500, 1_000, 2_000, 5_000, 30_000, 59_999, 60_000];
    let step = || 0..STEPS_MAX;
    prop_oneof![
        10 => proptest::sample::select(waits).prop_map(Action::Wait),
        40 => (step(), 0..AGENTS).prop_map(|(step, agent)| Action::Advance(step, agent)),
        20 => (step(), wishes()).prop_map(|(step, wish)| Action::Report(step, 0, wish)),
        4 => (step(), 1..3_u64, wishes()).prop_map(|(step, back, wish)| Action::Report(step, back, wish)),
        3 => (step(), 0..AGENTS).prop_map(|(step, agent)| Action::ClaimHalf(step, agent)),
        1 => proptest::sample::select(wholes).prop_map(Action::Whole),
        4 => (0..AGENTS, proptest::sample::select(lives)).prop_map(|(who, wish)| Action::Agent(who, wish)),
        12 => (0..AGENTS).prop_map(Action::Settle),
        2 => Just(Action::Restart),
        2 => Just(Action::Look),
    ]
}

/// Steps each of which depends on some of those before it.
fn workflows() -> impl Strategy<Value = Vec<Step>> {
    let kind = (any::<u8>(), any::<u8>(), proptest::bool::weighted(0.25), 0..8_u8, 1..4_u32);
    proptest::collection::vec(kind, 1..=STEPS_MAX).prop_map(|kinds| {
        let step = |(at, (one, other, excused, skips, most)): (usize, &(u8, u8, bool, u8, u32))| {
            let before = (0..at).filter(|before| one & other & (1 << before) != 0).collect();
            Step::of(before, *excused, *skips == 0, *most)
        };
        kinds.iter().enumerate().map(step).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_product_and_the_model_agree_after_each_action(
        workflow in workflows(),
        (fail_fast, max_parallel) in (any::<bool>(), proptest::option::weighted(0.3, 1..4_u32)),
        slots in proptest::collection::vec(1..4_usize, AGENTS),
        actions in proptest::collection::vec(actions(), 100),
    ) {
        let mut stage = Stage::of(workflow, fail_fast, max_parallel, &slots);
        for action in actions {
            match action {
                Action::Wait(ms) => stage.wait(ms),
                Action::Advance(step, agent) => stage.advance(step, agent),
                Action::Report(step, back, wish) => stage.report(step, back, &wish),
                Action::ClaimHalf(step, agent) => _ = stage.take_slot(step, agent),
                Action::Whole(whole) => stage.whole(whole),
                Action::Agent(agent, wish) => stage.agent(agent, wish),
                Action::Settle(agent) => stage.settle(agent),
                Action::Restart => stage.restart(),
                Action::Look => stage.must_be_movable(),
            }
            stage.must_agree();
        }
        stage.must_be_movable();
        stage.must_leak_no_slot();
    }
}
