//! One agent by its events alone, and how its work went by those of the operations: whether it may have work,
//! and whether it is rightly put out of service.

use std::collections::BTreeSet;

use domain::agent::event::{Config, Profile, Status, StatusReason};
use domain::agent::{Event, health};
use domain::operation::definition::StepDefinition;
use domain::operation::event::LeaseEnd;
use domain::{AgentId, OperationId, Timestamp};

use crate::course::{Faults, How, Slot};
use crate::signs::{Period, Signs};
use crate::world::THRESHOLDS;

/// Codes of failures that say nothing of an agent.
const EXCUSED: [&str; 6] = ["invalid", "type_mismatch", "rate_limited", "cancelled", "released", "timeout"];

#[derive(Debug, Default)]
pub(crate) struct Member {
    profile: Option<Profile>,
    pub(crate) incarnation: u64,
    registered: bool,
    status: Option<(Status, StatusReason)>,
    /// Since when it is listened for.
    since: Timestamp,
    /// When its newest incarnation registered, and when it last left.
    joined_at: Timestamp,
    left_at: Option<Timestamp>,
    /// When it was last said to be silent, and whether it still is.
    timed_out_at: Option<Timestamp>,
    silent: bool,
    /// When it last changed, in whatever way.
    changed_at: Timestamp,
    /// How many slots it had from when on.
    slots: Vec<(Timestamp, u32)>,
    rows: Rows,
}

/// Ends of one kind in a row.
#[derive(Debug, Default)]
struct Row {
    count: u32,
    last: Option<Timestamp>,
}

impl Row {
    /// What was under way together counts once.
    fn add(&mut self, slot: &Slot, at: Timestamp) {
        if self.last.is_none_or(|last| slot.reserved_at >= last) {
            (self.count, self.last) = (self.count + 1, Some(at));
        }
    }
}

#[derive(Debug, Default)]
struct Rows {
    lost: Row,
    untaken: Row,
    failed: BTreeSet<OperationId>,
    /// Since when each is long enough, and until when it last was.
    enough: [(Option<Timestamp>, Option<Timestamp>); 3],
}

impl Rows {
    fn add(&mut self, slot: &Slot, how: &How, at: Timestamp) {
        match how {
            How::Completed => {
                (self.lost, self.untaken) = Default::default();
                self.failed.clear();
            }
            How::Failed(code) => {
                (self.lost, self.untaken) = Default::default();
                if !EXCUSED.contains(&code.as_str()) {
                    self.failed.insert(slot.lease.operation.clone());
                }
            }
            How::Lost => {
                self.untaken = Row::default();
                self.lost.add(slot, at);
            }
            How::Untaken => self.untaken.add(slot, at),
            How::Other => {}
        }
        let long = [
            self.lost.count >= THRESHOLDS.losses,
            self.untaken.count >= THRESHOLDS.untaken,
            self.failed.len() >= THRESHOLDS.failures as usize,
        ];
        for ((since, until), long) in self.enough.iter_mut().zip(long) {
            match (long, *since) {
                (true, None) => *since = Some(at),
                (false, Some(_)) => (*since, *until) = (None, Some(at)),
                _ => {}
            }
        }
    }
}

impl Member {
    /// Silence after which it counts as gone.
    fn silence_limit_ms(&self) -> Option<u64> {
        health::silence_limit_ms(&self.config())
    }

    pub(crate) fn config(&self) -> Config {
        self.profile.as_ref().map(|profile| profile.config.clone()).unwrap_or_default()
    }

    pub(crate) fn take(
        &mut self,
        id: &AgentId,
        event: &Event,
        at: Timestamp,
        signs: &Signs,
        faults: &mut Faults,
    ) {
        self.changed_at = at;
        match event {
            Event::Registered(registered) | Event::Reregistered(registered) => {
                self.profile = Some(registered.profile.clone());
                (self.registered, self.silent, self.joined_at) = (true, false, at);
                if registered.incarnation != self.incarnation + 1 {
                    faults.push(format!(
                        "incarnations: {} follows {}",
                        registered.incarnation, self.incarnation
                    ));
                }
                self.incarnation = registered.incarnation;
                self.status = Some((Status::Active, StatusReason::Registered));
                self.rows = Rows::default();
                // A later registration is a sign of life like any other once it is answered.
                if matches!(event, Event::Registered(_)) {
                    self.since = at;
                }
            }
            Event::Updated(patch) => {
                self.profile.iter_mut().for_each(|profile| profile.apply(patch));
            }
            Event::Unregistered => (self.registered, self.left_at) = (false, Some(at)),
            Event::TimedOut(_) => {
                let limit = self.silence_limit_ms().unwrap_or(u64::MAX);
                signs.not_early(Period::Silence(id, limit), self.since, at, faults);
                (self.silent, self.timed_out_at) = (true, Some(at));
            }
            Event::StatusChanged(changed) => {
                let heard_again = self.status == Some((Status::Inactive, StatusReason::Timeout));
                if changed.reason.is_quarantine() {
                    self.must_deserve(id, changed.reason, at, signs, faults);
                }
                if changed.to == Status::Active {
                    self.silent = false;
                    if !heard_again {
                        self.rows = Rows::default();
                    }
                }
                self.status = Some((changed.to, changed.reason));
            }
        }
        let slots = self.config().max_concurrent_steps;
        if self.slots.last().is_none_or(|(_, before)| *before != slots) {
            self.slots.push((at, slots));
        }
    }

