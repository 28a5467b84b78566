//! A deliberately simple model of an agent: its life, what its work came to, and when it is put out of
//! service.

use domain::Timestamp;

use super::course::Answer;
use super::step::{End, Grant, Why};

/// What can be asked of an agent.
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
    /// Its work came to nothing too often in a row.
    Quarantine,
}

/// Whether an agent takes work, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Resting,
    Drained,
    TimedOut,
    Quarantined,
}

/// A lease that ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    how: End,
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
    /// What its work came to since it began anew: by registration, or by being let work again.
    ends: Vec<Ended>,
    /// What its work came to in all its lives.
    results: Vec<End>,
}

impl Member {
    pub(crate) fn of(slots: usize) -> Self {
        Self {
            slots,
            life: 1,
            registered: true,
            standing: Standing::Active,
            silent: false,
            ends: Vec::new(),
            results: Vec::new(),
        }
    }

    /// Why it can no longer carry out what a life of it claimed.
    pub(crate) fn loss(&self, life: u64) -> Option<Why> {
        if !self.registered {
            Some(Why::Unregistered)
        } else if life != self.life {
            Some(Why::Anew)
        } else {
            self.silent.then_some(Why::Silent)
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
            Wish::TimeOut if self.silent => return Answer::Nothing,
            Wish::TimeOut => {
                self.silent = true;
                self.standing = if standing == Active { TimedOut } else { standing };
            }
            Wish::Quarantine if !matches!(standing, Active | TimedOut) => return Answer::Nothing,
            Wish::Quarantine => self.standing = Standing::Quarantined,
        }
        Answer::Changes
    }

    fn begin_anew(&mut self, standing: Standing) {
        (self.standing, self.silent) = (standing, false);
        self.ends.clear();
    }

    /// A lease of it has ended.
    pub(crate) fn learn(&mut self, grant: &Grant, how: End, at: Timestamp) {
        if matches!(how, End::Completed { .. } | End::Failed | End::Excused | End::Lost) {
            self.results.push(how);
        }
        // What an earlier life had says nothing of this one.
        if grant.life == self.life {
            self.ends.push(Ended { how, taken: grant.at, at });
        }
    }

    /// Steps completed in all, and steps failed or lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let completed = self.durations(self.results.len()).len();
        (completed as u64, (self.results.len() - completed) as u64)
    }

    /// How long half of those of the last fifty results that completed took at most.
    pub(crate) fn half_ms(&self) -> Option<u64> {
        let mut durations = self.durations(50);
        durations.sort_unstable();
        durations.get(durations.len().div_ceil(2).checked_sub(1)?).copied()
    }

    fn durations(&self, last: usize) -> Vec<u64> {
        let duration = |end: &End| match end {
            End::Completed { ms } => Some(*ms),
            _ => None,
        };
        self.results.iter().rev().take(last).filter_map(duration).collect()
    }

    /// Whether it should be put out of service.
    pub(crate) fn is_fruitless(&self) -> bool {
        self.lost() >= 3 || self.untaken() >= 5 || self.failed() >= 5
    }

    /// Operations in a row of which it failed a step. There is but one.
    pub(crate) fn failed(&self) -> usize {
        let completed = self.ends.iter().rposition(|end| matches!(end.how, End::Completed { .. }));
        let since = completed.map_or(0, |at| at + 1);
        usize::from(self.ends[since..].iter().any(|end| end.how == End::Failed))
    }

    /// Leases lost in a row: nothing was performed between them.
    pub(crate) fn lost(&self) -> usize {
        in_a_row(&self.ends, End::Lost, is_performed)
    }

    /// Offers not taken in a row: none was taken between them.
    pub(crate) fn untaken(&self) -> usize {
        in_a_row(&self.ends, End::Untaken, |how| is_performed(how) || how == End::Lost)
    }
}

fn is_performed(how: End) -> bool {
    matches!(how, End::Completed { .. } | End::Failed | End::Excused)
}

/// How often it ended so since it last ended in a way that breaks the row. What was under way while the
/// one before was not over yet counts with it.
fn in_a_row(ends: &[Ended], how: End, breaks: impl Fn(End) -> bool) -> usize {
    let begin = ends.iter().rposition(|end| breaks(end.how)).map_or(0, |at| at + 1);
    let mut counted: Vec<Ended> = Vec::new();
    for end in ends[begin..].iter().filter(|end| end.how == how) {
        if counted.last().is_none_or(|before| end.taken >= before.at) {
            counted.push(*end);
        }
    }
    counted.len()
}
