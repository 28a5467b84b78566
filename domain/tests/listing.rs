//! Lists among many operations that are over: what one request reads is bounded, what they take is little.
#![allow(clippy::unwrap_used)] // A helper of a test fails as the test does.

mod support;

use domain::operation::Event;
use domain::operation::definition::Definition;
use domain::operation::event::{Cancelled, StepsCancelled};
use domain::views::filter::Filter;
use domain::views::listing::{Listing, Order, Search, TEXTS_READ_MAX};
use domain::views::operation_board::{OperationBoard, Place, Row};
use domain::{Json, OperationId, Timestamp};
use serde_json::json;
use support::{definition, stamp, step};

const COUNT: usize = TEXTS_READ_MAX + 20_000;
/// Every so manieth operation has another name.
const RARE: usize = 1_777;

fn id(number: usize) -> OperationId {
    // As a version 7 UUID has it: time first, then what nobody can guess.
    let noise = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 48;
    OperationId::from_bits((number as u128) << 80 | noise)
}

fn board() -> OperationBoard {
    let mut board = OperationBoard::default();
    let plain = Definition {
        metadata: Json::from(json!({"source": "photon bench", "team": "release"})),
        ..definition(vec![step(1, &[]), step(2, &[1]), step(3, &[2])])
    };
    for number in 0..COUNT {
        let name = if number % RARE == 0 { format!("Rare {number}") } else { "An ordinary name".into() };
        let (id, at) = (id(number), Timestamp::from_micros(1_700_000_000_000_000 + number as i64 * 7_001));
        let created = Event::Created(Box::new(Definition { name, ..plain.clone() }));
        board.apply(&id, &created, stamp(1, at));
        board.apply(&id, &Event::Started, stamp(2, at.plus_ms(1)));
        board.apply(&id, &Event::Cancelled(Cancelled { by: "ops".into() }), stamp(3, at.plus_ms(90)));
        let steps = Event::StepsCancelled(StepsCancelled { steps: vec![1, 2, 3], closing: Vec::new() });
        board.apply(&id, &steps, stamp(4, at.plus_ms(90)));
        board.forget_run(&id);
    }
    board
}

fn page(board: &OperationBoard, filter: &Filter, order: Order, after: Option<Place>) -> Listing<String> {
    let show = |_: &OperationId, row: &Row, _: Timestamp| row.name.clone();
    let search = Search { filter: filter.clone(), order, after, limit: 7, count: true };
    board.search(search, Timestamp::from_micros(0), show).finish()
}

#[test]
fn a_text_is_looked_for_in_bounded_parts_and_no_operation_is_passed_over() {
    let board = board();
    assert_eq!((board.len(), board.blocks().len()), (COUNT, COUNT / 1_000));
    assert!((0..COUNT).all(|number| board.find(&id(number)).is_some_and(|row| row.revision == 4)));
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let rare = Filter { text: Some("rare".into()), ..Filter::default() };
        let (mut found, mut after, mut short) = (Vec::new(), None, 0);
        loop {
            let page = page(&board, &rare, order, after);
            assert_eq!(page.total, None, "more than one request may read");
            short += usize::from(page.shown.len() < 7 && page.next.is_some());
            found.extend(page.shown);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut expected: Vec<String> =
            (0..COUNT).step_by(RARE).map(|number| format!("Rare {number}")).collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        assert_eq!(found, expected);
        let nothing = Filter { metadata: vec![("team".into(), "other".into())], ..Filter::default() };
        let first = page(&board, &nothing, order, None);
        assert!(first.shown.is_empty() && first.next.is_some());
        let second = page(&board, &nothing, order, first.next);
        assert!(second.shown.is_empty() && second.next.is_none());
        assert_eq!(short, 0, "every part of the history has enough of them");
    }
    // What is told by indexes reads no text.
    let cancelled = Filter {
        text: Some("rare".into()),
        created_before: Some(Timestamp::from_micros(1)),
        ..Filter::default()
    };
    assert_eq!(page(&board, &cancelled, Order::NewestFirst, None).total, Some(0));
}

#[test]
fn an_operation_that_is_over_takes_less_than_eighty_bytes_in_its_block() {
    let board = board();
    let (rows, bytes) = board
        .blocks()
        .iter()
        .fold((0, 0), |(rows, bytes), block| (rows + block.len(), bytes + block.stored().len()));
    println!("{} bytes for a packed row", bytes / rows);
    assert!(bytes / rows < 80, "{}", bytes / rows);
}
