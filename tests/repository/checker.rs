//! The checker of histories can fail: one planted fault for each thing that it looks at, in a history
//! that is otherwise in order.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test fails by panicking")]

mod script;
use crate::support;

use script::{Script, asking, excused, human, step, unknown, write};
use serde_json::json;
use support::checker::Rule;

#[test]
fn histories_in_order_have_no_faults() {
    let mut chain = Script::chain();
    chain.begin("a", 1, 1, 1).fail(1, 1, 1, false).retry(1, 2);
    chain.offer("a", 1, 2, 2).of_grant("step.offer_expired", 1, 2, 2);
    chain.begin("b", 1, 3, 2).of_grant("step.released", 1, 3, 2);
    chain.begin("a", 1, 4, 2).tell("step.progressed", json!({"step": 1, "grant": 4, "progress": 50}));
    chain.progress(25).complete("a", 1, 4, 2).progress(50);
    // Lost, and completed late by who had it.
    chain.begin("a", 2, 1, 1).of_grant("step.lease_lost", 2, 1, 1).retry(2, 2);
    chain.complete("a", 2, 1, 1).progress(100).end("operation.completed");
    chain.findings().must_be_over();
    assert_eq!(chain.findings().count("step.completed"), 2);

    let mut lost = Script::chain();
    lost.begin("a", 1, 1, 1).of_grant("step.lease_lost", 1, 1, 1).retry(1, 2);
    lost.begin("a", 1, 2, 2).of_grant("step.lease_lost", 1, 2, 2).fail(1, 2, 2, true);
    lost.cancel(&[2]).end("operation.failed");
    lost.findings().must_be_over();

    let mut skipped = Script::of(json!([excused(1), step(2, &[1]), step(3, &[2])]), json!({}));
    skipped.begin("a", 1, 1, 1).fail(1, 1, 1, true).skip(&[2, 3], "condition").progress(100);
    skipped.end("operation.completed").findings().must_be_over();

    let mut continued = Script::of(json!([step(3, &[]), step(2, &[3]), step(1, &[2])]), json!({}));
    continued.begin("a", 3, 1, 1).fail(3, 1, 1, true).skip(&[1, 2], "upstream_failed").progress(100);
    continued.end("operation.failed").findings().must_be_over();

    let mut cancelled = Script::chain();
    cancelled.begin("a", 1, 1, 1).end("operation.cancelled").cut(&[1, 2], 1, 1);
    assert_eq!(cancelled.findings().taken.len(), 1);
    cancelled.close(1, 1).findings().must_be_over();
    // An offer too, and its slot is free again after that.
    let mut offered = Script::pair();
    offered.offer("a", 1, 1, 1).offer("b", 2, 1, 1).complete_at_once("b", 2, 1, 1).progress(50);
    offered.end("operation.cancelled").cut(&[1], 1, 1).close(1, 1).findings().must_be_over();
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
    // Settling steps belongs right after a cancel, and after nothing else.
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
        script.offer("a", 1, 1, 1).of_grant("step.offer_expired", 1, 1, 1);
        script
    };
    expired().offer("b", 1, 3, 1).breaks(Rule::Grants);
    expired().offer("b", 1, 1, 1).breaks(Rule::Grants);
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
fn slots_that_are_given_twice_or_that_there_are_not_are_found() {
    Script::pair().offer("a", 1, 1, 1).offer("a", 2, 1, 1).breaks(Rule::Slots);
    Script::pair().begin("a", 1, 1, 1).offer("a", 2, 1, 1).breaks(Rule::Slots);
    let mut fewer = Script::pair();
    fewer.agent("a", "agent.updated", json!({"config": {"maxConcurrentSteps": 0}}));
    fewer.offer("a", 1, 1, 1).breaks(Rule::Slots);
    // What was lost, expired, given back or ended takes none.
    let mut again = Script::pair();
    again.begin("a", 1, 1, 1).lose(1, 1, 1).retry(1, 2).offer("a", 2, 1, 1);
    again.of_grant("step.offer_expired", 2, 1, 1).begin("a", 1, 2, 2).complete("a", 1, 2, 2);
    again.offer("a", 2, 2, 1).findings().must_be_clean();
}

