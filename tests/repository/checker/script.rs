//! Logs that are written event by event, as the API would show them.

use serde_json::{Value, json};

use super::support::checker::{Findings, Rule, check};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A log that is written event by event.
pub(crate) struct Script(pub(crate) Vec<Value>);

impl Script {
    /// Two agents with a slot each, and a started operation of these steps.
    pub(crate) fn of(workflow: Value, more: Value) -> Self {
        let mut script = Self(Vec::new());
        for agent in ["a", "b"] {
            script.register(agent, 1);
        }
        let mut definition = json!({"workflow": workflow, "maxParallel": null});
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        script.tell("operation.created", definition);
        script.tell("operation.started", json!({}));
        script
    }

    /// Step 1, then step 2.
    pub(crate) fn chain() -> Self {
        Self::of(json!([step(1, &[]), step(2, &[1])]), json!({}))
    }

    /// Steps 1 and 2 beside each other.
    pub(crate) fn pair() -> Self {
        Self::of(json!([step(1, &[]), step(2, &[])]), json!({}))
    }

    pub(crate) fn add(&mut self, subject: &str, kind: &str, data: Value) -> &mut Self {
        let revision = 1 + self.0.iter().filter(|event| event["subject"] == subject).count();
        let sequence = 10 + self.0.len();
        let time = format!("2026-01-01T00:00:{sequence:02}.000Z");
        self.0.push(json!({"type": kind, "subject": subject, "sequence": sequence.to_string(),
            "revision": revision.to_string(), "time": time, "data": data}));
        self
    }

    pub(crate) fn agent(&mut self, agent: &str, kind: &str, data: Value) -> &mut Self {
        self.add(&format!("agent/{agent}"), kind, data)
    }

    pub(crate) fn tell(&mut self, kind: &str, data: Value) -> &mut Self {
        self.add(&format!("operation/op_{ID}"), kind, data)
    }

    /// An agent with one slot registers for the so-manieth time.
    pub(crate) fn register(&mut self, agent: &str, incarnation: u64) -> &mut Self {
        let kind = if incarnation == 1 { "agent.registered" } else { "agent.reregistered" };
        let profile = json!({"config": {"maxConcurrentSteps": 1}});
        self.agent(agent, kind, json!({"profile": profile, "incarnation": incarnation}))
    }

    /// To the first incarnation.
    pub(crate) fn offer(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.offer_to(agent, 1, step, grant, attempt)
    }

    pub(crate) fn offer_to(
        &mut self,
        agent: &str,
        incarnation: u64,
        step: u64,
        grant: u64,
        attempt: u64,
    ) -> &mut Self {
        let body = json!({"step": step, "grant": grant, "leaseId": lease(step, grant), "agent": agent,
            "incarnation": incarnation, "attempt": attempt});
        self.tell("step.reserved", body)
    }

    pub(crate) fn expire(&mut self, agent: &str, step: u64, grant: u64, reason: &str) -> &mut Self {
        let body = json!({"step": step, "grant": grant, "agent": agent, "reason": reason});
        self.tell("step.offer_expired", body)
    }

    pub(crate) fn of_grant(&mut self, kind: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.tell(kind, json!({"step": step, "grant": grant, "attempt": attempt}))
    }

    pub(crate) fn begin(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.offer(agent, step, grant, attempt).of_grant("step.started", step, grant, attempt)
    }

    pub(crate) fn complete(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        let body = json!({"step": step, "grant": grant, "attempt": attempt, "agent": agent});
        self.tell("step.completed", body)
    }

    /// By a worker that reports at the end for the first time: the start travels with the report.
    pub(crate) fn complete_at_once(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.of_grant("step.started", step, grant, attempt).complete(agent, step, grant, attempt).at_once()
    }

    pub(crate) fn fail(&mut self, step: u64, grant: u64, attempt: u64, is_final: bool) -> &mut Self {
        self.tell("step.failed", json!({"step": step, "grant": grant, "attempt": attempt, "final": is_final}))
    }

    pub(crate) fn retry(&mut self, step: u64, attempt: u64) -> &mut Self {
        self.tell("step.retry_scheduled", json!({"step": step, "attempt": attempt}))
    }

    pub(crate) fn progress(&mut self, percent: u64) -> &mut Self {
        self.tell("operation.progressed", json!({"progress": percent}))
    }

    pub(crate) fn end(&mut self, kind: &str) -> &mut Self {
        self.tell(kind, json!({"reason": "step_failed"}))
    }

    pub(crate) fn cancel(&mut self, steps: &[u64]) -> &mut Self {
        self.tell("steps.cancelled", json!({"steps": steps, "closing": []}))
    }

