//! Which waiting agent gets which ready step: urgency first, then turns, then age, and nobody in the way.
//! Every pass here is also held against the plain model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use actors::matching::Appetite;
use domain::operation::definition::{Definition, Priority};
use domain::operation::event::{LeaseEnd, Patch};
use domain::operation::{Command, StepWish};
use domain::views::Stamp;
use domain::{AgentId, LeaseId};
use support::stage::{STARVATION_MS, Stage, agent, operation, wide};

fn prior(priority: Priority, definition: Definition) -> Definition {
    Definition { priority, ..definition }
}

fn narrow(most: u32, definition: Definition) -> Definition {
    Definition { max_parallel: Some(most), ..definition }
}

/// The operations whose steps an agent gets that waits for so many, in the order of their ids.
fn served(stage: &mut Stage, id: &AgentId, max: u32) -> Vec<u128> {
    stage.claim(id, Appetite::of(max, None));
    let picks = stage.pass();
    let mut leases: Vec<&LeaseId> = picks.iter().map(|(_, pick)| &pick.lease).collect();
    leases.sort();
    let number = |lease: &&LeaseId| lease.operation.bits();
    leases.iter().map(number).collect()
}

/// The numbers of the steps that an agent gets, one after the other.
fn steps(stage: &mut Stage, id: &AgentId, claims: u32) -> Vec<u32> {
    let mut steps = Vec::new();
    for _ in 0..claims {
        stage.claim(id, Appetite::of(1, None));
        steps.extend(stage.pass().iter().map(|(_, pick)| pick.lease.step));
    }
    steps
}

#[test]
fn operations_of_one_priority_take_turns() {
    let mut stage = Stage::new().register("a", 100, &["x"]).create(1, wide(50, "x")).create(2, wide(2, "x"));
    assert_eq!(served(&mut stage, &agent("a"), 4), [1, 1, 2, 2]);
}

#[test]
fn the_most_urgent_goes_first() {
    let mut stage = Stage::new()
        .register("a", 100, &["x"])
        .create(1, prior(Priority::Low, wide(5, "x")))
        .create(2, prior(Priority::Critical, wide(2, "x")));
    assert_eq!(served(&mut stage, &agent("a"), 3), [1, 2, 2]);
}

#[test]
fn a_new_priority_counts_at_once() {
    let mut stage = Stage::new().register("a", 100, &["x"]).create(1, wide(5, "x")).create(2, wide(5, "x"));
    let patch = Patch { priority: Some(Priority::Critical), ..Patch::default() };
    stage.operation(&operation(2), &Command::Update(Box::new(patch)));
    assert_eq!(served(&mut stage, &agent("a"), 3), [2, 2, 2]);
}

#[test]
fn a_step_that_nobody_takes_stands_in_nobodys_way() {
    let mut stage = Stage::new().register("a", 1, &["x"]).register("b", 1, &["y"]);
    for number in 1..=100 {
        stage = stage.create(number, prior(Priority::Critical, wide(20, "y")));
    }
    stage = stage.create(101, prior(Priority::Low, wide(1, "x")));
    assert_eq!(served(&mut stage, &agent("a"), 1), [101]);
}

#[test]
fn steps_for_a_full_agent_stand_in_nobodys_way_within_their_operation() {
    let mut definition = wide(500, "x");
    let mut workflow = definition.workflow.to_vec();
    workflow[..499].iter_mut().for_each(|step| step.agent = Some(agent("full")));
    definition.workflow = workflow.into();
    let mut stage = Stage::new().register("full", 1, &["x"]).register("a", 1, &["x"]).create(1, definition);
    assert_eq!(steps(&mut stage, &agent("full"), 2), [1]);
    assert_eq!(steps(&mut stage, &agent("a"), 1), [500]);
}

#[test]
fn a_parallel_limit_counts_what_is_being_granted() {
    let mut stage = Stage::new()
        .register("a", 5, &["x"])
        .register("b", 5, &["x"])
        .create(1, narrow(2, prior(Priority::High, wide(5, "x"))))
        .create(2, narrow(1, prior(Priority::Low, wide(5, "x"))));
    assert_eq!(served(&mut stage, &agent("b"), 1), [1]);
    assert_eq!(served(&mut stage, &agent("a"), 5), [1, 2]);
}

#[test]
fn who_waits_gets_a_step_as_soon_as_its_operation_has_room_again() {
    let mut stage =
        Stage::new().register("a", 1, &["x"]).register("b", 1, &["x"]).create(1, narrow(1, wide(2, "x")));
    stage.claim(&agent("a"), Appetite::of(1, None));
    let (a, pick) = stage.pass().remove(0);
    stage.answer(&a, &pick, true);
    stage.claim(&agent("b"), Appetite::of(1, None));
    assert!(stage.pass().is_empty());
    stage.say(&pick.lease, StepWish::Complete { result: domain::Json::object(), usage: None });
    let picks = stage.pass();
    assert_eq!((picks.len(), &picks[0].0), (1, &agent("b")));
}

