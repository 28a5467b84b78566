//! `photon backup restore`: says what would be lost, then restores all or nothing.

use std::path::PathBuf;

use clap::Args;
use domain::Timestamp;
use serde::Serialize;

use super::super::event::folder::LogFolder;
use super::super::exit::{Complaint, Exit};
use super::super::output::{Output, say};
use super::super::table::pairs;
use super::super::terminal::counted;
use super::{complaint, now};
use crate::backup::Fault;
use crate::backup::restore::{At, Done, Loss, Plan, Present};

/// Which backup, where to and how far.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    /// Folder of the backup
    source: PathBuf,
    #[command(flatten)]
    folder: LogFolder,
    /// Up to this position of the log, or this time; all of it when absent. Ends with a whole commit
    #[arg(long, value_name = "POSITION|TIME", value_parser = at)]
    at: Option<At>,
    /// Only says what would be lost
    #[arg(long)]
    dry_run: bool,
    /// Replaces what is in the folder; that is moved aside, not deleted
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: Output,
}

/// What is printed for programs.
#[derive(Serialize)]
struct Restored<'a> {
    plan: &'a Plan,
    done: Option<Done>,
}

fn at(text: &str) -> Result<At, String> {
    let time = || Timestamp::parse(text).map(At::Time);
    let position = text.parse().ok().map(At::Position);
    position.or_else(time).ok_or_else(|| "not a position, and no time such as 2026-11-23T01:40:00Z".into())
}

pub(super) fn run(arguments: &RestoreArgs) -> Result<Exit, Complaint> {
    let folder = arguments.folder.path()?;
    let plan = Plan::of(&arguments.source, &folder, arguments.at.unwrap_or(At::End)).map_err(complaint)?;
    if arguments.dry_run {
        return arguments.output.one(&Restored { plan: &plan, done: None }, |_| text(&plan));
    }
    // Before, so that whoever stops it in time knows why.
    say(&text(&plan));
    let done = plan.carry_out(arguments.replace, now()).map_err(|fault| match fault {
        Fault::Exists(path) => {
            let sentence = format!(
                "{} is not empty; with --replace it is moved aside. Nothing was changed.",
                path.display()
            );
            Complaint::new(Exit::CONFLICT, sentence)
        }
        fault => complaint(fault),
    })?;
    let aside = done.moved_to.as_ref().map(|aside| format!(" What was there is in {}.", aside.display()));
    say(&format!(
        "Restored into {} as the history {}.{}",
        folder.display(),
        done.epoch,
        aside.unwrap_or_default()
    ));
    arguments.output.for_programs(&Restored { plan: &plan, done: Some(done) })
}

fn text(plan: &Plan) -> String {
    let Plan { position, time, events, state_hash, left_out, present, .. } = plan;
    let mut lines = vec![
        ("restores", format!("{} up to position {position}, of {time}", counted(*events, "event"))),
        ("state's hash", state_hash.clone()),
        ("leaves out", format!("of the backup {}", lost(left_out))),
    ];
    match present {
        None => lines.push(("loses", "nothing: there is no log".into())),
        Some(Present { position, same_history, damage, lost: loss }) => {
            let history = if *same_history { "" } else { ", all of another history" };
            lines.push(("loses", format!("of the log there{history}: {}", lost(loss))));
            lines.push(("present end", format!("position {position}")));
            lines.extend(damage.as_ref().map(|damage| ("damaged", damage.clone())));
        }
    }
    pairs(&lines)
}

fn lost(loss: &Loss) -> String {
    let Loss { events, operations_gone, operations_back, agents_gone, agents_back } = loss;
    if *events == 0 {
        return "nothing".into();
    }
    format!(
        "{}; operations: {operations_gone} are gone and {operations_back} fall back; \
         agents: {agents_gone} are gone and {agents_back} fall back",
        counted(*events, "event")
    )
}
