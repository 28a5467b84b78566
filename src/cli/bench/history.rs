//! Owns the history that a restart is measured on: what a server would have written for operations of three
//! steps, decided by the domain itself and stored in the same form. Of a hundred operations 97 completed,
//! two failed, and one is still under way.

use std::collections::VecDeque;
use std::path::Path;

use actors::codec::{Durable, Metadata};
use actors::gateway::stream_of;
use chrono::Utc;
use domain::agent::event::{Config, Profile};
use domain::agent::selection::{Candidates, Excluded, Scored, Weights};
use domain::agent::{self, Agent};
use domain::operation::definition::{Definition, Location};
use domain::operation::event::StepError;
use domain::operation::{self, Operation, StepWish};
use domain::{AgentId, Given, Json, OperationId, Timestamp, World};
use events::{Append, Beside, BoxFuture, EventLog, Expected, Head, NewEvent, Options, SledLog};
use uuid::Uuid;

use super::fault::Fault;
use super::sample::{self, STEPS};

/// Agents that did the work.
const AGENTS: usize = 64;
/// Operations that are under way at once.
const ABREAST: usize = 64;
/// Appends that wait for the log at once.
const WAITING_MAX: usize = 1_024;
/// From one event to the next, in milliseconds.
const TICK_MS: u64 = 20;
/// An agent's slots: enough for those operations that never ended.
const SLOTS: u32 = 1_000;

/// Fills a folder with so many events or a few more, and says how many.
pub(super) async fn fill(folder: &Path, events: u64) -> Result<u64, Fault> {
    let mut options = Options::default();
    // Who asks for so many has room for them.
    options.disk_max_bytes = u64::MAX;
    let opened = SledLog::open(folder, options);
    let log = opened.map_err(|fault| Fault::Log(fault.to_string()))?;
    let written = Author::new(&log, events)?.write(events).await?;
    log.close().await.map_err(|fault| Fault::Log(fault.to_string()))?;
    Ok(written)
}

type Answer<'l> = BoxFuture<'l, Result<Head, events::AppendError>>;

struct Author<'l> {
    log: &'l SledLog,
    world: World,
    definition: Definition,
    agents: Vec<(AgentId, Option<Agent>)>,
    now: Timestamp,
    begun: u64,
    written: u64,
    waiting: VecDeque<Answer<'l>>,
}

/// One operation in the making, and what is next for it.
struct Story {
    id: OperationId,
    state: Option<Operation>,
    number: u64,
    agent: usize,
    step: u32,
    scene: Scene,
}

#[derive(Clone, Copy)]
enum Scene {
    Create,
    Reserve,
    Start,
    Settle,
    Over,
}

impl<'l> Author<'l> {
    fn new(log: &'l SledLog, events: u64) -> Result<Self, Fault> {
        let names = (0..AGENTS).map(|n| format!("bench-agent-{n}").parse());
        let names: Result<Vec<AgentId>, _> = names.collect();
        let names = names.map_err(|_| Fault::Protocol("an agent's name is not of its form"))?;
        let past_us = i64::try_from(events.saturating_mul(TICK_MS * 1_000)).unwrap_or(i64::MAX);
        Ok(Self {
            log,
            world: sample::world(),
            definition: sample::definition()?,
            agents: names.into_iter().map(|name| (name, None)).collect(),
            now: Timestamp::from_micros(Utc::now().timestamp_micros().saturating_sub(past_us)),
            begun: 0,
            written: 0,
            waiting: VecDeque::new(),
        })
    }

    async fn write(mut self, events: u64) -> Result<u64, Fault> {
        for agent in 0..AGENTS {
            self.ask_agent(agent, &register()).await?;
        }
        let mut stories = VecDeque::new();
        while self.written < events || !stories.is_empty() {
            if self.written < events && stories.len() < ABREAST {
                stories.push_back(self.begin()?);
                continue;
            }
            let Some(mut story) = stories.pop_front() else { break };
            self.tell(&mut story).await?;
            if !matches!(story.scene, Scene::Over) {
                stories.push_back(story);
            }
        }
        while let Some(answer) = self.waiting.pop_front() {
            answer.await?;
        }
        Ok(self.written)
    }

    fn begin(&mut self) -> Result<Story, Fault> {
        self.begun += 1;
        let agent = usize::try_from(self.begun).unwrap_or(0) % AGENTS;
        let (id, number) = (sample::operation_id()?, self.begun);
        Ok(Story { id, state: None, number, agent, step: 1, scene: Scene::Create })
    }

    /// Writes the next scene.
    async fn tell(&mut self, story: &mut Story) -> Result<(), Fault> {
        // The ones that end otherwise do so in their second step.
        let second = story.step == 2;
        let (fails, stays) = (second && story.number.is_multiple_of(50), second && story.number % 100 == 1);
        story.scene = match story.scene {
            Scene::Create => {
                let command = operation::Command::Create(Box::new(self.definition.clone()));
                self.ask_operation(story, &command).await?;
                Scene::Reserve
            }
            Scene::Reserve => {
                let agent = self.agents[story.agent].0.clone();
                let candidates = self.candidates(story.agent);
                let wish = StepWish::Reserve { agent, incarnation: 1, candidates };
                self.ask_step(story, wish).await?;
                Scene::Start
            }
            Scene::Start => {
                self.ask_step(story, StepWish::Acknowledge).await?;
                if stays { Scene::Over } else { Scene::Settle }
            }
            Scene::Settle => {
                self.ask_step(story, if fails { failure() } else { success() }).await?;
                story.step += 1;
                if fails || story.step > STEPS { Scene::Over } else { Scene::Reserve }
            }
            Scene::Over => Scene::Over,
        };
        Ok(())
    }