#[test]
fn a_step_is_offered_again_when_its_grant_was_refused() {
    let mut stage = Stage::new().register("a", 1, &["x"]).register("b", 1, &["x"]).create(1, wide(1, "x"));
    stage.claim(&agent("a"), Appetite::of(1, None));
    let (a, pick) = stage.pass().remove(0);
    stage.claim(&agent("b"), Appetite::of(1, None));
    assert!(stage.pass().is_empty());
    stage.answer(&a, &pick, false);
    assert_eq!(stage.pass()[0].0, agent("b"));
}

#[test]
fn who_gave_a_step_back_is_kept_from_it_for_a_while_and_from_no_other() {
    let mut stage = Stage::new().register("a", 5, &["x"]).create(1, wide(3, "x"));
    stage.claim(&agent("a"), Appetite::of(1, None));
    let (a, pick) = stage.pass().remove(0);
    stage.answer(&a, &pick, true);
    stage.say(&pick.lease, StepWish::Release { reason: "busy".into(), hold_ms: None });
    assert_eq!(steps(&mut stage, &a, 2), [2, 3]);
    stage.claim(&a, Appetite::of(1, None));
    assert!(stage.pass().is_empty());
    assert_eq!(stage.ready.next_change(), Some(stage.now.plus_ms(30_000)));
    stage.wait(30_000);
    assert_eq!(stage.pass()[0].1.lease.step, 1);
}

#[test]
fn a_step_that_is_being_granted_is_offered_to_nobody_else_when_its_hold_ends() {
    let mut stage = Stage::new().register("a", 5, &["x"]).register("b", 5, &["x"]).create(1, wide(1, "x"));
    stage.claim(&agent("a"), Appetite::of(1, None));
    let (a, pick) = stage.pass().remove(0);
    stage.answer(&a, &pick, true);
    stage.say(&pick.lease, StepWish::Release { reason: "busy".into(), hold_ms: None });
    stage.claim(&agent("b"), Appetite::of(1, None));
    assert_eq!(stage.pass().len(), 1);
    stage.claim(&a, Appetite::of(1, None));
    stage.wait(30_000);
    assert!(stage.pass().is_empty());
}

#[test]
fn the_older_step_goes_first_within_an_operation() {
    let mut definition = wide(3, "x");
    let mut workflow = definition.workflow.to_vec();
    workflow[0].dependencies = vec![3];
    definition.workflow = workflow.into();
    let mut stage = Stage::new().register("a", 5, &["x"]).create(1, definition);
    stage.claim(&agent("a"), Appetite::of(2, None));
    let both = stage.pass();
    both.iter().for_each(|(agent, pick)| stage.answer(agent, pick, true));
    let third = both.iter().find(|(_, pick)| pick.lease.step == 3).unwrap().1.lease.clone();
    let second = both.iter().find(|(_, pick)| pick.lease.step == 2).unwrap().1.lease.clone();
    stage.wait(1_000);
    stage.say(&second, StepWish::Acknowledge);
    stage.say(&second, StepWish::LoseLease { reason: LeaseEnd::LeaseExpired });
    stage.wait(10);
    stage.say(&third, StepWish::Complete { result: domain::Json::object(), usage: None });
    stage.wait(10_000);
    // The first became ready later than it was left, yet before the second's retry was due.
    assert_eq!(steps(&mut stage, &agent("a"), 2), [1, 2]);
}

#[test]
fn a_step_that_waited_too_long_rises_one_class_and_then_another() {
    let mut stage = Stage::new().register("a", 100, &["x"]).create(1, prior(Priority::Low, wide(4, "x")));
    for (number, priority) in [(2, Priority::Medium), (3, Priority::High)] {
        stage.wait(STARVATION_MS);
        stage = stage.create(number, prior(priority, wide(1, "x")));
        // Risen, it takes turns with those of its new class.
        assert_eq!(served(&mut stage, &agent("a"), 1), [1]);
        assert_eq!(served(&mut stage, &agent("a"), 1), [number]);
    }
    stage.wait(5 * STARVATION_MS);
    stage = stage.create(4, prior(Priority::Critical, wide(9, "x")));
    assert_eq!(served(&mut stage, &agent("a"), 2), [1, 4]);
}

#[test]
fn age_wakes_nobody() {
    let mut stage = Stage::new().create(1, prior(Priority::Low, wide(4, "x")));
    stage.wait(1);
    assert_eq!(stage.ready.next_change(), None);
}

#[test]
fn a_step_for_a_person_is_given_to_no_agent() {
    let mut definition = wide(2, "x");
    let mut workflow = definition.workflow.to_vec();
    workflow[0].platform = "human".parse().unwrap();
    definition.workflow = workflow.into();
    let mut stage = Stage::new().register("a", 5, &["x"]).create(1, definition);
    assert_eq!(steps(&mut stage, &agent("a"), 2), [2]);
}

#[test]
fn a_step_that_is_gone_before_the_index_hears_of_it_is_passed_over() {
    let mut stage = Stage::new().register("a", 5, &["x"]).create(1, wide(2, "x"));
    let cancelled = domain::operation::event::StepsCancelled { steps: vec![1], closing: Vec::new() };
    let event = domain::operation::Event::StepsCancelled(cancelled);
    let stamp = Stamp { revision: 3, position: 3, at: stage.now };
    stage.views.apply_operation(&operation(1), &event, stamp);
    assert_eq!(steps(&mut stage, &agent("a"), 2), [2]);
}
