//! Views: lease states, counts, listing order, and when an operation's run is forgotten.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::event::{Assigned, Outcome, Released};
use domain::agent::{self, Event as AgentEvent};
use domain::operation::definition::{Definition, Priority};
use domain::operation::{Command, Event, Status, StepWish};
use domain::views::Views;
use domain::views::listing::Order;
use domain::views::operation_board::{LeaseState, OperationBoard};
use domain::{Json, LeaseId, OperationId, Timestamp};
use serde_json::json;
use support::{Flow, agent, complete, definition, fail, lose, operation_id, step};

fn two() -> Flow {
    Flow::of(definition(vec![step(1, &[]), step(2, &[])]))
}

fn over(outcome: Outcome) -> LeaseState {
    LeaseState::Over(outcome)
}

#[test]
fn a_lease_is_held_from_its_offer_to_its_end() {
    let mut flow = two();
    flow.offer(1, "ada").unwrap();
    let lease = flow.lease(1);
    assert_eq!(flow.board.lease(&lease), LeaseState::Held);
    flow.wish(1, StepWish::Acknowledge).unwrap();
    assert_eq!(flow.board.lease(&lease), LeaseState::Held);
    flow.wish(1, complete(json!(1))).unwrap();
    assert_eq!(flow.board.lease(&lease), over(Outcome::Completed));
}

#[test]
fn the_end_of_a_lease_says_how_it_ended() {
    let ended = |end: fn(&mut Flow)| {
        let mut flow = two();
        flow.begin(1);
        end(&mut flow);
        flow.board.lease(&flow.lease(1))
    };
    assert_eq!(ended(|flow| drop(flow.wish(1, fail("flaky")))), over(Outcome::Failed));
    for reason in ["lease_expired", "agent_timeout", "agent_unregistered", "new_incarnation"] {
        let mut flow = two();
        flow.begin(1);
        flow.wish(1, lose(reason)).unwrap();
        assert_eq!(flow.board.lease(&flow.lease(1)), over(Outcome::Lost), "{reason}");
    }
    // That an operator took it away says nothing of the agent.
    assert_eq!(ended(|flow| drop(flow.wish(1, lose("revoked")))), over(Outcome::Returned));
    let release =
        |flow: &mut Flow| drop(flow.wish(1, StepWish::Release { reason: String::new(), hold_ms: None }));
    assert_eq!(ended(release), over(Outcome::Returned));
}

#[test]
fn an_offer_without_a_sign_of_life_was_not_taken_and_one_taken_back_is_returned() {
    let silence = ["no_sign_of_life", "agent_timeout"];
    for reason in ["no_sign_of_life", "agent_timeout", "agent_unregistered", "new_incarnation", "revoked"] {
        let mut flow = two();
        flow.offer(1, "ada").unwrap();
        let lease = flow.lease(1);
        flow.wish(1, StepWish::ExpireOffer { reason: reason.into() }).unwrap();
        let outcome = if silence.contains(&reason) { Outcome::Untaken } else { Outcome::Returned };
        assert_eq!(flow.board.lease(&lease), over(outcome), "{reason}");
        // Also when the next agent has the step already.
        flow.offer(1, "bob").unwrap();
        assert_eq!(flow.board.lease(&lease), over(outcome), "{reason}");
        flow.wish(1, StepWish::Release { reason: String::new(), hold_ms: None }).unwrap();
        assert_eq!(flow.board.lease(&flow.lease(1)), over(Outcome::Returned));
    }
}

#[test]
fn a_late_completion_of_what_was_given_up_is_a_completion() {
    let mut flow = two();
    flow.offer(1, "ada").unwrap();
    flow.wish(1, StepWish::ExpireOffer { reason: "no_sign_of_life".into() }).unwrap();
    flow.wish(1, complete(json!(1))).unwrap();
    assert_eq!(flow.board.lease(&flow.lease(1)), over(Outcome::Completed));
}

#[test]
fn a_lease_that_was_never_granted_is_returned() {
    let flow = two();
    let never = LeaseId { operation: operation_id(), step: 1, grant: 7 };
    assert_eq!(flow.board.lease(&never), over(Outcome::Returned));
    assert_eq!(flow.board.lease(&LeaseId { step: 9, ..never.clone() }), over(Outcome::Returned));
    let unknown: OperationId = "op_ffffffffffffffffffffffffffffffff".parse().unwrap();
    let foreign = LeaseId { operation: unknown, ..never };
    assert_eq!(flow.board.lease(&foreign), over(Outcome::Returned));
}

#[test]
fn an_operation_that_ends_cuts_the_leases_that_were_held() {
    for end in [Command::Cancel { by: "ops".into() }, Command::ExpireDeadline] {
        let mut flow = Flow::new();
        let deadline = Some(flow.scenario.now.plus_ms(500));
        let asked = Definition { deadline, ..definition(vec![step(1, &[]), step(2, &[])]) };
        flow.put(&Command::Create(Box::new(asked))).unwrap();
        flow.begin(1);
        flow.wait(500);
        flow.put(&end).unwrap();
        assert_eq!(flow.board.lease(&flow.lease(1)), LeaseState::Cut(flow.scenario.now));
    }
}

#[test]
fn a_lease_is_cut_at_the_moment_of_its_step_even_before_the_operation_is_said_to_have_failed() {
    let mut flow = two();
    flow.begin(1);
    let at = flow.scenario.now.plus_ms(90_000);
    let cancelled = Event::StepsCancelled(domain::operation::event::StepsCancelled { steps: vec![1, 2] });
    flow.board.apply(&operation_id(), &cancelled, 9, at);
    assert_eq!(flow.board.lease(&flow.lease(1)), LeaseState::Cut(at));
}

