//! The views in pieces, for snapshots: each piece can be stored by itself, and all of them put together are
//! the views again. Never decides what is stored where.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Views;
use super::agent_directory::Row as AgentRow;
use super::dashboard::Dashboard;
use super::ended::block::Block;
use super::leases::Lease;
use super::listing::Order;
use super::operation_board::Row;
use crate::lane::Lane;
use crate::operation::definition::StepDefinition;
use crate::{AgentId, LaneId, LeaseId, OperationId};

/// A part of the views.
#[derive(Debug, Serialize, Deserialize)]
pub enum Piece<'v> {
    /// An operation that is not packed.
    Operation {
        /// Which.
        id: Cow<'v, OperationId>,
        /// Its row.
        row: Cow<'v, Row>,
        /// The steps of its run, which the row does not repeat.
        steps: Option<Cow<'v, [StepDefinition]>>,
    },
    /// An agent.
    Agent {
        /// Which.
        id: Cow<'v, AgentId>,
        /// Its row.
        row: Cow<'v, AgentRow>,
    },
    /// A lease.
    Lease {
        /// Which.
        id: LeaseId,
        /// The agent that has it, and how.
        lease: Cow<'v, Lease>,
    },
    /// A lane.
    Lane {
        /// Which.
        id: Cow<'v, LaneId>,
        /// Its state.
        lane: Cow<'v, Lane>,
    },
    /// The figures over time.
    Dashboard(Cow<'v, Dashboard>),
    /// Operations that are over, packed.
    Ended(Block),
}

impl Views {
    /// Every part, always in the same order for the same history.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let ended = self.operations.blocks().iter().map(|block| Piece::Ended(block.clone()));
        let operations = self.operations.unpacked(Order::OldestFirst, None).map(|(id, row)| {
            let steps = row.run.as_ref().map(|run| Cow::Borrowed(&*run.skeleton.steps));
            Piece::Operation { id: Cow::Borrowed(id), row: Cow::Borrowed(row), steps }
        });
        let agents = self.agents.all();
        let agents = agents.map(|(id, row)| Piece::Agent { id: Cow::Borrowed(id), row: Cow::Borrowed(row) });
        let leases = self.leases.all();
        let leases = leases.map(|(id, lease)| Piece::Lease { id, lease: Cow::Borrowed(lease) });
        let lanes = self.lanes.all();
        let lanes = lanes.map(|(id, lane)| Piece::Lane { id: Cow::Borrowed(id), lane: Cow::Borrowed(lane) });
        let dashboard = std::iter::once(Piece::Dashboard(Cow::Borrowed(&self.dashboard)));
        ended.chain(operations).chain(agents).chain(leases).chain(lanes).chain(dashboard)
    }

    /// Puts one part back.
    pub fn put(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Ended(block) => self.operations.put_block(block),
            Piece::Operation { id, row, steps } => {
                self.operations.put(id.into_owned(), row.into_owned(), steps.map(Cow::into_owned));
            }
            Piece::Agent { id, row } => self.agents.put(id.into_owned(), row.into_owned()),
            Piece::Lease { id, lease } => self.leases.put(&id, lease.into_owned()),
            Piece::Lane { id, lane } => self.lanes.put(id.into_owned(), lane.into_owned()),
            Piece::Dashboard(dashboard) => self.dashboard = dashboard.into_owned(),
        }
    }
}
