//! Which operations a list shows. The same question is answered here for a row and, by the blocks of ended
//! operations, for a packed one; both must say the same.

use super::operation_board::Row;
use crate::operation::definition::Priority;
use crate::operation::pending::Cause;
use crate::operation::step::Status;
use crate::shortened_id::ShortOperationId;
use crate::{OperationId, Timestamp};

/// What must hold of an operation; nothing given admits all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The beginning or the end of its id.
    pub id: Option<ShortOperationId>,
    /// Whether it runs: one of these, or any when there are none.
    pub statuses: Vec<Status>,
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// An agent that was given a step, or that a step asks for.
    pub agent: Option<String>,
    /// A platform of a step.
    pub platform: Option<String>,
    /// A text within its name, in lower case.
    pub text: Option<String>,
    /// Created later than this.
    pub created_after: Option<Timestamp>,
    /// Created earlier than this.
    pub created_before: Option<Timestamp>,
    /// Must have ended earlier than this.
    pub deadline_before: Option<Timestamp>,
    /// What a step of it waits for.
    pub blocked_on: Option<Cause>,
    /// Entries of its metadata, all of them.
    pub metadata: Vec<(String, String)>,
}

impl Filter {
    /// Whether it admits a row at this moment.
    #[must_use]
    pub fn admits(&self, id: &OperationId, row: &Row, now: Timestamp) -> bool {
        let uses = |agent: &String| row.agents_used.iter().any(|used| used.as_str() == agent);
        let runs_on = |name: &String| row.platforms.iter().any(|used| used.as_str() == name);
        let ends_before = |before| row.deadline.is_some_and(|deadline| deadline < before);
        self.id.is_none_or(|part| part.fits(id))
            && self.admits_status(row.status)
            && self.priority.is_none_or(|priority| row.priority == priority)
            && self.agent.as_ref().is_none_or(uses)
            && self.platform.as_ref().is_none_or(runs_on)
            && self.created_after.is_none_or(|after| row.created_at > after)
            && self.created_before.is_none_or(|before| row.created_at < before)
            && self.deadline_before.is_none_or(ends_before)
            && self.blocked_on.is_none_or(|cause| row.waits_for(cause, now))
            && self.admits_text(row)
    }

    /// Whether it admits an operation of this status.
    #[must_use]
    pub fn admits_status(&self, status: Status) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    /// The part of it that reads names and metadata.
    #[must_use]
    pub fn admits_text(&self, row: &Row) -> bool {
        self.text.as_ref().is_none_or(|text| row.name.to_lowercase().contains(text))
            && self.metadata.iter().all(|entry| row.metadata.contains(entry))
    }

    /// Whether it reads names or metadata, for which there is no index.
    #[must_use]
    pub fn reads_text(&self) -> bool {
        self.text.is_some() || !self.metadata.is_empty()
    }

    /// Whether it asks for nothing but a status and a priority.
    pub(super) fn is_of_kind_only(&self) -> bool {
        let Self { id, agent, platform, created_after, created_before, deadline_before, blocked_on, .. } =
            self;
        id.is_none()
            && agent.is_none()
            && platform.is_none()
            && created_after.is_none()
            && created_before.is_none()
            && deadline_before.is_none()
            && blocked_on.is_none()
            && !self.reads_text()
    }
}
