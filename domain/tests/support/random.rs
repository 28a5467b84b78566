//! Random workflows and random commands for the laws.

use domain::operation::definition::{Definition, FailurePolicy, Priority, StepDefinition};
use domain::operation::event::{CloseReason, LeaseEnd, Patch};
use domain::operation::{Command, Intervention, StepWish};
use domain::{AgentId, Json};
use proptest::prelude::*;
use serde_json::json;

use super::{Flow, agent, definition, step};

/// What a random step is like, apart from its place.
#[derive(Clone, Debug)]
struct Kind {
    links: u32,
    condition: u8,
    inputs: u8,
    attempts: u32,
    excused: bool,
    nature: u8,
}

fn kind() -> impl Strategy<Value = Kind> {
    (any::<u32>(), 0..12_u8, 0..8_u8, 1..4_u32, proptest::bool::weighted(0.25), 0..8_u8).prop_map(
        |(links, condition, inputs, attempts, excused, nature)| Kind {
            links,
            condition,
            inputs,
            attempts,
            excused,
            nature,
        },
    )
}

/// Steps are numbered in tens and depend on earlier ones only, but are listed in any order.
fn placed(index: usize, kind: &Kind) -> StepDefinition {
    let before = (0..index).filter(|other| kind.links >> (2 * other) & 3 == 3);
    let dependencies: Vec<u32> = before.map(|other| other as u32 * 10).collect();
    let number = index as u32 * 10;
    let mut placed = match kind.nature {
        0 => super::approval(number, &dependencies),
        1 | 2 => super::write(number, &dependencies),
        _ => step(number, &dependencies),
    };
    let read = dependencies.first().map(|number| format!("steps[{number}]"));
    placed.when = match (kind.condition, &read) {
        (0, _) => Some("false".into()),
        (1, _) => Some("operation.metadata.go".into()),
        (2, _) => Some("operation.metadata.missing".into()),
        (3, Some(read)) => Some(format!("{read}.status == 'completed'")),
        (4, Some(read)) => Some(format!("{read}.result == 3")),
        (5, Some(read)) => Some(format!("{read}.result.error is not defined")),
        _ => None,
    };
    if let (0 | 1, Some(read)) = (kind.inputs, &read) {
        let inputs = if kind.inputs == 0 {
            json!({"x": {"$expr": format!("{read}.result.error.code")}})
        } else {
            json!({"x": {"$template": format!("of {{{{ {read} }}}}")}})
        };
        placed.inputs = Json::from(inputs);
        placed.title = Some(format!("after {{{{ {read}.result.error.code }}}}"));
    }
    placed.retry.max_attempts = kind.attempts;
    placed.continue_on_error = kind.excused;
    placed
}

/// Any workflow of up to nine steps.
pub(crate) fn workflows() -> impl Strategy<Value = Definition> {
    let kinds = proptest::collection::vec(kind(), 1..10);
    let settings =
        (any::<bool>(), proptest::option::of(1..4_u32), proptest::bool::weighted(0.8), any::<u64>());
    (kinds, settings).prop_map(|(kinds, (fast, max_parallel, auto_start, order))| {
        let mut workflow: Vec<_> =
            kinds.iter().enumerate().map(|(index, kind)| placed(index, kind)).collect();
        workflow.sort_by_key(|step| (order >> (step.step % 64)) & 7);
        Definition {
            failure_policy: if fast { FailurePolicy::FailFast } else { FailurePolicy::Continue },
            max_parallel,
            auto_start,
            metadata: Json::from(json!({"go": order % 2 == 0})),
            deadline: Some(domain::Timestamp::from_micros(1_700_000_300_000_000)),
            ..definition(workflow)
        }
    })
}

/// What happens next; steps are named by a random index.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Wait(u64),
    /// What an agent would do next that means well.
    Advance(usize, AgentId),
    /// What an agent would do next that gives up on it.
    Break(usize),
    Wish(usize, i64, StepWish),
    Say(usize, Intervention),
    /// The time for an answer is over.
    Expire(usize),
    Whole(Command),
}

