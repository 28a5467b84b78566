//! One agent's slots, from its events alone.

use std::collections::BTreeSet;

use super::{Faults, Rule, Told};

#[derive(Debug, Default)]
pub(super) struct Member {
    slots: usize,
    /// The account that it shares with others.
    account: Option<String>,
    leases: BTreeSet<String>,
}

impl Member {
    pub(super) fn has(&self, lease: &str) -> bool {
        self.leases.contains(lease)
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &str> {
        self.leases.iter().map(String::as_str)
    }

    /// The lane in which it works.
    pub(super) fn lane(&self, id: &str) -> String {
        self.account.as_ref().map_or(format!("worker.{id}"), |account| format!("account.{account}"))
    }

    fn configure(&mut self, config: &serde_json::Value) {
        self.slots = slots(config);
        self.account = config["labels"]["account"].as_str().map(str::to_owned);
    }

    /// False when the event is not known.
    pub(super) fn take(&mut self, told: &Told<'_>, faults: &mut Faults) -> bool {
        let lease = told.text("leaseId");
        match told.kind {
            "agent.registered" | "agent.reregistered" => self.configure(&told.data["profile"]["config"]),
            "agent.updated" if told.data["config"].is_object() => self.configure(&told.data["config"]),
            "agent.assigned" => {
                let fresh = self.leases.insert(lease.to_owned());
                faults.require(Rule::Slots, fresh, || format!("{lease} is assigned twice"));
                let taken = self.leases.len();
                let said = || format!("{lease} is number {taken} of {} slots", self.slots);
                faults.require(Rule::Slots, taken <= self.slots, said);
            }
            "agent.released" => {
                let was = self.leases.remove(lease);
                faults.require(Rule::Slots, was, || format!("{lease} is released and was not assigned"));
            }
            "agent.updated"
            | "agent.status_changed"
            | "agent.timeout"
            | "agent.unregistered"
            | "agent.seen" => {}
            _ => return false,
        }
        true
    }
}

fn slots(config: &serde_json::Value) -> usize {
    config["maxConcurrentSteps"].as_u64().and_then(|slots| usize::try_from(slots).ok()).unwrap_or_default()
}
