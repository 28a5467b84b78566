//! `photon event tail`: shows events as they happen. It comes back by itself when the server was away, and
//! goes on after the last event that it showed.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::super::connection::Connection;
use super::super::exit::{Complaint, Exit};
use super::super::output::{Format, Output, say, show};
use super::super::story::Story;
use super::Wanted;
use crate::client::{Client, ClientError, Frame, Outage};
use crate::http::event_view::EventView;

/// A stream that the server has ended is asked for again so soon.
const RETRY: Duration = Duration::from_millis(250);

const FAILED: &str = "The server cannot read its log; its own output says why.";

const GAP: &str = "What came after this is damaged: the server shows only what is whole of its log.";

/// Which to show.
#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Begin after this sequence; 0 is the beginning. Without it only new events are shown
    #[arg(long)]
    after: Option<u64>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: TailArgs) -> Result<Exit, Complaint> {
    let client = arguments.connection.client()?;
    let filters = arguments.wanted.filters(&client).await?;
    let after = arguments.after.map(|after| after.to_string());
    let mut told = Told { after, epoch: None, connected: false };
    let (mut ever, mut outage) = (false, Outage::default());
    loop {
        let ended = told.follow(&client, &filters, arguments.output.format).await;
        if std::mem::take(&mut told.connected) {
            (ever, outage) = (true, Outage::default());
        }
        let pause = match ended {
            Ok(Ended::NobodyReads) => return Ok(Exit::DONE),
            Ok(Ended::ByServer(retry)) => retry,
            Ok(Ended::Failed) => return Err(Complaint::new(Exit::FAILED, FAILED)),
            Err(Lost::Complaint(complaint)) => return Err(complaint),
            // A server that never was there is more likely misspelled than away.
            Err(Lost::Call(failure)) if !ever => return Err(failure.into()),
            Err(Lost::Call(failure)) => {
                let (pause, news) = outage.pause(failure)?;
                news.iter().for_each(|news| say(news));
                pause
            }
        };
        sleep(pause).await;
    }
}

/// How a stream ended.
enum Ended {
    /// To be asked for again after this.
    ByServer(Duration),
    Failed,
    NobodyReads,
}

/// Why a stream was lost.
enum Lost {
    Call(ClientError),
    Complaint(Complaint),
}

/// How far the tail has come.
struct Told {
    /// The sequence after which it goes on.
    after: Option<String>,
    /// The history that it is of, once the server has said it.
    epoch: Option<String>,
    /// Whether the last try reached the server.
    connected: bool,
}

impl Told {
    /// Shows one stream until it ends.
    async fn follow(
        &mut self,
        client: &Client,
        filters: &[(&'static str, String)],
        format: Format,
    ) -> Result<Ended, Lost> {
        let mut tail =
            client.tail(filters, self.after.as_deref(), self.epoch.as_deref()).await.map_err(Lost::Call)?;
        self.connected = true;
        let mut heard = false;
        while let Some(frame) = tail.next().await.map_err(Lost::Call)? {
            heard = true;
            if frame.name == "bye" && frame.data.contains(r#""failed""#) {
                return Ok(Ended::Failed);
            }
            if frame.name == "gap" {
                say(GAP);
                continue;
            }
            if frame.name == "bookmark"
                && let Ok(place) = serde_json::from_str::<serde_json::Value>(&frame.data)
            {
                self.epoch = place["epoch"].as_str().map(str::to_owned);
            }
            let event = !matches!(frame.name.as_str(), "bookmark" | "bye");
            if event && !show(&line(&frame, format)).map_err(Lost::Complaint)? {
                return Ok(Ended::NobodyReads);
            }
            // Only now: what was not shown is asked for again.
            self.after = frame.id.or(self.after.take());
        }
        // A stream that told nothing had no room.
        let retry = tail.retry().filter(|_| !heard);
        Ok(Ended::ByServer(retry.unwrap_or(RETRY)))
    }
}

fn line(frame: &Frame, format: Format) -> String {
    let event = serde_json::from_str::<EventView>(&frame.data);
    match (format, event) {
        (Format::Table, Ok(event)) => {
            let told = Story::default().line(&event);
            let EventView { sequence, time, kind, subject, .. } = event;
            format!("{sequence:>8}  {time}  {kind:<24}  {subject}  {told}").trim_end().to_owned()
        }
        // The very bytes that the server sent, one document a line.
        _ => frame.data.clone(),
    }
}
