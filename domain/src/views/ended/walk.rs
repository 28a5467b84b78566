//! Rows of many blocks in the order of their age. Blocks overlap in age, since old operations end late; each
//! is opened when the walk reaches its first row, and only places are read until a row is asked for.

use std::collections::BinaryHeap;

use super::block::Block;
use crate::views::operation_board::Place;

/// How lists are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By the moment of creation, the newest first.
    #[default]
    NewestFirst,
    /// The other way round.
    OldestFirst,
}

/// A place as a number that is greater the sooner the walk comes to it.
type Rank = (i64, u128);

/// A block and the row that is next in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    rank: Rank,
    block: usize,
    row: usize,
}

/// A walk over the rows of blocks for which `admits` holds.
pub(in crate::views) struct Walk<'b, F> {
    blocks: &'b [Block],
    order: Order,
    admits: F,
    /// Not opened yet, the next one last.
    closed: Vec<Next>,
    open: BinaryHeap<Next>,
}

impl<'b, F: Fn(usize, usize) -> bool> Walk<'b, F> {
    /// Begins after a place, among some of the blocks. `admits` is asked with the numbers of a block and of a
    /// row in it.
    pub(in crate::views) fn begin(
        blocks: &'b [Block],
        among: impl Iterator<Item = usize>,
        order: Order,
        after: Option<&Place>,
        admits: F,
    ) -> Self {
        let after = after.map(|place| rank(order, place));
        let first = |block: usize| {
            let (row, rank) = first_after(blocks.get(block)?, order, after.as_ref())?;
            Some(Next { rank, block, row })
        };
        let mut closed: Vec<Next> = among.filter_map(first).collect();
        closed.sort_unstable();
        Self { blocks, order, admits, closed, open: BinaryHeap::new() }
    }

    /// Puts the next row of a block that is admitted, from this one on, where the walk finds it.
    fn enter(&mut self, next: Next) {
        let block = &self.blocks[next.block];
        let mut row = next.row;
        while !(self.admits)(next.block, row) {
            match following(block, self.order, row) {
                Some(another) => row = another,
                None => return,
            }
        }
        if let Some(place) = block.place(row) {
            self.open.push(Next { rank: rank(self.order, &place), row, ..next });
        }
    }
}

impl<F: Fn(usize, usize) -> bool> Iterator for Walk<'_, F> {
    /// The number of a block, and of a row in it.
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        while let Some(closed) = self.closed.last()
            && self.open.peek().is_none_or(|open| open.rank < closed.rank)
            && let Some(closed) = self.closed.pop()
        {
            self.enter(closed);
        }
        let Next { block, row, rank } = self.open.pop()?;
        if let Some(row) = following(&self.blocks[block], self.order, row) {
            self.enter(Next { block, row, rank });
        }
        Some((block, row))
    }
}

fn rank(order: Order, place: &Place) -> Rank {
    let rank = (place.0.as_micros(), place.1.bits());
    match order {
        Order::NewestFirst => rank,
        Order::OldestFirst => (!rank.0, !rank.1),
    }
}

fn following(block: &Block, order: Order, row: usize) -> Option<usize> {
    match order {
        Order::NewestFirst => row.checked_sub(1),
        Order::OldestFirst => Some(row + 1).filter(|row| *row < block.len()),
    }
}

/// The first row of a block that comes after a place, and its rank.
fn first_after(block: &Block, order: Order, after: Option<&Rank>) -> Option<(usize, Rank)> {
    let row_at = |step: usize| match order {
        Order::NewestFirst => block.len() - 1 - step,
        Order::OldestFirst => step,
    };
    let rank_at = |step: usize| block.place(row_at(step)).map(|place| rank(order, &place));
    let is_before = |step: usize| after.is_some_and(|after| rank_at(step).is_some_and(|at| at >= *after));
    let (mut low, mut high) = (0, block.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    if low == block.len() {
        return None;
    }
    Some((row_at(low), rank_at(low)?))
}
