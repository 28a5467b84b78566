//! Given a history, when a command, then events: one aggregate put through its life by a test, with a
//! time that the test moves.

use crate::{Aggregate, Given, Timestamp, World};

/// One aggregate, its history and the test's time.
#[derive(Clone)]
pub struct Scenario<A: Aggregate> {
    /// Its name.
    pub id: A::Id,
    /// Its state; none before its first event.
    pub state: Option<A>,
    /// Everything that happened, and when.
    pub history: Vec<(A::Event, Timestamp)>,
    /// The time that the next command is told.
    pub now: Timestamp,
    /// What else the next command is told.
    pub world: World,
}

impl<A: Aggregate<Event: Clone>> Scenario<A> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(id: A::Id, world: World) -> Self {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        Self { id, state: None, history: Vec::new(), now, world }
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Takes these facts as having happened now.
    pub fn given(&mut self, events: &[A::Event]) {
        for event in events {
            self.state = A::evolve(self.state.take(), event, self.now);
            self.history.push((event.clone(), self.now));
        }
    }

    /// Puts a command, and takes what follows from it as having happened.
    ///
    /// # Errors
    /// The aggregate's rejection; nothing has happened then.
    pub fn when(&mut self, command: &A::Command) -> Result<Vec<A::Event>, A::Rejection> {
        let events = self.ask(command)?;
        self.given(&events);
        Ok(events)
    }

    /// What would follow from a command.
    ///
    /// # Errors
    /// The aggregate's rejection.
    pub fn ask(&self, command: &A::Command) -> Result<Vec<A::Event>, A::Rejection> {
        let given = Given { now: self.now, world: &self.world };
        A::decide(self.state.as_ref(), &self.id, command, &given)
    }
}
