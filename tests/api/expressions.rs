//! Expressions over HTTP: data is handed on as it was sent, kinds are never guessed, and what could not be
//! stored or read again is refused at the door.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Answer, Photon, step};

/// Levels of objects within each other.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }))
}

async fn create(photon: &Photon, workflow: Value) -> Answer {
    photon.post("/api/v1/operations", json!({"name": "n", "workflow": workflow})).await
}

/// A body as it is written here: large integers would be lost on the way through a `Value`.
async fn raw(photon: &Photon, path: &str, body: &str) -> Answer {
    let request = photon.request("POST", path).header("content-type", "application/json");
    photon.send(request.body(body.to_owned())).await
}

/// Where step `index` of an operation stands, with its error.
async fn stands(photon: &Photon, id: &str, index: usize) -> (String, String) {
    let shown = photon.get(&format!("/api/v1/operations/{id}")).await.expect(200);
    let step = &shown.data()["workflow"][index];
    let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("errorCode"))
}

/// The inputs of a second step that is reserved after the first one yielded `result`.
async fn second(photon: &Photon, inputs: Value, result: Value) -> Value {
    photon.operation(json!([step(1, "a", &[], json!({})), step(2, "a", &[1], inputs)])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({ "result": result })).await.expect(200);
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    lease["inputs"].clone()
}

#[tokio::test]
async fn braces_are_data_in_inputs_and_are_written_out_in_templates() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let code =
        ["struct s x = {{0}};", "int a[1][1] = {{1}};", "helm: {{ \"nginx\" }}", "on: ${{ github.ref }}"];
    let schema = json!({"$ref": "#/x", "properties": {"$expr": "{{"}});
    let inputs = json!({
        "prompts": code,
        "schema": {"$literal": schema},
        "written": {"$template": "x = {{ '{{' }}0}}; {{ steps[1].result }}"},
    });
    let expected = json!({
        "prompts": code,
        "schema": schema,
        "written": "x = {{0}}; {{ operation.id }}",
    });
    // What a step says is data too.
    assert_eq!(second(&photon, inputs, json!("{{ operation.id }}")).await, expected);
    let unknown = json!([step(1, "a", &[], json!({"schema": schema}))]);
    let refused = create(&photon, unknown).await.refused(422, "invalid_workflow");
    let detail = refused.body["problem"]["errors"][0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("$ref") && detail.contains("$literal"), "{detail}");
}

#[tokio::test]
async fn a_condition_between_different_kinds_fails_its_step_for_good() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    for (condition, result) in [
        ("steps[1].result > 80", json!("12")),
        ("steps[1].result.score >= 100", json!({"score": "0"})),
        ("steps[1].result < 5", json!(null)),
        ("steps[1].result > 5", json!([])),
        ("steps[1].result and true", json!(1)),
    ] {
        let mut second = step(2, "a", &[1], json!({}));
        second["when"] = json!(condition);
        let id = photon.operation(json!([step(1, "a", &[], json!({})), second])).await;
        let lease = photon.claim("a").await;
        photon.report(&lease, "complete", json!({ "result": result })).await.expect(200);
        let expected = ("failed".to_owned(), "type_mismatch".to_owned());
        assert_eq!(stands(&photon, &id, 1).await, expected, "{condition} of {result}");
    }
    let inputs = json!({"x": {"$expr": "steps[1].result + 1"}});
    let id = photon.operation(json!([step(1, "a", &[], json!({})), step(2, "a", &[1], inputs)])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": "1"})).await.expect(200);
    let none = photon.post("/api/v1/agents/a/claim", json!({"wait": "500ms"})).await.expect(200);
    assert_eq!(none.data()["leases"], json!([]));
    assert_eq!(stands(&photon, &id, 1).await, ("failed".to_owned(), "type_mismatch".to_owned()));
}

