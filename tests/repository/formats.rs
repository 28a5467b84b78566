//! Stored formats are promises: one stored sample for each event and schema, read for ever.
//!
//! A new event or schema gets its sample by `PHOTON_WRITE_SAMPLES=1`, which never rewrites one that exists.
//! Before the first release, `PHOTON_WRITE_SAMPLES=afresh` writes all of them again and deletes those of
//! events that are gone: docs/TESTING.md has the commands.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::PathBuf;

use actors::codec::{ENDS, KeyUse, Metadata, Stored};
use domain::Aggregate;
use domain::agent::event as agent_event;
use domain::agent::event::ReportedMetrics;
use domain::agent::quarantine::{Ending, Streaks};
use domain::agent::record::{Outcome, Record};
use domain::agent::selection::{Candidates, Excluded, Scored, Weights};
use domain::agent::{Agent, Event as AgentEvent};
use domain::operation::definition::{
    Definition, EffectClass, FailurePolicy, Location, Priority, Requirements, StepDefinition,
};
use domain::operation::event as operation_event;
use domain::operation::retry::RetryPolicy;
use domain::operation::{Event as OperationEvent, Operation};
use domain::views::agent_directory::Work;
use domain::{AgentId, Json, LeaseId, Timestamp, lane, presence, system, work};
use photon::http::lease_names::LeaseNames;

mod reasons;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/events")
}

fn agent() -> AgentId {
    "agent-1".parse().unwrap()
}

