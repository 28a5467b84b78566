//! Who would be chosen at this moment, for whoever only wants to know. Reserves nothing and asks nobody.

use domain::agent::selection::{Applicant, Candidates, Need, select};

use crate::core::Core;

impl Core {
    /// Ranks all agents for a need as if each of them waited for work: who does not ask for any now may
    /// ask in a moment.
    #[must_use]
    pub fn rank(&self, need: &Need<'_>) -> Candidates {
        let now = self.around.clock.now();
        let views = self.projected.views.read();
        let applicants = views.agents.iter().map(|(id, row)| {
            let agent = &row.agent;
            let (freshness, reported) = self.presence.freshness(id, row, now);
            let parked = views.lanes.holds_back(id, agent, now);
            let (record, idle_since) = (&row.work.record, row.work.idle_since);
            let free_slots = views.free_slots(id, agent);
            Applicant { id, agent, record, idle_since, free_slots, freshness, reported, parked, waits: true }
        });
        select(need, applicants, self.weights, now)
    }
}
