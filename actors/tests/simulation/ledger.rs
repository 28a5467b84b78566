//! Reads the durable log after each step and holds every event against the promises. Owns what is known of
//! the history; it is told of signs of life and of answers, and asks the server nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use actors::aggregate_actor::Receipt;
use actors::codec::{Durable as Codec, Metadata, Stored};
use actors::effects::Periods;
use actors::gateway::stream_of;
use domain::agent::{Agent, Event as AgentEvent};
use domain::lane::{Event as LaneEvent, Lane};
use domain::operation::{Event, Operation};
use domain::{AgentId, Aggregate, LaneId, OperationId, Timestamp};
use events::{EventLog, Position, Recorded, Since, StreamId, Version};
use futures_util::{FutureExt, StreamExt};

use crate::course::{Course, Faults};
use crate::member::Member;
use crate::signs::{LATE_MS, Signs};
use crate::storage::Durable;

/// One aggregate's fold and its version.
pub(crate) struct Fold<A> {
    pub(crate) state: A,
    pub(crate) version: u64,
}

pub(crate) struct Ledger {
    pub(crate) durable: Durable,
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
    pub(crate) courses: BTreeMap<OperationId, Course>,
    pub(crate) crew: BTreeMap<AgentId, Member>,
    pub(crate) operations: BTreeMap<OperationId, Fold<Operation>>,
    pub(crate) agents: BTreeMap<AgentId, Fold<Agent>>,
    pub(crate) signs: Signs,
    pub(crate) touched: BTreeSet<OperationId>,
    pub(crate) touched_agents: BTreeSet<AgentId>,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) digest: blake3::Hasher,
    periods: Periods,
    versions: HashMap<StreamId, u64>,
    /// By what was asked: the append that its events stand in.
    appends: HashMap<String, usize>,
    lanes: BTreeMap<LaneId, (Timestamp, Timestamp)>,
    /// Slots whose leases are over, and since when.
    over: BTreeMap<(AgentId, domain::LeaseId), Timestamp>,
}

impl Ledger {
    pub(crate) fn new(durable: Durable, periods: Periods, crossing_ms: u64) -> Self {
        Self {
            durable,
            position: Position::START,
            time: Timestamp::default(),
            courses: BTreeMap::new(),
            crew: BTreeMap::new(),
            operations: BTreeMap::new(),
            agents: BTreeMap::new(),
            signs: Signs::new(periods, crossing_ms),
            touched: BTreeSet::new(),
            touched_agents: BTreeSet::new(),
            counts: BTreeMap::new(),
            digest: blake3::Hasher::new(),
            periods,
            versions: HashMap::new(),
            appends: HashMap::new(),
            lanes: BTreeMap::new(),
            over: BTreeMap::new(),
        }
    }

    /// Takes everything that has become durable since the last time.
    pub(crate) fn read(&mut self, trace: &mut Vec<String>, faults: &mut Faults) {
        loop {
            let page = self.durable.page(self.position, u64::MAX).now_or_never().unwrap().unwrap();
            let Some(last) = page.last() else { return };
            let last = last.position;
            for (index, event) in page.iter().enumerate() {
                let before = faults.len();
                self.take(event, faults);
                let append = self.durable.append_of(event.position);
                let next = page.get(index + 1).map(|next| self.durable.append_of(next.position));
                if next != Some(append)
                    && let Ok(id) = event.stream.id().parse()
                    && let Some(course) = self.courses.get(&id)
                {
                    course.rest(faults);
                }
                let said = format!("{} {} {} {}", event.position, self.time, event.stream, event.name);
                for fault in &mut faults[before..] {
                    fault.push_str(&format!(" — at {said}"));
                }
                trace.push(said);
            }
            self.position = last;
        }
    }

