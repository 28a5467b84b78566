//! Laws of packing: whatever the size of the blocks, views show the same, at every moment, after every
//! snapshot, page by page and filter by filter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use actors::kept::{keep_all, restore_part};
use actors::past::{Cut, Past};
use actors::standing::Standing;
use domain::operation::definition::Priority;
use domain::operation::step::Status;
use domain::shortened_id::ShortOperationId;
use domain::views::Views;
use domain::views::ended::block::Block;
use domain::views::filter::Filter;
use domain::views::listing::{Order, Search};
use domain::views::operation_board::{OperationBoard, Place, Row};
use domain::{OperationId, Timestamp};
use events::dice::Dice;
use events::{EventLog, MemoryLog, Position, Recorded};
use support::author::Author;

const SEEDS: u64 = 20;
const MOVES: usize = 1_200;
const SIZES: [usize; 3] = [1, 3, 20];

fn in_blocks_of(rows: usize) -> Past {
    let views = Views { operations: OperationBoard::in_blocks_of(rows), ..Views::default() };
    Past { views, ..Past::default() }
}

/// Views that never pack in a history of this length.
fn plain() -> Past {
    let past = in_blocks_of(usize::MAX);
    assert!(past.views.operations.is_empty());
    past
}

async fn history(seed: u64, moves: usize) -> (MemoryLog, Vec<Arc<Recorded>>) {
    let log = MemoryLog::new();
    Author::new(seed).write(&log, moves).await;
    let mut all: Vec<Arc<Recorded>> = Vec::new();
    loop {
        let after = all.last().map_or(Position::START, |last| last.position);
        let page = log.page(after, 1 << 20).await.unwrap();
        if page.is_empty() {
            return (log, all);
        }
        all.extend(page);
    }
}

fn shown(id: &OperationId, row: &Row, _: Timestamp) -> String {
    let open = row.open_run().map(|run| (run.status, run.ready.len(), run.held.len(), run.paused));
    format!("{id} {} {open:?}", serde_json::to_string(&Row { run: None, ..row.clone() }).unwrap())
}

/// Everything that can be seen of a board without a question.
fn all(board: &OperationBoard, order: Order, after: Option<&Place>) -> Vec<String> {
    board.rows(order, after).map(|(id, row)| shown(&id, &row, Timestamp::default())).collect()
}

fn must_be_equal(left: &Past, right: &Past, what: &str) {
    let (a, b) = (&left.views.operations, &right.views.operations);
    assert_eq!(left.hash(), right.hash(), "{what}");
    assert_eq!((a.len(), a.open()), (b.len(), b.open()), "{what}");
    for status in Status::ALL {
        for priority in Priority::ALL {
            assert_eq!(a.count(status, priority), b.count(status, priority), "{what}");
        }
    }
    for order in [Order::NewestFirst, Order::OldestFirst] {
        assert_eq!(all(a, order, None), all(b, order, None), "{what}");
    }
    for (id, row) in a.rows(Order::OldestFirst, None) {
        let now = Timestamp::default();
        assert_eq!(shown(&id, &b.find(&id).unwrap(), now), shown(&id, &row, now), "{what}");
        assert_eq!(b.get(&id).is_some(), a.get(&id).is_some(), "{what}");
    }
    assert!(b.find(&support::id(u32::MAX)).is_none());
}

fn taken_apart_and_put_together(past: &Past) -> Past {
    let mut again = in_blocks_of(3);
    (again.position, again.time, again.events) = (past.position, past.time, past.events);
    let (none, mut keys) = Default::default();
    keep_all::<String>(&past.views, &none, &mut |part| {
        restore_part(part, &mut again.views, &mut keys).unwrap();
        Ok(())
    })
    .unwrap();
    again
}

