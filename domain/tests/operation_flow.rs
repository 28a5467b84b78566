//! A whole operation: what follows from a step's end, by dependencies, conditions and policies.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::sync::Arc;

use domain::operation::definition::{Definition, Priority, StepDefinition};
use domain::operation::event::{Event, Patch};
use domain::operation::{Command, Rejection, Status};
use domain::world::AgentRoll;
use domain::{AgentId, Json};
use serde_json::{Value, json};
use support::{Flow, agent, continuing, definition, names, once, step, when, with};

fn inputs(number: u32, dependencies: &[u32], inputs: Value) -> StepDefinition {
    with(step(number, dependencies), |step| step.inputs = Json::from(inputs))
}

fn excused(step: StepDefinition) -> StepDefinition {
    with(step, |step| step.continue_on_error = true)
}

#[test]
fn a_diamond_runs_its_sides_at_once_and_joins_them() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[1]), step(3, &[1]), step(4, &[2, 3])]));
    assert_eq!(flow.statuses(), ["ready", "pending", "pending", "pending"]);
    flow.done(1, json!(1));
    assert_eq!(flow.statuses(), ["completed", "ready", "ready", "pending"]);
    flow.done(3, json!(3));
    assert_eq!(flow.operation().run.blocked_on(3, flow.scenario.now).unwrap().cause().name(), "dependencies");
    flow.done(2, json!(2));
    assert_eq!(flow.status(4), "ready");
    let events = flow.done(4, json!(4));
    assert_eq!(names(&events), ["StepCompleted", "Progressed", "Completed"]);
    assert_eq!((flow.operation().status(), flow.operation().run.progress()), (Status::Completed, 100));
}

#[test]
fn results_and_metadata_are_handed_on_by_expressions() {
    let second = inputs(
        2,
        &[1],
        json!({"n": {"$expr": "steps[1].result.n"}, "of": {"$template": "{{ operation.metadata.repo }}#1"}}),
    );
    let mut flow = Flow::of(Definition {
        metadata: Json::from(json!({"repo": "photon"})),
        ..definition(vec![step(1, &[]), second])
    });
    flow.done(1, json!({"n": 3}));
    flow.offer(2, "ada").unwrap();
    assert_eq!(flow.inputs(2), json!({"n": 3, "of": "photon#1"}));
}

#[test]
fn a_template_error_fails_the_step_with_its_code_before_anybody_performs_it() {
    let second = inputs(2, &[1], json!({"n": {"$expr": "steps[1].result.missing"}}));
    let mut flow = Flow::of(definition(vec![step(1, &[]), second]));
    flow.done(1, json!({}));
    assert_eq!(names(&flow.offer(2, "ada").unwrap()), ["StepFailed", "Failed"]);
    let failed = &flow.operation().run.steps[1];
    assert_eq!((failed.error.as_ref().unwrap().code.as_str(), failed.attempts), ("template", 0));
    assert!(matches!(flow.offer(2, "ada"), Err(Rejection::NotReady { .. })));
}

#[test]
fn a_false_condition_skips_a_step_and_satisfies_its_dependents() {
    let third =
        inputs(3, &[2], json!({"x": {"$expr": "steps[2].result"}, "s": {"$expr": "steps[2].status"}}));
    let workflow = vec![step(1, &[]), when(2, &[1], "steps[1].result.go"), third];
    let mut flow = Flow::of(definition(workflow));
    let events = flow.done(1, json!({"go": false}));
    assert_eq!(names(&events), ["StepCompleted", "StepsSkipped", "Progressed"]);
    assert_eq!(flow.statuses(), ["completed", "skipped", "ready"]);
    flow.offer(3, "ada").unwrap();
    assert_eq!(flow.inputs(3), json!({"x": null, "s": "skipped"}));
}

#[test]
fn a_true_condition_lets_the_step_run() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), when(2, &[1], "steps[1].result.go")]));
    flow.done(1, json!({"go": true}));
    assert_eq!(flow.status(2), "ready");
}

#[test]
fn a_condition_sees_how_its_dependencies_ended_in_the_same_decision() {
    let workflow = vec![
        excused(once(1, &[])),
        when(2, &[1], "steps[1].status == 'failed' and steps[1].error.code == 'broken'"),
        when(3, &[1], "steps[1].status == 'completed'"),
        when(4, &[3], "steps[3].status == 'skipped' and steps[1].status == 'failed'"),
    ];
    let mut flow = Flow::of(definition(workflow));
    flow.broken(1);
    assert_eq!(flow.statuses(), ["failed", "ready", "skipped", "ready"]);
    let mut flow = Flow::of(definition(vec![step(1, &[]), when(2, &[1], "steps[1].status == 'completed'")]));
    flow.done(1, json!(null));
    assert_eq!(flow.status(2), "ready");
}

