//! The steps that wait for an agent, filed by what they ask for. Derived from the views alone: it says
//! which step comes next, never who gets it, and it reserves nothing.
//!
//! The steps of one operation that ask for the same stand in a *line*, oldest first. The lines that ask
//! for the same stand in that ask's queue, by class and then by their operation's turn. So the next step
//! of an ask is the first of the first line, and steps that nobody takes are never looked at one by one.
//!
//! A line's class is its operation's priority, raised by one for each `starvation_ms` that its oldest
//! step has waited. Age changes the order, never whether a step can be taken, so nobody is woken for it:
//! it is brought up to date whenever something is matched.

mod ask;
mod few;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, DefaultHasher, Hasher};

use domain::agent::Agent;
use domain::operation::definition::Priority;
use domain::operation::step::Run;
use domain::views::operation_board::Row;
use domain::{AgentId, OperationId, Timestamp};

use crate::timers::Timers;
pub(crate) use ask::Ask;
use ask::{Door, Filed};
pub use ask::{Scene, WORKER};
use few::Few;

/// The index. Bounded by the ready steps, and by those that wait for a moment to be.
#[derive(Debug)]
pub struct Ready {
    starvation_ms: u64,
    operations: HashMap<OperationId, Entered>,
    asks: HashMap<Ask, Asked>,
    doors: HashMap<Door, BTreeSet<Ask>>,
    /// Asks that somebody who waited before may take now.
    fresh: BTreeSet<Ask>,
    /// Steps that stand elsewhere from a moment on: the end of a back-off, of being kept from an agent.
    later: Timers<(OperationId, usize)>,
    /// Lines that rise to the next class.
    rising: BTreeSet<(Timestamp, OperationId, Ask)>,
    last_turn: u64,
    /// Asks that prefer other agents to one that failed a step of them.
    avoiding: BTreeSet<Ask>,
    /// Turns what is asked for into a number.
    asking: Asking,
}

/// Hashes what is asked for. Its seed differs between processes, so that no client can aim at the index.
#[derive(Clone, Copy, Debug)]
struct Asking(u64);

impl BuildHasher for Asking {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// An operation with ready steps.
#[derive(Debug)]
struct Entered {
    priority: Priority,
    agents: Vec<AgentId>,
    /// Lower ones are served first; whoever was served gets the highest.
    turn: u64,
    /// How many more of its steps may be under way at once.
    room: usize,
    filed: Few<usize, Filed>,
    /// Steps that have a moment in `later`.
    later: BTreeSet<usize>,
    lines: Few<Ask, Line>,
    /// Lines that were taken out of their queues since there was no room.
    parked: BTreeSet<Ask>,
}

/// Place in an ask's queue: class, 0 being the most urgent, and turn.
type Place = (usize, u64);

#[derive(Debug, Default)]
struct Line {
    steps: Few<(Timestamp, usize), ()>,
    place: Option<Place>,
    rises_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Asked {
    door: Door,
    /// How many operations ask for it.
    lines: usize,
    queue: BTreeMap<Place, OperationId>,
}

/// The next step of an ask. The least one goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Front {
    place: Place,
    since: Timestamp,
    /// The step's position in its workflow.
    pub(crate) position: usize,
    /// What it asks for.
    pub(crate) ask: Ask,
    /// Its operation.
    pub(crate) operation: OperationId,
}

impl Ready {
    /// Nothing is ready yet. A step that waited `starvation_ms` rises one class; `seed` is of the hashes of
    /// what steps ask for.
    #[must_use]
    pub fn new(starvation_ms: u64, seed: u64) -> Self {
        Self {
            starvation_ms: starvation_ms.max(1),
            operations: HashMap::new(),
            asks: HashMap::new(),
            doors: HashMap::new(),
            fresh: BTreeSet::new(),
            later: Timers::default(),
            rising: BTreeSet::new(),
            last_turn: 0,
            avoiding: BTreeSet::new(),
            asking: Asking(seed),
        }
    }

