//! An operation that is not created: the same refusals, or a plan, and nothing appended.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use serde_json::{Value, json};
use support::called::Called;
use support::{Photon, step};

const DRY: &str = "/api/v1/operations?dryRun=true";

fn operation(workflow: &Value) -> Value {
    json!({"name": "planned", "workflow": workflow})
}

/// 1, then 2 and 3, then 4; the side over 3 takes longer, and only 2 wants Rust.
fn diamond() -> Value {
    let mut workflow = json!([
        step(1, "begin", &[], json!({})),
        step(2, "left", &[1], json!({})),
        step(3, "right", &[1], json!({})),
        step(4, "join", &[2, 3], json!({"of": {"$expr": "steps[2].result"}})),
    ]);
    for (at, timeout) in [1_000, 2_000, 3_000, 4_000].into_iter().enumerate() {
        workflow[at]["timeout"] = json!(timeout);
    }
    workflow[1]["requires"] = json!({"capabilities": ["rust"]});
    workflow
}

#[tokio::test]
async fn nobody_is_chosen_for_a_step_that_asks_a_person() {
    let photon = Photon::start().await;
    photon.agent("ada", &[]).await;
    let mut ask = step(2, "approve", &[1], json!({}));
    ask["platform"] = json!("human");
    let body = json!({"name": "n", "workflow": [step(1, "work", &[], json!({})), ask]});
    let plan = photon.post("/api/v1/operations?dryRun=true", body).await.expect(200);
    assert_eq!(plan.data()["steps"][0]["selection"], json!(0));
    assert!(plan.data()["steps"][1]["selection"].is_null(), "{}", plan.data());
    let human = json!({"platform": "human", "action": "approve"});
    photon.post("/api/v1/agents/select", human).await.refused(422, "invalid_field");
}

#[tokio::test]
async fn a_dry_run_answers_the_plan_and_appends_nothing() {
    let photon = Photon::start().await;
    photon.agent("a", &["rust"]).await;
    photon.agent("b", &[]).await;
    let before = photon.get("/api/v1/agents").await.expect(200).header("photon-position").to_owned();
    let plan = photon.post(DRY, operation(&diamond())).await.expect(200);
    assert_eq!(plan.header("location"), "");
    let plan = plan.data();
    assert_eq!(plan["order"], json!([[1], [2, 3], [4]]));
    assert_eq!((&plan["criticalPath"], &plan["criticalPathMs"]), (&json!([1, 3, 4]), &json!(8_000)));
    assert_eq!((&plan["criticalPathSteps"], &plan["width"]), (&json!(3), &json!(2)));
    // Three steps ask for the same and share one selection.
    let shown = |at: usize| (plan["steps"][at]["level"].clone(), plan["steps"][at]["selection"].clone());
    assert_eq!((shown(0), shown(1)), ((json!(0), json!(0)), (json!(1), json!(1))));
    assert_eq!((shown(2), shown(3)), ((json!(1), json!(0)), (json!(2), json!(0))));
    assert_eq!(plan["selections"].as_array().unwrap().len(), 2);
    let rust = photon.post("/api/v1/agents/select", json!({"requires": {"capabilities": ["rust"]}})).await;
    assert_eq!(&plan["selections"][1], rust.data());
    let after = photon.get("/api/v1/operations?count=true").await.expect(200);
    assert_eq!((&after.body["page"]["total"], after.header("photon-position")), (&json!(0), &*before));
}

