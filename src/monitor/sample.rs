//! Owns what one sample of the server's load is: figures of this moment and since the sample before. It
//! must never store one.

use std::time::Duration;

use domain::operation::definition::Priority;
use domain::operation::step::Status;
use serde_json::{Map, Value, json};

use crate::http::Api;

/// One sample.
pub struct Sample {
    /// Steps that an agent could take now.
    pub ready_steps: usize,
    /// See [`crate::http::latencies::Answered::p95_us`].
    pub p95_us: Option<u64>,
    requests_per_second: f64,
    operations: Vec<(&'static str, usize)>,
    agents: Vec<(&'static str, usize)>,
    position: u64,
    resident_bytes: Option<u64>,
}

impl Sample {
    /// Takes one; the one before was so long ago.
    #[must_use]
    pub fn take(api: &Api, since: Duration) -> Self {
        let answered = api.metrics.latencies.take();
        let views = api.core.projected.views.read();
        let of_status = |status| Priority::ALL.into_iter().map(|p| views.operations.count(status, p)).sum();
        Self {
            ready_steps: views.step_counts(api.core.around.clock.now()).ready,
            p95_us: answered.p95_us,
            requests_per_second: answered.count as f64 / since.as_secs_f64().max(1e-3),
            operations: Status::ALL.into_iter().map(|status| (status.name(), of_status(status))).collect(),
            agents: views.agent_counts().into(),
            position: api.core.projected.position().get(),
            resident_bytes: resident_bytes(),
        }
    }

    /// The body of `system.metrics`.
    #[must_use]
    pub fn shown(&self) -> Value {
        let counts = |counts: &[(&str, usize)]| -> Map<String, Value> {
            counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
        };
        json!({
            "operations": counts(&self.operations),
            "agents": counts(&self.agents),
            "readySteps": self.ready_steps,
            "requestsPerSecond": (self.requests_per_second * 1e3).round() / 1e3,
            "requestP95Ms": self.p95_us.map(|us| us as f64 / 1e3),
            "logPosition": self.position.to_string(),
            "residentBytes": self.resident_bytes,
        })
    }
}

/// Memory of this process; none where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