    /// The same while an agent has this lease.
    pub(crate) fn cut(&mut self, steps: &[u64], step: u64, grant: u64) -> &mut Self {
        self.tell("steps.cancelled", json!({"steps": steps, "closing": [lease(step, grant)]}))
    }

    pub(crate) fn close(&mut self, step: u64, grant: u64) -> &mut Self {
        self.tell("lease.closed", json!({"leaseId": lease(step, grant), "why": "reported"}))
    }

    pub(crate) fn skip(&mut self, steps: &[u64], reason: &str) -> &mut Self {
        self.tell("steps.skipped", json!({"steps": steps, "reason": reason}))
    }

    /// A step's whole life without a fault.
    pub(crate) fn perform(&mut self, step: u64) -> &mut Self {
        self.begin("a", step, 1, 1).complete("a", step, 1, 1)
    }

    /// A person's word, and in the same append what follows from it.
    pub(crate) fn word(&mut self, kind: &str, step: u64, resolution: &str) -> &mut Self {
        self.tell(kind, json!({"step": step, "resolution": resolution}))
    }

    /// The last event is of the same append as the one before.
    pub(crate) fn at_once(&mut self) -> &mut Self {
        let time = self.0[self.0.len() - 2]["time"].clone();
        self.but("time", time)
    }

    /// The same as an agent never heard of it.
    pub(crate) fn answered(&mut self, step: u64, grant: u64, attempt: u64) -> &mut Self {
        let body = json!({"step": step, "grant": grant, "attempt": attempt, "agent": null});
        self.tell("step.completed", body).at_once()
    }

    pub(crate) fn failed_with(&mut self, step: u64, grant: u64, attempt: u64, code: &str) -> &mut Self {
        self.fail(step, grant, attempt, true);
        self.0.last_mut().unwrap()["data"]["error"] = json!({"code": code});
        self
    }

    /// Lost, which of a write nobody can make up for.
    pub(crate) fn lose(&mut self, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.of_grant("step.lease_lost", step, grant, attempt)
    }

    pub(crate) fn attention(&mut self, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.of_grant("step.needs_attention", step, grant, attempt)
    }

    pub(crate) fn release(&mut self, agent: &str, grant: u64, second: u64) -> &mut Self {
        let until = format!("2026-01-01T00:00:{second:02}.000Z");
        let body = json!({"step": 1, "grant": grant, "agent": agent, "reason": "rate_limited",
            "heldUntil": until});
        self.tell("step.released", body)
    }

    pub(crate) fn park(&mut self, lane: &str, second: u64) -> &mut Self {
        let until = format!("2026-01-01T00:00:{second:02}.000Z");
        self.add(&format!("lane/{lane}"), "lane.parked", json!({"until": until}))
    }

    /// The last event says something else.
    pub(crate) fn but(&mut self, name: &str, value: Value) -> &mut Self {
        self.0.last_mut().unwrap()[name] = value;
        self
    }

    pub(crate) fn findings(&self) -> Findings {
        check(&self.0)
    }

    /// Exactly this rule was broken.
    #[track_caller]
    pub(crate) fn breaks(&self, rule: Rule) {
        let findings = self.findings();
        let broken: Vec<Rule> = findings.faults.iter().map(|fault| fault.rule).collect();
        assert!(!broken.is_empty() && broken.iter().all(|one| *one == rule), "{:?}", findings.faults);
    }
}

pub(crate) fn lease(step: u64, grant: u64) -> String {
    format!("ls_{ID}_{step}_{grant}")
}

pub(crate) fn step(number: u64, dependencies: &[u64]) -> Value {
    json!({"step": number, "dependencies": dependencies, "continueOnError": false,
        "retry": {"maxAttempts": 2}})
}

pub(crate) fn human(number: u64, dependencies: &[u64]) -> Value {
    let mut step = step(number, dependencies);
    step["platform"] = json!("human");
    step
}

pub(crate) fn write(number: u64) -> Value {
    let mut step = step(number, &[]);
    step["effect"] = json!("write");
    step
}

/// A person's step, then an agent's.
pub(crate) fn asking() -> Script {
    Script::of(json!([human(1, &[]), step(2, &[1])]), json!({}))
}

/// A write of which nobody knows whether it happened.
pub(crate) fn unknown() -> Script {
    let mut script = Script::of(json!([write(1), step(2, &[1])]), json!({}));
    script.begin("a", 1, 1, 1).lose(1, 1, 1).attention(1, 1, 1);
    script
}

pub(crate) fn excused(number: u64) -> Value {
    json!({"step": number, "dependencies": [], "continueOnError": true, "retry": {"maxAttempts": 1}})
}