#[test]
fn conditions_of_the_first_steps_are_looked_at_when_it_starts() {
    let mut flow = Flow::of(Definition {
        metadata: Json::from(json!({"go": false})),
        auto_start: false,
        ..definition(vec![when(1, &[], "operation.metadata.go"), when(2, &[1], "operation.metadata.go")])
    });
    let events = flow.put(&Command::Start).unwrap();
    assert_eq!(names(&events), ["Started", "StepsSkipped", "Progressed", "Completed"]);
    assert_eq!(flow.statuses(), ["skipped", "skipped"]);
}

#[test]
fn a_condition_that_is_no_truth_fails_its_step() {
    for (condition, code) in [
        ("operation.metadata.missing", "template"),
        ("operation.name", "type_mismatch"),
        ("operation.name > 1 - operation.metadata|length", "type_mismatch"),
    ] {
        let flow = Flow::of(definition(vec![when(1, &[], condition), step(2, &[])]));
        assert_eq!(flow.statuses(), ["failed", "cancelled"], "{condition}");
        assert_eq!(flow.operation().run.steps[0].error.as_ref().unwrap().code, code);
    }
}

#[test]
fn fail_fast_cancels_what_runs_and_fails_the_operation() {
    let mut flow = Flow::of(definition(vec![once(1, &[]), step(2, &[]), step(3, &[1]), step(4, &[])]));
    flow.done(4, json!(1));
    flow.begin(2);
    let events = flow.broken(1);
    assert_eq!(names(&events), ["StepFailed", "StepsCancelled", "Failed"]);
    assert_eq!(flow.statuses(), ["failed", "cancelled", "cancelled", "completed"]);
    assert_eq!(flow.operation().status_reason.as_deref(), Some("step_failed"));
    assert_eq!(flow.operation().errors, ["step 1: broken: it did not work"]);
}

#[test]
fn continue_skips_only_what_depends_on_the_failure() {
    let workflow =
        vec![once(1, &[]), step(2, &[1]), step(3, &[2]), step(4, &[]), step(5, &[4]), step(6, &[3, 5])];
    let mut flow = Flow::of(continuing(workflow));
    assert_eq!(names(&flow.broken(1)), ["StepFailed", "StepsSkipped", "Progressed"]);
    assert_eq!(flow.statuses(), ["failed", "skipped", "skipped", "ready", "pending", "skipped"]);
    flow.done(4, json!(1));
    let events = flow.done(5, json!(1));
    assert_eq!(names(&events), ["StepCompleted", "Progressed", "Failed"]);
    assert_eq!(flow.operation().errors.len(), 1);
}

#[test]
fn a_step_that_was_skipped_is_not_skipped_again_by_another_failure() {
    let mut flow = Flow::of(continuing(vec![once(1, &[]), once(2, &[]), step(3, &[1, 2]), step(4, &[])]));
    flow.broken(1);
    assert_eq!(names(&flow.broken(2)), ["StepFailed", "Progressed"]);
    assert_eq!(flow.statuses(), ["failed", "failed", "skipped", "ready"]);
    flow.done(4, json!(1));
    assert_eq!(flow.operation().errors.len(), 2);
}

#[test]
fn an_excused_failure_hands_its_error_on_and_does_not_fail_the_operation() {
    let second = inputs(2, &[1], json!({"x": {"$expr": "steps[1].result.error.code"}}));
    let mut flow = Flow::of(definition(vec![excused(once(1, &[])), second]));
    assert_eq!(names(&flow.broken(1)), ["StepFailed", "Progressed"]);
    flow.offer(2, "ada").unwrap();
    assert_eq!(flow.inputs(2), json!({"x": "broken"}));
    flow.wish(2, support::complete(json!(1))).unwrap();
    assert_eq!(flow.operation().status(), Status::Completed);
}

#[test]
fn no_more_steps_are_under_way_than_max_parallel() {
    let mut flow = Flow::of(Definition {
        max_parallel: Some(2),
        ..definition(vec![step(1, &[]), step(2, &[]), step(3, &[])])
    });
    flow.begin(1);
    flow.offer(2, "bob").unwrap();
    assert_eq!(flow.offer(3, "eve"), Err(Rejection::NotReady { step: 3, status: "ready" }));
    flow.wish(1, support::complete(json!(1))).unwrap();
    assert!(flow.offer(3, "eve").is_ok());
}

