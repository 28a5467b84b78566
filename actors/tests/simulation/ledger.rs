//! Reads the durable log after each step and holds every event against the promises. Owns what is known of
//! the history; it is told of signs of life and of answers, and asks the server nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use actors::aggregate_actor::Receipt;
use actors::codec::{Durable as Codec, Metadata, Stored};
use actors::effects::Periods;
use actors::gateway::stream_of;
use domain::agent::Agent;
use domain::lane::{Event as LaneEvent, Lane};
use domain::operation::event::{CloseReason, LeaseEnd, StepReserved};
use domain::operation::{Event, Operation};
use domain::{AgentId, Aggregate, LaneId, OperationId, Timestamp};
use events::{EventLog, Position, Recorded, Since, StreamId, Version};
use futures_util::{FutureExt, StreamExt};

use crate::course::{Course, Faults, Slot};
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
        let Some(course) = self.courses.get_mut(&id) else {
            return faults.push("P13: it was not created".into());
        };
        let avoided = match &decoded {
            Event::StepReserved(reserved) => course
                .steps
                .get(&reserved.step)
                .and_then(|step| Some((step.retry_at?, step.failed_by.clone()?))),
            _ => None,
        };
        course.take(&decoded, version, at, &self.signs, faults);
        for (slot, how) in course.take_ended() {
            let Some(member) = self.crew.get_mut(&slot.agent) else { continue };
            member.note(&slot, &how, at);
            if let Some(why) = lost_by(&decoded) {
                member.must_be_lost(&slot, why, &self.signs, faults);
            }
        }
        if let Event::StepReserved(reserved) = &decoded {
            self.reserved(reserved, at, faults);
            if let Some((due, failed)) = avoided.filter(|(_, failed)| *failed == reserved.agent) {
                self.elsewhere(&id, reserved, due, &failed, faults);
            }
        }
    }

    /// The agent has room for it, and its account is open.
    fn reserved(&self, reserved: &StepReserved, at: Timestamp, faults: &mut Faults) {
        let (agent, incarnation) = (&reserved.agent, reserved.incarnation);
        let Some(member) = self.crew.get(agent) else {
            return faults.push(format!("slots: there is no {agent}"));
        };
        let all = self.courses.values().flat_map(Course::slots);
        let same: Vec<Slot> =
            all.filter(|slot| slot.agent == *agent && slot.incarnation == incarnation).collect();
        if let Some(slot) = same.iter().find(|slot| slot.lease == reserved.lease_id) {
            member.must_take(slot, same.len(), &self.signs, faults);
        }
        if let Some((since, until)) = self.lanes.get(&LaneId::of_agent(agent, &member.config()))
            && since.plus_ms(self.signs.crossing_ms) < at
            && at < *until
        {
            faults.push(format!("P15: {agent} is given work though its lane is parked until {until}"));
        }
    }

    /// A step that was due again a moment ago goes to the agent that failed it: nobody else could take it.
    fn elsewhere(
        &self,
        id: &OperationId,
        reserved: &StepReserved,
        due: Timestamp,
        failed: &AgentId,
        faults: &mut Faults,
    ) {
        let (course, at) = (&self.courses[id], self.time);
        let step = &course.steps[&reserved.step];
        if at >= due.plus_ms(self.periods.retry_elsewhere_ms) || self.signs.crosses(course.defined_at, at) {
            return;
        }
        let another = self.crew.iter().find(|(other, member)| {
            let asked = step.definition.agent.as_ref().is_none_or(|only| only == *other);
            let listed = course.definition.agents.is_empty() || course.definition.agents.contains(other);
            let kept =
                step.kept_from.iter().any(|(from, until)| from == *other && self.signs.crosses(*until, at));
            let parked = self
                .lanes
                .get(&LaneId::of_agent(other, &member.config()))
                .is_some_and(|(_, until)| self.signs.crosses(*until, at));
            *other != failed
                && asked
                && listed
                && !kept
                && !parked
                && member.was_able(&step.definition, at, &self.signs)
        });
        if let Some((other, _)) = another {
            faults.push(format!("retries: {} goes back to {failed} before {other}", reserved.lease_id));
        }
    }

    fn of_agent(&mut self, event: &Recorded, version: u64, at: Timestamp, faults: &mut Faults) {
        let id: AgentId = event.stream.id().parse().unwrap();
        let decoded = Agent::decode(&event.name, event.schema, &event.body).unwrap();
        fold(&mut self.agents, &id, &decoded, version, at);
        self.touched_agents.insert(id.clone());
        self.crew.entry(id.clone()).or_default().take(&id, &decoded, at, &self.signs, faults);
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
    pub(crate) fn nothing_is_late(&self, now: Timestamp, quarantined: &[StreamId], faults: &mut Faults) {
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
        for (agent, member) in &self.crew {
            let since = member.condemned_since().map(|since| since.max(calm).plus_ms(LATE_MS));
            if since.is_some_and(|by| by < now) && !quarantined.contains(&stream_of::<Agent>(agent)) {
                faults.push(format!("quarantine: {agent} is still in service: {member:?}"));
            }
        }
    }

    /// What is closing becomes free, and what its agent has lost is taken from it.
    fn slots_are_free(
        &self,
        now: Timestamp,
        calm: Timestamp,
        grace_ms: u64,
        quarantined: &[StreamId],
        faults: &mut Faults,
    ) {
        for course in self.courses.values() {
            if quarantined.contains(&stream_of::<Operation>(&course.id)) {
                continue;
            }
            for slot in course.slots() {
                let closes = slot.closing.map(|since| since.max(calm).plus_ms(grace_ms));
                let lost = self.crew.get(&slot.agent).and_then(|agent| agent.lost_since(slot.incarnation));
                let lost = lost.map(|lost| lost.max(slot.reserved_at).max(calm));
                if closes.into_iter().chain(lost).any(|by| by.plus_ms(LATE_MS) < now) {
                    faults.push(format!("slots: {slot:?} is over and not free"));
                }
            }
        }
    }
}

/// Why an event says that a lease was lost.
fn lost_by(event: &Event) -> Option<LeaseEnd> {
    Some(match event {
        Event::StepLeaseLost(lost) => lost.reason,
        Event::StepOfferExpired(expired) => expired.reason,
        Event::LeaseClosed(closed) => match closed.why {
            CloseReason::AgentTimeout => LeaseEnd::AgentTimeout,
            CloseReason::AgentUnregistered => LeaseEnd::AgentUnregistered,
            CloseReason::NewIncarnation => LeaseEnd::NewIncarnation,
            CloseReason::Reported | CloseReason::GraceExpired | CloseReason::Revoked => return None,
        },
        _ => return None,
    })
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