    /// Looks at an operation that changed, and at those of its steps that moved.
    pub fn look(&mut self, scene: Scene<'_>, id: &OperationId, moved: impl IntoIterator<Item = usize>) {
        let entered = self.operations.remove(id);
        let Some((row, run)) = scene.offered(id) else {
            return entered.into_iter().for_each(|entered| self.dissolve(id, entered));
        };
        let mut entered = entered.unwrap_or_else(|| self.enter(row));
        if entered.filed.is_empty() {
            self.last_turn += 1;
            entered.turn = self.last_turn;
        }
        let mut moved: BTreeSet<usize> = moved.into_iter().collect();
        if (entered.priority, &entered.agents) != (row.priority, &row.agents) {
            moved.extend(entered.filed.keys());
            (entered.priority, entered.agents) = (row.priority, row.agents.clone());
        }
        let mut touched = self.refile_all(scene, (id, row, run), &mut entered, moved);
        entered.room = scene.room(id, run);
        if entered.room > 0 {
            let parked = std::mem::take(&mut entered.parked);
            self.fresh.extend(&parked);
            touched.extend(parked);
        }
        for ask in touched {
            self.place(id, &mut entered, ask, scene.now);
        }
        if !(entered.filed.is_empty() && entered.later.is_empty()) {
            self.operations.insert(id.clone(), entered);
        }
    }

    /// Brings the index up to this moment.
    pub fn advance(&mut self, scene: Scene<'_>) {
        while let Some((id, position)) = self.later.take_due(scene.now) {
            self.look(scene, &id, [position]);
        }
        while let Some((at, ..)) = self.rising.first()
            && *at <= scene.now
            && let Some((_, id, ask)) = self.rising.pop_first()
        {
            self.place_again(&id, ask, scene.now);
        }
    }

    /// The next moment at which a step may be taken though nothing happens.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        self.later.next()
    }

    /// Whether something is offered that somebody who waited before may take now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// An agent has come, left or changed: who is preferred to whom may be another now.
    pub fn refresh_avoided(&mut self) {
        self.fresh.extend(&self.avoiding);
    }

    /// Takes the asks that somebody who waited before may take now.
    pub(crate) fn take_fresh(&mut self) -> BTreeSet<Ask> {
        std::mem::take(&mut self.fresh)
    }

    /// The asks that this agent may serve, as far as its doors tell.
    pub(crate) fn asks_for(&self, id: &AgentId, agent: &Agent) -> impl Iterator<Item = Ask> {
        let own = agent.profile.capabilities.iter().cloned().map(Door::Capability);
        let doors = own.chain([Door::Agent(id.clone()), Door::Anyone]);
        doors.filter_map(|door| self.doors.get(&door)).flatten().copied()
    }

    /// The next step of an ask, if it has one that its operation has room for.
    pub(crate) fn front(&mut self, ask: Ask) -> Option<Front> {
        let asked = self.asks.get_mut(&ask)?;
        loop {
            let first = asked.queue.first_entry()?;
            let place = *first.key();
            let entered = self.operations.get_mut(first.get())?;
            let line = entered.lines.get_mut(ask)?;
            if entered.room == 0 {
                line.place = None;
                entered.parked.insert(ask);
                first.remove();
            } else if entered.turn != place.1 {
                // Its operation was served by another line since: it goes where that one went.
                let operation = first.remove();
                let place = (place.0, entered.turn);
                line.place = Some(place);
                asked.queue.insert(place, operation);
            } else {
                let (since, position) = line.steps.first()?;
                return Some(Front { place, since, position, ask, operation: first.get().clone() });
            }
        }
    }

    /// Whether a step still stands where it is filed; a change that says otherwise may be on its way.
    pub(crate) fn stands(&self, scene: Scene<'_>, front: &Front) -> bool {
        let id = &front.operation;
        let filed = scene
            .offered(id)
            .and_then(|(row, run)| scene.filed((id, row, run), front.position, &self.asking));
        filed.is_some_and(|filed| (filed.ask, filed.since) == (front.ask, front.since))
    }

    /// Takes a step out that is granted: the operation's next one waits for its turn.
    pub(crate) fn take(&mut self, front: &Front, now: Timestamp) {
        self.last_turn += 1;
        if let Some(entered) = self.operations.get_mut(&front.operation) {
            entered.turn = self.last_turn;
            entered.room = entered.room.saturating_sub(1);
        }
        self.forget(front, now);
    }

    /// Takes a step out; the next look at it files it again.
    pub(crate) fn forget(&mut self, front: &Front, now: Timestamp) {
        if let Some(entered) = self.operations.get_mut(&front.operation) {
            entered.remove(front.position);
            self.place_again(&front.operation, front.ask, now);
        }
    }

    fn enter(&mut self, row: &Row) -> Entered {
        self.last_turn += 1;
        Entered {
            priority: row.priority,
            agents: row.agents.clone(),
            turn: self.last_turn,
            room: 0,
            filed: Few::default(),
            later: BTreeSet::new(),
            lines: Few::default(),
            parked: BTreeSet::new(),
        }
    }