#[tokio::test]
async fn a_dry_run_refuses_what_a_creation_refuses_in_the_same_words() {
    let photon = Photon::start().await;
    photon.agent("a", &[]).await;
    let mut wrong = diamond();
    wrong[0]["dependencies"] = json!([4]);
    wrong[1]["timeout"] = json!(1);
    wrong[2]["agent"] = json!("nobody");
    wrong[3]["inputs"] = json!({"of": {"$expr": "steps[9].result"}});
    let mut unread = diamond();
    unread[2]["inputs"] = json!({"of": {"$expr": "steps[2].result"}});
    let mut unbuilt = diamond();
    unbuilt[0]["platform"] = json!("cursor");
    let many: Vec<Value> = (1..=10_001).map(|number| step(number, "x", &[], json!({}))).collect();
    let bodies = [
        operation(&wrong),
        operation(&unread),
        operation(&unbuilt),
        operation(&json!([])),
        operation(&json!(many)),
        json!({"name": "x"}),
        json!({"name": "x", "workflow": diamond(), "maxParallel": 0}),
        json!({"name": "x", "workflow": diamond(), "agents": ["no/id"]}),
        json!({"name": "x", "workflow": diamond(), "wish": 1}),
        json!({"name": "", "workflow": diamond()}),
    ];
    for body in bodies {
        let dry = photon.post(DRY, body.clone()).await;
        let real = photon.post("/api/v1/operations", body).await;
        assert!(dry.status >= 400, "{}", dry.body);
        assert_eq!((dry.status, dry.code()), (real.status, real.code()));
        assert_eq!(dry.body["problem"]["errors"], real.body["problem"]["errors"]);
    }
    photon
        .post("/api/v1/operations?dryRun=perhaps", operation(&diamond()))
        .await
        .refused(400, "invalid_parameter");
    let real = photon.post("/api/v1/operations?dryRun=false", operation(&diamond())).await;
    real.expect(201);
}

#[tokio::test]
async fn a_key_is_not_used_by_a_dry_run() {
    let photon = Photon::start().await;
    let send = |path: &'static str, workflow: Value| {
        let request = photon.request("POST", path).header("idempotency-key", "k");
        photon.send(request.json(&operation(&workflow)))
    };
    send(DRY, diamond()).await.expect(200);
    let created = send("/api/v1/operations", json!([step(1, "x", &[], json!({}))])).await.expect(201);
    assert_eq!(created.header("idempotency-replayed"), "");
    send(DRY, diamond()).await.expect(200);
}

#[tokio::test]
async fn a_large_workflow_for_many_agents_is_planned_with_few_looks() {
    let photon = Photon::configured("[limits]\nmax_body_bytes = 4194304\n").await;
    for number in 0..50 {
        photon.agent(&format!("a{number}"), &["x"]).await;
    }
    // Ten thousand steps with a hundred thousand dependencies, of two kinds.
    let steps: Vec<Value> = (1..=10_000_u32)
        .map(|number| {
            let before: Vec<u32> =
                if number > 5_000 { (1..=19).map(|at| number - at * 250).collect() } else { vec![] };
            let mut one =
                json!({"step": number, "platform": "worker", "action": "x", "dependencies": before});
            if number.is_multiple_of(2) {
                one["requires"] = json!({"capabilities": ["x"]});
            }
            one
        })
        .collect();
    let plan = photon.post(DRY, operation(&json!(steps))).await.expect(200);
    let plan = plan.data();
    assert_eq!(plan["steps"].as_array().unwrap().len(), 10_000);
    assert_eq!(plan["selections"].as_array().unwrap().len(), 2);
    let levels = plan["order"].as_array().unwrap();
    assert_eq!(levels.iter().map(|level| level.as_array().unwrap().len()).sum::<usize>(), 10_000);
    assert_eq!(plan["criticalPathSteps"], json!(levels.len()));
}

#[tokio::test]
async fn the_command_line_shows_a_plan_or_every_fault() {
    let photon = Photon::start().await;
    photon.agent("a", &["rust"]).await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("operation.json");
    let called = |body: Value| {
        std::fs::write(&path, body.to_string()).unwrap();
        photon.call(["op", "create", "--dry-run", path.to_str().unwrap()]).run()
    };
    let Called { stdout, stderr, .. } = called(operation(&diamond())).ends_with(0);
    assert_eq!(stderr, "The operation would be accepted.\n");
    for line in [
        "4 steps in 3 levels, 2 at once.",
        "Critical path: 1 → 3 → 4 (3 steps",
        "Level 2: 2, 3",
        "Step 2: a 0.85 now",
    ] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    let mut wrong = diamond();
    wrong[0]["dependencies"] = json!([4]);
    let refused = called(operation(&wrong)).ends_with(1);
    assert!(refused.stderr.contains("cycle"), "{}", refused.stderr);
}