#[actix::test]
async fn views_show_the_same_at_every_moment_whatever_the_size_of_blocks() {
    let mut packed = 0;
    for seed in 0..SEEDS {
        let (_, events) = history(seed, MOVES).await;
        let (mut without, mut with) = (plain(), SIZES.map(in_blocks_of));
        for (number, event) in events.iter().enumerate() {
            without.take(event).unwrap();
            with.iter_mut().for_each(|past| past.take(event).unwrap());
            if number % 101 == 0 || number + 1 == events.len() {
                for (past, size) in with.iter().zip(SIZES) {
                    must_be_equal(&without, past, &format!("seed {seed}, blocks of {size}, event {number}"));
                }
            }
        }
        packed += with[1].views.operations.blocks().len();
    }
    assert!(packed > SEEDS as usize * 2, "only {packed} blocks were filled");
}

#[actix::test]
async fn snapshots_go_on_with_the_blocks_as_they_are() {
    for seed in 100..100 + SEEDS {
        let (_, events) = history(seed, MOVES).await;
        let mut dice = Dice(seed);
        let (mut without, mut with) = (plain(), in_blocks_of(3));
        for (number, event) in events.iter().enumerate() {
            without.take(event).unwrap();
            with.take(event).unwrap();
            if dice.below(150) == 0 {
                let blocks = with.views.operations.blocks().to_vec();
                with = taken_apart_and_put_together(&with);
                assert!(with.views.operations.blocks() == blocks);
                must_be_equal(&without, &with, &format!("seed {seed}, restored after event {number}"));
            }
        }
        must_be_equal(&without, &with, &format!("seed {seed}, in the end"));
    }
}

#[actix::test]
async fn a_look_at_any_moment_shares_the_blocks_of_the_present_and_shows_that_moment() {
    for seed in 200..206 {
        let (log, events) = history(seed, MOVES).await;
        let mut present = in_blocks_of(3);
        events.iter().for_each(|event| present.take(event).unwrap());
        let blocks = present.views.operations.blocks();
        for cut in (0..events.len()).step_by(97) {
            let (mut then, mut without) = (in_blocks_of(3), plain());
            then.views.operations.share(blocks);
            for event in &events[..=cut] {
                then.take(event).unwrap();
                without.take(event).unwrap();
            }
            must_be_equal(&without, &then, &format!("seed {seed} at {cut}"));
            let shared = then.views.operations.blocks();
            assert!(shared.iter().zip(blocks).all(|(one, other)| one.is_shared_with(other)), "seed {seed}");
            let folded = Past::fold(&log, Cut::Position(events[cut].position)).await.unwrap();
            must_be_equal(&folded, &then, &format!("seed {seed} at {cut}, folded"));
        }
    }
}

#[actix::test]
async fn blocks_of_another_history_are_never_taken() {
    let (_, events) = history(300, MOVES).await;
    let (_, others) = history(301, MOVES).await;
    let mut other = in_blocks_of(3);
    others.iter().for_each(|event| other.take(event).unwrap());
    let (mut without, mut with) = (plain(), in_blocks_of(3));
    with.views.operations.share(other.views.operations.blocks());
    for event in &events {
        without.take(event).unwrap();
        with.take(event).unwrap();
    }
    must_be_equal(&without, &with, "beside blocks of another history");
}

fn part(dice: &mut Dice, id: &OperationId) -> ShortOperationId {
    let (digits, length) = (id.to_string().split_off(3), 4 + dice.index(29));
    ShortOperationId::parse(if dice.coin() { &digits[..length] } else { &digits[32 - length..] }).unwrap()
}

