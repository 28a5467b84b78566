//! The checker of histories can fail: one planted fault for each thing that it looks at, in a history
//! that is otherwise in order.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::checker::{Findings, Rule, check};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A log that is written event by event.
struct Script(Vec<Value>);

impl Script {
    /// Two agents with a slot each, and a started operation of these steps.
    fn of(workflow: Value, more: Value) -> Self {
        let mut script = Self(Vec::new());
        for agent in ["a", "b"] {
            script.agent(
                agent,
                "agent.registered",
                json!({"profile": {"config": {"maxConcurrentSteps": 1}}}),
            );
        }
        let mut definition = json!({"workflow": workflow, "maxParallel": null});
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        script.tell("operation.created", definition);
        script.tell("operation.started", json!({}));
        script
    }

    /// Step 1, then step 2.
    fn chain() -> Self {
        Self::of(json!([step(1, &[]), step(2, &[1])]), json!({}))
    }

    /// Steps 1 and 2 beside each other.
    fn pair() -> Self {
        Self::of(json!([step(1, &[]), step(2, &[])]), json!({}))
    }

    fn add(&mut self, subject: &str, kind: &str, data: Value) -> &mut Self {
        let revision = 1 + self.0.iter().filter(|event| event["subject"] == subject).count();
        let sequence = 10 + self.0.len();
        let time = format!("2026-01-01T00:00:{sequence:02}.000Z");
        self.0.push(json!({"type": kind, "subject": subject, "sequence": sequence.to_string(),
            "revision": revision.to_string(), "time": time, "data": data}));
        self
    }

    fn agent(&mut self, agent: &str, kind: &str, data: Value) -> &mut Self {
        self.add(&format!("agent/{agent}"), kind, data)
    }

    fn tell(&mut self, kind: &str, data: Value) -> &mut Self {
        self.add(&format!("operation/op_{ID}"), kind, data)
    }

    fn assign(&mut self, agent: &str, step: u64, grant: u64) -> &mut Self {
        self.agent(agent, "agent.assigned", json!({"leaseId": lease(step, grant)}))
    }

    fn free(&mut self, agent: &str, step: u64, grant: u64) -> &mut Self {
        self.agent(agent, "agent.released", json!({"leaseId": lease(step, grant)}))
    }

    fn reserve(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        let lease = lease(step, grant);
        let body =
            json!({"step": step, "grant": grant, "leaseId": lease, "agent": agent, "attempt": attempt});
        self.tell("step.reserved", body)
    }

    fn offer(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.assign(agent, step, grant).reserve(agent, step, grant, attempt)
    }

    fn of_grant(&mut self, kind: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.tell(kind, json!({"step": step, "grant": grant, "attempt": attempt}))
    }

    fn begin(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        self.offer(agent, step, grant, attempt).of_grant("step.started", step, grant, attempt)
    }

    fn complete(&mut self, agent: &str, step: u64, grant: u64, attempt: u64) -> &mut Self {
        let body = json!({"step": step, "grant": grant, "attempt": attempt, "agent": agent});
        self.tell("step.completed", body)
    }

    fn fail(&mut self, step: u64, grant: u64, attempt: u64, is_final: bool) -> &mut Self {
        self.tell("step.failed", json!({"step": step, "grant": grant, "attempt": attempt, "final": is_final}))
    }

    fn retry(&mut self, step: u64, attempt: u64) -> &mut Self {
        self.tell("step.retry_scheduled", json!({"step": step, "attempt": attempt}))
    }

    fn progress(&mut self, percent: u64) -> &mut Self {
        self.tell("operation.progressed", json!({"progress": percent}))
    }

    fn end(&mut self, kind: &str) -> &mut Self {
        self.tell(kind, json!({"reason": "step_failed"}))
    }

    fn cancel(&mut self, steps: &[u64]) -> &mut Self {
        self.tell("steps.cancelled", json!({"steps": steps}))
    }

    fn skip(&mut self, steps: &[u64], reason: &str) -> &mut Self {
        self.tell("steps.skipped", json!({"steps": steps, "reason": reason}))
    }

