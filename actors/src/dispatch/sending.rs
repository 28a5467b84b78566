//! The life of a task: sent once, answered, and over when the views have reached what its answer rests on.
//! Bounds how many are under way; never looks at what a task says.

use std::collections::BTreeSet;

use domain::operation::StepWish;
use domain::operation::event::LeaseEnd;
use domain::{AgentId, LeaseId, Timestamp};

use super::task::{Answered, Origin, Outcome, Subject, Task};
use super::{AGAIN_MS, Action, Dispatch, DispatchContext};
use crate::effects::{self, Debts, Owed};
use crate::projections::Changes;

/// Tasks that are under way at once, grants included; more wait in line.
pub(super) const UNDER_WAY_MAX: usize = 1_024;

/// A task that is not over.
#[derive(Debug)]
pub(super) struct Sent {
    origin: Origin,
}

/// The origin of what is found in the views.
pub(super) const fn debt() -> Origin {
    Origin::Debt
}

impl Task {
    /// What pays a debt.
    pub(super) fn of(owed: Owed) -> Self {
        match owed {
            Owed::Lose(lease, reason) => Self::Lease(lease, StepWish::LoseLease { reason }),
            Owed::Close(lease, why) => Self::Lease(lease, StepWish::CloseLease { why }),
            Owed::Quarantine { agent, reason, revision } => Self::Quarantine { agent, reason, revision },
        }
    }

    /// Takes back what was perhaps reserved. It stands after the reservation in the operation's queue, so its
    /// answer says whether there was one.
    fn withdrawal(lease: LeaseId) -> Self {
        Self::Lease(lease, StepWish::ExpireOffer { reason: LeaseEnd::NotHeard })
    }
}

impl Dispatch {
    /// Sends a task, unless one about the same is not over yet.
    pub(super) fn send(&mut self, task: Task, origin: Origin, now: Timestamp) {
        let subject = task.subject();
        if self.sent.contains_key(&subject) {
            // A moment that came too early for another task comes again.
            if let Origin::Wake(wake) = origin {
                self.timers.set_no_later(wake, now.plus_ms(AGAIN_MS));
            }
            return;
        }
        self.sent.insert(subject, Sent { origin });
        self.put(task);
    }

    fn put(&mut self, task: Task) {
        if self.under_way < UNDER_WAY_MAX {
            self.under_way += 1;
            self.actions.push(Action::Send(Box::new(task)));
        } else {
            self.line.push_back(task);
        }
    }

    /// Takes the answer to a task.
    pub(super) fn answered(&mut self, answered: Answered, context: &DispatchContext<'_>) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(next) = self.line.pop_front() {
            self.put(next);
        }
        let Answered { subject, outcome, rests_on, granted } = answered;
        let Some(Sent { origin }) = self.sent.get(&subject) else { return };
        match (origin.clone(), outcome) {
            (Origin::Grant(claim, agent), outcome) => {
                self.grant_answered(claim, granted, context.now);
                match (outcome, &subject) {
                    (Outcome::Unknown, Subject::Lease(lease)) => {
                        let task = Task::withdrawal(lease.clone());
                        self.sent.insert(subject, Sent { origin: Origin::Withdrawal(agent) });
                        self.put(task);
                    }
                    // The step is offered again, but not at once: it would not be taken again.
                    (Outcome::NotTaken, _) => self.again.set(subject, context.now.plus_ms(AGAIN_MS)),
                    _ => _ = self.settling.insert((rests_on, subject), outcome),
                }
            }
            (_, Outcome::Done | Outcome::Refused) => _ = self.settling.insert((rests_on, subject), outcome),
            (Origin::Wake(wake), Outcome::NotTaken | Outcome::Unknown) => {
                self.sent.remove(&subject);
                self.timers.set_no_later(wake, context.now.plus_ms(AGAIN_MS));
            }
            (Origin::Withdrawal(_) | Origin::Debt, Outcome::NotTaken | Outcome::Unknown) => {
                self.again.set(subject, context.now.plus_ms(AGAIN_MS));
            }
        }
    }

    /// Ends the tasks whose answers rest on what the views show by now.
    pub(super) fn finish_reached(&mut self, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        while let Some(((rests_on, _), _)) = self.settling.first_key_value()
            && *rests_on <= context.position
            && let Some(((_, subject), outcome)) = self.settling.pop_first()
        {
            self.finish(subject, outcome, context, able);
        }
    }

    fn finish(
        &mut self,
        subject: Subject,
        outcome: Outcome,
        context: &DispatchContext<'_>,
        able: &mut BTreeSet<AgentId>,
    ) {
        match self.sent.remove(&subject).map(|sent| sent.origin) {
            // A debt that was refused is looked at again, but not at once: it would be refused again.
            Some(Origin::Debt) if outcome == Outcome::Refused => {
                self.sent.insert(subject.clone(), Sent { origin: Origin::Debt });
                self.again.set(subject, context.now.plus_ms(AGAIN_MS));
                return;
            }
            Some(Origin::Grant(_, agent) | Origin::Withdrawal(agent)) => {
                if let Subject::Lease(lease) = &subject {
                    self.in_flight.remove(lease);
                }
                able.insert(agent);
            }
            Some(Origin::Wake(_) | Origin::Debt) | None => {}
        }
        self.look_again(&subject, context, able);
    }

    /// Sends again what is still owed, at its moment.
    pub(super) fn send_again(&mut self, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        while let Some(subject) = self.again.take_due(context.now) {
            let origin = self.sent.get(&subject).map(|sent| sent.origin.clone());
            match (origin, &subject) {
                (Some(Origin::Grant(..)), _) => self.finish(subject, Outcome::NotTaken, context, able),
                (Some(Origin::Withdrawal(_)), Subject::Lease(lease)) => {
                    self.put(Task::withdrawal(lease.clone()));
                }
                _ => {
                    self.sent.remove(&subject);
                    self.look_again(&subject, context, able);
                }
            }
        }
    }

    /// Looks at what a task was about: whatever became owed while it was not over was not sent.
    fn look_again(&mut self, subject: &Subject, context: &DispatchContext<'_>, able: &mut BTreeSet<AgentId>) {
        match subject {
            Subject::Lease(lease) => self.look_at_lease(lease, context),
            Subject::Quarantine(agent) => {
                let changes = Changes { agents: BTreeSet::from([agent.clone()]), ..Changes::default() };
                self.look_at(&changes, context, able);
            }
            // These are owed by moments alone, and a moment that came too early comes again.
            Subject::Approval(..) | Subject::Deadline(_) | Subject::Silence(_) => {}
        }
    }

    /// Looks again at the step of a lease, and at what its holder is owed, and not at the rest of its
    /// operation: that may have thousands of leases.
    fn look_at_lease(&mut self, lease: &LeaseId, context: &DispatchContext<'_>) {
        let run = context.views.operations.get(&lease.operation).and_then(|row| row.run.as_ref());
        let moved = run.and_then(|run| run.skeleton.position(lease.step));
        let scene = context.scene(&self.in_flight, &self.settings);
        self.ready.look(scene, &lease.operation, moved);
        // Its moments were set when the views came to show it.
        let Debts { owed, .. } = effects::of_lease(context.views, lease, &self.settings.periods);
        self.pay(owed, context.now);
    }
}
