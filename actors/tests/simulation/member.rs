//! One agent's slots by its events alone.

use std::collections::BTreeMap;

use domain::agent::event::Config;
use domain::agent::{Event, health};
use domain::{AgentId, LeaseId, Timestamp};

use crate::course::Faults;
use crate::signs::{Period, Signs};

#[derive(Debug, Default)]
pub(crate) struct Member {
    config: Config,
    pub(crate) leases: BTreeMap<LeaseId, Timestamp>,
    pub(crate) registered: bool,
    /// Since when it is listened for.
    pub(crate) since: Timestamp,
}

impl Member {
    /// Silence after which it counts as gone.
    pub(crate) fn silence_limit_ms(&self) -> Option<u64> {
        health::silence_limit_ms(&self.config)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn take(
        &mut self,
        id: &AgentId,
        event: &Event,
        at: Timestamp,
        signs: &Signs,
        faults: &mut Faults,
    ) {
        match event {
            Event::Registered(registered) | Event::Reregistered(registered) => {
                self.config = registered.profile.config.clone();
                self.registered = true;
                // A later registration is a sign of life like any other once it is answered.
                if matches!(event, Event::Registered(_)) {
                    self.since = at;
                }
            }
            Event::Updated(patch) => {
                self.config = patch.config.clone().unwrap_or_else(|| self.config.clone());
            }
            Event::Unregistered => self.registered = false,
            Event::Assigned(assigned) => {
                if self.leases.insert(assigned.lease_id.clone(), at).is_some() {
                    faults.push(format!("slots: {} is assigned twice", assigned.lease_id));
                }
                let (taken, slots) = (self.leases.len(), self.config.max_concurrent_steps as usize);
                if taken > slots || !self.registered {
                    faults.push(format!("slots: {} is number {taken} of {slots}", assigned.lease_id));
                }
            }
            Event::Released(released) => {
                if self.leases.remove(&released.lease_id).is_none() {
                    faults.push(format!("slots: {} is released and was not taken", released.lease_id));
                }
            }
            Event::TimedOut(_) => {
                let limit = self.silence_limit_ms().unwrap_or(u64::MAX);
                signs.not_early(Period::Silence(id, limit), self.since, at, faults);
            }
            Event::StatusChanged(_) | Event::Seen(_) => {}
        }
    }
}
