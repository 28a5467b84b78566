//! Random races between an operation, its agents and people, compared with a simple model after each action:
//! claims, reports, losses, timeouts, pauses, people's words, cancels, repetitions, restarts. Nothing here
//! knows how the product decides.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

#[path = "model/course.rs"]
mod course;
#[path = "model/look.rs"]
mod look;
#[path = "model/member.rs"]
mod member;
#[path = "model/stage.rs"]
mod stage;
#[path = "model/step.rs"]
mod step;
mod support;
#[path = "../../tests/support/tally.rs"]
mod tally;
#[path = "model/told.rs"]
mod told;
#[path = "model/words.rs"]
mod words;

use course::Whole;
use proptest::prelude::*;
use stage::Stage;
use step::{Failure, Kind, Step, Why, Wish, Word};
use tally::{Tally, asked, must_turn_red};

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
    /// An agent makes nothing of so many steps: it loses them, or does not even begin.
    Fruitless(usize, bool, usize, Option<member::Wish>),
    /// A step is granted to an agent by the claim of the life that it had so many lives ago, whatever has
    /// happened to it since.
    Cross(usize, usize, u64),
    Whole(Whole),
    /// A person's word about a step.
    Say(usize, Word),
    /// The time for an answer is over.
    Expire(usize),
    Agent(usize, member::Wish),
    /// What is owed to an agent is carried out.
    Settle(usize),
    /// Everything is folded again from its events.
    Restart,
    /// Whatever waits can be moved by what it waits for.
    Look,
}

fn wishes() -> impl Strategy<Value = Wish> {
    let failures = vec![Failure::Flaky, Failure::Flaky, Failure::Broken, Failure::Invalid, Failure::Unknown];
    let ends = vec![Why::Ignored, Why::Silent, Why::Unregistered, Why::Anew, Why::Revoked];
    let ends = || proptest::sample::select(ends.clone());
    let resets = proptest::option::of(proptest::sample::select(vec![0, 500, 5_000, 60_000, 90_000]));
    prop_oneof![
        2 => (0..AGENTS, 1..3_u64).prop_map(|(agent, life)| Wish::Reserve { agent, life }),
        2 => Just(Wish::Acknowledge),
        2 => (0..=100_u8).prop_map(Wish::Progress),
        2 => (0..3_u32).prop_map(Wish::Complete),
        4 => proptest::sample::select(failures).prop_map(Wish::Fail),
        3 => resets.prop_map(|reset_ms| Wish::Release { reset_ms }),
        4 => ends().prop_map(Wish::Lose),
        4 => ends().prop_map(Wish::ExpireOffer),
        2 => Just(Wish::Close),
        2 => Just(Wish::TimeOut),
    ]
}

fn words() -> impl Strategy<Value = Word> {
    prop_oneof![
        2 => Just(Word::Approve),
        1 => Just(Word::Reject),
        3 => Just(Word::Retry),
        1 => Just(Word::Skip),
        1 => (0..3_u32).prop_map(Word::Complete),
        1 => Just(Word::Fail),
    ]
}

fn wholes() -> impl Strategy<Value = Whole> {
    prop_oneof![
        3 => Just(Whole::Start),
        6 => Just(Whole::Pause),
        6 => Just(Whole::Resume),
        1 => Just(Whole::Cancel),
        1 => Just(Whole::ExpireDeadline),
    ]
}