#[test]
fn a_new_incarnation_has_all_its_slots_and_an_old_one_none() {
    let mut script = Script::pair();
    script.begin("a", 1, 1, 1).register("a", 2).offer_to("a", 2, 2, 1, 1).findings().must_be_clean();
    // A claim of before may cross the registration: its lease takes no slot and is lost.
    let mut crossed = Script::pair();
    crossed.register("a", 2).offer("a", 1, 1, 1).offer_to("a", 2, 2, 1, 1).findings().must_be_clean();
    let mut twice = Script::of(json!([step(1, &[]), step(2, &[]), step(3, &[])]), json!({}));
    twice.begin("a", 1, 1, 1).register("a", 2).offer_to("a", 2, 2, 1, 1);
    twice.offer_to("a", 2, 3, 1, 1).breaks(Rule::Slots);
    Script::pair().offer_to("a", 2, 1, 1, 1).breaks(Rule::Slots);
    Script::pair().offer_to("a", 0, 1, 1, 1).breaks(Rule::Slots);
    Script::pair().register("a", 3).breaks(Rule::Slots);
}

#[test]
fn a_closing_lease_that_loses_or_keeps_its_slot_wrongly_is_found() {
    let cut = || {
        let mut script = Script::pair();
        script.begin("a", 1, 1, 1).end("operation.cancelled").cut(&[1, 2], 1, 1);
        script
    };
    cut().findings().must_be_clean();
    let other = "fedcba9876543210fedcba9876543210";
    let next = |mut script: Script| {
        let definition = json!({"workflow": [step(1, &[])], "maxParallel": null});
        let subject = format!("operation/op_{other}");
        script.add(&subject, "operation.created", definition).add(&subject, "operation.started", json!({}));
        let body = json!({"step": 1, "grant": 1, "leaseId": format!("ls_{other}_1_1"), "agent": "a",
            "incarnation": 1, "attempt": 1});
        script.add(&subject, "step.reserved", body);
        script
    };
    next(cut()).breaks(Rule::Slots);
    let mut closed = cut();
    closed.close(1, 1);
    next(closed).findings().must_be_clean();
    let mut twice = cut();
    twice.close(1, 1).close(1, 1).breaks(Rule::Slots);
    cut().close(1, 2).breaks(Rule::Slots);
    cut().close(2, 1).breaks(Rule::Slots);
    Script::pair().begin("a", 1, 1, 1).close(1, 1).breaks(Rule::Slots);
    let mut dropped = Script::pair();
    dropped.begin("a", 1, 1, 1).end("operation.cancelled").cancel(&[1, 2]).breaks(Rule::Slots);
    let mut unheld = Script::pair();
    unheld.end("operation.cancelled").cut(&[1, 2], 1, 1).breaks(Rule::Slots);
}

#[test]
fn anything_but_the_close_of_a_lease_after_the_end_is_found() {
    let cut = || {
        let mut script = Script::chain();
        script.begin("a", 1, 1, 1).end("operation.cancelled").cut(&[1, 2], 1, 1);
        script
    };
    cut().progress(100).breaks(Rule::OneOutcome);
    cut().tell("operation.updated", json!({})).breaks(Rule::OneOutcome);
    let after = cut().complete("a", 1, 1, 1).findings();
    assert!(after.faults.iter().any(|fault| fault.rule == Rule::OneOutcome), "{:?}", after.faults);
    let mut closed = cut();
    closed.close(1, 1).tell("operation.resumed", json!({}));
    assert!(closed.findings().faults.iter().any(|fault| fault.rule == Rule::OneOutcome));
}

