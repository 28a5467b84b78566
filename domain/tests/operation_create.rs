//! Creating an operation: what is accepted, and every refusal with its code and place.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::sync::Arc;

use domain::operation::definition::{Definition, StepDefinition};
use domain::operation::workflow::{Fault, faults};
use domain::operation::{Command, Rejection, Status};
use domain::world::AgentRoll;
use domain::{AgentId, Given, Json, Timestamp, World};
use serde_json::{Value, json};
use support::{Flow, agent, definition, names, step, when, with, world};

struct Only(&'static str);

impl AgentRoll for Only {
    fn is_registered(&self, agent: &AgentId) -> bool {
        agent.as_str() == self.0
    }
}

fn found_in(world: &World, definition: &Definition) -> Vec<Fault> {
    faults(definition, &Given { now: Timestamp::default(), world })
}

/// Code and place of every fault.
fn found(definition: &Definition) -> Vec<(&'static str, String)> {
    let world = World { agents: Arc::new(Only("ada")), ..world() };
    found_in(&world, definition).into_iter().map(|fault| (fault.code, fault.pointer)).collect()
}

fn found_of(steps: Vec<StepDefinition>) -> Vec<(&'static str, String)> {
    found(&definition(steps))
}

fn one(code: &'static str, pointer: &str) -> Vec<(&'static str, String)> {
    vec![(code, pointer.to_owned())]
}

#[test]
fn a_plain_workflow_has_no_faults_and_starts_at_once() {
    let mut flow = Flow::new();
    let asked = Command::Create(Box::new(definition(vec![step(1, &[]), step(2, &[1])])));
    assert_eq!(names(&flow.put(&asked).unwrap()), ["Created", "Started"]);
    assert_eq!(flow.statuses(), ["ready", "pending"]);
    assert_eq!(flow.put(&asked), Ok(vec![]));
}

#[test]
fn another_definition_under_the_same_id_is_refused_but_a_repetition_is_not_even_after_an_update() {
    let asked = definition(vec![step(1, &[])]);
    let mut flow = Flow::of(asked.clone());
    let patch = domain::operation::event::Patch { name: Some("Other".into()), ..Default::default() };
    flow.put(&Command::Update(Box::new(patch))).unwrap();
    assert_eq!(flow.put(&Command::Create(Box::new(asked))), Ok(vec![]));
    let other = definition(vec![step(2, &[])]);
    assert_eq!(flow.put(&Command::Create(Box::new(other))), Err(Rejection::Taken));
}

#[test]
fn without_auto_start_it_waits_to_be_started_once() {
    let mut flow = Flow::of(Definition { auto_start: false, ..definition(vec![step(1, &[])]) });
    assert_eq!((flow.operation().status(), flow.status(1)), (Status::Pending, "pending"));
    assert_eq!(flow.operation().run.blocked_on(0, flow.scenario.now).unwrap().cause().name(), "start");
    assert_eq!(names(&flow.put(&Command::Start).unwrap()), ["Started"]);
    assert_eq!(flow.put(&Command::Start), Err(Rejection::NotPending { status: "in_progress" }));
}

#[test]
fn a_command_to_an_unknown_operation_is_refused() {
    for command in [Command::Start, Command::ExpireDeadline, Command::Cancel { by: "x".into() }] {
        assert_eq!(Flow::new().put(&command), Err(Rejection::Unknown));
    }
}

#[test]
fn an_empty_workflow_is_refused() {
    assert_eq!(found_of(vec![]), one("empty", "/workflow"));
}

#[test]
fn faults_of_the_graph_are_named() {
    assert_eq!(found_of(vec![step(1, &[]), step(1, &[])]), one("duplicate_step", "/workflow/1/step"));
    assert_eq!(found_of(vec![step(1, &[9])]), one("unknown_dependency", "/workflow/0/dependencies"));
    assert_eq!(found_of(vec![step(1, &[1, 1])]), one("self_dependency", "/workflow/0/dependencies"));
}

#[test]
fn a_cycle_is_named_step_by_step() {
    let steps = vec![step(1, &[]), step(3, &[1, 5]), step(5, &[3]), step(7, &[5])];
    let found = found_in(&world(), &definition(steps));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].step), ("cycle", Some(3)));
    assert!(found[0].detail.ends_with(": 3 → 5 → 3"), "{}", found[0].detail);
}

