//! Operations over HTTP: the diamond, results by expression, lists, changes, keys, long polls.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::{Photon, step};

fn diamond() -> Value {
    let both = json!({"left": {"$expr": "steps[2].result.n"}, "right": {"$expr": "steps[3].result.n"},
        "text": {"$template": "{{ steps[2].result.n }} and {{ steps[3].result.n }}"}});
    json!([
        step(1, "begin", &[], json!({})),
        step(2, "left", &[1], json!({"from": {"$expr": "steps[1].result"}})),
        step(3, "right", &[1], json!({"from": {"$expr": "steps[1].result"}})),
        step(4, "join", &[2, 3], both),
    ])
}

async fn complete(photon: &Photon, lease: &Value, result: Value) {
    photon.report(lease, "complete", json!({"result": result})).await.expect(200);
}

#[tokio::test]
async fn a_diamond_runs_in_dependency_order_and_hands_results_on() {
    let photon = Photon::start().await;
    photon.agent("one", &[]).await;
    photon.agent("two", &[]).await;
    let id = photon.operation(diamond()).await;
    let first = photon.claim("one").await;
    assert_eq!(
        (&first["action"], &first["attempt"], &first["step"]),
        (&json!("begin"), &json!(1), &json!(1))
    );
    let nothing = photon.post("/api/v1/agents/two/claim", json!({"wait": "0ms"})).await.expect(200);
    assert_eq!(nothing.data()["leases"], json!([]));
    complete(&photon, &first, json!({"seed": 7})).await;
    let (left, right) = (photon.claim("one").await, photon.claim("two").await);
    assert_eq!((&left["action"], &right["action"]), (&json!("left"), &json!("right")));
    assert_eq!(left["inputs"], json!({"from": {"seed": 7}}));
    complete(&photon, &left, json!({"n": 1})).await;
    complete(&photon, &right, json!({"n": 2})).await;
    let join = photon.claim("two").await;
    assert_eq!(join["inputs"], json!({"left": 1, "right": 2, "text": "1 and 2"}));
    complete(&photon, &join, json!("done")).await;
    let shown = photon.shown(&id).await;
    assert_eq!((&shown["status"], &shown["progress"]), (&json!("completed"), &json!(100)));
    assert_eq!(shown["results"], json!({"1": {"seed": 7}, "2": {"n": 1}, "3": {"n": 2}, "4": "done"}));
    let took = |from: &str| format!("step.{from}");
    let mut expected = vec!["operation.created".to_owned(), "operation.started".to_owned()];
    expected.extend(["reserved", "started", "completed"].map(took));
    expected.push("operation.progressed".to_owned());
    expected.extend(["reserved", "reserved"].map(took));
    for _ in 0..2 {
        expected.extend(["started", "completed"].map(took));
        expected.push("operation.progressed".to_owned());
    }
    expected.extend(["reserved", "started", "completed"].map(took));
    expected.extend(["operation.progressed".to_owned(), "operation.completed".to_owned()]);
    assert_eq!(photon.history(&id).await, expected);
}