    /// A step's whole life without a fault.
    fn perform(&mut self, step: u64) -> &mut Self {
        self.begin("a", step, 1, 1).complete("a", step, 1, 1).free("a", step, 1)
    }

    /// The last event says something else.
    fn but(&mut self, name: &str, value: Value) -> &mut Self {
        self.0.last_mut().unwrap()[name] = value;
        self
    }

    fn findings(&self) -> Findings {
        check(&self.0)
    }

    /// Exactly this rule was broken.
    #[track_caller]
    fn breaks(&self, rule: Rule) {
        let findings = self.findings();
        let broken: Vec<Rule> = findings.faults.iter().map(|fault| fault.rule).collect();
        assert!(!broken.is_empty() && broken.iter().all(|one| *one == rule), "{:?}", findings.faults);
    }
}

fn lease(step: u64, grant: u64) -> String {
    format!("ls_{ID}_{step}_{grant}")
}

fn step(number: u64, dependencies: &[u64]) -> Value {
    json!({"step": number, "dependencies": dependencies, "continueOnError": false,
        "retry": {"maxAttempts": 2}})
}

fn excused(number: u64) -> Value {
    json!({"step": number, "dependencies": [], "continueOnError": true, "retry": {"maxAttempts": 1}})
}

#[test]
fn histories_in_order_have_no_faults() {
    let mut chain = Script::chain();
    chain.begin("a", 1, 1, 1).fail(1, 1, 1, false).retry(1, 2).free("a", 1, 1);
    chain.offer("a", 1, 2, 2).of_grant("step.offer_expired", 1, 2, 2).free("a", 1, 2);
    chain.begin("b", 1, 3, 2).of_grant("step.released", 1, 3, 2).free("b", 1, 3);
    chain.begin("a", 1, 4, 2).tell("step.progressed", json!({"step": 1, "grant": 4, "progress": 50}));
    chain.progress(25).complete("a", 1, 4, 2).progress(50).free("a", 1, 4);
    // Lost, and completed late by who had it.
    chain.begin("a", 2, 1, 1).of_grant("step.lease_lost", 2, 1, 1).retry(2, 2).free("a", 2, 1);
    chain.complete("a", 2, 1, 1).progress(100).end("operation.completed");
    chain.findings().must_be_over();
    assert_eq!(chain.findings().count("step.completed"), 2);

    let mut lost = Script::chain();
    lost.begin("a", 1, 1, 1).of_grant("step.lease_lost", 1, 1, 1).retry(1, 2).free("a", 1, 1);
    lost.begin("a", 1, 2, 2).of_grant("step.lease_lost", 1, 2, 2).fail(1, 2, 2, true);
    lost.cancel(&[2]).end("operation.failed").free("a", 1, 2);
    lost.findings().must_be_over();

    let mut skipped = Script::of(json!([excused(1), step(2, &[1]), step(3, &[2])]), json!({}));
    skipped.begin("a", 1, 1, 1).fail(1, 1, 1, true).skip(&[2, 3], "condition").progress(100);
    skipped.end("operation.completed").free("a", 1, 1).findings().must_be_over();

    let mut continued = Script::of(json!([step(3, &[]), step(2, &[3]), step(1, &[2])]), json!({}));
    continued.begin("a", 3, 1, 1).fail(3, 1, 1, true).skip(&[1, 2], "upstream_failed").progress(100);
    continued.end("operation.failed").free("a", 3, 1).findings().must_be_over();

    let mut cancelled = Script::chain();
    cancelled.begin("a", 1, 1, 1).end("operation.cancelled").cancel(&[1, 2]).free("a", 1, 1);
    cancelled.findings().must_be_over();
}

#[test]
fn a_history_that_goes_on_is_not_over_and_what_is_unknown_is_said() {
    let mut script = Script::pair();
    script.offer("a", 1, 1, 1).tell("step.sang", json!({"step": 2}));
    let findings = script.findings();
    assert!(findings.faults.is_empty() && findings.unknown.contains("step.sang"), "{findings:?}");
    assert_eq!((findings.open.len(), findings.taken.len()), (1, 1));
}