fn lives() -> impl Strategy<Value = member::Wish> {
    prop_oneof![
        1 => Just(member::Wish::Register),
        1 => Just(member::Wish::Unregister),
        1 => Just(member::Wish::Rest),
        4 => Just(member::Wish::Activate),
        1 => Just(member::Wish::Drain),
        2 => Just(member::Wish::Undrain),
        2 => Just(member::Wish::TimeOut),
        1 => Just(member::Wish::Quarantine),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    let waits = vec![1, 500, 1_000, 2_000, 5_000, 30_000, 59_999, 60_000];
    let step = || 0..STEPS_MAX;
    prop_oneof![
        10 => proptest::sample::select(waits).prop_map(Action::Wait),
        40 => (step(), 0..AGENTS).prop_map(|(step, agent)| Action::Advance(step, agent)),
        20 => (step(), wishes()).prop_map(|(step, wish)| Action::Report(step, 0, wish)),
        4 => (step(), 1..3_u64, wishes()).prop_map(|(step, back, wish)| Action::Report(step, back, wish)),
        3 => (step(), 0..AGENTS, 0..3_u64).prop_map(|(step, agent, ago)| Action::Cross(step, agent, ago)),
        2 => (0..AGENTS, any::<bool>(), 2..8_usize, proptest::option::of(lives()))
            .prop_map(|(agent, begins, times, last)| Action::Fruitless(agent, begins, times, last)),
        3 => wholes().prop_map(Action::Whole),
        6 => (step(), words()).prop_map(|(step, word)| Action::Say(step, word)),
        2 => step().prop_map(Action::Expire),
        4 => (0..AGENTS, lives()).prop_map(|(who, wish)| Action::Agent(who, wish)),
        12 => (0..AGENTS).prop_map(Action::Settle),
        2 => Just(Action::Restart),
        2 => Just(Action::Look),
    ]
}

/// Steps each of which depends on some of those before it.
fn workflows() -> impl Strategy<Value = Vec<Step>> {
    let kinds = vec![Kind::Plain, Kind::Plain, Kind::Write, Kind::Human];
    let nature = (proptest::sample::select(kinds), proptest::option::weighted(0.2, 0..AGENTS));
    let links = (any::<u8>(), any::<u8>());
    let step = (nature, links, proptest::bool::weighted(0.25), 0..8_u8, 1..4_u32);
    proptest::collection::vec(step, 1..=STEPS_MAX).prop_map(|steps| {
        let placed = steps.into_iter().enumerate().map(|(at, (nature, links, excused, skips, most))| {
            let before = (0..at).filter(|before| links.0 & links.1 & (1 << before) != 0).collect();
            let wanted = nature.1.filter(|_| nature.0 != Kind::Human);
            let mut step = Step::of(nature.0, before, most);
            (step.wanted, step.excused, step.skips) = (wanted, excused, skips == 0);
            step
        });
        placed.collect()
    })
}

#[test]
fn a_step_that_may_end_twice_turns_it_red() {
    let test = "the_product_and_the_model_agree_after_each_action";
    must_turn_red(test, SECOND_END, &["Test failed"]);
}

#[test]
fn the_product_and_the_model_agree_after_each_action() {
    let planted = std::env::var(tally::PLANTED).is_ok_and(|name| name == SECOND_END);
    domain::planted::SECOND_END.store(planted, std::sync::atomic::Ordering::Relaxed);
    let cases = asked(2_000, 100_000, 1_000_000);
    let tally = Tally::of("P13 P14", "histories of 100 actions against a plain model", cases);
    races(&ProptestConfig {
        cases: cases as u32,
        failure_persistence: None,
        max_shrink_iters: if planted { 0 } else { ProptestConfig::default().max_shrink_iters },
        ..ProptestConfig::default()
    });
    tally.add(cases);
}

/// The fault that the harness is shown here.
const SECOND_END: &str = "duplicate_terminal_accepted";

/// Plays one random history after the other.
fn races(config: &ProptestConfig) {
    let slots = proptest::collection::vec(1..4_usize, AGENTS);
    let settings = (any::<bool>(), proptest::option::weighted(0.3, 1..4_u32));
    let history = (workflows(), settings, slots, proptest::collection::vec(actions(), 100));
    proptest!(config.clone(), |((workflow, (fail_fast, max_parallel), slots, actions) in history)| {
        let mut stage = Stage::of(workflow, fail_fast, max_parallel, &slots);
        for action in actions {
            match action {
                Action::Wait(ms) => stage.wait(ms),
                Action::Advance(step, agent) => stage.advance(step, agent),
                Action::Report(step, back, wish) => stage.report(step, back, &wish),
                Action::Fruitless(agent, begins, times, last) => {
                    stage.be_fruitless(agent, begins, times, last);
                }
                Action::Cross(step, agent, ago) => stage.cross(step, agent, ago),
                Action::Whole(whole) => stage.whole(whole),
                Action::Say(step, word) => stage.say(step, word),
                Action::Expire(step) => stage.expire(step),
                Action::Agent(agent, wish) => stage.agent(agent, wish),
                Action::Settle(agent) => stage.settle(agent),
                Action::Restart => stage.restart(),
                Action::Look => stage.must_be_movable(),
            }
            stage.must_agree();
        }
        stage.must_be_movable();
        stage.must_leak_no_slot();
    });
}