fn random_filter(dice: &mut Dice, rows: &[(OperationId, Row)]) -> Filter {
    let (id, row) = &rows[dice.index(rows.len())];
    let other = &rows[dice.index(rows.len())].1;
    Filter {
        id: (dice.below(8) == 0).then(|| part(dice, id)),
        statuses: (0..dice.below(3)).map(|_| Status::ALL[dice.index(5)]).collect(),
        priority: (dice.below(8) == 0).then(|| Priority::ALL[dice.index(4)]),
        agent: (dice.below(3) == 0).then(|| ["ada", "bob", "eve", "nobody"][dice.index(4)].to_owned()),
        platform: (dice.below(6) == 0).then(|| ["worker", "human", "ada"][dice.index(3)].to_owned()),
        text: (dice.below(4) == 0).then(|| ["n", "größe", "n3", ""][dice.index(4)].to_owned()),
        created_after: (dice.below(5) == 0).then_some(row.created_at),
        created_before: (dice.below(5) == 0).then_some(other.created_at),
        deadline_before: (dice.below(20) == 0).then_some(other.created_at),
        blocked_on: None,
        metadata: (dice.below(5) == 0)
            .then(|| (String::from("n"), ["1", "2"][dice.index(2)].to_owned()))
            .into_iter()
            .collect(),
    }
}

#[actix::test]
async fn every_page_of_every_filter_is_what_a_look_at_every_row_finds() {
    let mut pages = 0;
    for seed in 400..400 + SEEDS {
        let (_, events) = history(seed, MOVES).await;
        let (mut dice, mut past) = (Dice(seed), in_blocks_of(SIZES[seed as usize % SIZES.len()]));
        events.iter().for_each(|event| past.take(event).unwrap());
        let (board, now) = (&past.views.operations, past.time);
        let rows = board.rows(Order::OldestFirst, None).map(|(id, row)| (id, row.into_owned()));
        let rows: Vec<(OperationId, Row)> = rows.collect();
        for _ in 0..60 {
            let filter = random_filter(&mut dice, &rows);
            let mut expected: Vec<_> = rows.iter().filter(|(id, row)| filter.admits(id, row, now)).collect();
            let order = if dice.coin() { Order::NewestFirst } else { Order::OldestFirst };
            if order == Order::NewestFirst {
                expected.reverse();
            }
            let expected: Vec<String> = expected.into_iter().map(|(id, row)| shown(id, row, now)).collect();
            let (limit, mut found, mut after) = (1 + dice.index(6), Vec::new(), None);
            loop {
                let search = Search { filter: filter.clone(), order, after, limit, count: true };
                let page = board.search(search, now, shown).finish();
                assert!(page.shown.len() <= limit);
                assert_eq!(page.total, Some(expected.len() as u64), "seed {seed} {filter:?}");
                found.extend(page.shown);
                pages += 1;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "seed {seed} {order:?} {filter:?}");
        }
    }
    assert!(pages > 2_000, "{pages}");
}

#[actix::test]
async fn a_damaged_block_is_refused_or_reads_as_a_block() {
    let (_, events) = history(500, MOVES).await;
    let mut past = in_blocks_of(5);
    events.iter().for_each(|event| past.take(event).unwrap());
    let block = past.views.operations.blocks().first().unwrap();
    let bytes = block.stored().to_vec();
    let mut dice = Dice(500);
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=dice.below(3) {
            let at = dice.index(damaged.len());
            damaged[at] ^= 1 << dice.below(8);
        }
        if dice.below(4) == 0 {
            damaged.truncate(dice.index(damaged.len()));
        }
        if let Some(block) = Block::parse(damaged.into()) {
            let ids: BTreeSet<_> = (0..block.len()).filter_map(|row| Some(block.row(row)?.0)).collect();
            assert!(ids.len() <= block.len());
        }
    }
    assert!(Block::parse(bytes.into()).is_some_and(|again| again == *block));
}

#[actix::test]
async fn a_standing_beside_blocks_is_the_same_as_one_alone() {
    let (log, events) = history(600, MOVES).await;
    let mut present = in_blocks_of(1_000);
    events.iter().for_each(|event| present.take(event).unwrap());
    let mut beside = Standing::beside(present.views.operations.blocks());
    let mut alone = Standing::default();
    for standing in [&mut beside, &mut alone] {
        standing.fold_up_to(&log, Position::new(u64::MAX), &|| true).await.unwrap();
    }
    must_be_equal(&alone.past, &beside.past, "beside blocks");
}
