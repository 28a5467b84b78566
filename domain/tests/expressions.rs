//! Expressions: what they yield, what they may read, and that hostile ones cost next to nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

use std::collections::BTreeSet;
use std::time::Instant;

use domain::operation::expression::{Fault, Scope, Seen, condition_references, holds, references, render};
use serde_json::{Value, json};

fn scope() -> Scope {
    let mut scope = Scope { operation: seen(&json!({"metadata": {"repo": "photon"}})), ..Scope::default() };
    let first = json!({"result": {"n": 3, "text": "a }} b", "list": [1, 2]}, "status": "completed"});
    scope.steps.insert(1, seen(&first));
    scope.steps.insert(2, seen(&json!({})));
    scope
}

fn seen(value: &Value) -> Seen {
    Seen::from(value)
}

fn rendered(text: &str) -> Result<Value, Fault> {
    render(&json!(text), &scope())
}

#[test]
fn one_expression_keeps_its_type_and_mixed_text_becomes_text() {
    let inputs = json!({
        "n": "{{ steps[1].result.n }}",
        "all": "{{ steps[1].result }}",
        "mixed": "{{ operation.metadata.repo }}: {{ steps[1].result.list }}",
        "plain": ["x", 1, null],
        "braces": "{{ '}}' }}",
    });
    assert_eq!(
        render(&inputs, &scope()).unwrap(),
        json!({"n": 3, "all": {"n": 3, "text": "a }} b", "list": [1, 2]}, "mixed": "photon: [1,2]",
               "plain": ["x", 1, null], "braces": "}}"})
    );
}

#[test]
fn what_an_expression_yields_is_not_expanded_again() {
    let mut scope = scope();
    scope.steps.insert(3, seen(&json!({"result": "{{ operation.metadata.repo }}"})));
    let yielded = render(&json!("{{ steps[3].result }}"), &scope).unwrap();
    assert_eq!(yielded, json!("{{ operation.metadata.repo }}"));
}

#[test]
fn a_missing_value_is_an_error_unless_it_has_a_default() {
    for missing in ["{{ steps[1].result.missing }}", "x {{ steps[9] }}", "{{ steps[1].a.b }}"] {
        assert_eq!(rendered(missing).unwrap_err().code, "template", "{missing}");
    }
    assert_eq!(rendered("{{ steps[1].result.missing|default('x') }}"), Ok(json!("x")));
}

