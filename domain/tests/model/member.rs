//! A deliberately simple model of an agent: its life and its slots.

use std::collections::BTreeMap;

use super::course::Answer;

/// What can be asked of an agent, apart from its slots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Register,
    Unregister,
    Drain,
    Activate,
    /// It has been silent for too long.
    TimeOut,
}

/// A lease by its step's number and its grant.
pub(crate) type Lease = (u32, u64);

/// An agent.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) slots: usize,
    pub(crate) life: u64,
    pub(crate) registered: bool,
    pub(crate) active: bool,
    timed_out: bool,
    /// Leases that take a slot, and in which life each was taken.
    pub(crate) leases: BTreeMap<Lease, u64>,
}

impl Member {
    pub(crate) fn of(slots: usize) -> Self {
        let leases = BTreeMap::new();
        Self { slots, life: 1, registered: true, active: true, timed_out: false, leases }
    }

    /// Whether it can no longer carry out a lease that it has.
    pub(crate) fn has_lost(&self, lease: Lease) -> bool {
        !self.registered || self.timed_out || self.leases.get(&lease).is_some_and(|life| *life != self.life)
    }

    pub(crate) fn wish(&mut self, wish: Wish) -> Answer {
        match wish {
            Wish::Register => {
                self.life += 1;
                (self.registered, self.active, self.timed_out) = (true, true, false);
            }
            Wish::Unregister if !self.registered => return Answer::Nothing,
            _ if !self.registered => return Answer::Refused,
            Wish::Unregister => (self.registered, self.active, self.timed_out) = (false, false, false),
            Wish::Activate if self.active => return Answer::Nothing,
            Wish::Activate => (self.active, self.timed_out) = (true, false),
            Wish::Drain if !self.active => return Answer::Nothing,
            Wish::Drain => self.active = false,
            Wish::TimeOut if self.timed_out || (!self.active && self.leases.is_empty()) => {
                return Answer::Nothing;
            }
            Wish::TimeOut => (self.active, self.timed_out) = (false, true),
        }
        Answer::Changes
    }

    pub(crate) fn reserve(&mut self, lease: Lease) -> Answer {
        if !self.registered {
            return Answer::Refused;
        }
        if self.leases.contains_key(&lease) {
            return Answer::Nothing;
        }
        if !self.active || self.leases.len() >= self.slots {
            return Answer::Refused;
        }
        self.leases.insert(lease, self.life);
        Answer::Changes
    }

    pub(crate) fn release(&mut self, lease: Lease) -> Answer {
        if self.leases.remove(&lease).is_some() { Answer::Changes } else { Answer::Nothing }
    }
}
