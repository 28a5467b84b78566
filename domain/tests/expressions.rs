//! Expressions: what they yield, what they may read, and that hostile ones cost next to nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use domain::Json;
use domain::operation::expression::{
    ExpressionError, Scope, condition_steps, holds, outlook, render, title, title_steps,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn scope() -> Scope {
    let operation = json!({"id": "op_1", "name": "n", "metadata": {"repo": "photon"}});
    let mut scope = Scope { operation: Arc::new(operation), ..Scope::default() };
    let result = json!({"n": 3, "text": "a }} b", "list": [1, 2], "zero": 0, "big": u64::MAX});
    scope.steps.insert(1, Arc::new(json!({"result": result, "status": "completed", "error": null})));
    scope.steps.insert(2, Arc::new(json!({"result": null, "status": "skipped", "error": null})));
    scope
}

fn with_result(result: &Value) -> Scope {
    let mut scope = scope();
    scope.steps.insert(3, Arc::new(json!({"result": result, "status": "completed", "error": null})));
    scope
}

fn in_scope(expression: &str, scope: &Scope) -> Result<Value, ExpressionError> {
    render(&json!({"x": {"$expr": expression}}), scope).map(|mut inputs| inputs["x"].take())
}

fn value(expression: &str) -> Result<Value, ExpressionError> {
    in_scope(expression, &scope())
}

fn checked(expression: &str) -> Result<BTreeSet<u32>, String> {
    let seen = outlook(&json!({"x": {"$expr": expression}}));
    seen.map(|outlook| outlook.steps()).map_err(|fault| fault.message)
}

#[test]
fn one_expression_keeps_its_type_and_a_template_is_a_text() {
    let inputs = json!({
        "n": {"$expr": "steps[1].result.n"},
        "all": {"$expr": "steps[1].result.list"},
        "mixed": {"$template": "{{ operation.metadata.repo }}: {{ steps[1].result.list }}"},
        "plain": ["x", 1, null],
        "braces": {"$template": "{{ '}}' }} {{ \"{{\" }} }} {% if %}"},
    });
    assert_eq!(
        render(&inputs, &scope()).unwrap(),
        json!({"n": 3, "all": [1, 2], "mixed": "photon: [1,2]", "plain": ["x", 1, null],
               "braces": "}} {{ }} {% if %}"})
    );
}

#[test]
fn what_is_not_marked_is_data_and_so_are_keys_and_literals() {
    let code = "struct s x = {{0}}; helm: {{ \"nginx\" }} on: ${{ github.ref }} {{";
    let inputs = json!({
        "prompt": code,
        "{{ 1 }}": [code],
        "schema": {"$literal": {"$ref": "#/a", "$expr": "1", "b": {"$template": "{{ 2 }}"}}},
    });
    let mut expected = inputs.clone();
    expected["schema"] = inputs["schema"]["$literal"].clone();
    assert_eq!(render(&inputs, &scope()), Ok(expected));
}

#[test]
fn what_an_expression_yields_is_never_read_again() {
    let yielded = json!({"a": "{{ operation.id }}", "b": {"$expr": "operation.id"}, "c": {"$ref": 1}});
    assert_eq!(in_scope("steps[3].result", &with_result(&yielded)), Ok(yielded));
}

#[test]
fn a_missing_value_is_an_error_unless_it_has_a_default() {
    for missing in [
        "steps[1].result.missing",
        "steps[1].result.n.b",
        "steps[2].error.code",
        "steps[9]",
        "steps[1].result.list[7]",
        "steps[1].result.list[-3]",
    ] {
        assert_eq!(value(missing).unwrap_err().code, "template", "{missing}");
        assert_eq!(value(&format!("{missing}|default('x')")), Ok(json!("x")), "{missing}");
        assert_eq!(value(&format!("{missing} is defined")), Ok(json!(false)), "{missing}");
    }
    assert_eq!(value("steps[1].result.n|d(7)"), Ok(json!(3)));
}

#[test]
fn the_filters_tests_and_operators_that_are_offered_do_what_they_say() {
    for (text, expected) in [
        ("steps[1].result.list|join('-')", json!("1-2")),
        ("'a-b-c'|replace('-', '')|upper", json!("ABC")),
        ("'a,b'|split(',')", json!(["a", "b"])),
        ("steps[1].result.list|tojson ~ '!'", json!("[1,2]!")),
        ("steps[1].result.n|times(2) + 1", json!(7)),
        ("steps[1].result.n * 2 + 1", json!(7)),
        ("1.5|times(2)", json!(3.0)),
        ("steps[1].result.list|length", json!(2)),
        ("' x '|trim", json!("x")),
        ("([3, 1]|min + ['7'|int]|max)", json!(8)),
        ("'yes' if steps[1].result.n is number else 'no'", json!("yes")),
        ("steps[1]['result']['list'][-1:]|first", json!(2)),
        ("steps[1].result.list + [3]", json!([1, 2, 3])),
        ("{'a': steps[1].result.n, 'b': []}", json!({"a": 3, "b": []})),
        ("-steps[1].result.n", json!(-3)),
        ("5 - -steps[1].result.n", json!(8)),
        ("-steps[1].result.n|abs", json!(3)),
        ("7 // 2 * 2 + 7 % 2", json!(7)),
        ("7 / 2", json!(3.5)),
        ("(2 + 3) ~ '!'", json!("5!")),
        ("steps[1].result.big - 1", json!(u64::MAX - 1)),
        ("'abc'[1:] ~ 'abc'[:1]", json!("bca")),
        ("steps[1].result.n is not odd or 'abc' is startingwith('ab')", json!(true)),
        ("2.71328|round(2)", json!(2.71)),
        ("not 'x' in 'abc' and 'n' in steps[1].result and 2 not in [1, 3.0]", json!(true)),
        ("None is none and True and steps[1].result.zero|bool == False", json!(true)),
    ] {
        assert_eq!(value(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_condition_is_true_or_false_or_an_error() {
    assert_eq!(holds("steps[1].result.n > 2", &scope()), Ok(true));
    assert_eq!(holds(" steps[1].result.n > 5 ", &scope()), Ok(false));
    assert_eq!(holds("steps[1].status == 'completed' and not 'x' in 'abc'", &scope()), Ok(true));
    assert_eq!(holds("steps[1].result.n", &scope()).unwrap_err().code, "type_mismatch");
    for never in ["", "{{ true }}", "{{ true }} {{ true }}", "{{ true", "'true'", "1", "[]"] {
        assert!(condition_steps(never).is_err(), "{never}");
    }
    assert!(condition_steps("{{ true }}").unwrap_err().contains("write the expression without braces"));
}

#[test]
fn order_and_arithmetic_need_one_kind_and_truths_are_never_guessed() {
    for (result, condition) in [
        (json!("12"), "steps[3].result > 80"),
        (json!({"score": "0"}), "steps[3].result.score >= 100"),
        (json!(null), "steps[3].result < 5"),
        (json!([]), "steps[3].result > 5"),
        (json!(true), "steps[3].result <= true or true"),
        (json!(1), "steps[3].result and true"),
        (json!("x"), "true and steps[3].result"),
        (json!(0), "not steps[3].result"),
        (json!("1"), "steps[3].result - 1 == 0"),
        (json!(5), "1 in steps[3].result"),
        (json!(5), "5 in 'text'~steps[3].result"),
        (json!(""), "true if steps[3].result else false"),
    ] {
        let scope = with_result(&result);
        let error = match condition_steps(condition) {
            Ok(_) => holds(condition, &scope).unwrap_err().code,
            Err(_) => "type_mismatch",
        };
        assert_eq!(error, "type_mismatch", "{condition} with {result}");
    }
    for (result, equal) in
        [(json!("12"), false), (json!(12), true), (json!(12.0), true), (json!(null), false)]
    {
        assert_eq!(holds("steps[3].result == 12", &with_result(&result)), Ok(equal), "{result}");
        assert_eq!(holds("steps[3].result != 12", &with_result(&result)), Ok(!equal), "{result}");
    }
    // What stands after a decided `and` or `or` is not run.
    assert_eq!(holds("steps[2].status == 'completed' and steps[2].result.n > 1", &scope()), Ok(false));
}

#[test]
fn one_value_has_one_text() {
    for result in
        [json!(true), json!(null), json!([1, null, true]), json!({"a": true}), json!(1e21), json!("t")]
    {
        let inputs = json!({
            "mixed": {"$template": "v={{ steps[3].result }}"},
            "tilde": {"$expr": "'v=' ~ steps[3].result"},
            "string": {"$template": "v={{ steps[3].result|string }}"},
            "join": {"$expr": "'v=' ~ [steps[3].result]|join"},
        });
        let rendered = render(&inputs, &with_result(&result)).unwrap();
        let text = result.as_str().map_or_else(|| result.to_string(), str::to_owned);
        for name in ["mixed", "tilde", "string", "join"] {
            assert_eq!(rendered[name], json!(format!("v={text}")), "{name} of {result}");
        }
    }
}

#[test]
fn names_are_a_closed_set_and_the_nearest_one_is_named() {
    for (bad, meant) in [
        ("steps[1].rseult", "result"),
        ("steps[1]['reslut'].x", "result"),
        ("steps[1].error.cod", "code"),
        ("operation.nmae", "name"),
        ("operaton.name", "operation"),
        ("step[1].result", "steps"),
        ("steps[1].result|uper", "upper"),
        ("steps[1].result is definde", "defined"),
    ] {
        let fault = checked(bad).unwrap_err();
        assert!(fault.contains(&format!("did you mean {meant}?")), "{bad}: {fault}");
        assert!(value(bad).is_err(), "{bad}");
    }
    for bad in ["steps[1].status.x", "operation.id[0]", "steps[1][operation.name]", "operation[1]"] {
        assert!(checked(bad).is_err(), "{bad}");
    }
    assert_eq!(checked("steps[1].result.rseult ~ operation.metadata.nmae"), Ok(BTreeSet::from([1])));
}

#[test]
fn steps_are_found_and_cannot_be_reached_by_another_way() {
    assert_eq!(checked("steps[1].result ~ steps[ 12 ].status ~ 'steps[7]'"), Ok(BTreeSet::from([1, 12])));
    let found = condition_steps("steps[4].result.ok or steps[5].result.ok");
    assert_eq!(found, Ok(BTreeSet::from([4, 5])));
    assert_eq!(title_steps("a {{ steps[4].result }} steps[7]"), Ok(BTreeSet::from([4])));
    for bad in [
        "steps[n]",
        "steps",
        "steps.first",
        "steps[1",
        "1 +",
        "[steps][0]",
        "{'a': steps}['a']",
        "self",
        "self.steps",
        "steps|first",
        "loop",
        "steps[1:2]",
        "steps [operation.n]",
        "(steps)[1]",
        "debug()",
        "dict(a=1)",
        "namespace()",
        "super()",
        "varargs",
        "1 if steps else 2",
        "steps['1']",
        "steps[-1]",
        "steps[4294967296]",
        "steps[1.0]",
        "steps[1 + 1]",
        "x = 1",
        "1 %} 2",
        "{% set x = 1 %}",
        "",
        "()",
    ] {
        assert!(checked(bad).is_err(), "{bad}");
        assert!(value(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_title_is_shown_as_it_stands_when_it_cannot_be_resolved() {
    assert_eq!(title("Review {{ operation.metadata.repo }}", &scope()), "Review photon");
    for raw in ["of {{ steps[1].result.missing }}", "of {{ steps[1].result.n + 'x' }}", "{{", "{{ '' }}"] {
        assert_eq!(title(raw, &scope()), raw);
    }
    let said = with_result(&json!("a\nb\u{1b}[2J\u{202e}c"));
    assert_eq!(title("{{ steps[3].result }}", &said), "a b [2J c");
    assert_eq!(title("{{ steps[3].result }}", &with_result(&json!("é".repeat(500)))), "é".repeat(120));
    let said = with_result(&json!("{{ operation.id }}"));
    assert_eq!(title("{{ steps[3].result }}", &said), "{{ operation.id }}");
}

/// Runs on a stack that is small even for an unoptimised build, so that a recursion would show.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn deep_and_long_expressions_are_refused_without_recursion() {
    on_a_small_stack(|| {
        let long = 64 * 1024;
        for bomb in [
            "(".repeat(long),
            "[".repeat(long),
            "{".repeat(long),
            "-".repeat(long) + "1",
            "not ".repeat(long) + "true",
            "1".to_owned() + &"+1".repeat(long),
            "1".to_owned() + &"-1".repeat(long),
            "1".to_owned() + &" if true else 1".repeat(long),
            "operation.metadata".to_owned() + &".a".repeat(long),
            "operation.metadata".to_owned() + &"[0]".repeat(long),
            "'x'".to_owned() + &"|upper".repeat(long),
            "'".to_owned() + &"x".repeat(long) + "'",
            "\\\"".repeat(long),
        ] {
            assert!(checked(&bomb).is_err(), "{}", &bomb[..20]);
            assert!(condition_steps(&bomb).is_err(), "{}", &bomb[..20]);
            assert!(value(&bomb).is_err(), "{}", &bomb[..20]);
        }
    });
}

#[test]
fn the_deepest_expressions_that_are_allowed_fit_a_small_stack() {
    on_a_small_stack(|| {
        let n = "operation.metadata.n";
        for edge in [
            "(".repeat(16) + n + &")".repeat(16),
            "-".repeat(250) + n,
            "not ".repeat(250) + n,
            n.to_owned() + &"-1".repeat(120),
            n.to_owned() + &" if true else 1".repeat(60),
            "true".to_owned() + &" and operation.metadata.n".repeat(40),
            n.to_owned() + &"|upper".repeat(120),
            "operation.metadata".to_owned() + &".a".repeat(120),
        ] {
            assert_eq!(checked(&edge), Ok(BTreeSet::new()), "{edge}");
            assert!(value(&edge).is_err(), "{edge}");
        }
        assert_eq!(checked(&format!("{}1{}", "[".repeat(16), "]".repeat(16))), Ok(BTreeSet::new()));
    });
}

#[test]
fn bombs_are_refused_or_stay_small() {
    let mut scope = scope();
    let large = json!({"result": {"x": "x".repeat(256 * 1024), "commas": vec![1; 100_000]}});
    scope.steps.insert(3, Arc::new(large));
    let start = Instant::now();
    let (x, sixteen) = ("steps[3].result.x", ["steps[3].result.x"; 16].join(" ~ "));
    for bomb in [
        "'x' * 1000000000".to_owned(),
        "[1] * 1000000000".to_owned(),
        "2 ** 1000000".to_owned(),
        "range(1000000000)".to_owned(),
        "range(10**9)|join".to_owned(),
        "'x'|center(1000000000)".to_owned(),
        "'x'|indent(1000000000)".to_owned(),
        "'%1000000000d'|format(1)".to_owned(),
        format!("{x}|list|map('upper')|list"),
        format!("steps[3].result.commas|join({x})"),
        format!("{x}|replace('x', {x})"),
        format!("{x}|replace('', {x})"),
        format!("{x}|split('x')"),
        format!("[{x}, {x}, {x}, {x}, {x}]"),
        sixteen.clone(),
    ] {
        assert!(in_scope(&bomb, &scope).is_err(), "{bomb}");
    }
    let many = json!({"x": vec![json!({"$expr": format!("({sixteen})|length")}); 256]});
    assert_eq!(render(&many, &scope).unwrap_err().code, "too_large");
    let compared = json!({"x": vec![json!({"$expr": format!("{x} == {x}")}); 256]});
    assert_eq!(render(&compared, &scope).unwrap_err().code, "too_large");
    println!("all bombs together took {:?}", start.elapsed());
}

#[test]
fn the_number_of_expressions_is_bounded() {
    let template = |count: usize| json!({"x": {"$template": "{{1}}".repeat(count)}});
    assert!(outlook(&template(64)).is_ok() && outlook(&template(65)).is_err());
    let many = |count: usize| json!({"x": vec![json!({"$expr": "1"}); count]});
    assert!(outlook(&many(256)).is_ok() && outlook(&many(257)).is_err());
}

#[test]
fn what_could_not_be_read_again_is_refused() {
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "in": inner }));
    let scope = with_result(&nested(98));
    assert!(render(&json!({"x": {"$expr": "[steps[3].result]"}}), &scope).is_ok());
    let error = render(&json!({"x": {"$expr": "[[steps[3].result]]"}}), &scope).unwrap_err();
    assert_eq!(error.code, "too_large");
}

#[test]
fn inputs_as_a_whole_are_an_object() {
    let whole = json!({"$expr": "steps[3].result"});
    assert_eq!(render(&whole, &with_result(&json!({"a": 1}))), Ok(json!({"a": 1})));
    let error = render(&whole, &with_result(&json!([1]))).unwrap_err();
    assert_eq!(error.code, "invalid_inputs");
}

#[test]
fn numbers_that_json_cannot_hold_are_errors_and_not_null() {
    for odd in [
        "steps[1].result.n / 0",
        "steps[1].result.zero / steps[1].result.zero",
        "steps[1].result.big + 1",
        "9223372036854775807|times(9223372036854775807)|int",
        "1e308 * steps[1].result.n",
        "18446744073709551616",
    ] {
        assert!(value(odd).is_err(), "{odd}");
    }
}

/// Any JSON without marks.
fn data() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), "[${}a-z. ]{0,12}", Just("{{ operation.id }}".to_owned())];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    let key = text.prop_map(|key| key.trim_start_matches('$').to_owned());
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Texts that look like expressions more often than chance would have it.
fn nearly() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z.\\[\\](){}'\"|~+*/%<>=!,:0-9 -]{1,4}",
        Just("steps[1].result".to_owned()),
        Just("operation".to_owned()),
        Just("not in is and or if else".to_owned()),
        Just("{{".to_owned()),
        Just("}}".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn data_is_handed_on_unchanged(data in data()) {
        let inputs = json!({ "x": data });
        prop_assert_eq!(render(&inputs, &scope()), Ok(inputs.clone()));
        prop_assert_eq!(outlook(&inputs).unwrap().steps(), BTreeSet::new());
        let asked = support::with(support::step(1, &[]), |step| step.inputs = Json::from(&inputs));
        let mut flow = support::Flow::of(support::definition(vec![asked]));
        flow.offer(1, "ada").unwrap();
        prop_assert_eq!(flow.inputs(1), inputs.clone());
        let literal = json!({"$literal": {"x": {"$literal": inputs.clone()}}});
        prop_assert_eq!(render(&literal, &scope()), Ok(json!({"x": {"$literal": inputs}})));
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_is_refused_is_never_run(text in nearly()) {
        let (checked, value) = (checked(&text), value(&text));
        prop_assert!(checked.is_ok() || value.is_err(), "{}", text);
        let inputs = json!({"x": {"$template": text}});
        prop_assert!(outlook(&inputs).is_ok() || render(&inputs, &scope()).is_err());
        prop_assert!(title(&text, &scope()).chars().count() <= 120);
        let _ = (condition_steps(&text), holds(&text, &scope()));
    }

    #[test]
    fn numbers_keep_their_order_and_value(one in any::<u64>(), other in any::<i64>()) {
        let scope = with_result(&json!({"one": one, "other": other}));
        let less = in_scope("steps[3].result.one < steps[3].result.other", &scope);
        prop_assert_eq!(less, Ok(json!(i128::from(one) < i128::from(other))));
        prop_assert_eq!(in_scope("steps[3].result.one", &scope), Ok(json!(one)));
        let inputs = json!({"x": {"$template": "{{ steps[3].result.one }}"}});
        prop_assert_eq!(render(&inputs, &scope).unwrap(), json!({"x": one.to_string()}));
    }
}
