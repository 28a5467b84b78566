//! What is due happens, however much else goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use actors::Core;
use actors::codec::Metadata;
use actors::dispatch::actor::Ask;
use actors::dispatch::claims::{Claim, ClaimId};
use actors::gateway::Order;
use actors::matching::Appetite;
use domain::AgentId;
use domain::agent::{Agent, Command as AgentCommand};
use domain::operation::definition::Definition;
use domain::operation::{Command, Operation};
use events::{EventLog, MemoryLog};
use support::stage::profile;
use support::{core, definition, id};
use tokio::sync::oneshot;

/// Agents that ask for work all the time, more than the dispatcher's mailbox holds at once.
const RESTLESS: u32 = 32;

/// Claims again and again, each of which makes the dispatcher think anew of when to wake.
async fn ask(core: &Core, agent: u32, stop: &AtomicBool, asked: &AtomicU32) {
    let dispatcher = core.dispatcher().unwrap();
    let id: AgentId = format!("agent-{agent}").parse().unwrap();
    let command = AgentCommand::Register { profile: Box::new(profile(1, &[])), incarnation: None };
    core.gateway.execute::<Agent>(&id, Order::of(command, Metadata::of_photon())).await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let (reply, _) = oneshot::channel();
        let claim = Claim {
            id: ClaimId(u64::from(number)),
            agent: id.clone(),
            incarnation: 1,
            appetite: Appetite::of(1, None),
            until: core.around.clock.now().plus_ms(60_000),
            metadata: Metadata::of_photon(),
        };
        dispatcher.send(Ask { claim, reply }).await.unwrap();
    }
}

#[actix::test]
async fn a_deadline_is_not_put_off_by_a_stream_of_claims() {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let core = core(log).await;
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let restless = (0..RESTLESS).map(|agent| ask(&core, agent, &stop, &asked));
    let restless = futures_util::future::join_all(restless);
    let due = async {
        let deadline = core.around.clock.now().plus_ms(200);
        let command = Definition { deadline: Some(deadline), ..definition("late") };
        let order = Order::<Operation>::of(Command::Create(Box::new(command)), Metadata::of_photon());
        core.gateway.execute_shown(&id(1), order).await.unwrap();
        let (begun, mut ended) = (Instant::now(), false);
        while !ended && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let views = core.projected.views.read();
            ended = views.operations.find(&id(1)).unwrap().status.is_terminal();
        }
        stop.store(true, Ordering::Relaxed);
        ended
    };
    let (_, ended) = tokio::join!(restless, due);
    let asked = asked.into_inner();
    assert!(ended, "the deadline was put off for 5 s by {asked} claims");
    assert!(asked > 100, "there was no stream of claims");
    core.stop();
}
