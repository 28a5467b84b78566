//! Views: counts, listing order, and when an operation's run is forgotten.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::operation::definition::{Definition, Priority};
use domain::operation::event::CloseReason;
use domain::operation::{Command, Event, Status, StepWish};
use domain::views::Views;
use domain::views::listing::Order;
use domain::views::operation_board::OperationBoard;
use domain::{Json, OperationId, Timestamp};
use serde_json::json;
use support::{Flow, agent, definition, operation_id, stamp, step};

fn two() -> Flow {
    Flow::of(definition(vec![step(1, &[]), step(2, &[])]))
}

#[test]
fn the_run_of_an_ended_operation_is_forgotten_when_the_last_slot_is_free() {
    let mut flow = two();
    flow.begin(1);
    flow.offer(2, "bob").unwrap();
    flow.put(&Command::Cancel { by: "ops".into() }).unwrap();
    let row = |flow: &Flow| {
        let row = flow.views.operations.find(&operation_id()).unwrap();
        assert_eq!((row.status, row.completed_at.is_some()), (Status::Cancelled, true));
        (row.run.is_some(), row.revision)
    };
    assert!(flow.views.operations.open().is_empty(), "what closes is not under way");
    let (kept, before) = row(&flow);
    assert!(kept);
    flow.wish(1, StepWish::CloseLease { why: CloseReason::Reported }).unwrap();
    assert_eq!(row(&flow), (true, before + 1));
    flow.wish(2, StepWish::CloseLease { why: CloseReason::GraceExpired }).unwrap();
    assert_eq!(row(&flow), (false, before + 2));
    assert_eq!(flow.views.leases.of_operation(&operation_id()).count(), 0);
}

#[test]
fn an_operation_without_agents_is_forgotten_at_its_end_and_not_before() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.done(1, json!(1));
    let mut views = Views::default();
    for (revision, (event, at)) in (1..).zip(&flow.scenario.history) {
        views.apply_operation(&operation_id(), event, stamp(revision, *at));
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
        board.apply(
            &id(*number),
            &created,
            stamp(1, Timestamp::default().plus_ms(u64::try_from(*at).unwrap())),
        );
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
    let place = (Timestamp::default().plus_ms(20), id(2));
    assert_eq!(
        (oldest(Some(&place)), newest(Some(&place))),
        (vec!["3".into()], vec!["1".into(), "4".into()])
    );
    // A place need not be taken: the operation may be one that nobody kept.
    let between = (Timestamp::default().plus_ms(12), id(9));
    assert_eq!(oldest(Some(&between)), ["2", "3"]);
}

#[test]
fn counts_follow_status_and_priority() {
    let mut board = board(&[(1, 1), (2, 2)]);
    assert_eq!(board.count(Status::Pending, Priority::Medium), 2);
    board.apply(&id(1), &Event::Started, stamp(2, Timestamp::default().plus_ms(3)));
    let patch = domain::operation::event::Patch { priority: Some(Priority::High), ..Default::default() };
    board.apply(&id(1), &Event::Updated(Box::new(patch)), stamp(3, Timestamp::default().plus_ms(4)));
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
