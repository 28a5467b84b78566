//! Laws of the leases over random histories of several operations and agents, whose grants may cross a drain,
//! a timeout, an unregistration or a new incarnation. What is compared knows only the facts.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use domain::agent;
use domain::agent::event::Status;
use domain::operation::definition::Definition;
use domain::operation::event::CloseReason;
use domain::operation::{Command, Event, StepWish};
use domain::{LeaseId, OperationId};
use proptest::prelude::*;
use support::crew::{SILENT, heard, own, profile, register, told};
use support::fleet::{Fact, Fleet};
use support::random::{Move, moves, workflows};
use support::{Flow, agent, reserve};

const NAMES: [&str; 3] = ["ada", "bob", "eve"];

/// What the facts alone say of leases.
#[derive(Debug, Default)]
struct Facts {
    /// Leases that take a slot, and whether they are closing.
    open: BTreeMap<LeaseId, bool>,
    over: BTreeSet<OperationId>,
    /// Leases that were ever granted: none is granted twice.
    granted: BTreeSet<LeaseId>,
    /// How many results each agent has: what ended while it was held.
    results: BTreeMap<String, u64>,
    agents: BTreeMap<LeaseId, String>,
}

/// The step and grant that an event ends the lease of, if that is held; and whether it is a result.
fn end(event: &Event) -> Option<(u32, u64, bool)> {
    use domain::operation::event::LeaseEnd::Revoked;
    Some(match event {
        Event::StepCompleted(end) => (end.step, end.grant, true),
        Event::StepFailed(end) => (end.step, end.grant, true),
        Event::StepNeedsAttention(end) => (end.step, end.grant, true),
        Event::StepLeaseLost(end) => (end.step, end.grant, end.reason != Revoked),
        Event::StepOfferExpired(end) => (end.step, end.grant, false),
        Event::StepReleased(end) => (end.step, end.grant, false),
        Event::StepLimited(end) => (end.step, end.grant, false),
        _ => return None,
    })
}