fn wishes() -> impl Strategy<Value = StepWish> {
    let ends =
        vec![LeaseEnd::LeaseExpired, LeaseEnd::AgentTimeout, LeaseEnd::NoSignOfLife, LeaseEnd::Revoked];
    let ends = || proptest::sample::select(ends.clone());
    prop_oneof![
        Just(StepWish::Acknowledge),
        (0..=120_u8).prop_map(super::progress),
        (0..3_u32).prop_map(|n| StepWish::Checkpoint(Json::from(json!({ "n": n })))),
        (0..5_u32).prop_map(|n| super::complete(json!(n))),
        (any::<bool>(), proptest::option::of(0..90_000_u64)).prop_map(|(retryable, retry_after_ms)| {
            StepWish::Fail { error: super::error("flaky"), retryable, retry_after_ms }
        }),
        Just(StepWish::Release { reason: "busy".into(), hold_ms: None }),
        ends().prop_map(super::lose),
        ends().prop_map(super::expire),
        Just(StepWish::CloseLease { why: CloseReason::Reported }),
        Just(StepWish::TimeOut),
        (0..3_usize).prop_map(|who| super::reserve(agents(who), 1)),
    ]
}

fn agents(who: usize) -> AgentId {
    agent(["ada", "bob", "eve"][who])
}

fn wholes() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => Just(Command::Start),
        1 => Just(Command::Cancel { by: "ops".into() }),
        1 => Just(Command::ExpireDeadline),
        3 => Just(Command::Pause { by: "ops".into(), reason: None }),
        6 => Just(Command::Resume { by: "ops".into() }),
        2 => proptest::sample::select(Priority::ALL.to_vec()).prop_map(|priority| {
            Command::Update(Box::new(Patch { priority: Some(priority), ..Patch::default() }))
        }),
    ]
}

fn interventions() -> impl Strategy<Value = Intervention> {
    prop_oneof![
        2 => Just(Intervention::Approve),
        1 => Just(Intervention::Reject),
        2 => Just(Intervention::Retry),
        1 => Just(Intervention::Skip),
        1 => (0..5_u32).prop_map(|n| Intervention::Complete(Json::from(json!(n)))),
        1 => Just(Intervention::Fail),
    ]
}

pub(crate) fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => proptest::sample::select(vec![1, 999, 1_000, 5_000, 30_000, 60_000]).prop_map(Move::Wait),
        10 => (0..9_usize, 0..3_usize).prop_map(|(step, who)| Move::Advance(step, agents(who))),
        2 => (0..9_usize).prop_map(Move::Break),
        6 => (0..9_usize, wishes()).prop_map(|(step, wish)| Move::Wish(step, 0, wish)),
        1 => (0..9_usize, -2..3_i64, wishes()).prop_map(|(step, off, wish)| Move::Wish(step, off, wish)),
        3 => (0..9_usize, interventions()).prop_map(|(step, said)| Move::Say(step, said)),
        1 => (0..9_usize).prop_map(Move::Expire),
        1 => wholes().prop_map(Move::Whole),
    ]
}

impl Move {
    /// The command that it means for this operation as it stands; none only lets time pass.
    pub(crate) fn command(&self, flow: &Flow) -> Option<Command> {
        let run = &flow.operation().run;
        let number = |index: usize| run.skeleton.steps[index % run.steps.len()].step;
        Some(match self {
            Self::Wait(_) => return None,
            Self::Whole(command) => command.clone(),
            Self::Wish(index, off, wish) => {
                let step = number(*index);
                let next = i64::from(matches!(wish, StepWish::Reserve { .. }));
                let grant = flow.grant(step).saturating_add_signed(off + next);
                Command::Step { step, grant, wish: wish.clone() }
            }
            Self::Say(index, intervention) => say(number(*index), intervention.clone()),
            Self::Expire(index) => Command::ExpireApproval { step: number(*index) },
            Self::Break(index) => {
                let step = number(*index);
                let error = super::error("broken");
                let wish = StepWish::Fail { error, retryable: false, retry_after_ms: None };
                Command::Step { step, grant: flow.grant(step), wish }
            }
            Self::Advance(index, who) => {
                let step = number(*index);
                let (wish, more) = match flow.status(step) {
                    "awaiting_approval" => return Some(say(step, Intervention::Approve)),
                    "needs_attention" => return Some(say(step, Intervention::Retry)),
                    "reserved" => (StepWish::Acknowledge, 0),
                    "running" => (super::complete(json!(3)), 0),
                    _ => (super::reserve(who.clone(), 1), 1),
                };
                Command::Step { step, grant: flow.grant(step) + more, wish }
            }
        })
    }
}

fn say(step: u32, intervention: Intervention) -> Command {
    Command::Intervene { step, by: "ops".into(), reason: None, intervention }
}