#[tokio::test]
async fn conditions_names_and_constants_are_checked_at_creation() {
    let photon = Photon::start().await;
    for (place, value, words) in [
        ("when", json!("{{ steps[1].result.ok }}"), "write the expression without braces"),
        ("when", json!("steps[1].rseult.ok"), "did you mean result?"),
        ("inputs/x", json!({"x": {"$expr": "operation.nmae"}}), "did you mean name?"),
        ("inputs/x", json!({"x": {"$expr": "'12' > 80"}}), "a string with a number"),
        ("inputs/x", json!({"x": {"$secret": "TOKEN"}}), "not available yet"),
        ("inputs/x", json!({"x": {"$artifact": {"digest": "b3-0"}}}), "not available yet"),
        ("inputs", json!({"x": "x".repeat(256 * 1024)}), "at most 262144"),
        ("title", json!("Review {{ steps[1].rseult }}"), "did you mean result?"),
    ] {
        let mut second = step(2, "a", &[1], json!({}));
        second[place.split('/').next().unwrap()] = value;
        let refused = create(&photon, json!([step(1, "a", &[], json!({})), second])).await;
        let refused = refused.refused(422, "invalid_workflow");
        let error = &refused.body["problem"]["errors"][0];
        assert_eq!(error["pointer"], json!(format!("/workflow/1/{place}")), "{error}");
        assert!(error["detail"].as_str().unwrap().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_minus_before_a_value_negates_it() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let inputs =
        json!({"x": {"$expr": "-steps[1].result.n"}, "y": {"$template": "{{ 1 - -steps[1].result.n }}"}});
    assert_eq!(second(&photon, inputs, json!({"n": 5})).await, json!({"x": -5, "y": "6"}));
    let mut later = step(2, "a", &[1], json!({}));
    later["when"] = json!("steps[1].result.n > -steps[1].result.n");
    photon.operation(json!([step(1, "a", &[], json!({})), later])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": {"n": 5}})).await.expect(200);
    assert_eq!(photon.claim("a").await["step"], json!(2));
}

#[tokio::test]
async fn one_value_has_one_text_everywhere() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let inputs = json!({
        "mixed": {"$template": "v={{ steps[1].result }}"},
        "tilde": {"$template": "{{ 'v=' ~ steps[1].result }}"},
        "string": {"$expr": "'v=' ~ steps[1].result|string"},
    });
    for (result, text) in [
        (json!(true), "v=true"),
        (json!(null), "v=null"),
        (json!([1, null, true]), "v=[1,null,true]"),
        (json!({"a": true}), "v={\"a\":true}"),
        (json!(1e21), "v=1e+21"),
        (json!("plain"), "v=plain"),
    ] {
        let expected = json!({"mixed": text, "tilde": text, "string": text});
        assert_eq!(second(&photon, inputs.clone(), result).await, expected);
    }
}

#[tokio::test]
async fn integers_come_back_as_they_were_or_are_refused() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let inputs =
        json!({"url": {"$template": "/item/{{ steps[1].result }}"}, "id": {"$expr": "steps[1].result"}});
    for number in [json!(9_007_199_254_740_993_u64), json!(u64::MAX), json!(i64::MIN)] {
        let got = second(&photon, inputs.clone(), number.clone()).await;
        assert_eq!(got, json!({"url": format!("/item/{number}"), "id": number}));
    }
    for number in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
        let mut once = step(1, "a", &[], json!({}));
        once["retryPolicy"] = json!({"maxAttempts": 1});
        let id = photon.operation(json!([once])).await;
        let lease = photon.claim("a").await;
        let path = format!("/api/v1/leases/{}/complete", lease["leaseId"].as_str().unwrap());
        let refused = raw(&photon, &path, &format!(r#"{{"result": {{"n": {number}}}}}"#)).await;
        let refused = refused.refused(422, "invalid_field");
        assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/result"));
        assert!(refused.body["error"].as_str().unwrap().contains("send it as a string"), "{}", refused.body);
        // No step waits for a report that can never be taken.
        assert_eq!(stands(&photon, &id, 0).await, ("failed".to_owned(), "invalid_result".to_owned()));
        let body = format!(
            r#"{{"name": "n", "workflow": [
            {{"step": 1, "platform": "worker", "action": "a", "inputs": {{"n": {number}}}}}]}}"#
        );
        let refused = raw(&photon, "/api/v1/operations", &body).await.refused(422, "invalid_workflow");
        assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/workflow/0/inputs"));
        let body = format!(r#"{{"id": "b", "metadata": {{"n": {number}}}}}"#);
        let refused = raw(&photon, "/api/v1/agents", &body).await.refused(422, "invalid_field");
        assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/metadata"));
    }
}

