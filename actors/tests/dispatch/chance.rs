//! Random lives: agents, operations, a log that decides late, and views that show it later still.

use actors::dispatch::Input;
use actors::effects::{self, Periods};
use actors::in_flight::InFlight;
use actors::matching::Appetite;
use actors::ready::Scene;
use domain::agent::Command as AgentCommand;
use domain::agent::event::{Status, StatusReason};
use domain::agent::quarantine::Thresholds;
use domain::{AgentId, OperationId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::shell::{Fate, Shell};
use crate::support::model::Model;
use crate::support::moves::{AGENTS, Move, moves};
use crate::support::stage::agent;

/// What happens next.
#[derive(Clone, Debug)]
enum Turn {
    Move(Move),
    /// The views show so many more facts.
    Show(usize),
    /// The log decides one of the tasks under way.
    Decide(usize, Fate),
    /// The answer to one of them comes.
    Tell(usize),
    Claim {
        agent: AgentId,
        appetite: Appetite,
        wait_ms: u64,
        behind: u64,
        key: Option<u8>,
    },
    HangUp(usize, bool),
    Beat(AgentId),
    TimeOut(AgentId),
    Drain,
}

fn turns() -> impl Strategy<Value = Turn> {
    let fates =
        select(vec![Fate::Heard, Fate::Heard, Fate::Heard, Fate::Unheard, Fate::Lost, Fate::NotTaken]);
    let agents = || select(AGENTS.to_vec()).prop_map(agent);
    let claims = (
        agents(),
        1..4_u32,
        select(vec![0, 0, 100, 5_000, 60_000]),
        select(vec![0, 0, 0, 0, 1]),
        proptest::option::weighted(0.3, 1..3_u8),
    );
    prop_oneof![
        12 => moves().prop_map(Turn::Move),
        8 => (1..6_usize).prop_map(Turn::Show),
        8 => (any::<usize>(), fates).prop_map(|(choice, fate)| Turn::Decide(choice, fate)),
        8 => any::<usize>().prop_map(Turn::Tell),
        6 => claims.prop_map(|(agent, max, wait_ms, behind, key)| {
            Turn::Claim { agent, appetite: Appetite::of(max, None), wait_ms, behind, key }
        }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(choice, says)| Turn::HangUp(choice, says)),
        3 => agents().prop_map(Turn::Beat),
        1 => agents().prop_map(Turn::TimeOut),
    ]
}

fn carry_out(shell: &mut Shell, turn: &Turn) {
    match turn.clone() {
        Turn::Show(many) => shell.show(many),
        Turn::Decide(choice, fate) => shell.decide(choice, fate),
        Turn::Tell(choice) => shell.tell(choice),
        Turn::Claim { agent, appetite, wait_ms, behind, key } => {
            let row = shell.record.views.agents.get(&agent);
            let incarnation = row.map_or(1, |row| row.agent.incarnation.saturating_sub(behind));
            shell.claim_as(&agent, incarnation, appetite, wait_ms, key);
        }
        Turn::HangUp(choice, says) => {
            let open: Vec<_> = shell.open.keys().copied().collect();
            if let Some(choice) = choice.checked_rem(open.len()) {
                shell.hang_up(open[choice], says);
            }
        }
        Turn::Beat(agent) => _ = shell.presence.heard(&agent, None, shell.now, u64::MAX),
        Turn::TimeOut(agent) => shell.on_agent(&agent, &AgentCommand::TimeOut { silent_ms: 30_000 }),
        Turn::Drain => shell.feed(Input::Drain),
        Turn::Move(Move::Wait(ms)) => shell.pass(ms),
        Turn::Move(Move::Claim(agent, appetite)) => _ = shell.claim(&agent, appetite, 60_000),
        Turn::Move(Move::HangUp(_) | Move::Answer(_)) => shell.nudge(),
        Turn::Move(Move::Say(choice, wish)) => {
            let taken = shell.record.taken();
            if let Some(choice) = choice.checked_rem(taken.len()) {
                shell.say(&taken[choice].0, wish);
            }
        }
        Turn::Move(Move::Operation(id, command)) => shell.on_operation(&id, &command),
        Turn::Move(Move::Agent(id, command)) => shell.on_agent(&id, &command),
        Turn::Move(Move::Park(agent, ms)) => shell.record.park(&agent, ms, shell.now),
    }
    shell.record.check_slots();
}

/// Leads a life up to its last turn.
fn lead(turns: &[Turn]) -> Shell {
    live(Shell::new(), turns)
}

fn live(mut shell: Shell, turns: &[Turn]) -> Shell {
    for name in AGENTS {
        shell.register(&agent(name), 2, &["x"]);
    }
    for turn in turns {
        carry_out(&mut shell, turn);
    }
    shell
}

/// Lets everything happen that is to happen, though nobody does anything.
fn come_to_rest(shell: &mut Shell) {
    shell.settle();
    for _ in 0..40 {
        shell.pass(15_000);
        shell.settle();
    }
}

/// What is owed by what the views show, and was not sent.
fn owed(shell: &Shell) -> Vec<String> {
    let (views, periods) = (&shell.record.views, Periods::default());
    let operations = views.operations.open().iter().chain(views.leases.operations());
    let operations: Vec<&OperationId> = operations.collect();
    let by_operations = operations.iter().flat_map(|id| effects::of_operation(views, id, &periods).owed);
    let agents = views.agents.all();
    let by_agents =
        agents.flat_map(|(id, _)| effects::of_agent(views, id, &periods, &Thresholds::default()).owed);
    by_operations.chain(by_agents).map(|owed| format!("{owed:?}")).collect()
}

/// Everybody who takes work asks for it, and gets all that is possible.
fn work_is_found(shell: &mut Shell) {
    for name in AGENTS {
        let (status, reason) = (Status::Active, StatusReason::HeardAgain);
        shell.on_agent(&agent(name), &AgentCommand::SetStatus { status, reason });
    }
    shell.settle();
    for name in AGENTS {
        shell.claim(&agent(name), Appetite::of(3, None), 600_000);
    }
    shell.settle();
    let waiting = shell.dispatch.claims().map(|claim| (&claim.agent, claim.appetite.clone())).collect();
    let scene = Scene {
        views: &shell.record.views,
        in_flight: &InFlight::default(),
        now: shell.now,
        elsewhere_ms: Periods::default().retry_elsewhere_ms,
    };
    let missed = Model::any(scene, &waiting);
    assert!(!missed, "{waiting:?} wait, and there is work for them");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_slot_is_given_twice_and_nothing_stays_behind(turns in vec(turns(), 1..160)) {
        let mut shell = lead(&turns);
        // One task for each input or fact, and a few that are said again: nothing spins.
        let most = 2 * (shell.inputs + shell.record.len());
        prop_assert!(shell.sent <= most, "{} tasks, {most} would be many", shell.sent);
        let (sent, open) = (shell.sent, shell.record.len());
        come_to_rest(&mut shell);
        let since = shell.sent - sent;
        prop_assert!(since <= 2 * (shell.record.len() - open) + 2 * most, "{since} tasks at rest");
        prop_assert!(shell.open.is_empty(), "not answered: {:?}", shell.open);
        prop_assert_eq!(owed(&shell), Vec::<String>::new());
        prop_assert!(shell.record.taken().is_empty(), "stuck: {:?}", shell.record.taken());
        work_is_found(&mut shell);
        shell.record.check_slots();
    }

    #[test]
    fn after_a_drain_every_claim_is_answered_and_what_is_owed_is_done(
        before in vec(turns(), 1..80),
        after in vec(turns(), 1..40),
    ) {
        let turns: Vec<Turn> = before.into_iter().chain([Turn::Drain]).chain(after).collect();
        let mut shell = lead(&turns);
        come_to_rest(&mut shell);
        prop_assert!(shell.open.is_empty(), "not answered: {:?}", shell.open);
        prop_assert_eq!(owed(&shell), Vec::<String>::new());
        prop_assert!(shell.record.taken().is_empty(), "stuck: {:?}", shell.record.taken());
    }

    #[test]
    fn the_same_inputs_lead_to_the_same_actions(turns in vec(turns(), 1..120)) {
        let told = || live(Shell { told: Some(Vec::new()), ..Shell::new() }, &turns).told;
        prop_assert_eq!(told(), told());
    }
}