#[test]
fn a_dependency_that_is_named_twice_counts_once() {
    let mut flow = Flow::of(definition(vec![step(1, &[]), step(2, &[1, 1, 1])]));
    flow.done(1, json!(1));
    assert_eq!(flow.status(2), "ready");
}

#[test]
fn platforms_and_actions_must_be_there_and_listed() {
    let on = |platform: &str, action: &str| {
        with(step(1, &[]), |step| {
            (step.platform, step.action) = (platform.parse().unwrap(), action.parse().unwrap());
        })
    };
    assert_eq!(found_of(vec![on("moon", "do")]), one("platform_unavailable", "/workflow/0/platform"));
    assert_eq!(found_of(vec![on("cursor", "fly")]), one("unknown_action", "/workflow/0/action"));
    assert_eq!(found_of(vec![on("cursor", "edit")]), []);
    let listed = |platform: &str| Definition {
        platforms: vec![platform.parse().unwrap()],
        ..definition(vec![on("worker", "do")])
    };
    assert_eq!(found(&listed("cursor")), one("platform_not_listed", "/workflow/0/platform"));
    assert_eq!(found(&listed("worker")), []);
    assert_eq!(
        found(&listed("moon")),
        [
            ("platform_unavailable", "/platforms/0".to_owned()),
            ("platform_not_listed", "/workflow/0/platform".to_owned()),
        ]
    );
}

#[test]
fn agents_must_be_registered_and_listed() {
    let by = |name: &str| with(step(1, &[]), |step| step.agent = Some(agent(name)));
    assert_eq!(found_of(vec![by("ada")]), []);
    assert_eq!(found_of(vec![by("bob")]), one("unknown_agent", "/workflow/0/agent"));
    let of = |names: &[&str], step| Definition {
        agents: names.iter().map(|name| agent(name)).collect(),
        ..definition(vec![step])
    };
    assert_eq!(found(&of(&["ada"], by("ada"))), []);
    let expected =
        [("unknown_agent", "/agents/0".to_owned()), ("agent_not_listed", "/workflow/0/agent".to_owned())];
    assert_eq!(found(&of(&["bob"], by("ada"))), expected);
}

#[test]
fn timeouts_and_retries_must_be_within_bounds() {
    let changed = |change: fn(&mut StepDefinition)| found_of(vec![with(step(1, &[]), change)]);
    for change in
        [(|step| step.timeout_ms = 99) as fn(&mut StepDefinition), |step| step.timeout_ms = 604_800_001]
    {
        assert_eq!(changed(change), one("out_of_bounds", "/workflow/0/timeout"));
    }
    for (change, field) in [
        ((|step| step.retry.max_attempts = 0) as fn(&mut StepDefinition), "maxAttempts"),
        (|step| step.retry.initial_delay_ms = u64::MAX, "initialDelayMs"),
        (|step| step.retry.max_delay_ms = u64::MAX, "maxDelayMs"),
        (|step| step.retry.backoff_multiplier = f64::NAN, "backoffMultiplier"),
        (|step| step.retry.jitter = -0.1, "jitter"),
    ] {
        assert_eq!(changed(change), one("out_of_bounds", &format!("/workflow/0/retryPolicy/{field}")));
    }
    let codes = changed(|step| step.retry.non_retryable_errors = vec!["two\nlines".into()]);
    assert_eq!(codes, one("control_character", "/workflow/0/retryPolicy/nonRetryableErrors/0"));
}

#[test]
fn a_template_may_read_ancestors_only() {
    let reads = |dependencies: &[u32], text: &str| {
        let inputs = json!({"x": {"$template": text}});
        let reader = with(step(3, dependencies), |step| step.inputs = Json::from(inputs));
        found_of(vec![step(1, &[]), step(2, &[1]), reader])
    };
    assert_eq!(reads(&[2], "{{ steps[1].result }}"), []);
    assert_eq!(reads(&[1], "{{ steps[2].result }}"), one("not_an_ancestor", "/workflow/2/inputs/x"));
    assert_eq!(reads(&[1], "{{ steps[3].result }}"), one("not_an_ancestor", "/workflow/2/inputs/x"));
    assert_eq!(reads(&[1], "{{ steps[9].result }}"), one("not_an_ancestor", "/workflow/2/inputs/x"));
    assert_eq!(reads(&[1], "{{ steps }}"), one("template", "/workflow/2/inputs/x"));
    assert_eq!(found_of(vec![when(1, &[], "1 +")]), one("template", "/workflow/0/when"));
    let waiting = vec![step(1, &[]), when(2, &[], "steps[1].result.ok")];
    assert_eq!(found_of(waiting), one("not_an_ancestor", "/workflow/1/when"));
}