#[test]
fn the_run_of_an_ended_operation_is_forgotten_when_the_last_slot_is_free() {
    let mut flow = two();
    flow.begin(1);
    let lease = flow.lease(1);
    flow.put(&Command::Cancel { by: "ops".into() }).unwrap();
    let (id, ada, mut views) = (operation_id(), agent("ada"), Views::default());
    let registered = support::crew::crew(1).history.remove(0).0;
    views.apply_agent(&ada, &registered, 1, Timestamp::default());
    let assigned = Assigned { lease_id: lease.clone(), operation: id.clone(), step: 1 };
    views.apply_agent(&ada, &AgentEvent::Assigned(assigned), 2, Timestamp::default());
    for (revision, (event, at)) in flow.scenario.history.iter().enumerate() {
        views.apply_operation(&id, event, revision as u64 + 1, *at);
    }
    assert!(matches!(views.operations.lease(&lease), LeaseState::Cut(_)));
    assert!(views.operations.get(&id).unwrap().run.is_some());
    let released = Released { lease_id: lease.clone(), outcome: Outcome::Cancelled, duration_ms: 1 };
    views.apply_agent(&ada, &agent::Event::Released(released), 3, Timestamp::default());
    assert!(views.operations.get(&id).is_none());
    assert!(views.operations.find(&id).unwrap().run.is_none());
    assert_eq!(views.operations.lease(&lease), over(Outcome::Cancelled));
    assert_eq!(views.operations.find(&id).unwrap().status, Status::Cancelled);
}

#[test]
fn an_operation_without_agents_is_forgotten_at_its_end_and_not_before() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.done(1, json!(1));
    let mut views = Views::default();
    for (revision, (event, at)) in flow.scenario.history.iter().enumerate() {
        views.apply_operation(&operation_id(), event, revision as u64 + 1, *at);
        let row = views.operations.find(&operation_id()).unwrap();
        assert_eq!(row.run.is_some(), !row.status.is_terminal());
    }
    let row = views.operations.find(&operation_id()).unwrap();
    assert_eq!((row.progress, row.settled, row.steps), (100, 1, 1));
    assert!(views.operations.open().is_empty());
    assert_eq!(views.dashboard.operations.percentiles([50]), Some([0]));
}

fn id(number: u32) -> OperationId {
    format!("op_{number:032x}").parse().unwrap()
}

fn board(ages: &[(u32, i64)]) -> OperationBoard {
    let mut board = OperationBoard::default();
    for (number, at) in ages {
        let created = Event::Created(Box::new(definition(vec![step(1, &[])])));
        board.apply(&id(*number), &created, 1, Timestamp::from_micros(*at));
    }
    board
}

#[test]
fn operations_are_listed_by_age_and_then_by_id_from_any_place_on() {
    let board = board(&[(3, 20), (1, 10), (2, 20), (4, 5)]);
    let ids =
        |rows: Vec<OperationId>| rows.iter().map(|id| id.to_string()[34..].to_owned()).collect::<Vec<_>>();
    let oldest = |after| ids(board.rows(Order::OldestFirst, after).map(|(id, _)| id).collect());
    let newest = |after| ids(board.rows(Order::NewestFirst, after).map(|(id, _)| id).collect());
    assert_eq!(oldest(None), ["4", "1", "2", "3"]);
    assert_eq!(newest(None), ["3", "2", "1", "4"]);
    let place = (Timestamp::from_micros(20), id(2));
    assert_eq!(
        (oldest(Some(&place)), newest(Some(&place))),
        (vec!["3".into()], vec!["1".into(), "4".into()])
    );
    // A place need not be taken: the operation may be one that nobody kept.
    let between = (Timestamp::from_micros(12), id(9));
    assert_eq!(oldest(Some(&between)), ["2", "3"]);
}

#[test]
fn counts_follow_status_and_priority() {
    let mut board = board(&[(1, 1), (2, 2)]);
    assert_eq!(board.count(Status::Pending, Priority::Medium), 2);
    board.apply(&id(1), &Event::Started, 2, Timestamp::from_micros(3));
    let patch = domain::operation::event::Patch { priority: Some(Priority::High), ..Default::default() };
    board.apply(&id(1), &Event::Updated(Box::new(patch)), 3, Timestamp::from_micros(4));
    let counts = [Status::Pending, Status::InProgress]
        .map(|status| (board.count(status, Priority::Medium), board.count(status, Priority::High)));
    assert_eq!(counts, [(1, 0), (0, 1)]);
    let all: usize = Status::ALL
        .iter()
        .flat_map(|status| Priority::ALL.map(|priority| board.count(*status, priority)))
        .sum();
    assert_eq!((all, board.len(), board.open().len()), (2, 2, 2));
}

#[test]
fn a_row_shows_what_can_be_filtered_by() {
    let mut flow = Flow::of(Definition {
        metadata: Json::from(json!({"a": "x", "b": 1, "c": true, "d": {}, "e": "x".repeat(257)})),
        ..definition(vec![step(1, &[])])
    });
    flow.offer(1, "ada").unwrap();
    let row = flow.board.get(&operation_id()).unwrap();
    let shown: Vec<_> = row.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(shown, ["a=x", "b=1", "c=true"]);
    assert!(row.agents_used.contains(&agent("ada")));
    assert!(row.platforms.contains(&"worker".parse().unwrap()));
}
