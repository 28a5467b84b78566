//! One agent's slots: how many it has by its own events, and which are taken by those of operations.

use std::collections::BTreeMap;

use super::{Faults, Rule, Told};

#[derive(Debug, Default)]
pub(super) struct Member {
    slots: usize,
    /// The account that it shares with others.
    account: Option<String>,
    /// 0 while nothing is known of it: a history of one operation alone says nothing of agents.
    incarnation: u64,
    /// Which incarnation has which lease, held or closing.
    leases: BTreeMap<String, u64>,
}

impl Member {
    /// Every lease, of earlier incarnations too.
    pub(super) fn leases(&self) -> impl Iterator<Item = &str> {
        self.leases.keys().map(String::as_str)
    }

    /// The lane in which it works.
    pub(super) fn lane(&self, id: &str) -> String {
        self.account.as_ref().map_or(format!("worker.{id}"), |account| format!("account.{account}"))
    }

    fn configure(&mut self, config: &serde_json::Value) {
        self.slots = slots(config);
        self.account = config["labels"]["account"].as_str().map(str::to_owned);
    }

    /// A reservation may cross the registration of the next incarnation; then it takes no slot.
    pub(super) fn give(&mut self, lease: &str, incarnation: u64, faults: &mut Faults) {
        let fresh = self.leases.insert(lease.to_owned(), incarnation).is_none();
        faults.require(Rule::Slots, fresh, || format!("{lease} takes a second slot"));
        if self.incarnation == 0 {
            return;
        }
        let (current, slots) = (self.incarnation, self.slots);
        let said = || format!("{lease} is of incarnation {incarnation}, and there is none after {current}");
        faults.require(Rule::Slots, (1..=current).contains(&incarnation), said);
        let taken = self.leases.values().filter(|of| **of == current).count();
        let fits = incarnation != current || taken <= slots;
        faults.require(Rule::Slots, fits, || format!("{lease} is number {taken} of {slots} slots"));
    }

    pub(super) fn free(&mut self, lease: &str) {
        self.leases.remove(lease);
    }

    /// False when the event is not known.
    pub(super) fn take(&mut self, told: &Told<'_>, faults: &mut Faults) -> bool {
        match told.kind {
            "agent.registered" | "agent.reregistered" => {
                let (before, now) = (self.incarnation, told.number("incarnation"));
                let said = || format!("incarnation {now} follows {before}");
                faults.require(Rule::Slots, now == before + 1, said);
                self.incarnation = now;
                self.configure(&told.data["profile"]["config"]);
            }
            "agent.updated" if told.data["config"].is_object() => self.configure(&told.data["config"]),
            "agent.updated" | "agent.status_changed" | "agent.timeout" | "agent.unregistered" => {}
            _ => return false,
        }
        true
    }
}

fn slots(config: &serde_json::Value) -> usize {
    config["maxConcurrentSteps"].as_u64().and_then(|slots| usize::try_from(slots).ok()).unwrap_or_default()
}