#[test]
fn five_offers_that_nobody_took_spend_the_attempt() {
    let silent = |times: u64, reason: &str| {
        let mut script = Script::of(json!([write(1)]), json!({}));
        for grant in 1..=times {
            script.offer("a", 1, grant, 1).expire("a", 1, grant, reason);
        }
        script
    };
    silent(4, "no_sign_of_life").offer("a", 1, 5, 1).findings().must_be_clean();
    silent(6, "not_heard").offer("a", 1, 7, 1).findings().must_be_clean();
    let lost = || {
        let mut script = silent(5, "no_sign_of_life");
        script.of_grant("step.lease_lost", 1, 5, 1);
        script
    };
    // Nothing was written: it is simply tried again.
    lost().retry(1, 2).offer("a", 1, 6, 2).findings().must_be_clean();
    lost().failed_with(1, 5, 1, "lease_lost").end("operation.failed").findings().must_be_over();
    silent(5, "no_sign_of_life").offer("a", 1, 6, 1).breaks(Rule::Attempts);
    silent(5, "agent_timeout").findings().faults.iter().for_each(|fault| {
        assert_eq!(fault.rule, Rule::Attempts);
    });
    let early = silent(4, "no_sign_of_life").of_grant("step.lease_lost", 1, 4, 1).retry(1, 2).findings();
    assert!(early.faults.iter().any(|fault| fault.rule == Rule::Holders), "{:?}", early.faults);
    lost().retry(1, 2).offer("a", 1, 6, 1).breaks(Rule::Attempts);
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

#[test]
fn what_people_and_lanes_do_in_order_has_no_faults() {
    let mut asked = asking();
    asked.word("step.approval_requested", 1, "").word("step.approved", 1, "").answered(1, 0, 0);
    asked.progress(50).tell("operation.paused", json!({})).tell("operation.resumed", json!({}));
    asked.perform(2).progress(100).end("operation.completed").findings().must_be_over();

    let mut refused = asking();
    refused.word("step.approval_requested", 1, "").word("step.rejected", 1, "");
    refused.failed_with(1, 0, 0, "rejected").at_once().cancel(&[2]).end("operation.failed");
    refused.findings().must_be_over();

    // Each retry by a person is one attempt more than the two of the policy.
    let mut retried = unknown();
    retried.word("step.resolved", 1, "retry").begin("a", 1, 2, 2).attention(1, 2, 2);
    retried.word("step.resolved", 1, "retry").begin("a", 1, 3, 3).lose(1, 3, 3).attention(1, 3, 3);
    retried.word("step.resolved", 1, "completed").answered(1, 3, 3).progress(50);
    retried.perform(2).progress(100).end("operation.completed").findings().must_be_over();

    // Late, and of the attempt that was lost.
    unknown().complete("a", 1, 1, 1).findings().must_be_clean();
    unknown().word("step.resolved", 1, "retry").complete("a", 1, 1, 1).findings().must_be_clean();
    unknown().end("operation.cancelled").cancel(&[1, 2]).findings().must_be_over();

    let mut skipped = unknown();
    skipped.word("step.resolved", 1, "skip").skip(&[1], "requested").at_once().progress(50);
    skipped.perform(2).progress(100).end("operation.completed").findings().must_be_over();

    let mut limited = Script::pair();
    limited.begin("a", 1, 1, 1).park("worker.a", 30).release("a", 1, 30);
    limited.begin("b", 1, 2, 1).release("b", 2, 59).park("worker.b", 59);
    limited.add("lane/worker.b", "lane.opened", json!({})).offer("b", 2, 1, 1);
    limited.findings().must_be_clean();
}

#[test]
fn what_begins_while_an_operation_is_paused_is_found() {
    let paused = |mut script: Script| {
        script.tell("operation.paused", json!({}));
        script
    };
    paused(Script::pair()).offer("a", 1, 1, 1).breaks(Rule::Paused);
    paused(asking()).word("step.approval_requested", 1, "").breaks(Rule::Paused);
    paused(Script::pair()).tell("operation.paused", json!({})).breaks(Rule::Paused);
    Script::pair().tell("operation.resumed", json!({})).breaks(Rule::Paused);
    // What was offered before goes on.
    let mut offered = Script::pair();
    offered.offer("a", 1, 1, 1).tell("operation.paused", json!({})).of_grant("step.started", 1, 1, 1);
    offered.findings().must_be_clean();
}

#[test]
fn answers_that_nobody_gave_or_was_asked_for_are_found() {
    let asked = || {
        let mut script = asking();
        script.word("step.approval_requested", 1, "");
        script
    };
    asked().word("step.approval_requested", 1, "").breaks(Rule::Approvals);
    asking().word("step.approved", 1, "").answered(1, 0, 0).breaks(Rule::Approvals);
    asked().answered(1, 0, 0).breaks(Rule::Approvals);
    asked().word("step.approved", 1, "").breaks(Rule::Approvals);
    asked().word("step.approved", 1, "").progress(0).breaks(Rule::Approvals);
    let mut later = asked();
    later.word("step.approved", 1, "").answered(1, 0, 0);
    later.but("time", json!("2026-01-01T00:00:50.000Z")).breaks(Rule::Approvals);
    asked().failed_with(1, 0, 0, "rejected").breaks(Rule::Approvals);
    asked().failed_with(1, 0, 0, "flaky").breaks(Rule::Approvals);
    let rejected = asked().word("step.rejected", 1, "").failed_with(1, 0, 0, "expired").findings();
    assert!(rejected.faults.iter().all(|fault| fault.rule == Rule::Approvals) && rejected.faults.len() > 1);
    asking().offer("a", 1, 1, 1).breaks(Rule::Approvals);
    Script::pair().word("step.approval_requested", 1, "").breaks(Rule::Approvals);
    let mut early = Script::of(json!([step(1, &[]), human(2, &[1])]), json!({}));
    early.word("step.approval_requested", 2, "").breaks(Rule::Dependencies);
}

#[test]
fn writes_that_may_happen_twice_and_attention_for_others_are_found() {
    let lost = || {
        let mut script = Script::of(json!([write(1)]), json!({}));
        script.begin("a", 1, 1, 1).lose(1, 1, 1);
        script
    };
    lost().retry(1, 2).breaks(Rule::Attention);
    lost().failed_with(1, 1, 1, "lease_lost").breaks(Rule::Attention);
    let mut late = Script::of(json!([write(1)]), json!({}));
    late.begin("a", 1, 1, 1).failed_with(1, 1, 1, "timeout").breaks(Rule::Attention);
    Script::pair().begin("a", 1, 1, 1).attention(1, 1, 1).breaks(Rule::Attention);
    unknown().offer("a", 1, 2, 2).breaks(Rule::Attention);
    unknown().failed_with(1, 1, 1, "declared_failed").breaks(Rule::Attention);
    unknown().skip(&[1], "requested").breaks(Rule::Attention);
    unknown().word("step.resolved", 1, "completed").breaks(Rule::Attention);
    unknown().word("step.resolved", 1, "failed").retry(1, 2).findings().faults.iter().for_each(|fault| {
        assert!(matches!(fault.rule, Rule::Attention | Rule::Attempts), "{fault}");
    });
    Script::pair().begin("a", 1, 1, 1).word("step.resolved", 1, "retry").breaks(Rule::Attention);
    let mut known = Script::pair();
    known.word("step.resolved", 1, "completed").answered(1, 1, 0);
    assert!(known.findings().faults.iter().any(|fault| fault.rule == Rule::Attention));
    Script::pair().attention(1, 0, 0).findings().faults.iter().for_each(|fault| {
        assert!(matches!(fault.rule, Rule::Attention | Rule::Attempts), "{fault}");
    });
}

#[test]
fn attempts_that_no_policy_and_no_person_allows_are_found() {
    let mut twice = unknown();
    twice.word("step.resolved", 1, "retry").begin("a", 1, 2, 2).attention(1, 2, 2);
    twice.word("step.resolved", 1, "retry").begin("a", 1, 3, 4).breaks(Rule::Attempts);
    unknown().word("step.resolved", 1, "retry").complete("a", 1, 1, 2).breaks(Rule::Attempts);
    unknown().word("step.resolved", 1, "completed").answered(1, 1, 2).breaks(Rule::Attempts);
    let mut spent = Script::pair();
    spent.begin("a", 1, 1, 1).release("a", 1, 0).offer("a", 1, 2, 2).breaks(Rule::Attempts);
    // A person's attempt is the last unless a person says so again.
    let mut last = Script::pair();
    last.begin("a", 1, 1, 1).fail(1, 1, 1, false).retry(1, 2);
    last.word("step.resolved", 1, "retry").begin("a", 1, 2, 2).lose(1, 2, 2).retry(1, 3);
    last.breaks(Rule::Attempts);
}

#[test]
fn a_step_in_a_closed_window_is_found() {
    let released = || {
        let mut script = Script::pair();
        script.begin("a", 1, 1, 1).release("a", 1, 50);
        script
    };
    released().offer("a", 1, 2, 1).breaks(Rule::Windows);
    released().offer("b", 1, 2, 1).findings().must_be_clean();
    released().word("step.resolved", 1, "retry").offer("a", 1, 2, 1).findings().must_be_clean();
    Script::pair().park("worker.a", 50).offer("a", 1, 1, 1).breaks(Rule::Windows);
    Script::pair().park("worker.b", 50).offer("a", 1, 1, 1).findings().must_be_clean();
    let mut shared = Script::pair();
    let account = json!({"config": {"maxConcurrentSteps": 1, "labels": {"account": "team"}}});
    shared.agent("a", "agent.updated", account).park("account.team", 50);
    shared.offer("a", 1, 1, 1).breaks(Rule::Windows);
}
