//! Ended operations, packed: blocks in the order in which they were filled, and an index from ids to rows.
//! What is here never changes. Views of other moments share the blocks that are the same for them.

pub mod block;
mod bytes;
mod index;
mod walk;

use crate::OperationId;
use crate::views::operation_board::Row;
use block::Block;
use index::Index;
pub use walk::Order;
pub(super) use walk::Walk;

/// Rows of a block, unless a test wants another number.
pub(super) const BLOCK_ROWS: usize = 1_000;
/// Bits of a row's number that say where in its block it is.
const ROW_BITS: u32 = block::ROWS_MAX.trailing_zeros();

/// All packed rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    blocks: Vec<Block>,
    index: Index,
    rows: usize,
    /// Blocks of other views of the same history: one that is equal is taken instead of a copy.
    others: Vec<Block>,
}

impl Ended {
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// From now on equal blocks of these are taken instead of copies.
    pub(super) fn share(&mut self, others: &[Block]) {
        self.others = others.to_vec();
    }

    /// The row of an operation.
    pub(super) fn find(&self, id: &OperationId) -> Option<Row> {
        let is = |number| id_of(&self.blocks, number).as_ref() == Some(id);
        let (block, row) = parts(self.index.find(id, is)?);
        self.blocks.get(block)?.row(row).map(|(_, row)| row)
    }

    /// Adds a block. Where the same history was packed before, equal blocks stand at equal places.
    pub(super) fn push(&mut self, block: Block) {
        let place = self.blocks.len();
        let block = self.others.get(place).filter(|other| **other == block).cloned().unwrap_or(block);
        self.rows += block.len();
        // Before its rows are added: the index asks for their ids when it grows.
        self.blocks.push(block.clone());
        for row in 0..block.len() {
            let number = (place as u32) << ROW_BITS | row as u32;
            if let Some(id) = block.id(row) {
                self.index.add(&id, number, |number| id_of(&self.blocks, number));
            }
        }
    }
}

fn parts(number: u32) -> (usize, usize) {
    ((number >> ROW_BITS) as usize, (number & ((1 << ROW_BITS) - 1)) as usize)
}

fn id_of(blocks: &[Block], number: u32) -> Option<OperationId> {
    let (block, row) = parts(number);
    blocks.get(block)?.id(row)
}
