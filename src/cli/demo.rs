//! `photon demo`: a team of agents reviews a folder, so that a newcomer sees Photon at work on his own files.
//! Owns the order of events of the show. Nothing in it is pretended: the server, the agents, the killed
//! process and the report are what they would be anywhere else.

mod ending;
mod place;
mod plan;
mod play;
mod team;

use std::path::PathBuf;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::output;
use super::serve::{refused_start, start_log, watched};
use super::signals::Signals;
use crate::app::Server;
use crate::client::Client;
use crate::http::operation_view::OperationView;
use place::Place;
use team::Team;

/// What to review.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Folder to review
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Goes on serving after the review, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(arguments: DemoArgs) -> Result<Exit, Complaint> {
    let mut signals = watched()?;
    let place = Place::of(&arguments.folder)?;
    let shown = show(&place, &mut signals, arguments.keep).await;
    if shown.as_ref().err() == Some(&interrupted()) {
        place.discard();
    }
    shown
}

fn interrupted() -> Complaint {
    Complaint::new(Exit::INTERRUPTED, "Interrupted; every process of the demo has been ended.")
}

async fn show(place: &Place, signals: &mut Signals, keep: bool) -> Result<Exit, Complaint> {
    let settings = place.settings()?;
    start_log(&settings)?;
    let server = tokio::select! {
        started = Server::start(&settings) => started.map_err(|fault| refused_start(&fault))?,
        _ = signals.next() => return Err(interrupted()),
    };
    let shown = with_server(&server, place, signals, keep).await;
    // Whoever asks twice does not want to wait for requests to finish.
    tokio::select! {
        _ = server.stop() => shown,
        _ = signals.next() => Err(interrupted()),
    }
}

async fn with_server(
    server: &Server,
    place: &Place,
    signals: &mut Signals,
    keep: bool,
) -> Result<Exit, Complaint> {
    let client = Client::new(&format!("http://{}", server.address()))?;
    let mut team = Team::assemble(client.server(), &place.workers_log())
        .map_err(|cause| Complaint::new(Exit::FAILED, format!("The agents cannot be started: {cause}.")))?;
    welcome(&client, place);
    let played = tokio::select! {
        played = play::run(&client, &mut team, place) => played,
        _ = signals.next() => Err(interrupted()),
        exit = server.failed() => Err(Complaint::new(exit, "The server failed.")),
    };
    let shown = match played {
        Ok(operation) => end(&client, place, &operation, keep),
        Err(complaint) => Err(complaint),
    };
    if keep && shown == Ok(Exit::DONE) {
        output::say(&format!("The server goes on at {} until Ctrl-C.", client.server()));
        tokio::select! {
            _ = signals.next() => {}
            exit = server.failed() => {
                team.dismiss().await;
                return Err(Complaint::new(exit, "The server failed."));
            }
        }
    }
    tokio::select! {
        () = team.dismiss() => shown,
        // The team's end is in its drop then.
        _ = signals.next() => Err(interrupted()),
    }
}

fn welcome(client: &Client, place: &Place) {
    let (folder, count) = (place.folder.display(), team::ROLES.len());
    output::say(&format!("A team of {count} agents, each a process of its own, reviews {folder}."));
    if let Some(busy) = place.busy_port {
        output::say(&format!("Port {busy} is in use, so the server takes a free one."));
    }
    output::say(&format!("The server listens on {}; nothing leaves this machine.\n", client.server()));
}

fn end(client: &Client, place: &Place, operation: &OperationView, keep: bool) -> Result<Exit, Complaint> {
    if operation.status != "completed" {
        let errors: String = operation.errors.iter().map(|error| format!("\n  {error}")).collect();
        let log = place.workers_log();
        let sentence = format!("The review is {}. See {}.{errors}", operation.status, log.display());
        return Err(Complaint::new(Exit::OPERATION_FAILED, sentence));
    }
    ending::tell(client, place, operation, keep)
}