impl Facts {
    fn note(&mut self, id: &OperationId, event: &Event) {
        let lease = |step, grant| LeaseId { operation: id.clone(), step, grant };
        let follows = matches!(event, Event::LeaseClosed(_) | Event::StepsCancelled(_));
        assert!(!self.over.contains(id) || follows, "{event:?} after the end");
        match event {
            Event::StepReserved(new) => {
                let name = lease(new.step, new.grant);
                assert_eq!(name, new.lease_id);
                let taken = self.open.keys().any(|open| (&open.operation, open.step) == (id, new.step));
                assert!(!taken, "{event:?}: somebody has it");
                assert!(self.granted.insert(name.clone()), "{event:?} is granted twice");
                self.agents.insert(name.clone(), new.agent.to_string());
                self.open.insert(name, false);
            }
            Event::StepsCancelled(cancelled) => {
                let of = |open: &&LeaseId| open.operation == *id && cancelled.steps.contains(&open.step);
                let held: Vec<LeaseId> = self.open.keys().filter(of).cloned().collect();
                let named: BTreeSet<&LeaseId> = cancelled.closing.iter().collect();
                assert_eq!(named, held.iter().collect(), "{event:?}");
                self.open.extend(held.into_iter().map(|lease| (lease, true)));
            }
            Event::LeaseClosed(closed) => {
                assert_eq!(self.open.remove(&closed.lease_id), Some(true), "{event:?}");
            }
            Event::Completed | Event::Failed(_) | Event::Cancelled(_) => _ = self.over.insert(id.clone()),
            event => {
                let Some((step, grant, result)) = end(event) else { return };
                let name = lease(step, grant);
                assert_ne!(self.open.get(&name), Some(&true), "{event:?}: it is closing");
                if self.open.remove(&name).is_some() && result {
                    *self.results.entry(self.agents[&name].clone()).or_default() += 1;
                }
            }
        }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// To one of the operations.
    Operation(usize, Move),
    /// A step is granted to an agent as it was so many incarnations ago, whatever it is by now.
    Grant(usize, usize, usize, u64),
    Close(usize, usize),
    Agent(usize, agent::Command),
    Settle(usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let lives = vec![
        register(profile(2, &[])),
        register(profile(1, &[])),
        agent::Command::Unregister,
        own(Status::Inactive),
        own(Status::Active),
        told(Status::Inactive),
        told(Status::Active),
        heard(),
        SILENT,
    ];
    let (operation, step, who) = (|| 0..3_usize, || 0..9_usize, || 0..NAMES.len());
    prop_oneof![
        30 => (operation(), moves()).prop_map(|(of, next)| Act::Operation(of, next)),
        12 => (operation(), step(), who(), 0..3_u64)
            .prop_map(|(of, step, who, ago)| Act::Grant(of, step, who, ago)),
        4 => (operation(), step()).prop_map(|(of, step)| Act::Close(of, step)),
        4 => (who(), proptest::sample::select(lives)).prop_map(|(who, command)| Act::Agent(who, command)),
        4 => who().prop_map(Act::Settle),
    ]
}

/// The command that an act means for the operation as it stands.
fn command(fleet: &Fleet, id: &OperationId, act: &Act) -> Option<Command> {
    let run = &fleet.operation(id).run;
    let number = |at: usize| run.skeleton.steps[at % run.steps.len()].step;
    match act {
        Act::Operation(_, next) => {
            let mut flow = Flow::new();
            flow.scenario = fleet.operations[id].clone();
            next.command(&flow)
        }
        Act::Grant(_, step, who, ago) => {
            let incarnation = fleet.row(NAMES[*who]).agent.incarnation.saturating_sub(*ago).max(1);
            let (step, wish) = (number(*step), reserve(agent(NAMES[*who]), incarnation));
            Some(Command::Step { step, grant: fleet.grant(id, step) + 1, wish })
        }
        Act::Close(_, step) => {
            let (step, wish) = (number(*step), StepWish::CloseLease { why: CloseReason::GraceExpired });
            Some(Command::Step { step, grant: fleet.grant(id, step), wish })
        }
        Act::Agent(..) | Act::Settle(_) => None,
    }
}

fn play(fleet: &mut Fleet, ids: &[OperationId], act: &Act) {
    match act {
        Act::Operation(_, Move::Wait(ms)) => fleet.wait(*ms),
        Act::Operation(of, _) | Act::Grant(of, ..) | Act::Close(of, _) => {
            if let Some(command) = command(fleet, &ids[*of], act) {
                fleet.put(&ids[*of], &command).ok();
            }
        }
        Act::Agent(who, command) => drop(fleet.tell(NAMES[*who], command)),
        Act::Settle(who) => fleet.settle(NAMES[*who]),
    }
}

/// The view says of every lease what the facts say.
fn compare(fleet: &Fleet, facts: &Facts) {
    for lease in &facts.granted {
        assert_eq!(fleet.views.leases.get(lease).is_some(), facts.open.contains_key(lease), "{lease}");
        assert_eq!(fleet.views.leases.is_closing(lease), facts.open.get(lease) == Some(&true), "{lease}");
    }
    for name in NAMES {
        let record = &fleet.row(name).work.record;
        let results = facts.results.get(name).copied().unwrap_or(0);
        assert_eq!(record.completed + record.failed, results, "{name}");
    }
    for id in &facts.over {
        let closing = facts.open.keys().any(|lease| lease.operation == *id);
        let row = fleet.views.operations.find(id).unwrap();
        assert_eq!(row.run.is_some(), closing, "{id} is remembered while a lease of it is closing");
        assert_eq!(row.revision, fleet.operations[id].history.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_keeps_the_laws_of_leases(
        asked in proptest::array::uniform3(workflows()),
        acts in proptest::collection::vec(acts(), 1..120),
    ) {
        let mut fleet = Fleet::new();
        NAMES.iter().for_each(|name| fleet.hire(name, profile(2, &[])));
        let ids = asked.map(|definition| fleet.create(Definition { auto_start: true, ..definition }));
        let (mut facts, mut seen) = (Facts::default(), 0);
        for act in &acts {
            play(&mut fleet, &ids, act);
            for (fact, _) in &fleet.log[seen..] {
                if let Fact::Operation(id, event) = fact {
                    facts.note(id, event);
                }
            }
            seen = fleet.log.len();
            fleet.leases_agree();
            compare(&fleet, &facts);
        }
        fleet.views_survive();
        // Once every agent is gone and what is owed is done, no slot is taken.
        for name in NAMES {
            fleet.tell(name, &agent::Command::Unregister).unwrap();
            fleet.settle(name);
            prop_assert_eq!(fleet.views.leases.of_agent(&support::agent(name)).count(), 0);
        }
        fleet.leases_agree();
        fleet.views_survive();
    }
}