    /// It may be put out of service for what was true a moment ago, but not for what was before it was put
    /// back into service.
    fn must_deserve(
        &self,
        id: &AgentId,
        why: StatusReason,
        at: Timestamp,
        signs: &Signs,
        faults: &mut Faults,
    ) {
        let kind = match why {
            StatusReason::QuarantinedLosses => 0,
            StatusReason::QuarantinedUntaken => 1,
            _ => 2,
        };
        let (since, until) = self.rows.enough[kind];
        if since.is_none() && !until.is_some_and(|until| signs.crosses(until, at)) {
            faults.push(format!("quarantine: {id} is {why:?} by {:?}", self.rows));
        }
    }

    /// A lease of it has ended.
    pub(crate) fn note(&mut self, slot: &Slot, how: &How, at: Timestamp) {
        if slot.incarnation == self.incarnation {
            self.rows.add(slot, how, at);
        }
    }

    /// Since when it deserves to be put out of service, if it is in service.
    pub(crate) fn condemned_since(&self) -> Option<Timestamp> {
        let serves = matches!(
            self.status,
            Some((Status::Active, _) | (Status::Inactive, StatusReason::Timeout)) if self.registered
        );
        self.rows.enough.iter().filter_map(|(since, _)| *since).min().filter(|_| serves)
    }

    /// Since when it cannot carry out what was reserved for an incarnation of it.
    pub(crate) fn lost_since(&self, incarnation: u64) -> Option<Timestamp> {
        if !self.registered {
            self.left_at
        } else if incarnation != self.incarnation {
            Some(self.joined_at)
        } else {
            self.timed_out_at.filter(|_| self.silent)
        }
    }

    /// A lease ended for this reason: the agent must have given it.
    pub(crate) fn must_be_lost(&self, slot: &Slot, why: LeaseEnd, signs: &Signs, faults: &mut Faults) {
        let after = |moment: Option<Timestamp>| moment.is_some_and(|at| signs.crosses(at, slot.reserved_at));
        let right = match why {
            LeaseEnd::AgentTimeout => after(self.timed_out_at),
            LeaseEnd::AgentUnregistered => after(self.left_at),
            LeaseEnd::NewIncarnation => slot.incarnation < self.incarnation,
            _ => true,
        };
        if !right {
            faults.push(format!("holders: {slot:?} is lost by {why:?}, and {self:?}"));
        }
    }

    /// A step is reserved for it, so that it has so many of its incarnation now: it was able to take it when
    /// that was decided.
    pub(crate) fn must_take(&self, slot: &Slot, taken: usize, signs: &Signs, faults: &mut Faults) {
        let at = slot.reserved_at;
        let crossed = |moment| signs.crosses(moment, at);
        let current = slot.incarnation == self.incarnation
            || slot.incarnation < self.incarnation && crossed(self.joined_at);
        let serves = self.registered || self.left_at.is_some_and(crossed);
        let active = self.status.is_some_and(|(status, _)| status == Status::Active);
        if !current || !serves || !(active || crossed(self.changed_at)) {
            faults.push(format!("slots: {slot:?} is for {self:?}"));
        }
        let most = self
            .slots
            .iter()
            .enumerate()
            .filter(|(index, _)| self.slots.get(index + 1).is_none_or(|(until, _)| crossed(*until)));
        let most = most.map(|(_, (_, slots))| *slots).max().unwrap_or(0) as usize;
        if slot.incarnation == self.incarnation && taken > most {
            faults.push(format!("slots: {} is number {taken} of {most} of {}", slot.lease, slot.agent));
        }
    }

    /// Whether it could have taken such a step all the time that a command may be under way.
    pub(crate) fn was_able(&self, step: &StepDefinition, at: Timestamp, signs: &Signs) -> bool {
        let active = self.status.is_some_and(|(status, _)| status == Status::Active);
        let has = |needed: &String| self.profile.iter().any(|profile| profile.capabilities.contains(needed));
        let stays = !signs.crosses(self.changed_at, at);
        self.registered && active && stays && step.requires.capabilities.iter().all(has)
    }
}