#[test]
fn a_cancellation_settles_everything_and_may_be_repeated() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[1]), step(3, &[])]));
    flow.done(3, json!(1));
    flow.begin(1);
    let cancel = Command::Cancel { by: "key:ops".into() };
    assert_eq!(names(&flow.put(&cancel).unwrap()), ["Cancelled", "StepsCancelled"]);
    assert_eq!(flow.statuses(), ["cancelled", "cancelled", "completed"]);
    assert_eq!(flow.operation().status_reason.as_deref(), Some("cancelled_by:key:ops"));
    assert_eq!(flow.put(&cancel), Ok(vec![]));
    assert_eq!(flow.put(&Command::Start), Err(Rejection::NotPending { status: "cancelled" }));
    let update = Command::Update(Box::default());
    assert_eq!(flow.put(&update), Err(Rejection::Terminal { status: "cancelled" }));
}

#[test]
fn an_operation_that_has_ended_otherwise_cannot_be_cancelled() {
    let mut flow = Flow::of(definition(vec![step(1, &[])]));
    flow.done(1, json!(1));
    let cancel = Command::Cancel { by: "x".into() };
    assert_eq!(flow.put(&cancel), Err(Rejection::Terminal { status: "completed" }));
    assert_eq!(flow.put(&Command::ExpireDeadline), Err(Rejection::Terminal { status: "completed" }));
}

#[test]
fn a_deadline_ends_it_and_is_refused_before_its_time() {
    for auto_start in [true, false] {
        let mut flow = Flow::new();
        let deadline = Some(flow.scenario.now.plus_ms(1_000));
        let asked = Definition { deadline, auto_start, ..definition(vec![step(1, &[]), step(2, &[])]) };
        flow.put(&Command::Create(Box::new(asked))).unwrap();
        flow.wait(999);
        assert_eq!(flow.put(&Command::ExpireDeadline), Err(Rejection::Early));
        flow.wait(1);
        assert_eq!(names(&flow.put(&Command::ExpireDeadline).unwrap()), ["StepsCancelled", "Failed"]);
        assert_eq!(flow.operation().status_reason.as_deref(), Some("deadline_exceeded"));
    }
    let mut without = Flow::of(definition(vec![step(1, &[])]));
    assert_eq!(without.put(&Command::ExpireDeadline), Err(Rejection::Early));
}

#[test]
fn an_update_changes_what_is_given_and_says_only_what_changed() {
    let mut flow = Flow::of(Definition { description: Some("old".into()), ..definition(vec![step(1, &[])]) });
    let patch = Patch {
        name: Some("Release".into()),
        description: Some(None),
        priority: Some(Priority::High),
        agents: Some(vec![agent("ada")]),
        ..Patch::default()
    };
    let update = Command::Update(Box::new(patch.clone()));
    let events = flow.put(&update).unwrap();
    assert_eq!(events, [Event::Updated(Box::new(Patch { name: None, ..patch }))]);
    let definition = &flow.operation().definition;
    assert_eq!((definition.description.as_ref(), definition.priority), (None, Priority::High));
    assert_eq!(definition.name, "Release");
    assert_eq!(flow.put(&update), Ok(vec![]));
    assert_eq!(flow.board.get(&flow.scenario.id).unwrap().priority, Priority::High);
}

struct Only(&'static str);

impl AgentRoll for Only {
    fn is_registered(&self, agent: &AgentId) -> bool {
        agent.as_str() == self.0
    }
}

#[test]
fn an_update_is_held_to_the_bounds_of_a_creation() {
    let asks = with(step(1, &[]), |step| step.agent = Some(agent("ada")));
    let mut flow = Flow::of(definition(vec![asks]));
    flow.scenario.world.agents = Arc::new(Only("bob"));
    let mut refused = |patch: Patch| match flow.put(&Command::Update(Box::new(patch))) {
        Err(Rejection::Invalid(faults)) => {
            faults.into_iter().map(|fault| (fault.code, fault.pointer)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let name = Patch { name: Some("x\u{7}".into()), ..Patch::default() };
    assert_eq!(name.faults()[0].0, "/name");
    assert_eq!(refused(name), [("control_character", "/name".to_owned())]);
    let metadata = Patch { metadata: Some(Json::null()), ..Patch::default() };
    assert_eq!(refused(metadata), [("not_an_object", "/metadata".to_owned())]);
    let agents = Patch { agents: Some(vec![agent("eve")]), ..Patch::default() };
    let expected = [("unknown_agent", "/agents/0".to_owned()), ("agent_not_listed", "/agents".to_owned())];
    assert_eq!(refused(agents), expected);
}