#[test]
fn places_and_times_are_looked_at() {
    Script::chain().perform(1).but("revision", json!("9")).breaks(Rule::Versions);
    Script::chain().perform(1).but("revision", json!("2")).breaks(Rule::Versions);
    Script::chain().perform(1).but("sequence", json!("11")).breaks(Rule::Positions);
    let earlier = json!("2025-12-31T23:59:59.999Z");
    Script::chain().perform(1).but("time", earlier).breaks(Rule::Times);
}

#[test]
fn a_second_end_of_a_step_is_found() {
    Script::chain().perform(1).complete("a", 1, 1, 1).breaks(Rule::OneEnd);
    Script::chain().perform(1).cancel(&[1]).breaks(Rule::OneEnd);
    Script::chain().perform(1).skip(&[1], "condition").breaks(Rule::OneEnd);
    let mut offered = Script::chain();
    offered.perform(1).offer("a", 1, 2, 1).breaks(Rule::OneEnd);
}

#[test]
fn what_follows_the_end_of_an_operation_is_found() {
    let done = || {
        let mut script = Script::of(json!([step(1, &[])]), json!({}));
        script.perform(1).progress(100).end("operation.completed");
        script
    };
    done().findings().must_be_over();
    done().end("operation.completed").breaks(Rule::OneOutcome);
    done().end("operation.failed").findings().faults.iter().for_each(|fault| {
        assert_eq!(fault.rule, Rule::OneOutcome);
    });
    done().tell("operation.updated", json!({})).breaks(Rule::OneOutcome);
    done().progress(100).breaks(Rule::OneOutcome);
    // Settling steps belongs right behind a cancel, and behind nothing else.
    let mut late = Script::chain();
    late.end("operation.cancelled").cancel(&[1]).cancel(&[2]).breaks(Rule::OneOutcome);
}

#[test]
fn an_end_that_its_steps_do_not_bear_is_found() {
    Script::chain().end("operation.cancelled").breaks(Rule::OneOutcome);
    let mut failed = Script::of(json!([step(1, &[])]), json!({}));
    failed.perform(1).progress(100).end("operation.failed").breaks(Rule::OneOutcome);
    let mut completed = Script::chain();
    completed.begin("a", 1, 1, 1).fail(1, 1, 1, true).skip(&[2], "upstream_failed").progress(100);
    completed.end("operation.completed").breaks(Rule::OneOutcome);
}

#[test]
fn attempts_that_are_skipped_repeated_or_too_many_are_found() {
    Script::chain().offer("a", 1, 1, 2).breaks(Rule::Attempts);
    Script::chain().offer("a", 1, 1, 1).of_grant("step.started", 1, 1, 2).breaks(Rule::Attempts);
    let lost = || {
        let mut script = Script::chain();
        script.begin("a", 1, 1, 1).of_grant("step.lease_lost", 1, 1, 1);
        script
    };
    lost().breaks(Rule::Attempts);
    lost().retry(1, 1).breaks(Rule::Attempts);
    lost().retry(1, 2).offer("b", 1, 2, 1).breaks(Rule::Attempts);
    lost().offer("b", 1, 2, 2).breaks(Rule::Attempts);
    lost().retry(1, 2).begin("b", 1, 2, 2).fail(1, 2, 2, false).retry(1, 3).breaks(Rule::Attempts);
    Script::chain().retry(1, 1).breaks(Rule::Attempts);
    lost().retry(1, 2).complete("a", 1, 1, 3).breaks(Rule::Attempts);
    let mut unperformed = Script::chain();
    unperformed.fail(1, 0, 1, true).cancel(&[2]).end("operation.failed").breaks(Rule::Attempts);
}