    async fn ask_step(&mut self, story: &mut Story, wish: StepWish) -> Result<(), Fault> {
        let command = operation::Command::Step { step: story.step, grant: 1, wish };
        self.ask_operation(story, &command).await
    }

    async fn ask_operation(&mut self, story: &mut Story, command: &operation::Command) -> Result<(), Fault> {
        let append = decide(&mut story.state, &story.id, command, &self.world, self.now)?;
        self.append(append).await
    }

    async fn ask_agent(&mut self, index: usize, command: &agent::Command) -> Result<(), Fault> {
        let (id, state) = &mut self.agents[index];
        let append = decide(state, id, command, &self.world, self.now)?;
        self.append(append).await
    }

    async fn append(&mut self, append: Append) -> Result<(), Fault> {
        self.now = self.now.plus_ms(TICK_MS);
        self.written += append.events.len() as u64;
        self.waiting.push_back(self.log.append(append));
        if self.waiting.len() < WAITING_MAX {
            return Ok(());
        }
        // Half of them: the log shall never run dry meanwhile.
        for answer in self.waiting.drain(..WAITING_MAX / 2) {
            answer.await?;
        }
        Ok(())
    }

    /// The chosen one and two others, as an explanation lists them.
    fn candidates(&self, chosen: usize) -> Candidates {
        let scored = |index: usize| Scored {
            agent: self.agents[index % AGENTS].0.clone(),
            score: 0.85,
            capability: 1.0,
            performance: 0.5,
            availability: 1.0,
            location: 1.0,
        };
        let ranked = (chosen..chosen + 3).map(scored).collect();
        Candidates { ranked, excluded: Excluded::default(), weights: Weights::default() }
    }
}

fn register() -> agent::Command {
    let profile = Profile {
        name: "bench".into(),
        model: "none".into(),
        capabilities: vec!["summary".into()],
        location: Location::Local,
        config: Config { max_concurrent_steps: SLOTS, ..Config::default() },
        metadata: Json::object(),
    };
    agent::Command::Register { profile: Box::new(profile), incarnation: None }
}

fn success() -> StepWish {
    StepWish::Complete { result: Json::from(sample::result()), usage: None }
}

fn failure() -> StepWish {
    let error = StepError { code: "no_such_tag".into(), message: "The repository has no tag v0.2.0.".into() };
    StepWish::Fail { error, retryable: false, retry_after_ms: None }
}

/// What a server would append for a command.
fn decide<A: Durable>(
    state: &mut Option<A>,
    id: &A::Id,
    command: &A::Command,
    world: &World,
    now: Timestamp,
) -> Result<Append, Fault> {
    let decided = A::decide(state.as_ref(), id, command, &Given { now, world });
    let decided = decided.map_err(|_| Fault::Protocol("the domain refused a part of the history"))?;
    let metadata = Metadata {
        actor: "anonymous".into(),
        correlation_id: Some(Uuid::now_v7().to_string()),
        ..Metadata::default()
    };
    let (metadata, mut events) = (metadata.encode(), Vec::with_capacity(decided.len()));
    for event in &decided {
        let encoded = A::encode(event).map_err(|fault| Fault::Log(fault.to_string()))?;
        events.push(NewEvent {
            id: Uuid::now_v7().into(),
            name: encoded.name.into(),
            schema: encoded.schema,
            time_us: now.as_micros(),
            metadata: metadata.clone(),
            body: encoded.body,
            beside: Beside::NONE,
        });
        *state = A::evolve(state.take(), event, now);
    }
    Ok(Append { stream: stream_of::<A>(id), expected: Expected::Any, events })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::codec::Stored;
    use domain::operation::Status;
    use domain::operation::definition::Priority;
    use domain::views::{Stamp, Views};
    use events::Position;
    use futures_util::StreamExt;

    #[actix_web::test]
    async fn a_history_is_one_that_views_can_fold() {
        let folder = tempfile::tempdir().unwrap();
        let written = fill(folder.path(), 5_000).await.unwrap();
        assert!((5_000..6_500).contains(&written));
        let log = SledLog::open(folder.path(), Options::default()).unwrap();
        let mut views = Views::default();
        let mut history = log.tail(Position::START).take(usize::try_from(written).unwrap());
        while let Some(event) = history.next().await {
            let event = event.unwrap();
            let at = Timestamp::from_micros(event.time_us);
            let stamp = Stamp { revision: event.version.get(), position: event.position.get(), at };
            if event.stream.category() == "operation" {
                let fact = <Operation as Stored>::decode(&event.name, event.schema, &event.body).unwrap();
                views.apply_operation(&event.stream.id().parse().unwrap(), &fact, stamp);
            } else {
                let fact = <Agent as Stored>::decode(&event.name, event.schema, &event.body).unwrap();
                views.apply_agent(&event.stream.id().parse().unwrap(), &fact, stamp);
            }
        }
        let count = |status| views.operations.count(status, Priority::Medium);
        assert_eq!(views.operations.open().len(), views.operations.len().div_ceil(100));
        assert_eq!(count(Status::Failed), views.operations.len() / 50);
        assert!(count(Status::Completed) > 200);
        assert_eq!(views.agents.len(), AGENTS);
        log.close().await.unwrap();
    }
}
