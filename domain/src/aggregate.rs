//! The shape every aggregate has, and how its history is folded. Knows no aggregate by name.

use crate::{Timestamp, World};

/// What a decision may know beside its own state: the time it is told and the surroundings.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The moment of the decision; never earlier than that of the event before.
    pub now: Timestamp,
    /// Limits, platforms and who is registered.
    pub world: &'a World,
}

/// A consistency boundary: one stream of events, one state, one place where commands are decided.
///
/// `None` is the state before the first event.
pub trait Aggregate: Clone + Send + Sync + Unpin + 'static {
    /// First part of the stream's name, and what the stored events' names belong to.
    const CATEGORY: &'static str;
    /// Names one aggregate of this kind.
    type Id: Clone + Eq + std::hash::Hash + std::fmt::Display + Send + Sync + Unpin + 'static;
    /// A wish, imperative.
    type Command: Send + Unpin + 'static;
    /// A fact, past tense.
    type Event: Send + Sync + 'static;
    /// The domain says no, and why.
    type Rejection: Send + 'static;
    /// Work owed to the outside, derived from state alone.
    type Effect;

    /// Decides what follows from a command. A repetition yields no events rather than an error.
    ///
    /// # Errors
    /// The rejection that tells the caller why nothing was changed.
    fn decide(
        state: Option<&Self>,
        id: &Self::Id,
        command: &Self::Command,
        given: &Given<'_>,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Folds one fact that happened `at`. Total: history is never refused here.
    fn evolve(state: Option<Self>, event: &Self::Event, at: Timestamp) -> Option<Self>;

    /// What the world is owed in this state; the same after a recovery as before it.
    fn pending(&self) -> Vec<Self::Effect>;
}

/// Folds a whole history.
pub fn fold<'e, A: Aggregate>(history: impl IntoIterator<Item = (&'e A::Event, Timestamp)>) -> Option<A> {
    history.into_iter().fold(None, |state, (event, at)| A::evolve(state, event, at))
}
