//! One page of a list of operations. The rows that can still change are read while the views stand still;
//! the blocks of ended ones never change, and are read afterwards without anybody waiting.

pub use super::ended::Order;
use super::ended::Walk;
use super::ended::block::Block;
use super::filter::Filter;
use super::operation_board::{OperationBoard, Place, Row};
use crate::{OperationId, Timestamp};

/// Ended operations whose names or metadata one request reads.
pub const TEXTS_READ_MAX: usize = 50_000;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Which operations.
    pub filter: Filter,
    /// How they are sorted.
    pub order: Order,
    /// Only what comes after this place.
    pub after: Option<Place>,
    /// Most rows of the page.
    pub limit: usize,
    /// Whether to count all that are admitted, wherever they stand.
    pub count: bool,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// What is shown.
    pub shown: Vec<T>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Place>,
    /// How many are admitted in all; none when it was not asked for, or would take more than one request may
    /// read.
    pub total: Option<u64>,
}

/// Shows a row at a moment.
pub type Show<T> = fn(&OperationId, &Row, Timestamp) -> T;

/// A page of which the ended rows that are packed have not been read yet.
pub struct Begun<T> {
    search: Search,
    now: Timestamp,
    show: Show<T>,
    /// One more than the page holds, if there are so many.
    found: Vec<(Place, T)>,
    counted: u64,
    blocks: Vec<Block>,
}

impl OperationBoard {
    /// Reads the rows that are not packed.
    #[must_use]
    pub fn search<T>(&self, search: Search, now: Timestamp, show: Show<T>) -> Begun<T> {
        let admitted = |after| {
            let rows = self.unpacked(search.order, after);
            rows.filter(|(id, row)| search.filter.admits(id, row, now))
        };
        let shown = admitted(search.after.as_ref()).take(search.limit.saturating_add(1));
        let found = shown.map(|(id, row)| ((row.created_at, id.clone()), show(id, row, now))).collect();
        let counted = if search.count { admitted(None).count() as u64 } else { 0 };
        Begun { now, show, found, counted, blocks: self.blocks().to_vec(), search }
    }
}

impl<T> Begun<T> {
    /// How many packed rows there are to look at.
    #[must_use]
    pub fn packed(&self) -> usize {
        self.blocks.iter().map(Block::len).sum()
    }

    /// Reads the blocks, and makes the page.
    #[must_use]
    pub fn finish(mut self) -> Listing<T> {
        let mut left = TEXTS_READ_MAX;
        let read_up_to = self.read(&mut left);
        let total = self.search.count.then(|| self.count(&mut left)).flatten();
        let Self { search, mut found, .. } = self;
        match search.order {
            Order::NewestFirst => found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a)),
            Order::OldestFirst => found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b)),
        }
        if let Some(end) = &read_up_to {
            // What comes later may not be all there is.
            found.retain(|(place, _)| match search.order {
                Order::NewestFirst => place >= end,
                Order::OldestFirst => place <= end,
            });
        }
        let full = found.len() > search.limit;
        found.truncate(search.limit);
        let next = match found.last() {
            Some((last, _)) if full => Some(last.clone()),
            _ => read_up_to,
        };
        Listing { shown: found.into_iter().map(|(_, shown)| shown).collect(), next, total }
    }

    /// Adds packed rows until the page is full. Says where it stopped, when that was for having read enough.
    fn read(&mut self, left: &mut usize) -> Option<Place> {
        let Self { search, now, show, found, blocks, .. } = self;
        let filter = &search.filter;
        let wanted: Vec<_> = blocks.iter().map(|block| block.wanted(filter)).collect();
        let admits = |block: usize, row: usize| {
            wanted[block].as_ref().is_some_and(|wanted| blocks[block].admits(row, wanted))
        };
        let among = (0..blocks.len()).filter(|block| wanted[*block].is_some());
        let (mut added, mut last) = (0, None);
        for (block, row) in Walk::begin(blocks, among, search.order, search.after.as_ref(), admits) {
            let block = &blocks[block];
            if filter.reads_text() {
                if *left == 0 {
                    return last;
                }
                *left -= 1;
                last = block.place(row);
                if !block.admits_text(row, filter) {
                    continue;
                }
            }
            if let Some((id, row)) = block.row(row) {
                found.push(((row.created_at, id.clone()), show(&id, &row, *now)));
                added += 1;
            }
            if added > search.limit {
                break;
            }
        }
        None
    }

    /// Counts everything. None when it would read more than is left.
    fn count(&self, left: &mut usize) -> Option<u64> {
        let filter = &self.search.filter;
        let mut total = self.counted;
        for block in &self.blocks {
            if let Some(counted) = block.counted(filter) {
                total += counted;
                continue;
            }
            let Some(wanted) = block.wanted(filter) else { continue };
            for row in (0..block.len()).filter(|row| block.admits(*row, &wanted)) {
                if filter.reads_text() {
                    *left = left.checked_sub(1)?;
                    total += u64::from(block.admits_text(row, filter));
                } else {
                    total += 1;
                }
            }
        }
        Some(total)
    }
}