    fn take(&mut self, event: &Arc<Recorded>, faults: &mut Faults) {
        let at = Timestamp::from_micros(event.time_us);
        if event.position <= self.position {
            faults.push("P6: positions do not rise".into());
        }
        if at < self.time {
            faults.push(format!("P6: the time falls from {}", self.time));
        }
        (self.position, self.time) = (event.position, at);
        let version = self.versions.entry(event.stream.clone()).or_default();
        *version += 1;
        let version = *version;
        if event.version.get() != version {
            faults.push(format!("P6: version {} where {version} belongs", event.version));
        }
        *self.counts.entry(event.name.to_string()).or_default() += 1;
        self.hash(event);
        self.one_append(event, faults);
        match event.stream.category() {
            Operation::CATEGORY => self.of_operation(event, version, at, faults),
            Agent::CATEGORY => self.of_agent(event, version, at, faults),
            Lane::CATEGORY => self.of_lane(event, at),
            _ => {}
        }
    }

    fn hash(&mut self, event: &Recorded) {
        let head = format!("{} {} {} {}", event.position, event.stream, event.version, event.name);
        self.digest.update(head.as_bytes()).update(&event.time_us.to_le_bytes());
        self.digest.update(&event.metadata).update(&event.body);
    }

    /// All that one command led to stands in one append (P3).
    fn one_append(&mut self, event: &Recorded, faults: &mut Faults) {
        let Some(call) = Metadata::decode(&event.metadata).correlation_id else { return };
        let append = self.durable.append_of(event.position);
        let call = format!("{call} {}", event.stream);
        if *self.appends.entry(call.clone()).or_insert(append) != append {
            faults.push(format!("P3: what {call} led to stands in two appends"));
        }
    }

    fn of_operation(&mut self, event: &Recorded, version: u64, at: Timestamp, faults: &mut Faults) {
        let id: OperationId = event.stream.id().parse().unwrap();
        let decoded = Operation::decode(&event.name, event.schema, &event.body).unwrap();
        fold(&mut self.operations, &id, &decoded, version, at);
        self.touched.insert(id.clone());
        if let Event::Created(definition) = &decoded {
            if self.courses.insert(id.clone(), Course::of(&id, definition, at)).is_some() {
                faults.push("P13: it is created twice".into());
            }
            return;
        }
        if let Event::StepReserved(reserved) = &decoded {
            let member = self.crew.get(&reserved.agent);
            if !member.is_some_and(|member| member.leases.contains_key(&reserved.lease_id)) {
                faults.push(format!("slots: {} has no slot for {}", reserved.agent, reserved.lease_id));
            }
        }
        match self.courses.get_mut(&id) {
            Some(course) => course.take(&decoded, version, at, &self.signs, faults),
            None => faults.push("P13: it was not created".into()),
        }
    }

    fn of_agent(&mut self, event: &Recorded, version: u64, at: Timestamp, faults: &mut Faults) {
        let id: AgentId = event.stream.id().parse().unwrap();
        let decoded = Agent::decode(&event.name, event.schema, &event.body).unwrap();
        fold(&mut self.agents, &id, &decoded, version, at);
        self.touched_agents.insert(id.clone());
        let member = self.crew.entry(id.clone()).or_default();
        if let AgentEvent::Released(released) = &decoded {
            let lease = &released.lease_id;
            if self.courses.get(&lease.operation).and_then(|course| course.holder(lease)) == Some(&id) {
                faults.push(format!("slots: {lease} is released while it is held"));
            }
            self.over.remove(&(id.clone(), lease.clone()));
        }
        if let AgentEvent::Assigned(_) = &decoded
            && let Some((since, until)) = self.lanes.get(&LaneId::of_agent(&id, member.config()))
            && since.plus_ms(self.signs.crossing_ms) < at
            && at < *until
        {
            faults.push(format!("P15: {id} is given work though its lane is parked until {until}"));
        }
        member.take(&id, &decoded, at, &self.signs, faults);
    }

    fn of_lane(&mut self, event: &Recorded, at: Timestamp) {
        let id: LaneId = event.stream.id().parse().unwrap();
        match Lane::decode(&event.name, event.schema, &event.body).unwrap() {
            LaneEvent::Parked(parked) => {
                let since =
                    self.lanes.get(&id).filter(|(_, until)| *until > at).map_or(at, |(since, _)| *since);
                self.lanes.insert(id, (since, parked.until));
            }
            LaneEvent::Opened(_) => _ = self.lanes.remove(&id),
        }
    }