fn lease() -> LeaseId {
    "ls_0123456789abcdef0123456789abcdef_3_2".parse().unwrap()
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn moment() -> Timestamp {
    Timestamp::parse("2026-11-23T01:02:03.456Z").unwrap()
}

fn definition() -> Definition {
    let requires = Requirements {
        capabilities: vec!["rust".into()],
        location: Some(Location::Edge),
        model: Some("GLM-4.6".into()),
        labels: [("team".to_owned(), "core".to_owned())].into(),
    };
    let step = StepDefinition {
        step: 3,
        agent: Some(agent()),
        platform: "worker".parse().unwrap(),
        action: "review".parse().unwrap(),
        title: Some("Review {{ steps[1].result }}".into()),
        inputs: json(r#"{"of":"{{ steps[1].result }}"}"#),
        dependencies: vec![1],
        timeout_ms: 60_000,
        retry: RetryPolicy { non_retryable_errors: vec!["bad".into()], ..RetryPolicy::default() },
        requires,
        when: Some("steps[1].result.n > 2".into()),
        continue_on_error: true,
        effect: EffectClass::Write,
    };
    Definition {
        name: "sample".into(),
        description: Some("a description".into()),
        priority: Priority::High,
        agents: vec![agent()],
        platforms: vec!["worker".parse().unwrap()],
        workflow: vec![step].into(),
        deadline: Some(moment()),
        metadata: json(r#"{"repo":"photon"}"#),
        failure_policy: FailurePolicy::Continue,
        max_parallel: Some(4),
        auto_start: true,
    }
}

fn candidates() -> Candidates {
    let best = Scored {
        agent: agent(),
        score: 0.75,
        capability: 1.0,
        performance: 0.5,
        availability: 0.75,
        location: 0.5,
    };
    let excluded = Excluded { capability: 2, status: 1, ..Excluded::default() };
    Candidates { ranked: vec![best], excluded, weights: Weights::default() }
}

fn operation_samples() -> Vec<OperationEvent> {
    let mut samples = whole_operation_samples();
    samples.extend(step_samples());
    samples.extend(people_samples());
    samples
}

fn whole_operation_samples() -> Vec<OperationEvent> {
    use OperationEvent as E;
    use operation_event::*;
    vec![
        E::Created(Box::new(definition())),
        E::Started,
        E::Updated(Box::new(Patch {
            name: Some("new".into()),
            description: Some(None),
            priority: Some(Priority::Low),
            deadline: Some(Some(moment())),
            metadata: Some(Json::object()),
            agents: Some(vec![agent()]),
        })),
        E::Cancelled(Cancelled { by: "anonymous".into() }),
        E::Progressed(Progressed { progress: 50 }),
        E::Completed,
        E::Failed(Failed {
            reason: FailureReason::StepFailed,
            errors: vec!["step 3: boom: it broke".into()],
        }),
    ]
}

fn step_samples() -> Vec<OperationEvent> {
    use OperationEvent as E;
    use operation_event::*;
    let error = StepError { code: "boom".into(), message: "it broke".into() };
    let (step, grant, attempt, agent) = (3, 2, 1, agent());
    vec![
        E::StepReserved(Box::new(StepReserved {
            step,
            grant,
            lease_id: lease(),
            agent: agent.clone(),
            incarnation: 4,
            attempt,
            inputs: json(r#"{"of":7}"#),
            candidates: candidates(),
            title: Some("Review 7".into()),
        })),
        E::StepOfferExpired(StepOfferExpired {
            step,
            grant,
            agent: agent.clone(),
            reason: LeaseEnd::NoSignOfLife,
        }),
        E::StepReleased(StepReleased {
            step,
            grant,
            agent: agent.clone(),
            reason: "not mine".into(),
            held_until: moment(),
        }),
        E::StepStarted(StepStarted { step, grant, attempt, started_at: moment() }),
        E::StepProgressed(StepProgressed {
            step,
            grant,
            progress: 40,
            note: Some("half".into()),
            usage: Some(json(r#"{"tokens":7}"#)),
        }),
        E::StepCheckpointed(StepCheckpointed { step, grant, checkpoint: json("[1,2]") }),
        E::StepCompleted(StepCompleted {
            step,
            grant,
            attempt,
            agent: Some(agent.clone()),
            result: json(r#"{"n":1.5}"#),
            usage: Some(json(r#"{"tokens":12}"#)),
            duration_ms: 1_234,
        }),
        E::StepFailed(StepFailed { step, grant, attempt, error, is_final: true }),
        E::StepRetryScheduled(StepRetryScheduled {
            step,
            attempt: 2,
            at: moment(),
            delay_ms: 1_000,
            reason: "boom".into(),
        }),
        E::StepLeaseLost(StepLeaseLost { step, grant, attempt, agent, reason: LeaseEnd::LeaseExpired }),
        E::StepsSkipped(StepsSkipped { steps: vec![4, 5], reason: SkipReason::UpstreamFailed }),
        E::StepsCancelled(StepsCancelled { steps: vec![3, 6], closing: vec![lease()] }),
        E::LeaseClosed(LeaseClosed { lease_id: lease(), why: CloseReason::Reported }),
    ]
}

fn people_samples() -> Vec<OperationEvent> {
    use OperationEvent as E;
    use operation_event::*;
    let (step, by, reason) = (3, "anonymous".to_owned(), Some("I looked".to_owned()));
    let judged = Judged { step, by: by.clone(), reason: reason.clone() };
    vec![
        E::Paused(Paused { by: by.clone(), reason: reason.clone() }),
        E::Resumed(Resumed { by: by.clone() }),
        E::StepApprovalRequested(StepApprovalRequested {
            step,
            inputs: json(r#"{"text":"ship it?"}"#),
            until: moment(),
            timeout_ms: 60_000,
            title: None,
        }),
        E::StepApproved(judged.clone()),
        E::StepRejected(judged),
        E::StepNeedsAttention(StepNeedsAttention {
            step,
            grant: 2,
            attempt: 1,
            error: StepError { code: "lease_lost".into(), message: "it was lost".into() },
        }),
        E::StepResolved(StepResolved { step, resolution: Resolution::Completed, by, reason }),
        E::StepLimited(StepLimited {
            step,
            grant: 2,
            agent: agent(),
            error: StepError { code: "rate_limited".into(), message: "429".into() },
            until: moment(),
        }),
    ]
}

fn agent_samples() -> Vec<AgentEvent> {
    use AgentEvent as E;
    use agent_event::*;
    let profile = Profile {
        name: "Agent One".into(),
        model: "Sonnet-4.5".into(),
        capabilities: vec!["rust".into(), "docs".into()],
        location: Location::Cloud,
        config: Config {
            labels: [("team".to_owned(), "core".to_owned())].into(),
            failures_in_a_row: Some(9),
            ..Config::default()
        },
        metadata: json(r#"{"owner":"me"}"#),
    };
    let registered = Registered { profile: profile.clone(), incarnation: 2 };
    vec![
        E::Registered(Box::new(Registered { incarnation: 1, ..registered.clone() })),
        E::Reregistered(Box::new(registered)),
        E::Updated(Box::new(Patch {
            name: Some("new".into()),
            model: None,
            capabilities: Some(vec!["go".into()]),
            location: Some(Location::Mobile),
            config: Some(profile.config),
            metadata: Some(Json::object()),
        })),
        E::StatusChanged(StatusChanged {
            from: Status::Active,
            to: Status::Inactive,
            reason: StatusReason::Timeout,
        }),
        E::TimedOut(TimedOut { silent_ms: 30_000 }),
        E::Unregistered,
    ]
}

fn metrics() -> ReportedMetrics {
    ReportedMetrics { cpu_usage: Some(12.5), memory_usage: None, network_latency: Some(3.0) }
}

fn presence_samples() -> Vec<presence::Event> {
    vec![presence::Event::Seen(presence::Seen { agent: agent(), metrics: metrics() })]
}

/// With something in every field, however deep.
fn work_samples() -> Vec<work::Event> {
    let (since, at) = (moment(), moment().plus_ms(5_000));
    let mut record = Record::default();
    let mut streaks = Streaks::default();
    record.add(Outcome::Completed, 1_200, since);
    record.add(Outcome::Failed, 300, at);
    record.add(Outcome::Lost, 7, at);
    let failed = lease().operation;
    for ending in [Ending::Failed(&failed), Ending::Lost, Ending::Untaken] {
        streaks.add(ending, since, at);
    }
    let work = Work { record, streaks, idle_since: at };
    let carried =
        work::Carried { as_of: 70_000, position: 69_999, work, reported: metrics(), last_seen: moment() };
    vec![work::Event::Carried(Box::new(carried))]
}

fn lane_samples() -> Vec<lane::Event> {
    vec![
        lane::Event::Parked(lane::Parked { until: moment(), wait_ms: 60_000, lease_id: lease() }),
        lane::Event::Opened(lane::Opened { by: "anonymous".into() }),
    ]
}

fn system_samples() -> Vec<system::Event> {
    use system::*;
    let check = Check { name: "disk".into(), state: Health::Fail, detail: "1 bytes are free".into() };
    vec![
        Event::Quarantined(Quarantined { stream: "agent/agent-1".into() }),
        Event::HealthChanged(HealthChanged { from: Health::Warn, to: Health::Fail, checks: vec![check] }),
        Event::Alert(Alert {
            metric: Metric::ReadySteps,
            state: AlertState::Cleared,
            value: 7_999,
            threshold: 10_000,
        }),
        Event::Security(Security {
            kind: Offence::OriginNotAllowed,
            peer: "127.0.0.1".into(),
            count: 42,
            detail: Some("http://evil.test".into()),
        }),
        Event::PoolScaled(PoolScaled {
            pool: "reviewers".into(),
            from: 2,
            to: 8,
            wanted: 8,
            reason: ScalingReason::Overdue,
            detail: "A step has waited 9 s".into(),
            ready_steps: 12,
            oldest_wait_ms: 9_000,
            service_ms: Some(1_500),
            queue_ms: None,
        }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Whether samples are to be written that are missing, and whether all of them.
fn writing() -> (bool, bool) {
    let asked = std::env::var("PHOTON_WRITE_SAMPLES").unwrap_or_default();
    (asked == "1" || asked == "afresh", asked == "afresh")
}

/// The stored sample, or what would be stored now when samples are to be written.
fn stored(name: &str, now: &str) -> String {
    let path = folder().join(name);
    let (missing, all) = writing();
    if all || (missing && !path.exists()) {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, format!("{now}\n")).unwrap();
    }
    let missing = |_| panic!("{name} has no stored sample; see the head of this file");
    std::fs::read_to_string(&path).unwrap_or_else(missing).trim().to_owned()
}

fn check<A: Stored>(samples: &[A::Fact])
where
    A::Fact: PartialEq + std::fmt::Debug,
{
    let mut seen = Vec::new();
    for sample in samples {
        let encoded = A::encode(sample).unwrap();
        let name = format!("{}.{}", encoded.name, encoded.schema);
        let bytes = unhex(&stored(&format!("{name}.hex"), &hex(&encoded.body)));
        let decoded = A::decode(encoded.name, encoded.schema, &bytes).unwrap();
        assert_eq!(decoded, *sample, "{name} reads as something else");
        assert_eq!(bytes, encoded.body, "{name} is written differently: give it a new schema number");
        let shown = A::json(sample).to_string();
        assert_eq!(stored(&format!("{name}.json"), &shown), shown, "{name} is shown differently");
        let mut outside = A::json(sample);
        LeaseNames::of(None).show(&mut outside);
        let untagged = format!("\"{}\"", lease());
        assert!(
            !outside.to_string().contains(&untagged),
            "{name} shows a lease without the tag of its history"
        );
        seen.push((encoded.name, encoded.schema));
    }
    let mut written = A::WRITTEN.to_vec();
    written.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, written, "every event that is written has a sample");
}

#[test]
fn every_operation_event_reads_as_it_was_written() {
    check::<Operation>(&operation_samples());
}

#[test]
fn the_names_of_ends_are_those_of_the_events_that_end_an_operation() {
    let samples = operation_samples();
    let begun = samples.iter().take(1).chain([&OperationEvent::Started]);
    let begun = begun.fold(None, |operation, event| Operation::evolve(operation, event, moment())).unwrap();
    for event in &samples {
        let after = Operation::evolve(Some(begun.clone()), event, moment());
        let ends = after.is_some_and(|operation| operation.status().is_terminal());
        assert_eq!(ENDS.contains(&Operation::name(event)), ends, "{}", Operation::name(event));
    }
}

#[test]
fn every_agent_event_reads_as_it_was_written() {
    check::<Agent>(&agent_samples());
}

#[test]
fn every_lane_event_reads_as_it_was_written() {
    check::<lane::Lane>(&lane_samples());
}

#[test]
fn every_trace_of_an_agent_reads_as_it_was_written() {
    check::<presence::Event>(&presence_samples());
}

#[test]
fn what_is_carried_over_reads_as_it_was_written() {
    check::<work::Event>(&work_samples());
}

#[test]
fn every_system_event_reads_as_it_was_written() {
    check::<system::Event>(&system_samples());
}

#[test]
fn no_sample_is_of_an_event_that_is_not_written() {
    let agents = [Agent::WRITTEN, presence::Event::WRITTEN, work::Event::WRITTEN].concat();
    let others = [Operation::WRITTEN, lane::Lane::WRITTEN, system::Event::WRITTEN].concat();
    let written = [agents, others].concat();
    let written: Vec<String> =
        written.iter().chain(&[("metadata", 1)]).map(|(name, schema)| format!("{name}.{schema}.")).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if written.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        assert!(writing().1, "{name} is the sample of nothing that is written; see the head of this file");
        std::fs::remove_file(entry.path()).unwrap();
    }
}

#[test]
fn metadata_reads_as_it_was_written() {
    let metadata = Metadata {
        actor: "anonymous".into(),
        correlation_id: Some("request-1".into()),
        causation_id: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        key: Some(KeyUse { key: [1; 16], body: [2; 16] }),
    };
    let bytes = unhex(&stored("metadata.1.hex", &hex(&metadata.encode())));
    assert_eq!(Metadata::decode(&bytes), metadata);
    assert_eq!(bytes, metadata.encode());
}

#[test]
fn an_unknown_event_or_schema_is_an_error_and_never_skipped() {
    assert!(Operation::decode("operation.created", 99, &[]).is_err());
    assert!(Operation::decode("operation.exploded", 1, &[]).is_err());
    assert!(Agent::decode("agent.registered", 1, &[1, 2, 3]).is_err());
    assert!(system::Event::decode("stream.quarantined", 2, &[]).is_err());
    let mut trailing = Agent::encode(&agent_samples()[4]).unwrap().body.to_vec();
    trailing.push(0);
    assert!(Agent::decode("agent.timeout", 1, &trailing).is_err());
}
