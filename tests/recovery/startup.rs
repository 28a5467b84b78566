//! A start that takes a while: the port is there from the beginning, the process lives, says how far it is,
//! and tells everybody else to wait.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::path::Path;

use events::{Append, Beside, EventLog, Expected, NewEvent, Options, Since, SledLog, StreamId};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;
use support::Photon;
use support::streams::{Asked, Way};

const AGENTS: u64 = 60_000;

/// Registers as many agents as one that is registered, straight in the log.
async fn multiply(folder: &Path) {
    let log = SledLog::open(folder, Options::default()).unwrap();
    let ada = StreamId::new("agent", "ada").unwrap();
    let one = log.read(&ada, Since::BEGINNING).next().await.unwrap().unwrap();
    let numbers: Vec<u64> = (0..AGENTS).collect();
    for numbers in numbers.chunks(2_000) {
        let appends = numbers.iter().map(|number| {
            let (name, schema, time_us) = (one.name.to_string().into(), one.schema, one.time_us);
            let (metadata, body) = (one.metadata.clone(), one.body.clone());
            let id = uuid::Uuid::from_u128(u128::from(*number) + 1).into();
            let event = NewEvent { id, name, schema, time_us, metadata, body, beside: Beside::NONE };
            let stream = StreamId::new("agent", &format!("agent-{number}")).unwrap();
            log.append(Append { stream, expected: Expected::Any, events: vec![event] })
        });
        join_all(appends).await.into_iter().for_each(|appended| assert!(appended.is_ok()));
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_long_start_answers_from_its_beginning_and_says_how_far_it_is() {
    let _alone = support::alone();
    let mut photon = Photon::start().await;
    photon.agent("ada", &[]).await;
    photon.kill();
    multiply(&photon.folder().join("data")).await;
    photon.begin_restart().await;
    // Held, since an EventSource that gets a 503 never comes back.
    let held = Asked::new(photon.port(), Way::Sse, "after=0&types=agent.registered");
    let held = tokio::spawn(async move { held.open().await });
    let mut seen: Vec<(String, u64)> = Vec::new();
    loop {
        let answer = photon.get("/health/startup").await;
        let view = answer.body["data"].clone();
        let status = view["status"].as_str().unwrap().to_owned();
        seen.push((status.clone(), view["progress"].as_u64().unwrap()));
        if status == "ok" {
            answer.expect(200);
            assert!(view["events"].as_u64().unwrap() > AGENTS, "{view}");
            assert_eq!(view["position"], view["head"]);
            break;
        }
        let answer = answer.refused(503, "recovering");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(view["head"] == Value::Null, status == "verifying", "{view}");
        photon.get("/health/live").await.expect(200);
        if let Some(answer) = Some(photon.get("/api/v1/agents?limit=1").await).filter(|it| it.status != 200) {
            answer.refused(503, "recovering");
        }
    }
    photon.get("/health/ready").await.expect(200);
    let mut stream = held.await.unwrap();
    assert_eq!(stream.begun().await, 0);
    assert!(stream.event().await.1.contains("agent/ada"));
    let order = ["verifying", "folding", "ok"].map(str::to_owned);
    let stage = |status: &String| order.iter().position(|known| known == status).unwrap();
    assert!(seen.is_sorted_by_key(|(status, progress)| (stage(status), *progress)), "{seen:?}");
    for status in &order {
        assert!(seen.iter().any(|(seen, _)| seen == status), "{status} was never seen: {seen:?}");
    }
}
