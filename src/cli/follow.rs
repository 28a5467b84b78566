//! Owns how a command follows an operation: long polls, the story of what happened since, the timeline. It
//! waits through outages of the server. It must never decide what to do about what it sees.

use std::time::{Duration, Instant};

use domain::Timestamp;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::canvas::Canvas;
use super::story::{Story, is_detail};
use super::terminal::{self, Style, between, span};
use super::timeline;
use super::waits::Waits;
use crate::client::{Client, ClientError, Outage};
use crate::http::operation_view::OperationView;

/// How often what is drawn moves on.
const FRAME: Duration = Duration::from_millis(100);
/// Events told at once; an operation that moves faster tells the rest the next time.
const TOLD_MAX: usize = 2_000;

/// Follows one operation.
pub(super) struct Follower {
    client: Client,
    pub(super) canvas: Canvas,
    pub(super) style: Style,
    story: Story,
    waits: Waits,
    /// The last event that was told.
    sequence: String,
    /// As it was seen last.
    pub(super) seen: OperationView,
    /// How long the server may be away; without it, as long as it likes.
    pub(super) patience: Option<Duration>,
    /// Whether events that only add details are left out.
    pub(super) brief: bool,
}

impl Follower {
    /// Begins with an operation as it stands; what happened before is told first.
    pub(super) fn new(client: Client, operation: OperationView, canvas: Canvas, style: Style) -> Self {
        let story = Story::of(&operation);
        Self {
            client,
            canvas,
            style,
            story,
            waits: Waits::default(),
            sequence: "0".into(),
            seen: operation,
            patience: None,
            brief: false,
        }
    }

    /// Tells what happened since the last time, without waiting.
    pub(super) async fn catch_up(&mut self) -> Result<(), ClientError> {
        let filters = [("operation", self.seen.id.clone()), ("after", self.sequence.clone())];
        let events = self.client.events(&filters, TOLD_MAX).await?;
        let told = events.iter().filter(|event| !(self.brief && is_detail(&event.kind)));
        let told = told.map(|event| self.told_at(event.time, &self.story.line(event)));
        let told: Vec<String> = told.collect();
        self.sequence = events.last().map_or_else(|| self.sequence.clone(), |last| last.sequence.clone());
        self.draw();
        if !told.is_empty() {
            self.canvas.say(&told.join("\n"));
        }
        Ok(())
    }

    /// Tells what the operation waits for; `quiet` when nothing has happened for a while.
    pub(super) async fn tell_waits(&mut self, quiet: bool) {
        let news = self.waits.news(&self.client, &self.seen, quiet).await;
        news.iter().for_each(|news| self.tell(news));
    }

    /// Tells something that no event says.
    pub(super) fn tell(&mut self, sentence: &str) {
        let line = self.told_at(terminal::now(), sentence);
        self.canvas.say(&line);
    }

    /// A sentence after the time since the operation was created.
    fn told_at(&self, moment: Timestamp, sentence: &str) -> String {
        format!("{:>8}  {sentence}", span(between(self.seen.created_at, moment)))
    }

    /// Waits until the operation changes, has ended, or the wait is over; tells what happened.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<&OperationView, ClientError> {
        let (begun, mut outage) = (Instant::now(), Outage::default());
        loop {
            match self.poll(wait).await {
                Ok(()) => {
                    outage.over().iter().for_each(|news| self.tell(news));
                    return Ok(&self.seen);
                }
                Err(failure) if self.patience.is_some_and(|most| begun.elapsed() > wait + most) => {
                    return Err(failure);
                }
                Err(failure) => {
                    let (pause, news) = outage.pause(failure)?;
                    news.iter().for_each(|news| self.tell(news));
                    sleep(pause).await;
                }
            }
        }
    }

    async fn poll(&mut self, wait: Duration) -> Result<(), ClientError> {
        let (client, id) = (self.client.clone(), self.seen.id.clone());
        let poll = client.operation_after(&id, wait, Some(self.seen.revision + 1));
        let mut poll = std::pin::pin!(poll);
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.seen = loop {
            tokio::select! {
                answer = &mut poll => break answer?,
                _ = frames.tick() => self.draw(),
            }
        };
        self.catch_up().await
    }

    fn draw(&mut self) {
        self.canvas.draw(timeline::rows(&self.seen, terminal::now(), self.style));
    }
}