#[test]
fn the_filters_that_are_offered_do_what_they_say() {
    for (text, expected) in [
        ("{{ steps[1].result.list|join('-') }}", json!("1-2")),
        ("{{ 'a-b-c'|replace('-', '')|upper }}", json!("ABC")),
        ("{{ 'a,b'|split(',') }}", json!(["a", "b"])),
        ("{{ steps[1].result.list|tojson ~ '!' }}", json!("[1,2]!")),
        ("{{ steps[1].result.n|times(2) + 1 }}", json!(7)),
        ("{{ 1.5|times(2) }}", json!(3.0)),
        ("{{ steps[1].result.list|length }}", json!(2)),
        ("{{ ' x '|trim }}", json!("x")),
        ("{{ [3, 1]|min + ['7'|int]|max }}", json!(8)),
        ("{{ 'yes' if steps[1].result.n is number else 'no' }}", json!("yes")),
        ("{{ steps[1]['result']['list'][-1:]|first }}", json!(2)),
    ] {
        assert_eq!(rendered(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_condition_is_true_or_false_or_an_error() {
    assert_eq!(holds("steps[1].result.n > 2", &scope()), Ok(true));
    assert_eq!(holds("{{ steps[1].result.n > 5 }}", &scope()), Ok(false));
    assert_eq!(holds("steps[1].status == 'completed' and not 'x' in 'abc'", &scope()), Ok(true));
    for neither in ["steps[1].result.n", "", "{{ true }} {{ true }}", "{{ true", "'true'"] {
        assert_eq!(holds(neither, &scope()).unwrap_err().code, "template", "{neither}");
    }
}

#[test]
fn references_are_found_and_only_literal_numbers_are_allowed() {
    let found = references(&json!(["{{ steps[1].a ~ steps[ 12 ].b }}", {"x": "{{ 'steps[7]' }}"}])).unwrap();
    assert_eq!(found, BTreeSet::from([1, 12]));
    assert_eq!(condition_references("steps[4].ok or steps[5].ok"), Ok(BTreeSet::from([4, 5])));
}

#[test]
fn steps_cannot_be_reached_by_another_way() {
    for bad in [
        "{{ steps[n] }}",
        "{{ steps }}",
        "{{ steps.first }}",
        "{{ steps[1",
        "{{ 1 + }}",
        "{{ [steps][0] }}",
        "{{ {'a': steps}['a'] }}",
        "{{ self }}",
        "{{ self.steps }}",
        "{{ steps|first }}",
        "{{ loop }}",
        "{{ steps[1:2] }}",
        "{{ steps [operation.n] }}",
        "{{ (steps)[1] }}",
        "{{ debug() }}",
        "{{ dict(a=1) }}",
        "{{ namespace() }}",
        "{{ super() }}",
        "{{ varargs }}",
        "{{ 1 if steps else 2 }}",
        "{{ steps['1'] }}",
    ] {
        assert!(references(&json!(bad)).is_err(), "{bad}");
        assert!(rendered(bad).is_err(), "{bad}");
    }
}

#[test]
fn statements_and_comments_stay_literal_text() {
    for text in ["{% for x in [1] %}x{% endfor %}", "{# no comment #}", "a } b", "}}", "{%- raw -%}"] {
        assert_eq!(rendered(text), Ok(json!(text)));
    }
    assert_eq!(rendered("{% if x %}{{ 1 }}{% endif %}"), Ok(json!("{% if x %}1{% endif %}")));
    for bad in ["{{ 1 %} 2 }}", "{{ 1 }} {{", "{{ {% set x = 1 %} }}", "{{ x = 1 }}"] {
        assert!(references(&json!(bad)).is_err(), "{bad}");
    }
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
            "not ".repeat(long) + "1",
            "1".to_owned() + &"+1".repeat(long),
            "1".to_owned() + &"-1".repeat(long),
            "1".to_owned() + &" if 1 else 1".repeat(long),
            "operation".to_owned() + &".a".repeat(long),
            "operation".to_owned() + &"[0]".repeat(long),
            "'x'".to_owned() + &"|upper".repeat(long),
            "'".to_owned() + &"x".repeat(long) + "'",
            "\\\"".repeat(long),
        ] {
            assert!(references(&json!(format!("{{{{ {bomb} }}}}"))).is_err(), "{}", &bomb[..20]);
            assert!(condition_references(&bomb).is_err(), "{}", &bomb[..20]);
            assert!(render(&json!(format!("{{{{ {bomb} }}}}")), &scope()).is_err(), "{}", &bomb[..20]);
        }
    });
}

#[test]
fn the_deepest_expressions_that_are_allowed_fit_a_small_stack() {
    on_a_small_stack(|| {
        for edge in [
            "(".repeat(16) + "1" + &")".repeat(16),
            "-".repeat(250) + "1",
            "not ".repeat(250) + "1",
            "1".to_owned() + &"-1".repeat(120),
            "1".to_owned() + &" if 1 else 1".repeat(60),
            "1".to_owned() + &" and 1".repeat(120),
            "'x'".to_owned() + &"|upper".repeat(16),
            "operation".to_owned() + &".a".repeat(120),
        ] {
            let text = json!(format!("{{{{ {edge} }}}}"));
            assert_eq!(references(&text), Ok(BTreeSet::new()), "{edge}");
            let _ = render(&text, &scope());
        }
    });
}

#[test]
fn bombs_are_refused_or_stay_small() {
    let mut scope = scope();
    let large = json!({"result": "x".repeat(256 * 1024), "commas": vec![1; 100_000]});
    scope.steps.insert(3, seen(&large));
    let start = Instant::now();
    let sixteen = ["steps[3].result"; 16].join(" ~ ");
    for bomb in [
        "{{ 'x' * 1000000000 }}".to_owned(),
        "{{ [1] * 1000000000 }}".to_owned(),
        "{{ 2 ** 1000000 }}".to_owned(),
        "{{ range(1000000000) }}".to_owned(),
        "{{ range(10**9)|join }}".to_owned(),
        "{{ 'x'|center(1000000000) }}".to_owned(),
        "{{ 'x'|indent(1000000000) }}".to_owned(),
        "{{ '%1000000000d'|format(1) }}".to_owned(),
        "{{ steps[3].result|list|map('upper')|list }}".to_owned(),
        "{{ steps[3].commas|join(steps[3].result) }}".to_owned(),
        "{{ steps[3].result|replace('x', steps[3].result) }}".to_owned(),
        "{{ steps[3].result|replace('', steps[3].result) }}".to_owned(),
        "{{ steps[3].result|split('x') }}".to_owned(),
        "{{ [steps[3], steps[3], steps[3], steps[3], steps[3]] }}".to_owned(),
        format!("{{{{ {sixteen} }}}}"),
        format!("{{{{ ({sixteen})|length }}}}"),
    ] {
        assert!(render(&json!(bomb), &scope).is_err(), "{bomb}");
    }
    let many = json!(vec![format!("{{{{ ({})|length }}}}", ["steps[3].result"; 8].join("~")); 256]);
    assert_eq!(render(&many, &scope).unwrap_err().code, "too_large");
    println!("all bombs together took {:?}", start.elapsed());
}

#[test]
fn the_number_of_expressions_is_bounded() {
    assert!(references(&json!("{{1}}".repeat(64))).is_ok());
    assert!(references(&json!("{{1}}".repeat(65))).is_err());
    assert!(references(&json!(vec!["{{1}}"; 256])).is_ok());
    assert!(references(&json!(vec!["{{1}}"; 257])).is_err());
}

#[test]
fn what_could_not_be_read_again_is_refused() {
    let mut deep = json!(1);
    for _ in 0..90 {
        deep = json!([deep]);
    }
    let mut scope = scope();
    scope.steps.insert(3, seen(&json!({ "result": deep })));
    assert!(render(&json!("{{ steps[3].result }}"), &scope).is_ok());
    let mut inputs = json!("{{ steps[3].result }}");
    for _ in 0..20 {
        inputs = json!({ "in": inputs });
    }
    assert_eq!(render(&inputs, &scope).unwrap_err().code, "too_large");
}

#[test]
fn numbers_that_json_cannot_hold_are_errors_and_not_null() {
    for odd in ["{{ 1 / 0 }}", "{{ 0 / 0 }}", "{{ 9223372036854775807|times(9223372036854775807)|int }}"] {
        assert!(rendered(odd).is_err() || rendered(odd).unwrap() != Value::Null, "{odd}");
    }
    assert!(rendered("{{ 1 / 0 }}").is_err());
}