#[test]
fn marks_conditions_and_titles_are_checked_before_anything_runs() {
    let given = |inputs: Value| {
        found_of(vec![step(1, &[]), with(step(2, &[1]), |step| step.inputs = Json::from(inputs))])
    };
    for good in [
        json!({"schema": {"$literal": {"$ref": "#/x", "$expr": "1 +"}}, "code": "struct s x = {{0}};"}),
        json!({"x": {"$expr": "steps[1].result"}, "y": [{"$template": "of {{ operation.name }}"}]}),
        json!({"x": {"$template": "{{ '{{' }} 0 }}"}}),
        json!({"$expr": "steps[1].result"}),
        json!({"$literal": {"a": 1}}),
        json!({"price": "$5", "{{ key }}": 1}),
    ] {
        assert_eq!(given(good.clone()), [], "{good}");
    }
    for bad in [
        json!({"x": {"$ref": "#/x"}}),
        json!({"x": {"$expr": "1", "y": 2}}),
        json!({"x": {"y": 1, "$template": "a"}}),
        json!({"x": {"$expr": 1}}),
        json!({"x": {"$template": "{{ 1"}}),
        json!({"x": {"$expr": "{{ 1 }}"}}),
        json!({"x": {"$artifact": {"digest": "b3-0"}}}),
        json!({"x": {"$secret": "TOKEN"}}),
        json!({"x": {"$expr": "'12' > 80"}}),
        json!({"x": {"$expr": "steps[1].rseult"}}),
        json!({"x": {"$expr": "operation.nmae"}}),
    ] {
        assert_eq!(given(bad.clone()), one("template", "/workflow/1/inputs/x"), "{bad}");
    }
    for bad in
        [json!({"$literal": [1]}), json!({"$template": "text"}), json!({"$expr": "steps[1].result ~ 'x'"})]
    {
        assert_eq!(given(bad.clone()), one("template", "/workflow/1/inputs"), "{bad}");
    }
    let deep = json!({"a": 1, "b/~c": [{"$expr": "1"}, {"d": {"$expr": "1 +"}}]});
    assert_eq!(given(deep), one("template", "/workflow/1/inputs/b~1~0c/1/d"));
    let unread = json!({"a": {"b": [{"$expr": "steps[9].result"}]}});
    assert_eq!(given(unread), one("not_an_ancestor", "/workflow/1/inputs/a/b/0"));
    for bad in ["{{ true }}", "steps[1].result and 5", "'true'", "steps[1].status.length", "5"] {
        assert_eq!(
            found_of(vec![step(1, &[]), when(2, &[1], bad)]),
            one("template", "/workflow/1/when"),
            "{bad}"
        );
    }
    let titled = |title: &str| found_of(vec![with(step(1, &[]), |step| step.title = Some(title.into()))]);
    assert_eq!(titled("Review {{ operation.name }}"), []);
    assert_eq!(titled("Review {{ operation.nmae }}"), one("template", "/workflow/0/title"));
    assert_eq!(titled("Review {{ steps[1].result }}"), one("not_an_ancestor", "/workflow/0/title"));
    assert_eq!(titled(&"x".repeat(1_025)), one("too_long", "/workflow/0/title"));
    assert_eq!(titled("a\u{202e}b"), one("control_character", "/workflow/0/title"));
}

#[test]
fn constants_that_can_never_be_resolved_are_refused() {
    let given = |inputs: Value| {
        found_of(vec![step(1, &[]), with(step(2, &[1]), |step| step.inputs = Json::from(inputs))])
    };
    let large = "x".repeat(256 * 1024);
    let too_large = one("too_large", "/workflow/1/inputs");
    assert_eq!(given(json!({"x": large})), too_large);
    assert_eq!(given(json!({"x": {"$template": format!("{large}{{{{ steps[1].result }}}}")}})), too_large);
    assert_eq!(given(json!({"x": {"$literal": large}, "y": {"$expr": "steps[1].result"}})), too_large);
    assert_eq!(given(json!({"x": "y".repeat(256 * 1024 - 8)})), []);
}