    /// Files steps where they stand now. Returns the lines that have to be placed anew.
    fn refile_all(
        &mut self,
        scene: Scene<'_>,
        (id, row, run): (&OperationId, &Row, &Run),
        entered: &mut Entered,
        moved: BTreeSet<usize>,
    ) -> BTreeSet<Ask> {
        let mut touched = BTreeSet::new();
        for position in moved {
            match scene.moves_at(run, position) {
                Some(at) => {
                    entered.later.insert(position);
                    self.later.set((id.clone(), position), at);
                }
                None => {
                    entered.later.remove(&position);
                    self.later.clear(&(id.clone(), position));
                }
            }
            touched.extend(entered.remove(position));
            let Some(filed) = scene.filed((id, row, run), position, &self.asking) else { continue };
            if filed.avoids {
                self.avoiding.insert(filed.ask);
            }
            if entered.insert(position, filed) {
                let door = || Door::of(row, &run.skeleton.steps[position]);
                self.ask(filed.ask, door).lines += 1;
            }
            self.fresh.insert(filed.ask);
            touched.insert(filed.ask);
        }
        touched
    }

    fn ask(&mut self, ask: Ask, door: impl FnOnce() -> Door) -> &mut Asked {
        match self.asks.entry(ask) {
            Entry::Occupied(asked) => asked.into_mut(),
            Entry::Vacant(vacant) => {
                let door = door();
                self.doors.entry(door.clone()).or_default().insert(ask);
                vacant.insert(Asked { door, lines: 0, queue: BTreeMap::new() })
            }
        }
    }

    fn place_again(&mut self, id: &OperationId, ask: Ask, now: Timestamp) {
        if let Some(mut entered) = self.operations.remove(id) {
            self.place(id, &mut entered, ask, now);
            self.operations.insert(id.clone(), entered);
        }
    }

    /// Puts a line where it belongs by its oldest step, and an empty one nowhere.
    fn place(&mut self, id: &OperationId, entered: &mut Entered, ask: Ask, now: Timestamp) {
        let Some(line) = entered.lines.get_mut(ask) else { return };
        self.displace(id, line, ask);
        let Some((since, _)) = line.steps.first() else {
            entered.lines.remove(ask);
            entered.parked.remove(&ask);
            return self.leave(ask);
        };
        let risen = now.ms_since(since) / self.starvation_ms;
        let class = (entered.priority as usize).saturating_sub(usize::try_from(risen).unwrap_or(usize::MAX));
        if class > 0 {
            let at = since.plus_ms(self.starvation_ms.saturating_mul(risen + 1));
            line.rises_at = Some(at);
            self.rising.insert((at, id.clone(), ask));
        }
        let place = (class, entered.turn);
        line.place = Some(place);
        if let Some(asked) = self.asks.get_mut(&ask) {
            asked.queue.insert(place, id.clone());
        }
    }

    fn displace(&mut self, id: &OperationId, line: &mut Line, ask: Ask) {
        if let Some(at) = line.rises_at.take() {
            self.rising.remove(&(at, id.clone(), ask));
        }
        if let (Some(place), Some(asked)) = (line.place.take(), self.asks.get_mut(&ask)) {
            asked.queue.remove(&place);
        }
    }

    /// One operation less asks for it.
    fn leave(&mut self, ask: Ask) {
        let Entry::Occupied(mut asked) = self.asks.entry(ask) else { return };
        asked.get_mut().lines -= 1;
        if asked.get().lines > 0 {
            return;
        }
        let door = asked.remove().door;
        if let Entry::Occupied(mut asks) = self.doors.entry(door) {
            asks.get_mut().remove(&ask);
            if asks.get().is_empty() {
                asks.remove();
            }
        }
        self.fresh.remove(&ask);
        self.avoiding.remove(&ask);
    }

    /// Takes an operation out that offers nothing any more.
    fn dissolve(&mut self, id: &OperationId, mut entered: Entered) {
        for position in entered.later {
            self.later.clear(&(id.clone(), position));
        }
        for (ask, mut line) in entered.lines.drain() {
            self.displace(id, &mut line, ask);
            self.leave(ask);
        }
    }
}

impl Entered {
    /// Returns the line that lost a step.
    fn remove(&mut self, position: usize) -> Option<Ask> {
        let Filed { ask, since, .. } = self.filed.remove(position)?;
        self.lines.get_mut(ask)?.steps.remove((since, position));
        Some(ask)
    }

    /// Says whether the line is a new one.
    fn insert(&mut self, position: usize, filed: Filed) -> bool {
        self.filed.insert(position, filed);
        let new = !self.lines.contains(filed.ask);
        self.lines.or_default(filed.ask).steps.insert((filed.since, position), ());
        new
    }
}