#[tokio::test]
async fn what_is_deeper_than_a_hundred_levels_is_refused_and_what_is_not_can_be_read() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let id = photon.operation(json!([step(1, "a", &[], nested(100))])).await;
    let lease = photon.claim("a").await;
    assert_eq!(lease["inputs"], nested(100));
    let deep = json!({"progress": 1, "checkpoint": nested(101)});
    let refused = photon.report(&lease, "progress", deep).await.refused(422, "invalid_field");
    assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/checkpoint"));
    let usage = json!({"progress": 1, "usage": nested(101)});
    photon.report(&lease, "progress", usage).await.refused(422, "invalid_field");
    photon.report(&lease, "complete", json!({"result": nested(100)})).await.expect(200);
    let shown = photon.get(&format!("/api/v1/operations/{id}")).await.expect(200);
    assert_eq!(shown.data()["results"]["1"], nested(100));
    photon.get("/api/v1/events").await.expect(200);
    for levels in [101, 124, 126] {
        let refused = create(&photon, json!([step(1, "a", &[], nested(levels))])).await;
        let refused = refused.refused(422, "invalid_workflow");
        assert_eq!(refused.body["problem"]["errors"][0]["pointer"], json!("/workflow/0/inputs"));
        let agent = json!({"id": "deep", "metadata": nested(levels)});
        photon.post("/api/v1/agents", agent).await.refused(422, "invalid_field");
        let body =
            json!({"name": "n", "workflow": [step(1, "a", &[], json!({}))], "metadata": nested(levels)});
        photon.post("/api/v1/operations", body).await.refused(422, "invalid_workflow");
    }
    // An expression cannot build what could not be read.
    let inputs = json!({"x": {"$expr": "[[steps[1].result]]"}});
    let id = photon.operation(json!([step(1, "a", &[], json!({})), step(2, "a", &[1], inputs)])).await;
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", json!({"result": nested(99)})).await.expect(200);
    photon.post("/api/v1/agents/a/claim", json!({"wait": "500ms"})).await.expect(200);
    assert_eq!(stands(&photon, &id, 1).await, ("failed".to_owned(), "too_large".to_owned()));
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_fails_the_attempt_and_is_tried_again_by_policy() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut first = step(1, "a", &[], json!({}));
    first["retryPolicy"] = json!({"maxAttempts": 4, "initialDelayMs": 1, "jitter": 0.0});
    let mut write = step(2, "a", &[1], json!({}));
    write["effect"] = json!("write");
    let id = photon.operation(json!([first, write])).await;
    let lease = photon.claim("a").await;
    let large = json!({"result": "x".repeat(257 * 1024)});
    photon.report(&lease, "complete", large.clone()).await.refused(422, "too_large");
    let lease = photon.claim("a").await;
    assert_eq!(lease["attempt"], json!(2));
    photon.report(&lease, "complete", json!({"result": nested(101)})).await.refused(422, "invalid_field");
    let lease = photon.claim("a").await;
    assert_eq!(lease["attempt"], json!(3));
    let whole = json!({"result": "x".repeat(1024 * 1024)});
    photon.report(&lease, "complete", whole).await.refused(413, "body_too_large");
    let lease = photon.claim("a").await;
    assert_eq!(lease["attempt"], json!(4));
    photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    // What has happened must not happen twice because its result was too large.
    let lease = photon.claim("a").await;
    photon.report(&lease, "complete", large).await.refused(422, "too_large");
    assert_eq!(stands(&photon, &id, 1).await, ("failed".to_owned(), "too_large".to_owned()));
}

#[tokio::test]
async fn a_title_is_shown_raw_until_its_step_is_reserved() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let titled = |number: u32, title: &str| {
        let mut titled = step(number, "a", if number == 1 { &[] } else { &[1] }, json!({}));
        titled["title"] = json!(title);
        titled
    };
    let (second, third) = ("Review {{ steps[1].result.path }}", "Of {{ steps[1].result.missing }}");
    let workflow = json!([titled(1, "Plain"), titled(2, second), titled(3, third)]);
    let id = photon.operation(workflow).await;
    let titles = async || {
        let shown = photon.get(&format!("/api/v1/operations/{id}")).await.expect(200);
        let steps = shown.data()["workflow"].as_array().unwrap().clone();
        steps.iter().map(|step| step["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lease = photon.claim("a").await;
    assert_eq!(
        (&lease["title"], titles().await),
        (&json!("Plain"), vec!["Plain".into(), second.into(), third.into()])
    );
    photon.report(&lease, "complete", json!({"result": {"path": "src/a.rs"}})).await.expect(200);
    for expected in ["Review src/a.rs", third] {
        let lease = photon.claim("a").await;
        assert_eq!(lease["title"], json!(expected));
        photon.report(&lease, "complete", json!({"result": 1})).await.expect(200);
    }
    assert_eq!(titles().await, ["Plain", "Review src/a.rs", third]);
    let events = photon.get("/api/v1/events?limit=100").await.expect(200);
    let reserved =
        events.data().as_array().unwrap().iter().filter(|event| event["type"] == json!("step.reserved"));
    let reserved: Vec<&Value> = reserved.map(|event| &event["data"]["title"]).collect();
    assert_eq!(reserved, [&json!("Plain"), &json!("Review src/a.rs"), &json!(third)]);
}