#[tokio::test]
async fn a_creation_says_where_it_is_and_at_which_revision() {
    let photon = Photon::start().await;
    let body = json!({"name": "n", "priority": "high", "metadata": {"repo": "r"}, "workflow": diamond()});
    let created = photon.post("/api/v1/operations", body).await.expect(201);
    let id = created.data()["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("/api/v1/operations/{id}"));
    assert_eq!((created.header("etag"), &created.data()["revision"]), ("\"2\"", &json!(2)));
    assert!(created.header("photon-position").parse::<u64>().unwrap() >= 2);
    assert!(created.body["requestId"].is_string() && created.body["processingTime"].is_number());
    let step = &created.data()["workflow"][3];
    assert_eq!(step["blockedOn"], json!({"kind": "dependencies", "steps": [2, 3]}));
    let unchanged =
        photon.request("GET", &format!("/api/v1/operations/{id}")).header("if-none-match", "\"2\"");
    photon.send(unchanged).await.expect(304);
}

#[tokio::test]
async fn every_fault_of_a_workflow_is_named_with_its_place() {
    let photon = Photon::start().await;
    let workflow = json!([
        {"step": 1, "platform": "worker", "action": "a", "dependencies": [2], "agent": "nobody"},
        {"step": 2, "platform": "worker", "action": "a", "dependencies": [1]},
        {"step": 2, "platform": "nowhere", "action": "a", "dependencies": [9]},
        {"step": 4, "platform": "worker", "action": "a", "dependencies": [4], "timeout": 1},
    ]);
    let refused = photon.post("/api/v1/operations", json!({"name": "n", "workflow": workflow})).await;
    let refused = refused.refused(422, "invalid_workflow");
    let errors = refused.body["problem"]["errors"].as_array().unwrap().clone();
    let has = |code: &str, pointer: &str| {
        errors.iter().any(|error| error["code"] == json!(code) && error["pointer"] == json!(pointer))
    };
    assert!(has("unknown_agent", "/workflow/0/agent"), "{errors:?}");
    assert!(has("duplicate_step", "/workflow/2/step"), "{errors:?}");
    assert!(has("platform_unavailable", "/workflow/2/platform"), "{errors:?}");
    assert!(has("unknown_dependency", "/workflow/2/dependencies"), "{errors:?}");
    assert!(has("self_dependency", "/workflow/3/dependencies"), "{errors:?}");
    assert!(has("out_of_bounds", "/workflow/3/timeout"), "{errors:?}");
    let list = photon.get("/api/v1/operations").await.expect(200);
    assert_eq!(list.data(), &json!([]));
}

#[tokio::test]
async fn a_repeated_key_gives_the_first_answer_again_even_after_a_restart() {
    let mut photon = Photon::start().await;
    let body = json!({"name": "n", "workflow": diamond()});
    let send = |photon: &Photon, body: &Value| {
        photon.request("POST", "/api/v1/operations").header("idempotency-key", "k-1").json(body)
    };
    let first = photon.send(send(&photon, &body)).await.expect(201);
    photon.agent("one", &[]).await;
    photon.claim("one").await;
    let again = photon.send(send(&photon, &body)).await.expect(201);
    assert_eq!((again.data(), again.header("idempotency-replayed")), (first.data(), "true"));
    photon.kill();
    photon.restart().await;
    let after = photon.send(send(&photon, &body)).await.expect(201);
    assert_eq!((after.data(), after.header("etag")), (first.data(), first.header("etag")));
    let other = json!({"name": "other", "workflow": diamond()});
    photon.send(send(&photon, &other)).await.refused(422, "idempotency_key_reused");
    let list = photon.get("/api/v1/operations?count=true").await.expect(200);
    assert_eq!(list.body["page"]["total"], json!(1));
}

#[tokio::test]
async fn two_racing_creations_with_one_key_make_one_operation() {
    let photon = Photon::start().await;
    let body = json!({"name": "n", "workflow": diamond()});
    let send = || photon.request("POST", "/api/v1/operations").header("idempotency-key", "race").json(&body);
    let (a, b, c) = tokio::join!(photon.send(send()), photon.send(send()), photon.send(send()));
    assert_eq!((a.status, b.status, c.status), (201, 201, 201));
    assert_eq!((a.data(), b.data()), (b.data(), c.data()));
}

#[tokio::test]
async fn lists_are_paged_filtered_and_stable_under_inserts() {
    let photon = Photon::start().await;
    for number in 0..7 {
        let priority = if number % 2 == 0 { "high" } else { "low" };
        let metadata = json!({"number": number});
        let body = json!({"name": format!("n{number}"), "priority": priority, "metadata": metadata,
            "workflow": diamond()});
        photon.post("/api/v1/operations", body).await.expect(201);
    }
    let mut names: Vec<String> = Vec::new();
    let mut path = "/api/v1/operations?limit=3&sort=createdAt".to_owned();
    loop {
        let page = photon.get(&path).await.expect(200);
        names.extend(
            page.data().as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()),
        );
        photon.operation(diamond()).await;
        let Some(cursor) = page.body["page"]["nextCursor"].as_str() else { break };
        assert!(page.header("link").contains("rel=\"next\""));
        path = format!("/api/v1/operations?limit=3&sort=createdAt&cursor={cursor}");
        if names.len() >= 7 {
            break;
        }
    }
    assert_eq!(names[..7], ["n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
    for (filter, count) in [
        ("priority=high", 4),
        ("priority=low", 3),
        ("metadata.number=3", 1),
        ("q=N5", 1),
        ("status=failed", 0),
        ("platform=worker&priority=low", 3),
        ("agent=nobody", 0),
        ("createdBefore=2020-01-01T00:00:00Z", 0),
    ] {
        let list = photon.get(&format!("/api/v1/operations?count=true&{filter}")).await.expect(200);
        assert_eq!(list.body["page"]["total"], json!(count), "{filter}");
    }
}

#[tokio::test]
async fn a_change_holds_to_its_revision_and_merges() {
    let photon = Photon::start().await;
    let id = photon.operation(diamond()).await;
    let path = format!("/api/v1/operations/{id}");
    let stale = photon.request("PUT", &path).header("if-match", "\"1\"").json(&json!({"name": "x"}));
    photon.send(stale).await.refused(412, "revision_mismatch");
    let body = json!({"name": "x", "deadline": "2099-01-01T00:00:00Z"});
    let changed = photon.send(photon.request("PUT", &path).header("if-match", "\"2\"").json(&body)).await;
    let changed = changed.expect(200);
    assert_eq!((&changed.data()["name"], &changed.data()["revision"]), (&json!("x"), &json!(3)));
    let same = photon.put(&path, json!({"name": "x"})).await.expect(200);
    assert_eq!(same.data()["revision"], json!(3));
    let removed = photon.put(&path, json!({"deadline": null})).await.expect(200);
    assert!(removed.data().get("deadline").is_none());
    photon.put(&path, json!({"workflow": []})).await.refused(400, "unknown_field");
    photon.put(&path, json!({"agents": ["nobody"]})).await.refused(422, "invalid_field");
}

#[tokio::test]
async fn an_operation_can_wait_for_its_start_and_be_cancelled_once() {
    let photon = Photon::start().await;
    let body = json!({"name": "n", "autoStart": false, "workflow": diamond()});
    let created = photon.post("/api/v1/operations", body).await.expect(201);
    assert_eq!(created.data()["status"], json!("pending"));
    assert_eq!(created.data()["workflow"][0]["blockedOn"]["kind"], json!("start"));
    let path = format!("/api/v1/operations/{}", created.data()["id"].as_str().unwrap());
    let start = || photon.request("POST", &format!("{path}/start")).header("idempotency-key", "s");
    assert_eq!(photon.send(start()).await.expect(200).data()["status"], json!("in_progress"));
    assert_eq!(photon.send(start()).await.expect(200).header("idempotency-replayed"), "true");
    photon.post(&format!("{path}/start"), json!({})).await.refused(409, "conflict");
    let cancelled = photon.delete(&path).await.expect(200);
    assert_eq!(cancelled.data()["status"], json!("cancelled"));
    assert_eq!(cancelled.data()["statusReason"], json!("cancelled_by:anonymous"));
    let again = photon.delete(&path).await.expect(200);
    assert_eq!(again.data()["revision"], cancelled.data()["revision"]);
}

#[tokio::test]
async fn a_long_poll_answers_when_the_operation_ends_or_moves() {
    let photon = Photon::start().await;
    photon.agent("one", &[]).await;
    let id = photon.operation(json!([step(1, "only", &[], json!({}))])).await;
    let path = format!("/api/v1/operations/{id}");
    let moved = photon.get(&format!("{path}?wait=50ms")).await.expect(200);
    assert_eq!(moved.data()["status"], json!("in_progress"));
    let wait_path = format!("{path}?wait=20s");
    let work = async {
        let lease = photon.claim("one").await;
        photon.report(&lease, "ack", json!({})).await.expect(200);
        complete(&photon, &lease, json!(1)).await;
    };
    let (ended, ()) = tokio::join!(photon.get(&wait_path), work);
    assert_eq!(ended.data()["status"], json!("completed"));
    let revision = ended.data()["revision"].as_u64().unwrap();
    let reached = photon.get(&format!("{path}?wait=20s&minRevision={revision}")).await.expect(200);
    assert_eq!(reached.data()["revision"], json!(revision));
    photon
        .get("/api/v1/operations/op_00000000000000000000000000000000?wait=20s")
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_failing_step_is_retried_and_then_fails_the_operation() {
    let photon = Photon::start().await;
    photon.agent("one", &[]).await;
    let mut workflow = json!([step(1, "flaky", &[], json!({})), step(2, "after", &[1], json!({}))]);
    workflow[0]["retryPolicy"] = json!({"maxAttempts": 2, "initialDelayMs": 10, "jitter": 0.0});
    let id = photon.operation(workflow).await;
    let first = photon.claim("one").await;
    let failure = json!({"code": "boom", "message": "it broke"});
    let failed = photon.report(&first, "fail", failure.clone()).await.expect(200);
    assert_eq!(failed.data()["willRetry"], json!(true));
    assert!(failed.data()["nextAttemptAt"].is_string());
    let second = photon.claim("one").await;
    assert_eq!((&second["attempt"], &second["fencingToken"]), (&json!(2), &json!(2)));
    photon.report(&first, "complete", json!({"result": 1})).await.refused(410, "lease_lost");
    let last = photon.report(&second, "fail", failure.clone()).await.expect(200);
    assert_eq!(last.data()["willRetry"], json!(false));
    photon.report(&second, "fail", failure).await.expect(200);
    let shown = photon.shown(&id).await;
    assert_eq!((&shown["status"], &shown["statusReason"]), (&json!("failed"), &json!("step_failed")));
    assert_eq!(shown["errors"], json!(["step 1: boom: it broke"]));
    assert_eq!(shown["workflow"][1]["status"], json!("cancelled"));
    let detail = photon.get(&format!("/api/v1/operations/{id}/steps/1")).await.expect(200);
    let outcomes = detail.data()["attempts"].as_array().unwrap().clone();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|attempt| attempt["outcome"] == json!("failed")));
    assert_eq!(outcomes[0]["candidates"]["ranked"][0]["agent"], json!("one"));
}

#[tokio::test]
async fn history_is_paged_both_ways_and_filtered() {
    let photon = Photon::start().await;
    for _ in 0..5 {
        photon.operation(diamond()).await;
    }
    photon.agent("one", &[]).await;
    let walk = async |query: &str| {
        let mut sequences: Vec<u64> = Vec::new();
        let mut path = format!("/api/v1/events?{query}");
        loop {
            let page = photon.get(&path).await.expect(200);
            let events = page.data().as_array().unwrap();
            sequences.extend(
                events.iter().map(|event| event["sequence"].as_str().unwrap().parse::<u64>().unwrap()),
            );
            match page.body["page"]["nextCursor"].as_str() {
                Some(cursor) => path = format!("/api/v1/events?{query}&cursor={cursor}"),
                None => return sequences,
            }
        }
    };
    let forwards = walk("limit=3").await;
    assert!(forwards.is_sorted() && forwards.len() >= 11);
    let mut backwards = walk("limit=4&order=desc").await;
    backwards.reverse();
    assert_eq!(forwards, backwards);
    assert_eq!(walk("types=operation.created").await.len(), 5);
    assert_eq!(walk("types=agent.*").await.len(), 1);
    assert_eq!(walk("agent=one&limit=1").await.len(), 1);
    assert_eq!(walk(&format!("after={}", forwards[3])).await, forwards[4..]);
}

#[tokio::test]
async fn steps_are_listed_in_pages_and_counted_when_asked() {
    let photon = Photon::start().await;
    let id = photon.operation((1..=5).map(|number| step(number, "work", &[], json!({}))).collect()).await;
    let path = format!("/api/v1/operations/{id}/steps");
    let uncounted = photon.get(&path).await.expect(200);
    assert_eq!(uncounted.body["page"], json!({"nextCursor": null, "hasMore": false, "limit": 50}));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = photon.get(&format!("{path}?limit=2&count=true{cursor}")).await.expect(200);
        assert_eq!((&page.body["page"]["total"], &page.body["page"]["limit"]), (&json!(5), &json!(2)));
        seen.extend(page.data().as_array().unwrap().iter().map(|step| step["step"].as_u64().unwrap()));
        let Some(next) = page.body["page"]["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    photon.get(&format!("{path}?count=maybe")).await.refused(400, "invalid_parameter");
    photon.get(&format!("{path}?total=true")).await.refused(400, "unknown_parameter");
}

#[tokio::test]
async fn a_page_of_events_is_bounded_in_bytes_too() {
    const BOUND: usize = 4 << 20;
    const RESULT: usize = 250 * 1024;
    const STEPS: u32 = 18;
    let photon = Photon::start().await;
    photon.agent("one", &[]).await;
    let id = photon.operation((1..=STEPS).map(|number| step(number, "work", &[], json!({}))).collect()).await;
    for _ in 0..STEPS {
        let lease = photon.claim("one").await;
        complete(&photon, &lease, json!("x".repeat(RESULT))).await;
    }
    let own = format!("/api/v1/operations/{id}/events?limit=500");
    let of_all = format!("/api/v1/events?operation={id}&limit=500");
    let mut histories = Vec::new();
    for path in [own, of_all.clone(), format!("{of_all}&order=desc")] {
        let (mut revisions, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = photon.get(&format!("{path}{cursor}")).await.expect(200);
            // The largest event and what is around each are beside the bound.
            assert!(page.body.to_string().len() < BOUND + RESULT + 256 * 1024, "{path}");
            let events = page.data().as_array().unwrap();
            revisions.extend(events.iter().map(|event| event["revision"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page.body["page"]["nextCursor"].as_str() else { break };
            assert!(!events.is_empty() && events.len() < 500, "{path}");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(pages, 2, "{path}");
        histories.push(revisions);
    }
    histories[2].reverse();
    let count = photon.shown(&id).await["revision"].as_u64().unwrap();
    let expected: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    assert!(histories.iter().all(|history| *history == expected), "{histories:?}");
}
