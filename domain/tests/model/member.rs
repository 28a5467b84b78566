//! A deliberately simple model of an agent: its life, its slots, and when it is put out of service.

use std::collections::BTreeMap;

use domain::Timestamp;
use domain::agent::event::Outcome;

use super::course::Answer;

/// What can be asked of an agent, apart from its slots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Register,
    Unregister,
    /// It takes no more work for now, by its own wish.
    Rest,
    /// It takes work again, by its own wish.
    Activate,
    /// Somebody else wants it to take no more work.
    Drain,
    /// Somebody else wants it to take work.
    Undrain,
    /// It has been silent for too long.
    TimeOut,
}

/// A lease by its step's number and its grant.
pub(crate) type Lease = (u32, u64);

/// Whether an agent takes work, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Resting,
    Drained,
    TimedOut,
    Quarantined,
}

/// An end that counts for or against an agent.
#[derive(Clone, Copy, Debug)]
struct End {
    outcome: Outcome,
    taken: Timestamp,
    at: Timestamp,
}

/// An agent.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) slots: usize,
    pub(crate) life: u64,
    pub(crate) registered: bool,
    pub(crate) standing: Standing,
    pub(crate) silent: bool,
    /// Leases that take a slot, in which life each was taken, and when.
    pub(crate) leases: BTreeMap<Lease, (u64, Timestamp)>,
    /// What its work came to since it began anew: by registration, or by being let work again.
    ends: Vec<End>,
}

impl Member {
    pub(crate) fn of(slots: usize) -> Self {
        Self {
            slots,
            life: 1,
            registered: true,
            standing: Standing::Active,
            silent: false,
            leases: BTreeMap::new(),
            ends: Vec::new(),
        }
    }

    /// Why it can no longer carry out a lease that it has.
    pub(crate) fn loss(&self, lease: Lease) -> Option<&'static str> {
        if !self.registered {
            Some("agent_unregistered")
        } else if self.leases.get(&lease).is_some_and(|(life, _)| *life != self.life) {
            Some("new_incarnation")
        } else {
            self.silent.then_some("agent_timeout")
        }
    }

    pub(crate) fn wish(&mut self, wish: Wish) -> Answer {
        use Standing::{Active, Drained, Resting, TimedOut};
        let standing = self.standing;
        match wish {
            Wish::Register => {
                self.life += 1;
                let stays = self.registered && standing == Drained;
                self.begin_anew(if stays { Drained } else { Active });
                self.registered = true;
            }
            Wish::Unregister if !self.registered => return Answer::Nothing,
            _ if !self.registered => return Answer::Refused,
            Wish::Unregister => self.registered = false,
            Wish::Activate if matches!(standing, Active | Drained) => return Answer::Nothing,
            Wish::Undrain if standing == Active => return Answer::Nothing,
            Wish::Activate | Wish::Undrain if standing == TimedOut => {
                (self.standing, self.silent) = (Active, false);
            }
            Wish::Activate | Wish::Undrain => self.begin_anew(Active),
            Wish::Rest if matches!(standing, Resting | Drained | TimedOut) => return Answer::Nothing,
            Wish::Rest => self.standing = Resting,
            Wish::Drain if standing == Drained => return Answer::Nothing,
            Wish::Drain => self.standing = Drained,
            Wish::TimeOut if self.silent || (standing != Active && self.leases.is_empty()) => {
                return Answer::Nothing;
            }
            Wish::TimeOut => {
                self.silent = true;
                self.standing = if standing == Active { TimedOut } else { standing };
            }
        }
        Answer::Changes
    }

    fn begin_anew(&mut self, standing: Standing) {
        (self.standing, self.silent) = (standing, false);
        self.ends.clear();
    }

    pub(crate) fn reserve(&mut self, lease: Lease, now: Timestamp) -> Answer {
        if !self.registered {
            return Answer::Refused;
        }
        if self.leases.contains_key(&lease) {
            return Answer::Nothing;
        }
        if self.standing != Standing::Active || self.leases.len() >= self.slots {
            return Answer::Refused;
        }
        self.leases.insert(lease, (self.life, now));
        Answer::Changes
    }

    pub(crate) fn release(&mut self, lease: Lease, outcome: Outcome, at: Timestamp) -> Answer {
        let Some((life, taken)) = self.leases.remove(&lease) else { return Answer::Nothing };
        if life == self.life && self.registered {
            self.ends.push(End { outcome, taken, at });
        }
        let works = matches!(self.standing, Standing::Active | Standing::TimedOut) && self.registered;
        if works && (self.lost() >= 3 || self.untaken() >= 5) {
            self.standing = Standing::Quarantined;
        }
        Answer::Changes
    }

    /// Leases lost in a row: nothing was performed between them.
    pub(crate) fn lost(&self) -> usize {
        let performed = |end: &End| matches!(end.outcome, Outcome::Completed | Outcome::Failed);
        in_a_row(&self.ends, Outcome::Lost, performed)
    }

    /// Offers not taken in a row: none was taken between them.
    pub(crate) fn untaken(&self) -> usize {
        let taken = |end: &End| matches!(end.outcome, Outcome::Completed | Outcome::Failed | Outcome::Lost);
        in_a_row(&self.ends, Outcome::Untaken, taken)
    }
}

/// How often it ended so since it last ended in a way that breaks the row. What was under way while the
/// one before was not over yet counts with it.
fn in_a_row(ends: &[End], outcome: Outcome, breaks: impl Fn(&End) -> bool) -> usize {
    let begin = ends.iter().rposition(breaks).map_or(0, |at| at + 1);
    let mut counted: Vec<End> = Vec::new();
    for end in ends[begin..].iter().filter(|end| end.outcome == outcome) {
        if counted.last().is_none_or(|before| end.taken >= before.at) {
            counted.push(*end);
        }
    }
    counted.len()
}