#[test]
fn a_grant_that_does_not_rise_by_one_or_is_old_is_found() {
    Script::chain().offer("a", 1, 2, 1).breaks(Rule::Grants);
    let expired = || {
        let mut script = Script::chain();
        script.offer("a", 1, 1, 1).of_grant("step.offer_expired", 1, 1, 1).free("a", 1, 1);
        script
    };
    expired().offer("b", 1, 3, 1).breaks(Rule::Grants);
    expired().assign("b", 1, 1).reserve("b", 1, 1, 1).breaks(Rule::Grants);
    expired().offer("b", 1, 2, 1).of_grant("step.started", 1, 1, 1).breaks(Rule::Grants);
    expired().offer("b", 1, 2, 1).of_grant("step.offer_expired", 1, 1, 1).breaks(Rule::Grants);
    expired().complete("a", 1, 2, 1).breaks(Rule::Grants);
}

#[test]
fn a_step_before_its_dependencies_is_found() {
    Script::chain().offer("a", 2, 1, 1).breaks(Rule::Dependencies);
    Script::chain().skip(&[2], "condition").breaks(Rule::Dependencies);
    Script::chain().skip(&[2], "upstream_failed").breaks(Rule::Dependencies);
    let after = |end: fn(&mut Script) -> &mut Script| {
        let mut script = Script::chain();
        end(&mut script).offer("b", 2, 1, 1).breaks(Rule::Dependencies);
    };
    after(|script| script.begin("a", 1, 1, 1));
    after(|script| script.begin("a", 1, 1, 1).fail(1, 1, 1, true));
    after(|script| script.cancel(&[1]));
    let mut resting = Script::chain();
    resting.0.retain(|event| event["type"] != "operation.started");
    resting.begin("a", 1, 1, 1);
    assert!(resting.findings().faults.iter().any(|fault| fault.rule == Rule::Dependencies));
}

#[test]
fn a_second_holder_and_work_without_one_are_found() {
    Script::pair().offer("a", 1, 1, 1).offer("b", 1, 2, 1).breaks(Rule::Holders);
    Script::pair().begin("a", 1, 1, 1).offer("b", 1, 2, 1).breaks(Rule::Holders);
    Script::pair().begin("a", 1, 1, 1).complete("b", 1, 1, 1).breaks(Rule::Holders);
    Script::pair().begin("a", 1, 1, 1).of_grant("step.started", 1, 1, 1).breaks(Rule::Holders);
    Script::pair().begin("a", 1, 1, 1).of_grant("step.offer_expired", 1, 1, 1).breaks(Rule::Holders);
    Script::pair().offer("a", 1, 1, 1).complete("a", 1, 1, 1).breaks(Rule::Holders);
    let mut expired = Script::pair();
    expired.offer("a", 1, 1, 1).of_grant("step.offer_expired", 1, 1, 1);
    expired.of_grant("step.checkpointed", 1, 1, 1).breaks(Rule::Holders);
}

#[test]
fn slots_that_are_too_many_missing_or_freed_too_early_are_found() {
    Script::pair().offer("a", 1, 1, 1).offer("a", 2, 1, 1).breaks(Rule::Slots);
    Script::pair().assign("a", 1, 1).assign("a", 1, 1).breaks(Rule::Slots);
    Script::pair().reserve("a", 1, 1, 1).breaks(Rule::Slots);
    Script::pair().assign("b", 1, 1).reserve("a", 1, 1, 1).breaks(Rule::Slots);
    Script::pair().begin("a", 1, 1, 1).free("a", 1, 1).breaks(Rule::Slots);
    Script::pair().free("a", 1, 1).breaks(Rule::Slots);
    let mut fewer = Script::pair();
    fewer.agent("a", "agent.updated", json!({"config": {"maxConcurrentSteps": 0}}));
    fewer.offer("a", 1, 1, 1).breaks(Rule::Slots);
}

#[test]
fn more_steps_under_way_than_allowed_are_found() {
    let mut script = Script::of(json!([step(1, &[]), step(2, &[])]), json!({"maxParallel": 1}));
    script.offer("a", 1, 1, 1).offer("b", 2, 1, 1).breaks(Rule::MaxParallel);
}

#[test]
fn progress_that_is_not_that_of_the_steps_is_found() {
    Script::chain().perform(1).progress(49).breaks(Rule::Progress);
    Script::chain().perform(1).progress(51).breaks(Rule::Progress);
    Script::chain().perform(1).perform(2).end("operation.completed").breaks(Rule::Progress);
}
