//! Owns what happens on the stage: the agents come, the operation runs, one agent is killed in the middle.
//! It kills and watches; that the operation still completes is Photon's doing.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::place::Place;
use super::plan;
use super::team::{ROLES, Team, VICTIM_ACTION};
use crate::cli::canvas::Canvas;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::follow::Follower;
use crate::cli::terminal::Style;
use crate::client::Client;
use crate::http::operation_view::{OperationView, StepView};

/// The agents must have come by then.
const GATHERED_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// The demo's own server may be away this long.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// One long poll.
const POLL: Duration = Duration::from_secs(20);
/// So long the victim works before it is killed: long enough to be seen at work.
const MERCY: Duration = Duration::from_millis(600);

/// Runs the review to its end.
pub(super) async fn run(client: &Client, team: &mut Team, place: &Place) -> Result<OperationView, Complaint> {
    gathered(client, team, place).await?;
    let operation = client.create_operation(&plan::operation(&place.folder), None).await?;
    let mut stage = Follower::new(client.clone(), operation, Canvas::stderr(), Style::of_stderr());
    (stage.patience, stage.brief) = (Some(AWAY_MAX), true);
    stage.catch_up().await?;
    let mut deed = Deed::Waiting;
    while !stage.seen.has_ended() {
        stage.next(deed.wait()).await?;
        deed = deed.next(&mut stage, team).await;
    }
    stage.canvas.keep();
    Ok(stage.seen)
}

/// Waits until every agent has registered.
async fn gathered(client: &Client, team: &mut Team, place: &Place) -> Result<(), Complaint> {
    let begun = Instant::now();
    loop {
        let log = place.workers_log();
        if let Some(agent) = team.lost() {
            let sentence = format!("The agent {agent} ended too early; see {}.", log.display());
            return Err(Complaint::new(Exit::FAILED, sentence));
        }
        let filter = [("label.team", "review".to_owned()), ("status", "active".to_owned())];
        let agents = client.agents(&filter, 500).await?;
        if ROLES.iter().all(|role| agents.iter().any(|agent| agent.id == role.agent)) {
            return Ok(());
        }
        if begun.elapsed() > GATHERED_WITHIN {
            let sentence = format!("The agents did not register in time; see {}.", log.display());
            return Err(Complaint::new(Exit::TIMED_OUT, sentence));
        }
        sleep(LOOK).await;
    }
}

/// How far the killing is.
enum Deed {
    /// The victim does not work yet.
    Waiting,
    /// It works, and dies at this moment.
    Due(Instant),
    Done,
}

impl Deed {
    /// How long to look at the operation before the next deed.
    fn wait(&self) -> Duration {
        match self {
            Self::Waiting | Self::Done => POLL,
            Self::Due(at) => at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
        }
    }

    async fn next(self, stage: &mut Follower, team: &mut Team) -> Self {
        let victim = stage.seen.workflow.iter().find(|step| step.action == VICTIM_ACTION).and_then(at_work);
        match (self, victim) {
            (Self::Waiting, Some(_)) => Self::Due(Instant::now() + MERCY),
            (Self::Due(at), Some((agent, step))) if at <= Instant::now() => {
                if let Some(process) = team.kill(&agent).await {
                    let mark = if stage.style.blocks { "☠" } else { "!" };
                    let whom = format!("{agent} (process {process})");
                    stage.tell(&format!(
                        "{mark} The demo kills {whom} with SIGKILL in the middle of step {step}."
                    ));
                    stage.tell("  Nobody tells Photon: it will notice the silence.");
                }
                Self::Done
            }
            // It was faster than its killer, or somebody else has the step already.
            (Self::Due(_), None) => Self::Done,
            (deed, _) => deed,
        }
    }
}

/// Who works on the step's first attempt.
fn at_work(step: &StepView) -> Option<(String, u32)> {
    let agent = step.assigned_agent.clone().filter(|_| step.status == "running" && step.attempt == 1)?;
    Some((agent, step.step))
}