#[test]
fn integers_and_levels_beyond_the_bounds_are_refused() {
    let given =
        |inputs: &str| found_of(vec![with(step(1, &[]), |step| step.inputs = Json::read(inputs).unwrap())]);
    let nested =
        |levels: usize| format!("{}{}", r#"{"a":"#.repeat(levels - 1), "{}") + &"}".repeat(levels - 1);
    assert_eq!(given(r#"{"x": 18446744073709551615, "y": -9223372036854775808}"#), []);
    let integer = one("integer_out_of_bounds", "/workflow/0/inputs");
    assert_eq!(given(r#"{"x": 18446744073709551616}"#), integer);
    assert_eq!(given(r#"{"x": {"$expr": "1"}, "y": -9223372036854775809}"#), integer);
    assert_eq!(given(&nested(100)), []);
    assert_eq!(given(&nested(101)), one("too_deep", "/workflow/0/inputs"));
    let mut metadata = definition(vec![step(1, &[])]);
    metadata.metadata = Json::read(&nested(101)).unwrap();
    assert_eq!(found(&metadata), one("too_deep", "/metadata"));
}

#[test]
fn texts_and_lists_must_be_short_and_plain() {
    let changed = |change: fn(&mut Definition)| {
        let mut changed = definition(vec![step(1, &[])]);
        change(&mut changed);
        found(&changed)
    };
    assert_eq!(changed(|it| it.name = "x".repeat(257)), one("too_long", "/name"));
    assert_eq!(changed(|it| it.name = "a\u{0}b".into()), one("control_character", "/name"));
    assert_eq!(changed(|it| it.name = String::new()), one("empty", "/name"));
    assert_eq!(changed(|it| it.description = Some("x".repeat(4_097))), one("too_long", "/description"));
    assert_eq!(changed(|it| it.metadata = Json::from(json!([]))), one("not_an_object", "/metadata"));
    let large = changed(|it| it.metadata = Json::from(json!({"x": "x".repeat(64 * 1024)})));
    assert_eq!(large, one("too_large", "/metadata"));
    assert_eq!(changed(|it| it.agents = vec![agent("ada"); 65]), one("too_many", "/agents"));
    let platforms = changed(|it| it.platforms = vec!["worker".parse().unwrap(); 65]);
    assert_eq!(platforms, one("too_many", "/platforms"));
    assert_eq!(changed(|it| it.max_parallel = Some(0)), one("out_of_bounds", "/maxParallel"));
    let inputs = changed(|it| Arc::make_mut(&mut it.workflow)[0].inputs = Json::null());
    assert_eq!(inputs, one("not_an_object", "/workflow/0/inputs"));
    let needs = changed(|it| Arc::make_mut(&mut it.workflow)[0].requires.capabilities = vec![String::new()]);
    assert_eq!(needs, one("malformed", "/workflow/0/requires/capabilities/0"));
}

#[test]
fn what_is_too_much_in_all_is_refused_before_anything_else_is_looked_at() {
    let mut many: Vec<StepDefinition> = (0..10_001).map(|number| step(number, &[])).collect();
    assert_eq!(found_of(many.clone()), one("too_many_steps", "/workflow"));
    many.truncate(10_000);
    many[0].dependencies = vec![7; 100_001];
    assert_eq!(found_of(many.clone()), one("too_many_dependencies", "/workflow"));
    many[0].dependencies.clear();
    many[0].inputs = Json::from(json!({"x": "x".repeat(768 * 1024)}));
    assert_eq!(found_of(many), one("too_large", "/workflow"));
}

#[test]
fn all_faults_are_listed_at_once_up_to_a_hundred() {
    let bad = with(step(1, &[9]), |step| step.timeout_ms = 0);
    assert_eq!(found_of(vec![bad.clone(), bad.clone()]).len(), 5);
    assert_eq!(found_of(vec![bad; 500]).len(), 100);
}