    /// Whether an answer speaks of what is durable (P1), and of its place (P6).
    pub(crate) fn answered<A: Codec>(&self, id: &A::Id, receipt: &Receipt<A>, faults: &mut Faults) {
        let (stream, version) = (stream_of::<A>(id), receipt.version.get());
        let many = receipt.events.len() as u64;
        let since = Since::Version(Version::new(version - many.max(1).min(version)));
        let kept: Vec<_> = self.durable.read(&stream, since).collect().now_or_never().unwrap();
        let kept: Vec<_> =
            kept.into_iter().map(Result::unwrap).take_while(|kept| kept.version.get() <= version).collect();
        if kept.last().map_or(0, |last| last.version.get()) != version {
            return faults.push(format!("P1: {stream} was said to be at {version} and is not"));
        }
        for (event, kept) in receipt.events.iter().zip(&kept) {
            if A::name(event) != &*kept.name {
                faults.push(format!(
                    "P1: {stream} was said to have {} and has {}",
                    A::name(event),
                    kept.name
                ));
            }
        }
        let last = kept.last().filter(|_| many > 0).map(|last| last.position);
        if receipt.position < last {
            faults.push(format!("P6: {stream}: the answer says {:?}, not {last:?}", receipt.position));
        }
    }

    /// Whatever waits is served in time (P15), and no slot stays behind.
    pub(crate) fn nothing_is_late(&mut self, now: Timestamp, quarantined: &[StreamId], faults: &mut Faults) {
        let calm = self.signs.undisturbed_since();
        let Periods { offer_ms, lease_ms, grace_ms, .. } = self.periods;
        for course in self.courses.values().filter(|course| course.end.is_none()) {
            if quarantined.contains(&stream_of::<Operation>(&course.id)) {
                continue;
            }
            let mut late = |since: Timestamp, ms: u64, what: &str| {
                let by = since.max(calm).plus_ms(ms + LATE_MS);
                if by < now {
                    faults.push(format!("P15: {what} of {} is late: {by} has passed", course.id));
                }
            };
            if let Some(deadline) = course.definition.deadline {
                late(deadline.max(course.defined_at), 0, "the deadline");
            }
            for (number, step) in &course.steps {
                if let Some(held) = &step.held {
                    let lease =
                        domain::LeaseId { operation: course.id.clone(), step: *number, grant: step.grant };
                    let renewed = self.signs.renewal_of(&lease).unwrap_or_default().max(held.since);
                    if held.running {
                        late(renewed, lease_ms, "the end of a lease");
                        late(held.since, step.definition.timeout_ms, "the end of an attempt");
                    } else {
                        late(held.since, offer_ms, "the end of an offer");
                    }
                }
                if let Some(until) = step.answer_by {
                    late(until, 0, "the end of a question");
                }
            }
        }
        self.slots_are_free(now, calm, grace_ms, quarantined, faults);
    }

    fn slots_are_free(
        &mut self,
        now: Timestamp,
        calm: Timestamp,
        grace_ms: u64,
        quarantined: &[StreamId],
        faults: &mut Faults,
    ) {
        for (agent, member) in &self.crew {
            if quarantined.contains(&stream_of::<Agent>(agent)) {
                continue;
            }
            for lease in member.leases.keys() {
                let key = (agent.clone(), lease.clone());
                let course = self.courses.get(&lease.operation);
                if course.and_then(|course| course.holder(lease)) == Some(agent) {
                    self.over.remove(&key);
                    continue;
                }
                let since = *self.over.entry(key).or_insert(now);
                if since.max(calm).plus_ms(grace_ms + LATE_MS) < now {
                    faults.push(format!("slots: {lease} of {agent} is over since {since} and not free"));
                }
            }
        }
    }
}

fn fold<A: Aggregate>(
    folds: &mut BTreeMap<A::Id, Fold<A>>,
    id: &A::Id,
    event: &A::Event,
    version: u64,
    at: Timestamp,
) where
    A::Id: Ord,
{
    let before = folds.remove(id).map(|fold| fold.state);
    if let Some(state) = A::evolve(before, event, at) {
        folds.insert(id.clone(), Fold { state, version });
    }
}
